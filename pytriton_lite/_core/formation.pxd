"""How batches are formed from queued requests: the rules of the dynamic batcher, in C.

As in sync.pxd nothing here needs the GIL or touches a Python object. There is no lock and no clock
either: who owns a `ptl_former` guards it, and says what time it is. So the rules can be
tested with any order of arrivals and any times, without a thread.

Requests wait in levels of priority. Each level is a list in the order of arrival, and behind it
a list of those whose time in the queue was up and that go on waiting (DELAY). A batch is what
stands at the front, as far as it goes together: nothing is skipped.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t

from pytriton_lite._core.sync cimport ptl_node

cdef extern from * nogil:
    """
    #ifndef PTL_FORMATION_H
    #define PTL_FORMATION_H
    #include <stdlib.h>
    #include <string.h>

    enum { PTL_NOWHERE = 0, PTL_TIMELY = 1, PTL_LATE = 2 };   /* ptl_node.place */

    /* Why a batch was closed. */
    enum {
        PTL_NONE = 0,
        PTL_FULL,          /* the next request would be too much, or the batch is as large as can be */
        PTL_PREFERRED,     /* a preferred size was reached */
        PTL_DELAY_OVER,    /* the oldest request has waited long enough */
        PTL_INCOMPATIBLE,  /* the next request may not be mixed with it */
        PTL_IDLE,          /* there is no delay, and an instance was idle */
        PTL_RELEASED       /* the queue was held and is released, or takes no more requests */
    };

    typedef struct ptl_level {
        ptl_node *head[3], *tail[3];  /* by place */
        int64_t count;                /* of both lists */
        int64_t most;                 /* requests that may wait; 0: no limit */
        int64_t timeout_ns;           /* 0: none */
        int may_override;             /* a request may ask for less time */
        int keeps_late;               /* DELAY and not REJECT */
    } ptl_level;

    typedef struct ptl_former {
        ptl_level *levels;
        int level_count;
        int64_t *preferred;           /* sizes, ascending */
        int preferred_count;
        int64_t largest;              /* a batch has at most this size, and at least one request */
        int64_t delay_ns;
        int64_t count, total;         /* queued requests, and the sum of their sizes */
        int64_t tickets;              /* requests that have left in batches, so far */
        int64_t released_ns;          /* what was queued until then has waited long enough */
        uint64_t last_key;            /* of the request that came last */
        int is_held;                  /* requests are only collected */
    } ptl_former;

    typedef struct ptl_batch {
        ptl_node *first;              /* linked by next; RUNNING, and in no list */
        int count;                    /* of requests; 0: no batch now */
        int reason;
        int64_t size;                 /* sum of batch sizes */
        int64_t oldest_ns;            /* when the oldest of them was queued */
        int64_t ticket;               /* number of the first */
        int64_t until_ns;             /* without a batch: when to look again; 0: not before something comes */
        ptl_node *rejected;           /* their time is up; RUNNING, and in no list */
        ptl_node *dropped;            /* were given up just now, and are in no list */
    } ptl_batch;

    static inline int ptl_former_init(
        ptl_former *f, int levels, int64_t largest, int64_t delay_ns, int preferred_count
    ) {
        memset(f, 0, sizeof *f);
        f->levels = calloc(levels, sizeof *f->levels);
        f->preferred = calloc(preferred_count, sizeof *f->preferred);
        if (!f->levels || !f->preferred) return -1;
        f->level_count = levels;
        f->preferred_count = preferred_count;
        f->largest = largest;
        f->delay_ns = delay_ns;
        f->released_ns = INT64_MIN;
        return 0;
    }
    static inline void ptl_former_free(ptl_former *f) {
        free(f->levels); free(f->preferred);
        f->levels = NULL; f->preferred = NULL;
    }

    static inline void ptl_link(ptl_former *f, ptl_node *node, int place, int in_front) {
        ptl_level *level = &f->levels[node->level];
        node->place = place;
        if (in_front) {
            node->prev = NULL;
            node->next = level->head[place];
            if (node->next) node->next->prev = node; else level->tail[place] = node;
            level->head[place] = node;
        } else {
            node->next = NULL;
            node->prev = level->tail[place];
            if (node->prev) node->prev->next = node; else level->head[place] = node;
            level->tail[place] = node;
        }
        level->count++;
        f->count++;
        f->total += node->batch_size;
    }
    static inline void ptl_unlink(ptl_former *f, ptl_node *node) {
        ptl_level *level = &f->levels[node->level];
        int place = node->place;
        if (node->prev) node->prev->next = node->next; else level->head[place] = node->next;
        if (node->next) node->next->prev = node->prev; else level->tail[place] = node->prev;
        node->next = node->prev = NULL;
        node->place = PTL_NOWHERE;
        level->count--;
        f->count--;
        f->total -= node->batch_size;
    }
    static inline int ptl_is_level_full(ptl_former *f, int level) {
        return f->levels[level].most && f->levels[level].count >= f->levels[level].most;
    }
    /* A request has come. Returns whether it may have made a batch ready that was not before; if
       not, it need not be looked for. */
    static inline int ptl_enter(ptl_former *f, ptl_node *node) {
        int is_other = f->count && f->last_key != node->key;
        ptl_link(f, node, PTL_TIMELY, 0);
        f->last_key = node->key;
        return is_other || !f->delay_ns || f->total >= f->preferred[0];
    }
    /* A request comes back that could not be run. It keeps its time. */
    static inline void ptl_enter_first(ptl_former *f, ptl_node *node) {
        ptl_link(f, node, PTL_TIMELY, 1);
    }
    static inline int ptl_is_preferred(ptl_former *f, int64_t size) {
        int i;
        for (i = 0; i < f->preferred_count && f->preferred[i] <= size; i++)
            if (f->preferred[i] == size) return 1;
        return 0;
    }
    /* Take a request out whose time is up. */
    static inline void ptl_reject(ptl_former *f, ptl_node *node, ptl_node **rejected, ptl_node **dropped) {
        ptl_node **chain;
        ptl_unlink(f, node);
        chain = ptl_move(&node->word, PTL_QUEUED, PTL_RUNNING) ? rejected : dropped;
        node->next = *chain;
        *chain = node;
    }

    /* Take the next batch out. With `is_over` no request waits for a delay any longer. */
    static inline void ptl_form(ptl_former *f, int64_t now, int is_over, ptl_batch *batch) {
        ptl_level *level;
        ptl_node *node, *next, *last;
        int64_t size, best_size, oldest, closest, preferred;
        uint64_t key;
        int l, place, count, best, closed, has_waited;

        memset(batch, 0, sizeof *batch);
        preferred = f->preferred[f->preferred_count - 1];
        while (f->count && !f->is_held) {
            size = best_size = 0; count = best = 0; closed = PTL_NONE; key = 0;
            oldest = closest = INT64_MAX;
            for (l = 0; l < f->level_count && !closed; l++) {
                level = &f->levels[l];
                for (place = PTL_TIMELY; place <= PTL_LATE && !closed; place++)
                    for (node = level->head[place]; node; node = next) {
                        next = node->next;
                        if (ptl_load(&node->word) != PTL_QUEUED) {
                            /* Who gives it up finds that it is out. */
                            ptl_unlink(f, node);
                            node->next = batch->dropped;
                            batch->dropped = node;
                            continue;
                        }
                        if (place == PTL_TIMELY && node->expires_ns && now >= node->expires_ns) {
                            if (level->keeps_late) {
                                ptl_unlink(f, node);
                                ptl_link(f, node, PTL_LATE, 0);
                            } else
                                ptl_reject(f, node, &batch->rejected, &batch->dropped);
                            continue;
                        }
                        if (count) {
                            /* What is beyond all preferred sizes is not waited for. */
                            if (size + node->batch_size > preferred && !best) { best = count; best_size = size; }
                            if (size + node->batch_size > f->largest) { closed = PTL_FULL; break; }
                            if (node->key != key) { closed = PTL_INCOMPATIBLE; break; }
                        } else
                            key = node->key;
                        count++;
                        size += node->batch_size;
                        if (node->entered_ns < oldest) oldest = node->entered_ns;
                        if (place == PTL_TIMELY && node->expires_ns && node->expires_ns < closest)
                            closest = node->expires_ns;
                        if (ptl_is_preferred(f, size)) { best = count; best_size = size; }
                        if (size >= f->largest) { closed = PTL_FULL; break; }
                    }
            }
            if (!count) return;
            has_waited = f->delay_ns && (
                is_over || oldest <= f->released_ns || now - oldest >= f->delay_ns);
            if (best && !has_waited) {
                closed = best_size < f->largest && ptl_is_preferred(f, best_size) ? PTL_PREFERRED : PTL_FULL;
                count = best;
            } else if (!closed) {
                if (has_waited) closed = now - oldest >= f->delay_ns ? PTL_DELAY_OVER : PTL_RELEASED;
                else if (size >= preferred) closed = PTL_FULL;
                else if (!f->delay_ns) closed = PTL_IDLE;
                else {
                    batch->until_ns = oldest + f->delay_ns < closest ? oldest + f->delay_ns : closest;
                    return;
                }
            }
            /* All that was passed over is out of the lists: these are the first `count`. */
            last = NULL;
            batch->oldest_ns = INT64_MAX;
            for (l = 0; l < f->level_count && count; l++)
                for (place = PTL_TIMELY; place <= PTL_LATE && count; place++)
                    while (count && (node = f->levels[l].head[place])) {
                        count--;
                        ptl_unlink(f, node);
                        if (!ptl_move(&node->word, PTL_QUEUED, PTL_RUNNING)) {
                            node->next = batch->dropped;
                            batch->dropped = node;
                            continue;
                        }
                        if (last) last->next = node; else batch->first = node;
                        last = node;
                        batch->count++;
                        batch->size += node->batch_size;
                        if (node->entered_ns < batch->oldest_ns) batch->oldest_ns = node->entered_ns;
                    }
            if (batch->count) {
                batch->reason = closed;
                batch->ticket = f->tickets;
                f->tickets += batch->count;
                return;
            }
        }
    }
    /* Take out all requests whose time is up and that are not to wait on. Returns when the next one's
       is, 0 if there is none. */
    static inline int64_t ptl_expire(ptl_former *f, int64_t now, ptl_batch *batch) {
        ptl_node *node, *next;
        int64_t closest = 0;
        int l;
        memset(batch, 0, sizeof *batch);
        for (l = 0; l < f->level_count; l++) {
            if (f->levels[l].keeps_late) continue;
            for (node = f->levels[l].head[PTL_TIMELY]; node; node = next) {
                next = node->next;
                if (!node->expires_ns) continue;
                if (now >= node->expires_ns) {
                    ptl_reject(f, node, &batch->rejected, &batch->dropped);
                    continue;
                }
                if (!closest || node->expires_ns < closest) closest = node->expires_ns;
                /* All have the same time, so what came later has more of it left. */
                if (!f->levels[l].may_override) break;
            }
        }
        return closest;
    }
    /* The first request in order, or the first that a thread waits for; NULL if there is none. */
    static inline ptl_node *ptl_front(ptl_former *f, int thread_waits) {
        ptl_node *node;
        int l, place;
        for (l = 0; l < f->level_count; l++)
            for (place = PTL_TIMELY; place <= PTL_LATE; place++)
                for (node = f->levels[l].head[place]; node; node = node->next)
                    if (!thread_waits || node->thread_waits) return node;
        return NULL;
    }
    #endif
    """
    int PTL_NOWHERE, PTL_TIMELY, PTL_LATE
    int PTL_NONE, PTL_FULL, PTL_PREFERRED, PTL_DELAY_OVER, PTL_INCOMPATIBLE, PTL_IDLE, PTL_RELEASED

    ctypedef struct ptl_level:
        int64_t count
        int64_t most
        int64_t timeout_ns
        bint may_override
        bint keeps_late

    ctypedef struct ptl_former:
        ptl_level *levels
        int level_count
        int64_t *preferred
        int preferred_count
        int64_t largest
        int64_t delay_ns
        int64_t count
        int64_t total
        int64_t released_ns
        bint is_held

    ctypedef struct ptl_batch:
        ptl_node *first
        int count
        int reason
        int64_t size
        int64_t oldest_ns
        int64_t ticket
        int64_t until_ns
        ptl_node *rejected
        ptl_node *dropped

    int ptl_former_init(ptl_former *f, int levels, int64_t largest, int64_t delay_ns, int preferred_count)
    void ptl_former_free(ptl_former *f)
    void ptl_unlink(ptl_former *f, ptl_node *node)
    bint ptl_is_level_full(ptl_former *f, int level)
    bint ptl_enter(ptl_former *f, ptl_node *node)
    void ptl_enter_first(ptl_former *f, ptl_node *node)
    void ptl_form(ptl_former *f, int64_t now, bint is_over, ptl_batch *batch)
    int64_t ptl_expire(ptl_former *f, int64_t now, ptl_batch *batch)
    ptl_node *ptl_front(ptl_former *f, bint thread_waits)


cdef tuple REASONS

cdef int arrange(ptl_former *former, settings, int64_t max_batch_size) except -1
cdef int level_of(ptl_former *former, int default, unsigned long priority) noexcept nogil
cdef int64_t expiry_of(
    ptl_former *former, int level, unsigned long timeout_us, int64_t now_ns
) noexcept nogil
