"""Notes: what a node tells others without asking for an answer. Knows no receiver; `Rpc` finds the one of a name."""

from __future__ import annotations

import msgspec

from velocity_ws.cluster.envelopes import PlainNotification, encode_body
from velocity_ws.cluster.publisher import Publisher
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.logs import get_logger

__all__ = ["Notes"]

log = get_logger("velocity_ws.cluster")


class Notes:
    """The notifications of one node. On the broker's loop only."""

    def __init__(self, publisher: Publisher, everybody: str) -> None:
        """
        Args:
            publisher: the node's.
            everybody: the topic of all nodes.
        """
        self._publisher = publisher
        self._everybody = everybody

    def notify(self, topic: str, what: str, args: object, *, is_bulk: bool = False) -> bool:
        """Tell other nodes something, where they can be reached. Nothing is waited for.

        Args:
            topic: of the nodes that are told.
            what: the notification's name; a part of the wire.
            args: its content.
            is_bulk: whether it leaves half of the queue to others, as there may be much of it, and it is told again.

        Returns:
            Whether the publisher took it; whether anybody hears it is not known.
        """
        try:
            self._publisher.put(topic, _encode(what, args), is_bulk=is_bulk)
            return True
        except BackplaneUnavailable as error:
            log.debug("a %s was not sent: %s", what, error)
            return False

    async def tell(self, what: str, args: object, until: float | None = None) -> None:
        """Tell all other nodes something. Returns when the engine has it.

        Args:
            what: the notification's name; a part of the wire.
            args: its content.
            until: when its outcome is told at the latest, in the loop's time; by default at the end of the timeout.

        Raises:
            BackplaneUnavailable: the engine has it not, or that is not known.
        """
        await self._publisher.outcome(self._publisher.put(self._everybody, _encode(what, args)), until)


def _encode(what: str, args: object) -> bytes:
    return encode_body(PlainNotification(what, msgspec.Raw(encode_body(args))))
