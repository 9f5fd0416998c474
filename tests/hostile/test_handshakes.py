"""Connections that never become a WebSocket: gone in time, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from typing import Any

import pytest

from tests.support.machine import waited_for_a_processor
from tests.support.say import Say
from tests.support.siege import MEBIBYTE, SLACK, Silent, besieged, excused, started
from tests.support.wire import handshake

BEGINNINGS = (b"", b"G", handshake()[:60], handshake()[:-2])
"""What a silent connection has sent: nothing, or a part of a request."""


async def good(port: int) -> float:
    """Milliseconds that a good client takes to be connected: from its first packet to its handshake's answer."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(handshake())
    head = await reader.readuntil(b"\r\n\r\n")
    took = time.monotonic() - began
    assert b" 101 " in head
    writer.transport.abort()
    return took * 1000


async def silence(count: int, timeout: float) -> dict[str, Any]:
    """So many silent connections, and good ones until they are gone; what was seen."""
    loop = asyncio.get_running_loop()
    async with besieged(handshake_timeout=timeout, max_connections=0) as server:
        state = await server.ask()
        before, waited = state["sockets"], state["waited"] + waited_for_a_processor()
        await good(server.port)
        silent = []
        for number in range(count):
            make = functools.partial(Silent, BEGINNINGS[number % len(BEGINNINGS)], time.monotonic())
            _, protocol = await loop.create_connection(make, "127.0.0.1", server.port)
            silent.append(protocol)
        await server.until(lambda state: bool(state["sockets"] >= count))
        over = asyncio.gather(*[protocol.ended for protocol in silent])
        took: list[float] = []
        while not over.done():
            took.append(await good(server.port))
            await asyncio.wait([over], timeout=0.005)  # the pause between two good clients
        ended = await over
        waited = (await server.ask())["waited"] + waited_for_a_processor() - waited
        await server.until(lambda state: state["sockets"] <= before and not state["sessions"] + state["handshakes"])
    took.sort()
    return {
        "first": min(ended),
        "last": max(ended),
        "good": len(took),
        "p99": took[int(len(took) * 0.99)],
        "max": took[-1],
        "waited": waited,
        "log": server.log,
    }


def check(saw: dict[str, Any], count: int, timeout: float, say: Say) -> None:
    """Say what was seen, and what must hold of it whatever the machine does meanwhile."""
    say(
        f"{count} silent connections: gone after {saw['first']:.2f} to {saw['last']:.2f} s of {timeout:g}; "
        f"{saw['good']} good clients connected in p99 {saw['p99']:.1f} max {saw['max']:.1f} ms"
    )
    assert saw["first"] > timeout * 0.9
    assert saw["log"] == []


async def test_silent_connections_are_gone_in_time(say: Say) -> None:
    saw = await silence(200, 2)
    check(saw, 200, 2, say)
    assert saw["last"] < 2 + SLACK + min(saw["waited"], 3)
    assert saw["p99"] < 200 + excused(saw["waited"], 1000)


@pytest.mark.soak
async def test_two_thousand_silent_connections(say: Say) -> None:
    saw = await silence(2000, 10)
    check(saw, 2000, 10, say)
    assert saw["last"] < 10 + SLACK
    assert saw["p99"] < 100


# --- handshakes whose `authenticate`, a plain function, is slow


async def authenticating(port: int, seconds: float, until: float) -> list[float]:
    """One connection after another whose user takes so long to be known; how long each of them was there."""
    took = []
    while (began := time.monotonic()) < until:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(handshake(f"X-Slow: {seconds}\r\n"))
        with contextlib.suppress(OSError):
            await reader.read()
        took.append(time.monotonic() - began)
        writer.transport.abort()
    return took


async def slow_authentications(count: int, timeout: float, seconds: float, say: Say) -> dict[str, Any]:
    """So many at once, again and again, beside a victim whose handler is a plain function too; what was seen."""
    async with (
        besieged(plain=True, handshake_timeout=timeout, log="ERROR") as server,
        started("victim", server.port) as victim,
    ):
        state = await server.ask()
        before, waited = await server.ask("mark"), state["waited"] + waited_for_a_processor()
        victim.tell("begin")
        until = time.monotonic() + seconds
        ended = await asyncio.gather(*[authenticating(server.port, 10 * timeout, until) for _ in range(count)])
        state = await server.ask()
        victim.tell("end")
        suffered = await victim.answer(within=30)
        waited = state["waited"] + waited_for_a_processor() - waited
        await server.until(lambda state: not state["handshakes"] and state["sessions"] <= 1)
    last = max(max(took) for took in ended)
    say(
        f"{count} slow authentications for {seconds:g} s: victim p50 {suffered['p50']} p99 {suffered['p99']} max "
        f"{suffered['max']} ms of {suffered['echoes']}; server +{(state['peak'] - before) / MEBIBYTE:.2f} MiB, "
        f"{state['threads']} threads; refused after {last:.2f} s of {timeout:g} at most"
    )
    assert suffered["missing"] == 0
    assert suffered["echoes"] > seconds * 20
    assert state["threads"] <= 64 * 4 + 20  # four times those of strangers, and few of clients
    assert state["peak"] - before < 64 * MEBIBYTE
    return {"victim": suffered, "waited": waited, "last": last}


async def test_slow_authentications_take_no_thread_from_clients(say: Say) -> None:
    saw = await slow_authentications(300, 1, 2, say)
    assert saw["victim"]["p99"] < 150 + excused(saw["waited"], 1000)
    assert saw["last"] < 1 + SLACK + min(saw["waited"], 3)


@pytest.mark.soak
async def test_slow_authentications_for_20_seconds(say: Say) -> None:
    saw = await slow_authentications(300, 5, 20, say)
    assert saw["victim"]["p99"] <= 60
    assert saw["last"] < 5 + SLACK
