"""Writer: under any order of appends, cancellations, silence and losses, what is told is what the logs have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import eventually
from tests.support.links import LOG, NearStore, Node, Store, failing, linked
from velocity_ws.errors import BackplaneUnavailable, HistoryError
from velocity_ws.history import store_link
from velocity_ws.history import writer as history_writer
from velocity_ws.history.items import Append, Appended, Log, Query, granted
from velocity_ws.history.memory import MemoryHistory

LOGS = [LOG, LOG._replace(topic="velocity.room.other")]
QUEUED = 5
"""Appends that fill the queue."""

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"),
            st.integers(0, len(LOGS) - 1),
            st.sampled_from(["", "", "", "a", "b"]),
            st.booleans(),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("move"), st.integers(0, len(LOGS) - 1)),
        st.tuples(st.sampled_from(["hold", "let", "lose", "turn", "turn", "arrive"])),
    ),
    max_size=60,
)


class Run:
    """What was asked of a link, and what its callers were told.

    Attributes:
        appends: what was asked.
        tasks: of the callers.
        told: the numbers of appends of which was said that the engine has them, and the results, in that order.
    """

    def __init__(self, store: Store, node: Node) -> None:
        self.appends: list[Append] = []
        self.tasks: list[asyncio.Task[Appended]] = []
        self.told: list[tuple[int, Appended]] = []
        self._store = store
        self._node = node

    def append(self, room: int, key: str, is_urgent: bool) -> None:
        """Begin to append; what is urgent has no time at all."""
        number = len(self.appends)
        append = Append(LOGS[room], b"%d" % number, key, b"%016d" % (number % 2) if key else b"")
        until = asyncio.get_running_loop().time() if is_urgent else None
        self.appends.append(append)
        self.tasks.append(asyncio.create_task(self._append(number, append, until)))

    async def _append(self, number: int, append: Append, until: float | None) -> Appended:
        return await self._node.link.append(append, lambda appended: self.told.append((number, appended)), until)

    async def do(self, step: tuple[Any, ...]) -> None:
        """One thing that may happen."""
        name, *arguments = step
        if name == "append":
            self.append(*arguments)
        elif name == "cancel" and arguments[0] < len(self.tasks):
            self.tasks[arguments[0]].cancel()
        elif name == "hold":
            self._store.is_held = True
        elif name == "let":
            self._store.let()
        elif name == "lose":
            assert self._store.lost is not None
            ups = self._node.told.count("up")
            self._store.lost(ConnectionError("it is gone"))
            await eventually(lambda: self._node.told.count("up") > ups)
        elif name == "move":
            self._store.moving.add(LOGS[arguments[0]].topic)
        elif name == "arrive":
            self._store.moving.clear()
        elif name == "turn":
            await asyncio.sleep(0)


async def stored_by(store: Store) -> dict[int, tuple[Log, int]]:
    """What the logs have: the log and the offset, by the number of the append."""
    found: dict[int, tuple[Log, int]] = {}
    for log in LOGS:
        entries = granted((await store.read([Query(log, 0, 1000)]))[0]).entries
        numbers = [int(entry.envelope) for entry in entries]
        assert numbers == sorted(set(numbers))  # in the order of appends, and once
        found |= {number: (log, offset) for offset, number in enumerate(numbers, 1)}
    return found


async def what_is_told_is_what_the_logs_have(store: Store, happening: list[tuple[Any, ...]]) -> None:
    async with linked(store, queue_size=QUEUED * (history_writer.OVERHEAD + 2)) as node:
        run = Run(store, node)
        for step in happening:
            await run.do(step)
        store.let()
        store.moving.clear()
        results = await asyncio.gather(*run.tasks, return_exceptions=True)
        sent, refused, unknown = node.outcomes
        await node.link.append(Append(LOG, b"1000"), node.had.append)  # behind all of them
        stored = await stored_by(store)
    told = dict(run.told)
    assert len(told) == len(run.told)
    for log in LOGS:
        offsets = [appended.stamp.position.offset for number, appended in run.told if run.appends[number].log == log]
        assert offsets == sorted(set(offsets))
    for number, appended in run.told:
        assert stored[number] == (run.appends[number].log, appended.stamp.position.offset)
    outcomes = {"refused": 0, "unknown": 0}
    for number, result in enumerate(results):
        if isinstance(result, Appended):
            assert told.get(number) == (None if result.is_duplicate else result)
            assert (number in stored) is not result.is_duplicate
        elif isinstance(result, BackplaneUnavailable):
            outcomes[result.outcome] += 1
            assert result.outcome == "unknown" or number not in stored
        else:
            assert isinstance(result, asyncio.CancelledError | HistoryError)
            assert isinstance(result, asyncio.CancelledError) or number not in stored
    is_each_told = not any(isinstance(result, asyncio.CancelledError) for result in results)
    assert (refused, unknown) == tuple(outcomes.values()) or not is_each_told
    assert sent <= len(told) <= sent + unknown
    others = len(results) - sent - refused - unknown  # duplicates and conflicts, and what was cancelled before it began
    assert others >= 0
    assert not others or not is_each_told or any(append.key for append in run.appends)


@pytest.mark.parametrize("kind", [Store, NearStore])
@settings(max_examples=100, deadline=None)
@given(happening=steps)
@example(
    happening=[
        ("hold",), ("append", 0, "", False), ("turn",), ("turn",), ("append", 0, "", True), ("cancel", 0), ("lose",),
    ]
)  # fmt: skip
@example(
    happening=[("append", 0, key, False) for key in ("a", "", "a", "a")]
)  # the third is the first, the last is not
@example(happening=[*4 * [("append", 0, "", False)], ("turn",), ("cancel", 2), ("append", 0, "", False)])
def test_what_is_told_is_what_the_logs_have(kind: type[Store], happening: list[tuple[Any, ...]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_link, "FIRST_BACKOFF", 0.0)
        patch.setattr(store_link, "LAST_BACKOFF", 0.0)
        patch.setattr(history_writer, "BATCH_APPENDS", 3)
        patch.setattr(history_writer, "PAUSE", 0.0)
        patch.setattr(history_writer, "TURN", 3)
        asyncio.run(what_is_told_is_what_the_logs_have(kind(), happening))


async def test_a_log_that_moves_is_appended_to_where_it_arrives_and_others_meanwhile() -> None:
    store = Store()
    async with linked(store) as node:
        store.moving.add(LOG.topic)
        moving = [node.append(b"%d" % number) for number in range(3)]
        await node.append(b"other", LOGS[1])
        assert not any(task.done() for task in moving)
        store.moving.clear()
        assert [(await task).stamp.position.offset for task in moving] == [1, 2, 3]
        assert node.outcomes == (4, 0, 0)


async def test_what_waits_for_a_log_that_moves_is_refused_when_its_time_is_over() -> None:
    store = Store()
    async with linked(store, timeout=0.2) as node:
        store.moving.add(LOG.topic)
        error = await failing(node.append(b"1"))
        assert error.outcome == "refused"
        store.moving.clear()
        await node.append(b"2")
        assert node.offsets() == [1]


async def test_of_an_append_in_this_process_nothing_is_waited_for() -> None:
    async with linked(MemoryHistory("memory://writer-at-once")) as node:
        appending = node.link.append(Append(LOG, b"1"), node.had.append)
        with pytest.raises(StopIteration) as ended:
            appending.send(None)
        appended = ended.value.value
        assert (node.had, appended.stamp.position.offset) == ([appended], 1)
        assert node.outcomes == (1, 0, 0)


async def test_who_appends_on_and_on_in_this_process_leaves_others_a_turn() -> None:
    async with linked(MemoryHistory("memory://writer-turns")) as node:
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(take_turns())
        for number in range(10 * history_writer.TURN):
            await node.link.append(Append(LOG, b"%d" % number), node.had.append)
        others.cancel()
        assert turns >= 9
        assert node.offsets() == list(range(1, 10 * history_writer.TURN + 1))


async def test_an_append_in_this_process_is_refused_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryHistory("memory://writer-refused")
    async with linked(store) as node:
        monkeypatch.setattr(store, "max_payload", 3)
        assert "takes 3" in str(await failing(node.link.append(Append(LOG, b"1234"), node.had.append)))
        await node.link.append(Append(LOG, b"1", "key", bytes(16)), node.had.append)
        with pytest.raises(HistoryError):
            await node.link.append(Append(LOG, b"2", "key", bytes(15) + b"1"), node.had.append)
        assert len(node.had) == 1
    assert (await failing(node.link.append(Append(LOG, b"1"), node.had.append))).outcome == "refused"
    assert node.outcomes == (1, 2, 0)  # a conflict is neither


async def test_what_is_appended_in_this_process_in_one_turn_is_bounded_in_bytes() -> None:
    async with linked(MemoryHistory("memory://writer-bound"), queue_size=4 * history_writer.OVERHEAD) as node:
        calls = [node.link.append(Append(LOG, b"1"), node.had.append) for _ in range(5)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in results] == 3 * [Appended] + 2 * [BackplaneUnavailable]
        await node.link.append(Append(LOG, b"2"), node.had.append)
        assert node.outcomes == (4, 2, 0)


async def test_what_was_appended_in_this_process_in_turns_before_takes_little_of_the_next() -> None:
    most = 40
    async with linked(
        MemoryHistory("memory://writer-each-turn"), queue_size=most * (history_writer.OVERHEAD + 1)
    ) as node:
        for _ in range(3 * most):
            await node.link.append(Append(LOG, b"1"), node.had.append)
            await asyncio.sleep(0)
        assert node.outcomes == (3 * most, 0, 0)
        calls = [node.link.append(Append(LOG, b"2"), node.had.append) for _ in range(2 * most)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        taken = len([each for each in results if isinstance(each, Appended)])
        assert most - most // history_writer.UNCOUNTED <= taken <= most


async def test_a_large_message_after_small_ones_in_turns_before_waits_for_nothing() -> None:
    size = 100_000
    async with linked(MemoryHistory("memory://writer-large"), queue_size=size) as node:
        for envelope in (b"1", bytes(size - 10), b"2", bytes(size - 10)):
            await node.link.append(Append(LOG, envelope), node.had.append)
            await asyncio.sleep(0)
        assert node.outcomes == (4, 0, 0)


async def test_what_follows_an_append_in_this_process_may_fail_and_costs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def failing_listener(appended: Appended) -> None:
        raise RuntimeError(appended.stamp.position.offset)

    async with linked(MemoryHistory("memory://writer-follows")) as node:
        await node.link.append(Append(LOG, b"1"), failing_listener)
        assert (await node.append(b"2")).stamp.position.offset == 2
        assert node.outcomes == (2, 0, 0)
    assert "what follows an append failed" in caplog.text


async def test_who_appends_much_in_this_process_leaves_others_a_turn_and_is_not_refused() -> None:
    size = history_writer.BATCH_BYTES
    async with linked(MemoryHistory("memory://writer-large"), queue_size=2 * size) as node:
        for _ in range(5):
            await node.link.append(Append(LOG, bytes(size)), node.had.append)
        assert node.outcomes == (5, 0, 0)
