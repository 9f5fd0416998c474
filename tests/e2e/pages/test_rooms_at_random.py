"""Joins and leaves in any order, with losses and refusals between them: the page and the server agree in the end."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.support import settings
from tests.support.node import NodePage, node_page
from velocity_ws import Broker, Client, Server

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

ROOMS = ("a", "b", "c")
STEPS = 40

PLAY = """
    // A turn at random between the steps, so that answers and losses come in between.
    const pauses = { none: () => {}, turn: () => new Promise((next) => setImmediate(next)),
        moment: () => new Promise((next) => setTimeout(next, 1)) };
    return Promise.all(argument.games.map(async ({ seed, steps }) => {
        const ws = connect(`${argument.url}?game=${seed}`, { baseDelay: 1, maxDelay: 5 });
        const uses = { a: 0, b: 0, c: 0 };
        const pending = [];
        const asked = { a: 0, b: 0, c: 0, d: 0 };  // joins without an answer
        const out = new Set();  // put out by the server, and not asked for before that was heard, nor since
        ws.on("left", ({ room }) => asked[room] || out.add(room));
        ws.on("error", () => {});
        for (const [what, room, pause] of steps) {
            if (what === "join") {
                uses[room]++;
                asked[room]++;
                out.delete(room);
                pending.push(outcome(ws.join(room)).finally(() => asked[room]--));
            } else if (what === "leave") {
                uses[room] = Math.max(0, uses[room] - 1);
                pending.push(outcome(ws.leave(room)));
            } else if (what === "forgotten") {  // nobody waits for the end of it
                ws.join("d");
                ws.leave("d");
            } else {
                ws.send(what, room);
            }
            await pauses[pause]();
        }
        await Promise.all(pending);
        const wanted = Object.keys(uses).filter((room) => uses[room] > 0).sort();
        const settle = async () => {
            for (;;) {
                const { code } = await outcome(ws.request("rooms", null, { timeout: 20_000 }));
                if (!code && ws.status === "open" && !ws.queued) break;
                await new Promise((next) => setTimeout(next, 5));
            }
            let rooms;
            const same = (one, two) => JSON.stringify(one) === JSON.stringify(two);
            const until = performance.now() + 20_000;
            do {
                rooms = (await outcome(ws.request("rooms"))).value;
            } while (!same(rooms, [...ws.rooms].sort()) && performance.now() < until);
            return [rooms, [...ws.rooms].sort()];
        };
        const first = await settle();
        ws.send("cut");  // and once more
        await new Promise((next) => { const off = ws.on("status", (status) => status === "open" && next(off())); });
        const second = await settle();
        ws.close();
        return { seed, first, second, wanted, out: [...out] };
    }));
"""


def play(seed: int, *, is_put_out: bool) -> list[tuple[str, str, str]]:
    """Steps of a game: what, in which room, and how long until the next."""
    draw = random.Random(seed)
    kinds = ["join"] * 5 + ["forgotten"] + ["leave"] * 5 + ["cut"] + (["put_out"] * 2 if is_put_out else [])
    pauses = draw.choice([["none"], ["none", "turn"], ["none", "turn", "moment"], ["moment"]])
    return [(draw.choice(kinds), draw.choice(ROOMS), draw.choice(pauses)) for _ in range(STEPS)]


class Games:
    """A server on which games are played, each on a connection of its own."""

    def __init__(self, broker: Broker, server: Server, page: NodePage) -> None:
        self.broker = broker
        self.server = server
        self.page = page

    async def play(self, seeds: range, *, is_put_out: bool) -> list[dict[str, Any]]:
        """Play games at once; how they ended."""
        games = [{"seed": seed, "steps": play(seed, is_put_out=is_put_out)} for seed in seeds]
        url = f"http://127.0.0.1:{self.server.port}/ws"
        ends: list[dict[str, Any]] = await self.page.run(PLAY, {"url": url, "games": games}, within=60)
        return ends


def broker_of_games() -> Broker:
    broker = Broker(settings(allowed_origins="*", rate_limit=0, drain_timeout=0.2))
    kind = broker.rooms("{name}")
    barred: set[tuple[str, str]] = set()

    @broker.authenticate
    async def authenticate(request: Any) -> str:
        return str(request.query_params["game"])

    @kind.authorize
    async def may_enter(client: Client, name: str) -> bool:
        return (str(client.user_id), name) not in barred

    @broker.on("put_out", concurrent=True)
    async def put_out(client: Client, data: str) -> None:
        barred.add((str(client.user_id), data))
        await broker.reauthorize(room=data, user_id=client.user_id)
        barred.discard((str(client.user_id), data))

    @broker.on("cut")
    async def cut(client: Client) -> None:
        await client.disconnect(1012)

    @broker.on("rooms")
    async def rooms(client: Client) -> list[str]:
        return sorted(room for room in broker.get_rooms() if client in broker.get_room_clients(room))

    return broker


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 2060), marks=pytest.mark.soak)], ids=["some", "many"]
)
@pytest.mark.parametrize("is_put_out", [False, True], ids=["", "put out"])
async def test_page_and_server_agree_on_the_rooms(seeds: range, is_put_out: bool, tmp_path: Path) -> None:
    broker = broker_of_games()
    async with Server(broker, port=0) as server, node_page(tmp_path) as page:
        games = Games(broker, server, page)
        for start in seeds[::60]:
            some = range(start, min(start + 60, seeds.stop))
            for end in await games.play(some, is_put_out=is_put_out):
                there, here = end["first"]
                assert there == here, end
                assert is_put_out or here == end["wanted"], end
                assert not set(here) & set(end["out"]), end
                assert end["second"] == [here, here], end
        assert page.errors == []
