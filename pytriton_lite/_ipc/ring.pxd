"""Rings of records in shared memory, in C.

One producer process and one consumer process; in each, threads take turns under a lock of
that process. Nothing here needs the GIL.

Layout of a ring, offsets in bytes from its start::

      0  uint64 head      bytes that the consumer has taken, ever; written by the consumer
     64  uint64 tail      bytes that the producer has put in, ever; written by the producer
    128  uint32 asleep    futex: 1 while the consumer sleeps for a record
    132  uint32 full      futex: 1 while the producer sleeps for room
    192  data             a power of two of bytes; byte n of the stream is at n % size

Layout of a record; records lie at multiples of 16 and never wrap around the end::

      0  uint32 size      of header and payload
      4  uint32 kind      0: a filler up to the end
      8  uint64 call      whose call it is about
     16  payload

Each counter has a cache line of its own. The process that reads a counter of the other side
checks it: it may hold anything, and may change at any time, so it is read once. The
consumer copies a record before it looks into it.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #ifndef PTL_RING_H
    #define PTL_RING_H
    #include <errno.h>
    #include <limits.h>
    #include <linux/futex.h>
    #include <sched.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    enum { PTL_RING_OK = 0, PTL_RING_EMPTY = 1, PTL_RING_FULL = 2, PTL_RING_BROKEN = 3, PTL_RING_TOO_LARGE = 4 };
    enum { PTL_RING_HEADER = 192, PTL_RECORD_HEADER = 16 };

    typedef struct ptl_ring_head {
        uint64_t head; char pad0[56];
        uint64_t tail; char pad1[56];
        uint32_t asleep, full; char pad2[56];
    } ptl_ring_head;
    _Static_assert(sizeof(ptl_ring_head) == PTL_RING_HEADER, "layout of a ring");

    typedef struct ptl_record {
        uint32_t size, kind;
        uint64_t call;
    } ptl_record;
    _Static_assert(sizeof(ptl_record) == PTL_RECORD_HEADER, "layout of a record");

    /* One side's view of a ring. `mine` is this side's own counter, which it never reads back. */
    typedef struct ptl_ring_end {
        ptl_ring_head *head;
        char *data;
        uint64_t size;
        uint64_t mine;
    } ptl_ring_end;

    static inline void ptl_ring_init(ptl_ring_end *r, void *memory, uint64_t size) {
        r->head = (ptl_ring_head *)memory;
        r->data = (char *)memory + PTL_RING_HEADER;
        r->size = size;
        r->mine = 0;
    }
    static inline void ptl_ring_wake(uint32_t *word) {
        syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
    }

    /* Between two looks: a core that shares its units with that of the other side leaves them to it. */
    static inline void ptl_ring_pause(void) {
    #if defined(__x86_64__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ volatile("isb");
    #endif
    }

    static inline uint64_t ptl_record_stride(uint64_t size) { return (size + 15) & ~(uint64_t)15; }

    /* Producer: put a record in. The consumer is not woken, see ptl_ring_bell. */
    static inline int ptl_ring_put(ptl_ring_end *r, uint32_t kind, uint64_t call,
                                   const char *payload, uint64_t length) {
        uint64_t size = ptl_record_stride(PTL_RECORD_HEADER + length);
        uint64_t head = __atomic_load_n(&r->head->head, __ATOMIC_ACQUIRE);
        uint64_t used = r->mine - head, at = r->mine & (r->size - 1), skip = 0;
        ptl_record record = {(uint32_t)(PTL_RECORD_HEADER + length), kind, call};
        if (length > r->size || size > r->size / 2) return PTL_RING_TOO_LARGE;
        if (used > r->size) return PTL_RING_BROKEN;
        if (at + size > r->size) skip = r->size - at;
        if (used + skip + size > r->size) return PTL_RING_FULL;
        if (skip) {
            ptl_record filler = {(uint32_t)skip, 0, 0};
            memcpy(r->data + at, &filler, sizeof filler);
            at = 0;
        }
        memcpy(r->data + at, &record, sizeof record);
        if (length) memcpy(r->data + at + PTL_RECORD_HEADER, payload, length);
        r->mine += skip + size;
        __atomic_store_n(&r->head->tail, r->mine, __ATOMIC_SEQ_CST);
        return PTL_RING_OK;
    }
    /* Producer: whether the consumer sleeps, and is to be woken with ptl_ring_wake(&asleep). */
    static inline int ptl_ring_bell(ptl_ring_end *r) {
        return __atomic_load_n(&r->head->asleep, __ATOMIC_SEQ_CST)
            && __atomic_exchange_n(&r->head->asleep, 0, __ATOMIC_SEQ_CST);
    }

    /* Consumer: the header of the next record. Its payload lies at *where until ptl_ring_taken. */
    static inline int ptl_ring_peek(ptl_ring_end *r, ptl_record *record, char **where) {
        int fillers;
        /* A record follows each filler. Without the limit a producer could keep this busy for ever. */
        for (fillers = 0; fillers < 2; fillers++) {
            uint64_t tail = __atomic_load_n(&r->head->tail, __ATOMIC_ACQUIRE);
            uint64_t there = tail - r->mine, at = r->mine & (r->size - 1), stride;
            if (there == 0) return PTL_RING_EMPTY;
            if (there > r->size || (there & 15)) return PTL_RING_BROKEN;
            memcpy(record, r->data + at, sizeof *record);
            __atomic_signal_fence(__ATOMIC_SEQ_CST);
            stride = ptl_record_stride(record->size);
            if (record->size < PTL_RECORD_HEADER || stride > there || stride > r->size - at) return PTL_RING_BROKEN;
            if (record->kind != 0) {
                *where = r->data + at + PTL_RECORD_HEADER;
                return PTL_RING_OK;
            }
            if (stride != r->size - at) return PTL_RING_BROKEN;
            r->mine += stride;
            __atomic_store_n(&r->head->head, r->mine, __ATOMIC_SEQ_CST);
        }
        return PTL_RING_BROKEN;
    }
    /* Consumer: the record is dealt with. Returns whether the producer waits for room. */
    static inline int ptl_ring_taken(ptl_ring_end *r, const ptl_record *record) {
        r->mine += ptl_record_stride(record->size);
        __atomic_store_n(&r->head->head, r->mine, __ATOMIC_SEQ_CST);
        return __atomic_load_n(&r->head->full, __ATOMIC_SEQ_CST)
            && __atomic_exchange_n(&r->head->full, 0, __ATOMIC_SEQ_CST);
    }

    /* Sleep while *word == 1, no longer than ns (0: no limit). */
    static inline void ptl_ring_nap(uint32_t *word, int64_t ns) {
        struct timespec left = {ns / 1000000000, ns % 1000000000};
        syscall(SYS_futex, word, FUTEX_WAIT, 1, ns ? &left : NULL, NULL, 0);
    }
    /* Consumer: sleep until there may be a record. */
    static inline void ptl_ring_await_record(ptl_ring_end *r, int64_t ns) {
        __atomic_store_n(&r->head->asleep, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&r->head->tail, __ATOMIC_SEQ_CST) == r->mine) ptl_ring_nap(&r->head->asleep, ns);
        __atomic_store_n(&r->head->asleep, 0, __ATOMIC_SEQ_CST);
    }
    /* Producer: sleep until there may be room; `seen` is the head that left too little. */
    static inline void ptl_ring_await_room(ptl_ring_end *r, uint64_t seen, int64_t ns) {
        __atomic_store_n(&r->head->full, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&r->head->head, __ATOMIC_SEQ_CST) == seen) ptl_ring_nap(&r->head->full, ns);
        __atomic_store_n(&r->head->full, 0, __ATOMIC_SEQ_CST);
    }
    /* Consumer: look for a record for up to ns, and give the CPU away after each so many looks. */
    static inline int ptl_ring_look_for_record(ptl_ring_end *r, int64_t ns, int looks) {
        struct timespec t;
        int64_t begin, now;
        int i;
        clock_gettime(CLOCK_MONOTONIC, &t);
        begin = now = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        while (now - begin < ns) {
            for (i = 0; i < looks; i++) {
                if (__atomic_load_n(&r->head->tail, __ATOMIC_ACQUIRE) != r->mine) return 1;
                if (looks > 1) ptl_ring_pause();
            }
            sched_yield();
            clock_gettime(CLOCK_MONOTONIC, &t);
            now = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
        }
        return 0;
    }
    #endif
    """
    int PTL_RING_OK, PTL_RING_EMPTY, PTL_RING_FULL, PTL_RING_BROKEN, PTL_RING_TOO_LARGE
    int PTL_RING_HEADER, PTL_RECORD_HEADER

    ctypedef struct ptl_ring_head:
        uint64_t head
        uint64_t tail
        uint32_t asleep
        uint32_t full

    ctypedef struct ptl_record:
        uint32_t size
        uint32_t kind
        uint64_t call

    ctypedef struct ptl_ring_end:
        ptl_ring_head *head
        char *data
        uint64_t size
        uint64_t mine

    void ptl_ring_init(ptl_ring_end *r, void *memory, uint64_t size)
    void ptl_ring_wake(uint32_t *word)
    int ptl_ring_put(ptl_ring_end *r, uint32_t kind, uint64_t call, const char *payload, uint64_t length)
    bint ptl_ring_bell(ptl_ring_end *r)
    int ptl_ring_peek(ptl_ring_end *r, ptl_record *record, char **where)
    bint ptl_ring_taken(ptl_ring_end *r, const ptl_record *record)
    void ptl_ring_await_record(ptl_ring_end *r, int64_t ns)
    void ptl_ring_await_room(ptl_ring_end *r, uint64_t seen, int64_t ns)
    bint ptl_ring_look_for_record(ptl_ring_end *r, int64_t ns, int looks)
