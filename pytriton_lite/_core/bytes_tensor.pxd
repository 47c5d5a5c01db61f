"""BYTES tensors: what the other compiled modules use (see bytes_tensor.pyx)."""

cdef object to_bytes_elements(object array, bint as_triton)
