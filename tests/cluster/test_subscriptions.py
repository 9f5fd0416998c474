"""What a node is subscribed to: always the rooms it has members in, and nothing published to them is missed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support import eventually
from tests.support.nodes import engine_url, nodes, person
from velocity_ws.cluster.subscriptions import Subscriptions


class SlowEngine:
    """Does what the contract says, each thing when it is let."""

    max_payload = 1000

    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.turn = asyncio.Semaphore(0)

    async def connect(self, receive: Any, lost: Any) -> None:
        raise NotImplementedError

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        raise NotImplementedError

    async def subscribe(self, topics: Collection[str]) -> None:
        await self.turn.acquire()
        self.topics.update(topics)

    async def unsubscribe(self, topics: Collection[str]) -> None:
        await self.turn.acquire()
        self.topics.difference_update(topics)

    async def close(self) -> None:
        raise NotImplementedError

    def release(self) -> None:
        raise NotImplementedError


kinds = st.sampled_from(["need", "release", "hold", "let go", "engine", "pause"])
steps = st.lists(st.tuples(kinds, st.sampled_from("abcd")), max_size=40)


@given(steps)
async def test_whatever_the_order_the_engine_ends_with_what_is_needed(taken: list[tuple[str, str]]) -> None:
    engine = SlowEngine()
    subscriptions = Subscriptions(engine, lambda *_: None, linger=0.0)
    needed: set[str] = set()
    held: Counter[str] = Counter()
    task = asyncio.create_task(subscriptions.run())
    try:
        for step, topic in taken:
            if step == "need":
                needed.add(topic)
                subscriptions.add(topic)
                confirmation = subscriptions.confirmation(topic)
                assert (confirmation is None) == (topic in subscriptions.confirmed)
            elif step == "release":
                needed.discard(topic)
                subscriptions.discard(topic)
            elif step == "hold":
                held[topic] += 1
                subscriptions.hold(topic)
            elif step == "let go" and held[topic]:
                held[topic] -= 1
                subscriptions.let_go(topic)
            elif step == "engine":
                engine.turn.release()
            else:
                await asyncio.sleep(0)
            assert subscriptions.confirmed <= engine.topics
            assert subscriptions.needed == needed | set(+held)
        for _ in range(100):
            engine.turn.release()
        await eventually(lambda: engine.topics == subscriptions.confirmed == needed | set(+held))
        assert all(subscriptions.confirmation(topic) is None for topic in needed | set(+held))
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_who_waits_for_a_topic_is_told_when_the_engine_has_it() -> None:
    engine = SlowEngine()
    subscriptions = Subscriptions(engine, lambda *_: None)
    task = asyncio.create_task(subscriptions.run())
    subscriptions.add("a")
    confirmation = subscriptions.confirmation("a")
    assert confirmation is not None
    assert subscriptions.confirmation("a") is confirmation
    engine.turn.release()
    await asyncio.wait_for(asyncio.shield(confirmation), 5)
    assert engine.topics == {"a"}
    subscriptions.connection_lost()
    again = subscriptions.confirmation("a")
    assert again is not None
    assert not again.done()
    task.cancel()
    await asyncio.wait([task])


move = st.tuples(st.sampled_from(["join", "leave", "say"]), st.integers(0, 1), st.integers(0, 999))
moves = st.lists(move, min_size=20, max_size=60)


@pytest.mark.parametrize("kind", ["memory", "nats", "valkey"])
async def test_rooms_joined_and_left_at_random_on_two_nodes(kind: str) -> None:
    async with engine_url(kind) as url, nodes(url, backplane_timeout=5) as pair, AsyncExitStack() as stack:
        people = [await stack.enter_async_context(person(node)) for node in pair]
        rooms: list[set[int]] = [set(), set()]
        for node in pair:
            assert node.broker.node.cluster is not None

        async def follow(taken: list[tuple[str, int, int]]) -> None:
            for move, who, number in taken:
                room, (peer, client_id) = f"room {number}", people[who]
                if move == "join":
                    await pair[1 - who].broker.join_room(client_id, room)  # asked of the other node
                    rooms[who].add(number)
                elif move == "leave":
                    await pair[who].broker.leave_room(client_id, room)
                    rooms[who].discard(number)
                await pair[1 - who].broker.to_room(room).send("n", number)
                await pair[1 - who].broker.to_client(client_id).send("end", number)
                if number in rooms[who]:
                    assert await peer.expect("n") == number
                assert await peer.expect("end") == number
                if number in rooms[1 - who]:
                    assert await people[1 - who][0].expect("n") == number

        for number in range(0, 1000, 2):
            await pair[number % 4 // 2].broker.join_room(people[number % 4 // 2][1], f"room {number}")
            rooms[number % 4 // 2].add(number)
        loop = asyncio.get_running_loop()

        @hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
        @given(moves)
        def explore(taken: list[tuple[str, int, int]]) -> None:
            asyncio.run_coroutine_threadsafe(follow(taken), loop).result(60)

        await asyncio.to_thread(explore)
        for node, joined in zip(pair, rooms, strict=True):
            cluster = node.broker.node.cluster
            assert cluster is not None
            own = {cluster.topics.all, cluster.topics.nodes, cluster.topics.node(node.broker.node_id)}
            expected = own | {cluster.topics.room(f"room {number}") for number in joined}
            assert sorted(node.broker.get_rooms()) == sorted(f"room {number}" for number in joined)
            await eventually(lambda cluster=cluster, expected=expected: cluster.subscriptions.confirmed == expected)  # type: ignore[misc]


async def test_a_topic_that_is_needed_while_another_is_left_is_subscribed_to() -> None:
    engine = SlowEngine()
    subscriptions = Subscriptions(engine, lambda *_: None, linger=0.0)
    task = asyncio.create_task(subscriptions.run())
    subscriptions.add("a")
    engine.turn.release()
    await eventually(lambda: subscriptions.confirmed == {"a"})
    subscriptions.discard("a")
    await eventually(lambda: not subscriptions.confirmed)  # and the engine is being told
    subscriptions.add("b")
    engine.turn.release()
    engine.turn.release()
    await eventually(lambda: engine.topics == {"b"})
    task.cancel()
    await asyncio.wait([task])


async def test_what_has_to_be_heard_first_is_subscribed_to_alone_on_each_connection() -> None:
    engine = SlowEngine()
    subscriptions = Subscriptions(engine, lambda *_: None)
    for topic in "ab":
        subscriptions.add(topic)
    subscriptions.add_first("first")
    for _ in range(2):
        restoring = asyncio.create_task(subscriptions.restore())
        engine.turn.release()
        await eventually(lambda: engine.topics == {"first"})
        engine.turn.release()
        await restoring
        assert engine.topics == {"first", "a", "b"}
        engine.topics.clear()
        subscriptions.connection_lost()


async def test_what_is_released_without_a_connection_is_forgotten() -> None:
    engine = SlowEngine()
    left: list[tuple[str, bool]] = []
    subscriptions = Subscriptions(engine, lambda topic, is_needed: left.append((topic, is_needed)), linger=0.0)
    task = asyncio.create_task(subscriptions.run())
    for topic in "ab":
        subscriptions.add(topic)
    engine.turn.release()
    await eventually(lambda: subscriptions.confirmed == {"a", "b"})
    subscriptions.discard("a")
    task.cancel()
    await asyncio.wait([task])
    subscriptions.connection_lost()
    assert left == [("a", False)]
    subscriptions.discard("b")
    assert left == [("a", False), ("b", False)]
    subscriptions.add("c")
    subscriptions.discard("c")
    assert left[-1] == ("c", False)


async def test_a_topic_that_is_needed_again_while_it_is_left_keeps_its_name() -> None:
    engine = SlowEngine()
    left: list[tuple[str, bool]] = []
    subscriptions = Subscriptions(engine, lambda topic, is_needed: left.append((topic, is_needed)), linger=0.0)
    task = asyncio.create_task(subscriptions.run())
    subscriptions.add("a")
    engine.turn.release()
    await eventually(lambda: subscriptions.confirmed == {"a"})
    subscriptions.discard("a")
    await eventually(lambda: not subscriptions.confirmed)
    subscriptions.add("a")
    engine.turn.release()
    engine.turn.release()
    await eventually(lambda: subscriptions.confirmed == {"a"})
    assert left == [("a", True)]
    task.cancel()
    await asyncio.wait([task])


async def test_100_000_topics_are_restored_in_time() -> None:
    engine = SlowEngine()
    subscriptions = Subscriptions(engine, lambda *_: None)
    for number in range(100_000):
        subscriptions.add(f"t{number}")
        engine.turn.release()
    async with asyncio.timeout(5):
        await subscriptions.restore()
    assert len(subscriptions.confirmed) == 100_000
    began = time.process_time()
    for number in range(1000):
        subscriptions.add(f"more {number}")
        engine.turn.release()
        await subscriptions.restore()
    assert time.process_time() - began < 1  # what is there already costs those that come nothing


async def test_a_topic_that_is_held_stays_until_all_have_let_it_go() -> None:
    engine = SlowEngine()
    left: list[tuple[str, bool]] = []
    subscriptions = Subscriptions(engine, lambda topic, is_needed: left.append((topic, is_needed)), linger=0.0)
    for _ in range(2):
        subscriptions.hold("a")
    subscriptions.add("a")  # as a room has a member now
    subscriptions.discard("a")
    subscriptions.let_go("a")
    assert (set(subscriptions.needed), left) == ({"a"}, [])
    subscriptions.let_go("a")
    assert (set(subscriptions.needed), left) == (set(), [("a", False)])
    subscriptions.hold("b")
    subscriptions.add("b")
    subscriptions.let_go("b")
    assert subscriptions.needed == {"b"}  # which has a member
    subscriptions.discard("b")
    assert not subscriptions.needed


async def test_nobody_waits_for_a_topic_that_is_not_needed_any_more() -> None:
    subscriptions = Subscriptions(SlowEngine(), lambda *_: None)
    subscriptions.add("a")
    confirmation = subscriptions.confirmation("a")
    assert confirmation is not None
    subscriptions.discard("a")
    assert confirmation.done()
