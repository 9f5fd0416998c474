"""What a NATS server sends is cut as the library cuts it, however it arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.protocol.parser import Parser

from velocity_ws.backplane.nats_parser import MAX_LINE, NatsParser

tokens = st.text("abz.$_-09", min_size=1, max_size=20).map(str.encode)
bodies = st.binary(max_size=300) | st.sampled_from([b"\r\n", b"PONG\r\n", b"MSG a 1 5\r\nhello\r\n", b"x" * 3000])
headers = st.binary(max_size=30).map(lambda text: b"NATS/1.0\r\n" + text + b"\r\n\r\n")
numbers = st.integers(1, 999).map(lambda number: b"%d" % number)


def with_reply(*parts: bytes, reply: bytes) -> bytes:
    return b" ".join((*parts[:2], *([reply] if reply else []), *parts[2:]))


@st.composite
def sent(draw: st.DrawFn) -> bytes:
    """Something that a server sends."""
    kind = draw(st.sampled_from(["MSG", "HMSG", "PONG", "PING", "INFO", "-ERR", "+OK"]))
    if kind == "MSG":
        body = draw(bodies)
        line = with_reply(draw(tokens), draw(numbers), b"%d" % len(body), reply=draw(tokens | st.just(b"")))
        return b"MSG %b\r\n%b\r\n" % (line, body)
    if kind == "HMSG":
        head, body = draw(headers), draw(bodies)
        sizes = (b"%d" % len(head), b"%d" % (len(head) + len(body)))
        line = with_reply(draw(tokens), draw(numbers), *sizes, reply=draw(tokens | st.just(b"")))
        return b"HMSG %b\r\n%b%b\r\n" % (line, head, body)
    others = {"INFO": b'INFO {"server_id":"a","ldm":true}', "-ERR": b"-ERR 'Stale Connection'"}
    return others.get(kind, kind.encode()) + b"\r\n"


class Library:
    """What the library makes of it."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        self.seen.append((b"%d" % sid, subject, head or b"", data))

    async def _process_pong(self) -> None:
        self.seen.append("pong")

    async def _process_ping(self) -> None:
        self.seen.append("ping")

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.seen.append("info")

    async def _process_err(self, text: str) -> None:
        self.seen.append("-err")


async def of_the_library(data: bytes) -> list[Any]:
    library = Library()
    parser = Parser(library)
    await parser.parse(data)
    assert not parser.buf
    return library.seen


def of_ours(*parts: bytes) -> list[Any]:
    seen: list[Any] = []

    def other(line: bytes) -> None:
        assert line.endswith(b"\r\n")
        if not line.startswith(b"+OK"):  # which the library skips
            seen.append(line.split()[0].decode().lower())

    parser = NatsParser(lambda *message: seen.append(message), lambda: seen.append("pong"), other)
    for part in parts:
        parser.feed(part)
    return seen


@given(st.lists(sent(), max_size=8), st.data())
def test_it_is_cut_as_the_library_does_however_it_arrives(frames: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    parts = [whole[first:last] for first, last in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert of_ours(*parts) == of_ours(whole) == asyncio.run(of_the_library(whole))


def test_a_message_that_comes_in_very_many_parts_is_put_together_once() -> None:
    body = bytes(8 * 1024 * 1024)
    whole = b"MSG a 1 %d\r\n%b\r\nPONG\r\n" % (len(body), body)
    parts = [whole[first : first + 4096] for first in range(0, len(whole), 4096)]
    assert of_ours(*parts) == [(b"1", b"a", b"", body), "pong"]


WRONG = [
    b"MSG a 1 x\r\n",
    b"MSG a 1 -3\r\nhello\r\n",
    b"MSG a 1 -15\r\n",
    b"MSG a 1 1_0\r\n1234567890\r\n",
    b"MSG a 1 3\r\nhello\r\n",
    b"HMSG a 1 x 5\r\n12345\r\n",
    b"HMSG a 1 -3 5\r\n12345\r\n",
    b"HMSG a 1 6 5\r\n12345\r\n",
    b"I" * (MAX_LINE + 1),
]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("data", WRONG)
def test_what_no_server_sends_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a number|a line of more than|larger than"):
        of_ours(data)
