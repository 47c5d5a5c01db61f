"""Triton's checks of an ensemble: how its steps fit together, and how they fit to their models.

The first needs nothing but the configuration and belongs to ``validate.validate_general``; the
second comes when every composing model is loaded. Orders and texts were seen on Triton 2.51.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn

from .._dtypes import BY_NUMBER
from ..errors import ConfigError
from .schema import ConfigMessage
from .suggest import did_you_mean, with_note


def _fail(
    message: ConfigMessage,
    text: str,
    *,
    at: str = "ensemble_scheduling",
    hint: str | None = None,
) -> NoReturn:
    """Raise; `at` is the field."""
    raise with_note(ConfigError(text, model=message.name, field=at, hint=hint))


# --- how the steps fit together ---


@dataclass(slots=True)
class _Tensor:
    """An ensemble tensor; `sources` are the tensors that the step which writes it reads."""

    name: str
    sources: list[_Tensor] = field(default_factory=list)
    readers: list[_Tensor] = field(default_factory=list)
    is_written: bool = False
    is_ready: bool = False


def check_graph(message: ConfigMessage) -> None:
    """Check the steps of an ensemble and the tensors between them.

    Raises
    ------
    ConfigError
        A step lacks its model or a map; a tensor is written twice, is never used, or cannot be
        computed from the ensemble's inputs.
    """
    name = message.name
    if not message.ensemble_scheduling.step:
        _fail(message, f"must specify 'step' for ensemble '{name}'")
    tensors = _link(message)
    inputs = [_known(message, tensors, tensor.name, "input") for tensor in message.input]
    _spread_readiness(inputs)
    outputs = set()
    for output in message.output:
        tensor = _known(message, tensors, output.name, "output")
        if not tensor.is_ready:
            _fail(message, _why_not_written(name, tensor))
        outputs.add(tensor.name)
    for tensor in tensors.values():
        if tensor.name not in outputs and not (tensor.is_ready and tensor.readers):
            _fail(message, f"ensemble tensor '{tensor.name}' is unused in ensemble '{name}'")


def _link(message: ConfigMessage) -> dict[str, _Tensor]:
    """Return the tensors that the steps read and write, each tied to its neighbours."""
    name = message.name
    tensors: dict[str, _Tensor] = {}

    def tensor_of(tensor_name: str) -> _Tensor:
        return tensors.setdefault(tensor_name, _Tensor(tensor_name))

    for index, step in enumerate(message.ensemble_scheduling.step):
        for field_name in ("model_name", "input_map", "output_map"):
            if not getattr(step, field_name):
                _fail(
                    message,
                    f"must specify '{field_name}' in step {index} of ensemble '{name}'",
                    at=f"ensemble_scheduling.step[{index}].{field_name}",
                )
        # Maps come in hash order; with names sorted the same error is reported each time.
        read = [tensor_of(step.input_map[key]) for key in sorted(step.input_map)]
        written = [tensor_of(step.output_map[key]) for key in sorted(step.output_map)]
        for tensor in written:
            if tensor.is_written:
                _fail(
                    message,
                    f"ensemble tensor '{tensor.name}' can appear in an output map only once for "
                    f"ensemble '{name}' step {index}",
                    at=f"ensemble_scheduling.step[{index}].output_map",
                )
            tensor.is_written = True
            tensor.sources += read
        for tensor in read:
            tensor.readers += written
    return tensors


def _known(
    message: ConfigMessage, tensors: Mapping[str, _Tensor], tensor_name: str, kind: str
) -> _Tensor:
    if tensor_name not in tensors:
        # The lone quote is Triton's.
        _fail(
            message,
            f"ensemble {kind} '{tensor_name}' for ensemble {message.name}' is not used",
            at=kind,
            hint=did_you_mean(tensor_name, tensors),
        )
    return tensors[tensor_name]


def _spread_readiness(inputs: list[_Tensor]) -> None:
    for tensor in inputs:
        tensor.is_ready = True
    ready = list(inputs)
    while ready:
        for reader in ready.pop().readers:
            if not reader.is_ready and all(source.is_ready for source in reader.sources):
                reader.is_ready = True
                ready.append(reader)


def _why_not_written(ensemble_name: str, output: _Tensor) -> str:
    """Return the error text, with the tensor at the far end of what is missing."""
    text = f"output '{output.name}' for ensemble '{ensemble_name}' is not written"
    seen = [output.name]
    tensor: _Tensor | None = output
    while tensor is not None:
        last = tensor
        tensor = next((s for s in last.sources if not s.is_ready and s.name not in seen), None)
        if tensor is not None:
            seen.append(tensor.name)
    if len(seen) == 1:
        return text
    return f"{text}: at least one of its depending tensors, '{seen[-1]}', is not connected"


# --- how the steps fit to their models ---


class ComposingModel(NamedTuple):
    """A model that an ensemble may use: its completed configuration, and its ready versions."""

    config: ConfigMessage
    versions: Collection[int]


class _Inferred(NamedTuple):
    """What is known of an ensemble tensor, and from which model."""

    data_type: int
    dims: tuple[int, ...]
    is_batched: bool
    model_name: str


def resolve_composing_models(message: ConfigMessage, models: Mapping[str, ComposingModel]) -> None:
    """Check an ensemble against the models of its steps, and fill in what follows from them.

    ``model_transaction_policy.decoupled`` is set when a decoupled model reaches an output, and
    each step's ``model_namespace`` to the one namespace that there is.

    Parameters
    ----------
    message
        Configuration that passed `check_graph`; changed in place.
    models
        Models by name. A step of version -1 takes any version; 0 is a version like others.

    Raises
    ------
    ConfigError
        A model is missing, or names, data types, shapes, batch sizes or decoupled models do not
        go together.
    """
    name = message.name
    _check_cycles(message, models, [name])
    for step in message.ensemble_scheduling.step:
        if step.model_name not in models:
            _fail(
                message,
                f"ensemble {name} contains models that are not available or ambiguous: "
                f"{step.model_name}",
                hint=did_you_mean(step.model_name, models),
            )
        if step.model_version != -1 and step.model_version not in models[step.model_name].versions:
            _fail(
                message,
                f"ensemble '{name}' depends on '{step.model_name}' whose required version "
                f"{step.model_version} is not loaded.",
            )
    tensors: dict[str, _Inferred] = {}
    for kind in ("input", "output"):
        for tensor in getattr(message, kind):
            tensors[tensor.name] = _inferred(message, tensor)
    for step in message.ensemble_scheduling.step:
        _check_step(message, step, models[step.model_name].config, tensors)
    message.model_transaction_policy.decoupled = _check_decoupled(message, models)
    for step in message.ensemble_scheduling.step:
        step.model_namespace = ""


def _check_cycles(
    message: ConfigMessage, models: Mapping[str, ComposingModel], path: list[str]
) -> None:
    """Follow the steps that are ensembles themselves; `path` leads to this one.

    Triton may begin the same circle with another of its ensembles, and it crashes when the one
    that is loaded leads to the circle without being part of it.
    """
    for step in message.ensemble_scheduling.step:
        name = step.model_name
        if name in path:
            _fail(
                message,
                f"circular dependency between ensembles: {name} -> ... -> {path[-1]} -> {name}",
            )
        if name in models:
            _check_cycles(models[name].config, models, [*path, name])


def _inferred(config: ConfigMessage, tensor: ConfigMessage) -> _Inferred:
    return _Inferred(tensor.data_type, tuple(tensor.dims), config.max_batch_size > 0, config.name)


def _check_step(
    message: ConfigMessage,
    step: ConfigMessage,
    config: ConfigMessage,
    tensors: dict[str, _Inferred],
) -> None:
    name, model = message.name, step.model_name
    # A model that does not batch is let through, whatever the ensemble says.
    if 0 < config.max_batch_size < message.max_batch_size:
        _fail(
            message,
            f"ensemble {name} allows maximum batch size {message.max_batch_size}, but it contains "
            f"model {model} which only allows maximum batch size to be {config.max_batch_size}",
        )
    inputs = {tensor.name: tensor for tensor in config.input}
    outputs = {tensor.name: tensor for tensor in config.output}
    for key in sorted(step.input_map):
        if key not in inputs:
            _fail(
                message,
                f"in ensemble {name}, ensemble tensor {step.input_map[key]} is mapping to "
                f"non-existing input {key} in model {model}",
                hint=did_you_mean(key, inputs),
            )
    for tensor in config.input:
        if not tensor.optional and tensor.name not in step.input_map:
            _fail(
                message,
                f"in ensemble {name}, input {tensor.name} in model {model} is not mapped to any "
                "ensemble tensors",
            )
    for key in sorted(step.output_map):
        if key not in outputs:
            _fail(
                message,
                f"in ensemble {name}, ensemble tensor {step.output_map[key]} is mapped from "
                f"non-existing output {key} in model {model}",
                hint=did_you_mean(key, outputs),
            )
    for mapping, known in ((step.input_map, inputs), (step.output_map, outputs)):
        for key in sorted(mapping):
            found = _inferred(config, known[key])
            _check_consistent(message, mapping[key], tensors.setdefault(mapping[key], found), found)


def _check_consistent(
    message: ConfigMessage, tensor_name: str, first: _Inferred, second: _Inferred
) -> None:
    prefix = f"in ensemble {message.name}, ensemble tensor {tensor_name}: inconsistent"
    if first.data_type != second.data_type:
        _fail(
            message,
            f"{prefix} data type: {_type_name(first)} is inferred from model {first.model_name} "
            f"while {_type_name(second)} is inferred from model {second.model_name}",
        )
    if not _fit(first, second):
        _fail(
            message,
            f"{prefix} shape: {_shape_text(first)} is inferred from model {first.model_name} while "
            f"{_shape_text(second)} is inferred from model {second.model_name}",
        )


def _type_name(tensor: _Inferred) -> str:
    known = BY_NUMBER.get(tensor.data_type)
    return "TYPE_INVALID" if known is None else known.config_name


def _shape_text(tensor: _Inferred) -> str:
    return f"[{','.join(map(str, tensor.dims))}]"


def _fit(first: _Inferred, second: _Inferred) -> bool:
    def is_equal(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        pairs = zip(a, b, strict=False)
        return len(a) == len(b) and all(x == y or -1 in (x, y) for x, y in pairs)

    if is_equal(first.dims, second.dims):
        return True
    full = [(-1, *t.dims) if t.is_batched else t.dims for t in (first, second)]
    return first.is_batched != second.is_batched and is_equal(full[0], full[1])


def _check_decoupled(message: ConfigMessage, models: Mapping[str, ComposingModel]) -> bool:
    """Check that no step takes tensors of different decoupled steps; tell if the outputs are."""
    # Which decoupled step a tensor comes from last; -1 for none.
    origins = {tensor.name: -1 for tensor in message.input}
    steps = list(enumerate(message.ensemble_scheduling.step))
    while steps:
        later = []
        for index, step in steps:
            names = list(step.input_map.values())
            if any(name not in origins for name in names):
                later.append((index, step))
                continue
            origin = _one_origin(message, {origins[name] for name in names})
            if models[step.model_name].config.model_transaction_policy.decoupled:
                origin = index
            origins.update(dict.fromkeys(step.output_map.values(), origin))
        if len(later) == len(steps):
            break
        steps = later
    found = {origins[tensor.name] for tensor in message.output if tensor.name in origins}
    return bool(found) and _one_origin(message, found) != -1


def _one_origin(message: ConfigMessage, origins: set[int]) -> int:
    if len(origins) > 1:
        # Triton names the ensemble here and not the model of the step.
        _fail(
            message,
            f"in ensemble {message.name}, step of model '{message.name}' receives inputs "
            "originated from different decoupled models",
        )
    return origins.pop()
