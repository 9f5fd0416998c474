"""Messages of JetStream: what is stored, under which guard, and what a server answers. Knows no connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from velocity_ws.history.items import Refused
from velocity_ws.history.nats_requests import Sending, header_of

__all__ = [
    "Ack",
    "Guard",
    "InDoubt",
    "Message",
    "Stored",
    "WrongSequence",
    "end_of_headers",
    "parse_ack",
    "stored_by_subject",
]

_WRONG_SEQUENCE, _UNDER_WAY = 10071, 10164
"""Codes of errors: the last sequence of the guard's subject is another; or what is under its guard is under way."""
_LEADS_NOT = "raft: not leader"
"""What nats-server 2.11 says where it has just ceased to lead; 2.15 says nothing then."""


class WrongSequence(Exception):
    """A message was not stored, as the last one of the subjects that guard it is another than expected."""


class InDoubt(ConnectionError):
    """A message may be stored, or not, as no server that leads has confirmed it; it is not the last of its subject."""


class Message(NamedTuple):
    """What shall be stored.

    Attributes:
        subject: where.
        payload: any bytes.
        ttl: milliseconds for which it is kept at least; 0 for ever.
        headers: more of them, as text.
    """

    subject: str
    payload: bytes
    ttl: int = 0
    headers: bytes = b""

    def sent(self, end: bytes) -> Sending:
        """The message as it is sent.

        Args:
            end: the headers that all messages of a guard have; see `end_of_headers`.
        """
        ttl = b"Nats-TTL: %ds\r\n" % -(-self.ttl // 1000) if self.ttl else b""
        return self.subject.encode(), b"NATS/1.0\r\n%b%b%b" % (self.headers, ttl, end), self.payload


Guard = tuple[str, int] | None
"""A subject, which may have ``*``, and the sequence of its last message, or 0; ``None`` for no guard."""


class Stored(NamedTuple):
    """What is stored.

    Attributes:
        sequence: its number in the stream.
        payload: its bytes.
        headers: those it was stored with, and the server's.
    """

    sequence: int
    payload: bytes
    headers: bytes

    def header(self, name: bytes) -> bytes:
        """The value of a header; empty where there is none."""
        return header_of(self.headers, name)


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class Ack(msgspec.Struct):
    """What a server answers to a message.

    Attributes:
        seq: the sequence of what is stored.
        error: why it is not.
    """

    seq: int = 0
    error: _Error | None = None

    @property
    def is_momentary(self) -> bool:
        """Whether it was not stored as another message under its guard is not everywhere yet, or as none leads now."""
        error = self.error
        return error is not None and (error.err_code == _UNDER_WAY or error.description == _LEADS_NOT)

    @property
    def is_guarded(self) -> bool:
        """Whether the guard has refused it."""
        return self.error is not None and self.error.err_code == _WRONG_SEQUENCE

    def sequence(self) -> int:
        """The sequence of what is stored.

        Raises:
            WrongSequence: the guard has refused it.
            Refused: it is not stored, as the server cannot.
        """
        if self.error is None:
            return self.seq
        if self.error.err_code in (_WRONG_SEQUENCE, _UNDER_WAY):
            raise WrongSequence
        raise Refused("engine", f"the engine does not store it: {self.error.description}")


parse_ack = msgspec.json.Decoder(Ack).decode
"""What a server has answered, of its bytes."""


def stored_by_subject(stored: Sequence[Stored]) -> dict[str, Stored]:
    """Messages by their subjects; the last of each."""
    return {each.header(b"Nats-Subject").decode(): each for each in stored}


def end_of_headers(guard: Guard, subject: str = "") -> bytes:
    """The headers that say of a guard, and what is behind all headers.

    Args:
        guard: what the message is stored under.
        subject: of the message; where it is the guard's, it is not said again.
    """
    if guard is None:
        return b"\r\n"
    guarding, sequence = guard
    if guarding == subject:
        return b"Nats-Expected-Last-Subject-Sequence: %d\r\n\r\n" % sequence
    return b"Nats-Expected-Last-Subject-Sequence: %d\r\nNats-Expected-Last-Subject-Sequence-Subject: %b\r\n\r\n" % (
        sequence,
        guarding.encode(),
    )
