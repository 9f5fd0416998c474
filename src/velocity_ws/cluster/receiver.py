"""Receiver: what arrives from the engine, decoded, counted, and given to the part of the cluster that it is for.

Trusts nothing that arrives. Knows each kind of envelope, and not what the parts do with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from velocity_ws.cluster.envelopes import (
    Body,
    Heartbeat,
    InvalidEnvelope,
    Notification,
    Probe,
    Publication,
    Request,
    Response,
    StreamPiece,
    decode_as,
    decode_body,
    decode_header,
    encode_header,
)
from velocity_ws.cluster.gaps import Gaps
from velocity_ws.cluster.membership import Membership
from velocity_ws.cluster.orders import MissedOrders
from velocity_ws.cluster.routing import Arrivals, Deliver
from velocity_ws.cluster.rpc import Rpc
from velocity_ws.logs import get_logger, quote
from velocity_ws.stats import Counters

__all__ = ["Logged", "Receiver"]

log = get_logger("velocity_ws.cluster")

_notices = msgspec.msgpack.Decoder(str)
_STAMPED = b"\xc4\x28"
"""What stands before a stamp: that 40 bytes follow, as MessagePack."""
COMPLAINT_INTERVAL = 60.0
"""Seconds between two warnings of envelopes that were dropped."""


class Logged(Protocol):
    """The log of a room that has members here. On the broker's loop only."""

    def is_repeat(self, stamp: bytes) -> bool:
        """Whether a stamp is that of an entry which the members have had."""

    def heard(self, stamp: bytes, payload: bytes, excluded: frozenset[str], key: str) -> None:
        """Take an entry, which was published or kept with this stamp."""

    def noticed(self, stamp: bytes, *, cleared: bool) -> None:
        """Take that somebody was removed from the room, or its log was cleared."""


class InvalidEnvelopes:
    """What was dropped because no node of this version has sent it: counted, and told to the log now and then."""

    def __init__(self, counters: Counters, clock: Callable[[], float]) -> None:
        """
        Args:
            counters: the node's.
            clock: seconds, never going back.
        """
        self._counters = counters
        self._clock = clock
        self._silent_until = 0.0

    def drop(self, where: str, error: InvalidEnvelope) -> None:
        """Count something that was dropped.

        Args:
            where: the topic it came through, or what it was taken for.
            error: what is wrong with it.
        """
        self._counters.backplane_invalid += 1
        if self._clock() >= self._silent_until:
            self._silent_until = self._clock() + COMPLAINT_INTERVAL
            log.warning("dropped what is no message of this version of ours on %s: %s", quote(where), quote(error))


class Receiver:
    """Takes everything that arrives. On the broker's loop only."""

    def __init__(
        self,
        node_id: str,
        own_topic: str,
        *,
        gaps: Gaps,
        arrivals: Arrivals,
        membership: Membership,
        orders: MissedOrders,
        rpc: Rpc,
        invalid: InvalidEnvelopes,
        counters: Counters,
        deliver: Deliver,
        respond: Callable[[str, Response], Awaitable[None]],
        probe_returned: Callable[[int], None],
        logged: Mapping[str, Logged],
        take_piece: Callable[[StreamPiece], None],
    ) -> None:
        """
        Args:
            node_id: this node's; what it has published itself is not taken.
            own_topic: the topic through which its probes come back.
            gaps: takes the number of each message.
            arrivals: says which clients a publication is for, and what they get.
            membership: takes heartbeats.
            orders: looks, before anything is given to anybody, whether orders of other nodes may have been missed.
            rpc: takes requests, responses and notifications.
            invalid: told of what is invalid.
            counters: the node's.
            deliver: gives a message to clients of this node.
            respond: sends a response to the node of an id.
            probe_returned: takes the nonce of a probe.
            logged: the logs of rooms, by their topics, which take what has a stamp.
            take_piece: takes the pieces of streams that other nodes write.
        """
        self._own_header = encode_header(node_id, 0)[:-8]
        self._own_topic = own_topic
        self._gaps = gaps
        self._arrivals = arrivals
        self._membership = membership
        self._orders = orders
        self._rpc = rpc
        self._refuse = invalid.drop
        self._counters = counters
        self._deliver = deliver
        self._respond = respond
        self._probe_returned = probe_returned
        self._logged = logged
        self._take_piece = take_piece

    def received(self, topic: str, data: bytes) -> None:
        """Take what was published to a topic. Raises nothing, whatever it is."""
        logged = self._logged.get(topic) if self._logged and data[-42:-40] == _STAMPED else None
        try:
            if data.startswith(self._own_header) and (logged is None or logged.is_repeat(data[-40:])):
                if topic == self._own_topic and isinstance(probe := decode_body(data), Probe):
                    self._probe_returned(probe.nonce)
                return
            origin, number = decode_header(data)
            body = decode_body(data)
        except InvalidEnvelope as error:
            self._refuse(topic, error)
            return
        try:
            if self._orders.on_missed:
                self._orders.arriving()
            if logged is not None and isinstance(body, Publication | Notification) and body.position:
                self._take_logged(logged, body)
                return
            if isinstance(body, StreamPiece):
                self._take_piece(body)
                return
            if self._gaps.received(topic, origin, number):
                self._take(origin, body)
        except InvalidEnvelope as error:
            self._refuse(topic, error)
        except Exception:
            self._counters.errors += 1
            log.exception("a message of another node failed")

    def _take_logged(self, logged: Logged, body: Publication | Notification) -> None:
        if isinstance(body, Publication):
            self._counters.backplane_received += 1
            logged.heard(body.position, body.payload, frozenset(body.excluded), body.key)
        else:
            logged.noticed(body.position, cleared=decode_as(_notices, body.args) == "cleared")

    def _take(self, origin: str, body: Body) -> None:
        match body:
            case Publication():
                self._counters.backplane_received += 1
                address, had = self._arrivals.address_of(origin, body)
                self._deliver(address, self._arrivals.message_of(body), had)
            case Heartbeat():
                self._membership.received(origin, body)
            case Request():
                self._rpc.request_received(body, lambda response: self._respond(origin, response))
            case Response():
                self._rpc.response_received(origin, body)
            case Notification():
                self._rpc.notification_received(origin, body)
            case Probe():
                pass
