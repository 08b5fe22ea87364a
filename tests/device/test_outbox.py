"""The outbox: bounded, in order, and nothing leaves before it is confirmed."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgernn.errors import EdgernnError
from edgernn_device.outbox import Outbox, Parcel

LIMIT = 6


def parcel(key: int, severity: int = 0) -> Parcel:
    return Parcel(id=key, topic="t", payload=b"", severity=severity)


class OutboxModel(RuleBasedStateMachine):
    """Random puts, sends, confirmations and losses of connection, against a plain list."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(LIMIT)
        self.waiting: list[Parcel] = []  # in the order of arrival
        self.in_flight: list[Parcel] = []
        self.next_key = 0
        self.dropped = 0

    @rule(severity=st.integers(0, 2))
    def put(self, severity: int) -> None:
        new = parcel(self.next_key, severity)
        self.next_key += 1
        self.waiting.append(new)
        victims = self.outbox.put(new)
        if len(self.waiting) <= LIMIT:
            assert victims == []
            return
        unsent = [p for p in self.waiting if p not in self.in_flight]
        lowest = min(p.severity for p in unsent)
        assert victims == [next(p for p in unsent if p.severity == lowest)]
        self.waiting.remove(victims[0])
        self.dropped += 1

    @rule(limit=st.integers(0, LIMIT + 1))
    def send(self, limit: int) -> None:
        sent = self.outbox.next_to_send(limit)
        unsent = [p for p in self.waiting if p not in self.in_flight]
        assert sent == unsent[: max(0, limit - len(self.in_flight))]
        self.in_flight += sent

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        arrived = data.draw(st.sampled_from(self.in_flight))
        assert self.outbox.confirm(arrived.id)
        assert not self.outbox.confirm(arrived.id)
        self.in_flight.remove(arrived)
        self.waiting.remove(arrived)

    @rule()
    def lose_connection(self) -> None:
        self.outbox.connection_lost()
        self.in_flight = []

    @invariant()
    def knows_its_size(self) -> None:
        assert self.outbox.size_bytes == sum(p.size_bytes for p in self.waiting)

    @invariant()
    def keeps_what_is_neither_confirmed_nor_counted_as_dropped(self) -> None:
        assert len(self.outbox) == len(self.waiting) <= LIMIT
        assert self.outbox.dropped == self.dropped


test_nothing_leaves_unconfirmed_order_and_bound_hold = OutboxModel.TestCase


def test_a_severe_alert_stays_when_lesser_ones_are_dropped() -> None:
    outbox = Outbox(2)
    outbox.put(parcel(0, severity=2))
    outbox.put(parcel(1, severity=0))
    assert outbox.put(parcel(2, severity=1)) == [parcel(1, severity=0)]
    assert outbox.put(parcel(3, severity=0)) == [parcel(3, severity=0)]
    assert [p.id for p in outbox.next_to_send(9)] == [0, 2]


def test_a_parcel_with_the_id_of_a_waiting_one_is_the_same_parcel() -> None:
    outbox = Outbox()
    outbox.put(parcel(0))
    outbox.next_to_send(1)
    outbox.put(parcel(0))
    assert len(outbox) == 1
    outbox.confirm(0)
    assert len(outbox) == 0


def test_an_outbox_without_room_is_refused() -> None:
    with pytest.raises(EdgernnError, match="expected 1 or more, got 0"):
        Outbox(0)


def test_it_is_bounded_in_bytes_too() -> None:
    outbox = Outbox(100, limit_bytes=1000)
    large = [Parcel(id=i, topic="t", payload=b"x" * 399) for i in range(3)]
    assert [outbox.put(one) for one in large] == [[], [], [large[0]]]
    assert (len(outbox), outbox.size_bytes) == (2, 800)


def test_of_reports_that_wait_only_the_newest_of_a_topic_is_sent() -> None:
    outbox = Outbox()
    reports = [Parcel(i, f"t{i % 2}", b"", is_report=True) for i in range(4)]
    for one in (reports[0], parcel(9), *reports[1:]):
        outbox.put(one)
    assert outbox.next_to_send(99) == [parcel(9), reports[2], reports[3]]
    outbox.put(Parcel(5, "t0", b"", is_report=True))
    assert len(outbox) == 4  # what is on the wire stays
    assert outbox.dropped == 0
