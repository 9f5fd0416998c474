"""Calls: what an engine that fails, or has forgotten everything, is asked and told again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.support import eventually
from velocity_ws.errors import BackplaneUnavailable
from velocity_ws.streams.asking import Asking
from velocity_ws.streams.calls import Calls
from velocity_ws.streams.items import Begin, Times


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
