"""Carrying: the part of the contract about messages: who receives them, in which order, once. Knows no engine."""

from __future__ import annotations

import asyncio
import itertools
import string
from contextlib import AsyncExitStack

from velocity_ws.testing.engine import EngineOfContract
from velocity_ws.testing.listener import END, Listener

__all__ = ["CarryingContract"]

NAME = string.ascii_letters + string.digits + "_-=~"
"""Every character of a topic but the dot."""
MANY = 5000


class CarryingContract(EngineOfContract):
    """Published messages are received: by all subscribers, once, in order, unaltered."""

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
            # Between two publishers there is no order.
            assert sorted(await one.messages(2)) == [("kept", b"2"), ("kept", b"4")]
            assert sorted(await other.messages(2)) == [("left", b"1"), ("left", b"3")]
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
