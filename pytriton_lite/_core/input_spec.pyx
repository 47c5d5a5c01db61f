# cython: language_level=3, freethreading_compatible=True
"""Request validation, compiled from a model's configuration.

Two ways with one result. The fast one takes plain ndarrays that fit; whatever it does
not take goes the slow way, which converts other kinds of input and, if the request is
wrong, finds the fault in Triton's order of checks and words it as Triton does
(observed on 2.51): requested outputs, number of inputs, names, batch dimension, batch
size, then data type, shape and size of each input. Inputs are checked in the order of
the request; Triton's own order among them is that of a hash table.
"""
from cpython.list cimport PyList_GET_ITEM
from libc.stdint cimport int64_t

from collections.abc import Mapping
import math
import sys

import numpy as np
from numpy import ndarray

from pytriton_lite._core cimport array as arrays
from pytriton_lite._core.array cimport DT_BF16, DT_BYTES, DT_INVALID, ArrayView
from pytriton_lite._core.bytes_tensor cimport to_bytes_elements
from pytriton_lite._core.dlpack cimport DLPackTensor
from pytriton_lite._core.message cimport InferenceRequest, RequestDetails
from pytriton_lite._core.reply cimport Tensor as PublicTensor
from pytriton_lite._core.reply import Tensor as PublicTensorType
from pytriton_lite._core.tensor cimport SpareArray, Tensor, input_tensor
from pytriton_lite._device import is_cpu_device, to_cpu
from pytriton_lite._dtypes import BY_NUMBER
from pytriton_lite.errors import InvalidArgumentError, TritonError, UnsupportedError

cdef str _NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be "
    "prepended to each input shape. If you want to specify the full shape including the batch dim in "
    "your input dims config, try setting max_batch_size to zero. See the model configuration docs for "
    "more info on max_batch_size."
)


cdef class InputEntry:
    """One configured input."""

    def __init__(self, str name, int data_type, tuple dims, reshape, bint is_optional):
        cdef int i
        if len(dims) >= arrays.MAX_NDIM:
            raise InvalidArgumentError(f"input '{name}' has {len(dims)} dims, at most 63 are supported")
        self.name = sys.intern(name)  # lookups by a name from model code then compare pointers
        self.data_type = data_type
        self.ndim = len(dims)
        self.dims_tuple = dims
        for i in range(self.ndim):
            self.dims[i] = dims[i]
        self.reshape = reshape
        self.is_optional = is_optional
        # Object arrays are not recycled: their elements would live on.
        self.spare = None if data_type == DT_BYTES else SpareArray()


cdef str _joined(object values):
    return ",".join([str(value) for value in values])


cdef str _prefix(str request_id):
    return f"[request id: {request_id or '<id_unknown>'}] "


cdef str _protocol_name(int data_type):
    return BY_NUMBER[data_type].protocol_name


