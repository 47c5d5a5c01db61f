"""DLPack producers made with ctypes, which count the calls of their deleters.

The structures follow dlpack.h 1.0 and are independent of ours: `_core/dlpack_abi.pxd` is
tested against them.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p

import numpy as np

CPU, CUDA, CUDA_HOST = (1, 0), (2, 0), (3, 0)
INT, UINT, FLOAT, BFLOAT, COMPLEX, BOOL = 0, 1, 2, 4, 5, 6
READ_ONLY = 1

# Capsules keep pointers to their names, so these live for ever.
LEGACY, VERSIONED = b"dltensor", b"dltensor_versioned"
USED_LEGACY, USED_VERSIONED = b"used_dltensor", b"used_dltensor_versioned"


class DLDevice(ctypes.Structure):
    _fields_ = (("device_type", c_int32), ("device_id", c_int32))


class DLDataType(ctypes.Structure):
    _fields_ = (("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16))


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("device", DLDevice),
        ("ndim", c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(c_int64)),
        ("strides", ctypes.POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )


class DLManagedTensor(ctypes.Structure):
    _fields_ = (("dl_tensor", DLTensor), ("manager_ctx", c_void_p), ("deleter", c_void_p))


class DLPackVersion(ctypes.Structure):
    _fields_ = (("major", c_uint32), ("minor", c_uint32))


class DLManagedTensorVersioned(ctypes.Structure):
    _fields_ = (
        ("version", DLPackVersion),
        ("manager_ctx", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("dl_tensor", DLTensor),
    )


DELETER = ctypes.CFUNCTYPE(None, c_void_p)

_capsule_new = ctypes.pythonapi.PyCapsule_New
_capsule_new.restype, _capsule_new.argtypes = ctypes.py_object, (c_void_p, c_char_p, c_void_p)
_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.restype, _capsule_name.argtypes = c_char_p, (ctypes.py_object,)
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = c_void_p, (ctypes.py_object, c_char_p)

# A deleter may be called until the very end, so nothing of a producer is ever freed.
_producers: list[Producer] = []


class Producer:
    """A tensor over `data` (an ndarray, or a bare address) with a deleter that counts.

    It has ``__dlpack__`` like a library from before DLPack 1.0, without ``max_version``.
    """

    def __init__(
        self,
        data,
        shape=None,
        strides=None,
        *,
        dtype=(FLOAT, 32, 1),
        device=CPU,
        byte_offset=0,
        version=None,
        flags=0,
        has_deleter=True,
    ):
        self.deleted = 0
        self.data = data
        shape = data.shape if shape is None else shape
        address = data if isinstance(data, int) else data.ctypes.data
        self.struct = DLManagedTensor() if version is None else DLManagedTensorVersioned()
        self.name = LEGACY if version is None else VERSIONED
        if version is not None:
            self.struct.version = DLPackVersion(*version)
            self.struct.flags = flags
        self._deleter = DELETER(self._delete)
        if has_deleter:
            self.struct.deleter = ctypes.cast(self._deleter, c_void_p)
        tensor = self.struct.dl_tensor
        tensor.data, tensor.byte_offset = address, byte_offset
        tensor.device, tensor.dtype = DLDevice(*device), DLDataType(*dtype)
        tensor.ndim = len(shape)
        tensor.shape = (c_int64 * max(len(shape), 1))(*shape)
        if strides is not None:
            tensor.strides = (c_int64 * max(len(strides), 1))(*strides)
        _producers.append(self)

    def _delete(self, address):
        assert address == ctypes.addressof(self.struct)
        self.deleted += 1

    def capsule(self):
        # Without a destructor: what is not consumed is not deleted, and the tests can count.
        return _capsule_new(ctypes.addressof(self.struct), self.name, None)

    def __dlpack__(self, stream=None):
        self.stream = stream
        return self.capsule()

    def __dlpack_device__(self):
        device = self.struct.dl_tensor.device
        return (device.device_type, device.device_id)


class VersionedProducer(Producer):
    """A producer that knows ``max_version``."""

    def __dlpack__(self, *, stream=None, max_version=None):
        self.stream, self.max_version = stream, max_version
        return self.capsule()


def name_of(capsule):
    return _capsule_name(capsule)


def opened(capsule):
    """The structure behind a fresh capsule; it, and its parts, keep the capsule alive."""
    name = name_of(capsule)
    kind = {LEGACY: DLManagedTensor, VERSIONED: DLManagedTensorVersioned}[name]
    struct = kind.from_address(_capsule_pointer(capsule, name))
    struct.capsule = capsule
    return struct


def dims(tensor):
    return [tensor.shape[i] for i in range(tensor.ndim)]


def strides(tensor):
    return [tensor.strides[i] for i in range(tensor.ndim)]


def address(array: np.ndarray):
    return array.ctypes.data
