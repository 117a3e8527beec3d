"""Which bytes are missing: no byte is lost or given to two connections, whatever they do."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hearmeman.models.spans import ENDLESS, LARGEST, SMALLEST, Part, Spans


class Connections(RuleBasedStateMachine):
    """Connections that take ranges, bring some of their bytes, give up, and are split by others."""

    spans: Spans

    @initialize(size=st.integers(1, 40 * SMALLEST))
    def begin(self, size: int) -> None:
        self.spans = Spans(size)
        self.have = 0

    @rule(connections=st.integers(1, 16), whole=st.booleans())
    def take(self, connections: int, whole: bool) -> None:
        part = self.spans.take(connections, whole)
        if part is not None:
            assert 0 <= part.pos < part.end <= self.spans.size
            assert whole or part.left <= LARGEST + SMALLEST

    @rule(data=st.data())
    def take_over(self, data: st.DataObject) -> None:
        slow = [part for part in self.spans.active if part.left > 0]
        if slow:
            part = data.draw(st.sampled_from(slow))
            left = part.left
            assert self.spans.take_over(part).left == left
            assert part.left == 0

    @rule(data=st.data(), share=st.floats(0, 1))
    def arrive(self, data: st.DataObject, share: float) -> None:
        if self.spans.active:
            part = data.draw(st.sampled_from(self.spans.active))
            count = int(part.left * share)
            part.pos += count
            self.have += count

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if self.spans.active:
            self.spans.give_back(data.draw(st.sampled_from(self.spans.active)))

    @rule()
    def restart_the_process(self) -> None:
        self.spans = Spans(self.spans.size, self.spans.missing)

    @invariant()
    def each_byte_is_missing_once_or_there(self) -> None:
        if not hasattr(self, "spans"):
            return
        missing = self.spans.missing
        assert all(start < end for start, end in missing)
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(missing))
        assert sum(end - start for start, end in missing) == self.spans.size - self.have
        assert self.spans.done == self.have
        assert self.spans.complete == (self.have == self.spans.size)
        assert self.spans.frontier == (missing[0][0] if missing else self.spans.size)


TestConnections = Connections.TestCase
TestConnections.settings = settings(stateful_step_count=40)


@given(size=st.integers(1, 100 * SMALLEST), first=st.booleans())
# Half of a range of 136 MiB and a byte was one byte more than a connection may get.
@example(size=142_606_337, first=True)
def test_half_of_a_long_range_is_no_longer_than_any_other(size: int, first: bool) -> None:
    spans = Spans(size)
    assert spans.take(1, whole=first) is not None
    while (part := spans.take(1, whole=False)) is not None:
        assert part.left <= LARGEST + SMALLEST


@given(st.integers(1, 100 * SMALLEST), st.integers(1, 16))
def test_many_connections_end_together(size: int, connections: int) -> None:
    """Each takes a range, the quickest takes the next: at the end no one is left with much."""
    spans = Spans(size)
    while True:
        while len(spans.active) < connections and (part := spans.take(connections)):
            assert part.left > 0
        if not spans.active:
            break
        done = min(spans.active, key=lambda one: one.left)
        done.pos = done.end
        spans.give_back(done)
    assert spans.complete


def test_a_slow_connection_is_relieved_of_half_its_range() -> None:
    spans = Spans(4 * SMALLEST)
    slow = spans.take(1, whole=True)
    assert slow is not None
    helper = spans.take(2)
    assert helper is not None
    assert (slow.pos, slow.end) == (0, 2 * SMALLEST)
    assert (helper.pos, helper.end) == (2 * SMALLEST, 4 * SMALLEST)


def test_a_size_that_is_learnt_later() -> None:
    spans = Spans(ENDLESS)
    part = spans.take(4, whole=True)
    assert part == spans.active[0]
    assert isinstance(part, Part)
    part.pos = 10
    spans.resize(25)
    assert spans.missing == [(10, 25)]
    assert spans.done == 10
