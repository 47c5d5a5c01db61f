"""What the caller gets: `Tensor` and `InferenceResponse` (see reply.pyx)."""

from pytriton_lite._core.statistics cimport Times


cdef class Tensor:
    cdef object payload             # ndarray (BYTES: object array of bytes, BF16: uint16 bits) or DLPackTensor
    cdef int type_number            # DT_*


cdef class InferenceResponse:
    cdef dict payloads              # name -> as Tensor.payload, in the model's order
    cdef set bfloat16_names         # payloads that are the bits of BF16 as uint16; or None
    cdef dict tensors               # name -> Tensor, made when first asked for
    cdef dict parameter_values      # or None
    cdef Times times                # what `timings` is made of
    cdef readonly object error      # TritonError or None
    cdef readonly bint final
    cdef readonly str request_id
    cdef readonly str model_name
    cdef readonly long model_version

    cdef dict to_arrays(self)
    cdef int type_number_of(self, str name)


cdef Tensor make_tensor(object payload, int type_number)
cdef object array_of(object payload, int type_number, str name)
