# cython: language_level=3, freethreading_compatible=True
"""numpy arrays of a stub are born in its arena, so that large outputs need no copy.

`allocate_in` puts functions into numpy's allocator (NEP 49) that take arrays of 64 KiB up to what the
arena keeps warm from the arena, and leave all others to what numpy had: small ones travel in records,
and one that is larger would fault in all its pages each time.

After a fork the child has the same arena as its parent, which would write into the child's arrays and
read what the child writes. So the parent waits in `fork` until the child has copied the arrays that
exist; the child allocates as numpy does from then on. (`subprocess` does not fork in this sense.)
"""
from cpython.ref cimport Py_INCREF

from pytriton_lite._core.array cimport Allocator, set_allocator
from pytriton_lite._ipc.arena cimport Arena
from pytriton_lite._ipc.heap cimport ptl_heap

cdef extern from * nogil:
    """
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <stdlib.h>
    #include <unistd.h>

    enum { PTL_NUMPY_SMALLEST = 65536 };

    typedef struct ptl_allocator {
        void *context;
        void *(*malloc)(void *, size_t);
        void *(*calloc)(void *, size_t, size_t);
        void *(*realloc)(void *, void *, size_t);
        void (*free)(void *, void *, size_t);
    } ptl_allocator;

    static ptl_heap *ptl_numpy_heap = NULL;
    static ptl_allocator ptl_numpy_before;      /* what numpy had */
    static int ptl_numpy_forked = 0;            /* this is a child: its arrays in the range are copies */

    static int ptl_numpy_is_ours(const void *p) {
        return (const char *)p >= ptl_numpy_heap->memory
            && (const char *)p < ptl_numpy_heap->memory + ptl_numpy_heap->size;
    }
    static void *ptl_numpy_get(size_t size, int *is_zero) {
        uint64_t offset;
        if (size < PTL_NUMPY_SMALLEST || size > ptl_numpy_heap->warm_limit || ptl_numpy_forked) return NULL;
        offset = ptl_heap_allocate(ptl_numpy_heap, size, is_zero);
        return offset == PTL_HEAP_NONE ? NULL : ptl_numpy_heap->memory + offset;
    }
    static void *ptl_numpy_malloc(void *context, size_t size) {
        int is_zero;
        void *p = ptl_numpy_get(size, &is_zero);
        (void)context;
        return p ? p : ptl_numpy_before.malloc(ptl_numpy_before.context, size);
    }
    static void *ptl_numpy_calloc(void *context, size_t count, size_t item) {
        size_t size;
        int is_zero;
        void *p;
        (void)context;
        if (__builtin_mul_overflow(count, item, &size)) return NULL;
        p = ptl_numpy_get(size, &is_zero);
        if (!p) return ptl_numpy_before.calloc(ptl_numpy_before.context, count, item);
        return is_zero ? p : memset(p, 0, size);
    }
    static void ptl_numpy_free(void *context, void *p, size_t size) {
        (void)context;
        if (!ptl_numpy_is_ours(p)) ptl_numpy_before.free(ptl_numpy_before.context, p, size);
        else if (!ptl_numpy_forked) ptl_heap_drop(ptl_numpy_heap, (uint64_t)((char *)p - ptl_numpy_heap->memory));
    }
    static void *ptl_numpy_realloc(void *context, void *p, size_t size) {
        uint64_t offset;
        size_t room;
        void *q;
        if (!p || !ptl_numpy_is_ours(p))
            return ptl_numpy_before.realloc(ptl_numpy_before.context, p, size);
        offset = (uint64_t)((char *)p - ptl_numpy_heap->memory);
        room = ptl_class_size(ptl_numpy_heap->units[offset >> PTL_UNIT_BITS].size_class);
        if (size <= room && size >= room / 2) return p;
        q = ptl_numpy_malloc(context, size);
        if (!q) return NULL;
        memcpy(q, p, size < room ? size : room);
        ptl_numpy_free(context, p, room);
        return q;
    }

    static int ptl_fork_pipe[2] = {-1, -1};

    static void ptl_before_fork(void) {
        if (ptl_numpy_forked) return;
        if (pipe2(ptl_fork_pipe, O_CLOEXEC) < 0) ptl_fork_pipe[0] = ptl_fork_pipe[1] = -1;
        ptl_heap_lock(ptl_numpy_heap);  /* until the child has its own */
    }
    static void ptl_after_fork_parent(void) {
        char done;
        if (ptl_numpy_forked) return;
        if (ptl_fork_pipe[0] >= 0) {
            close(ptl_fork_pipe[1]);  /* a child that dies ends the wait, too */
            while (read(ptl_fork_pipe[0], &done, 1) < 0 && errno == EINTR) {}
            close(ptl_fork_pipe[0]);
        }
        ptl_heap_unlock(ptl_numpy_heap);
    }
    static void ptl_after_fork_child(void) {
        ptl_heap *h = ptl_numpy_heap;
        uint64_t unit, offset, size = (h->fresh + 4095) & ~(uint64_t)4095;
        char *copy;
        if (ptl_numpy_forked) return;
        ptl_numpy_forked = 1;
        if (size) {
            copy = (char *)mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (copy == (char *)MAP_FAILED) abort();  /* it would share its arrays with its parent */
            for (unit = 0; unit << PTL_UNIT_BITS < size; unit++) {
                if (!h->units[unit].here) continue;
                offset = ptl_heap_place(h, (uint32_t)unit + 1);
                memcpy(copy + offset, h->memory + offset, ptl_class_size(h->units[unit].size_class));
            }
            if (mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, h->memory) == MAP_FAILED) abort();
        }
        ptl_heap_unlock(h);
        if (ptl_fork_pipe[1] >= 0) {
            while (write(ptl_fork_pipe[1], "", 1) < 0 && errno == EINTR) {}
            close(ptl_fork_pipe[0]);
            close(ptl_fork_pipe[1]);
        }
    }
    static void ptl_numpy_prepare(ptl_heap *heap, ptl_allocator *wanted) {
        ptl_allocator ours = {
            heap, ptl_numpy_malloc, ptl_numpy_calloc, ptl_numpy_realloc, ptl_numpy_free
        };
        ptl_numpy_heap = heap;
        *wanted = ours;
    }
    static int ptl_numpy_watch_forks(void) {
        return pthread_atfork(ptl_before_fork, ptl_after_fork_parent, ptl_after_fork_child);
    }
    """
    ctypedef struct ptl_allocator:
        void *context
    void ptl_numpy_prepare(ptl_heap *heap, ptl_allocator *wanted)
    int ptl_numpy_watch_forks()
    ptl_allocator ptl_numpy_before

cdef Arena _arena = None


def allocate_in(Arena arena):
    """Let numpy allocate large arrays in `arena` from now on, on all threads; once in a process.

    The arena stays, since numpy's arrays may be there until the very end. Returns False if this numpy
    cannot be told; then large outputs are copied.
    """
    global _arena
    cdef ptl_allocator wanted
    if _arena is not None:
        raise ValueError("numpy allocates in an arena already")
    ptl_numpy_prepare(&arena.heap, &wanted)
    if not set_allocator(<const Allocator *> &wanted, <Allocator *> &ptl_numpy_before):
        return False
    _arena = arena
    Py_INCREF(arena)
    if ptl_numpy_watch_forks():
        raise MemoryError
    return True
