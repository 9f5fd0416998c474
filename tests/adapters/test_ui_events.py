"""UI events: chunks are the same whatever carries them, and however that is cut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from velocity_ws import UpstreamError
from velocity_ws.adapters.ui_events import events_of


async def said(*parts: Any) -> AsyncIterator[Any]:
    for part in parts:
        yield part


async def read(*parts: Any) -> list[Any]:
    return [each async for each in events_of(said(*parts))]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
async def test_events_are_read_however_they_are_cut_and_their_lines_end(end: str, size: int) -> None:
    lines = [
        ": here",
        'data:{"a":',
        'data: "\u2028é"}',
        "event: x",
        "",
        "",
        'data: {"b": 1}',
        "",
        "data: [DONE]",
        "",
        "",
    ]
    text = end.join(lines)
    encoded = text.encode()
    wanted = [{"a": "\u2028é"}, {"b": 1}]
    assert await read(*[text[at : at + size] for at in range(0, len(text), size)], "\n") == wanted
    assert await read(*[encoded[at : at + size] for at in range(0, len(encoded), size)], b"\n") == wanted


async def test_objects_are_taken_as_they_are_and_need_no_end() -> None:
    assert await read({"type": "start"}, {"type": "finish"}) == [{"type": "start"}, {"type": "finish"}]


@pytest.mark.parametrize("data", ["{", "[]", '"text"'])
async def test_what_is_no_object_of_json_has_failed(data: str) -> None:
    with pytest.raises(UpstreamError, match="no chunk"):
        await read(f"data: {data}\n\n")


async def test_an_end_without_done_has_failed() -> None:
    with pytest.raises(UpstreamError, match="ask again"):
        await read('data: {"type": "start"}\n\n')


async def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="dicts"):
        await read(1)
