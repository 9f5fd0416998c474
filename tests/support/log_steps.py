"""Steps of one log, at random, and what a store answers to them: by which engines are compared."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from velocity_ws.history.base import HistoryStore
from velocity_ws.history.items import Append, Limits, Log, Lookup, Query, Refused, Removal, granted
from velocity_ws.history.memory import MemoryHistory
from velocity_ws.testing.history_engine import LONG, Keeper

__all__ = ["answers_as_memory_does", "bytes_most", "digests", "envelopes", "keys", "sizes", "steps", "told", "users"]

T = TypeVar("T")
_names = itertools.count()

sizes = st.integers(1, 6)
bytes_most = st.sampled_from([1, 10, 25, 1000])
envelopes = st.integers(0, 12).map(lambda size: b"x" * size)
users = st.sampled_from(["ann", "bob"])
keys = st.sampled_from(["one", "two"])
digests = st.sampled_from([b"s" * 16, b"o" * 16])

steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), envelopes, sizes, bytes_most),
        st.tuples(st.just("once"), envelopes, keys, digests),
        st.tuples(st.just("read"), st.integers(0, 12), st.integers(1, 6), bytes_most, st.booleans()),
        st.tuples(st.just("back"), st.integers(0, 100), users),
        st.tuples(st.just("remove"), users),
        st.tuples(st.just("clear")),
    ),
    min_size=20,
    max_size=60,
)


async def told(store: HistoryStore, topic: str, given_steps: list[tuple[Any, ...]]) -> list[object]:
    """What a store answers to these steps, without what is random."""
    answers: list[object] = []
    log = Log(topic, Limits(4, LONG, 1000))
    keeper = Keeper(store)
    positions = [(await keeper.top(log)).position]
    for step in given_steps:
        match step:
            case ("append", envelope, size, most):
                log = Log(topic, Limits(size, LONG, most))
                (entry,) = await keeper.append(log, envelope)
                positions.append(entry.stamp.position)
                answers.append(entry.stamp.position.offset)
            case ("once", envelope, key, digest):
                (result,) = await store.append([Append(log, envelope, key, digest)])
                if isinstance(result, Refused):
                    answers.append(result.reason)
                else:
                    positions.append(result.stamp.position)
                    answers.append((result.is_duplicate, result.stamp.position.offset))
            case ("read", after, limit, most, newest):
                found = granted((await store.read([Query(log, after, limit, most, newest)]))[0])
                answers.append((found.top.evicted, [(e.stamp.position[1:3], e.envelope) for e in found.entries]))
            case ("back", number, user):
                (removed,) = await store.removed([Lookup(log, user)])
                position = positions[number % len(positions)]
                answers.append((removed, await keeper.recover(log, position, removed=removed)))
            case ("remove", user):
                (top,) = await store.remove([Removal(log, user)])
                positions.append(granted(top).position)
                answers.append(granted(top).position[1:3])
            case _:
                top = await store.clear(log)
                positions.append(top.position)
                answers.append((top.position[1:3], top.evicted))
    return answers


def answers_as_memory_does(
    engine: AbstractAsyncContextManager[T], store_of: Callable[[T], HistoryStore], examples: int
) -> None:
    """Check that a store on an engine, which runs meanwhile, answers to any steps as the one in memory does."""
    with asyncio.Runner() as runner:

        async def compare(given_steps: list[tuple[Any, ...]]) -> None:
            stores: list[HistoryStore] = [MemoryHistory(f"memory://alike-{next(_names)}"), store_of(running)]
            topic = f"velocity.room.alike-{next(_names)}"
            for store in stores:
                await store.connect(lambda _: None)
            one, other = [await told(store, topic, given_steps) for store in stores]
            for store in stores:
                await store.close()
                store.release()
            assert one == other

        @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(steps)
        def alike(given_steps: list[tuple[Any, ...]]) -> None:
            runner.run(compare(given_steps))

        running = runner.run(engine.__aenter__())
        try:
            alike()
        finally:
            runner.run(engine.__aexit__(None, None, None))
