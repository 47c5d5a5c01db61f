"""`pb_utils.Tensor`: what the other compiled modules use (see tensor.pyx)."""
from pytriton_lite._core.dlpack cimport DLPackTensor


cdef class SpareArray:
    cdef object array           # a private copy that was given back, or None


cdef class Tensor:
    cdef str tensor_name
    cdef object wire            # ndarray: what is sent; BYTES: object array of bytes; BF16: uint16 bits
    cdef object shown           # ndarray that as_numpy() gives; None until an input is first asked for it
    cdef DLPackTensor device    # the payload when it is not in CPU memory, else None
    cdef int data_type          # DT_*
    cdef bint is_foreign        # `wire` belongs to the caller or to a DLPack producer
    cdef SpareArray spare       # where the private copy of an input comes from and goes to; or None

    cdef bint _set(self, object name, object array) except -1
    cdef object _show(self)
    cdef object _capsule(self)
    cdef int detach(self) except -1
    cdef Tensor again(self)
    cdef int give_back(self) except -1
    cdef object hand_over(self, Py_ssize_t references, int share)


cdef Tensor input_tensor(str name, object wire, int data_type, SpareArray spare, bint share)
cdef str text_of(object value)
cdef object wrong_arguments(str function, str kind, tuple signatures, tuple args, dict kwargs)
