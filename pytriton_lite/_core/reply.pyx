# cython: language_level=3, freethreading_compatible=True
"""What the caller gets: the public `Tensor` and `InferenceResponse`."""
cimport cython

import math
import operator
import struct

import numpy as np

from pytriton_lite._core cimport array as arrays
from pytriton_lite._core.array cimport DT_BF16, DT_BYTES, DT_INVALID, ArrayView
from pytriton_lite._core.bytes_tensor cimport to_bytes_elements
from pytriton_lite._core.dlpack cimport (
    DLPackTensor, consume, export_array, export_device, refuse_negated,
)
from pytriton_lite._core.bytes_tensor import deserialize_bytes_tensor
from pytriton_lite._dtypes import BY_NUMBER, BY_PROTOCOL_NAME, DataType
from pytriton_lite.errors import InvalidArgumentError, UnsupportedError


cdef object _bfloat16():
    try:
        import ml_dtypes
    except ImportError:
        raise UnsupportedError(
            "BF16 has no numpy dtype: install 'pytriton_lite[bf16]' (ml-dtypes), or take the tensor by DLPack"
        ) from None
    return ml_dtypes.bfloat16


cdef object array_of(object payload, int type_number, str name):
    if type(payload) is DLPackTensor:
        raise UnsupportedError(
            f"tensor{' ' + repr(name) if name else ''} is on a device and has no numpy form: take it by DLPack"
        )
    if type_number == DT_BF16:
        return payload.view(_bfloat16())
    return payload


cdef Tensor make_tensor(object payload, int type_number):
    cdef Tensor made = Tensor.__new__(Tensor)
    made.payload = payload
    made.type_number = type_number
    return made


