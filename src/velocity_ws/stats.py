"""What is counted. Knows nothing of what does the counting."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

__all__ = ["UNATTRIBUTED", "Counters", "Stats"]


@dataclass(frozen=True, slots=True)
class Stats:
    """One moment's figures of this process; see `Broker.get_stats`.

    Attributes:
        connected_clients: clients connected now.
        rooms: rooms with at least one member now.
        messages_sent: data messages handed to the server's socket; one broadcast to N clients is N.
        messages_received: data messages that arrived, malformed and refused ones included.
        bytes_sent: payload bytes of the messages sent.
        bytes_received: payload bytes of the messages received.
        connections: handshakes accepted since the start.
        rejected: handshakes refused since the start (limits, origin, authentication), and requests that our HTTP class
            refused before it was known what they ask for. Where not `Server` but the ``uvicorn`` command serves several
            brokers in one process, what was refused before any of them saw it counts for each.
        dropped: messages meant for a client that never reached its socket: it had gone, or was too slow.
        rate_limited: inbound messages refused by the rate limit.
        invalid: inbound messages answered INVALID_JSON, INVALID_EVENT, INVALID_DATA or UNKNOWN_EVENT.
        slow_closes: clients closed because their queue was full.
        errors: exceptions of the application's hooks, and of connections.
        backplane_sent: messages the engine took for other nodes; one to three rooms is three.
        backplane_received: messages of other nodes.
        backplane_refused: messages that reached no other node, as their callers were told.
        backplane_unknown: messages of which that is not known, as their callers were told.
        backplane_missed: messages other nodes published that this one should have heard and did not.
        backplane_gaps: times that clients were told of messages they may have missed; one for each room.
        backplane_invalid: what came through the engine and was no message of this version of ours.
        uptime: seconds since the broker was started; 0 while it is not running.
    """

    connected_clients: int
    rooms: int
    messages_sent: int
    messages_received: int
    bytes_sent: int
    bytes_received: int
    connections: int
    rejected: int
    dropped: int
    rate_limited: int
    invalid: int
    slow_closes: int
    errors: int
    backplane_sent: int
    backplane_received: int
    backplane_refused: int
    backplane_unknown: int
    backplane_missed: int
    backplane_gaps: int
    backplane_invalid: int
    uptime: float

    def to_dict(self) -> dict[str, int | float]:
        """The same as a dict, for a JSON response."""
        return dataclasses.asdict(self)


@dataclass(slots=True)
class Counters:
    """The running totals behind `Stats`; changed on the broker's loop only."""

    messages_sent: int = 0
    messages_received: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    connections: int = 0
    rejected: int = 0
    dropped: int = 0
    rate_limited: int = 0
    invalid: int = 0
    slow_closes: int = 0
    errors: int = 0
    backplane_sent: int = 0
    backplane_received: int = 0
    backplane_refused: int = 0
    backplane_unknown: int = 0
    backplane_missed: int = 0
    backplane_gaps: int = 0
    backplane_invalid: int = 0


UNATTRIBUTED = Counters()
"""What was refused in this process before it was known for which broker."""
