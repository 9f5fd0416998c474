"""Receiver: what arrives is given to the part it is for, and what no node has sent is dropped, counted and told."""

from __future__ import annotations

import msgspec
import pytest

from velocity_ws.cluster.envelopes import (
    Heartbeat,
    PlainNotification,
    PlainPublication,
    Probe,
    Response,
    encode_body,
    encode_header,
)
from velocity_ws.cluster.gaps import Gaps
from velocity_ws.cluster.membership import Membership
from velocity_ws.cluster.orders import MissedOrders
from velocity_ws.cluster.receiver import InvalidEnvelopes, Receiver
from velocity_ws.cluster.routing import Arrivals
from velocity_ws.cluster.rpc import Rpc
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.stats import Counters

NODE, OTHER = "elevenchars", "othernodeid"
TOPICS = Topics("velocity")


class Parts:
    """Those of a cluster that is not connected, and what they were given."""

    def __init__(self) -> None:
        self.now = 0.0
        self.counters = Counters()
        self.delivered: list[tuple[Address, PreparedMessage]] = []
        self.probes: list[int] = []
        invalid = InvalidEnvelopes(self.counters, lambda: self.now)
        self.rpc = Rpc(1, invalid.drop)
        self.membership = Membership(
            NODE, 10.0, True, lambda *_: None, lambda _: None, lambda _: None, lambda: self.now
        )
        self.receiver = Receiver(
            NODE,
            TOPICS.node(NODE),
            gaps=Gaps(TOPICS, self.counters, self.deliver),
            arrivals=Arrivals(lambda _: (), lambda: self.now),
            membership=self.membership,
            orders=MissedOrders(5.0, lambda: self.now),
            rpc=self.rpc,
            invalid=invalid,
            counters=self.counters,
            deliver=self.deliver,
            respond=self.respond,
            probe_returned=self.probes.append,
            take_piece=lambda _: None,
            logged={},
        )

    def deliver(self, address: Address, message: PreparedMessage, had: set[str] | None = None) -> None:
        self.delivered.append((address, message))

    async def respond(self, node_id: str, response: Response) -> None:
        raise NotImplementedError


def envelope(origin: str, body: msgspec.Struct, number: int = 1) -> bytes:
    """What travels."""
    return encode_header(origin, number) + encode_body(body)


def test_each_kind_is_given_to_its_part() -> None:
    parts, told = Parts(), list[tuple[str, int]]()
    parts.rpc.on_notification("count", int, lambda origin, count: told.append((origin, count)))
    parts.receiver.received(TOPICS.all, envelope(OTHER, PlainPublication("all", (), 0, (), True, b"{}")))
    parts.receiver.received(TOPICS.nodes, envelope(OTHER, Heartbeat("alive", 10.0)))
    parts.receiver.received(TOPICS.nodes, envelope(OTHER, PlainNotification("count", msgspec.Raw(b"\x03")), 2))
    assert [(address, message.payload) for address, message in parts.delivered] == [(Address("all"), b"{}")]
    assert parts.membership.ids() == {OTHER}
    assert told == [(OTHER, 3)]
    assert (parts.counters.backplane_received, parts.counters.backplane_invalid) == (1, 0)


def test_nothing_is_taken_that_this_node_has_published_but_its_probes() -> None:
    parts = Parts()
    parts.receiver.received(TOPICS.all, envelope(NODE, PlainPublication("all", (), 0, (), True, b"{}")))
    parts.receiver.received(TOPICS.nodes, envelope(NODE, Probe(1)))
    parts.receiver.received(TOPICS.node(NODE), envelope(OTHER, Probe(2)))
    assert (parts.delivered, parts.probes) == ([], [])
    parts.receiver.received(TOPICS.node(NODE), envelope(NODE, Probe(3)))
    assert parts.probes == [3]


def test_what_is_invalid_is_counted_each_time_and_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts()
    parts.rpc.on_notification("count", int, lambda *_: None)
    for now in (0.0, 1.0, 59.0, 60.0):
        parts.now = now
        parts.receiver.received(TOPICS.nodes, b"nonsense")
        parts.receiver.received(TOPICS.nodes, envelope(OTHER, PlainNotification("count", msgspec.Raw(b"\xc0"))))
    assert parts.counters.backplane_invalid == 8
    assert [record.name for record in caplog.records] == ["velocity_ws.cluster"] * 2


def test_an_error_of_a_part_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts()

    def fail(origin: str, count: int) -> None:
        raise LookupError("x")

    parts.rpc.on_notification("count", int, fail)
    parts.receiver.received(TOPICS.nodes, envelope(OTHER, PlainNotification("count", msgspec.Raw(b"\x03"))))
    assert parts.counters.errors == 1
    assert "a message of another node failed" in caplog.text
