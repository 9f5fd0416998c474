"""Halves: whatever a text is cut into, it is whole again, and valid Unicode all the while."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.adapters import ai_sdk, openai
from velocity_ws.adapters.halves import Halves

CHARACTERS = st.text(st.sampled_from(["a", "\u00e9", "\u2028", "\U0001f600", "\U0010ffff"]))


@given(CHARACTERS, st.data())
def test_what_is_cut_anywhere_is_whole_again(text: str, data: st.DataObject) -> None:
    raw = text.encode("utf-16-le")
    halves, said, at = Halves(), "", 0
    while at < len(raw):
        count = data.draw(st.integers(1, 4))
        part = raw[at : at + 2 * count].decode("utf-16-le", "surrogatepass")
        joined = halves.join("x", part)
        joined.encode()  # which half a character cannot be
        assert halves.join("y", "other") == "other"
        said, at = said + joined, at + 2 * count
    assert said == text


@given(st.lists(st.text(st.sampled_from(["a", "\ud83d", "\ude00"]))))
def test_whatever_comes_is_valid(parts: list[str]) -> None:
    halves = Halves()
    for part in parts:
        halves.join("x", part).encode()


@pytest.mark.parametrize("text", ["\ude00", "\ud83da"])
def test_half_a_character_without_the_other_is_replaced(text: str) -> None:
    assert Halves().join("x", text) == "\ufffd" + text[1:]


def said(content: str | None = None, why: str | None = None) -> Any:
    delta = SimpleNamespace(content=content, tool_calls=None)
    return SimpleNamespace(choices=[SimpleNamespace(index=0, delta=delta, finish_reason=why)])


async def test_a_model_that_cuts_characters_is_read_to_its_end() -> None:
    async def upstream() -> Any:
        for content in ("hi ", "\ud83d", "\ude00 there"):
            yield said(content)
        yield said(None, "stop")

    chunks = [chunk async for chunk in openai.ui_message_chunks(upstream())]
    assert "".join(chunk.get("delta", "") for chunk in chunks) == "hi \U0001f600 there"


async def test_a_backend_that_cuts_characters_is_read_to_its_end() -> None:
    async def upstream() -> Any:
        yield b'\xef\xbb\xbfdata: {"type":"text-start","id":"1"}\n\n'
        yield 'data: {"type":"text-delta","id":"1","delta":"hi \\ud83d"}\n\n'
        yield 'data: {"type":"text-delta","id":"1","delta":"\\ude00 there"}\n\ndata: [DONE]\n\n'

    chunks = [chunk async for chunk in ai_sdk.chunks(upstream())]
    assert chunks[0]["type"] == "text-start"
    assert "".join(chunk.get("delta", "") for chunk in chunks) == "hi \U0001f600 there"