cdef class InputSpec:
    """Checks and wraps the inputs of one model version.

    Parameters
    ----------
    model_name
        For texts.
    max_batch_size
        0 when shapes have no batch dimension.
    entries
        Configured inputs, in order. Of two with one name the first counts.
    output_names
        All configured outputs, in order: what a request that names none asks for.
    share_memory
        Let model code see the caller's arrays themselves instead of private copies.
    cpu_only
        Copy inputs that are on a device to the CPU.
    """

    def __init__(
        self, str model_name, int max_batch_size, list entries, tuple output_names, *,
        bint share_memory, bint cpu_only=True,
    ):
        cdef InputEntry entry
        self.model_name = model_name
        self.max_batch_size = max_batch_size
        self.output_names = tuple([sys.intern(name) for name in output_names])
        self.entries = entries
        self.by_name = {}
        self.required_count = 0
        self.total_count = len(entries)
        self.share_memory = share_memory
        self.cpu_only = cpu_only
        for entry in entries:
            self.by_name.setdefault(entry.name, entry)
            self.required_count += not entry.is_optional

    cdef InferenceRequest build(self, object inputs, str request_id):
        """Request with all outputs asked for and no parameters."""
        cdef InferenceRequest request = InferenceRequest.__new__(InferenceRequest)
        cdef list tensors
        cdef InputEntry entry
        cdef Tensor tensor
        cdef int64_t batch = -1
        cdef Py_ssize_t i = 0, count
        request.id = request_id
        request.output_names = self.output_names
        count = len(<dict> inputs) if type(inputs) is dict else -1
        if self.required_count <= count <= self.total_count:
            tensors = [None] * count
            for name, value in (<dict> inputs).items():
                # Most callers name the inputs in the order of the configuration.
                entry = <InputEntry> <object> PyList_GET_ITEM(self.entries, i)
                if entry.name is not name:
                    entry = self.by_name.get(name)
                    if entry is None:
                        break
                tensor = self._wrap(entry, value, &batch)
                if tensor is None:
                    break
                tensors[i] = tensor
                i += 1
            else:
                if batch > 0:
                    request.batch_size = batch
                request.tensors = tensors
                return request
        try:
            request.tensors = self._build_slowly(inputs, request_id, request)
        except TritonError as error:
            error.request_id = request_id or None
            raise
        return request

    def request(
        self, inputs, *, str request_id="", outputs=None, parameters=None, correlation_id=0,
        unsigned int flags=0, unsigned long timeout=0, unsigned long priority=0,
    ):
        """Request with everything that a caller may give; see `Model.run`."""
        cdef InferenceRequest request
        cdef RequestDetails details
        cdef tuple names = self.output_names
        if outputs is not None:
            names = self._requested(outputs)
        request = self.build(inputs, request_id)
        request.output_names = names or self.output_names
        request.request_flags = flags
        if parameters or correlation_id != 0 or timeout or priority:
            details = RequestDetails()
            details.parameters = parameters
            details.correlation = correlation_id
            details.timeout_us = timeout
            details.priority = priority
            request.details = details
        return request

    cdef InferenceRequest build_for(self, InferenceRequest source):
        """The request that this model gets for one that another model made (BLS).

        Tensors are passed by reference; this model's code sees private copies, as of all inputs.
        """
        cdef InferenceRequest request = InferenceRequest.__new__(InferenceRequest)
        cdef RequestDetails given = source.details, details
        request.id = source.id
        if not source.output_names or source.output_names == self.output_names:
            request.output_names = self.output_names
        else:
            request.output_names = self._requested(source.output_names)
        request.request_flags = source.request_flags
        if given.parameters or given.correlation != 0 or given.timeout_us or given.priority:
            details = given.copy()
            details.is_self_made = False
            request.details = details
        request.tensors = self._wrap_all(source, request)
        return request

    cdef list _wrap_all(self, InferenceRequest source, InferenceRequest request):
        cdef list tensors = []
        cdef InputEntry entry
        cdef Tensor given, tensor, other
        cdef bint is_repeated = False
        cdef int64_t batch = -1
        cdef Py_ssize_t i
        cdef str prefix
        if self.required_count <= len(source.tensors) <= self.total_count:
            for i in range(len(source.tensors)):
                given = source.tensors[i]
                # Most callers name the inputs in the order of the configuration.
                entry = <InputEntry> <object> PyList_GET_ITEM(self.entries, i)
                if entry.name is not given.tensor_name:
                    entry = self.by_name.get(given.tensor_name)
                if entry is None or given.data_type != entry.data_type or given.device is not None:
                    break
                tensor = self._wrap(entry, given.wire, &batch)
                for other in tensors:
                    is_repeated = is_repeated or other.tensor_name is entry.name
                if tensor is None or is_repeated:
                    break
                tensors.append(tensor)
            else:
                if batch > 0:
                    request.batch_size = batch
                return tensors
        prefix = _prefix(source.id)
        by_name = {}
        for given in source.tensors:
            if given.tensor_name in by_name:
                raise InvalidArgumentError(
                    f"{prefix}input '{given.tensor_name}' already exists in request",
                    model=self.model_name,
                )
            by_name[given.tensor_name] = given
        self._check_names(by_name, prefix)
        made = []
        for given in source.tensors:
            wire = given.wire if given.device is None else given.device
            made.append((self.by_name[given.tensor_name], wire, given.data_type, tuple(wire.shape)))
        return self._finish(made, request, prefix)

    def _requested(self, outputs):
        if isinstance(outputs, str):
            raise InvalidArgumentError(
                f"outputs of a request to model '{self.model_name}' must be a list of names, not a str"
            )
        try:
            names = tuple(dict.fromkeys(outputs))
        except TypeError:
            raise InvalidArgumentError(
                f"outputs of a request to model '{self.model_name}' must be a list of names, not {outputs!r}",
                model=self.model_name,
            ) from None
        for name in names:
            if name not in self.output_names:
                raise _with_nearest(InvalidArgumentError(
                    f"unexpected inference output '{name}' for model '{self.model_name}'",
                    model=self.model_name,
                ), name, self.output_names)
        return names

    cdef Tensor _wrap(self, InputEntry entry, object value, int64_t *batch):
        """Tensor over an ndarray that fits as it is; None when it needs a closer look."""
        cdef ArrayView view
        cdef int i, lead = 1 if self.max_batch_size > 0 else 0
        cdef int64_t want
        if type(value) is not ndarray or not arrays.describe(value, &view):
            return None
        if (view.data_type != entry.data_type or view.data_type == DT_BYTES
                or not view.is_contiguous or view.ndim != entry.ndim + lead):
            return None
        if lead:
            if batch[0] < 0:
                batch[0] = view.dims[0]
            if view.dims[0] != batch[0] or not 0 < view.dims[0] <= self.max_batch_size:
                return None
        for i in range(entry.ndim):
            want = entry.dims[i]
            if want != -1 and want != view.dims[i + lead]:
                return None
        if entry.reshape is not None:
            value = self._presented(entry, value)
        return input_tensor(entry.name, value, entry.data_type, entry.spare, self.share_memory)

    cdef object _presented(self, InputEntry entry, object wire):
        """View with the dims of ``reshape``; its -1 take the request's variable sizes in order."""
        shape = list(wire.shape)
        lead = shape[:1] if self.max_batch_size > 0 else []
        variable = [n for n, dim in zip(shape[len(lead):], entry.dims_tuple) if dim == -1]
        taken = iter(variable)
        return wire.reshape(lead + [next(taken) if dim == -1 else dim for dim in entry.reshape])

    # -- the slow way ------------------------------------------------------------------

    cdef list _build_slowly(self, object inputs, str request_id, InferenceRequest request):
        cdef str prefix = _prefix(request_id)
        if isinstance(inputs, Mapping):
            given = dict(inputs)
        else:
            raise InvalidArgumentError(
                f"inputs of a request to model '{self.model_name}' must be a mapping of input names "
                f"to arrays, not {type(inputs).__name__}", model=self.model_name,
            )
        self._check_names(given, prefix)
        made = [(self.by_name[name], *self._convert(self.by_name[name], value, prefix))
                for name, value in given.items()]
        return self._finish(made, request, prefix)

    cdef list _finish(self, list made, InferenceRequest request, str prefix):
        """Check (entry, payload, data type, shape) of all inputs and wrap them."""
        cdef InputEntry entry
        self._check_batch(made, prefix)
        if self.max_batch_size > 0 and made:
            request.batch_size = made[0][3][0]
        tensors = []
        for entry, wire, data_type, shape in made:
            self._check_input(entry, data_type, shape, prefix)
            if entry.reshape is not None and type(wire) is not DLPackTensor:
                wire = self._presented(entry, wire)
            tensors.append(self._tensor(entry, wire, data_type))
        return tensors

    cdef Tensor _tensor(self, InputEntry entry, object wire, int data_type):
        cdef Tensor tensor
        if type(wire) is DLPackTensor:
            tensor = input_tensor(entry.name, None, data_type, None, False)
            tensor.device = wire
            return tensor
        return input_tensor(entry.name, wire, data_type, entry.spare, self.share_memory)

    def _check_names(self, dict given, str prefix):
        cdef InputEntry entry
        cdef int count = len(given), total = len(self.entries)
        if not self.required_count <= count <= total:
            missing = []
            for entry in self.entries:
                if not entry.is_optional and entry.name not in given:
                    missing.append(entry.name)
            wanted = (str(self.required_count) + " inputs" if self.required_count == total
                      else f"number of inputs between {self.required_count} and {total}")
            quoted = ",".join([f"'{name}'" for name in given])
            # With nothing missing, Triton prints the closing bracket alone.
            lacking = "[" + ",".join([f"'{name}'" for name in missing]) + "]" if missing else "]"
            raise InvalidArgumentError(
                f"{prefix}expected {wanted} but got {count} inputs for model '{self.model_name}'. "
                f"Got input(s) [{quoted}], but missing required input(s) {lacking}. "
                "Please provide all required input(s).", model=self.model_name,
            )
        for name in given:
            if name not in self.by_name:
                raise _with_nearest(InvalidArgumentError(
                    f"unexpected inference input '{name}' for model '{self.model_name}'",
                    model=self.model_name,
                ), name, self.by_name)

    def _check_batch(self, list made, str prefix):
        cdef InputEntry entry
        if self.max_batch_size <= 0:
            return
        batch = None
        for entry, _, _, shape in made:
            if not shape:
                raise InvalidArgumentError(
                    f"{prefix}input '{entry.name}' has no shape but model requires batch dimension for "
                    f"'{self.model_name}'", model=self.model_name,
                )
            if batch is None:
                batch = shape[0]
            elif shape[0] != batch:
                raise InvalidArgumentError(
                    f"{prefix}input '{entry.name}' batch size does not match other inputs for "
                    f"'{self.model_name}'", model=self.model_name,
                )
        if batch is not None and batch > self.max_batch_size:
            raise InvalidArgumentError(
                f"{prefix}inference request batch-size must be <= {self.max_batch_size} for "
                f"'{self.model_name}'", model=self.model_name,
            )

    def _check_input(self, InputEntry entry, int data_type, tuple shape, str prefix):
        cdef bint is_batching = self.max_batch_size > 0
        if data_type != entry.data_type:
            raise InvalidArgumentError(
                f"{prefix}inference input '{entry.name}' data-type is '{_protocol_name(data_type)}', but "
                f"model '{self.model_name}' expects '{_protocol_name(entry.data_type)}'",
                model=self.model_name,
            )
        inner = shape[1:] if is_batching else shape
        if len(inner) != entry.ndim or any(
            [want != -1 and want != got for want, got in zip(entry.dims_tuple, inner)]
        ):
            wanted = (-1, *entry.dims_tuple) if is_batching else entry.dims_tuple
            raise InvalidArgumentError(
                f"{prefix}unexpected shape for input '{entry.name}' for model '{self.model_name}'. "
                f"Expected [{_joined(wanted)}], got [{_joined(shape)}]. {_NOTE if is_batching else ''}",
                model=self.model_name,
            )
        if is_batching and shape[0] == 0:
            # Triton takes a leading 0 for "not known yet" and then misses the data of one row.
            count = math.prod(inner)
            if data_type == DT_BYTES:
                fault = (f"expected {count} string elements for inference input '{entry.name}' for model "
                         f"'{self.model_name}', got 0")
            else:
                fault = (f"input byte size mismatch for input '{entry.name}' for model "
                         f"'{self.model_name}'. Expected {count * arrays.item_size(data_type)}, got 0")
            raise InvalidArgumentError(prefix + fault, model=self.model_name)

    def _convert(self, InputEntry entry, object value, str prefix):
        """(payload, data type, shape as the client gave it) of any kind of input."""
        cdef PublicTensor public
        if not isinstance(value, np.ndarray):
            if hasattr(value, "__dlpack__") and not isinstance(value, np.generic):
                if type(value) is not PublicTensorType or self._is_to_move(value):
                    value = self._from_dlpack(entry, value, prefix)
            if type(value) is PublicTensorType:
                public = value
                if public.type_number == DT_BYTES or type(public.payload) is DLPackTensor:
                    return public.payload, public.type_number, tuple(public.payload.shape)
                return self._contiguous(public.payload), public.type_number, tuple(public.payload.shape)
            value = self._array_of(entry, value, prefix)
        return self._from_array(entry, value, prefix)

    def _is_to_move(self, value):
        return self.cpu_only and hasattr(value, "__dlpack_device__") and not is_cpu_device(
            value.__dlpack_device__()
        )

    def _from_dlpack(self, InputEntry entry, value, str prefix):
        try:
            return to_cpu(value) if self._is_to_move(value) else PublicTensorType.from_dlpack(value)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"{prefix}input '{entry.name}' of model '{self.model_name}' {error}", model=self.model_name,
            ) from error
        except Exception as error:  # producers raise what they like
            raise InvalidArgumentError(
                f"{prefix}input '{entry.name}' of model '{self.model_name}' cannot be taken by DLPack: "
                f"{error}", model=self.model_name,
            ) from error

    def _from_array(self, InputEntry entry, array, str prefix):
        cdef ArrayView view
        if isinstance(array, np.ma.MaskedArray):
            raise InvalidArgumentError(
                f"{prefix}input '{entry.name}' of model '{self.model_name}' is a masked array, whose mask "
                "would be lost: fill it first", model=self.model_name,
            )
        arrays.describe(array, &view)
        if view.data_type == DT_INVALID:
            if array.dtype.kind == "U":
                array = array.astype(np.object_)
            elif array.dtype.name == "bfloat16":
                array = self._contiguous(array).view(np.uint16)
                return array, DT_BF16, tuple(array.shape)
            elif not array.dtype.isnative and array.dtype.kind in "iufb":
                array = array.astype(array.dtype.newbyteorder("="))
            else:
                raise InvalidArgumentError(
                    f"{prefix}input '{entry.name}' of model '{self.model_name}' has numpy dtype "
                    f"'{array.dtype}', which has no Triton data type; the model expects "
                    f"'{_protocol_name(entry.data_type)}'", model=self.model_name,
                )
            arrays.describe(array, &view)
        if view.data_type == DT_BYTES:
            if entry.data_type != DT_BYTES:
                return array, DT_BYTES, tuple(array.shape)
            try:
                return to_bytes_elements(array, False), DT_BYTES, tuple(array.shape)
            except UnicodeEncodeError as error:
                raise InvalidArgumentError(
                    f"{prefix}input '{entry.name}' of model '{self.model_name}' has text that is not UTF-8: "
                    f"{error}", model=self.model_name,
                ) from error
        return self._contiguous(array), view.data_type, tuple(array.shape)

    def _contiguous(self, array):
        cdef ArrayView view
        arrays.describe(array, &view)
        return array if view.is_contiguous else arrays.private_copy(array)

    def _array_of(self, InputEntry entry, value, str prefix):
        """ndarray of a scalar, a nested list, or text; these take the data type of the config."""
        row = BY_NUMBER[entry.data_type]
        if isinstance(value, bytearray):
            value = bytes(value)
        is_scalar = isinstance(value, (str, bytes, bool, int, float, np.generic))
        # One bare value stands for a tensor of one element, of the configured rank.
        ones = (1,) * (entry.ndim + (self.max_batch_size > 0))
        if isinstance(value, np.generic) and value.dtype.kind not in "US":
            return np.asarray(value).reshape(ones)
        if hasattr(value, "__array__") and not is_scalar and not isinstance(value, type):
            return np.asarray(value)
        if not is_scalar and not isinstance(value, (list, tuple)):
            raise InvalidArgumentError(
                f"{prefix}input '{entry.name}' of model '{self.model_name}' is a "
                f"{type(value).__name__}: expected an array, a DLPack tensor, a list or a scalar",
                model=self.model_name,
            )
        try:
            if entry.data_type == DT_BYTES:
                array = _text_array(value)
            elif row.numpy_dtype is None:
                array = _bfloat16_array(value)
            else:
                array = _exact_array(value, np.dtype(row.numpy_dtype))
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidArgumentError(
                f"{prefix}input '{entry.name}' of model '{self.model_name}' cannot be converted to "
                f"'{row.protocol_name}': {error}", model=self.model_name,
            ) from error
        return array.reshape(ones) if is_scalar else array


