"""Notes: what is kept with a stream that clients write over HTTP: what it is like, and who wrote what last. Pure.

Source: the Durable Streams protocol, 4, 5.1 and 5.2 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["MOST_PRODUCERS", "PRODUCER_HOURS", "Meta", "Note", "Producer", "normal_type", "read_note"]

MOST_PRODUCERS: Final = 100
"""Producers of one stream whose numbers are kept."""
PRODUCER_HOURS: Final = 24
"""Hours without a write after which the number of a producer need not be kept, where another one comes."""


class Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a stream was created with.

    Attributes:
        type: its content type, as it was given.
        tag: what its offsets end with, so that those of an earlier stream of its id are none of its.
        ttl: seconds without a read or write after which it is gone; ``None`` for no such limit.
        expires: when it is gone, in seconds since 1970; ``None`` for no such moment.
        expires_at: the same as it was given.
        source: the id of the stream that it was forked from; empty for none.
        fork: where it was forked, as the request said.
        forked_at: characters, items, or bytes, that it has from there.
    """

    type: str
    tag: str
    ttl: int | None = None
    expires: float | None = None
    expires_at: str = ""
    source: str = ""
    fork: str = ""
    forked_at: int = 0

    @property
    def is_json(self) -> bool:
        """Whether it has items."""
        return normal_type(self.type) == "application/json"

    @property
    def is_text(self) -> bool:
        """Whether its content type is one of text."""
        return normal_type(self.type).startswith("text/")

    def differs(self, other: Meta) -> str:
        """What is otherwise of a stream that another one asks for; empty where they ask for the same."""
        if normal_type(self.type) != normal_type(other.type):
            return f"has {self.type}"
        if (self.ttl, self.expires) != (other.ttl, other.expires):
            return "lasts for another time"
        if (self.source, self.fork) != (other.source, other.fork):
            return f"begins with {self.source} at another place" if self.source else "begins with no other one"
        return ""


class Producer(msgspec.Struct, frozen=True, array_like=True):
    """Who sent something, and the how manieth thing it was, so that it is taken once.

    Attributes:
        id: a name that the client chose.
        epoch: counts its lives.
        seq: counts what it sent in this one.
    """

    id: str
    epoch: int
    seq: int


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept with each piece.

    Attributes:
        meta: of the stream.
        nonce: of the request that wrote the piece, so that two that write the same are two.
        seq: the last ``Stream-Seq``.
        producers: epoch and number of what each producer sent last, the oldest first.
        closed_by: who closed it.
        is_filling: whether it does not have all of what it was forked from yet.
        size: bytes of its pieces, as the engine keeps them: with the note of each.
        hours: of each producer, the hour since 1970 in which it wrote last.
    """

    meta: Meta
    nonce: bytes = b""
    seq: str | None = None
    producers: dict[str, tuple[int, int]] = {}
    closed_by: Producer | None = None
    is_filling: bool = False
    size: int = 0
    hours: tuple[int, ...] = ()

    def takes(self, producer: Producer, now: float) -> bool:
        """Whether the number of a producer can be kept, and that of each other one that may send something again."""
        if producer.id in self.producers or len(self.producers) < MOST_PRODUCERS:
            return True
        hour = _hour_of(now)
        return self._hours(hour)[0] <= hour - PRODUCER_HOURS

    def with_producer(self, producer: Producer, now: float) -> Note:
        """The same, once a producer has sent something; where there were enough, without the oldest one."""
        hour = _hour_of(now)
        others = [
            (id_, last, at)
            for (id_, last), at in zip(self.producers.items(), self._hours(hour), strict=True)
            if id_ != producer.id
        ]
        kept = [*others[-MOST_PRODUCERS + 1 :], (producer.id, (producer.epoch, producer.seq), hour)]
        producers = {id_: last for id_, last, _ in kept}
        return msgspec.structs.replace(self, producers=producers, hours=tuple(at for _, _, at in kept))

    def _hours(self, hour: int) -> tuple[int, ...]:
        """When each producer wrote last; this hour where that was not kept."""
        count = len(self.producers)
        return self.hours if len(self.hours) == count else (hour,) * count

    @property
    def data(self) -> bytes:
        """As it is kept."""
        return msgspec.msgpack.encode(self)


def read_note(data: bytes) -> Note | None:
    """A note as it was kept; ``None`` for what is none."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None


def normal_type(content_type: str) -> str:
    """A content type as two of them are compared: without parameters, in small letters."""
    return content_type.partition(";")[0].strip().lower()


def _hour_of(now: float) -> int:
    return int(now // 3600)


_decode = msgspec.msgpack.Decoder(Note).decode
