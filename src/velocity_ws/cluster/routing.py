"""Messages for clients between nodes: to which topics one goes, and for whom it is where it arrives. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from velocity_ws.cluster.envelopes import Post, encode_body
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages.address import Address
from velocity_ws.messages.ids import node_of
from velocity_ws.messages.outbound import PreparedMessage

__all__ = ["Arrivals", "routes"]

KEPT_FOR = 5.0
"""Seconds that is remembered who had a message to several rooms; its parts arrive one soon after the other."""
MAX_KEPT = 100_000
"""Clients that are remembered, beside those of the last message."""


_numbers = itertools.count(1)


def routes(topics: Topics, own: str, address: Address, frame: PreparedMessage) -> Iterator[tuple[str, bytes]]:
    """Where a message has to go so that every other node which has somebody it is for gets it, and what goes there.

    Whether the node that a client's id names is heard of does not count: one that was held up for longer than its lease
    gets the message when it goes on. What is for a node that is gone goes nowhere.

    Args:
        topics: of the cluster.
        own: the node that sends it.
        address: for whom it is.
        frame: the message.
    """
    names = tuple(address.names)
    excluded = tuple(name for name in address.excluded if node_of(name) is not None)

    def body(names: tuple[str, ...], number: int = 0) -> bytes:
        return encode_body(Post(address.kind, names, number, excluded, frame.is_text, frame.payload))

    if address.kind == "all":
        yield topics.all, body(())
    elif address.kind == "rooms":
        number = next(_numbers) if len(names) > 1 else 0
        for name in dict.fromkeys(names):
            yield topics.room(name), body((name,), number)
    elif address.kind == "users":
        for name in names:
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
    """Messages to several rooms, as they arrive by each of them: who is in two of the rooms gets one."""

    def __init__(self, who: Callable[[Address], Iterable[str]], clock: Callable[[], float]) -> None:
        """
        Args:
            who: the ids of the clients that an address means now.
            clock: seconds, never going back.
        """
        self._who = who
        self._clock = clock
        self._had: dict[tuple[str, int], tuple[float, set[str]]] = {}
        self._size = 0

    def address_of(self, origin: str, post: Post) -> Address:
        """Which of this node's clients a message is for, and have not had it."""
        address = Address(post.kind, post.names, frozenset(post.excluded))
        if not post.number:
            return address
        key = (origin, post.number)
        until, had = self._had.pop(key, (self._clock() + KEPT_FOR, set[str]()))
        if had:
            address = replace(address, excluded=address.excluded | had)
        before = len(had)
        had.update(self._who(address))
        self._size += len(had) - before
        self._forget()
        self._had[key] = (until, had)
        return address

    def _forget(self) -> None:
        """What is over, and the oldest while it is too much; what has just come is not among them."""
        now = self._clock()
        while self._had:
            key = next(iter(self._had))
            until, had = self._had[key]
            if until > now and self._size <= MAX_KEPT:
                return
            self._size -= len(had)
            del self._had[key]
