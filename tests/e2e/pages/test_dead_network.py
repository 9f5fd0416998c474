"""A network that dies under a page without a word: how soon it notices, what it tells, and that nothing comes twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support import eventually
from tests.support.client_scripts import PATIENCE, Page, impatient
from tests.support.dead_network import Direction, Network, network
from tests.support.node import node_page
from tests.support.sites import Site, site_of
from tests.support.tabs import Chromium, Profile, Tab

# The timeout leaves room for the installation of a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

Where = Literal["chromium", "ws", "undici"]

PONG_TIMEOUT = 400
QUICK = {"livenessTimeout": 400, "connectTimeout": 500, "baseDelay": 20, "maxDelay": 100}
"""What a page is told in ms, so that it notices within a second or two."""

BEGIN = """
    globalThis.ws = connect(argument.url, argument.options);
    globalThis.seen = { sent: 0, unconfirmed: [], count: 0, opens: 0, losses: 0, ticks: [], joined: 0 };
    ws.on("status", (status, { unconfirmed, unconfirmedCount }) => {
        seen.opens += status === "open";
        seen.losses += status === "waiting";
        if (unconfirmed) seen.unconfirmed.push(...unconfirmed);
        seen.count += unconfirmedCount ?? 0;
    });
    ws.on("tick", (number) => seen.ticks.push(number));
    ws.on("joined", () => seen.joined++);
    await ws.join("room:1");
    await ws.request("echo");
    globalThis.speaks = setInterval(() => { if (ws.send("note", seen.sent)) seen.sent++; }, 10);
"""
NOTICED = "await until(() => ws.status !== 'open');"
BACK = """
    clearInterval(speaks);
    await until(() => ws.status === "open" && ws.rooms.length && !ws.queued);
    await ws.request("echo");
    ws.close();
    return seen;
"""


@asynccontextmanager
async def page_at(where: Where, port: int, browser: Chromium, directory: Path, client: str) -> AsyncIterator[Page]:
    """A page whose way to its server is that port; nothing is left uncaught in it."""
    if where == "chromium":
        async with browser.profile() as profile:
            tab = await tab_at(profile, port, client)
            yield tab
            assert tab.errors == []
    else:
        async with node_page(directory, where, client=client) as node:
            yield node
            assert node.errors == []


async def tab_at(profile: Profile, port: int, client: str = "") -> Tab:
    tab = await profile.tab(f"http://127.0.0.1:{port}/")
    if client:
        tab.module = "/client.js"
    return tab


class Case:
    """A page that speaks all the time, a network that can die, and a server that is heard or silent."""

    def __init__(self, site: Site, network: Network, page: Page) -> None:
        self.site = site
        self.network = network
        self.page = page
        self.ticks = 0
        self._speaker: asyncio.Task[None] | None = None

    async def begin(self, options: dict[str, Any], *, chatty: bool) -> None:
        """Have the page connect, join and speak; a chatty server speaks, too."""
        url = f"http://127.0.0.1:{self.network.port}/ws"
        await self.page.run(BEGIN, {"url": url, "options": options})
        if chatty:
            self._speaker = asyncio.create_task(self._speak())
        await self.site.hears("note", 5, within=PATIENCE)

    async def _speak(self) -> None:
        while True:
            await self.site.broker.to_room("room:1").send("tick", self.ticks)
            self.ticks += 1
            await asyncio.sleep(0.01)  # between two messages

    async def noticed(self, within: float) -> float:
        """Wait until the page knows that its connection is lost; the seconds that took."""
        clock = asyncio.get_running_loop().time
        began = clock()
        await self.page.run(NOTICED, within=within)
        return clock() - began

    async def end(self) -> dict[str, Any]:
        """Wait until the page is back, and compare what was sent with what came and what was told."""
        seen: dict[str, Any] = await self.page.run(BACK, within=60)
        if self._speaker is not None:
            self._speaker.cancel()
        received = Counter(self.site.notes)
        assert set(received.values()) <= {1}
        lost = set(range(seen["sent"])) - set(received)
        told = [message["data"] for message in seen["unconfirmed"]]
        assert all(message["event"] == "note" for message in seen["unconfirmed"])
        assert len(told) == len(set(told)) == seen["count"] or len(told) < seen["count"]
        assert lost <= set(told) or len(lost) <= seen["count"] > len(told), (sorted(lost), told)
        ticks = seen["ticks"]
        assert ticks == sorted(set(ticks))
        return {**seen, "lost": len(lost), "told": seen["count"]}


@asynccontextmanager
async def case_of(where: Where, browser: Chromium, directory: Path, client: str = "") -> AsyncIterator[Case]:
    async with (
        site_of(client=client, allowed_origins="*", rate_limit=0) as site,
        network(site.address.port) as way,
        page_at(where, way.port, browser, directory, client) as page,
    ):
        yield Case(site, way, page)


@pytest.mark.parametrize(
    ("where", "direction", "late", "chatty"),
    [
        ("chromium", "both", True, False),
        ("chromium", "up", True, True),
        ("ws", "both", False, True),
        ("ws", "up", False, False),
        ("undici", "down", False, True),
        ("undici", "up", True, True),
    ],
)
async def test_it_is_noticed_and_what_may_be_lost_is_told(
    where: Where, direction: Direction, late: bool, chatty: bool, browser: Chromium, tmp_path: Path
) -> None:
    async with case_of(where, browser, tmp_path, impatient(PONG_TIMEOUT)) as case:
        await case.begin(QUICK, chatty=chatty)
        case.network.die(direction)
        await case.noticed(PATIENCE)
        case.network.live(late=late)
        seen = await case.end()
        assert seen["losses"] >= 1
        assert seen["joined"] == seen["opens"] >= 2


@pytest.mark.parametrize("where", ["undici"])
async def test_what_comes_does_not_prove_that_what_was_sent_has_arrived(
    where: Where, browser: Chromium, tmp_path: Path
) -> None:
    async with case_of(where, browser, tmp_path, impatient(PONG_TIMEOUT)) as case:
        await case.begin({**QUICK, "livenessTimeout": 2000}, chatty=True)
        case.network.die("up")
        ticks = case.ticks
        await eventually(lambda: case.ticks > ticks + 10)
        await case.page.run("const ticks = seen.ticks.length; await until(() => seen.ticks.length > ticks + 5)")
        case.network.die("both")
        await case.noticed(PATIENCE)
        case.network.live()
        seen = await case.end()
        assert seen["lost"] > 5


WAKE = """
    ws.on("status", (status) => status === "waiting" && (globalThis.noticed ??= performance.now()));
    globalThis.woken = performance.now();
