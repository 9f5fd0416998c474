"""Endings: the part of the contract about connections: how they end, and begin again. Knows no engine."""

from __future__ import annotations

import asyncio

from velocity_ws.testing.engine import EngineOfContract
from velocity_ws.testing.listener import DEADLINE, END, Listener, refused

__all__ = ["EndingsContract"]

MANY = 5000


class EndingsContract(EngineOfContract):
    """A connection ends when it is closed or its engine ends, whatever it was doing, and can be opened again."""

    async def test_a_new_connection_has_no_subscriptions(self) -> None:
        async with await self.listening("old") as one:
            await one.backplane.close()
            await one.connect()
            await one.backplane.subscribe(["new"])
            await one.backplane.publish([("old", b"1"), ("new", b"2")])
            assert await one.messages(1) == [("new", b"2")]
            await one.backplane.subscribe(["old"])
            await one.backplane.publish([("old", b"3")])
            assert (await one.messages(2))[1:] == [("old", b"3")]

    async def test_closing(self) -> None:
        async with await self.listening("a") as one:
            for _ in range(3):
                await self.close(one)
            assert one.losses == []
            await refused(one.backplane.publish([("a", b"1")]))
            await refused(one.backplane.subscribe(["b"]))
        never = await self.backplane()
        await never.close()
        await refused(never.publish([("a", b"1")]))
        never.release()

    async def test_nothing_comes_after_closing(self) -> None:
        async with await self.listening("a") as one, await self.listening("a") as other:
            publishing = asyncio.create_task(other.backplane.publish([("a", b"%d" % number) for number in range(5000)]))
            await one.messages(1)
            await self.close(one)
            count = len(one.received)
            await publishing
            await other.backplane.publish([("a", END)])
            await other.messages(5001)
            assert len(one.received) == count
            assert one.losses == []

    async def test_closing_while_a_message_is_on_its_way(self) -> None:
        async with await self.listening("a") as one, await self.listening("a") as other:

            async def close() -> int:
                await self.close(one)
                return len(one.received)

            _, count = await asyncio.gather(other.backplane.publish([("a", b"1")]), close())
            await other.backplane.publish([("a", END)])
            await other.up_to("a", END)
            assert len(one.received) == count

    async def test_a_cancelled_call_leaves_it_to_be_closed(self) -> None:
        topics = [f"cancelled.{number}" for number in range(1000)]
        for steps in range(4):
            async with await self.listening("a") as one:
                for call in (
                    one.backplane.publish([("a", b"x" * 1000)] * 1000),
                    one.backplane.subscribe(topics),
                    one.backplane.unsubscribe(topics),
                ):
                    await _cancel_after(steps, call)
                    await self.open_again(one, ["a"])

    async def test_an_engine_that_is_not_there(self) -> None:
        there = await self.backplane()
        async with await self.listening() as one:
            await self.kill()
            await one.loss()
        await refused(Listener(there).connect())
        await there.close()
        there.release()

    async def test_a_killed_engine_is_noticed_once(self) -> None:
        async with await self.listening("a") as idle, await self.listening("a") as busy:
            publishing = asyncio.create_task(refused(_publish_on_and_on(busy)))
            await idle.messages(10)
            await self.kill()
            for listener in (idle, busy):
                assert isinstance(await listener.loss(), Exception)
            await publishing
            for listener in (idle, busy):
                await refused(listener.backplane.publish([("a", b"1")]))
                await refused(listener.backplane.subscribe(["b"]))
                count = len(listener.received)
                await self.close(listener)
                assert len(listener.received) == count
                assert len(listener.losses) == 1

    async def test_a_frozen_engine_holds_nothing_up(self) -> None:
        topics = [f"frozen.{number}" for number in range(MANY)]
        async with await self.listening("a") as one, await self.listening("a") as other:
            await self.freeze()
            try:
                # More than any buffer takes, so that what follows waits behind it.
                publishing = asyncio.create_task(_within(0.5, one.backplane.publish([("a", b"x" * 100_000)] * 400)))
                for listener in (one, other):
                    assert isinstance(await _within(0.5, listener.backplane.subscribe(topics)), TimeoutError)
                assert isinstance(await publishing, TimeoutError)
                await self.close(one)
                await self.close(other)
                assert isinstance(await _within(0.5, one.connect()), OSError)
                await self.close(one)
            finally:
                await self.thaw()
            assert one.losses == other.losses == []
            await self.open_again(one, ["b"])


async def _publish_on_and_on(listener: Listener) -> None:
    while True:
        await listener.backplane.publish([("a", b"x" * 100)] * 10)


async def _cancel_after(steps: int, call: object) -> None:
    """Begin a call, and cancel it after ``steps`` turns of the loop."""
    assert asyncio.iscoroutine(call)
    task = asyncio.create_task(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE)
    assert task.done(), "cancelling it did not end it"
    if not task.cancelled() and (error := task.exception()) is not None:
        assert isinstance(error, OSError)


async def _within(seconds: float, call: object) -> BaseException | None:
    """Return what a call raises that may take ``seconds``; ``None`` if it returns."""
    assert asyncio.iscoroutine(call)
    task = asyncio.create_task(_timed(seconds, call))
    await asyncio.wait([task], timeout=DEADLINE)
    assert task.done(), "cancelling it did not end it"
    return task.exception()


async def _timed(seconds: float, call: object) -> None:
    assert asyncio.iscoroutine(call)
    async with asyncio.timeout(seconds):
        await call
