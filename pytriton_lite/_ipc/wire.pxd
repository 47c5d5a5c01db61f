"""Records of the rings, written and read (see wire.pyx)."""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pytriton_lite._core.array cimport ArrayView
from pytriton_lite._core.message cimport InferenceRequest
from pytriton_lite._ipc.arena cimport Arena, Block, Returns
from pytriton_lite._ipc.caller_memory cimport CallerMemory
from pytriton_lite._ipc.segment cimport Consumer, Producer, Segment


cdef class Link:
    cdef readonly Segment segment
    cdef readonly Arena arena           # this side's
    cdef readonly bint is_stub
    cdef Producer main_out
    cdef Consumer main_in
    cdef Producer side_out
    cdef Consumer side_in
    cdef object put_off                 # deque of records that came while a certain one was waited for
    cdef readonly Returns returns       # the other side's blocks that nobody here holds any more
    cdef readonly CallerMemory callers  # or None
    cdef dict lent                      # of the server: offset in `callers` -> _Lending, what the stub holds
    cdef object lending                 # lock
    cdef public bint shares_inputs      # of the stub: model code sees callers' memory itself
    cdef readonly bint is_closed
    cdef public bint has_told           # of the stub: something aside that is to be known before the next answer
    cdef uint64_t done_aside            # bytes of `side_in` whose records have been dealt with

    cdef int send(
        self, Writer record, bint aside, uint32_t kind, uint64_t call, int64_t deadline_ns=*,
        bint is_quiet=*,
    ) except -1
    cdef Reader receive(self, bint aside, int64_t deadline_ns)
    cdef bint is_inherited(self) noexcept
    cpdef int lend(self, Block block) except -1
    cdef int end_lending(self, uint64_t offset) except -1
    cdef Block block_lent(self, uint64_t offset)
    cdef bytes copied(self, const char *data, int64_t size)


cdef class Writer:
    cdef Link link
    cdef char *data
    cdef Py_ssize_t size
    cdef Py_ssize_t capacity
    cdef Py_ssize_t begin               # where what is in the record begins, after what it gives back
    cdef bint is_sent
    cdef bint gives                     # arrays are nobody else's: their memory may go over
    cdef bint reads                     # arrays stay as they are until the answer: the other side may look at them
    cdef list lent                      # tokens of blocks that the record hands over
    cdef list given_back                # blocks of the other side that it gives back with tensors in them

    cdef int rewind(self) except -1
    cdef int unlend(self) except -1
    cdef char *grow(self, Py_ssize_t count) except NULL
    cdef int u8(self, int value) except -1
    cdef int u32(self, uint32_t value) except -1
    cdef int i64(self, int64_t value) except -1
    cdef int text(self, str value) except -1
    cdef int json(self, object value) except -1
    cdef int lend(self, Block block) except -1
    cdef int lend_at(self, uint64_t offset) except -1
    cdef int _note(self, uint64_t token) except -1
    cdef int place_of(self, Block block, const char *data) except -1
    cdef int head(self, str name, int data_type, ArrayView *view, int place, int64_t size) except -1
    cdef int tensor(self, str name, object array, int data_type) except -1
    cdef int request(self, InferenceRequest request, tuple all_outputs) except -1
    cdef int tensors(self, list tensors) except -1
    cdef int bls_request(self, InferenceRequest request, str target) except -1
    cdef int outcome(self, object outcome) except -1


cdef class Reader:
    cdef Link link
    cdef readonly uint32_t kind
    cdef readonly uint64_t call
    cdef bytes payload
    cdef const char *at
    cdef Py_ssize_t left
    cdef str name                       # of the last tensor, like the next
    cdef int data_type
    cdef int is_view                    # VIEW_*, of its memory
    cdef int64_t distance               # of the last tensor from the begin of its block
    cdef readonly bint is_final         # of the last outcome

    cdef int open(self, bytes payload) except -1
    cdef const char *take(self, Py_ssize_t count) except NULL
    cdef int u8(self) except -1
    cdef uint32_t u32(self) except? 0xFFFFFFFF
    cdef int64_t i64(self) except? -1
    cpdef str text(self)
    cpdef object json(self)
    cdef object array(self, bint may_view)
    cdef Block block(self, int place, int64_t size)
    cdef list tensors(self)
    cdef InferenceRequest request(self, tuple all_outputs)
    cdef InferenceRequest bls_request(self)
    cpdef object outcome(self, str model_name, long model_version)


cdef Writer new_writer(Link link)
