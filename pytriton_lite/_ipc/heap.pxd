"""The allocator of a stretch of shared memory, in C.

It belongs to one process, and all that it knows is in private memory of that process. It needs no
GIL and calls nothing back, so that it may be used while an object is freed, inside numpy's
allocator, or on a thread that Python does not know. Its lock is held for some hundred instructions
and never across a system call.

Blocks have one of four sizes to each power of two, the smallest 16 KiB, and keep their place for
ever: what was once a block is only ever the same block again. Since no two begin in the same
16 KiB, a table with one entry for each is enough; only the parts of it that are in use take memory.

A forked child has the memory in common with its parent, which goes on to use it. In the child nothing
is allocated, and nothing that it frees counts.

States of a block; `here` counts the holders in this process, `there` says that the other one holds it::

    here  there
      0     no    FREE    in a list of its size: `warm` if its pages are in memory, `cold` if they are
                          not and read as zero
     > 0    no    HERE    allocated, or adopted
     > 0   yes    BOTH    handed over, and an object of this process still has it
      0    yes    THERE   handed over

    allocate    FREE  -> HERE           drop        here - 1
    lend        HERE  -> BOTH           come_back   THERE -> FREE, BOTH -> HERE
    adopt       THERE -> HERE, BOTH -> HERE with one holder more
"""
from libc.stdint cimport uint32_t, uint64_t

