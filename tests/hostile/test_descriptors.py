"""File descriptors: as many as the settings need, and those who are there are served when there are none left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake

from tests.support import DEADLINE
from tests.support.command import command
from tests.support.say import Say
from tests.support.siege import Program, besieged, excused, started

FEW = 48
"""Descriptors of a server that is to run out of them."""
LOOPS = ["asyncio", "uvloop"]
HTTP = "velocity_ws.uvicorn:HTTPProtocol"


async def test_the_soft_limit_is_raised_to_what_the_connections_need() -> None:
    for connections, limits, expected in [(1000, [200, 2000], 1064), (1000, [1500, 2000], 1500), (0, [200, 900], 900)]:
        async with besieged(max_connections=connections, descriptors=limits) as server:
            assert (await server.ask())["descriptors"] == [expected, limits[1]]
        assert server.log == []


async def test_where_the_limit_may_not_be_raised_it_is_said_at_start() -> None:
    async with besieged(max_connections=1000, descriptors=[200, 500]) as server:
        assert (await server.ask())["descriptors"] == [500, 500]
    (line,) = server.log
    for text in ("WARNING", "WS_MAX_CONNECTIONS is 1000", "500 files", "to 1064", "to 436"):
        assert text in line


async def crowd(port: int, victim: Program, seconds: float) -> dict[str, float]:
    """Three times as many connections as there can be, for so long, and then none; what a victim saw meanwhile."""
    victim.tell("begin")
    with contextlib.ExitStack() as stack:
        for _ in range(3 * FEW):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            assert sock.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
        await asyncio.sleep(seconds)  # what is measured is how the victim fares in this time
    victim.tell("end")
    saw: dict[str, float] = await victim.answer(within=30)
    return saw


async def until_it_is_good_again(port: int) -> None:
    """Wait until a client can connect."""
    async with asyncio.timeout(DEADLINE):
        while True:
            with contextlib.suppress(OSError, InvalidHandshake):
                async with connect(f"ws://127.0.0.1:{port}/ws", proxy=None, open_timeout=2):
                    return
            await asyncio.sleep(0.05)  # the pause between two attempts, not the wait


@pytest.mark.parametrize("loop", LOOPS)
async def test_when_descriptors_run_out_one_line_says_so_and_others_are_served(loop: str, say: Say) -> None:
    async with besieged(max_connections=0, handshake_timeout=30, descriptors=[FEW, FEW], loop=loop) as server:
        async with started("victim", server.port) as victim:
            waited = (await server.ask())["waited"]
            saw = await crowd(server.port, victim, 2)
            waited = (await server.ask())["waited"] - waited + saw["waited"]
        await until_it_is_good_again(server.port)
    said = server.log
    say(f"{loop}: victim p50 {saw['p50']} p99 {saw['p99']} max {saw['max']} ms, {len(said)} lines")
    assert len(said) == 1
    assert "no further connection can be taken" in said[0]
    assert saw["missing"] == 0
    assert saw["echoes"] > 40
    assert saw["p99"] < 60 + excused(waited, 1000)


@pytest.mark.parametrize("loop", LOOPS)
async def test_under_the_uvicorn_command_too(loop: str, say: Say) -> None:
    async with command("--loop", loop, "--http", HTTP, descriptors=FEW) as served:
        async with started("victim", served.port) as victim:
            await crowd(served.port, victim, 2)  # once a second asyncio itself tries 2,048 times
        await until_it_is_good_again(served.port)
    say(f"{loop}: {len(served.log)} lines")
    assert len(served.log) < 40
    assert sum("no further connection can be taken" in line for line in served.log) == 1
    assert sum("WS_MAX_CONNECTIONS is 10000" in line for line in served.log) == 1


async def test_a_limit_that_the_first_connection_raises_holds_for_the_next() -> None:
    options = ("--lifespan", "off", "--http", HTTP)  # as in a sub-application: the first connection starts the broker
    async with command(*options, workers=0, descriptors=f"{FEW}:1000") as served:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2 * FEW):
                await stack.enter_async_context(served.connect("/ws"))
    assert not [line for line in served.log if "no further connection" in line]