@cython.final
cdef class Tensor:
    """Data of one input or output: ``Tensor(data_type, shape, memory_buffer)``.

    Parameters
    ----------
    data_type
        `DataType` or its name, such as ``"FP32"``.
    shape
        Sizes of the dimensions.
    memory_buffer
        Object with the buffer protocol that holds exactly the elements in C order. It is
        used as it is and kept alive. For BYTES: the serialized elements, copied.

    Notes
    -----
    An output of a model owns its memory and is the caller's to keep or change.
    """

    def __init__(self, data_type, shape, memory_buffer):
        row = BY_PROTOCOL_NAME.get(data_type) if isinstance(data_type, str) else None
        if row is None and isinstance(data_type, int):
            row = BY_NUMBER.get(int(data_type))
        if row is None:
            raise InvalidArgumentError(
                f"invalid data type {data_type!r} for a tensor, expected one of {list(BY_PROTOCOL_NAME)}"
            )
        dims = [operator.index(n) for n in shape]
        self.type_number = row.number
        try:
            if row.number == DT_BYTES:
                flat = deserialize_bytes_tensor(memory_buffer)
            else:
                flat = np.frombuffer(memory_buffer, dtype=row.numpy_dtype or np.uint16)
        except (ValueError, struct.error) as error:
            raise InvalidArgumentError(f"memory buffer does not hold {row.protocol_name}: {error}") from error
        if min(dims, default=0) < 0 or math.prod(dims) != flat.size:
            raise InvalidArgumentError(
                f"memory buffer holds {flat.size} elements of {row.protocol_name}, shape {dims} needs "
                f"{math.prod(dims)}"
            )
        self.payload = flat.reshape(dims)

    @property
    def data_type(self):
        """`DataType` of the elements."""
        return DataType(self.type_number)

    @property
    def shape(self):
        """Sizes of the dimensions, a tuple of int."""
        return tuple(self.payload.shape)

    @property
    def size(self):
        """Bytes of the data; for BYTES the serialized size."""
        if self.type_number == DT_BYTES:
            return sum([4 + len(element) for element in self.payload.ravel()])
        cdef long long size = arrays.item_size(self.type_number)
        for n in self.payload.shape:
            size *= n
        return size

    @property
    def data_ptr(self):
        """Address of the first element; 0 for BYTES, whose elements lie apart."""
        cdef ArrayView view
        cdef DLPackTensor device
        if type(self.payload) is DLPackTensor:
            device = <DLPackTensor> self.payload
            return <size_t> device.tensor.data + device.tensor.byte_offset
        if self.type_number == DT_BYTES or not arrays.describe(self.payload, &view):
            return 0
        return <size_t> view.data

    def numpy(self):
        """The data as an ndarray, without a copy. BYTES: an object array of `bytes`.

        Raises
        ------
        UnsupportedError
            The data is on a device; or BF16 and ml-dtypes is not installed.
        """
        return array_of(self.payload, self.type_number, "")

    def __array__(self, dtype=None, copy=None):
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"a copy is needed to convert {array.dtype} to {dtype}")
            return array.astype(dtype)
        return array.copy() if copy else array

    def to_bytes_array(self):
        """Object array of `bytes` of a BYTES tensor."""
        if self.type_number != DT_BYTES:
            raise InvalidArgumentError(f"tensor is {self.data_type.name}, not BYTES")
        return self.payload

    def to_string_array(self):
        """Array of `str` (numpy dtype ``U``) of a BYTES tensor, decoded as UTF-8."""
        decoded = [element.decode("utf-8") for element in self.to_bytes_array().ravel()]
        return np.array(decoded, dtype=np.str_).reshape(self.payload.shape)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        cdef bint versioned = max_version is not None and max_version[0] >= 1
        cdef bint writable
        cdef ArrayView view
        if self.type_number == DT_BYTES:
            raise BufferError("a BYTES tensor has no DLPack form")
        if dl_device is not None and tuple(dl_device) != tuple(self.__dlpack_device__()):
            raise BufferError(f"cannot export to device {dl_device}: the data is on {self.__dlpack_device__()}")
        if type(self.payload) is DLPackTensor:
            if copy:
                raise BufferError("a tensor on a device cannot be copied here")
            return export_device(self.payload, versioned)
        payload = arrays.private_copy(self.payload) if copy else self.payload
        arrays.describe(payload, &view)
        writable = view.is_writable
        if not writable and not versioned:
            raise BufferError("a read-only tensor needs a consumer that knows DLPack 1.0")
        return export_array(payload, self.type_number, versioned, (0 if writable else 1) | (2 if copy else 0))

    def __dlpack_device__(self):
        if type(self.payload) is DLPackTensor:
            return (<DLPackTensor> self.payload).device
        return (1, 0)

    @staticmethod
    def from_dlpack(source):
        """Tensor over the memory of a DLPack producer or capsule; copied once if not C-contiguous."""
        return _from_dlpack(source)

    @staticmethod
    def from_bytes_array(array):
        """BYTES tensor from an array of `bytes` (dtype object or ``S``); copies the references."""
        return make_tensor(to_bytes_elements(np.asarray(array), False), DT_BYTES)

    @staticmethod
    def from_string_array(array):
        """BYTES tensor from an array of `str`; encodes as UTF-8."""
        return make_tensor(to_bytes_elements(np.asarray(array, dtype=np.object_), False), DT_BYTES)

    def __reduce__(self):
        raise TypeError("cannot pickle a Tensor: pickle its numpy() array")

    def __repr__(self):
        return f"Tensor({self.data_type.name}, shape={list(self.payload.shape)})"


