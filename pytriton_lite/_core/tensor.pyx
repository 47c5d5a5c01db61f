# cython: language_level=3, freethreading_compatible=True
"""`pb_utils.Tensor`, the tensor that model code sees.

Whose memory it is:

* made by a model from a C-contiguous array: the model's array itself, not copied;
* an input, or an import by DLPack: memory of the caller or of the producer.
  `as_numpy()` gives a private writable copy, made when first asked for, so that a
  model that writes into its input never changes the caller's data;
  `to_dlpack()` gives the memory itself.
"""
cimport cython
from cpython.object cimport PyObject

import sys

from numpy import ndarray

from pytriton_lite._core cimport array as arrays
from pytriton_lite._core.array cimport DT_BF16, DT_BYTES, DT_INVALID, SHARE_ALL, SHARE_SMALL, ArrayView
from pytriton_lite._core.bytes_tensor cimport to_bytes_elements
from pytriton_lite._core.construct cimport (
    PyVectorcall_NARGS, ptl_construct, ptl_set_constructor,
)
from pytriton_lite._core.dlpack cimport (
    DLPackTensor, consume, export_array, export_device, refuse_negated,
)

cdef extern from *:
    """
    #include <stdint.h>
    static int64_t ptl_live_tensors = 0;
    #ifdef Py_GIL_DISABLED
    #define PTL_LIVE_ADD(n) __atomic_add_fetch(&ptl_live_tensors, (n), __ATOMIC_RELAXED)
    #else
    #define PTL_LIVE_ADD(n) (ptl_live_tensors += (n))
    #endif
    """
    long PTL_LIVE_ADD(long) noexcept nogil


class TritonModelException(Exception):
    """What the runtime raises when model code breaks a rule of `pb_utils`."""


TritonModelException.__module__ = "c_python_backend_utils"


def live_tensor_count():
    """Number of `Tensor` objects alive in this process; for leak tests."""
    return PTL_LIVE_ADD(0)


cdef object wrong_arguments(str function, str kind, tuple signatures, tuple args, dict kwargs):
    """The TypeError of Triton's native module: same first words, same parts."""
    numbered = "".join(f"\n    {i}. {text}" for i, text in enumerate(signatures, 1))
    invoked = ", ".join([repr(value) for value in args])
    named = ", ".join([f"{key}={value!r}" for key, value in kwargs.items()])
    return TypeError(
        f"{function}(): incompatible {kind} arguments. The following argument types are supported:"
        f"{numbered}\n\nInvoked with: {invoked}" + (f"; kwargs: {named}" if named else "")
    )


cdef str text_of(object value):
    """`value` as str; UTF-8 bytes count as text, as in Triton. None when it is neither."""
    if type(value) is str:
        return <str> value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return None


cdef tuple _CONSTRUCTOR = (
    "c_python_backend_utils.Tensor(arg0: str, arg1: numpy.ndarray)",
)


@cython.final
@cython.no_gc
cdef class SpareArray:
    """Place for one private copy of an input between two requests."""


