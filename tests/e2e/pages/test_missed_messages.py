"""Pages lose nothing: over cuts, restarts, the back button, slow reading, and while they load a state."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually, settings
from tests.support.dead_network import network
from tests.support.jetstream import storing
from tests.support.node import node_page
from tests.support.nodes import KINDS, engine_url
from tests.support.sites import Site, site_of
from tests.support.tabs import Chromium
from velocity_ws import Broker, Client, History, Server

# The timeout leaves room for the installation of a browser.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

MINE = ("room:1", "room:2", "both")
"""What the page joins."""
ROOMS = (*MINE, "all")
"""And what the server puts it into; it does into `both`, too."""
BEGIN = """
    globalThis.heard = {};
    globalThis.answers = [];
    globalThis.lost = [];
    const urls = argument.urls ?? ["/ws"];
    globalThis.ws = connect(() => (urls.push(urls[0]), urls.shift()), { baseDelay: 5, maxDelay: 50 });
    ws.on("said", (data, { room }) => (heard[room] ??= []).push(data));
    ws.on("joined", (room, answer) => answers.push(answer));
    ws.on("resync", (...args) => lost.push(args));
    await Promise.all(argument.rooms.map((room) => ws.join(room)));
    await until(() => answers.some(({ room }) => room === "all"));
    await ws.request("echo");
"""
HEARD = """
    await until(() => argument.rooms.every((room) => heard[room]?.length >= argument.count));
    while ((await outcome(ws.request("echo"))).code) await new Promise((resolve) => setTimeout(resolve, 20));
    return { heard, lost };
