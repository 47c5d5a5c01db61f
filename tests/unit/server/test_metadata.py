"""Metadata of models. The rules were observed on Triton 2.51."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import pytriton_lite as ptl
from tests.support.repository import RepositoryBuilder, echo_model

Serve = Callable[..., ptl.Server]

IN = 'input [ { name: "IN" data_type: TYPE_FP32 dims: [ 2 ] } ]'
OUT = 'output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 2 ] } ]'


def tensor(name: str, shape: list[int], datatype: str = "FP32") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}


@pytest.mark.parametrize(
    ("config", "inputs", "outputs"),
    [
        (f"{IN} {OUT}", [tensor("IN", [2])], [tensor("OUT", [2])]),
        # A batch dimension is written as -1.
        (f"max_batch_size: 4 {IN} {OUT}", [tensor("IN", [-1, 2])], [tensor("OUT", [-1, 2])]),
        # Strings have the protocol's name.
        (
            f'input [ {{ name: "IN" data_type: TYPE_STRING dims: [ -1 ] }} ] {OUT}',
            [tensor("IN", [-1], "BYTES")],
            [tensor("OUT", [2])],
        ),
        # `reshape` and `optional` do not show.
        (
            'input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } '
            f"optional: true }} ] {OUT}",
            [tensor("IN", [4])],
            [tensor("OUT", [2])],
        ),
        # The order is that of the configuration.
        (
            'input [ { name: "Z" data_type: TYPE_BOOL dims: [ 1 ] }, { name: "A" '
            f"data_type: TYPE_UINT8 dims: [ 1 ] }} ] {OUT}",
            [tensor("Z", [1], "BOOL"), tensor("A", [1], "UINT8")],
            [tensor("OUT", [2])],
        ),
        ("", [], []),
    ],
)
def test_tensors(
    repository: RepositoryBuilder,
    serve: Serve,
    config: str,
    inputs: list[dict[str, Any]],
    outputs: list[dict[str, Any]],
) -> None:
    repository.model("m", echo_model(), config='backend: "python" ' + config)
    assert serve()["m"].metadata() == {
        "name": "m",
        "versions": ["1"],
        "platform": "python",
        "inputs": inputs,
        "outputs": outputs,
    }


def test_versions_and_platform(repository: RepositoryBuilder, serve: Serve) -> None:
    repository.backend("mine", echo_model())
    config = f'backend: "mine" version_policy {{ all {{ }} }} {IN} {OUT}'
    for version in (2, 10, 3):
        repository.model("m", config=config, version=version)
    server = serve()
    metadata = server["m"].metadata()
    assert (metadata["versions"], metadata["platform"]) == (["2", "3", "10"], "mine")
    # All that are ready, of each version.
    assert server.model("m", 3).metadata() == metadata
