"""Stream events: a part of a stream as server-sent events, whatever is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from velocity_ws.asgi.stream_events import EventForm, Events
from velocity_ws.streams.items import End
from velocity_ws.streams.pieces import Kind
from velocity_ws.streams.tail import Chunk


def chunk(data: bytes, kind: Kind = "bytes", *, end: End = "", is_all: bool = True) -> Chunk:
    return Chunk(kind if data else "", 0, len(data), data, is_all, end)


def parsed(events: Events | None) -> tuple[list[str], dict[str, Any]]:
    """The lines of data, and what the last event says of where the stream is, to a reader with cursor 7."""
    assert events is not None
    *data, control = events.at(7).decode().removesuffix("\n\n").split("\n\n")
    lines = [line.removeprefix("data:") for block in data for line in block.split("\n")[1:]]
    found: dict[str, Any] = json.loads(control.partition("\ndata:")[2])
    assert control.startswith(f"id: {found['streamNextOffset']}\nevent: control\n")
    return lines, found


@pytest.mark.parametrize(
    ("content_type", "data", "lines"),
    [
        ("text/plain", b"one\ntwo\r\nthree\rfour", ["one", "two", "three", "four"]),
        ("text/plain", b" one", ["  one"]),
        ("text/plain", b"event: control\n\n", ["event: control", "", ""]),
        ("application/json", b'1,{"a":2}', ['[1,{"a":2}]']),
        ("application/octet-stream", b"\x00\n", ["AAo="]),
    ],
)
def test_data_of_each_kind_is_in_lines(content_type: str, data: bytes, lines: list[str]) -> None:
    events, position = EventForm(content_type, "t").events(chunk(data), 0, is_first=True)
    assert parsed(events) == (
        lines,
        {"streamNextOffset": f"{len(data):016d}_t", "streamCursor": "7", "upToDate": True},
    )
    assert position == len(data)


def test_half_a_character_is_left_for_later_but_at_the_end() -> None:
    form = EventForm("text/plain", "t")
    events, position = form.events(chunk(b"a\xc3"), 0, is_first=True)
    assert (parsed(events)[0], position) == (["a"], 1)
    assert form.events(chunk(b"\xc3"), 1, is_first=False) == (None, 1)


def test_the_end_is_said_once_all_is() -> None:
    form = EventForm("text/plain", "t")
    assert form.events(chunk(b""), 0, is_first=False) == (None, 0)
    part, _ = form.events(chunk(b"a", is_all=False), 0, is_first=False)
    assert parsed(part)[1] == {"streamNextOffset": f"{1:016d}_t", "streamCursor": "7"}
    end, _ = form.events(chunk(b"", end="done"), 0, is_first=False)
    assert parsed(end)[1] == {
        "streamNextOffset": f"{0:016d}_t", "upToDate": True, "streamClosed": True, "streamEnd": "done"
    }  # fmt: skip


def test_readers_are_told_the_same_but_for_the_cursor() -> None:
    events, _ = EventForm("text/plain", "t").events(chunk(b"a"), 0, is_first=True)
    assert events is not None
    one, other = events.at(0), events.at(17)
    assert one.replace(b'"0"', b'"17"') == other != one
    assert events.at(17) is other
    assert events.at(0) == one
    assert Events(b"a").at(0) == Events(b"a").at(17) == b"a"
