"""Stats: the figures that a process counts. Knows nothing of what counts them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["RECOVERIES", "UNATTRIBUTED", "Counters", "Stats"]

RECOVERIES: Final = ("recovered", "evicted", "expired", "epoch", "rewound", "too_many", "forbidden")
"""How it ends when a client says where it has stopped: it gets what it missed, or not, for one of these reasons."""


@dataclass(frozen=True, slots=True)
class Stats:
    """The figures of one broker in this process at one moment; see `Broker.get_stats`. Totals count from its start.

    Attributes:
        connected_clients: clients connected now.
        rooms: rooms with at least one member now.
        messages_sent: messages handed to the server's socket; one broadcast to N clients counts N.
        messages_received: messages that arrived, malformed and refused ones included.
        bytes_sent: payload bytes of the messages sent.
        bytes_received: payload bytes of the messages received.
        connections: handshakes accepted.
        rejected: handshakes refused (limits, origin, authentication), and requests that our HTTP class refused before
            it knew what they ask for. If the ``uvicorn`` command serves several brokers in one process, a request that
            was refused before any of them saw it counts for each.
        dropped: messages for a client that never reached its socket, as the client had gone or was too slow. Those
            that were sent to be lossy are in ``left_out`` and ``replaced`` alone: each message is in one figure.
        rate_limited: inbound messages refused by the rate limit.
        invalid: inbound messages answered INVALID_JSON, INVALID_EVENT, INVALID_DATA or UNKNOWN_EVENT, or FORBIDDEN for
            naming a room that their sender is not in.
        slow_closes: clients closed because their queue was full.
        errors: exceptions raised by the application's hooks, and by connections.
        backplane_sent: messages that the engine took for other nodes; one message to three rooms counts three.
        backplane_received: messages received from other nodes.
        backplane_refused: messages that reached no other node; their callers got `BackplaneUnavailable`.
        backplane_unknown: messages that may have reached other nodes; their callers got `BackplaneUnavailable`.
        backplane_missed: messages published by other nodes that this node should have received and did not.
        backplane_gaps: ``gap`` events for messages of other nodes; each room counts one.
        backplane_invalid: payloads that came through the engine and are not messages of this version of the package.
        uptime: seconds since the broker was started; 0 while it does not run.
        left_out: messages sent with ``volatile=True`` that a client did not get, as something waited for it.
        replaced: messages sent with a ``key`` that a client did not get, as a newer one took their place.
        presence_refused: notes to other nodes about who is in a room that the engine could not be given at once; what
            they say is told later.
        recoveries: clients that said where they had stopped in a room with history, by how it ended: ``recovered``, or
            the reason (``evicted``, ``expired``, ``epoch``, ``rewound``, ``too_many``, ``forbidden``) why it did not.
        recovered_messages: messages that such clients got because they had missed them.
        repaired: messages of rooms with history that this node did not hear and then read, so that no client missed
            them.
        history_reads: times this node has asked the engine for a part of a room's history.
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
    left_out: int = 0  # nodes tell each other their figures, and an older one does not have these
    replaced: int = 0
    presence_refused: int = 0
    recoveries: dict[str, int] = field(default_factory=dict)
    recovered_messages: int = 0
    repaired: int = 0
    history_reads: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as a dict, for a JSON response: numbers, and ``recoveries``, a dict of numbers."""
        return dataclasses.asdict(self)


@dataclass(slots=True)
class Counters:
    """The running totals behind `Stats`. On the broker's loop only."""

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
    left_out: int = 0
    replaced: int = 0
    presence_refused: int = 0
    recoveries: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RECOVERIES, 0))
    recovered_messages: int = 0
    repaired: int = 0
    history_reads: int = 0


UNATTRIBUTED = Counters()
"""The requests that this process refused before it knew which broker they are for."""