"""


def serve_rooms(broker: Broker) -> None:
    history = History(size=1000, max_bytes="64MiB")
    broker.rooms("room:{name}", history=history).authorize(lambda name: True)
    broker.rooms("both", history=history).authorize(lambda: True)
    broker.rooms("all", history=history)

    @broker.on_connect
    async def put_in(client: Client) -> None:
        await broker.join_room(client.id, "all")
        await broker.join_room(client.id, "both")


def on_site(site: Site) -> None:
    serve_rooms(site.broker)


class Speaker:
    """Says numbers in all rooms, one after the other, and so knows what a page must have heard."""

    def __init__(self) -> None:
        self.count = 0

    async def say(self, broker: Broker, times: int) -> None:
        for _ in range(times):
            for room in ROOMS:
                await broker.to_room(room).send("said", self.count)
            self.count += 1

    async def check(self, run: Callable[..., Any]) -> None:
        """The page has heard each number in each room, once and in order, and was told of no loss."""
        seen = await run(HEARD, {"rooms": ROOMS, "count": self.count})
        assert seen == {"heard": {room: list(range(self.count)) for room in ROOMS}, "lost": []}


async def test_cuts_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    speaker = Speaker()
    async with (
        site_of(on_site, allowed_origins="*", rate_limit=0) as site,
        network(site.address.port) as way,
        node_page(tmp_path) as page,
    ):
        await page.run(BEGIN, {"urls": [f"http://127.0.0.1:{way.port}/ws"], "rooms": MINE})
        draw = random.Random(7)
        for _ in range(12):
            await speaker.say(site.broker, draw.randrange(20))
            way.cut()
            accepted = way.accepted
            await speaker.say(site.broker, draw.randrange(20))
            await eventually(lambda known=accepted: way.accepted > known)  # type: ignore[misc]
        await speaker.check(page.run)
        assert page.errors == []


async def test_what_a_page_has_said_itself_does_not_come_back_to_it(tmp_path: Path) -> None:
    async with (
        site_of(on_site, allowed_origins="*", rate_limit=0) as site,
        network(site.address.port) as way,
        node_page(tmp_path) as page,
    ):

        @site.broker.on("say")
        async def say_to_others(client: Client, data: int) -> None:
            for room in ROOMS:
                await site.broker.to_room(room).except_(client.id).send("said", data)

        await page.run(BEGIN, {"urls": [f"http://127.0.0.1:{way.port}/ws"], "rooms": MINE})
        for turn in range(3):  # what was said on any of its connections
            await page.run("await ws.request('say', -1)")
            await page.run(
                "globalThis.gone = new Promise((next) => ws.on('status', (status) => status === 'waiting' && next()))"
            )
            way.cut()
            await page.run("await gone; await until(() => ws.joined.length === 3)")
            for room in ROOMS:
                await site.broker.to_room(room).send("said", turn)
        assert await page.run(HEARD, {"rooms": ROOMS, "count": 3}) == {
            "heard": {room: [0, 1, 2] for room in ROOMS},
            "lost": [],
        }


@asynccontextmanager
async def storing_engine(kind: str, directory: Path) -> AsyncIterator[str]:
    """The URL of an engine that keeps logs."""
    if kind == "nats":
        async with storing(directory) as server:
            yield server.url
    else:
        async with engine_url(kind) as url:
            yield url


@pytest.mark.parametrize("kind", KINDS)
async def test_a_page_goes_on_at_another_node_while_its_own_restarts(kind: str, tmp_path: Path) -> None:
    speaker = Speaker()
    async with storing_engine(kind, tmp_path) as url, node_page(tmp_path) as page:

        def make() -> Broker:
            broker = Broker(
                settings(backplane_url=url, allowed_origins="*", rate_limit=0, drain_timeout=0.2), twin=True
            )
            serve_rooms(broker)
            broker.on("echo")(lambda client, data: data)
            return broker

        own, other = make(), make()
        async with Server(own, port=0) as first, Server(other, port=0) as second:
            urls = [f"http://127.0.0.1:{server.port}/ws" for server in (first, second)]
            await page.run(BEGIN, {"urls": urls, "rooms": MINE})
            await speaker.say(other, 20)
            stopping = asyncio.create_task(first.stop())
            await speaker.say(other, 50)
            await stopping
            await speaker.say(other, 20)
            await speaker.check(page.run)
        assert page.errors == []


@pytest.mark.parametrize("departure", ["left", "frozen"])
async def test_a_page_that_returns_gets_what_was_said_meanwhile(departure: str, browser: Chromium) -> None:
    speaker = Speaker()
    async with site_of(on_site, rate_limit=0) as site, browser.profile() as profile:
        tab = await profile.tab(site.address.http + "/")
        await tab.run(BEGIN, {"rooms": MINE})
        for _ in range(2):
            task = asyncio.create_task(speaker.say(site.broker, 20))  # it goes while it hears
            if departure == "left":
                await tab.goto(site.address.http + "/elsewhere")
            else:
                await tab.freeze()
            await task
            await eventually(lambda: site.broker.get_clients() == [])
            await speaker.say(site.broker, 5)
            task = asyncio.create_task(speaker.say(site.broker, 20))  # and it returns while it is spoken to
            await (tab.back() if departure == "left" else tab.resume())
            await task
            await speaker.check(tab.run)
        assert tab.errors == []


async def test_what_was_dropped_for_a_page_comes_in_its_place(tmp_path: Path) -> None:
    """A page that reads nothing for a while, of a server that drops what it has no room for."""
    values: Any = {"slow_client": "drop", "send_queue_size": 64 * 1024, "socket_send_buffer": 4096, "ping_interval": 0}
    count = 0
    async with (
        site_of(on_site, allowed_origins="*", rate_limit=0, **values) as site,
        network(site.address.port) as way,
        node_page(tmp_path) as page,
    ):

        async def say(room: str, size: int = 8000) -> None:
            nonlocal count
            await site.broker.to_room(room).send("said", [count, "x" * size])
            count += 1

        await page.run(BEGIN, {"urls": [f"http://127.0.0.1:{way.port}/ws"], "rooms": MINE})
        await page.run("ws.on('gap', ({ reason }) => lost.push(reason))")
        way.die("down")
        while site.broker.get_stats().dropped < 10:
            await say("room:1")
        way.live(late=True)
        for _ in range(100):
            await say("room:1", 8)  # for which there is room, however slowly the page reads what was large
            await asyncio.sleep(0.002)  # while what was dropped is asked for
        script = """
            await until(() => heard["room:1"].length >= argument || lost.length > 1);
            await ws.request("echo");
            return [lost, heard["room:1"].map(([number]) => number)];
        """
        lost, heard = await page.run(script, count)
        assert lost == ["dropped"]
        assert heard == list(range(count))


# --- anything in any order

PLAY = """
    // Each line of the diary is what the page did, or was told, in one room.
    return Promise.all(argument.games.map(async (steps) => {
        const ws = connect(argument.url, { baseDelay: 1, maxDelay: 5 });
        const diary = [];
        ws.on("said", (data, { room }) => diary.push(["said", room, data]));
        ws.on("joined", (room, { recovered }) => diary.push(["joined", room, recovered ?? null]));
        ws.on("resync", (room, reason) => diary.push(["resync", room, reason]));
        ws.on("status", (status) => diary.push([status, "", 0]));
        ws.on("gap", ({ room, reason }) => diary.push(["gap", room, reason]));
        for (const [what, room, pause] of steps) {
            if (what === "join" && !ws.rooms.includes(room)) {
                diary.push(["join", room, null]);
                ws.join(room);
            } else if (what === "leave" && ws.rooms.includes(room)) {
                diary.push(["leave", room, null]);
                ws.leave(room).finally(() => diary.push(["left", room, null]));
            } else if (what === "cut") {
                ws.send("cut");
            }
            await new Promise((resolve) => setTimeout(resolve, pause));
        }
        let last;
        while (last === undefined) last = (await outcome(ws.request("spoken", null, { timeout: 30_000 }))).value;
        const all = () => ["all", ...ws.rooms].every((room) => (
            diary.findLast(([what, where]) => what === "said" && where === room)?.[2] >= last
        ));
        const due = performance.now() + 20_000;
        await until(() => all() || performance.now() > due);
        const rooms = ["all", ...ws.rooms];
        ws.close();
        return { diary, rooms, last };
    }));