cdef extern from * nogil:
    """
    #ifndef PTL_HEAP_H
    #define PTL_HEAP_H
    #include <sched.h>
    #include <stdint.h>
    #include <string.h>
    #include <sys/mman.h>

    #define PTL_HEAP_NONE UINT64_MAX
    enum { PTL_UNIT_BITS = 14, PTL_SIZE_CLASSES = 4 * (64 - PTL_UNIT_BITS), PTL_LARGER_CLASSES = 8 };
    /* Flags of a unit: in which of its four pages the block begins; held by the other process; whether
       the pages may hold anything, else they read as zero. */
    enum { PTL_UNIT_PAGE = 3, PTL_UNIT_THERE = 4, PTL_UNIT_DIRTY = 8 };

    typedef struct ptl_unit {
        uint32_t next;          /* in a list: number of the next unit, counted from 1 */
        uint16_t here;
        uint8_t size_class;
        uint8_t flags;
    } ptl_unit;
    _Static_assert(sizeof(ptl_unit) == 8, "an entry of the table");

    /* Offsets count from `memory`. */
    typedef struct ptl_heap {
        char *memory;
        uint64_t size;
        uint64_t fresh;         /* offset of what was never used */
        uint64_t used;          /* blocks that somebody holds */
        uint64_t warm_bytes;    /* of free blocks */
        uint64_t warm_limit;
        uint64_t clock;         /* counts allocations and frees */
        uint64_t settled;       /* `clock` at the last ptl_heap_settle */
        ptl_unit *units;
        uint64_t units_size;
        uint32_t *alive;        /* 1, but 0 in a forked child */
        uint32_t lock;
        uint32_t warm[PTL_SIZE_CLASSES], cold[PTL_SIZE_CLASSES];
        uint64_t last_use[PTL_SIZE_CLASSES];
    } ptl_heap;

    static inline uint64_t ptl_class_size(int c) {
        return (uint64_t)(4 + c % 4) << (PTL_UNIT_BITS - 2 + c / 4);
    }
    /* The smallest class that holds `size` bytes; size < 2**63. */
    static inline int ptl_class_of(uint64_t size) {
        int c;
        if (size <= (uint64_t)1 << PTL_UNIT_BITS) return 0;
        c = 4 * (63 - __builtin_clzll(size) - PTL_UNIT_BITS);
        while (ptl_class_size(c) < size) c++;
        return c;
    }

    static inline void ptl_heap_lock(ptl_heap *h) {
        int n = 0;
        while (__atomic_exchange_n(&h->lock, 1, __ATOMIC_ACQUIRE))
            while (__atomic_load_n(&h->lock, __ATOMIC_RELAXED))
                if (++n > 64) sched_yield();
    }
    static inline void ptl_heap_unlock(ptl_heap *h) { __atomic_store_n(&h->lock, 0, __ATOMIC_RELEASE); }

    /* Returns 0, or -1 when there is no memory for the table. */
    static inline int ptl_heap_init(ptl_heap *h, char *memory, uint64_t size, uint64_t warm_limit) {
        void *units, *alive;
        memset(h, 0, sizeof *h);
        h->units_size = ((size >> PTL_UNIT_BITS) + 1) * sizeof(ptl_unit);
        units = mmap(NULL, h->units_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        alive = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (units == MAP_FAILED || alive == MAP_FAILED || madvise(alive, 4096, MADV_WIPEONFORK)) {
            if (units != MAP_FAILED) munmap(units, h->units_size);
            if (alive != MAP_FAILED) munmap(alive, 4096);
            return -1;
        }
        h->alive = (uint32_t *)alive;
        *h->alive = 1;
        h->memory = memory;
        h->size = size;
        h->warm_limit = warm_limit;
        h->units = (ptl_unit *)units;
        return 0;
    }
    static inline void ptl_heap_close(ptl_heap *h) {
        if (h->units) {
            munmap(h->units, h->units_size);
            munmap(h->alive, 4096);
        }
        h->units = NULL;
    }

    static inline uint32_t ptl_heap_pop(ptl_heap *h, uint32_t *list) {
        uint32_t n = *list;
        if (n) *list = h->units[n - 1].next;
        return n;
    }
    static inline void ptl_heap_push(ptl_heap *h, uint32_t *list, uint32_t n) {
        h->units[n - 1].next = *list;
        *list = n;
    }
    static inline uint64_t ptl_heap_place(ptl_heap *h, uint32_t n) {
        return ((uint64_t)(n - 1) << PTL_UNIT_BITS) + ((uint64_t)(h->units[n - 1].flags & PTL_UNIT_PAGE) << 12);
    }
    static inline uint32_t ptl_heap_take(ptl_heap *h, int c) {
        uint32_t n = ptl_heap_pop(h, &h->warm[c]);
        if (n) h->warm_bytes -= ptl_class_size(c);
        else n = ptl_heap_pop(h, &h->cold[c]);
        return n;
    }

    /* The unit of the block at `offset` that somebody holds, NULL if there is none; with the lock. */
    static inline ptl_unit *ptl_heap_find(ptl_heap *h, uint64_t offset) {
        ptl_unit *unit;
        if (offset >= h->fresh || (offset & 4095)) return NULL;
        unit = &h->units[offset >> PTL_UNIT_BITS];
        if ((unit->flags & PTL_UNIT_PAGE) != ((offset >> 12) & PTL_UNIT_PAGE)) return NULL;
        return unit->here || (unit->flags & PTL_UNIT_THERE) ? unit : NULL;
    }

    /* Give pages of free blocks back until the rest is within `limit`: first of the sizes that were not
       used for the longest time. With the lock, which is released meanwhile. */
    static inline void ptl_heap_shrink(ptl_heap *h, uint64_t limit) {
        while (h->warm_bytes > limit) {
            int c, oldest = -1, is_zero;
            uint32_t n;
            for (c = 0; c < PTL_SIZE_CLASSES; c++)
                if (h->warm[c] && (oldest < 0 || h->last_use[c] < h->last_use[oldest])) oldest = c;
            if (oldest < 0) return;
            n = ptl_heap_pop(h, &h->warm[oldest]);
            h->warm_bytes -= ptl_class_size(oldest);
            ptl_heap_unlock(h);
            is_zero = madvise(h->memory + ptl_heap_place(h, n), ptl_class_size(oldest), MADV_REMOVE) == 0;
            ptl_heap_lock(h);
            if (is_zero) h->units[n - 1].flags &= ~PTL_UNIT_DIRTY;
            ptl_heap_push(h, &h->cold[oldest], n);
        }
    }

    /* Nobody holds a block any more. With the lock, which is released meanwhile. */
    static inline void ptl_heap_free(ptl_heap *h, ptl_unit *unit) {
        int c = unit->size_class;
        h->used--;
        h->last_use[c] = ++h->clock;
        ptl_heap_push(h, &h->warm[c], (uint32_t)(unit - h->units) + 1);
        h->warm_bytes += ptl_class_size(c);
        if (h->warm_bytes > h->warm_limit) {
            /* One that is above the limit alone is not worth the pages of all others. */
            if (ptl_class_size(c) > h->warm_limit) h->last_use[c] = 0;
            ptl_heap_shrink(h, h->warm_limit);
        }
    }

    /* A block for `size` bytes, HERE, or PTL_HEAP_NONE. *is_zero: its bytes are zero, else anything. */
    static inline uint64_t ptl_heap_allocate(ptl_heap *h, uint64_t size, int *is_zero) {
        int c, larger;
        uint32_t n;
        uint64_t offset;
        ptl_unit *unit;
        if (size > h->size || !*h->alive) return PTL_HEAP_NONE;
        c = ptl_class_of(size);
        ptl_heap_lock(h);
        n = ptl_heap_take(h, c);
        if (!n && h->size - h->fresh >= ptl_class_size(c)) {
            offset = h->fresh;
            h->fresh += ptl_class_size(c);
            n = (uint32_t)(offset >> PTL_UNIT_BITS) + 1;
            h->units[n - 1].size_class = (uint8_t)c;
            h->units[n - 1].flags = (uint8_t)((offset >> 12) & PTL_UNIT_PAGE);
        }
        for (larger = c + 1; !n && larger <= c + PTL_LARGER_CLASSES && larger < PTL_SIZE_CLASSES; larger++)
            n = ptl_heap_take(h, larger);
        if (!n) {
            ptl_heap_unlock(h);
            return PTL_HEAP_NONE;
        }
        unit = &h->units[n - 1];
        *is_zero = !(unit->flags & PTL_UNIT_DIRTY);
        unit->flags |= PTL_UNIT_DIRTY;
        unit->here = 1;
        h->used++;
        h->last_use[unit->size_class] = ++h->clock;
        offset = ptl_heap_place(h, n);
        ptl_heap_unlock(h);
        return offset;
    }

    /* A holder in this process lets go. Returns whether there was one. */
    static inline int ptl_heap_drop(ptl_heap *h, uint64_t offset) {
        ptl_unit *unit;
        int is_held;
        if (!*h->alive) return 1;
        ptl_heap_lock(h);
        unit = ptl_heap_find(h, offset);
        is_held = unit && unit->here;
        if (is_held && --unit->here == 0 && !(unit->flags & PTL_UNIT_THERE)) ptl_heap_free(h, unit);
        ptl_heap_unlock(h);
        return is_held;
    }
    /* Hand a block over that is HERE. Returns whether it was. */
    static inline int ptl_heap_lend(ptl_heap *h, uint64_t offset) {
        ptl_unit *unit;
        int is_here;
        if (!*h->alive) return 0;
        ptl_heap_lock(h);
        unit = ptl_heap_find(h, offset);
        is_here = unit && !(unit->flags & PTL_UNIT_THERE);
        if (is_here) unit->flags |= PTL_UNIT_THERE;
        ptl_heap_unlock(h);
        return is_here;
    }
    /* The other process lets go. Returns whether it held the block. */
    static inline int ptl_heap_come_back(ptl_heap *h, uint64_t offset) {
        ptl_unit *unit;
        int was_there;
        if (!*h->alive) return 0;
        ptl_heap_lock(h);
        unit = ptl_heap_find(h, offset);
        was_there = unit && (unit->flags & PTL_UNIT_THERE);
        if (was_there) {
            unit->flags &= ~PTL_UNIT_THERE;
            if (!unit->here) ptl_heap_free(h, unit);
        }
        ptl_heap_unlock(h);
        return was_there;
    }
    /* The other process gives a block back, and this one holds it. Returns whether it held a block of `size` bytes. */
    static inline int ptl_heap_adopt(ptl_heap *h, uint64_t offset, uint64_t size) {
        ptl_unit *unit;
        int was_there;
        if (!*h->alive) return 0;
        ptl_heap_lock(h);
        unit = ptl_heap_find(h, offset);
        was_there = unit && (unit->flags & PTL_UNIT_THERE) && size <= ptl_class_size(unit->size_class)
            && unit->here < UINT16_MAX;
        if (was_there) {
            unit->flags &= ~PTL_UNIT_THERE;
            unit->here++;
        }
        ptl_heap_unlock(h);
        return was_there;
    }
    /* Bytes of the block at `offset` that is HERE; 0 if there is none. */
    static inline uint64_t ptl_heap_room(ptl_heap *h, uint64_t offset) {
        ptl_unit *unit;
        uint64_t room;
        if (!*h->alive) return 0;
        ptl_heap_lock(h);
        unit = ptl_heap_find(h, offset);
        room = unit && unit->here && !(unit->flags & PTL_UNIT_THERE) ? ptl_class_size(unit->size_class) : 0;
        ptl_heap_unlock(h);
        return room;
    }
    /* Give the pages of all free blocks back. */
    static inline void ptl_heap_trim(ptl_heap *h) {
        if (!*h->alive) return;
        ptl_heap_lock(h);
        ptl_heap_shrink(h, 0);
        ptl_heap_unlock(h);
    }
    /* The same if nothing has happened here since the last call of this. */
    static inline void ptl_heap_settle(ptl_heap *h) {
        if (!*h->alive) return;
        ptl_heap_lock(h);
        if (h->settled == h->clock) ptl_heap_shrink(h, 0);
        h->settled = h->clock;
        ptl_heap_unlock(h);
    }
    #endif
    """
    uint64_t PTL_HEAP_NONE
    int PTL_UNIT_THERE

    ctypedef struct ptl_unit:
        uint32_t next

    ctypedef struct ptl_heap:
        char *memory
        uint64_t size
        uint64_t fresh
        uint64_t used
        uint64_t warm_bytes
        uint64_t warm_limit

    int ptl_heap_init(ptl_heap *h, char *memory, uint64_t size, uint64_t warm_limit)
    void ptl_heap_close(ptl_heap *h)
    uint64_t ptl_heap_allocate(ptl_heap *h, uint64_t size, int *is_zero)
    bint ptl_heap_drop(ptl_heap *h, uint64_t offset)
    bint ptl_heap_lend(ptl_heap *h, uint64_t offset)
    bint ptl_heap_come_back(ptl_heap *h, uint64_t offset)
    bint ptl_heap_adopt(ptl_heap *h, uint64_t offset, uint64_t size)
    uint64_t ptl_heap_room(ptl_heap *h, uint64_t offset)
    void ptl_heap_trim(ptl_heap *h)
    void ptl_heap_settle(ptl_heap *h)
