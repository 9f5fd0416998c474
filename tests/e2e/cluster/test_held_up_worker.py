"""A process is stopped for longer than its lease, and goes on: what was meant for its clients meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support import DEADLINE, eventually
from tests.support.workers import an_engine, owner, person, workers
from velocity_ws import Emitter

LEASE = 1.0
TIMEOUT = 2.0
"""WS_BACKPLANE_TIMEOUT: what asks the one that is held up waits so long, and nothing else may take longer."""


@pytest.mark.parametrize("kind", ["nats", "valkey", pytest.param("embedded", marks=pytest.mark.soak)])
async def test_a_node_that_was_held_up_gets_what_was_for_its_clients(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with an_engine(kind, tmp_path, monkeypatch) as url, AsyncExitStack() as stack:
        own = {"WS_NODE_LEASE": f"{LEASE:g}s", "WS_BACKPLANE_TIMEOUT": f"{TIMEOUT:g}s"}
        both = [stack.enter_async_context(workers(1, url, **own)) for _ in range(2)]
        ports = await asyncio.gather(*both)
        here = await stack.enter_async_context(person(ports[0], "here"))
        if kind == "embedded" and owner(tmp_path)[0] != here.pid:
            ports.reverse()  # it is not the engine that is stopped
            here = await stack.enter_async_context(person(ports[0], "here"))
        aside = await stack.enter_async_context(person(ports[0], "here"))
        there = await stack.enter_async_context(person(ports[1], "there", "ann"))
        other = await stack.enter_async_context(person(ports[1], "there", "bob"))
        last = await stack.enter_async_context(person(ports[1], "there", "cat"))
        fourth = await stack.enter_async_context(person(ports[1], "there", "dan"))
        async with asyncio.timeout(10):
            while len(await here.request("do", ["members", "there"])) != 4:
                await asyncio.sleep(0.01)
        os.kill(there.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(20):
                while (await here.request("members", "there")) != [[], []]:  # its lease is over
                    await asyncio.sleep(0.05)
            assert await here.request("tell", [there.id, ["one", 0]]) == "published"
            assert await here.request("tell", [[there.id, other.id], ["some", 0]]) == "published"
            outcomes = await asyncio.gather(
                here.request("do", ["join_room", there.id, "x"]), aside.request("do", ["disconnect", other.id])
            )
            assert set(outcomes) == {"BackplaneUnavailable unknown"}
            async with Emitter(url, timeout=DEADLINE) as emitter:  # which has never heard of it
                assert await emitter.disconnect_user("cat") == 0
                await emitter.to_client(there.id).send("n", ["emitter", 0])
            assert await here.request("do", ["disconnect_user", "dan"]) == 0
            assert await here.request("do", ["disconnect", "elevenchars.nobody"]) is False
            assert await here.request("do", ["join_room", "elevenchars.nobody", "x"]) == "ClientNotFound"
        finally:
            os.kill(there.pid, signal.SIGCONT)
        await eventually(lambda: there.got == {"one": [0], "some": [0], "emitter": [0]} and other.got == {"some": [0]})
        await eventually(lambda: not any(member.is_open for member in (other, last, fourth)))
        async with asyncio.timeout(10):
            while not (found := await here.request("do", ["members", "x"])):  # until it is heard of again
                await asyncio.sleep(0.01)
        assert [member["client_id"] for member in found] == [there.id], "what was asked is done when it goes on"
        assert await here.request("do", ["disconnect", last.id]) is False
