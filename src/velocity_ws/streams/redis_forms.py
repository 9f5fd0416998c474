"""Redis forms: how keys are called, and how a claim and what is known of a stream are written and read. Pure."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple, get_args

from velocity_ws.streams.items import Begin, End, Summary, Times
from velocity_ws.streams.redis_scripts import BETWEEN, unpack_known

__all__ = ["ENDS", "Claim", "Keys", "keep_of", "keys_of", "named", "pack_claim", "summary_of", "tag_of"]

ENDS: Final = get_args(End)
_CACHED = 16384
_KNOWN_SIZE: Final = 75
_claim = Struct(">Q16sQQQH")
_size = Struct(">H")


class Keys(NamedTuple):
    """The keys of a stream; see `velocity_ws.streams.redis_scripts`."""

    stream: str
    pieces: str
    streams: str
    name: str


@lru_cache(maxsize=_CACHED)
def keys_of(prefix: str, id_: str, topic: str) -> Keys:
    """The keys of a stream, which a writer asks for again and again."""
    name = _hash(prefix, id_)
    return Keys(f"{{{topic}}}:stream:{name}", f"{{{topic}}}:pieces:{name}", f"{{{topic}}}:streams", name)


def tag_of(prefix: str, id_: str) -> str:
    """The hash tag under which an id is claimed."""
    return f"{prefix}.stream.{_hash(prefix, id_)}"


class Claim(NamedTuple):
    """Who may begin a stream.

    Attributes:
        made: when, in milliseconds.
        begin: what begins it.
    """

    made: int
    begin: Begin

    @classmethod
    def unpack(cls, data: bytes, id_: str) -> Claim:
        """Read what the engine has.

        Args:
            data: that.
            id_: of the stream.
        """
        made, writer, lease, ttl, memory, size = _claim.unpack_from(data)
        topic = data[_claim.size : _claim.size + size].decode(errors="surrogatepass")
        room = data[_claim.size + size :].decode(errors="surrogatepass")
        return cls(made, Begin(id_, topic, room, writer, Times(lease, ttl, memory)))

    def is_fresh(self, now: int) -> bool:
        """Whether its stream, if it was ever begun, cannot be forgotten yet."""
        return now < self.made + self.begin.times.ttl + self.begin.times.memory


def pack_claim(begin: Begin) -> bytes:
    """A claim without its time."""
    topic = _bytes(begin.topic)
    return _claim.pack(0, begin.writer, *begin.times, len(topic))[8:] + topic + _bytes(begin.room)


def keep_of(times: Times) -> int:
    """How long a claim is kept from a begin or a renewal on, in milliseconds.

    Its stream is known for shorter in any case: a writer that renews no more can end it until ``lease + ttl`` are over,
    and it begins no later than `BETWEEN` after what claims it, or finds it claimed.
    """
    return times.lease + 2 * times.ttl + times.memory + BETWEEN


def named(begin: Begin) -> bytes:
    """Id and room of a stream, as they are kept with it."""
    id_ = _bytes(begin.id)
    return _size.pack(len(id_)) + id_ + _bytes(begin.room)


def summary_of(topic: str, now: int, known: bytes, count: int, note: bytes = b"") -> Summary:
    """A stream, of what is known of it and how many pieces are there.

    Args:
        topic: of the stream.
        now: the engine's time.
        known: see `velocity_ws.streams.redis_scripts`.
        count: pieces that are there; where they are fewer than there were, the engine has lost them.
        note: that of the last piece.
    """
    writer, pieces, length, how, ended, alive, ttl, _, began, size = unpack_known(known)
    id_, room = known[_KNOWN_SIZE : _KNOWN_SIZE + size], known[_KNOWN_SIZE + size :]
    is_gone = now >= (ended if how else alive) + ttl or count != pieces
    return Summary(
        id_.decode(errors="surrogatepass"),
        topic,
        room.decode(errors="surrogatepass"),
        writer,
        pieces,
        length,
        ENDS[how],
        0 if how or is_gone else max(0, alive - now),
        max(0, now - began),
        is_gone,
        note,
    )


def _hash(prefix: str, id_: str) -> str:
    return hashlib.blake2b(_bytes(f"{prefix}\0{id_}"), digest_size=16).hexdigest()


def _bytes(text: str) -> bytes:
    """Text as bytes; different for different texts, half surrogate pairs included."""
    return text.encode(errors="surrogatepass")
