"""Outbox: the messages for one client, as those who send to it see them. Knows no transport, no hub and no hook."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, Protocol

from velocity_ws.messages.outbound import PreparedMessage

__all__ = ["CLOSING", "OPEN", "OVER", "Outbox", "OutboxOwner", "State"]


class State(Enum):
    """Where an outbox stands. It only goes on:

    =============  ==========  ===================================================================
    from           to          by
    =============  ==========  ===================================================================
    ``OPEN``       ``CLOSING`` ``close``: what is queued is sent, nothing more is taken
    ``OPEN``       ``OVER``    ``abort``, or a send that failed
    ``CLOSING``    ``OVER``    the close frame is sent after all else; ``abort``; a send that failed
    =============  ==========  ===================================================================

    Whether a message that is offered leaves at once is no state of its own: the subclasses keep that as one attribute,
    which the fan-out reads for every delivery.
    """

    OPEN = auto()
    CLOSING = auto()
    OVER = auto()


OPEN: Final = State.OPEN  # a name of a module is found faster than a member of an enum
CLOSING: Final = State.CLOSING
OVER: Final = State.OVER


class Outbox(Protocol):
    """Holds the messages for one client, bounded in bytes. On the broker's loop only."""

    def offer(self, message: PreparedMessage) -> bool:
        """Take a message; return whether it was queued. Never waits or raises.

        A refused message counts as dropped. A volatile one is left out, and counted, where others wait; one with a key
        replaces, and counts, the one of its event and key that waits.
        """

    async def put(self, message: PreparedMessage | None, seconds: float) -> bool:
        """Wait until nothing else is queued, then take a message. Callers are served in the order in which they came.

        A caller that sends much this way leaves the whole queue to the messages that others offer meanwhile.

        Args:
            message: the message; ``None`` only waits.
            seconds: how long to wait at most.

        Returns:
            Whether it was queued; false, and counted as dropped, if the connection ends first.

        Raises:
            TimeoutError: it took longer than ``seconds``. The message is refused then, as `offer` refuses one.
        """

    def close(self, code: int, reason: str, *, discard: bool = False) -> None:
        """Take no more messages, and close the connection once those that are queued have been sent.

        Args:
            code: the code of the close frame.
            reason: the text of the close frame; at most 123 bytes of UTF-8.
            discard: whether to drop what is queued instead of sending it.
        """

    def abort(self) -> None:
        """End the connection now; what is still queued counts as dropped. Harmless when it has ended already."""

    @property
    def is_free(self) -> bool:
        """Whether it is open and nothing waits, so that the next message leaves at once."""

    @property
    def has_ended(self) -> bool:
        """Whether `wait_ended` would return at once."""

    async def wait_ended(self) -> None:
        """Wait until the outbox is closed or aborted, and nothing of it runs any more."""

    async def ping(self) -> float | None:
        """Ping the client; return the round trip in seconds, or ``None`` if the transport has no pings."""


class OutboxOwner(Protocol):
    """The session that an outbox belongs to, as the outbox reports to it. On the broker's loop only."""

    def outbox_full(self) -> None:
        """The queue is full, and the policy is to disconnect. Called once; the owner should close or abort it."""

    def outbox_dropped(self) -> None:
        """The queue is full, and the policy is to drop. Called for the first message that is dropped in a row."""

    def outbox_lost(self, room: str, before: str, at: str) -> None:
        """The client is being told that it did not get messages of a room with history, as the policy is to drop.

        Args:
            room: the room.
            before: the text of the position before the first of them.
            at: the same of the last.
        """

    def outbox_broken(self) -> None:
        """The server's ``send`` failed: the connection is gone. Called at most once."""
