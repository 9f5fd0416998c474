"""A server that restarts under pages with many rooms: each is joined again, each answer is told once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually
from tests.support.client_scripts import PATIENCE, Page
from tests.support.command import kept_port
from tests.support.node import Sockets, node_page
from tests.support.sites import Site, site_of, with_own_handlers, with_own_kind
from tests.support.tabs import Chromium
from velocity_ws.process.listening import listen

# The timeout leaves room for the installation of a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

QUICK = {"baseDelay": 50, "maxDelay": 200}

BEGIN = """
    globalThis.ws = connect(argument.url, argument.options);
    globalThis.seen = { statuses: [], answers: [], errors: [], failed: [] };
    ws.on("status", (status, detail) => seen.statuses.push([status, detail]));
    ws.on("joined", (room, answer) => seen.answers.push([room, answer.room]));
    ws.on("error", (error) => seen.errors.push(error));
    globalThis.rooms = Array.from({ length: argument.rooms }, (_, number) => `room:${number}`);
    for (const room of rooms) ws.join(room).catch((error) => seen.failed.push([room, error.code]));
    await until(() => seen.answers.length + seen.failed.length >= rooms.length);
    await until(() => seen.answers.length >= rooms.length);
"""
BACK = """
    await until(() => seen.answers.length >= argument);
    while ((await outcome(ws.request("echo"))).code) await new Promise((resolve) => setTimeout(resolve, 20));
    return { ...seen, rooms: ws.rooms };