"""


async def seen_again(case: Case, tab: Tab, other: Tab) -> None:
    await tab.run(WAKE)
    await tab.show()


async def online_again(case: Case, tab: Tab, other: Tab) -> None:
    await tab.run(WAKE + "dispatchEvent(new Event('online'));")


async def request_timed_out(case: Case, tab: Tab, other: Tab) -> None:
    await tab.run(WAKE + "globalThis.asked = outcome(ws.request('note', 'asked', { timeout: 100 }));")


@pytest.mark.parametrize("wake", [seen_again, online_again, request_timed_out])
async def test_what_makes_it_doubt_makes_it_look_at_once(
    wake: Callable[[Case, Tab, Tab], Awaitable[None]], browser: Chromium
) -> None:
    client = impatient(PONG_TIMEOUT)
    async with (
        site_of(client=client, allowed_origins="*", rate_limit=0) as site,
        network(site.address.port) as way,
        browser.profile() as profile,
    ):
        tab = await tab_at(profile, way.port, client)
        case = Case(site, way, tab)
        await case.begin({**QUICK, "livenessTimeout": 60_000}, chatty=False)
        other = await profile.tab()
        if wake is not seen_again:
            await tab.show()
        way.die()
        await wake(case, tab, other)
        await tab.run(NOTICED)
        way.live()
        await case.end()
        assert set(Counter(map(str, site.notes)).values()) == {1}


BLOCKED = """
    const heard = [];
    let pings = 0;
    const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (frame) {
        send.call(this, frame);
        if (!frame.includes("$ping")) return;
        pings++;
        const end = performance.now() + argument.blocked;  // beyond the time in which the answer must have come
        while (performance.now() < end);
    };
    const ws = connect(argument.url, argument.options);
    ws.on("status", (status) => heard.push(status));
    await ws.request("echo", 1);
    await until(() => pings === 3);
    await ws.request("echo", 2);
    ws.close();
    return heard;
"""


@pytest.mark.parametrize("where", ["chromium", "ws"])
async def test_a_page_that_hangs_does_not_take_its_own_pause_for_a_loss(
    where: Where, browser: Chromium, tmp_path: Path
) -> None:
    client = impatient(700)  # and half a second more, in which a server that was held up answers
    async with (
        site_of(client=client, allowed_origins="*") as site,
        page_at(where, site.address.port, browser, tmp_path, client) as page,
    ):
        options = {**QUICK, "livenessTimeout": 50}
        heard = await page.run(BLOCKED, {"url": site.address.http + "/ws", "options": options, "blocked": 740})
        assert heard == ["open", "closed"]
        assert len(site.heard("connect")) == 1


@pytest.mark.soak
@pytest.mark.parametrize("chatty", [False, True])
@pytest.mark.parametrize("direction", ["both", "up", "down"])
async def test_it_is_noticed_within_35_s_by_itself(
    direction: Direction, chatty: bool, browser: Chromium, tmp_path: Path, say: Callable[[str], None]
) -> None:
    async def one(where: Where) -> None:
        (tmp_path / where).mkdir()
        async with case_of(where, browser, tmp_path / where) as case:
            await case.begin({}, chatty=chatty)
            case.network.die(direction)
            seconds = await case.noticed(60)
            case.network.live(late=True)
            seen = await case.end()
            say(f"{where}, {direction}, {chatty=}: {seconds:.1f} s; lost {seen['lost']}, told {seen['told']}")
            assert seconds < 35

    async with asyncio.TaskGroup() as group:
        for where in ("chromium", "ws", "undici"):
            group.create_task(one(where))


@pytest.mark.soak
@pytest.mark.parametrize("wake", [seen_again, online_again])
async def test_it_is_noticed_within_10_s_of_what_makes_it_doubt(
    wake: Callable[[Case, Tab, Tab], Awaitable[None]], browser: Chromium, say: Callable[[str], None]
) -> None:
    async with (
        site_of(allowed_origins="*", rate_limit=0) as site,
        network(site.address.port) as way,
        browser.profile() as profile,
    ):
        tab = await tab_at(profile, way.port)
        case = Case(site, way, tab)
        await case.begin({}, chatty=False)
        other = await profile.tab()
        if wake is not seen_again:
            await tab.show()
        way.die()
        await wake(case, tab, other)
        await tab.run(NOTICED, within=30)
        way.live()
        await case.end()
        seconds = await tab.evaluate("noticed - woken") / 1000
        say(f"{wake.__name__}: {seconds:.1f} s")
        assert seconds < 10