cdef Tensor _from_dlpack(object source):
    cdef DLPackTensor taken
    cdef ArrayView view
    if type(source) is np.ndarray and arrays.describe(source, &view) and view.data_type not in (
        DT_BYTES, DT_INVALID
    ):
        # Taken as it is: numpy before 2.1 cannot say in a capsule that an array is read-only.
        return make_tensor(source if view.is_contiguous else arrays.private_copy(source), view.data_type)
    if type(source).__name__ == "PyCapsule":
        capsule = source
    elif not hasattr(source, "__dlpack__"):
        raise TypeError(f"{type(source).__name__!r} has no __dlpack__ and is no DLPack capsule")
    else:
        refuse_negated(source)
        # Without a stream torch does not wait for work under way; see `_capsule_of` in tensor.pyx.
        device = source.__dlpack_device__() if hasattr(source, "__dlpack_device__") else (1, 0)
        stream = {"stream": 1} if device[0] == 2 else {}
        # Producers that know no versions refuse the keyword: ask them again without.
        try:
            capsule = source.__dlpack__(max_version=(1, 0), **stream)
        except TypeError:
            capsule = source.__dlpack__(**stream)
    taken = consume(capsule)
    if not taken.is_on_cpu():
        if not taken.is_contiguous():
            raise BufferError("a tensor on a device must be C-contiguous")
        return make_tensor(taken, taken.data_type)
    array = taken.array()
    arrays.describe(array, &view)
    if not view.is_contiguous:
        array = arrays.private_copy(array)
    return make_tensor(array, taken.data_type)


@cython.freelist(64)
@cython.final
cdef class InferenceResponse:
    """Answer to one request.

    Attributes
    ----------
    outputs : dict[str, Tensor]
        Outputs by name, in the model's order. The caller owns their memory. If a model
        sends one name twice, the first one counts.
    parameters : dict[str, bool | int | float | str]
        Parameters that the model attached.
    error : TritonError or None
        Set instead of raised where ``raise_on_error=False`` was asked for.
    final : bool
        No further response follows.
    request_id, model_name, model_version
        What was asked, and who answered.
    timings : Timings or None
        Where the time went; None of an empty final response and of an error. Of a request that was
        rescheduled, of its last execution.
    """

    @property
    def timings(self):
        cdef Times *times = &self.times
        if not times.ended_ns:
            return None
        from pytriton_lite._timings import Timings  # few ask for it

        return Timings(
            times.began_ns - times.queued_ns,
            times.inputs_ns - times.began_ns,
            times.outputs_ns - times.inputs_ns,
            times.ended_ns - times.outputs_ns,
            times.ended_ns - times.queued_ns,
        )

    @property
    def outputs(self):
        if self.tensors is None:
            self.tensors = {
                name: make_tensor(payload, self.type_number_of(name))
                for name, payload in self.payloads.items()
            }
        return self.tensors

    @property
    def parameters(self):
        return {} if self.parameter_values is None else self.parameter_values

    cdef int type_number_of(self, str name):
        cdef ArrayView view
        payload = self.payloads[name]
        if type(payload) is DLPackTensor:
            return (<DLPackTensor> payload).data_type
        if self.bfloat16_names is not None and name in self.bfloat16_names:
            return DT_BF16
        arrays.describe(payload, &view)
        return view.data_type

    cdef dict to_arrays(self):
        for payload in self.payloads.values():
            if self.bfloat16_names is not None or type(payload) is DLPackTensor:
                return {name: self[name] for name in self.payloads}
        return self.payloads

    def to_dict(self):
        """Outputs as ndarrays by name; a new dict."""
        return dict(self.to_arrays())

    def __getitem__(self, str name):
        payload = self.payloads.get(name)
        if payload is None:
            raise KeyError(
                f"response of model '{self.model_name}' has no output '{name}', only {list(self.payloads)}"
            )
        return array_of(payload, self.type_number_of(name), name)

    def __repr__(self):
        if self.error is not None:
            return f"<InferenceResponse of {self.model_name!r}: {type(self.error).__name__}: {self.error}>"
        return f"<InferenceResponse of {self.model_name!r}: {self.outputs!r}>"


def error_response(error, str request_id, str model_name, long model_version):
    """Response that carries `error`, for callers who asked not to have it raised."""
    cdef InferenceResponse made = InferenceResponse.__new__(InferenceResponse)
    made.payloads = {}
    made.error = error
    made.final = True
    made.request_id = request_id
    made.model_name = model_name
    made.model_version = model_version
    return made
