"""What it costs that clients come, one after the other and all after a restart, and what a model costs.

The server has a core to itself; those that come, and those that talk meanwhile, are two programs on the others.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from statistics import median

from benchmarks import scenarios
from benchmarks.connections.sizes import Sizes
from benchmarks.contestants import Contestant
from benchmarks.process import Child
from benchmarks.scenarios import Figures, Run, cost

__all__ = [
    "ANNOTATIONS",
    "BY_HAND",
    "CONTESTANTS",
    "CPU",
    "LOAD",
    "OTHERS",
    "OURS",
    "PEERS",
    "STORM",
    "enter",
    "models",
    "storm",
    "until_connected",
]  # fmt: skip

LOAD = [sys.executable, "-m", "benchmarks.connections.load"]
ROOMS = 100
"""Rooms over which clients that come are spread."""
CPU = "CPU, µs"
STORM = "CPU, µs a client"
OTHERS, MOST = "p99 of others' echo, ms", "longest, ms"


def _contestant(name: str, module: str, *options: str) -> Contestant:
    return Contestant(name, name, (sys.executable, "-m", f"benchmarks.servers.{module}", *options))


OURS = _contestant("velocity-ws", "entering")
WITH_HTTP = _contestant("velocity-ws, uvicorn's HTTP class", "entering", "--http")
BY_HAND = _contestant("Starlette, by hand", "entering_by_hand")
WITHOUT_GC = _contestant("Starlette, by hand, no garbage collected", "entering_by_hand", "--no-gc")
CONTESTANTS = {each.name: each for each in (OURS, WITH_HTTP, BY_HAND, WITHOUT_GC)}
PEERS = {BY_HAND.name, WITHOUT_GC.name}
"""Those that are not ours."""
ANNOTATIONS = {
    each.name: each
    for each in (_contestant("TypedDict", "validating"), _contestant("pydantic model", "validating", "--model"))
}


async def until_connected(server: Child, clients: int) -> None:
    """Wait until a server knows of so many clients."""
    async with asyncio.timeout(20):
        while (await server.ask("status"))["connected"] != clients:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)


async def enter(names: Sequence[str], sizes: Sizes) -> dict[str, Figures]:
    """What a client costs that comes, gets its welcome, and goes."""
    (name,) = names
    async with Child(CONTESTANTS[name].command, server=True) as server, Child(LOAD, server=False) as load:
        arguments = {"port": server.hello["port"], "at_once": sizes.at_once, "rooms": ROOMS}
        await load.ask("visit", count=sizes.visits // 10, **arguments)
        await until_connected(server, 0)
        before = server.usage()
        done = await load.ask("visit", count=sizes.visits, **arguments)
        await until_connected(server, 0)
        values = cost(before, server.usage(), sizes.visits)
    return {name: Figures(values, done["deliveries"], done["faults"], done["busy"])}


async def storm(names: Sequence[str], sizes: Sizes) -> dict[str, Figures]:
    """What clients cost that come at a pace, whatever the server does, and what others notice of it."""
    (name,) = names
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Child(CONTESTANTS[name].command, server=True))
        load, others = [await stack.enter_async_context(Child(LOAD, server=False)) for _ in range(2)]
        port = server.hello["port"]
        settled = await others.ask("settle", port=port, clients=sizes.others, rooms=ROOMS)
        await others.ask("chatter", every=sizes.every)
        await asyncio.sleep(sizes.calm)
        calm = await others.ask("hush")
        await others.ask("chatter", every=sizes.every)
        before, began = server.usage(), asyncio.get_running_loop().time()
        came = await load.ask("storm", port=port, count=sizes.storm, seconds=sizes.seconds, rooms=ROOMS)
        used, took = server.usage().total - before.total, asyncio.get_running_loop().time() - began
        heard = await others.ask("hush")
    values = {
        STORM: used / sizes.storm * 1e6,
        "server busy, %": used / took * 100,
        OTHERS: heard["p99"],
        MOST: heard["most"],
        "p99 before, ms": calm["p99"],
        "p99 of welcomes, ms": came["p99"],
        "welcomes after 1 s": came["late"],
        "no welcome": came["faults"],
    }
    every = (settled, calm, came, heard)
    faults = sum([each["faults"] for each in every])
    return {name: Figures(values, sum([e["deliveries"] for e in every]), faults, came["busy"], came["late_starts"])}


async def models(names: Sequence[str], sizes: Sizes) -> dict[str, Figures]:
    """What an echo costs, by the annotation that its handler has; servers take turns."""
    wanted = dataclasses.replace(scenarios.QUICK, echo_clients=sizes.echo_clients, echoes=sizes.echoes)
    found: dict[str, list[Figures]] = {name: [] for name in names}
    async with AsyncExitStack() as stack:
        runs = {}
        for name in names:
            server = await stack.enter_async_context(Child(ANNOTATIONS[name].command, server=True))
            load = await stack.enter_async_context(Child([sys.executable, "-m", "benchmarks.load"], server=False))
            runs[name] = Run(ANNOTATIONS[name], server, load, wanted, deflate=False)
        for turn in range(sizes.turns + 1):
            for name, run in runs.items():
                figures = await scenarios.echo(run)
                if turn:
                    found[name].append(figures)
    return {name: summed(_medians(turns), turns) for name, turns in found.items()}


def _medians(turns: Sequence[Figures]) -> dict[str, float]:
    return {column: median([figures.values[column] for figures in turns]) for column in turns[0].values}


def summed(values: dict[str, float], every: Sequence[Figures]) -> Figures:
    """One measurement of several: these values, and what was counted in all of them."""
    return Figures(
        values,
        sum([figures.deliveries for figures in every]),
        sum([figures.faults for figures in every]),
        max([figures.busy for figures in every]),
        sum([figures.late for figures in every]),
    )
