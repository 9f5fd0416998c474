"""Calls: what an engine that fails, or has forgotten everything, is asked and told again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support import eventually
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.stream_errors import StreamGone, StreamNotFound
from velocity_ws.streams import calls as streams_calls
from velocity_ws.streams.asking import Asking
from velocity_ws.streams.calls import Calls
from velocity_ws.streams.items import BY_REQUESTS, Begin, End, Summary, Times


async def test_an_engine_that_comes_back_is_told_again_that_there_are_streams() -> None:
    on_up: list[Callable[[], None]] = []
    marks: list[None] = []

    async def mark() -> None:
        marks.append(None)

    def run(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(work)

    link, following = SimpleNamespace(on_up=on_up, mark=mark), SimpleNamespace(run=run)
    notes = SimpleNamespace(notify=lambda *_: None)
    cluster = SimpleNamespace(on_notification=lambda *_: None, notes=notes, topics=SimpleNamespace(nodes="nodes"))
    parts: list[Any] = [link, None, None, None, following, None, None, cluster]
    calls = Calls("0" * 11, 1000, cast("Any", None), *parts)

    def comes_up() -> None:
        for function in on_up:
            function()

    comes_up()  # at first there are none
    await asyncio.sleep(0)
    assert not marks
    calls.announce()
    await eventually(lambda: len(marks) == 1)
    comes_up()
    await eventually(lambda: len(marks) == 2)


async def test_after_many_begins_that_failed_the_newest_can_be_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.streams.asking.MOST_UNSURE", 2)
    writers: list[tuple[str, bytes]] = []

    async def begin(begin: Begin) -> None:
        writers.append((begin.id, begin.writer))
        raise BackplaneUnavailable("it is away")

    asking = Asking(cast("Any", SimpleNamespace(begin=begin)), "0" * 11, Times(1, 1, 1), str)
    for id_ in ("a", "b", "c", "c", "a"):
        with pytest.raises(BackplaneUnavailable):
            await asking.begin(id_, "room")
    assert writers[2] == writers[3]
    assert writers[0] != writers[4]


HTTP, OTHER, OWN = BY_REQUESTS.ljust(16, b"1"), BY_REQUESTS.ljust(16, b"2"), b"w" * 16


def stream(writer: bytes, end: End = "") -> Summary:
    return Summary("a", "t", "", writer, 1, 3, end, 0 if end else 1000, 5)


async def end_of(monkeypatch: pytest.MonkeyPatch, *answers: Summary | Exception) -> str:
    """How a stream ends for one that waits, of which the engine says so."""
    monkeypatch.setattr(streams_calls, "LOOK_AGAIN", 0.0)
    left = list(answers)

    async def look(_: str) -> Summary:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def wake() -> None:
        pass

    link, asking = SimpleNamespace(on_up=[]), SimpleNamespace(look=look)
    parts: list[Any] = [link, asking, SimpleNamespace(writers=[]), None, None, None, None, None]
    end = await Calls("0" * 11, 1000, wake, *parts).wait_over("a")
    assert not left
    return end


@pytest.mark.parametrize(
    "then", [StreamNotFound("a"), stream(OTHER), stream(OTHER, "done"), stream(OWN), stream(HTTP, "cancelled")]
)
async def test_who_waits_for_a_stream_that_is_deleted_hears_that_it_was_cancelled(
    then: Summary | Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = BackplaneUnavailable("it is away")
    assert await end_of(monkeypatch, away, stream(HTTP), away, stream(HTTP), then) == "cancelled"


async def test_who_waits_for_what_is_not_there_or_was_lost_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ([], [stream(OWN)]):
        with pytest.raises(StreamNotFound):
            await end_of(monkeypatch, *before, StreamNotFound("a"))
    for writer in (OWN, HTTP):
        with pytest.raises(StreamGone):
            await end_of(monkeypatch, stream(writer), StreamGone("a"))
        assert await end_of(monkeypatch, stream(writer), stream(writer, "done")) == "done"
