"""Checks that look into the model folder: labels, warmup samples, states, batching library.

Their order is Triton's: labels when the model is made, the batching library with its settings,
warmup samples with the instances, initial states with the scheduler. All texts were seen on
Triton 2.51.
"""

from __future__ import annotations

import os
import struct
from typing import NoReturn

from .._dtypes import BY_CONFIG_NAME, BY_NUMBER
from ..errors import ConfigError, ErrorCode, UnsupportedError
from .schema import ConfigMessage
from .suggest import with_note

_STRING = BY_CONFIG_NAME["TYPE_STRING"].number
_BATCH_STRATEGY = "TRITON_BATCH_STRATEGY_PATH"
_WILDCARD = -1
# Triton's samples have no request id.
_NO_ID = "[request id: <id_unknown>] "
_BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be "
    "prepended to each input shape. If you want to specify the full shape including the batch dim "
    "in your input dims config, try setting max_batch_size to zero. See the model configuration "
    "docs for more info on max_batch_size."
)


def _fail(
    message: ConfigMessage, text: str, *, at: str | None = None, file: str | None = None
) -> NoReturn:
    """Raise; `at` is the field."""
    raise ConfigError(text, model=message.name, field=at, file=file)


def check_model_files(message: ConfigMessage, model_folder: str) -> None:
    """Check what the configuration says of files in the model folder, and what it needs of them.

    Parameters
    ----------
    message
        Configuration that passed ``validate.validate_io``.
    model_folder
        The model folder.

    Raises
    ------
    ConfigError
        The first check that fails; ``file`` is set where a file is missing or too small.
    """
    read_labels(message, model_folder)
    _check_batch_strategy(message)
    check_warmup(message, model_folder)
    _check_initial_states(message, model_folder)


def _join(*parts: str) -> str:
    """Join as Triton does: a path that begins with a slash is below the folder, too."""
    return os.path.join(parts[0], *(part.lstrip("/") for part in parts[1:]))


