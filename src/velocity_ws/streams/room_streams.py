"""RoomStreams: what a node knows of the streams of one room, and who gets nothing of them yet. Knows no engine."""

from __future__ import annotations

from velocity_ws.streams.copies import StreamCopy

__all__ = ["RoomStreams"]


class RoomStreams:
    """The streams of one room. On the broker's loop only.

    Attributes:
        room: the room.
        topic: the topic of the room.
        known_since: what began after that is among `copies`, or was not heard yet. What began before may be old: it was
            not listed, or is forgotten.
        copies: its streams, by their ids, the oldest first.
        is_known: whether it is known which there are.
        is_over: whether the room has no members here any more.
        waiting: the ids of members that get nothing yet.
        early: those of them that may have what there is as soon as it is known, and what they have of it.
        heard: the ids of streams of which something was heard before that.
    """

    __slots__ = ("copies", "early", "heard", "is_known", "is_over", "known_since", "room", "topic", "waiting")

    def __init__(self, room: str, topic: str, known_since: float) -> None:
        self.room = room
        self.topic = topic
        self.known_since = known_since
        self.copies: dict[str, StreamCopy] = {}
        self.is_known = self.is_over = False
        self.waiting: set[str] = set()
        self.early: dict[str, dict[str, int]] = {}
        self.heard: set[str] = set()
