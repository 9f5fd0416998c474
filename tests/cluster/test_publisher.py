"""The publisher: messages leave in order, and each has an outcome in time."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from tests.support import DEADLINE
from velocity_ws import BackplaneUnavailable
from velocity_ws.cluster.envelopes import decode_header
from velocity_ws.cluster.publisher import Publisher
from velocity_ws.stats import Counters

NODE = "elevenchars"


class HeldEngine:
    """Takes what is published when it is let, or fails."""

    max_payload = 1000

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.open = asyncio.Event()
        self.error: Exception | None = None

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.taken.extend(messages)

    async def connect(self, receive: Any, lost: Any) -> None:
        raise NotImplementedError

    async def subscribe(self, topics: Collection[str]) -> None:
        raise NotImplementedError

    async def unsubscribe(self, topics: Collection[str]) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError


async def test_messages_leave_in_order_and_numbered() -> None:
    engine = HeldEngine()
    engine.open.set()
    publisher = Publisher(engine, NODE, 5, 10_000, Counters())
    publisher.open()
    task = asyncio.create_task(publisher.run())
    entries = [publisher.put(f"t{number % 2}", b"%d" % number) for number in range(10)]
    for entry in entries:
        await publisher.outcome(entry)
    assert [data[-1:] for _, data in engine.taken] == [b"%d" % number for number in range(10)]
    assert [decode_header(data).sequence for topic, data in engine.taken if topic == "t1"] == [1, 2, 3, 4, 5]
    task.cancel()
    await asyncio.wait([task])


async def test_every_message_has_an_outcome_in_time() -> None:
    engine = HeldEngine()
    publisher = Publisher(engine, NODE, 0.1, 200, Counters())
    with pytest.raises(BackplaneUnavailable, match="not answered yet"):
        publisher.put("t", b"x")
    publisher.open()
    task, watching = asyncio.create_task(publisher.run()), asyncio.create_task(publisher.watch())
    handed_over = publisher.put("t", b"x")
    await asyncio.sleep(0)
    waits = publisher.put("t", b"x" * 100)
    with pytest.raises(BackplaneUnavailable, match="too slow"):
        publisher.put("t", b"x" * 100)
    publisher.put("t", b"x" * 100, is_vital=True)
    with pytest.raises(BackplaneUnavailable, match="takes 1000"):
        publisher.put("t", b"x" * 1000, is_vital=True)
    outcomes = await asyncio.gather(
        *[publisher.outcome(entry) for entry in (handed_over, waits)], return_exceptions=True
    )
    assert [error.outcome for error in outcomes if isinstance(error, BackplaneUnavailable)] == [
        "unknown",
        "refused",
    ]
    async with asyncio.timeout(5):
        await asyncio.wait([watching])
    with pytest.raises(TimeoutError, match="did not confirm"):
        await watching
    task.cancel()
    await asyncio.wait([task])
    publisher.close("it is gone")
    with pytest.raises(BackplaneUnavailable, match="it is gone"):
        publisher.put("t", b"x")


async def test_cancelling_the_wait_takes_nothing_back() -> None:
    engine = HeldEngine()
    publisher = Publisher(engine, NODE, 5, 1000, Counters())
    publisher.open()
    task = asyncio.create_task(publisher.run())
    entry = publisher.put("t", b"x")
    waiting = asyncio.create_task(publisher.outcome(entry))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    engine.open.set()
    await publisher.outcome(entry)
    assert len(engine.taken) == 1
    task.cancel()
    await asyncio.wait([task])


async def test_a_message_in_several_parts_has_the_outcome_of_the_worst_and_each_is_counted() -> None:
    engine, counters = HeldEngine(), Counters()
    publisher = Publisher(engine, NODE, DEADLINE, 200, counters)
    publisher.open()
    task = asyncio.create_task(publisher.run())
    engine.open.set()
    await publisher.publish([("a", b"x"), ("b", b"x")])
    assert (counters.backplane_sent, counters.backplane_refused, counters.backplane_unknown) == (2, 0, 0)
    with pytest.raises(BackplaneUnavailable) as caught:
        await publisher.publish([("a", b"x"), ("b", b"x" * 1000)])
    assert caught.value.outcome == "refused"
    assert (counters.backplane_sent, counters.backplane_refused, counters.backplane_unknown) == (3, 1, 0)
    engine.open.clear()
    publisher._timeout = 0.1  # in which all of the above may not have been done
    with pytest.raises(BackplaneUnavailable) as caught:
        await publisher.publish([("a", b"x"), ("b", b"x" * 1000)])
    assert caught.value.outcome == "unknown"
    assert (counters.backplane_sent, counters.backplane_refused, counters.backplane_unknown) == (3, 2, 1)
    task.cancel()
    await asyncio.wait([task])