"""


def game(seed: int) -> list[tuple[str, str, float]]:
    """Steps of a game: what, in which room, and how many ms until the next."""
    draw = random.Random(seed)
    kinds = ["join"] * 5 + ["leave"] * 2 + ["cut"] * 2
    return [(draw.choice(kinds), draw.choice(MINE), draw.choice((0, 0, 1, 5, 20))) for _ in range(60)]


def check_diary(diary: list[tuple[str, str, Any]], room: str) -> int | None:
    """From each first message in a room to the last before it was left, none is missing, and none is there twice."""
    last: int | None = None
    is_in = room == "all"
    leaving = 0
    for number, (what, where, data) in enumerate(diary):
        if where != room:
            continue
        context = " ".join(
            [f"{before}:{value}" for before, there, value in diary[: number + 1] if there in (room, "")][-60:]
        )
        if what == "leave":
            is_in, last = False, None
            leaving += 1
        elif what == "left":
            leaving -= 1
        elif leaving and room == "both":
            continue  # what the server has said by itself, before it heard of that
        elif what == "joined":
            # The server puts it into `both` all the time, and a leave that was not sent yet is undone by a join.
            assert is_in or data is None or room == "both", context
            is_in = True
        elif what == "said" and is_in:
            assert last is None or data == last + 1, context
            last = data
        elif what == "resync" and last is None:
            continue  # a first connection that was cut before anything came: not recovered, but told
        else:
            assert what in ("join", "said"), context
    return last


@pytest.mark.parametrize(
    "seeds",
    [range(40), pytest.param(range(40, 440), marks=[pytest.mark.soak, pytest.mark.timeout(1800)])],
    ids=["some", "many"],
)
async def test_joins_leaves_and_cuts_in_any_order_lose_nothing(seeds: range, tmp_path: Path) -> None:
    async with (
        site_of(on_site, allowed_origins="*", rate_limit=0) as site,
        network(site.address.port) as way,
        node_page(tmp_path) as page,
    ):
        spoken = asyncio.Event()
        last = 0

        @site.broker.on("cut")
        async def cut(client: Client) -> None:
            await client.disconnect(1012)

        @site.broker.on("spoken", concurrent=True)
        async def wait_spoken() -> int:
            await spoken.wait()
            return last

        for start in seeds[::40]:
            games = [game(seed) for seed in range(start, min(start + 40, seeds.stop))]
            spoken.clear()
            url = f"http://127.0.0.1:{way.port}/ws"
            playing = asyncio.create_task(page.run(PLAY, {"url": url, "games": games}, within=60))
            until = last + 150
            while not playing.done():
                for room in ROOMS:
                    await site.broker.to_room(room).send("said", last + 1)
                last += 1
                if last > until:
                    spoken.set()
                elif last % 20 == 19:
                    way.cut()
                await asyncio.sleep(0.003)  # between two messages
            for end in await playing:
                for room in ROOMS:
                    heard = check_diary(end["diary"], room)
                    assert room not in end["rooms"] or (heard and heard >= end["last"]), end["rooms"]
        assert page.errors == []


# --- a state that is loaded while it changes

FOLLOW = """
    const ws = connect(argument.url, { baseDelay: 5, maxDelay: 50 });
    const shown = {};
    ws.on("changed", (value, { room }) => shown[room].push(value));
    const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const follow = async (room, wait) => {
        await pause(wait);
        shown[room] ??= [];
        // A load that is cut fails the join, and the page does it again.
        const state = async () => shown[room].push(await ws.request("load", room));
        while ((await outcome(ws.join(room, { state }))).code) await pause(1);
    };
    await Promise.all(Object.entries(argument.waits).map((each) => follow(...each)));
    while ((await outcome(ws.request("written", null, { timeout: 20_000 }))).code) await pause(1);
    for (let same = 0, before = ""; same < 2; ) {  // everything that was on its way has come
        await Promise.all(ws.rooms.map((room) => outcome(ws.request("load", room))));
        const now = JSON.stringify(shown);
        same = now === before ? same + 1 : 0;
        before = now;
    }
    ws.close();
    return shown;
