"""What every backplane does, as tests: subclass the class, say how one is made, and let pytest collect it.

Knows the contract and no engine. Every test is a coroutine; pytest-asyncio in its auto mode runs them.
"""

from __future__ import annotations

import asyncio
import itertools
import string
import time
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from velocity_ws.backplane.base import Backplane
from velocity_ws.testing.listener import DEADLINE, Listener, listening, refused

__all__ = ["BackplaneContract"]

CLOSE_TIMEOUT = 1.5
"""Seconds; the contract says one, and machines that run tests are busy."""
END = b"that was the last one"
NAME = string.ascii_letters + string.digits + "_-=~"
"""Every character of a topic but the dot."""
MANY = 5000


class BackplaneContract:
    """The contract of `Backplane`.

    ```python
    class TestPigeons(BackplaneContract):
        async def backplane(self):
            return PigeonBackplane("pigeon://loft")
    ```

    Where the engine can be ended and stopped, `kill` and `freeze` say how; tests that need it are skipped elsewhere. An
    engine that one test has killed is no longer there for the next: start one for each, in an autouse fixture.
    """

    async def backplane(self) -> Backplane:
        """A backplane that is not connected; all that a test makes are on the same engine."""
        raise NotImplementedError

    async def kill(self) -> None:
        """End the engine as if its machine had lost power: nothing listens where it was."""
        _skip("nothing here kills the engine")

    async def freeze(self) -> None:
        """Let the engine stand still with its connections open, until `thaw`."""
        _skip("nothing here stops the engine")

    async def thaw(self) -> None:
        """Let it go on."""

    async def listening(self, *topics: str) -> AbstractAsyncContextManager[Listener]:
        """Another connection, subscribed to these topics, as a context manager."""
        return listening(await self.backplane(), topics)

    async def test_a_message_reaches_its_publisher_and_others(self) -> None:
        async with await self.listening("a.b") as one, await self.listening("a.b") as other:
            await one.backplane.publish([("a.b", b"hello")])
            assert await one.messages(1) == [("a.b", b"hello")]
            assert await other.messages(1) == [("a.b", b"hello")]

    async def test_only_subscribers_receive(self) -> None:
        async with await self.listening("here") as one, await self.listening() as other:
            await one.backplane.publish([("elsewhere", b"1"), ("here", b"2")])
            assert await one.messages(1) == [("here", b"2")]
            assert other.received == []

    async def test_order_across_topics(self) -> None:
        topics = [f"order.{number}" for number in range(7)]
        numbers = itertools.count()
        sent: list[tuple[str, bytes]] = []
        async with await self.listening(*topics) as one, await self.listening(*topics) as other:
            for size in (1, 2000, 3, 1000, 1, 1, 500, 2):
                batch = [(topics[number * number % 7], b"%d" % number) for number in itertools.islice(numbers, size)]
                await one.backplane.publish(batch)
                sent += batch
            assert await other.messages(len(sent)) == sent
            assert await one.messages(len(sent)) == sent

    async def test_two_publishers_at_once(self) -> None:
        topics = ["two.a", "two.b", "two.c"]
        async with await self.listening(*topics) as one, await self.listening(*topics) as other:

            async def publish(listener: Listener, who: bytes) -> list[tuple[str, bytes]]:
                sent = [(topics[number % 3], b"%s %d" % (who, number)) for number in range(2000)]
                for start in range(0, len(sent), 50):
                    await listener.backplane.publish(sent[start : start + 50])
                return sent

            sent = await asyncio.gather(publish(one, b"one"), publish(other, b"other"))
            for listener in (one, other):
                received = await listener.messages(4000)
                assert [message for message in received if message[1].startswith(b"one")] == sent[0]
                assert [message for message in received if message[1].startswith(b"other")] == sent[1]

    async def test_what_is_published_after_subscribing_is_received(self) -> None:
        async with await self.listening() as one, await self.listening() as other:
            expected = [(f"confirmed.{number}", b"%d" % number) for number in range(200)]
            for topic, payload in expected:
                await one.backplane.subscribe([topic])
                await other.backplane.publish([(topic, payload)])
            assert await one.messages(200) == expected

    async def test_subscribing_and_publishing_overlap(self) -> None:
        async with await self.listening("steady") as one:
            sent = [("steady", b"%d" % number) for number in range(1000)]

            async def publish() -> None:
                for start in range(0, len(sent), 10):
                    await one.backplane.publish(sent[start : start + 10])

            async def subscribe() -> None:
                for number in range(50):
                    await one.backplane.subscribe([f"overlap.{number}", f"overlap.{number}.x"])
                    await one.backplane.unsubscribe([f"overlap.{number}"])

            await asyncio.gather(publish(), subscribe())
            assert await one.messages(1000) == sent

    async def test_unsubscribing(self) -> None:
        async with await self.listening("left", "kept") as one, await self.listening("left") as other:
            await one.backplane.unsubscribe(["left", "never subscribed to"])
            await one.backplane.publish([("left", b"1"), ("kept", b"2")])
            await other.backplane.publish([("left", b"3"), ("kept", b"4")])
            assert await one.messages(2) == [("kept", b"2"), ("kept", b"4")]
            assert await other.messages(2) == [("left", b"1"), ("left", b"3")]
            await one.backplane.subscribe(["left"])
            await other.backplane.publish([("left", b"5")])
            assert (await one.messages(3))[2:] == [("left", b"5")]

    async def test_no_duplicates(self) -> None:
        async with await self.listening("twice") as one:
            await one.backplane.subscribe(["twice"])
            await one.backplane.subscribe(["twice", "other"])
            await one.backplane.publish([("twice", b"1"), ("other", b"2"), ("twice", END)])
            assert await one.up_to("twice", END) == [("twice", b"1"), ("other", b"2")]
            await one.backplane.unsubscribe(["twice"])
            await one.backplane.publish([("twice", b"3"), ("other", b"4")])
            assert (await one.messages(4))[3:] == [("other", b"4")]

    async def test_nothing_to_do(self) -> None:
        async with await self.listening("a") as one:
            await one.backplane.subscribe([])
            await one.backplane.unsubscribe([])
            await one.backplane.publish([])
            await one.backplane.publish([("a", b"1")])
            assert await one.messages(1) == [("a", b"1")]

    async def test_any_bytes(self) -> None:
        every = bytes(range(256))
        payloads = [
            b"",
            every,
            b"\r\n",
            b"\0",
            b"",
            b"\r\nPING\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"\xff" * 1000,
            every * 300,
        ]
        async with await self.listening("bytes") as one:
            await one.backplane.publish([("bytes", payload) for payload in payloads])
            assert [payload for _, payload in await one.messages(len(payloads))] == payloads

    async def test_the_largest_payload(self) -> None:
        async with await self.listening("large") as one, await self.listening("large") as other:
            large = (b"0123456789abcde\n" * (one.backplane.max_payload // 16 + 1))[: one.backplane.max_payload]
            await one.backplane.publish([("large", large), ("large", END)])
            for listener in (one, other):
                [(_, received)] = await listener.up_to("large", END)
                assert len(received) == len(large)
                assert received == large
                assert not listener.losses

    async def test_every_topic(self) -> None:
        topics = [*NAME, NAME, ".".join(NAME), "x" * 250, "a." * 124 + "bc", "=", "~", "-._.=.~"]
        async with await self.listening(*topics) as one, await self.listening() as other:
            await other.backplane.publish([(topic, topic.encode()) for topic in topics])
            assert await one.messages(len(topics)) == [(topic, topic.encode()) for topic in topics]

    async def test_similar_topics_are_different(self) -> None:
        topics = ["a", "A", "a.b", "a.B", "a.b.c", "ab", "a.bc", "a=2A", "a=2a", "a=", "a.=", "a~", "b", "a.b.a"]
        async with AsyncExitStack() as stack:
            listeners = [await stack.enter_async_context(await self.listening(topic)) for topic in topics]
            await listeners[0].backplane.publish([(topic, topic.encode()) for topic in topics])
            await listeners[1].backplane.publish([(topic, END) for topic in topics])
            for topic, listener in zip(topics, listeners, strict=True):
                assert set(await listener.messages(2)) == {(topic, topic.encode()), (topic, END)}
            for listener in listeners:
                assert len(listener.received) == 2

    async def test_many_topics_in_one_call(self) -> None:
        topics = [f"many.topics.of.some.length.{number}" for number in range(MANY)]
        async with await self.listening() as one, await self.listening() as other:
            await one.backplane.subscribe(topics)
            await other.backplane.publish([(topic, b"%d" % number) for number, topic in enumerate(topics)])
            assert await one.messages(MANY) == [(topic, b"%d" % number) for number, topic in enumerate(topics)]
            await one.backplane.unsubscribe(topics[1:])
            await other.backplane.publish([(topic, END) for topic in reversed(topics)])
            assert (await one.messages(MANY + 1))[MANY:] == [(topics[0], END)]

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
                await self._close(one)
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
            await self._close(one)
            count = len(one.received)
            await publishing
            await other.backplane.publish([("a", END)])
            await other.messages(5001)
            assert len(one.received) == count
            assert one.losses == []

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
                    await self._again(one, ["a"])

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
            publishing = asyncio.create_task(self._publish_until_refused(busy))
            await idle.messages(10)
            await self.kill()
            for listener in (idle, busy):
                assert isinstance(await listener.loss(), Exception)
            await publishing
            for listener in (idle, busy):
                await refused(listener.backplane.publish([("a", b"1")]))
                await refused(listener.backplane.subscribe(["b"]))
                count = len(listener.received)
                await self._close(listener)
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
                await self._close(one)
                await self._close(other)
                assert isinstance(await _within(0.5, one.connect()), OSError)
                await self._close(one)
            finally:
                await self.thaw()
            assert one.losses == other.losses == []
            await self._again(one, ["b"])

    async def _again(self, listener: Listener, topics: Collection[str]) -> None:
        """Close it, open it, and see that it works."""
        await self._close(listener)
        listener.received.clear()
        async with asyncio.timeout(DEADLINE):
            await listener.connect()
            await listener.backplane.subscribe(topics)
            for topic in topics:
                await listener.backplane.publish([(topic, END)])
                await listener.up_to(topic, END)

    async def _close(self, listener: Listener) -> None:
        begin = time.monotonic()
        await listener.backplane.close()
        assert time.monotonic() - begin < CLOSE_TIMEOUT

    async def _publish_until_refused(self, listener: Listener) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                while True:
                    await listener.backplane.publish([("a", b"x" * 100)] * 10)
        except TimeoutError:
            raise
        except OSError:
            return


async def _cancel_after(steps: int, call: object) -> None:
    """Begin a call, and cancel it after so many turns of the loop."""
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
    """What a call raises, that has so many seconds."""
    assert asyncio.iscoroutine(call)
    task = asyncio.create_task(_timed(seconds, call))
    await asyncio.wait([task], timeout=DEADLINE)
    assert task.done(), "cancelling it did not end it"
    return task.exception()


async def _timed(seconds: float, call: object) -> None:
    assert asyncio.iscoroutine(call)
    async with asyncio.timeout(seconds):
        await call


def _skip(why: str) -> None:
    import pytest  # noqa: PLC0415 - whoever only imports this does not need it

    pytest.skip(why)
