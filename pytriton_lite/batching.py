"""Stacks the inputs of the requests of one `execute` call, and splits what comes out of them.

Triton hands a batch to a Python model as a list of requests, each with tensors of its own. A model
that computes on all of them at once needs three lines::

    def execute(self, requests):
        batch = stack(requests)
        scores = self.network(batch["FEATURES"])
        return split(batch, {"SCORES": scores})

This file needs numpy and, inside `split`, the `triton_python_backend_utils` that a model has. It
imports nothing else of its package: on Triton put a copy of it beside ``model.py`` and write
``from batching import split, stack``. Python 3.10 or newer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import triton_python_backend_utils as pb_utils

__all__ = ["Batch", "split", "stack"]


class Batch(Mapping[str, Any]):
    """The stacked inputs of several requests by name, as `stack` makes it.

    ``batch["X"]`` is an array of shape ``[rows, ...]``; an optional input that no request has is
    not there: ``batch.get("X")`` is None, and ``batch["X"]`` a `KeyError` that names the others.

    Attributes
    ----------
    sizes : list[int]
        Rows of each request, in the order of the requests; 0 for one that was left out.
    lengths : dict[str, array]
        Of each padded input, how much of axis 1 is data: int64 of shape ``[rows]``, made by the
        same library as the input itself.
    errors : dict[int, TritonError | str]
        Requests that fail, by their position, with what their callers get. `split` answers
        them with the error and drops their rows of the outputs; a str becomes an error with
        the code INTERNAL. Add to it at any time before `split`.
    """

    __slots__ = ("_arrays", "_lengths", "errors", "lengths", "sizes")

    def __init__(self, sizes: list[int], errors: dict[int, pb_utils.TritonError | str]) -> None:
        self.sizes = sizes
        self.errors = errors
        self.lengths: dict[str, Any] = {}
        self._arrays: dict[str, Any] = {}
        self._lengths: dict[str, dict[int, int]] = {}  # by input and position, as plain numbers

    @property
    def rows(self) -> int:
        """Length of axis 0 of every input, and of what `split` takes."""
        return sum(self.sizes)

    @property
    def slices(self) -> list[slice]:
        """Rows of each request, as ``array[batch.slices[i]]``; empty for one left out."""
        ends = np.cumsum([0, *self.sizes]).tolist()
        return [slice(begin, end) for begin, end in pairwise(ends)]

    def _note_lengths(self, name: str, arrays: Mapping[int, Any], xp: Any) -> None:
        lengths = {index: int(array.shape[1]) for index, array in arrays.items()}
        self._lengths[name] = lengths
        rows = np.repeat(list(lengths.values()), [self.sizes[index] for index in lengths])
        self.lengths[name] = _like(rows, next(iter(arrays.values())), xp)

    def __getitem__(self, name: str) -> Any:
        if name not in self._arrays:
            names = ", ".join(map(repr, self._arrays)) or "nothing"
            raise KeyError(f"no request of this batch has the input {name!r}; stacked: {names}")
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def stack(
    requests: Sequence[pb_utils.InferenceRequest],
    *names: str,
    defaults: Mapping[str, Any] | None = None,
    pad: Mapping[str, Any] | None = None,
    errors: Mapping[int, pb_utils.TritonError | str] | None = None,
    xp: Any = None,
) -> Batch:
    """Concatenate inputs of several requests along axis 0.

    Parameters
    ----------
    requests
        At least one, of a model with ``max_batch_size`` above 0: the inputs of a request have
        shapes ``[b, ...]`` with the same ``b``, which may differ from request to request.
    names
        Inputs to stack. Without any: all that the requests have.
    defaults
        For optional inputs: what a request counts as having in all its rows where it has not
        sent that input. A scalar or an array that fits the shape of the other requests' rows;
        of an input that is padded, or that no request has, an array of the shape of a row. Where
        no request has it, its dtype is the default's. On Triton requests of one batch have the
        same inputs, so this is needed only where a model collects requests itself.
    pad
        Inputs that may have different lengths in axis 1 (``allow_ragged_batch``), and the value
        that the shorter ones are filled with at their end. See `Batch.lengths`.
    errors
        Positions of requests to leave out of the arrays, and what to answer to them.
    xp
        Library of the arrays: ``torch``, or another with ``from_dlpack``, ``concat`` and, to pad,
        ``full`` of the array API standard. Tensors go there by DLPack and stay on their device;
        BYTES inputs stay numpy arrays. Default: numpy, which cannot take tensors on a GPU.

    Returns
    -------
    Batch
        The arrays. BYTES are ``object`` arrays of ``bytes``. If all requests are left out, the
        arrays have no rows, and are otherwise those of the first request.

    Raises
    ------
    ValueError
        Shapes or dtypes do not fit together, or some requests lack an input without a default;
        the text names the input, the requests by position, and the shapes.

    Notes
    -----
    Copies once. With one request, or all others left out, nothing is copied: the arrays are
    what `Tensor.as_numpy` gives. With `xp`, also ``xp=numpy``, tensors are read where they are,
    without the private copy that `as_numpy` makes in `pytriton_lite`; the arrays of one request
    are its caller's memory then, not to be written to.
    """
    if not requests:
        raise ValueError("stack() needs at least one request")
    if not (defaults or pad or errors) and xp is None:
        batch = _stack_alike(requests, names)
        if batch is not None:
            return batch
    batch = Batch([], dict(errors or {}))
    _check_positions(batch.errors, len(requests))
    given = [{tensor.name(): tensor for tensor in request.inputs()} for request in requests]
    live = [index for index in range(len(requests)) if index not in batch.errors]
    defaults, pad = defaults or {}, pad or {}
    wanted = dict.fromkeys(names or [*(name for inputs in given for name in inputs), *defaults])
    batch.sizes = [
        0 if index in batch.errors else _batch_size(inputs, wanted)
        for index, inputs in enumerate(given)
    ]
    for name in wanted:
        found = {
            index: _array(inputs[name], xp)
            for index, inputs in enumerate(given)
            if name in inputs and (index not in batch.errors or not live)
        }
        if not live:
            # None of its rows, in the place of all of them.
            found = {0: next(iter(found.values()))[:0]} if found else {}
        owners = live or [0]
        missing = [index for index in owners if index not in found]
        _check_sizes(name, found, batch.sizes)
        if missing and name in defaults:
            rows = {index: batch.sizes[index] for index in missing}
            found.update(_rows_of(defaults[name], name, rows, found, xp))
        elif missing and found:
            raise ValueError(
                f"input {name!r} is there in {_requests(found)}, but not in {_requests(missing)}; "
                "`defaults` could fill it in"
            )
        if found:
            arrays = {index: found[index] for index in owners}
            _check_alike(name, arrays, is_padded=name in pad)
            if name in pad:
                batch._note_lengths(name, arrays, xp)
                batch._arrays[name] = _padded(list(arrays.values()), pad[name], xp)
            else:
                batch._arrays[name] = _concatenated(list(arrays.values()), xp)
    return batch


def _stack_alike(
    requests: Sequence[pb_utils.InferenceRequest], names: tuple[str, ...]
) -> Batch | None:
    """The batch, where every request has the same inputs and all fit; else None.

    This is what nearly all batches are, at a third of the cost of looking at each case.
    """
    columns: dict[str, list[np.ndarray[Any, Any]]] = {}
    for request in requests:
        for tensor in request.inputs():
            name = tensor.name()
            if names and name not in names:
                continue
            if name in columns:
                columns[name].append(tensor.as_numpy())
            else:
                columns[name] = [tensor.as_numpy()]
    batch = Batch([], {})
    try:
        for name in names or columns:
            arrays = columns[name]
            sizes = list(map(len, arrays))
            if len(sizes) != len(requests) or sizes != (batch.sizes or sizes):
                return None
            batch.sizes = sizes
            batch._arrays[name] = (
                arrays[0]
                if len(arrays) == 1
                else np.concatenate(arrays, dtype=arrays[0].dtype, casting="no")
            )
    except (KeyError, TypeError, ValueError):
        return None  # an input that none has; no batch dimension; different dtypes; shapes
    return batch if batch.sizes else None


def split(
    batch: Batch, outputs: Mapping[str, Any], *, unpad: Mapping[str, str] | None = None
) -> list[pb_utils.InferenceResponse]:
    """Make one response per request, each with its own rows of the outputs.

    Parameters
    ----------
    batch
        What `stack` gave. Requests in its `errors` get their error.
    outputs
        Arrays of shape ``[batch.rows, ...]`` by output name: numpy arrays, or arrays of another
        library with ``__dlpack__``, such as torch tensors.
    unpad
        Outputs to cut in axis 1 to the length that a padded input of the same request had, as
        ``{"TAGS": "TOKENS"}``: output to input.

    Returns
    -------
    list of InferenceResponse
        In the order of the requests, as `execute` returns it. A decoupled model sends each with
        the sender of its request.

    Raises
    ------
    ValueError
        An output does not have ``batch.rows`` rows; the text names it, its shape and the sizes.
    TypeError
        An output is not an array.

    Notes
    -----
    Outputs are not copied, but for what is cut by `unpad`: the tensors are views.
    """
    import triton_python_backend_utils as pb_utils

    rows = batch.rows
    unpad = unpad or {}
    _check_positions(batch.errors, len(batch.sizes))
    for name, array in outputs.items():
        _check_output(name, array, batch, rows)
    for name, source in unpad.items():
        if name in outputs and source not in batch._lengths:
            raise ValueError(f"output {name!r} cannot be cut: input {source!r} was not padded")
    plan = [
        (
            name,
            array,
            pb_utils.Tensor if isinstance(array, np.ndarray) else pb_utils.Tensor.from_dlpack,
            batch._lengths[unpad[name]] if name in unpad else None,
        )
        for name, array in outputs.items()
    ]
    responses = []
    end = 0
    for index, size in enumerate(batch.sizes):
        begin, end = end, end + size
        if index in batch.errors:
            error = batch.errors[index]
            if isinstance(error, str):
                error = pb_utils.TritonError(error)
            responses.append(pb_utils.InferenceResponse([], error))
            continue
        tensors = []
        for name, array, make, lengths in plan:
            part = array if size == rows else array[begin:end]
            if lengths is not None:
                part = _contiguous(part[:, : lengths[index]])
            tensors.append(make(name, part))
        responses.append(pb_utils.InferenceResponse(tensors))
    return responses


# -- arrays of numpy and of `xp` -----------------------------------------------------------


def _array(tensor: pb_utils.Tensor, xp: Any) -> Any:
    if xp is None:
        return tensor.as_numpy()
    # A BYTES tensor has no DLPack form, and no public dtype to see that before; it is on the CPU.
    if tensor.is_cpu():
        import triton_python_backend_utils as pb_utils

        try:
            return xp.from_dlpack(tensor)
        except pb_utils.TritonModelException:
            return tensor.as_numpy()
    return xp.from_dlpack(tensor)


def _concatenated(arrays: list[Any], xp: Any) -> Any:
    if len(arrays) == 1:
        return arrays[0]
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    return _concat_of(xp)(arrays, axis=0)


def _concat_of(xp: Any) -> Any:
    return xp.concat if hasattr(xp, "concat") else xp.concatenate


def _padded(arrays: list[Any], fill: Any, xp: Any) -> Any:
    if len(arrays) == 1:
        return arrays[0]
    first = arrays[0]
    longest = max(array.shape[1] for array in arrays)
    if isinstance(first, np.ndarray):
        rows = sum(len(array) for array in arrays)
        out = np.full((rows, longest, *first.shape[2:]), fill, dtype=first.dtype)
        begin = 0
        for array in arrays:
            out[begin : begin + len(array), : array.shape[1]] = array
            begin += len(array)
        return out
    concat = _concat_of(xp)
    parts = []
    for array in arrays:
        rest = (array.shape[0], longest - array.shape[1], *array.shape[2:])
        filling = xp.full(rest, fill, dtype=array.dtype, device=array.device)
        parts.append(concat([array, filling], axis=1))
    return concat(parts, axis=0)


def _like(values: np.ndarray[Any, Any], array: Any, xp: Any) -> Any:
    """`values` as an array of the library, and on the device, of `array`."""
    if isinstance(array, np.ndarray):
        return values
    return xp.asarray(values, device=array.device)


def _contiguous(array: Any) -> Any:
    if isinstance(array, np.ndarray):
        return np.ascontiguousarray(array)
    # DLPack tensors must be C-contiguous here; the standard has no word for it, torch has.
    return array.contiguous() if hasattr(array, "contiguous") else array.copy()


def _rows_of(
    default: Any, name: str, rows: Mapping[int, int], found: Mapping[int, Any], xp: Any
) -> dict[int, Any]:
    """So many rows of a default for each request, like what others have."""
    first = next(iter(found.values()), None)
    row = np.asarray(default)
    if isinstance(first, np.ndarray):
        row = _as_dtype(name, default, first.dtype)
    if first is not None and row.ndim == 0:
        row = np.broadcast_to(row, tuple(first.shape[1:]))
    made: dict[int, Any] = {}
    for index, count in rows.items():
        made[index] = np.full((count, *row.shape), row, dtype=row.dtype)
        if xp is not None and not isinstance(first, np.ndarray) and not row.dtype.hasobject:
            like = {} if first is None else {"dtype": first.dtype, "device": first.device}
            made[index] = xp.asarray(made[index], **like)
    return made


# -- what may be wrong ---------------------------------------------------------------------


def _batch_size(inputs: Mapping[str, pb_utils.Tensor], wanted: Collection[str]) -> int:
    for tensor in [inputs[name] for name in wanted if name in inputs] or inputs.values():
        shape = tensor.shape()
        return int(shape[0]) if shape else 1
    return 1


def _check_positions(errors: Mapping[int, object], count: int) -> None:
    for index in errors:
        if not 0 <= index < count:
            raise ValueError(f"`errors` has position {index}, and there are {count} request(s)")


def _check_sizes(name: str, found: Mapping[int, Any], sizes: list[int]) -> None:
    for index, array in found.items():
        shape = array.shape
        if len(shape) == 0 or shape[0] != sizes[index]:
            raise ValueError(
                f"input {name!r} of request {index} has shape {list(shape)}, and another input of "
                f"that request has batch size {sizes[index]}"
                if len(shape)
                else f"input {name!r} of request {index} has shape [] and no batch dimension"
            )


def _check_alike(name: str, arrays: Mapping[int, Any], *, is_padded: bool) -> None:
    """Raise unless dtypes, ranks and lengths are the same, but for axis 0 and a padded axis 1."""
    place, first = next(iter(arrays.items()))
    axis = 2 if is_padded else 1
    rank, dtype, shape = len(first.shape), first.dtype, first.shape[axis:]
    if rank < axis:
        raise ValueError(
            f"input {name!r} of request {place} has shape {list(first.shape)} and no axis 1"
        )
    for index, array in arrays.items():
        if array.shape[axis:] != shape or array.dtype != dtype or len(array.shape) != rank:
            text = (
                f"input {name!r} cannot be stacked: shape {list(first.shape)} and dtype {dtype} "
                f"in request {place}, {list(array.shape)} and {array.dtype} in request {index}"
            )
            is_shorter = array.shape[2:] == first.shape[2:] and array.dtype == dtype
            if axis == 1 and is_shorter and len(array.shape) == rank:
                text += "; `pad` could fill the shorter one"
            raise ValueError(text)


def _check_output(name: str, array: Any, batch: Batch, rows: int) -> None:
    if not isinstance(array, np.ndarray) and not hasattr(array, "__dlpack__"):
        raise TypeError(
            f"output {name!r} is of type {type(array).__name__}; split() takes numpy arrays and "
            "arrays with __dlpack__"
        )
    if len(array.shape) == 0 or array.shape[0] != rows:
        raise ValueError(
            f"output {name!r} has shape {list(array.shape)}, and the batch has {rows} rows "
            f"(sizes {batch.sizes})"
        )


def _as_dtype(name: str, default: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if dtype.hasobject:
        return np.asarray(default, dtype=dtype)
    array = np.asarray(default)
    cast = array.astype(dtype)
    same_kind = np.can_cast(array.dtype, dtype, "same_kind")
    # Small numbers fit everywhere, whatever type Python's int becomes.
    if not same_kind and not np.array_equal(cast, array):
        raise ValueError(
            f"default of input {name!r}: a value of dtype {array.dtype} that {dtype} does not have"
        )
    return cast


def _requests(indices: Collection[int]) -> str:
    return f"request{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"
