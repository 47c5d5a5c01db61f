"""The rules by which batches are formed, with a clock by hand.

Numbers that are said to be observed were seen on Triton 2.51; the others follow by hand from the
documented rules. Times are in milliseconds here.
"""

from __future__ import annotations

import numpy as np
import pytest

from pytriton_lite._config.model_config import DynamicBatchingSettings, QueuePolicySettings
from pytriton_lite._core.formation import BatchFormer
from pytriton_lite.errors import UnsupportedError

MS = 1_000_000


def policy(*, size=0, timeout_ms=0, override=False, delay=False):
    return QueuePolicySettings(
        is_delay=delay,
        default_timeout_us=timeout_ms * 1000,
        allow_timeout_override=override,
        max_queue_size=size,
    )


class Clock:
    """A former whose times are milliseconds; its labels are numbers in order of arrival."""

    def __init__(
        self, *, most=8, preferred=(), delay_ms=0, levels=0, default=0, queue=None, queues=None
    ):
        self.former = BatchFormer(
            DynamicBatchingSettings(
                preferred_batch_sizes=tuple(preferred),
                max_queue_delay_us=delay_ms * 1000,
                preserve_ordering=False,
                priority_levels=levels,
                default_priority_level=default,
                default_queue_policy=queue or policy(),
                priority_queue_policies=queues or {},
            ),
            most,
        )
        self.arrived = 0

    def add(self, *sizes, at=0, priority=0, timeout_us=0, key=0):
        found = None
        for size in sizes:
            found = self.former.add(
                self.arrived,
                size,
                now_ns=at * MS,
                priority=priority,
                timeout_us=timeout_us,
                key=key,
            )
            self.arrived += 1
        return found

    def form(self, at=0, **options):
        labels, reason, rejected, until = self.former.form(at * MS, **options)
        self.rejected = rejected
        return (labels, reason) if labels else (None, until // MS)

    def all(self, at=0):
        """Every batch that is ready."""
        batches = []
        while (batch := self.form(at))[0] is not None:
            batches.append(batch)
        return batches


def test_the_batch_is_never_larger_than_allowed():
    # Observed: 5+4+1 with at most 8 runs as [5], [4, 1].
    clock = Clock(most=8)
    clock.add(5, 4, 1)
    assert clock.all() == [([0], "full"), ([1, 2], "idle instance")]


def test_nothing_is_skipped_to_fill_a_batch():
    clock = Clock(most=8)
    clock.add(5, 4, 3)
    assert clock.all() == [([0], "full"), ([1, 2], "idle instance")]


def test_a_full_batch_does_not_wait_for_the_delay():
    clock = Clock(most=4, delay_ms=100)
    clock.add(1, 1, 1)
    assert clock.form(1) == (None, 100)
    assert clock.add(1, at=2) is True
    assert clock.form(2) == ([0, 1, 2, 3], "full")


def test_a_request_too_large_for_what_waits_sends_it():
    clock = Clock(most=4, delay_ms=100)
    clock.add(3)
    clock.add(2, at=1)
    assert clock.form(1) == ([0], "full")
    assert clock.form(1) == (None, 101)  # the second one waits by its own arrival


def test_the_delay_counts_from_the_oldest_request():
    clock = Clock(most=8, delay_ms=100)
    clock.add(1)
    clock.add(1, at=60)
    assert clock.form(99) == (None, 100)
    assert clock.form(100) == ([0, 1], "delay over")


def test_without_a_delay_an_instance_takes_what_is_there():
    clock = Clock(most=8)
    clock.add(1, 2)
    assert clock.form() == ([0, 1], "idle instance")
    assert clock.form() == (None, 0)


def test_preferred_sizes_of_three_requests():
    # Observed: preferred [2, 4], delay 0.4 s, 30 ms apart: [2] at once, [1] after 0.4 s.
    clock = Clock(most=8, preferred=[2, 4], delay_ms=400)
    clock.add(1)
    assert clock.form(0) == (None, 400)
    assert clock.add(1, at=30) is True
    assert clock.form(30) == ([0, 1], "preferred size")
    clock.add(1, at=60)
    assert clock.form(60) == (None, 460)
    assert clock.form(460) == ([2], "delay over")


def test_preferred_sizes_of_five_requests():
    # Observed: the same with five requests runs as [2], [2], [1].
    clock = Clock(most=8, preferred=[2, 4], delay_ms=400)
    batches = []
    for i in range(5):
        clock.add(1, at=30 * i)
        batches += clock.all(30 * i)
    batches += clock.all(30 * 4 + 400)
    assert [labels for labels, _ in batches] == [[0, 1], [2, 3], [4]]


def test_the_largest_preferred_prefix_counts():
    clock = Clock(most=8, preferred=[2, 4], delay_ms=400)
    clock.add(1, 1, 1, 1, 1)
    assert clock.form() == ([0, 1, 2, 3], "preferred size")
    assert clock.form() == (None, 400)


def test_preferred_sizes_count_without_a_delay_too():
    clock = Clock(most=8, preferred=[2])
    clock.add(1, 1, 1)
    assert clock.all() == [([0, 1], "preferred size"), ([2], "idle instance")]


def test_after_the_delay_everything_goes_whatever_is_preferred():
    clock = Clock(most=8, preferred=[2], delay_ms=100)
    clock.add(1, 1, 1)
    assert clock.form(100) == ([0, 1, 2], "delay over")


def test_what_is_beyond_all_preferred_sizes_sends_what_waits():
    clock = Clock(most=8, preferred=[4], delay_ms=100)
    clock.add(3, 2)
    assert clock.form(1) == ([0], "full")
    assert clock.form(1) == (None, 100)


def test_a_single_request_beyond_all_preferred_sizes_goes_at_once():
    clock = Clock(most=8, preferred=[2], delay_ms=100)
    clock.add(3)
    assert clock.form(0) == ([0], "full")


def test_different_keys_are_not_mixed():
    # Observed: lengths [2], [3], [2] of a variable dimension run as three batches.
    clock = Clock(most=8, delay_ms=100)
    clock.add(1, key=2)
    clock.add(1, key=3)
    clock.add(1, key=2)
    assert clock.form(0) == ([0], "incompatible")
    assert clock.form(0) == ([1], "incompatible")
    assert clock.form(0) == (None, 100)


def test_equal_keys_are_mixed():
    # Observed for sets of optional inputs: {X}, {X,Y}, {X}, {X} run as 1, 1, 2.
    clock = Clock(most=8)
    for key in (1, 2, 1, 1):
        clock.add(1, key=key)
    assert [labels for labels, _ in clock.all()] == [[0], [1], [2, 3]]


def test_models_without_a_batch_dimension_run_one_by_one():
    clock = Clock(most=0)
    clock.add(0, 0)
    assert clock.all() == [([0], "full"), ([1], "full")]


def test_priorities():
    # Observed with one busy instance: 2, 2, 3, (3 refused), 2, 1, 9 -> 2
    # ran as 2, 1, 2, 2, 2 (9), 3.
    clock = Clock(most=1, levels=3, default=2, queues={3: policy(size=1)})
    assert clock.add(1, priority=2) is True
    assert clock.form() == ([0], "full")
    clock.add(1, priority=2)
    clock.add(1, priority=3)
    assert clock.add(1, priority=3) is None
    clock.add(1, priority=2)
    clock.add(1, priority=1)
    clock.add(1, priority=9)
    assert [labels for labels, _ in clock.all()] == [[5], [1], [4], [6], [2]]


def test_a_batch_takes_more_urgent_requests_first():
    clock = Clock(most=2, levels=2, default=2)
    clock.add(1, 1)
    clock.add(1, priority=1)
    assert clock.all() == [([2, 0], "full"), ([1], "idle instance")]


def test_the_queue_size_counts_what_waits_only():
    clock = Clock(most=1, queue=policy(size=2))
    assert clock.add(1, 1) is True
    assert clock.add(1) is None
    clock.form()
    assert clock.add(1) is True
    assert clock.former.count == 2


def test_requests_are_rejected_when_their_time_is_up():
    clock = Clock(most=8, queue=policy(timeout_ms=10))
    clock.add(1)
    clock.add(1, at=5)
    assert clock.form(10) == ([1], "idle instance")
    assert clock.rejected == [0]


@pytest.mark.parametrize(
    ("default_ms", "override", "timeout_us", "expired_at"),
    [
        (10, True, 4000, 4),  # smaller: counts
        (10, True, 40_000, 10),  # greater: ignored (observed)
        (10, True, 0, 10),
        (10, False, 4000, 10),
        (0, True, 4000, None),  # without a default an override never applies (observed)
    ],
)
def test_a_request_may_only_shorten_its_time(default_ms, override, timeout_us, expired_at):
    clock = Clock(most=8, queue=policy(timeout_ms=default_ms, override=override))
    clock.add(1, timeout_us=timeout_us)
    if expired_at is None:
        assert clock.former.expire(1 << 60) == ([], 0)
        return
    assert clock.former.expire(expired_at * MS - 1) == ([], expired_at * MS)
    assert clock.former.expire(expired_at * MS) == ([0], 0)
    assert clock.former.count == 0


def test_late_requests_of_a_level_come_after_the_others():
    clock = Clock(
        most=1, levels=2, default=1, queues={1: policy(timeout_ms=10, delay=True, size=3)}
    )
    clock.add(1, 1)
    clock.add(1, priority=2)
    clock.add(1, at=5)
    assert clock.former.expire(10 * MS) == ([], 0)
    assert clock.form(11) == ([3], "full")
    clock.add(1, at=12)  # the late ones count, and the level has room for one more
    assert clock.add(1, at=12) is None
    assert [labels for labels, _ in clock.all(12)] == [[4], [0], [1], [2]]


def test_the_next_look_is_not_after_a_time_that_is_up():
    clock = Clock(most=8, delay_ms=100, queue=policy(timeout_ms=10))
    clock.add(1)
    assert clock.form(0) == (None, 10)
    assert clock.form(10) == (None, 0)
    assert clock.rejected == [0]


def test_requests_that_were_given_up_are_left_out():
    clock = Clock(most=2)
    clock.add(1, 1, 1)
    clock.former.give_up(1)
    assert clock.form() == ([0, 2], "full")


def test_a_batch_of_requests_that_were_given_up_is_none():
    clock = Clock(most=2)
    clock.add(1)
    clock.former.give_up(0)
    assert clock.form() == (None, 0)
    assert clock.former.count == 0


def test_a_held_queue_forms_nothing_and_then_waits_for_no_delay():
    clock = Clock(most=4, delay_ms=1000)
    clock.former.hold()
    clock.add(1, 1, 1, 1, 1, 1)
    assert clock.form(5000) == (None, 0)
    clock.former.release(10 * MS)
    assert clock.all(10) == [([0, 1, 2, 3], "full"), ([4, 5], "released")]
    clock.add(1, at=11)
    assert clock.form(11) == (None, 1011)


def test_batches_that_need_not_wait():
    clock = Clock(most=4, delay_ms=1000)
    clock.add(1)
    assert clock.form(1, is_over=True) == ([0], "released")


def test_many_levels_are_refused():
    with pytest.raises(UnsupportedError, match="1000000 priority levels, at most 10000"):
        Clock(levels=1_000_000, default=1)


def test_every_request_leaves_once_in_order():
    # Compared with a second, slow implementation: a list and the rules as they are written.
    random = np.random.default_rng(7)
    for _ in range(300):
        most = int(random.integers(1, 9))
        preferred = sorted({int(n) for n in random.integers(1, most + 1, random.integers(0, 3))})
        delay_ms = int(random.integers(0, 2)) * 20
        clock = Clock(most=most, preferred=preferred, delay_ms=delay_ms)
        plain = _Plain(most, preferred or [most], delay_ms)
        now = 0
        for _ in range(40):
            now += int(random.integers(0, 12))
            if random.integers(3):
                size, key = int(random.integers(1, most + 1)), int(random.integers(0, 2))
                clock.add(size, at=now, key=key)
                plain.queue.append((clock.arrived - 1, size, key, now))
            else:
                labels, _ = clock.form(now)
                assert labels == plain.form(now)


class _Plain:
    def __init__(self, most, preferred, delay):
        self.most, self.preferred, self.delay, self.queue = most, preferred, delay, []

    def form(self, now):
        size, count, best, is_closed = 0, 0, 0, False
        for _, n, key, _ in self.queue:
            if count and size + n > max(self.preferred) and not best:
                best = count
            if count and (size + n > self.most or key != self.queue[0][2]):
                is_closed = True
                break
            size, count = size + n, count + 1
            if size in self.preferred:
                best = count
        if not count:
            return None
        is_over = self.delay and now - min(r[3] for r in self.queue[:count]) >= self.delay
        if best and not is_over:
            count = best
        elif not (is_closed or is_over or not self.delay or size >= max(self.preferred)):
            return None
        taken, self.queue = self.queue[:count], self.queue[count:]
        return [request[0] for request in taken]
