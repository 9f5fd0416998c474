"""Stream forms: the headers, offsets and tags by which requests say what they want of a stream. Pure.

Source: the Durable Streams protocol, 5 to 10 (https://github.com/durable-streams/durable-streams); RFC 9110.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from velocity_ws.streams.items import End
from velocity_ws.streams.notes import Meta, Note, Producer, normal_type
from velocity_ws.streams.requests import Found, Problem, Said

__all__ = [
    "JSON",
    "NOW",
    "TEXT",
    "Wanted",
    "cursor_after",
    "etag_of",
    "interval_at",
    "offset_of",
    "parse_body",
    "parse_offset",
    "producer_of",
    "seq_of",
    "tag_of",
    "wants_end",
]

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"
BEGINNING, NOW = "-1", "now"
_OFFSET = re.compile(r"([0-9]{16})_([0-9a-f]{16})", re.ASCII)
_INTEGER = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_TYPE = re.compile(r"[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+(?:\s*;[\x20-\x7e]*)?", re.ASCII)
_MOST: Final = 2**53 - 1
_LONGEST_TTL: Final = 10 * 365 * 86400
_NAME: Final = 256
CURSOR_EPOCH: Final = 1728432000
"""2024-10-09, from which intervals count."""
CURSOR_INTERVAL: Final = 20


class Wanted(NamedTuple):
    """What a request for a new stream asks for.

    Attributes:
        type: the content type; empty where none is said.
        ttl: seconds without a read or write that it lasts.
        expires: when it is gone, in seconds since 1970.
        expires_at: the same, as it was said.
        is_closed: whether it takes nothing more.
        source: the path of the stream that it begins with; ``None`` for none.
        offset: up to where, an offset of that one; ``None`` for all of it.
        sub_offset: how much more of the next append there.
    """

    type: str
    ttl: int | None
    expires: float | None
    expires_at: str
    is_closed: bool
    source: str | None
    offset: str | None
    sub_offset: int

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Wanted:
        """Read the headers.

        Raises:
            Problem: one of them cannot be.
        """
        type_, ttl, at = headers.get("content-type", ""), headers.get("stream-ttl"), headers.get("stream-expires-at")
        if type_ and (len(type_) > _NAME or not _TYPE.fullmatch(type_)):
            raise Problem("invalid", f"Content-Type is no content type: {type_!r:.80}")
        if ttl is not None and at is not None:
            raise Problem("invalid", "Stream-TTL and Stream-Expires-At are not for one stream")
        seconds = None
        if ttl is not None:
            if not _INTEGER.fullmatch(ttl) or int(ttl) > _LONGEST_TTL:
                raise Problem("invalid", f"Stream-TTL is a number of seconds, up to {_LONGEST_TTL}, not {ttl!r:.80}")
            seconds = int(ttl)
        moment = None if at is None else _moment(at)
        return cls(type_, seconds, moment, at or "", wants_end(headers), *_fork_of(headers))

    def meta(self, tag: str) -> Meta:
        """What a new stream is like."""
        return Meta(self.type or BINARY, tag, self.ttl, self.expires, self.expires_at)

    def forked(self, source: Found, position: int) -> Meta:
        """What a stream is like that begins with another one, whose limits it has where it has none of its own.

        Raises:
            Problem: that one is of another content type.
        """
        if source.note is None:
            raise Problem("conflict", "a stream of the application is not forked")
        old = source.note.meta
        if self.type and normal_type(self.type) != normal_type(old.type):
            raise Problem("conflict", f"the stream that it begins with has {old.type}")
        ttl, expires, expires_at = self.ttl, self.expires, self.expires_at
        if ttl is None and expires is None:
            ttl, expires, expires_at = old.ttl, old.expires, old.expires_at
        fork = f"{self.offset or ''}+{self.sub_offset}"
        return Meta(self.type or old.type, old.tag, ttl, expires, expires_at, source.stream.id, fork, position)


def wants_end(headers: Mapping[str, str]) -> bool:
    """Whether a request closes the stream."""
    return headers.get("stream-closed", "").lower() == "true"


def producer_of(headers: Mapping[str, str]) -> Producer | None:
    """Who sent a request, and which it was; ``None`` where that is not said.

    Raises:
        Problem: it is said by halves, or wrong.
    """
    names = ("producer-id", "producer-epoch", "producer-seq")
    values = [headers.get(name) for name in names]
    if all(value is None for value in values):
        return None
    id_, epoch, seq = values
    if not id_ or epoch is None or seq is None:
        raise Problem("invalid", "Producer-Id, Producer-Epoch and Producer-Seq come together, and none is empty")
    if len(id_) > _NAME:
        raise Problem("invalid", f"Producer-Id has at most {_NAME} characters")
    if not all(_INTEGER.fullmatch(value) and int(value) <= _MOST for value in (epoch, seq)):
        raise Problem("invalid", "Producer-Epoch and Producer-Seq are whole numbers from 0 to 2^53-1")
    return Producer(id_, int(epoch), int(seq))


def seq_of(headers: Mapping[str, str]) -> str | None:
    """The ``Stream-Seq`` of a request.

    Raises:
        Problem: it is too long.
    """
    seq = headers.get("stream-seq")
    if seq is not None and len(seq) > _NAME:
        raise Problem("invalid", f"Stream-Seq has at most {_NAME} characters")
    return seq


def parse_body(body: bytes, note: Note, room: str, *, is_first: bool = False) -> Said:
    """What a body says, for what a stream is like.

    Args:
        body: of the request.
        note: of the stream.
        room: of the stream; empty for none.
        is_first: whether it may be an empty array, as what a stream begins with.

    Raises:
        Problem: it is not what the stream has.
    """
    if note.meta.is_json:
        try:
            body.decode()  # which the parts are not looked at for
            msgspec.json.decode(body)  # nor for numbers that no reader could have
            whole = bytes(_decode_raw(body))
            items = list(map(bytes, _decode_items(whole))) if whole[:1] == b"[" else [whole]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Problem("invalid", "the body is no JSON, or has a number that is out of range") from None
        if not items and not is_first:
            raise Problem("invalid", "an empty array says nothing")
        return Said("items", len(items), b",".join(items))
    if not room:
        return Said("bytes", len(body), body)
    if not note.meta.is_text:
        raise Problem("invalid", "a stream of a room has text, or JSON")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Problem(
            "invalid", "the text of a room's stream is UTF-8, and each request has whole characters"
        ) from None
    return Said("text", len(text), body)


def offset_of(position: int, tag: str) -> str:
    """The text by which a reader comes back to a position."""
    return f"{position:016d}_{tag}"


def tag_of(found: Found) -> str:
    """What the offsets of a stream end with."""
    if found.note is not None:
        return found.note.meta.tag
    return hashlib.blake2b(found.stream.writer, digest_size=8, person=b"offset").hexdigest()


def parse_offset(text: str | None, found: Found) -> int:
    """Where a request begins to read.

    Raises:
        Problem: it is no offset of this stream.
    """
    if text is None or text == BEGINNING:
        return 0
    if text == NOW:
        return found.stream.length
    match = _OFFSET.fullmatch(text)
    if match is None:
        raise Problem("invalid", "this is no offset: take one that a response had, -1, or now")
    if not int(match[1]):
        return 0
    if match[2] != tag_of(found) or int(match[1]) > found.stream.length:
        raise Problem("invalid", "this is no offset of this stream, which may have been deleted and created anew")
    return int(match[1])


def etag_of(start: int, stop: int, tag: str, *, is_all: bool, end: End) -> str:
    """The entity tag of what was read, which changes once that is no longer all, and when the stream is closed.

    Args:
        start: what came before it.
        stop: where it ends.
        tag: of the stream's offsets.
        is_all: whether there was no more.
        end: how the stream has ended, where this is all of it.
    """
    state = (f":c:{end}" if end else ":all") if is_all else ""
    return f'"{tag}:{start}:{stop}{state}"'


def interval_at(now: float) -> int:
    """The number of the interval of a moment, in seconds since 1970."""
    return int((now - CURSOR_EPOCH) // CURSOR_INTERVAL)


def cursor_after(cursor: str | None, now: float) -> str:
    """What a live response is told from others by, in caches: the number of the interval, and never what it was before.

    Args:
        cursor: that of the request.
        now: seconds since 1970.
    """
    interval = interval_at(now)
    if cursor is not None and _INTEGER.fullmatch(cursor) and int(cursor) >= interval:
        return str(int(cursor) + random.randint(1, 180))  # noqa: S311 - no secret
    return str(interval)


def _fork_of(headers: Mapping[str, str]) -> tuple[str | None, str | None, int]:
    """What a stream begins with.

    Raises:
        Problem: it is said by halves, or wrong.
    """
    source, offset = headers.get("stream-forked-from"), headers.get("stream-fork-offset")
    sub = headers.get("stream-fork-sub-offset")
    if source is None and (offset is not None or sub is not None):
        raise Problem("invalid", "Stream-Fork-Offset is nothing without Stream-Forked-From")
    if sub is not None and not _INTEGER.fullmatch(sub):
        raise Problem("invalid", "Stream-Fork-Sub-Offset is a whole number")
    if sub is not None and int(sub) and offset is None:
        raise Problem("invalid", "Stream-Fork-Sub-Offset is nothing without Stream-Fork-Offset")
    return source, offset, int(sub or 0)


def _moment(text: str) -> float:
    """A moment of RFC 3339, in seconds since 1970.

    Raises:
        Problem: it is none.
    """
    with contextlib.suppress(ValueError, OverflowError):  # the latter on the first day of all, and the last
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and "T" in text.upper():
            return moment.astimezone(UTC).timestamp()
    raise Problem("invalid", f"Stream-Expires-At is a moment, as in 2030-01-01T00:00:00Z, not {text!r:.80}")


_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
