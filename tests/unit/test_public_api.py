"""What users may rely on: every change of these names is a decision."""

from __future__ import annotations

import inspect

import pytest

import pytriton_lite as ptl

PUBLIC = [
    "AlreadyExistsError",
    "BackendRecord",
    "BackendTable",
    "CancelledError",
    "CompatibilityWarning",
    "ConfigError",
    "ConfigExplanation",
    "ConfigOrigin",
    "ConfigValue",
    "DataType",
    "ErrorCode",
    "FormedBatch",
    "InferenceRequest",
    "InferenceResponse",
    "InternalError",
    "InvalidArgumentError",
    "Model",
    "ModelBatchFlag",
    "ModelControlMode",
    "ModelIndexEntry",
    "ModelLoadError",
    "ModelState",
    "ModelTxnPropertyFlag",
    "NotFoundError",
    "Options",
    "RequestTimeoutError",
    "Server",
    "Tensor",
    "Timings",
    "TritonError",
    "TritonPythonModel",
    "UnavailableError",
    "UnknownError",
    "UnsupportedError",
    "__version__",
    "errors",
    "pb_utils",
]


def test_public_names():
    assert sorted(ptl.__all__) == PUBLIC
    public = {name for name in dir(ptl) if name[0] != "_" and name != "annotations"}
    modules = {
        name
        for name in public - set(ptl.__all__)
        if inspect.ismodule(getattr(ptl, name))  # submodules join when they are imported
    }
    assert public - modules == set(PUBLIC) - {"__version__"}


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_every_public_name_is_documented(name):
    value = getattr(ptl, name)
    # An inherited docstring, such as that of `Exception`, tells nothing.
    assert value.__doc__
    if not inspect.isclass(value):
        return
    assert value.__doc__ not in [base.__doc__ for base in value.__mro__[1:]]
    inherited = {member for base in value.__mro__[1:] for member in vars(base)}
    for member in vars(value).keys() - inherited:
        attribute = inspect.getattr_static(value, member)
        if member[0] != "_" and (
            callable(attribute)
            or isinstance(attribute, classmethod)
            or inspect.isdatadescriptor(attribute)
        ):
            # Plain fields are described in the docstring of their class.
            assert inspect.getdoc(attribute) or member in value.__doc__, member
