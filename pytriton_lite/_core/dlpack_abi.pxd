"""DLPack's C structures, declared by us: no header is needed or shipped.

`DLManagedTensor` is the legacy form (capsule ``dltensor``), version 0.x;
`DLManagedTensorVersioned` the versioned one (capsule ``dltensor_versioned``),
version 1.x. Offsets and sizes are held by a test against numpy.
"""
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# DLDeviceType
cdef enum:
    kDLCPU = 1
    kDLCUDA = 2
    kDLCUDAHost = 3

# DLDataTypeCode
cdef enum:
    kDLInt = 0
    kDLUInt = 1
    kDLFloat = 2
    kDLBfloat = 4
    kDLBool = 6

# Bits of DLManagedTensorVersioned.flags
cdef enum:
    DLPACK_FLAG_READ_ONLY = 1
    DLPACK_FLAG_IS_COPIED = 2

# The newest version that this package exports and the only major one it accepts.
cdef enum:
    DLPACK_MAJOR = 1
    DLPACK_MINOR = 0

ctypedef struct DLDevice:
    int32_t device_type
    int32_t device_id

ctypedef struct DLDataType:
    uint8_t code
    uint8_t bits
    uint16_t lanes

ctypedef struct DLTensor:
    void *data
    DLDevice device
    int32_t ndim
    DLDataType dtype
    int64_t *shape
    int64_t *strides        # in elements; NULL means C-contiguous
    uint64_t byte_offset    # added to data

ctypedef struct DLManagedTensor:
    DLTensor dl_tensor
    void *manager_ctx       # the producer's
    void (*deleter)(DLManagedTensor *) noexcept

ctypedef struct DLPackVersion:
    uint32_t major
    uint32_t minor

ctypedef struct DLManagedTensorVersioned:
    DLPackVersion version   # read before anything else
    void *manager_ctx
    void (*deleter)(DLManagedTensorVersioned *) noexcept
    uint64_t flags
    DLTensor dl_tensor
