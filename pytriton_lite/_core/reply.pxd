"""What the caller gets: `Tensor` and `InferenceResponse` (see reply.pyx)."""


cdef class Tensor:
    cdef object payload             # ndarray (BYTES: object array of bytes, BF16: uint16 bits) or DLPackTensor
    cdef int type_number            # DT_*


cdef class InferenceResponse:
    cdef list names                 # of str, in the model's order
    cdef list payloads              # as Tensor.payload
    cdef list type_numbers          # of int
    cdef dict tensors               # name -> Tensor, made when first asked for
    cdef dict parameter_values      # or None
    cdef readonly object error      # TritonError or None
    cdef readonly bint final
    cdef readonly str request_id
    cdef readonly str model_name
    cdef readonly long model_version

    cdef dict arrays(self)


cdef Tensor make_tensor(object payload, int type_number)
cdef object array_of(object payload, int type_number, str name)
