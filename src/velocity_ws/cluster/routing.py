"""Routing: to which topics a message for clients goes, and which clients it is for where it arrives.

Pure: knows neither the engine nor the members of rooms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

from velocity_ws.cluster.envelopes import PlainPublication, Publication, encode_body
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages.address import Address
from velocity_ws.messages.ids import node_of
from velocity_ws.messages.outbound import PreparedMessage, add_room

__all__ = ["Arrivals", "Deliver", "routes"]

KEPT_FOR = 5.0
"""Seconds that the receivers of a message to several rooms are remembered; its parts arrive soon after each other."""
MAX_KEPT = 100_000
"""Receivers that are remembered, beside those of the last message."""


_numbers = itertools.count(1)


class Deliver(Protocol):
    """Gives a message to clients of this node. On the broker's loop only."""

    def __call__(self, address: Address, message: PreparedMessage, had: set[str] | None = None, /) -> object:
        """Give it to those that the address means.

        Args:
            address: who.
            message: the message.
            had: the ids of those who have had it, where it comes by several rooms, one after the other. Who gets it
                later, and not at once, is looked for there then, and added.
        """


def routes(topics: Topics, own: str, address: Address, message: PreparedMessage) -> Iterator[tuple[str, bytes]]:
    """The topics to which a message has to be published, and the body for each, so that every other node gets its part.

    It does not matter whether the node that a client's id names is heard of: a node that was held up for longer than
    its lease gets the message when it goes on. What is for a node that is gone is not heard anywhere.

    Args:
        topics: the cluster's.
        own: the id of the node that sends the message.
        address: which clients it is for.
        message: the message.
    """
    names = tuple(address.names)
    excluded = tuple(name for name in address.excluded if node_of(name) is not None)

    def body(names: tuple[str, ...], number: int = 0) -> bytes:
        return encode_body(
            PlainPublication(
                address.kind,
                names,
                number,
                excluded,
                message.is_text,
                message.payload,
                message.volatile,
                message.key or "",
            )
        )

    if address.kind == "all":
        yield topics.all, body(())
    elif address.kind == "rooms":
        number = next(_numbers) if len(names) > 1 else 0
        for name in dict.fromkeys(names):
            yield topics.room(name), body((name,), number)
    elif address.kind == "users":
        for name in dict.fromkeys(names):
            yield topics.user(name), body((name,))
    else:
        by_node: dict[str, list[str]] = {}
        for name in names:
            at = node_of(name)
            if at is not None and at != own:
                by_node.setdefault(at, []).append(name)
        for at, ids in by_node.items():
            yield topics.node(at), body(tuple(ids))


class Arrivals:
    """What arrives for clients; one that is in several of a message's rooms gets it once. On the broker's loop only."""

    def __init__(
        self,
        recipients: Callable[[Address], Iterable[str]],
        clock: Callable[[], float],
        is_of_kind: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """
        Args:
            recipients: the ids of this node's clients that get what is sent to an address at once.
            clock: seconds, never going back.
            is_of_kind: whether what is sent to a room alone carries its name; by default none does.
        """
        self._recipients = recipients
        self._clock = clock
        self._is_of_kind = is_of_kind
        self._had: dict[tuple[str, int], tuple[float, int, set[str]]] = {}
        self._size = 0

    def message_of(self, publication: Publication) -> PreparedMessage:
        """The message that a publication carries.

        To one room of a kind it carries the room. Its sender has seen to that where it knows the kind; an emitter and
        a node of an older version do not.
        """
        message = PreparedMessage(publication.payload, publication.is_text)
        if publication.is_volatile or publication.key:
            message.set_lossy(volatile=publication.is_volatile, key=publication.key or None)
        if publication.kind == "rooms" and not publication.number and self._is_of_kind(publication.names[0]):
            add_room(message, publication.names[0])
        return message

    def address_of(self, origin: str, publication: Publication) -> tuple[Address, set[str] | None]:
        """Which clients of this node a message is for that have not had it yet.

        Args:
            origin: the id of the node that sent it.
            publication: what came.

        Returns:
            Them, and the ids of all that have had it, these included; ``None`` for what does not come by several rooms.
        """
        address = Address(publication.kind, publication.names, frozenset(publication.excluded))
        if not publication.number:
            return address, None
        key = (origin, publication.number)
        until, size, had = self._had.pop(key, (self._clock() + KEPT_FOR, 0, set[str]()))
        if had:
            address = replace(address, excluded=address.excluded | had)
        had.update(self._recipients(address))
        self._size += len(had) - size
        self._forget()
        self._had[key] = (until, len(had), had)
        return address, had

    def _forget(self) -> None:
        """Forget what is over, and the oldest while there is too much; what has just come is not among them."""
        now = self._clock()
        while self._had:
            key = next(iter(self._had))
            until, size, _ = self._had[key]
            if until > now and self._size <= MAX_KEPT:
                return
            self._size -= size
            del self._had[key]