"""


class Rooms:
    """A page in many rooms."""

    def __init__(self, site: Site, page: Page, count: int) -> None:
        self.site = site
        self.page = page
        self.count = count
        self.names = {f"room:{number}" for number in range(count)}
        self.restarts = 0

    async def begin(self, options: dict[str, Any] = QUICK, *, within: float = PATIENCE) -> None:
        """Have it join all of them."""
        argument = {"url": self.site.address.http + "/ws", "options": options, "rooms": self.count}
        await self.page.run(BEGIN, argument, within=within)

    async def restart(self) -> None:
        """Restart the server."""
        self.restarts += 1
        await self.site.stop()
        await self.site.start()

    async def are_back(self, *, within: float = PATIENCE, of: set[str] | None = None) -> dict[str, Any]:
        """Wait until the page is in all of these again; all that may be asked of what it heard is asked."""
        expected = self.names if of is None else of
        answers = self.count + self.restarts * len(expected)
        seen: dict[str, Any] = await self.page.run(BACK, answers, within=within)
        assert set(seen["rooms"]) == set(self.site.broker.get_rooms()) == expected
        assert Counter(room for room, _ in seen["answers"]) == {
            room: 1 + self.restarts * (room in expected) for room in self.names
        }
        assert all(room == answered for room, answered in seen["answers"])
        assert [error for error in seen["errors"] if "room" in error] == []
        assert self.site.closes[1008] == 0
        joined = Counter((entry.client, entry.data) for entry in self.site.heard("joined"))
        assert set(joined.values()) == {1}
        return seen


@pytest.mark.parametrize(
    ("prepare", "limits"), [(with_own_kind, {"max_rooms_per_client": 1000}), (with_own_handlers, {})]
)
async def test_600_rooms_are_joined_again(
    prepare: Callable[[Site], None], limits: dict[str, Any], tmp_path: Path
) -> None:
    async with site_of(prepare, rate_limit=600, rate_burst=200, **limits) as site, node_page(tmp_path) as page:
        rooms = Rooms(site, page, 600)
        await rooms.begin()
        await rooms.restart()
        seen = await rooms.are_back()
        assert seen["failed"] == []
        assert page.errors == []


@pytest.mark.soak
@pytest.mark.parametrize("prepare", [with_own_kind, with_own_handlers])
async def test_600_rooms_are_joined_again_within_the_default_limits(
    prepare: Callable[[Site], None], tmp_path: Path, say: Callable[[str], None]
) -> None:
    clock = asyncio.get_running_loop().time
    async with site_of(prepare, max_rooms_per_client=1000) as site, node_page(tmp_path) as page:
        rooms = Rooms(site, page, 600)
        began = clock()
        await rooms.begin({}, within=30)
        first = clock() - began
        for _ in range(3):
            await rooms.restart()
            began = clock()
            await rooms.are_back(within=30)
            say(f"{prepare.__name__}: first joined in {first:.1f} s, again in {clock() - began:.1f} s")
        assert page.errors == []


@pytest.mark.parametrize(
    ("count", "late"), [(60, 0.5), pytest.param(600, 5.0, marks=pytest.mark.soak)], ids=["soon", "5 s late"]
)
async def test_a_database_that_comes_late_costs_no_room(
    count: int, late: float, tmp_path: Path, say: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    clock = asyncio.get_running_loop().time
    values: dict[str, Any] = {"max_rooms_per_client": 1000, **({} if count == 600 else {"rate_limit": 1000})}
    async with site_of(**values) as site, node_page(tmp_path) as page:
        rooms = Rooms(site, page, count)
        await rooms.begin(QUICK if count < 600 else {}, within=30)
        comes = clock() + late

        async def authorize(room: str) -> bool:
            if clock() < comes:
                raise ConnectionError("the database has not started")
            return True

        site.authorize = authorize
        await rooms.restart()
        await rooms.are_back(within=60)
        say(f"{count} rooms: all joined {clock() - comes:.1f} s after the database has come")
        assert page.errors == []


async def test_a_room_that_is_being_left_is_not_joined_again(tmp_path: Path) -> None:
    stuck = asyncio.Event()

    def prepare(site: Site) -> None:
        with_own_handlers_but_leave(site, stuck)

    async with site_of(prepare, rate_limit=1000) as site, node_page(tmp_path) as page:
        rooms = Rooms(site, page, 20)
        await rooms.begin()
        await page.run("globalThis.left = ['room:3', 'room:4'].map((room) => outcome(ws.leave(room)))")
        async with asyncio.timeout(PATIENCE):
            await stuck.wait()
        await rooms.restart()
        await rooms.are_back(of=rooms.names - {"room:3", "room:4"})
        outcomes = await page.run("return Promise.all(left)")
        assert [each.get("code", "DISCONNECTED") for each in outcomes] == ["DISCONNECTED"] * 2
        assert page.errors == []


def with_own_handlers_but_leave(site: Site, stuck: asyncio.Event) -> None:
    """A `leave` that is never answered."""
    with_own_handlers_join(site)

    @site.broker.on("leave", concurrent=True)
    async def leave() -> None:
        stuck.set()
        await asyncio.Event().wait()


def with_own_handlers_join(site: Site) -> None:
    @site.broker.on("join")
    async def join(data: dict[str, str], client: Any) -> dict[str, str]:
        await site.broker.join_room(client.id, data["room"])
        site.write("joined", client, data["room"])
        return {"room": data["room"]}


async def test_a_room_that_is_joined_anew_while_it_is_being_left_is_joined_once(tmp_path: Path) -> None:
    async with site_of(rate_limit=1000) as site, node_page(tmp_path) as page:
        rooms = Rooms(site, page, 20)
        await rooms.begin()
        site.authorize = never
        await page.run(
            """
            globalThis.pending = [outcome(ws.leave("room:3")), outcome(ws.leave("room:4")), outcome(ws.join("room:3"))];
            ws.on("status", (status) => {  // while it is away
                if (status === "waiting") pending.push(outcome(ws.leave("room:5")), outcome(ws.join("room:5")));
            });
            """
        )
        await site.hears("leave", 2, within=PATIENCE)
        site.authorize = always
        await rooms.restart()
        await page.run("await until(() => ws.status === 'open' && ws.rooms.length === 19); return Promise.all(pending)")
        await eventually(lambda: set(site.broker.get_rooms()) == rooms.names - {"room:4"})
        again = Counter((entry.client, entry.data) for entry in site.heard("joined"))
        assert set(again.values()) == {1}
        assert page.errors == []


async def never(room: str) -> bool:
    await asyncio.Event().wait()
    return True


async def always(room: str) -> bool:
    return True


@pytest.mark.parametrize("sockets", ["undici", "ws"])
async def test_an_attempt_that_fails_is_known_to_have_failed_at_once(sockets: Sockets, tmp_path: Path) -> None:
    async with node_page(tmp_path, sockets) as page:
        script = """
            const ws = connect(argument, { connectTimeout: 600_000, baseDelay: 600_000 });
            const heard = await new Promise((next) => ws.on("status", (status, { code }) => next([status, code])));
            ws.close();
            return heard;
        """
        assert await page.run(script, f"http://127.0.0.1:{kept_port()}/ws") == ["waiting", 1006]
        assert page.errors == []


async def test_an_attempt_that_is_given_up_leaves_nothing_uncaught(tmp_path: Path) -> None:
    """The sockets of the package ws throw what nobody listens to."""
    with listen("127.0.0.1", 0) as mute:
        async with node_page(tmp_path, "ws") as page:
            script = """
                const ws = connect(argument, { connectTimeout: 50, baseDelay: 1 });
                const reasons = [];
                ws.on("status", (status, { reason }) => status === "waiting" && reasons.push(reason));
                await until(() => reasons.length === 2);
                ws.close();
                return reasons;
            """
            url = f"ws://127.0.0.1:{mute.getsockname()[1]}/ws"
            assert await page.run(script, url) == ["connecting took too long"] * 2
            assert await page.run("return 1") == 1
            assert page.errors == []


async def test_a_hidden_page_comes_back_by_itself(browser: Chromium, say: Callable[[str], None]) -> None:
    async with site_of(rate_limit=1000) as site, browser.profile() as profile:
        tab = await profile.tab(site.address.http + "/")
        rooms = Rooms(site, tab, 50)
        await rooms.begin({})
        await profile.tab()
        assert await tab.evaluate("document.visibilityState") == "hidden"
        began = asyncio.get_running_loop().time()
        await rooms.restart()
        await rooms.are_back()
        say(f"a hidden page is back {asyncio.get_running_loop().time() - began:.1f} s after the restart began")
        assert tab.errors == []


@pytest.mark.parametrize("departure", ["left", "frozen"])
async def test_a_page_comes_back_to_a_server_that_has_restarted_meanwhile(departure: str, browser: Chromium) -> None:
    async with site_of(rate_limit=1000) as site, browser.profile() as profile:
        tab = await profile.tab(site.address.http + "/")
        rooms = Rooms(site, tab, 50)
        await rooms.begin({"baseDelay": 600_000, "maxDelay": 600_000})
        await tab.evaluate("Math.random = () => 0.9")
        if departure == "left":
            await tab.goto(site.address.http + "/elsewhere")
        else:
            await tab.freeze()
        await site.hears("disconnect", 1, within=PATIENCE)
        await rooms.restart()
        await (tab.back() if departure == "left" else tab.resume())
        await rooms.are_back()
        assert tab.errors == []
