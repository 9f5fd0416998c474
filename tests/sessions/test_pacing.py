"""Large messages of all clients take turns of the loop, and what waits for its turn is bounded."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support import eventually, running, settings
from velocity_ws import Broker
from velocity_ws.process.garbage import LARGE
from velocity_ws.sessions import pacing
from velocity_ws.sessions.pacing import BYTES_PER_TURN, MAX_REST, MAX_WAITING, PACED, SECONDS_PER_TURN, Pace


@pytest.fixture
def never_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """No turn is a long one, however long this process has no processor in it."""
    monkeypatch.setattr(pacing, "SECONDS_PER_TURN", 60.0)


@pytest.mark.usefixtures("never_long")
async def test_one_large_message_is_handled_in_a_turn_or_several_that_are_smaller() -> None:
    pace = Pace()
    assert pace.take(500_000)
    assert not pace.take(PACED)
    await asyncio.sleep(0)
    for _ in range(BYTES_PER_TURN // PACED):
        assert pace.take(PACED)
    assert not pace.take(PACED)
    await asyncio.sleep(0)
    assert pace.take(500_000)


@pytest.mark.usefixtures("never_long")
async def test_who_waits_gets_its_turn_in_order_one_in_each() -> None:
    pace, order = Pace(), []

    async def handle(name: str, size: int) -> None:
        if not pace.take(size):
            await pace.turn(size)
        order.append((name, turn))

    turn = 0
    tasks = [asyncio.create_task(handle(name, 500_000)) for name in "abc"]
    tasks += [asyncio.create_task(handle(name, PACED)) for name in "de"]
    while not all(task.done() for task in tasks):
        turn += 1
        await asyncio.sleep(0)
    assert [name for name, _ in order] == ["a", "b", "c", "d", "e"]
    turns = [turn for _, turn in order]
    assert len(set(turns[:3])) == 3
    assert turns[2] < turns[3] == turns[4]


def compute(seconds: float) -> float:
    """Use processor time; how much it was."""
    began = time.perf_counter()
    while (took := time.perf_counter() - began) < seconds:
        pass
    return took


async def test_after_a_long_turn_others_have_as_much_time() -> None:
    pace = Pace()
    assert pace.take(500_000)
    took = compute(5 * SECONDS_PER_TURN)
    began = time.perf_counter()
    await pace.turn(PACED)
    assert time.perf_counter() - began > min(took, MAX_REST) / 2


async def test_what_a_smaller_message_set_off_makes_no_other_wait() -> None:
    pace = Pace()
    assert pace.take(PACED)
    compute(5 * SECONDS_PER_TURN)  # a broadcast, say
    await asyncio.sleep(0)
    assert pace.take(PACED)


@pytest.mark.usefixtures("never_long")
async def test_a_client_that_goes_while_it_waits_gives_its_turn_to_the_next() -> None:
    pace = Pace()
    gone = asyncio.create_task(pace.turn(500_000))
    woken = asyncio.create_task(pace.turn(500_000))
    asyncio.get_running_loop().call_soon(gone.cancel)
    assert pace.take(500_000)  # and its turn ends behind these
    async with asyncio.timeout(5):
        await woken
    await asyncio.sleep(0)
    assert pace.take(PACED)
    assert pace.has_room(MAX_WAITING)


async def test_the_collector_waits_for_the_end_of_the_turn_and_no_longer() -> None:
    pace = Pace()
    assert pace.take(LARGE)
    assert not gc.isenabled()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert gc.isenabled()


def test_a_loop_that_is_closed_within_a_turn_leaves_the_collector_on() -> None:
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))

    async def take() -> None:
        Pace().take(LARGE)
        loop.stop()

    task = loop.create_task(take())
    loop.run_forever()
    assert task.done()
    del task
    loop.close()
    gc.collect()
    assert gc.isenabled()


# --- of real clients


async def length(data: Any) -> int:
    return len(data)


@asynccontextmanager
async def two_clients(broker: Broker) -> AsyncIterator[Any]:
    async with running(broker, "ours") as address, address.connect() as one, address.connect() as other:
        yield one, other


async def test_large_messages_of_several_clients_are_all_answered_in_order() -> None:
    broker = Broker(settings(rate_limit=0, rate_bytes=0))

    @broker.on("echo")
    async def echo(data: Any) -> Any:
        return data[0]

    large: list[Any] = [[]] * 100_000
    async with two_clients(broker) as peers:

        async def ask(peer: Any) -> list[int]:
            for number in range(4):
                await peer.send("echo", [number, *large], id=number)
                await peer.send("echo", [number + 0.5], id=number)
            return [(await peer.receive())["data"] for _ in range(8)]

        answers = await asyncio.gather(*map(ask, peers))
    assert answers == [[0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5]] * 2


async def test_a_client_may_go_while_its_large_message_waits() -> None:
    broker = Broker(settings(rate_limit=0, rate_bytes=0))
    gone: list[int] = []
    broker.on("echo")(length)
    broker.on_disconnect(lambda client, close: gone.append(close.code))
    text = json.dumps({"event": "echo", "data": [[]] * 100_000})
    async with running(broker, "ours") as address:
        for _ in range(3):
            async with address.connect() as peer:
                for _ in range(3):
                    await peer.ws.send(text)
        await eventually(lambda: len(gone) == 3)
        async with address.connect() as peer:
            assert (await peer.request("echo", [1] * 50_000))["data"] == 50_000


@pytest.mark.parametrize("by", ["application", "flood"])
async def test_nothing_is_handled_of_a_client_that_was_closed_while_its_large_message_waited(by: str) -> None:
    broker = Broker(settings(rate_limit=0, rate_bytes=0))
    handled: list[int] = []
    gone: list[str] = []
    broker.on_disconnect(lambda client, close: gone.append(close.by))

    @broker.on("large")
    async def large(data: str) -> None:
        handled.append(len(data))

    async with running(broker, "ours") as address, address.connect() as peer:
        pace = broker.node.context.pace
        pace._rests = True  # others have their time now
        await peer.send("large", "x" * PACED)
        await eventually(lambda: pace._waiting)
        (session,) = broker.node.lifecycle.sessions
        if by == "application":
            await session.client.disconnect()
        else:
            session.close((1008, "too many messages"), discard=True)
        pace._let_go()
        await peer.closed()
        await eventually(lambda: gone)
    assert (handled, gone) == ([], ["server"])


async def test_what_would_make_too_much_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Broker(settings())
    broker.on("echo")(length)
    async with two_clients(broker) as (peer, _):
        monkeypatch.setattr(broker.node.context.pace, "has_room", lambda size: False)
        refused = await peer.request("echo", "x" * PACED)
        assert (refused["event"], refused["data"]["retry_after"]) == ("rate_limit_exceeded", 1)
        assert (await peer.request("echo", "x"))["data"] == 1
