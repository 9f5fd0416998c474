"""Pages that read a stream while it is written: refreshed, cut off, in two tabs, left and brought back, cancelled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support import eventually
from tests.support.dead_network import network
from tests.support.sites import Site, site_of
from tests.support.tabs import Chromium, Tab

# The timeout leaves room for the installation of a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ROOM = "room:1"
BEGIN = """
    globalThis.ws = connect(undefined, { baseDelay: 5, maxDelay: 50 });
    globalThis.parts = [];
    globalThis.ended = null;
    globalThis.answer = ws.stream("answer", { room: "room:1" });
    const read = async () => {
        for await (const part of answer) parts.push(part);
        return answer.end;
    };
    read().then((end) => (ended = end), ({ code }) => (ended = code));
    await ws.join("room:1");
"""
SOME = "await until(() => parts.length >= argument && ws.joined.length); return parts"
ALL = "await until(() => ended); return [parts.join(''), ended, answer.text === parts.join('')]"
LETTERS = "abc é🙂🙃\u2028\n"


class Stage:
    """A source that says something every few milliseconds, until it is told how to end.

    Attributes:
        text: what it has said.
    """

    def __init__(self, site: Site) -> None:
        self.text = ""
        self._site = site
        self._draw = random.Random(5)
        self._last: asyncio.Queue[str | None] = asyncio.Queue()
        kind = site.broker.rooms("room:{name}")

        @kind.authorize
        def everybody() -> bool:
            return True

        @kind.on_cancel
        def anybody() -> bool:
            return True

    async def source(self) -> AsyncIterator[str]:
        """Say it."""
        while True:
            try:
                async with asyncio.timeout(0.005):  # between two tokens
                    last = await self._last.get()
            except TimeoutError:
                yield self._say("".join(self._draw.choice(LETTERS) for _ in range(self._draw.randrange(1, 9))))
                continue
            if last is None:
                return
            yield self._say(last)
            raise RuntimeError("out of words")

    def end(self, *, badly_after: str | None = None) -> None:
        """Have it end; or say something, and fail."""
        self._last.put_nowait(badly_after)

    async def said(self) -> str:
        """What the engine has of it."""
        return (await self._site.broker.streams.read("answer")).text or ""

    def _say(self, text: str) -> str:
        self.text += text
        return text


@asynccontextmanager
async def writing(**values: Any) -> AsyncIterator[tuple[Site, Stage]]:
    """A server that writes a stream all the time."""
    stages: list[Stage] = []
    async with site_of(lambda site: stages.append(Stage(site)), rate_limit=0, **values) as site:
        stream = await site.broker.streams.start("answer", room=ROOM, source=stages[0].source)
        try:
            yield site, stages[0]
        finally:
            await stream.cancel()


async def ends(tab: Tab, stage: Stage, end: str = "done") -> None:
    """The tab has what the engine has of the writer's text, and the end."""
    found = await tab.run(ALL)
    text = await stage.said()
    assert found == [text, end, True]
    assert text == stage.text if end == "done" else stage.text.startswith(text)
    assert tab.errors == []


async def test_a_page_that_is_refreshed_in_the_middle_has_the_text_so_far_and_then_what_comes(
    browser: Chromium,
) -> None:
    async with writing() as (site, stage), browser.profile() as profile:
        tab = await profile.tab(site.address.http + "/")
        await tab.run(BEGIN)
        for _ in range(5):
            await tab.run(SOME, 5)
            before = len(await stage.said())
            await tab.goto(site.address.http + "/")
            await tab.run(BEGIN)
            first = (await tab.run(SOME, 1))[0]
            assert stage.text.startswith(first)
            assert len(first) >= before
        stage.end()
        await ends(tab, stage)


async def test_a_page_whose_network_is_cut_goes_on_where_it_was(browser: Chromium) -> None:
    async with writing() as (site, stage), network(site.address.port) as way, browser.profile() as profile:
        tab = await profile.tab(f"http://127.0.0.1:{way.port}/")
        await tab.run(BEGIN)
        for turn in range(8):
            await tab.run(SOME, 3 * (turn + 1))
            accepted = way.accepted
            way.cut()
            await eventually(lambda known=accepted: way.accepted > known)  # type: ignore[misc]
        stage.end()
        await ends(tab, stage)


async def test_a_second_tab_has_all_of_it_and_what_one_cancels_ends_in_both(browser: Chromium) -> None:
    async with writing() as (site, stage), browser.profile() as profile:
        first = await profile.tab(site.address.http + "/")
        await first.run(BEGIN)
        await first.run(SOME, 5)
        second = await profile.tab(site.address.http + "/")
        await second.run(BEGIN)
        await second.run(SOME, 5)
        await first.run("await answer.cancel()")
        for tab in (first, second):
            await ends(tab, stage, "cancelled")
        late = await profile.tab(site.address.http + "/")
        await late.run(BEGIN)
        await ends(late, stage, "cancelled")


@pytest.mark.parametrize("departure", ["left", "frozen"])
async def test_a_page_that_returns_goes_on_where_it_was(departure: str, browser: Chromium) -> None:
    async with writing() as (site, stage), browser.profile() as profile:
        tab = await profile.tab(site.address.http + "/")
        await tab.run(BEGIN)
        for turn in range(3):
            await tab.run(SOME, 5 * (turn + 1))
            await (tab.goto(site.address.http + "/elsewhere") if departure == "left" else tab.freeze())
            await eventually(lambda: site.broker.get_clients() == [])
            away = len(stage.text)
            await eventually(lambda known=away: len(stage.text) > known + 20)  # type: ignore[misc]
            await (tab.back() if departure == "left" else tab.resume())
        stage.end()
        await ends(tab, stage)


async def test_what_has_ended_while_the_page_was_away_ends_when_it_returns(browser: Chromium) -> None:
    async with writing() as (site, stage), browser.profile() as profile:
        tab = await profile.tab(site.address.http + "/")
        await tab.run(BEGIN)
        await tab.run(SOME, 5)
        await tab.goto(site.address.http + "/elsewhere")
        await eventually(lambda: site.broker.get_clients() == [])
        stage.end(badly_after="the last words")
        await tab.back()
        await ends(tab, stage, "error")
        assert stage.text.endswith("the last words")
