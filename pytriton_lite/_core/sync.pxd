"""Futex words, a lock, and the queue of requests with its idle workers, in C.

Everything here runs without the GIL and touches no Python object; `owner` fields
are opaque. The lock guards a few pointer moves and is never held across Python
code, a system call or a wait, so a thread may take it whether or not it has the GIL,
and a spin lock that yields is enough: it costs one atomic operation where a mutex
costs two, and who finds it taken waits for a dozen instructions.

State of a node's `word`, which is also the futex its caller sleeps on::

    QUEUED ──take──► RUNNING ──claim──► FINISHING ──store──► DONE
       │                │                 (the outcome is being written)
       └──give up───────┴─────────────────────────────────► ABANDONED   (nobody reads it)
    QUEUED ──hand over──► LEAD                           (inline: the caller runs it itself)

Each arrow out of QUEUED and RUNNING is one compare-and-swap, so exactly one side wins. Whoever moves the word
to DONE or LEAD wakes the futex *after* giving up the GIL: a woken thread that finds
the GIL taken goes to sleep again.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

cdef extern from * nogil:
    """
    #ifndef PTL_SYNC_H
    #define PTL_SYNC_H
    #include <errno.h>
    #include <limits.h>
    #include <linux/futex.h>
    #include <sched.h>
    #include <stdint.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>

    enum { PTL_QUEUED = 0, PTL_RUNNING = 1, PTL_DONE = 2, PTL_ABANDONED = 3, PTL_LEAD = 4, PTL_FINISHING = 5 };
    enum { PTL_WOKEN = 0, PTL_TIMED_OUT = 1, PTL_INTERRUPTED = 2 };
    enum { PTL_MODEL_WAITS = 2 };

    static inline int64_t ptl_now_ns(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }

    static inline uint32_t ptl_load(uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline void ptl_store(uint32_t *word, uint32_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
    static inline int ptl_move(uint32_t *word, uint32_t from, uint32_t to) {
        return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    /* Between a store and a load, of which another thread has the opposite. */
    static inline void ptl_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    static inline void ptl_store_64(uint64_t *word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
    static inline int ptl_move_64(uint64_t *word, uint64_t from, uint64_t to) {
        return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    static inline void ptl_wake(uint32_t *word) {
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
    /* Sleep while *word == value, until deadline_ns on the monotonic clock (0: no limit).
       With slice_ns, no longer than that at a time: then PTL_INTERRUPTED, as after a signal. A
       signal that comes just before the sleep begins does not end it, so a thread that must
       see signals sleeps in slices. */
    static inline int ptl_sleep(uint32_t *word, uint32_t value, int64_t deadline_ns, int64_t slice_ns) {
        struct timespec left, *limit = NULL;
        int64_t ns = slice_ns;
        if (deadline_ns) {
            int64_t until = deadline_ns - ptl_now_ns();
            if (until <= 0) return PTL_TIMED_OUT;
            if (!ns || until < ns) ns = until;
        }
        if (ns) {
            left.tv_sec = ns / 1000000000;
            left.tv_nsec = ns % 1000000000;
            limit = &left;
        }
        if (syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, limit, NULL, 0) == 0) return PTL_WOKEN;
        if (errno == ETIMEDOUT) return deadline_ns && ptl_now_ns() >= deadline_ns ? PTL_TIMED_OUT : PTL_INTERRUPTED;
        if (errno == EINTR) return PTL_INTERRUPTED;
        return PTL_WOKEN; /* EAGAIN: the word has changed already */
    }

    static inline void ptl_lock(uint32_t *lock) {
        while (__atomic_exchange_n(lock, 1, __ATOMIC_ACQUIRE)) sched_yield();
    }
    static inline void ptl_unlock(uint32_t *lock) { __atomic_store_n(lock, 0, __ATOMIC_RELEASE); }

    typedef struct ptl_node {       /* one queued request, inside a call slot */
        struct ptl_node *next;
        void *owner;                /* the slot; one reference while queued */
        void *executor;             /* set with LEAD: the inline instance to run on */
        uint32_t word;
        int thread_waits;           /* a thread sleeps on word (not a Future, not a coroutine): 1, or
                                       PTL_MODEL_WAITS if it is one of a model that calls */
        /* For the dynamic batcher, see formation.pxd: */
        struct ptl_node *prev;
        int place;                  /* which list it is in */
        int level;                  /* index of its priority level */
        int64_t batch_size;         /* at least 1 */
        uint64_t key;               /* requests with different keys are not mixed */
        int64_t entered_ns;         /* when it was queued */
        int64_t expires_ns;         /* when its time in the queue is up; 0: never */
    } ptl_node;

    typedef struct ptl_worker {     /* one instance, as the queue sees it */
        struct ptl_worker *next_idle;
        void *owner;                /* the instance */
        uint32_t word;              /* 0 asleep, 1 rung */
        int is_retired;             /* it is gone, or is to go: it takes no more requests */
        int is_out;                 /* retired, and nobody runs it any more */
        int is_idle;                /* it is in the list of idle ones */
    } ptl_worker;

    typedef struct ptl_queue {
        uint32_t lock;
        ptl_node *head, *tail;
        ptl_worker *idle;           /* last in, first out: the warmest instance */
        int is_closed;
        int worker_count, idle_count;
        int64_t depth;
        uint32_t rest;              /* changes whenever an instance becomes idle: for who waits for quiet */
    } ptl_queue;

    static inline void ptl_queue_init(ptl_queue *q) {
        q->lock = 0;
        q->head = q->tail = NULL; q->idle = NULL;
        q->is_closed = q->worker_count = q->idle_count = 0; q->depth = 0; q->rest = 0;
    }

    static inline ptl_node *ptl_unlink_head(ptl_queue *q) {
        ptl_node *node = q->head;
        if (node) {
            q->head = node->next;
            if (!q->head) q->tail = NULL;
            node->next = NULL;
            q->depth--;
        }
        return node;
    }
    static inline void ptl_set_idle(ptl_queue *q, ptl_worker *w) {
        w->next_idle = q->idle; q->idle = w; q->idle_count++; w->is_idle = 1;
        ptl_store(&q->rest, q->rest + 1);
    }
    static inline ptl_worker *ptl_pop_idle(ptl_queue *q) {
        ptl_worker *w = q->idle;
        if (w) { q->idle = w->next_idle; w->next_idle = NULL; q->idle_count--; w->is_idle = 0; }
        return w;
    }
    /* A retired worker that nobody runs any more; whether it is one. */
    static inline int ptl_note_out(ptl_queue *q, ptl_worker *w) {
        if (!w->is_retired) return 0;
        w->is_out = 1;
        ptl_store(&q->rest, q->rest + 1);
        return 1;
    }

    /* Append a chain of nodes. Fills `to_ring` with up to `count` idle workers to ring.
       -1 when the queue takes no more requests. */
    static inline int ptl_push(ptl_queue *q, ptl_node *first, ptl_node *last, int count, ptl_worker **to_ring) {
        ptl_worker *rung = NULL, *w;
        ptl_lock(&q->lock);
        if (q->is_closed) { ptl_unlock(&q->lock); return -1; }
        if (q->tail) q->tail->next = first; else q->head = first;
        q->tail = last;
        q->depth += count;
        while (count-- > 0 && (w = ptl_pop_idle(q))) { w->next_idle = rung; rung = w; }
        ptl_unlock(&q->lock);
        *to_ring = rung;
        return 0;
    }
    static inline void ptl_ring(ptl_worker *w) {
        while (w) {
            ptl_worker *next = w->next_idle; /* read first: a rung worker may go idle again at once */
            w->next_idle = NULL;
            ptl_store(&w->word, 1);
            ptl_wake(&w->word);
            w = next;
        }
    }
    /* Thread instance: the next node, sleeping for it. NULL when the queue is closed and empty. */
    static inline ptl_node *ptl_take(ptl_queue *q, ptl_worker *w) {
        for (;;) {
            ptl_node *node;
            ptl_lock(&q->lock);
            node = w->is_retired ? NULL : ptl_unlink_head(q);
            if (node || q->is_closed || w->is_retired) { ptl_unlock(&q->lock); return node; }
            w->word = 0;
            ptl_set_idle(q, w);
            ptl_unlock(&q->lock);
            while (ptl_load(&w->word) == 0) ptl_sleep(&w->word, 0, 0, 0);
        }
    }
    /* Inline instance: an idle one for this caller, if nobody is queued before it. */
    static inline ptl_worker *ptl_acquire(ptl_queue *q, int *is_closed) {
        ptl_worker *w = NULL;
        ptl_lock(&q->lock);
        *is_closed = q->is_closed;
        if (!q->is_closed && !q->head) w = ptl_pop_idle(q);
        ptl_unlock(&q->lock);
        return w;
    }
    /* Inline caller that found none: queue up, unless an instance became idle meanwhile. */
    static inline int ptl_push_or_acquire(ptl_queue *q, ptl_node *node, ptl_worker **got) {
        ptl_lock(&q->lock);
        if (q->is_closed) { ptl_unlock(&q->lock); return -1; }
        if (!q->head && (*got = ptl_pop_idle(q))) { ptl_unlock(&q->lock); return 1; }
        if (q->tail) q->tail->next = node; else q->head = node;
        q->tail = node;
        q->depth++;
        ptl_unlock(&q->lock);
        return 0;
    }
    /* Caller or pump that is done: the next queued node to run, or NULL and the instance is idle. */
    static inline ptl_node *ptl_release(ptl_queue *q, ptl_worker *w) {
        ptl_node *node;
        int is_watched;
        ptl_lock(&q->lock);
        node = w->is_retired ? NULL : ptl_unlink_head(q);
        if (!node && !w->is_retired) ptl_set_idle(q, w);
        is_watched = !node && (q->is_closed || ptl_note_out(q, w));
        ptl_unlock(&q->lock);
        if (is_watched) ptl_wake(&q->rest);
        return node;
    }
    /* Take a node out of the queue; 0 when it is not in it. */
    static inline int ptl_remove(ptl_queue *q, ptl_node *node) {
        ptl_node **link, *before = NULL;
        int found = 0;
        ptl_lock(&q->lock);
        for (link = &q->head; *link; before = *link, link = &(*link)->next)
            if (*link == node) {
                *link = node->next;
                if (q->tail == node) q->tail = before;
                node->next = NULL;
                q->depth--;
                found = 1;
                break;
            }
        ptl_unlock(&q->lock);
        return found;
    }
    /* Up to `room` nodes for one instance to run one after another, fairly shared among all and in
       order. A node that a thread of a model waits for comes alone, and only if `may_be_alone`. */
    static inline int ptl_unlink_many(ptl_queue *q, ptl_node **nodes, int room, int may_be_alone) {
        int count = 0;
        int64_t share = q->worker_count > 1 ? (q->depth + q->worker_count - 1) / q->worker_count : q->depth;
        if (share < room) room = (int)share;
        while (count < room && q->head) {
            if (q->head->thread_waits == PTL_MODEL_WAITS) {
                if (!count && may_be_alone) nodes[count++] = ptl_unlink_head(q);
                break;
            }
            nodes[count++] = ptl_unlink_head(q);
        }
        return count;
    }
    /* The pump that has nothing to do: what to run. 0 when there is none: the instance is idle. */
    static inline int ptl_release_many(ptl_queue *q, ptl_worker *w, ptl_node **nodes, int room) {
        int count = 0, is_watched = 0;
        ptl_lock(&q->lock);
        if (!w->is_retired) {
            count = ptl_unlink_many(q, nodes, room, 1);
            if (!count) { ptl_set_idle(q, w); is_watched = q->is_closed; }
        } else is_watched = ptl_note_out(q, w);
        ptl_unlock(&q->lock);
        if (is_watched) ptl_wake(&q->rest);
        return count;
    }
    /* The pump that has something to do: what to run after that. */
    static inline int ptl_take_more(ptl_queue *q, ptl_worker *w, ptl_node **nodes, int room) {
        int count;
        ptl_lock(&q->lock);
        count = w->is_retired ? 0 : ptl_unlink_many(q, nodes, room, 0);
        ptl_unlock(&q->lock);
        return count;
    }
    /* Put a node back in front of all others. Fills `to_ring` with an idle worker, if there is one.
       -1 when nobody is left to run it, nor will be. */
    static inline int ptl_push_front(ptl_queue *q, ptl_node *node, ptl_worker **to_ring) {
        ptl_lock(&q->lock);
        if (q->is_closed && !q->worker_count) { ptl_unlock(&q->lock); return -1; }
        node->next = q->head;
        q->head = node;
        if (!q->tail) q->tail = node;
        q->depth++;
        *to_ring = ptl_pop_idle(q);
        ptl_unlock(&q->lock);
        return 0;
    }
    /* The instance takes no more requests; who holds it finds out when it gives it back. Fills
       `to_ring` with idle workers for what this one may have been rung for. */
    static inline void ptl_retire(ptl_queue *q, ptl_worker *w, ptl_worker **to_ring) {
        ptl_worker **link, *rung = NULL, *other;
        int64_t count;
        ptl_lock(&q->lock);
        w->is_retired = 1;
        q->worker_count--;
        for (link = &q->idle; *link; link = &(*link)->next_idle)
            if (*link == w) {
                *link = w->next_idle; w->next_idle = NULL;
                q->idle_count--; w->is_idle = 0;
                ptl_note_out(q, w);
                break;
            }
        for (count = q->depth; count > 0 && (other = ptl_pop_idle(q)); count--) {
            other->next_idle = rung;
            rung = other;
        }
        *to_ring = rung;
        ptl_store(&q->rest, q->rest + 1);
        ptl_unlock(&q->lock);
        ptl_wake(&q->rest);
    }
    /* No more requests from now on; workers that sleep come back with NULL. */
    static inline void ptl_close(ptl_queue *q, int wakes_workers) {
        ptl_worker *w = NULL, *each;
        ptl_lock(&q->lock);
        q->is_closed = 1;
        if (wakes_workers) { w = q->idle; q->idle = NULL; q->idle_count = 0; }
        for (each = w; each; each = each->next_idle) each->is_idle = 0;
        ptl_unlock(&q->lock);
        ptl_ring(w);
    }
    static inline ptl_node *ptl_take_any(ptl_queue *q) {
        ptl_node *node;
        ptl_lock(&q->lock);
        node = ptl_unlink_head(q);
        ptl_unlock(&q->lock);
        return node;
    }
    #endif
    """
    int PTL_QUEUED, PTL_RUNNING, PTL_DONE, PTL_ABANDONED, PTL_LEAD, PTL_FINISHING
    int PTL_WOKEN, PTL_TIMED_OUT, PTL_INTERRUPTED
    int PTL_MODEL_WAITS

    ctypedef struct ptl_node:
        ptl_node *next
        void *owner
        void *executor
        uint32_t word
        int thread_waits
        int place
        int level
        int64_t batch_size
        uint64_t key
        int64_t entered_ns
        int64_t expires_ns

    ctypedef struct ptl_worker:
        ptl_worker *next_idle
        void *owner
        uint32_t word
        bint is_retired
        bint is_out
        bint is_idle

    ctypedef struct ptl_queue:
        uint32_t lock
        int is_closed
        int worker_count
        int idle_count
        int64_t depth
        uint32_t rest

    int64_t ptl_now_ns()
    uint32_t ptl_load(uint32_t *word)
    void ptl_store(uint32_t *word, uint32_t value)
    bint ptl_move(uint32_t *word, uint32_t from_, uint32_t to)
    void ptl_fence()
    void ptl_store_64(uint64_t *word, uint64_t value)
    bint ptl_move_64(uint64_t *word, uint64_t from_, uint64_t to)
    void ptl_wake(uint32_t *word)
    void ptl_lock(uint32_t *lock)
    void ptl_unlock(uint32_t *lock)
    int ptl_sleep(uint32_t *word, uint32_t value, int64_t deadline_ns, int64_t slice_ns)
    void ptl_queue_init(ptl_queue *q)
    void ptl_set_idle(ptl_queue *q, ptl_worker *w)
    ptl_worker *ptl_pop_idle(ptl_queue *q)
    int ptl_push(ptl_queue *q, ptl_node *first, ptl_node *last, int count, ptl_worker **to_ring)
    void ptl_ring(ptl_worker *w)
    ptl_node *ptl_take(ptl_queue *q, ptl_worker *w)
    ptl_worker *ptl_acquire(ptl_queue *q, int *is_closed)
    int ptl_push_or_acquire(ptl_queue *q, ptl_node *node, ptl_worker **got)
    ptl_node *ptl_release(ptl_queue *q, ptl_worker *w)
    bint ptl_remove(ptl_queue *q, ptl_node *node)
    int ptl_release_many(ptl_queue *q, ptl_worker *w, ptl_node **nodes, int room)
    int ptl_take_more(ptl_queue *q, ptl_worker *w, ptl_node **nodes, int room)
    int ptl_push_front(ptl_queue *q, ptl_node *node, ptl_worker **to_ring)
    void ptl_retire(ptl_queue *q, ptl_worker *w, ptl_worker **to_ring)
    void ptl_close(ptl_queue *q, int wakes_workers)
    ptl_node *ptl_take_any(ptl_queue *q)
