"""The network between nodes and engine swallows everything, and nobody is told: what does not come back is noticed."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from tests.cluster.ledger import Ledger, Voice
from tests.cluster.proxy import proxy
from tests.cluster.workers import Member, everything_has_come, person, workers
from tests.engines import engine
from tests.hostile.conftest import Say

KINDS = ("nats", "valkey")
DEADLINE = 1.0
"""WS_BACKPLANE_TIMEOUT by default."""


async def becomes(member: Member, *, healthy: bool) -> float:
    """Wait until a node says so; when it did."""
    async with asyncio.timeout(30):
        while (await member.request("stats"))["healthy"] is not healthy:
            await asyncio.sleep(0.02)
    return time.monotonic()


async def hears(member: Member, sender: str, number: int) -> float:
    """Wait until somebody has a message of a sender, or a later one; when it came."""
    async with asyncio.timeout(30):
        while member.got.get(sender, [-1])[-1] < number:
            await asyncio.sleep(0.005)
    return time.monotonic()


def percentile(seconds: list[float], part: float) -> float:
    """In milliseconds."""
    return 1000 * sorted(seconds)[int(len(seconds) * part)]


async def the_network_is_a_black_hole(kind: str, before: float, hole: float, say: Say) -> None:
    async with engine(kind) as server, proxy(server.port) as way, AsyncExitStack() as stack:
        url = f"{kind}://127.0.0.1:{way.port}"
        ports = [await stack.enter_async_context(workers(1, url, WS_NODE_LEASE="3s")) for _ in range(2)]
        people = [await stack.enter_async_context(person(port, "x")) for port in ports]
        others = [await stack.enter_async_context(person(port, "elsewhere")) for port in ports]
        nodes = [member.node for member in people]
        for member in others:
            await member.request("talk", "x")
        for member in people:
            await asyncio.gather(*[hears(member, node, 0) for node in nodes])
        await asyncio.sleep(before)
        alone = [len(member.late[member.node]) for member in people]

        way.swallow()
        began = time.monotonic()
        red = [at - began for at in await asyncio.gather(*[becomes(member, healthy=False) for member in others])]
        await asyncio.sleep(max(0.0, began + hole - time.monotonic()))
        meanwhile = [len(member.late[member.node]) for member in people]

        way.carry()
        began = time.monotonic()
        green = [at - began for at in await asyncio.gather(*[becomes(member, healthy=True) for member in others])]
        marks = [member.got[member.node][-1] + 1 for member in people]
        flows = [
            at - began
            for at in await asyncio.gather(
                hears(people[0], nodes[1], marks[1]),
                hears(people[1], nodes[0], marks[0]),
            )
        ]

        ledger, longest, lag = Ledger(), 0.0, 0.0
        for member in others:
            outcomes, slowest, late = await member.request("hush")
            voice = ledger.voices[member.node] = Voice(member.node)
            voice.said = [("x", outcome) for outcome in outcomes]
            longest, lag = max(longest, slowest), max(lag, late)
        await everything_has_come(people)
        lost = await ledger.adds_up(people)

        calm = [late for member, at in zip(people, alone, strict=True) for late in member.late[member.node][:at]]
        spans = zip(people, alone, meanwhile, strict=True)
        dark = [late for member, at, end in spans for late in member.late[member.node][at:end]]
        say(
            f"{kind}, a black hole for {hole:g} s: unhealthy after {max(red):.2f} s, slowest publish {longest:.3f} s "
            f"(a loop was late by {lag:.3f} s at most), healthy {max(green):.2f} s and heard {max(flows):.2f} s after "
            f"its end; {dict(ledger.outcomes())}, {lost} lost and counted; on the same node p50 / p99 "
            f"{percentile(calm, 0.5):.2f} / {percentile(calm, 0.99):.2f} ms before, "
            f"{percentile(dark, 0.5):.2f} / {percentile(dark, 0.99):.2f} ms meanwhile ({len(dark)} messages)"
        )
        assert max(red) < 3 + lag
        assert longest < DEADLINE + 0.2 + lag
        assert len(dark) > hole * 20
        assert percentile(dark, 0.99) < 1000 * (0.2 + lag), "it waited for the engine"
        assert max(flows) < 5 + lag


@pytest.mark.parametrize("kind", KINDS)
async def test_a_black_hole_is_noticed_and_nobody_waits_for_it(kind: str, say: Say) -> None:
    await the_network_is_a_black_hole(kind, 0.2, 0, say)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
async def test_a_black_hole_for_20_s(kind: str, say: Say) -> None:
    await the_network_is_a_black_hole(kind, 20, 20, say)
