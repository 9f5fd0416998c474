"""Followed: an answer to a client behind which something comes, with nothing between. Knows no room."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from velocity_ws.messages.events import REPLY
from velocity_ws.messages.outbound import PreparedMessage, encode

__all__ = ["Followed"]


class Followed(NamedTuple):
    """What a handler of this package returns, in place of the answer alone.

    Attributes:
        data: the answer.
        event: what it is sent as where the message has no ``id``.
        offer: queues a message for the client.
        follow: lets the client have what follows.
    """

    data: dict[str, object]
    event: str
    offer: Callable[[PreparedMessage], object]
    follow: Callable[[], None]

    def send(self, request_id: int | str | None) -> None:
        """Answer the client, and let it have what follows.

        Args:
            request_id: the ``id`` of its message, if it has one.
        """
        self.offer(encode(self.event if request_id is None else REPLY, self.data, request_id))
        self.follow()
