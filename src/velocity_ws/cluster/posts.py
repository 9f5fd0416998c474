"""Messages for clients between nodes: to which topics one goes, and for whom it is where it arrives. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from velocity_ws.cluster.envelopes import Post, encode_body, node_of
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages import Address, Frame

__all__ = ["Arrivals", "routes"]

MAX_KEPT = 256
"""Messages to several rooms of which is remembered who had them; they arrive one right after the other."""


_numbers = itertools.count(1)


def routes(
    topics: Topics, is_there: Callable[[str], bool], address: Address, frame: Frame
) -> Iterator[tuple[str, bytes]]:
    """Where a message has to go so that every other node which has somebody it is for gets it, and what goes there.

    Args:
        topics: of the cluster.
        is_there: whether a node is another one, and may live.
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
            if at is not None and is_there(at):
                by_node.setdefault(at, []).append(name)
        for at, ids in by_node.items():
            yield topics.node(at), body(tuple(ids))


class Arrivals:
    """Messages to several rooms, as they arrive by each of them: who is in two of the rooms gets one."""

    def __init__(self, who: Callable[[Address], Iterable[str]]) -> None:
        """
        Args:
            who: the ids of the clients that an address means now.
        """
        self._who = who
        self._had: dict[tuple[str, int], set[str]] = {}

    def address_of(self, origin: str, post: Post) -> Address:
        """Which of this node's clients a message is for, and have not had it."""
        address = Address(post.kind, post.names, frozenset(post.excluded))
        if not post.number:
            return address
        had = self._had.get((origin, post.number))
        if had is None:
            if len(self._had) >= MAX_KEPT:
                del self._had[next(iter(self._had))]
            had = self._had[origin, post.number] = set()
        address = replace(address, excluded=address.excluded | had)
        had.update(self._who(address))
        return address
