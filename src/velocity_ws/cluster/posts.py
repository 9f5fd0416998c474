"""Messages for clients between nodes: to which topics one goes, and for whom it is where it arrives. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from velocity_ws.cluster.envelopes import Post, encode_body, node_of
from velocity_ws.cluster.topics import Topics
from velocity_ws.messages import Address, Frame

__all__ = ["address_of", "routes"]


def routes(topics: Topics, node_id: str, address: Address, frame: Frame) -> Iterator[tuple[str, bytes]]:
    """Where a message has to go so that every other node which has somebody it is for gets it, and what goes there.

    Who is in several of the rooms gets it by the first of them: a node leaves out the members of those before.
    """
    names = tuple(address.names)
    excluded = tuple(name for name in address.excluded if node_of(name) is not None)

    def body(names: tuple[str, ...], index: int = 0) -> bytes:
        return encode_body(Post(address.kind, names, index, excluded, frame.is_text, frame.payload))

    if address.kind == "all":
        yield topics.all, body(())
    elif address.kind == "rooms":
        for index, name in enumerate(names):
            yield topics.room(name), body(names[: index + 1], index)
    elif address.kind == "users":
        for name in names:
            yield topics.user(name), body((name,))
    else:
        by_node: dict[str, list[str]] = {}
        for name in names:
            at = node_of(name)
            if at is not None and at != node_id:
                by_node.setdefault(at, []).append(name)
        for at, ids in by_node.items():
            yield topics.node(at), body(tuple(ids))


def address_of(post: Post) -> Address:
    """Which of this node's clients a message is for."""
    if post.kind != "rooms":
        return Address(post.kind, post.names, frozenset(post.excluded))
    here, before = post.names[post.index], frozenset(post.names[: post.index])
    return Address("rooms", (here,), frozenset(post.excluded), before)
