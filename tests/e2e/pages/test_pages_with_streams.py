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
from velocity_ws import Client

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
    """Streams of a room, said as the server says them."""

    def __init__(self, site: Site) -> None:
        self.texts: dict[str, str] = {}
        self.ends: dict[str, str] = {}
        self._site = site
        self._draw = random.Random(5)
        site.broker.rooms("room:{name}")

        @site.broker.on("join")
        async def join(client: Client, data: dict[str, Any]) -> dict[str, str]:
            known = data.get("streams", {})
            others = [each.id for each in site.broker.get_clients() if each.id != client.id]
            rests = [self._piece(id_, known.get(id_, 0)) for id_ in self.texts]
            await site.broker.join_room(client.id, data["room"])
            for rest in rests:
                await site.broker.to_room(ROOM).except_(*others).send("stream", rest)
            return {"room": data["room"]}

        @site.broker.on("stream_cancel")
        async def cancel(data: dict[str, str]) -> None:
            await self.write(data["id"], "", "cancelled")

    def _piece(self, id_: str, start: int) -> dict[str, Any]:
        end = {"end": self.ends[id_]} if id_ in self.ends else {}
        return {"id": id_, "from": start, "text": self.texts[id_][start:], **end}

    async def write(self, id_: str, text: str, end: str | None = None) -> None:
        """Say more, and perhaps that it ends with it."""
        start = len(self.texts.setdefault(id_, ""))
        self.texts[id_] += text
        if end is not None:
            self.ends[id_] = end
        await self._site.broker.to_room(ROOM).send("stream", self._piece(id_, start))

    async def write_on(self, id_: str) -> None:
        """Say something every few milliseconds, until this is cancelled or the stream has ended."""
        while id_ not in self.ends:
            await self.write(id_, "".join(self._draw.choice(LETTERS) for _ in range(self._draw.randrange(1, 9))))
            await asyncio.sleep(0.005)  # between two tokens


@asynccontextmanager
async def writing(**values: Any) -> AsyncIterator[tuple[Site, Stage]]:
    """A server that writes a stream all the time."""
    stages: list[Stage] = []
    async with site_of(lambda site: stages.append(Stage(site)), rate_limit=0, **values) as site:
        writer = asyncio.create_task(stages[0].write_on("answer"))
        try:
            yield site, stages[0]
        finally:
            writer.cancel()


async def ends(tab: Tab, stage: Stage, end: str = "done") -> None:
    """The tab has the text of the writer, and the end."""
    assert await tab.run(ALL) == [stage.texts["answer"], end, True]
    assert tab.errors == []


async def test_a_page_that_is_refreshed_in_the_middle_has_the_text_so_far_and_then_what_comes(
    browser: Chromium,
) -> None:
    async with writing() as (site, stage), browser.profile() as profile:
        tab = await profile.tab(site.address.http + "/")
        await tab.run(BEGIN)
        for _ in range(5):
            await tab.run(SOME, 5)
            before = len(stage.texts["answer"])
            await tab.goto(site.address.http + "/")
            await tab.run(BEGIN)
            first = (await tab.run(SOME, 1))[0]
            assert stage.texts["answer"].startswith(first)
            assert len(first) >= before
        await stage.write("answer", "", "done")
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
        await stage.write("answer", "", "done")
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
            away = len(stage.texts["answer"])
            await eventually(lambda known=away: len(stage.texts["answer"]) > known + 20)  # type: ignore[misc]
            await (tab.back() if departure == "left" else tab.resume())
        await stage.write("answer", "", "done")
        await ends(tab, stage)


async def test_what_has_ended_while_the_page_was_away_ends_when_it_returns(browser: Chromium) -> None:
    async with writing() as (site, stage), browser.profile() as profile:
        tab = await profile.tab(site.address.http + "/")
        await tab.run(BEGIN)
        await tab.run(SOME, 5)
        await tab.goto(site.address.http + "/elsewhere")
        await eventually(lambda: site.broker.get_clients() == [])
        await stage.write("answer", "the last words", "lost")
        await tab.back()
        await ends(tab, stage, "lost")