# No cycle can lead through a tensor: arrays are not collected by the GC, nor is anything else in it.
@cython.freelist(64)
@cython.final
@cython.no_gc
cdef class Tensor:
    """A named tensor: ``Tensor(name, array)``, both by position only.

    Parameters
    ----------
    name
        Not empty.
    array
        A real `numpy.ndarray` of bool, (u)int8 to 64, float16 to 64, ``object`` or
        ``S``; the last two become BYTES, serialized now (later changes of the array
        are not sent). A C-contiguous array is not copied: `as_numpy()` is that very
        object. Other layouts are copied once.

    Raises
    ------
    TypeError
        Arguments of another kind, as Triton's native module raises it.
    TritonModelException
        Empty name, or a dtype without a Triton type.
    """

    def __cinit__(self):
        PTL_LIVE_ADD(1)

    def __dealloc__(self):
        PTL_LIVE_ADD(-1)

    def __init__(self, *args, **kwargs):
        if len(args) != 2 or kwargs or not self._set(args[0], args[1]):
            raise wrong_arguments("__init__", "constructor", _CONSTRUCTOR, args, kwargs)

    cdef bint _set(self, object name, object array) except -1:
        """Wrap an array; False for arguments of another kind."""
        cdef ArrayView view
        if type(name) is not str:
            name = text_of(name)
        if name is None or not arrays.describe(array, &view):
            return False
        if not name:
            raise TritonModelException("Tensor name cannot be an empty string.")
        if type(array) is not ndarray and _is_masked(array):
            raise AttributeError("'numpy.ndarray' object has no attribute 'c_contiguous'")
        if view.data_type == DT_INVALID:
            raise TritonModelException("NumPy dtype is not supported.")
        self.tensor_name = <str> name
        self.data_type = view.data_type
        if view.data_type == DT_BYTES:
            self.wire = to_bytes_elements(array, True)
            self.shown = array
        elif view.is_contiguous:
            self.wire = self.shown = array
        else:
            self.wire = self.shown = arrays.private_copy(array)
        return True

    def __reduce__(self):
        raise TypeError("cannot pickle 'c_python_backend_utils.Tensor' object")

    def name(self):
        """Name of the tensor."""
        return self.tensor_name

    def shape(self):
        """Shape as a new list of int."""
        if self.device is not None:
            return list(self.device.shape)
        return list(self.wire.shape)

    def as_numpy(self):
        """The data as an ndarray, the same object at each call.

        For a tensor made from an array, that array. For an input or a DLPack
        import, a private writable copy, made at the first call.

        Raises
        ------
        TritonModelException
            The tensor is in GPU memory, or BF16.
        """
        if self.shown is None:
            self._show()
        return self.shown

    cdef object _show(self):
        if self.device is not None:
            raise TritonModelException("Tensor is stored in GPU and cannot be converted to NumPy.")
        if self.data_type == DT_BF16:
            raise TritonModelException(
                "Tensor dtype is BF16 and cannot be converted to NumPy. "
                "Use to_dlpack() and from_dlpack() instead."
            )
        if self.spare is not None and self.spare.array is not None:
            array = self.spare.array
            self.spare.array = None
            if arrays.refill(array, self.wire):
                self.shown = array
                return
        self.shown = arrays.private_copy(self.wire)

    cdef int give_back(self) except -1:
        """The request is over and only the runtime holds this tensor: recycle the private copy."""
        array = self.shown
        # Held by `shown` and by the variable.
        if self.spare is not None and array is not None and arrays.is_recyclable(array, 2):
            self.spare.array = array
        return 0

    def triton_dtype(self):
        """Number of the data type in `inference.DataType`; on Triton this method always raises."""
        return self.data_type

    def is_cpu(self):
        """Whether the data is in CPU memory (pinned memory counts)."""
        return self.device is None

    def to_dlpack(self):
        """Capsule ``dltensor`` of the tensor's own memory; no copy.

        The capsule keeps the memory alive. A read-only array of the caller is
        copied once, since this form of capsule cannot say "read-only".
        """
        return self._capsule()

    def __dlpack__(self, stream=None):
        return self._capsule()

    cdef object _capsule(self):
        cdef ArrayView view
        if self.data_type == DT_BYTES:
            raise TritonModelException("DLPack does not have support for string tensors.")
        if self.device is not None:
            return export_device(self.device, False)
        if not arrays.describe(self.wire, &view):
            raise TritonModelException("Tensor is not initialized.")
        if self.is_foreign and not view.is_writable:
            self.detach()
        return export_array(self.wire, self.data_type, False, 0)

    def __dlpack_device__(self):
        if self.device is not None:
            return self.device.device
        return (1, 0)

    @staticmethod
    def from_dlpack(*args, **kwargs):
        """``Tensor.from_dlpack(name, source)``: wrap a DLPack capsule or producer, without a copy.

        Parameters
        ----------
        name
            Not empty.
        source
            A fresh capsule named ``dltensor`` (or ``dltensor_versioned``), or an object with
            ``__dlpack__`` and ``__dlpack_device__``. C-contiguous; strides of dims of size 1
            and of empty tensors don't matter. The memory stays the producer's and is kept alive.

        Raises
        ------
        TritonModelException
            Not a DLPack source, not contiguous, an unknown data type, a used capsule.
        """
        cdef DLPackTensor taken
        cdef Tensor made
        cdef object name
        if len(args) != 2 or kwargs:
            raise wrong_arguments("from_dlpack", "function", _FROM_DLPACK, args, kwargs)
        name = text_of(args[0])
        if name is None:
            raise wrong_arguments("from_dlpack", "function", _FROM_DLPACK, args, kwargs)
        if not name:
            raise TritonModelException("Tensor name cannot be an empty string.")
        try:
            taken = consume(_capsule_of(args[1]))
        except BufferError as error:
            if type(args[1]).__name__ != "PyCapsule":
                raise
            raise TritonModelException(str(error)) from error
        if not taken.is_contiguous():
            raise TritonModelException(
                "DLPack tensor is not contiguous. Only contiguous DLPack tensors that are "
                "stored in C-Order are supported."
            )
        made = Tensor.__new__(Tensor)
        made.tensor_name = <str> name
        made.data_type = taken.data_type
        made.is_foreign = True
        if taken.is_on_cpu():
            made.wire = taken.array()
        elif taken.device[0] == 2:
            made.device = taken
        else:
            raise TritonModelException(
                f"DLDevice type {taken.device[0]} is not support by Python backend."
            )
        return made

    cdef int detach(self) except -1:
        """Copy foreign memory, so that the tensor no longer depends on its owner."""
        if self.is_foreign and self.wire is not None:
            # A private copy that model code has seen may have been changed; this one is not shown.
            self.wire = arrays.private_copy(self.wire)
            self.is_foreign = False
        return 0

    cdef Tensor again(self):
        """The input as it came, for a model that gets the request again."""
        cdef Tensor made = Tensor.__new__(Tensor)
        made.tensor_name = self.tensor_name
        made.wire = self.wire
        made.device = self.device
        made.data_type = self.data_type
        made.is_foreign = self.is_foreign
        made.spare = self.spare
        if self.spare is None and self.shown is self.wire:
            made.shown = self.wire  # memory is shared with the model
        return made

    cdef object hand_over(self, Py_ssize_t references, int share):
        """The data for the caller, who owns the result.

        Without a copy when nobody else can reach it (`references` are those to this
        object that the runtime itself holds, 0 when it is known to be kept elsewhere),
        or when the model's memory may be shared (SHARE_*); else a copy, so that a model that
        reuses its buffer never changes an answer given before.
        """
        array = self.wire
        if share == SHARE_ALL or share == SHARE_SMALL and arrays.is_small(array):
            return array
        if not self.is_foreign and arrays.reference_count(<PyObject *> self) <= references:
            # Held by `wire`, by `shown` unless that is another array, and by the variable.
            if arrays.is_exclusive(array, 3 if self.shown is array else 2):
                return array
        return arrays.private_copy(array)


