"""On routed servers too, a join that has returned is heard from everywhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE
from tests.support.engines import engine
from tests.support.jetstream import routed
from tests.support.nodes import nodes, person
from velocity_ws.backplane.nats import NatsBackplane
from velocity_ws.cluster import spreading
from velocity_ws.cluster.spreading import Spreading


class Routed:
    is_routed = True


def made(backplane: Any, ask: Any) -> Spreading:
    return Spreading(backplane, ask)


async def test_what_is_said_on_another_server_right_after_a_join_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "PATIENCE", DEADLINE)  # a server may be held up for as long as it has else
    urls = routed(tmp_path, 2)
    async with urls as servers, nodes([server.url for server in servers], backplane_timeout=DEADLINE) as (a, b):
        async with person(a) as (peer, _):
            for number in range(200):  # of which some were missed else, 4 to 12 of 100
                await peer.request("join", f"room {number}")
                await b.broker.to_room(f"room {number}").send("n", number)
                assert await peer.expect("n") == number


async def test_nobody_is_asked_on_a_single_server() -> None:
    async def ask() -> None:
        raise AssertionError("there is no other server to tell")

    async with engine("nats") as server:
        backplane = NatsBackplane(server.url)
        await backplane.connect(lambda *_: None, lambda _: None)
        await made(backplane, ask).wait()
        await backplane.close()
    await made(object(), ask).wait()


async def test_nodes_that_do_not_answer_are_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreading, "PATIENCE", 0.01)
    async with asyncio.timeout(5):
        await made(Routed(), asyncio.Event().wait).wait()


async def test_nodes_are_not_asked_more_often_than_they_are_to_answer() -> None:
    asked: list[float] = []
    time = asyncio.get_running_loop().time

    async def ask() -> None:
        asked.append(time())

    spread = made(Routed(), ask)
    for _ in range(spreading.AT_ONCE + 5):
        await spread.wait()
    assert asked[-1] - asked[0] >= 4 / spreading.RATE
