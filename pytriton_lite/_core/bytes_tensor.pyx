# cython: language_level=3, freethreading_compatible=True
"""BYTES tensors: elements of any length, and their serialized form.

Serialized, an element is a little-endian uint32 length followed by that many
bytes, elements in C order without padding.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

import numpy as np


cdef bytes _element(object value, bint as_triton):
    # Triton's rule for model code: bytes are taken as they are, anything else by the UTF-8 of its
    # str(), even numpy's and others' subclasses of bytes. A caller's are taken for bytes.
    if not as_triton and isinstance(value, (bytes, bytearray)):
        return bytes(value)
    return str(value).encode("utf-8")


cdef object to_bytes_elements(object array, bint as_triton):
    """New C-ordered object array of the same shape whose elements are `bytes`.

    `array` is an ndarray of dtype object or S; trailing NULs of an S element
    are lost, as numpy loses them.
    """
    cdef list elements = array.ravel(order="C").tolist()
    cdef Py_ssize_t i
    for i in range(len(elements)):
        if type(elements[i]) is not bytes:
            elements[i] = _element(elements[i], as_triton)
    result = np.empty(len(elements), dtype=np.object_)
    result[:] = elements
    return result.reshape(array.shape)


def serialize_byte_tensor(array):
    """Serialize an array of strings; `None` for other dtypes, `()` for an empty array."""
    cdef list elements
    cdef bytes element, out
    cdef Py_ssize_t total = 0
    cdef char *cursor
    cdef uint32_t size
    if array.size == 0:
        return ()
    if array.dtype != np.object_ and array.dtype.type != np.bytes_:
        return None
    elements = to_bytes_elements(array, True).ravel().tolist()
    for element in elements:
        total += 4 + len(element)
    out = PyBytes_FromStringAndSize(NULL, total)
    cursor = PyBytes_AS_STRING(out)
    for element in elements:
        size = <uint32_t> PyBytes_GET_SIZE(element)
        _put_length(cursor, size)
        memcpy(cursor + 4, PyBytes_AS_STRING(element), size)
        cursor += 4 + size
    return out


def deserialize_bytes_tensor(encoded):
    """Read serialized elements into a 1-d object array of `bytes`.

    Raises
    ------
    struct.error
        The buffer ends inside a length or an element.
    """
    cdef bytes data = encoded if type(encoded) is bytes else bytes(encoded)
    cdef const char *start = PyBytes_AS_STRING(data)
    cdef Py_ssize_t offset = 0, end = PyBytes_GET_SIZE(data)
    cdef uint32_t size
    cdef list elements = []
    while offset < end:
        if end - offset < 4:
            raise _too_short(4, offset, end)
        size = _get_length(<const uint8_t *> start + offset)
        offset += 4
        if end - offset < <Py_ssize_t> size:
            raise _too_short(size, offset, end)
        elements.append(PyBytes_FromStringAndSize(start + offset, size))
        offset += size
    result = np.empty(len(elements), dtype=np.object_)
    result[:] = elements
    return result


cdef object _too_short(Py_ssize_t size, Py_ssize_t offset, Py_ssize_t end):
    import struct
    return struct.error(
        f"unpack_from requires a buffer of at least {offset + size} bytes for unpacking {size} bytes "
        f"at offset {offset} (actual buffer size is {end})"
    )


cdef inline void _put_length(char *to, uint32_t size) noexcept nogil:
    to[0] = <char> (size & 0xFF)
    to[1] = <char> ((size >> 8) & 0xFF)
    to[2] = <char> ((size >> 16) & 0xFF)
    to[3] = <char> ((size >> 24) & 0xFF)


cdef inline uint32_t _get_length(const uint8_t *of) noexcept nogil:
    return of[0] | (<uint32_t> of[1] << 8) | (<uint32_t> of[2] << 16) | (<uint32_t> of[3] << 24)