cdef object _construct(PyObject *type, PyObject **args, size_t count, PyObject *names):
    cdef Tensor made
    if names == NULL and PyVectorcall_NARGS(count) == 2:
        made = Tensor.__new__(Tensor)
        if made._set(<object> args[0], <object> args[1]):
            return made
    return ptl_construct(type, args, count, names)


ptl_set_constructor(Tensor, _construct)


cdef bint _is_masked(object array) except -1:
    masked_arrays = sys.modules.get("numpy.ma")  # costly to import, and there if one is
    return masked_arrays is not None and isinstance(array, masked_arrays.MaskedArray)


cdef tuple _FROM_DLPACK = (
    "(arg0: str, arg1: object) -> c_python_backend_utils.Tensor",
)


cdef object _capsule_of(object source):
    if type(source).__name__ == "PyCapsule":
        return source
    try:
        produce = type(source).__dlpack__
        device = source.__dlpack_device__()
    except AttributeError:
        raise TritonModelException(
            "Provided tensor is not supported. Tensor must be a DLPack capsule"
            "         or have `__dlpack__` and `__dlpack_device__` attributes"
        ) from None
    refuse_negated(source)
    if device[0] == 2:
        # The legacy default stream, the only one that every producer takes (torch refuses 2, the
        # per-thread one): what the producer has queued so far is ordered before it.
        return produce(source, stream=1)
    return produce(source, stream=None)


cdef Tensor input_tensor(str name, object wire, int data_type, SpareArray spare, bint share):
    """Tensor over the caller's array. With `share`, model code sees that array itself."""
    cdef Tensor made = Tensor.__new__(Tensor)
    made.tensor_name = name
    made.wire = wire
    made.data_type = data_type
    made.is_foreign = True
    if not share:
        made.spare = spare
    elif data_type != DT_BF16:
        made.shown = wire
    return made
