"""Streams over HTTP by `durable-streams` of PyPI, which knows nothing of us: it has a key, and an address.

It closes no stream, and sees that one is closed only where the events of it end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest
from durable_streams import (
    AsyncDurableStream,
    DurableStream,
    DurableStreamError,
    SeqConflictError,
    StreamExistsError,
    StreamNotFoundError,
    stream,
)

from tests.support import DEADLINE


@pytest.fixture
def headers(key: str) -> dict[str, str | Callable[[], str]]:
    """What a program sends with each request."""
    return {"Authorization": f"Bearer {key}"}


async def test_items_are_appended_and_read(url: str, headers: dict[str, Any]) -> None:
    def program() -> None:
        with closing(DurableStream.create(url, content_type="application/json", headers=headers)) as handle:
            first = handle.append([1, "two"])  # one item, which is an array
            with ThreadPoolExecutor(8) as threads:  # several are one request then
                appended = list(threads.map(lambda number: handle.append({"n": number}), range(100)))
            assert handle.head().offset == max(each.next_offset for each in appended)
            with handle.stream(live=False) as found:
                items = found.read_json()
            assert items[0] == [1, "two"]
            assert sorted(item["n"] for item in items[1:]) == list(range(100))
            with handle.stream(live=False, offset=first.next_offset) as found:
                assert found.read_json() == items[1:]
            with pytest.raises(StreamExistsError):
                DurableStream.create(url, content_type="text/plain", headers=headers)
            handle.delete()
            with pytest.raises(StreamNotFoundError):
                handle.head()

    await asyncio.to_thread(program)


async def test_without_the_key_nothing_is_read_or_written(url: str, headers: dict[str, Any]) -> None:
    def program() -> None:
        wrong: dict[str, Any] = {"Authorization": "Bearer another key"}
        for strange in (None, wrong):
            with pytest.raises(DurableStreamError, match="UNAUTHORIZED"):
                DurableStream.create(url, content_type="text/plain", headers=strange)
        with closing(DurableStream.create(url, content_type="text/plain", body="a secret", headers=headers)) as handle:
            with pytest.raises(StreamNotFoundError):  # nor is one told that there is something
                stream(url, live=False)
            with handle.stream(live=False) as found:
                assert found.read_text() == "a secret"

    await asyncio.to_thread(program)


async def test_what_is_numbered_is_taken_once_and_in_order(url: str, headers: dict[str, Any]) -> None:
    def program() -> None:
        with closing(DurableStream.create(url, content_type="text/plain", headers=headers)) as handle:
            handle.append("one ", seq="a")
            handle.append("two", seq="c")
            for late in ("a", "b", "c"):
                with pytest.raises(SeqConflictError):
                    handle.append("late", seq=late)
            with handle.stream(live=False) as found:
                assert found.read_text() == "one two"

    await asyncio.to_thread(program)


async def test_a_long_stream_comes_in_parts(url: str, headers: dict[str, Any]) -> None:
    part = bytes(range(256)) * 160

    def program() -> None:
        with closing(DurableStream.create(url, headers=headers)) as handle:
            for _ in range(64):
                handle.append(part)
            with handle.stream(live=False) as found:
                assert b"".join(found) == 64 * part

    await asyncio.to_thread(program)


async def test_readers_have_what_comes(url: str, headers: dict[str, Any]) -> None:
    """Two who wait, each in its own way, and a blocking one, while it is written; the end is told by events alone."""
    items: list[Any] = [{"n": number} for number in range(100)]

    async def first(iterator: AsyncIterator[Any]) -> list[Any]:
        got: list[Any] = []
        async for item in iterator:
            got.append(item)
            if len(got) == len(items):
                break
        return got

    def blocking() -> list[Any]:
        got: list[Any] = []
        with stream(url, live="auto", headers=headers) as found:
            for item in found.iter_json():
                got.append(item)
                if len(got) == len(items):
                    break
        return got

    async with await AsyncDurableStream.create(url, content_type="application/json", headers=headers) as handle:
        async with (
            asyncio.timeout(4 * DEADLINE),
            handle.stream(live="sse", offset="-1") as events,
            handle.stream(live="auto") as polls,
        ):
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(asyncio.to_thread(blocking))
                polling = group.create_task(first(polls.iter_json()))
                for item in items:
                    await handle.append(item)
            assert (reading.result(), polling.result()) == (items, items)
            async with httpx.AsyncClient(headers={"stream-closed": "true", **headers}) as http:
                assert (await http.post(url)).status_code == 204
            assert [item async for item in events.iter_json()] == items