def _read(message: ConfigMessage, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise with_note(
            ConfigError(
                f"failed to open text file for read {path}: {error.strerror}",
                ErrorCode.INTERNAL,
                model=message.name,
                file=path,
                hint=_what_is_there(path),
            )
        ) from error


def _what_is_there(path: str) -> str | None:
    folder = os.path.dirname(path)
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError:
        return f"there is no folder '{folder}'"
    return f"'{folder}' holds {', '.join(names)}" if names else f"'{folder}' holds no file"


# --- labels ---


def read_labels(message: ConfigMessage, model_folder: str) -> dict[str, tuple[str, ...]]:
    """Return the labels of the outputs that have a ``label_filename``, by output name.

    Raises
    ------
    ConfigError
        A file is missing, or outside of the model folder, where newer versions of Triton than
        2.51 refuse it.
    """
    labels: dict[str, tuple[str, ...]] = {}
    for output in message.output:
        if not output.label_filename:
            continue
        path = _join(model_folder, output.label_filename)
        if not os.path.realpath(path).startswith(os.path.realpath(model_folder) + os.sep):
            _fail(
                message,
                f"label file path '{path}' for output '{output.name}' in model '{message.name}' is "
                "outside model directory",
                file=path,
            )
        text = _read(message, path).decode("utf-8", "replace")
        labels[output.name] = tuple(text.removesuffix("\n").split("\n")) if text else ()
    return labels


# --- batching library ---


def _check_batch_strategy(message: ConfigMessage) -> None:
    if _BATCH_STRATEGY not in message.parameters:
        return
    path = message.parameters[_BATCH_STRATEGY].string_value
    if message.HasField("sequence_batching"):
        _fail(
            message,
            f"{_BATCH_STRATEGY} cannot be specified with sequence batcher, using default batching "
            "strategy",
            at="parameters",
        )
    if not os.path.exists(path):
        raise ConfigError(
            f"Batching library path not found: {path}",
            ErrorCode.NOT_FOUND,
            model=message.name,
            field="parameters",
        )
    raise UnsupportedError(
        f"model '{message.name}' wants the batching library '{path}': native libraries are never "
        "loaded here",
        model=message.name,
    )


# --- warmup ---


def check_warmup(message: ConfigMessage, model_folder: str) -> None:
    """Check the warmup samples as Triton does before it runs them.

    Raises
    ------
    ConfigError
        A sample does not make a request that the model takes.
    """
    for index, sample in enumerate(message.model_warmup):
        # A sample for no request is not looked at.
        if sample.batch_size:
            _check_sample(message, sample, model_folder, f"model_warmup[{index}]")


def _check_sample(
    message: ConfigMessage, sample: ConfigMessage, model_folder: str, at: str
) -> None:
    # Maps come in hash order; with names sorted the same error is reported each time.
    names = sorted(sample.inputs)
    contents: dict[str, bytes] = {}
    for name in names:
        data = sample.inputs[name]
        if any(dim < 0 for dim in data.dims):
            _fail(
                message,
                "warmup setting expects all variable-size dimensions are specified for input "
                f"'{name}'",
                at=at,
            )
        if data.WhichOneof("input_data_type") == "input_data_file":
            path = _join(model_folder, "warmup", data.input_data_file)
            contents[name] = _read(message, path)
    for name in names:
        data = sample.inputs[name]
        if data.WhichOneof("input_data_type") is None:
            _fail(
                message,
                f"{_NO_ID}warmup setting expects input '{name}' to have input_data_type set",
                at=at,
            )
        needed = _byte_size(data.data_type, data.dims)
        if name in contents and len(contents[name]) < needed:
            # The missing blank is Triton's.
            _fail(
                message,
                f"{_NO_ID}warmup setting expects {needed} bytes, but the data provided from "
                f"{data.input_data_file}only has {len(contents[name])} bytes",
                at=at,
            )
    _check_request(message, sample, contents, at)


def _byte_size(data_type: int, dims: list[int]) -> int:
    """Return the bytes of a tensor; 0 for strings, whose size nobody knows."""
    known = BY_NUMBER.get(data_type)
    size = 0 if known is None else known.item_size
    for dim in dims:
        size *= dim
    return size


def _check_request(
    message: ConfigMessage, sample: ConfigMessage, contents: dict[str, bytes], at: str
) -> None:
    """Check the request that the sample makes: names, data types, shapes, batch size."""
    inputs = {tensor.name: tensor for tensor in reversed(message.input)}
    # Other names are passed over.
    given = [tensor.name for tensor in inputs.values() if tensor.name in sample.inputs]
    given.sort()
    required = [tensor.name for tensor in message.input if not tensor.optional]
    if not len(required) <= len(given) <= len(message.input):
        missing = [name for name in required if name not in given]
        wanted = (
            f"expected {len(required)} inputs"
            if len(required) == len(message.input)
            else f"expected number of inputs between {len(required)} and {len(message.input)}"
        )
        _fail(
            message,
            f"{_NO_ID}{wanted} but got {len(given)} inputs for model '{message.name}'. Got "
            f"input(s) {_name_list(given)}, but missing required input(s) {_name_list(missing)}. "
            "Please provide all required input(s).",
            at=at,
        )
    for name in given:
        _check_sample_input(message, inputs[name], sample.inputs[name], contents.get(name), at)
    most = message.max_batch_size
    if sample.batch_size > max(most, 1):
        # Triton says it once per request of the batch.
        instance = f"{message.instance_group[0].name}_0"
        _fail(
            message,
            f"failed to run warmup sample '{sample.name}': batch size {sample.batch_size} for "
            f"'{instance}', max allowed is {most}; ",
            at=at,
        )


def _name_list(names: list[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


def _check_sample_input(
    message: ConfigMessage,
    tensor: ConfigMessage,
    data: ConfigMessage,
    content: bytes | None,
    at: str,
) -> None:
    prefix = f"inference input '{tensor.name}'"
    if data.data_type != tensor.data_type:
        _fail(
            message,
            f"{_NO_ID}{prefix} data-type is '{_protocol_name(data.data_type)}', but model "
            f"'{message.name}' expects '{_protocol_name(tensor.data_type)}'",
            at=at,
        )
    is_batched = message.max_batch_size > 0
    wanted, found = list(tensor.dims), list(data.dims)
    fits = len(wanted) == len(found) and all(
        dim in (_WILDCARD, size) for dim, size in zip(wanted, found, strict=True)
    )
    if not fits:
        if is_batched:
            wanted, found = [_WILDCARD, *wanted], [1, *found]
        _fail(
            message,
            f"{_NO_ID}unexpected shape for input '{tensor.name}' for model '{message.name}'. "
            f"Expected {_shape_text(wanted)}, got {_shape_text(found)}. "
            f"{_BATCH_NOTE if is_batched else ''}",
            at=at,
        )
    if content is not None and tensor.data_type == _STRING:
        _check_strings(message, tensor.name, data.dims, content, at)


def _check_strings(
    message: ConfigMessage, name: str, dims: list[int], content: bytes, at: str
) -> None:
    wanted = 1
    for dim in dims:
        wanted *= dim
    count = offset = 0
    while offset + 4 <= len(content):
        (length,) = struct.unpack_from("<I", content, offset)
        offset += 4 + length
        count += 1
    if count < wanted:
        _fail(
            message,
            f"{_NO_ID}expected {wanted} string elements for inference input '{name}' for model "
            f"'{message.name}', got {count}",
            at=at,
        )
    if count > wanted:
        _fail(
            message,
            f"{_NO_ID}unexpected number of string elements {count} for inference input '{name}' "
            f"for model '{message.name}', expecting {wanted}",
            at=at,
        )


def _protocol_name(data_type: int) -> str:
    known = BY_NUMBER.get(data_type)
    return "<invalid>" if known is None else known.protocol_name


def _shape_text(dims: list[int]) -> str:
    return f"[{','.join(map(str, dims))}]"


# --- initial states ---


def _check_initial_states(message: ConfigMessage, model_folder: str) -> None:
    seen = set()
    for index, state in enumerate(message.sequence_batching.state):
        at = f"sequence_batching.state[{index}]"
        _check_initial_state(message, state, model_folder, at)
        # States without a first value may share a name.
        if state.initial_state:
            if state.input_name in seen:
                _fail(
                    message,
                    f"State input name '{state.input_name}' specified more than once.",
                    at=f"{at}.input_name",
                )
            seen.add(state.input_name)


def _check_initial_state(
    message: ConfigMessage, state: ConfigMessage, model_folder: str, at: str
) -> None:
    if len(state.initial_state) > 1:
        _fail(
            message,
            f"initial_state field for state input '{state.input_name}' must contain exactly one "
            f"or zero element. Found '{len(state.initial_state)}' elements.",
            at=f"{at}.initial_state",
        )
    for initial in state.initial_state:
        if initial.data_type != state.data_type:
            _fail(
                message,
                f"The data type used for 'initial_state' field of state '{state.input_name}' does "
                "not match the state data type.",
                at=f"{at}.initial_state",
            )
        if not initial.name:
            _fail(
                message,
                "Field 'name' must be set when using initial_state for state input "
                f"'{state.input_name}'.",
                at=f"{at}.initial_state",
            )
        if len(initial.dims) != len(state.dims):
            _fail(
                message,
                "Number of dimensions in 'initial_state' doesn't match the size of 'state' "
                f"dimensions for state input '{state.input_name}'. {len(initial.dims)} != "
                f"{len(state.dims)}",
                at=f"{at}.initial_state",
            )
        if _WILDCARD in initial.dims:
            _fail(
                message,
                f"'initial_state' field for state input name '{state.input_name}' contains "
                "variable dimensions.",
                at=f"{at}.initial_state",
            )
        for found, wanted in zip(initial.dims, state.dims, strict=True):
            if wanted not in (_WILDCARD, found):
                _fail(
                    message,
                    f"'initial_state' dim for input name '{state.input_name}' doesn't match "
                    f"'state' dim description. {found} != {wanted}",
                    at=f"{at}.initial_state",
                )
        if initial.WhichOneof("state_data") is None:
            # The missing blank is Triton's.
            _fail(
                message,
                f"initial_state setting expects state'{state.input_name}' to have state_data set",
                at=f"{at}.initial_state",
            )
        if initial.WhichOneof("state_data") == "data_file":
            path = _join(model_folder, "initial_state", initial.data_file)
            content = _read(message, path)
            needed = _byte_size(initial.data_type, initial.dims)
            if len(content) < needed:
                # The missing blank is Triton's here too.
                _fail(
                    message,
                    f"initial_state setting expects {needed} bytes, but the data provided from "
                    f"{initial.data_file}only has {len(content)} bytes.",
                    at=f"{at}.initial_state",
                )
