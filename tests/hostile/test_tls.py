"""Handshakes that nobody goes on with, TLS or not: bounded in time and number, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import signal
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.programs.certificate import certificate
from tests.support import DEADLINE, eventually, running, settings
from tests.support.command import kept_port
from tests.support.machine import waited_for_a_processor
from tests.support.say import Say
from tests.support.siege import ROOT, SLACK, START, Silent, besieged, excused, started
from velocity_ws import Broker, Server
from velocity_ws.uvicorn import HTTPProtocol, state
from velocity_ws.uvicorn.loop import bounding

BEGINNINGS = {"ws": (b"", b"GET"), "wss": (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01")}
"""What has come of them: nothing, or a part of a request or of a record."""
OURS, HTTP = "velocity_ws.uvicorn:WebSocketProtocol", "velocity_ws.uvicorn:HTTPProtocol"
WAYS = [("wss", "asyncio"), ("wss", "uvloop"), ("ws", "uvloop")]


def trusting() -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def silent(port: int, beginning: bytes = b"") -> Silent:
    """A connection that says no more."""
    loop, make = asyncio.get_running_loop(), functools.partial(Silent, beginning, time.monotonic())
    return (await loop.create_connection(make, "127.0.0.1", port))[1]


async def silence(count: int, limit: int, timeout: float, way: tuple[str, str], say: Say) -> dict[str, Any]:
    """So many silent handshakes beside a victim, until they are gone; what was seen."""
    scheme, loop = way
    tls: Any = {"ssl": trusting()} if scheme == "wss" else {}
    async with besieged(handshake_timeout=timeout, max_connections=limit, tls=bool(tls), loop=loop) as server:
        async with started("victim", server.port, *(["tls"] if tls else [])) as victim:
            before, own = await server.ask(), waited_for_a_processor()
            victim.tell("begin")
            beginnings = BEGINNINGS[scheme]
            all_of_them = [await silent(server.port, beginnings[at % len(beginnings)]) for at in range(count)]
            most = limit if tls else max(limit, 100)
            # Whoever comes meanwhile comes in, however many there are.
            async with connect(f"{scheme}://127.0.0.1:{server.port}/ws", proxy=None, **tls) as peer:
                bounded = await server.until(lambda state: state["sockets"] <= before["sockets"] + most + 1)
                await peer.send('{"event": "echo", "id": 1}')
                assert "reply" in str(await peer.recv())
            took = sorted(await asyncio.gather(*(each.ended for each in all_of_them)))
            after = await server.until(lambda state: state["sockets"] <= before["sockets"])
            victim.tell("end")
            saw = await victim.answer(within=30)
        waited = after["waited"] - before["waited"] + saw["waited"] + waited_for_a_processor() - own
    say(
        f"{scheme}, {loop}: {count} silent, {bounded['sockets'] - before['sockets']} at once, gone after "
        f"{took[0]:.2f} to {took[-1]:.2f} s of {timeout:g}; victim p50 {saw['p50']} p99 {saw['p99']} max {saw['max']} "
        f"ms; they waited {waited:.2f} s for a processor"
    )
    assert server.log == []
    assert saw["missing"] == 0
    return {"took": took, "waited": waited, **saw}


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
async def test_silent_handshakes_are_bounded_in_time_and_number(way: tuple[str, str], say: Say) -> None:
    saw = await silence(200, 30, 1.5, way, say)
    assert saw["took"][-1] < 1.5 + SLACK + excused(saw["waited"], 3000) / 1000
    assert saw["took"][-25] > 1.3  # those that there may be had their time
    assert saw["p99"] < 100 + excused(saw["waited"], 1000)


@pytest.mark.soak
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
async def test_two_hundred_silent_handshakes_cost_a_victim_nothing(way: tuple[str, str], say: Say) -> None:
    saw = await silence(200, 10_000, 10, way, say)
    assert saw["took"][0] > 9
    assert saw["took"][-1] < 10 + SLACK
    assert saw["p99"] <= 60


@pytest.mark.parametrize(
    "served_by",
    [
        ("uvicorn", "--ws", OURS, "--http", HTTP, "--loop", "velocity_ws.uvicorn:new_event_loop"),
        ("velocity_ws", "run", "--workers", "2"),
    ],
    ids=["uvicorn", "velocity-ws run"],
)
async def test_under_a_command_silent_tls_handshakes_are_bounded_too(
    served_by: tuple[str, ...], tmp_path: Path
) -> None:
    port, tls = kept_port(), certificate(tmp_path)
    own = [*served_by, "tests.programs.options:app", "--port", str(port)]
    variables = {"WS_MAX_CONNECTIONS": "5", "WS_HANDSHAKE_TIMEOUT": "1.5s", "WS_BACKPLANE_URL": "memory://"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *own),
        *("--ssl-keyfile", tls["ssl_keyfile"], "--ssl-certfile", tls["ssl_certfile"]),
        cwd=ROOT,
        env={**os.environ, **variables},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(START):
            while True:
                with contextlib.suppress(OSError):
                    (await silent(port)).transport.abort()
                    break
                await asyncio.sleep(0.05)  # the pause between two attempts, not the wait
        quiet = [await silent(port) for _ in range(30)]
        workers = 2 if "--workers" in served_by else 1
        await eventually(lambda: sum(not each.ended.done() for each in quiet) <= 5 * workers)
        async with connect(f"wss://127.0.0.1:{port}/ws", ssl=trusting(), proxy=None) as peer:
            await peer.send('{"event": "echo", "id": 1}')
            assert "reply" in str(await peer.recv())
            async with asyncio.timeout(DEADLINE):
                await asyncio.gather(*(each.ended for each in quiet))
    finally:
        process.terminate()
        await process.wait()
    assert process.returncode in (0, -signal.SIGTERM)


def test_the_loop_for_uvicorn_bounds_them_where_there_is_no_uvloop(tmp_path: Path) -> None:
    def refuse(descriptor: int) -> int:
        raise OSError(errno.EBADF, "a bad file descriptor")

    async def run() -> None:
        http = HTTPProtocol.configured(settings(handshake_timeout=2))
        broker = Broker(settings())
        async with running(broker, "ours", http=http, **certificate(tmp_path)) as address:
            quiet = [await silent(address.port) for _ in range(5)]
            async with connect(f"wss://127.0.0.1:{address.port}/ws", ssl=trusting(), proxy=None):
                await eventually(lambda: all(each.ended.done() for each in quiet))
            assert max([each.ended.result() for each in quiet]) < 10

    state.settings_from_environment.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WS_HANDSHAKE_TIMEOUT", "2s")  # in which one that goes on must be done, whatever holds it up
        patch.setattr(os, "dup", refuse)  # as on Windows, where a socket is no descriptor
        with asyncio.Runner(loop_factory=bounding(asyncio.SelectorEventLoop)) as runner:
            runner.run(run())
    state.settings_from_environment.cache_clear()


async def test_a_protocol_that_cannot_be_made_costs_its_own_connection_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[int] = []

    class Broken(HTTPProtocol.configured(settings())):  # type: ignore[misc]
        def __init__(self, *args: Any, **more: Any) -> None:
            made.append(1)
            if len(made) == 1:
                raise RuntimeError("a defect")
            super().__init__(*args, **more)

    async with Server(Broker(settings()), port=0, http=Broken, **certificate(tmp_path)) as server:
        await (await silent(server.port)).ended
        async with connect(f"wss://127.0.0.1:{server.port}/ws", ssl=trusting(), proxy=None):
            assert len(made) == 2
    assert "a connection could not be taken" in caplog.text


async def test_silent_tls_handshakes_of_an_address_are_limited_and_stopping_waits_for_none(tmp_path: Path) -> None:
    broker = Broker(settings(max_connections_per_ip=3, handshake_timeout=60, drain_timeout=5))
    async with contextlib.AsyncExitStack() as stack:
        async with Server(broker, port=0, proxy_headers=False, **certificate(tmp_path)) as server:
            quiet = [await silent(server.port) for _ in range(7)]
            await eventually(lambda: sum(each.ended.done() for each in quiet) == 4)
            assert broker.get_stats().rejected == 4
            await asyncio.gather(*(each.ended for each in quiet if each.ended.done()))
            began = time.monotonic()
        assert time.monotonic() - began < 3
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*(each.ended for each in quiet))
        # A proxy on this machine, as uvicorn takes it to be, stands for many.
        async with Server(broker, port=0, **certificate(tmp_path)) as server:
            quiet = [await silent(server.port) for _ in range(7)]
            ws = connect(f"wss://127.0.0.1:{server.port}/ws", ssl=trusting(), proxy=None)
            await stack.enter_async_context(ws)
            assert not any(each.ended.done() for each in quiet)
        assert broker.get_stats().rejected == 4