cdef object _with_nearest(object error, object name, object known):
    """Add the name that was probably meant as a note: the text itself stays Triton's."""
    import difflib
    near = difflib.get_close_matches(str(name), list(known), 1)
    if near:
        error.add_note(f"did you mean '{near[0]}'?")
    return error


cdef object _text_array(object value):
    array = np.array(value, dtype=np.object_)
    for element in array.ravel():
        if not isinstance(element, (str, bytes, bytearray)):
            raise TypeError(f"expected str or bytes, got {type(element).__name__}")
    return array


cdef object _exact_array(object value, object dtype):
    """Array of nested numbers in `dtype`; refuses another kind, and values that do not fit."""
    array = np.asarray(value)
    if array.size == 0:
        return array.astype(dtype)
    kind = dtype.kind
    if array.dtype.kind in "Of" and kind in "iu":
        # Python ints beyond int64 become objects or, beside smaller ones, floats.
        objects = np.array(value, dtype=np.object_)
        if all([type(element) is int for element in objects.ravel()]):
            limits = np.iinfo(dtype)
            if objects.min() < limits.min or objects.max() > limits.max:
                raise OverflowError(f"a value does not fit into {dtype}")
            return objects.astype(dtype)
    if (array.dtype.kind == "b") != (kind == "b") or array.dtype.kind not in "biuf":
        raise TypeError(f"expected {'booleans' if kind == 'b' else 'numbers'}, got {array.dtype}")
    if kind in "iu":
        if array.dtype.kind == "f":
            raise TypeError("expected integers, got floats")
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise OverflowError(f"a value does not fit into {dtype}")
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if kind == "f" and not np.array_equal(np.isinf(converted), np.isinf(array.astype(np.float64))):
        raise OverflowError(f"a value does not fit into {dtype}")
    return converted


cdef object _bfloat16_array(object value):
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError("numbers need 'pytriton_lite[bf16]' (ml-dtypes) for BF16") from None
    exact = _exact_array(value, np.dtype(np.float32))
    with np.errstate(over="ignore"):
        converted = exact.astype(ml_dtypes.bfloat16)
    if not np.array_equal(np.isinf(converted), np.isinf(exact)):
        raise OverflowError("a value does not fit into bfloat16")
    return converted