"""


class Values:
    """Values that are written, said and loaded, with pauses at random between the steps."""

    def __init__(self, broker: Broker, seeds: range) -> None:
        self.broker = broker
        self.draws = {f"room:{seed}": random.Random(seed) for seed in seeds}
        self.stored = dict.fromkeys(self.draws, 0)

        @broker.on("load", concurrent=True)
        async def load(data: str) -> int:
            await self.pause(data)
            value = self.stored[data]
            await self.pause(data)
            return value

        @broker.on("written", concurrent=True)
        async def written() -> None:
            await self.task

        self.task = asyncio.create_task(self.write_all())

    async def pause(self, room: str) -> None:
        """Let others come between: for some turns of the loop, or a few milliseconds."""
        draw = self.draws[room]
        if draw.random() < 0.3:
            await asyncio.sleep(draw.random() * 0.02)
        for _ in range(draw.randrange(4)):
            await asyncio.sleep(0)

    async def write_all(self) -> None:
        async with asyncio.TaskGroup() as writers:
            for room in self.draws:
                writers.create_task(self.write(room))

    async def write(self, room: str) -> None:
        for value in range(1, 31):
            await self.pause(room)
            self.stored[room] = value
            await self.pause(room)
            await self.broker.to_room(room).send("changed", value)


@pytest.mark.parametrize("cuts", [False, True], ids=["", "cut"])
async def test_a_state_that_changes_while_it_is_loaded_is_never_an_older_one_in_the_end(
    cuts: bool, tmp_path: Path
) -> None:
    """100 rooms, each with an order of its own in which is written, said, joined and loaded."""
    values: list[Values] = []
    seeds = range(100)

    async with (
        site_of(on_site, allowed_origins="*", rate_limit=0, max_rooms_per_client=0) as site,
        network(site.address.port) as way,
        node_page(tmp_path) as page,
    ):
        values.append(Values(site.broker, seeds))
        waits = {f"room:{seed}": random.Random(seed).random() * 200 for seed in seeds}
        script = page.run(FOLLOW, {"url": f"http://127.0.0.1:{way.port}/ws", "waits": waits})
        following = asyncio.create_task(script)
        while cuts and not values[0].task.done():
            await asyncio.sleep(0.1)  # between two cuts
            way.cut()
        shown = await following
        assert {room: heard[-1] for room, heard in shown.items()} == dict.fromkeys(waits, 30)
        assert page.errors == []
