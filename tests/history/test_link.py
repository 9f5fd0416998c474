"""Link: appends in order and in batches, questions together, each with an outcome in time; and connections that end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from tests.support.embedded import servers
from tests.support.engines import ENGINES, Engine, engine
from tests.support.jetstream import storing
from tests.support.links import LOG, OURS, Node, Store, failing, linked, names_of_tasks
from velocity_ws.backplane import create_backplane
from velocity_ws.backplane.base import Leaving
from velocity_ws.errors import BackplaneUnavailable, HistoryError, SettingsError
from velocity_ws.history import questions as history_questions
from velocity_ws.history.embedded import EmbeddedHistory
from velocity_ws.history.entries import Entry
from velocity_ws.history.factory import create_history
from velocity_ws.history.items import (
    Append,
    Appended,
    Lookup,
    Query,
    Removal,
    Top,
    granted,
)
from velocity_ws.testing.listener import listening

KINDS = [kind for kind in ("valkey", "redis") if kind in ENGINES]


async def until_it_works(call: Callable[[], Awaitable[object]]) -> None:
    """Try until the engine answers in time."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                await call()
                return
            except BackplaneUnavailable:
                await asyncio.sleep(0.01)


# --- appends


async def test_appends_leave_in_order_and_together() -> None:
    store = Store()
    async with linked(store) as node:
        tasks = [node.append(b"%d" % number) for number in range(1000)]
        results = await asyncio.gather(*tasks)
        assert [result.stamp.position.offset for result in results] == list(range(1, 1001))
        assert node.had == list(results)
        found = await node.link.read(Query(LOG, 0, 1000))
        assert [entry.envelope for entry in found.entries] == [b"%d" % number for number in range(1000)]
        assert [count for name, count in store.calls if name == "append"] == [512, 488]
        assert node.outcomes == (1000, 0, 0)


async def test_a_full_batch_is_one_of_many_bytes() -> None:
    store = Store()
    async with linked(store) as node:
        await asyncio.gather(*(node.append(b"x" * 100_000) for _ in range(8)))
        assert [count for name, count in store.calls if name == "append"] == [3, 3, 2]


async def test_one_append_at_a_time_is_at_the_engine() -> None:
    store = Store()
    async with linked(store) as node:
        store.is_held = True
        first = node.append(b"1")
        await eventually(lambda: store.calls)
        others = [node.append(b"%d" % number) for number in range(2, 6)]
        await asyncio.sleep(0)
        assert node.had == []
        store.let()
        await asyncio.gather(first, *others)
        assert node.offsets() == [1, 2, 3, 4, 5]
        assert store.calls == [("append", 1), ("append", 4)]
        assert store.most_at_once == 1


async def test_what_waits_is_bounded_in_bytes() -> None:
    store = Store()
    async with linked(store, queue_size=10_000) as node:
        store.is_held = True
        first = node.append(b"x" * 20_000)  # alone, one may have more
        await eventually(lambda: store.calls)
        waiting = [node.append(b"x" * 1000) for _ in range(20)]
        await eventually(lambda: any(task.done() for task in waiting))
        store.let()
        results = await asyncio.gather(first, *waiting, return_exceptions=True)
        refused = [each for each in results if isinstance(each, BackplaneUnavailable)]
        assert {each.outcome for each in refused} == {"refused"}
        assert "too slow" in str(refused[0])
        assert node.outcomes == (1 + 7, 13, 0)
        assert results[8:] == refused
        assert node.offsets() == list(range(1, 9))


async def test_an_append_that_is_too_large_is_refused_by_itself() -> None:
    async with linked(Store()) as node:
        error = await failing(node.append(b"x" * (node.link.max_payload + 1)))
        assert (error.outcome, node.outcomes) == ("refused", (0, 1, 0))
        assert str(node.link.max_payload) in str(error)
        await node.append(b"1")
        assert node.offsets() == [1]


async def test_a_key_is_one_entry_and_another_message_under_it_a_conflict() -> None:
    async with linked(Store()) as node:
        first = await node.append(b"1", key="k", digest=b"s" * 16)
        again = await node.append(b"1", key="k", digest=b"s" * 16)
        assert (again.stamp, again.is_duplicate) == (first.stamp, True)
        with pytest.raises(HistoryError, match="another message") as caught:
            await node.append(b"2", key="k", digest=b"t" * 16)
        assert caught.value.reason == "conflict"
        assert node.had == [first]  # once, and not for the duplicate
        assert node.outcomes == (1, 0, 0)


async def test_what_follows_an_append_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    def fails(_: Appended) -> None:
        raise ValueError("no")

    async with linked(Store()) as node:
        results = await asyncio.gather(
            node.link.append(Append(LOG, b"1"), fails), node.link.append(Append(LOG, b"2"), node.had.append)
        )
        assert node.had == [results[1]]
        assert node.told == ["up"]
    assert [record.getMessage() for record in caplog.records] == ["what follows an append failed"]


async def test_a_cancelled_caller_takes_nothing_back() -> None:
    store = Store()
    async with linked(store) as node:
        store.is_held = True
        handed_over = node.append(b"1")
        await eventually(lambda: store.calls)
        waits, stays = node.append(b"2"), node.append(b"3")
        await asyncio.sleep(0)
        handed_over.cancel()
        waits.cancel()
        await asyncio.wait([handed_over, waits])
        assert handed_over.cancelled()
        assert waits.cancelled()
        store.let()
        await stays
        assert node.offsets() == [1, 2, 3]
        assert node.outcomes == (3, 0, 0)


async def test_each_append_has_an_outcome_in_time() -> None:
    store = Store()
    async with linked(store) as node:
        store.is_held = True
        until = asyncio.get_running_loop().time()
        handed_over = asyncio.create_task(node.link.append(Append(LOG, b"1"), node.had.append, until))
        await eventually(lambda: store.calls)
        waits = asyncio.create_task(node.link.append(Append(LOG, b"2"), node.had.append, until))
        assert (await failing(handed_over)).outcome == "unknown"
        assert (await failing(waits)).outcome == "refused"
        store.let()
        await eventually(lambda: node.had)
        third = await node.append(b"3")
        assert node.offsets() == [1, 2]  # the first is told of, though its time was over; the second never left
        assert third.stamp.position.offset == 2
        assert node.outcomes == (1, 1, 1)


# --- questions


async def test_what_is_asked_in_one_turn_is_one_call_of_each_kind() -> None:
    store = Store()
    logs = [LOG._replace(topic=f"velocity.room.{number}") for number in range(100)]
    async with linked(store) as node:
        link = node.link
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(link.top(log)) for log in logs]
            for log in logs:
                group.create_task(link.read(Query(log, max_bytes=1000)))
                group.create_task(link.remove(Removal(log, "ann")))
                group.create_task(link.removed(Lookup(log, "bob")))
        assert sorted(store.calls) == [("read", 100), ("remove", 100), ("removed", 100), ("tops", 100)]
        tops = await link.tops(logs)
        assert [top.position.epoch for top in tops if top] == [task.result().position.epoch for task in asked]
        assert len({top.position.epoch for top in tops if top}) == 100
        assert await link.removed(Lookup(logs[0], "ann")) == 1
        assert len(await link.secret("velocity.secret")) == 32
        assert (await link.clear(LOG)).position.revision == 1
        assert await link.kept("velocity.kinds") is None
        await link.keep("velocity.kinds", b"value")
        assert await link.kept("velocity.kinds") == b"value"


async def test_two_calls_of_a_kind_run_at_once_and_others_join_the_next() -> None:
    store = Store()
    async with linked(store) as node:
        store.is_held = True
        asked: list[asyncio.Task[Top]] = []
        while len(asked) < 2:
            asked.append(asyncio.create_task(node.link.top(LOG)))
            await eventually(lambda: len(store.calls) == len(asked))
        asked += [asyncio.create_task(node.link.top(LOG)) for _ in range(700)]
        check = asyncio.create_task(node.link.tops([LOG, LOG]))  # which has calls of its own
        await eventually(lambda: len(store.calls) == 3)
        store.let()
        await asyncio.gather(check, *asked)
        assert store.calls == [("tops", 1), ("tops", 1), ("tops", 2), ("tops", 512), ("tops", 188)]


async def test_answers_that_are_large_come_in_several_calls() -> None:
    store = Store()
    async with linked(store) as node:
        query = Query(LOG, max_bytes=history_questions.BATCH_BYTES // 4)
        huge = Query(LOG, max_bytes=history_questions.BATCH_BYTES * 4)
        await asyncio.gather(*(node.link.read(each) for each in (query, query, huge, query, query, query, query)))
        assert sorted(store.calls) == [("read", 1), ("read", 2), ("read", 4)]


async def test_questions_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_questions, "MAX_WAITING", 5)
    store = Store()
    async with linked(store) as node:
        store.is_held = True
        asked = [asyncio.create_task(node.link.top(LOG)) for _ in range(7)]
        await eventually(lambda: any(task.done() for task in asked))
        store.let()
        results = await asyncio.gather(*asked, return_exceptions=True)
        refused = [each for each in results if isinstance(each, BackplaneUnavailable)]
        assert len(refused) == 2
        assert "too slow" in str(refused[0])


async def test_a_question_whose_caller_has_gone_is_not_asked_but_a_change_is_made() -> None:
    store = Store()
    async with linked(store) as node:
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(node.link.top(LOG)),
            asyncio.create_task(node.link.remove(Removal(LOG, "ann"))),
        ]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert await node.link.removed(Lookup(LOG, "ann")) == 1
        assert [name for name, _ in store.calls] == ["remove", "removed"]


async def test_a_question_is_answered_in_time_or_fails() -> None:
    store = Store()
    async with linked(store, timeout=0.1) as node:
        store.is_held = True
        errors = await asyncio.gather(
            *map(failing, (node.link.top(LOG), node.link.remove(Removal(LOG, "ann")), node.link.tops([LOG])))
        )
        assert [error.outcome for error in errors] == ["refused", "unknown", "refused"]
        store.let()
        assert [granted(top).position.revision for top in await store.tops([LOG])] == [1]


async def test_what_the_engine_refuses_costs_the_others_nothing() -> None:
    store = Store()
    async with linked(store) as node:
        notice = b"x" * (node.link.max_payload + 1)
        large = Removal(LOG, "ann", notice)
        done, *errors = await asyncio.gather(
            node.link.remove(Removal(LOG, "bob")),
            failing(node.link.remove(large)),
            failing(node.link.clear(LOG, notice)),
        )
        assert isinstance(done, Top)
        assert [error.outcome for error in errors if isinstance(error, BackplaneUnavailable)] == ["refused"] * 2
        assert node.told == ["up"]


# --- connections


@pytest.mark.parametrize("is_stopped", [True, False])
async def test_callers_who_wait_when_the_connection_ends_are_told_what_is_true(is_stopped: bool) -> None:
    store = Store()
    async with linked(store) as node:
        store.is_held = True
        callers: list[Callable[[], Awaitable[object]]] = [
            *(lambda: node.append(b"1"), lambda: node.link.remove(Removal(LOG, "ann")), lambda: node.link.top(LOG)),
            *(lambda: node.link.remove(Removal(LOG, "bob")), lambda: node.link.clear(LOG)),
        ]
        handed_over = [asyncio.create_task(failing(call())) for call in callers]
        await eventually(lambda: len(store.calls) == 4)
        waiting = [asyncio.create_task(failing(call())) for call in (callers[0], callers[2])]
        await asyncio.sleep(0)
        if is_stopped:
            await node.link.stop()
        else:
            assert store.lost is not None
            store.lost(ConnectionError("somebody pulled the plug"))
        outcomes = [error.outcome for error in await asyncio.gather(*handed_over)]
        assert outcomes == ["unknown", "unknown", "refused", "unknown", "unknown"]
        assert [error.outcome for error in await asyncio.gather(*waiting)] == ["refused", "refused"]
        assert node.outcomes == (0, 1, 1)
        if is_stopped:
            assert "is stopped" in str(await failing(node.append(b"2")))
            assert node.told == ["up", "down"]
        else:
            store.let()
            await eventually(lambda: node.told == ["up", "down", "up"])
            assert (await node.append(b"2")).stamp.position.offset == 2


async def test_a_lost_connection_is_opened_again_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "velocity_ws.history")
    store = Store()
    async with linked(store) as node:
        store.problem = ConnectionRefusedError("nothing listens there")
        assert store.lost is not None
        store.lost(ConnectionError("somebody pulled the plug"))
        await eventually(lambda: node.told == ["up", "down"])
        assert "there is no connection" in str(await failing(node.append(b"1")))
        await eventually(lambda: len(caplog.records) == 2)
        store.problem = None
        await eventually(lambda: node.link.is_up)
        await node.append(b"1")
    assert node.told == ["up", "down", "up", "down"]
    trying = "for the history of rooms; trying again until it is there"
    assert [record.getMessage() for record in caplog.records] == [
        f"there is no connection to the engine memory://test (somebody pulled the plug) {trying}",
        f"there is no connection to the engine memory://test (nothing listens there) {trying}",
        "the engine keeps the history of rooms again",
    ]


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_connection_is_left_when_nothing_is_in_doubt_and_what_waits_is_for_the_next(
    caplog: pytest.LogCaptureFixture, is_there: bool
) -> None:
    store = Store()
    async with linked(store) as node:
        store.is_held = True
        handed_over = [node.append(b"1"), asyncio.create_task(node.link.top(LOG))]
        await eventually(lambda: len(store.calls) == 2)
        assert store.lost is not None
        if not is_there:
            store.problem = ConnectionRefusedError("nothing listens there")
        store.lost(Leaving("its server goes"))
        waiting = [node.append(b"2"), asyncio.create_task(node.link.top(LOG))]
        await asyncio.wait(waiting, timeout=0.05)
        assert len(store.calls) == 2
        assert node.told == ["up"]
        store.let()
        await asyncio.gather(*handed_over)
        if is_there:
            await asyncio.gather(*waiting)
            assert node.told == ["up", "down", "up"]
            assert node.offsets() == [1, 2]
            assert node.outcomes == (2, 0, 0)
        else:
            assert [(await failing(each)).outcome for each in waiting] == ["refused", "refused"]
            assert node.outcomes == (1, 1, 0)
    assert any(record.levelno == logging.WARNING for record in caplog.records) is not is_there


async def test_a_connection_that_answers_nothing_any_more_is_left_all_the_same() -> None:
    store = Store()
    async with linked(store, timeout=0.5) as node:
        store.is_held = True
        append = node.append(b"1")
        await eventually(lambda: store.calls)
        assert store.lost is not None
        store.lost(Leaving("its server goes"))
        assert (await failing(append)).outcome == "unknown"
        store.is_held = False
        await eventually(lambda: node.told == ["up", "down", "up"])
        assert (await node.append(b"2")).stamp.position.offset == 2


async def test_a_store_that_goes_on_with_another_server_is_told_of_and_stays() -> None:
    store = Store()
    async with linked(store) as node:
        node.link.on_moved.append(lambda: node.told.append("moved"))
        store.on_moved()
        await node.append(b"1")
        assert node.told == ["up", "moved"]


async def test_a_call_that_fails_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    async with linked(store) as node:
        for error in (ConnectionError("it is gone"), ValueError("of the store itself")):
            for is_append in (True, False):
                node.told.clear()
                store.error = error
                await failing(node.append(b"1") if is_append else node.link.top(LOG))
                store.error = None
                await eventually(lambda: node.told == ["down", "up"])
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failed) == 2  # with the traceback of what no store should raise
    assert all(record.exc_info for record in failed)


async def test_an_engine_that_is_not_there_is_waited_for() -> None:
    store = Store()
    store.problem = ConnectionRefusedError("nothing listens there")
    async with linked(store, patience=0.05) as node:
        assert not node.link.is_up
        error = await failing(node.link.top(LOG))
        assert error.outcome == "refused"
        store.problem = None
        await eventually(lambda: node.link.is_up)
        assert node.told == ["up"]
        await node.link.top(LOG)


async def test_an_engine_that_keeps_no_logs_is_an_error_of_the_settings(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    store.problem = SettingsError({"WS_BACKPLANE_URL": "it keeps no history"})
    node = Node(store)
    with pytest.raises(SettingsError, match="it keeps no history"):
        await node.link.start(DEADLINE)
    assert (node.told, caplog.records) == ([], [])
    assert not names_of_tasks() & OURS
    assert store.releases == 1
    store.problem = None
    async with linked(store) as node:  # one that is found so later is the log's
        store.problem = SettingsError({"WS_BACKPLANE_URL": "it keeps no history"})
        assert store.lost is not None
        store.lost(ConnectionError("somebody pulled the plug"))
        await eventually(lambda: len(caplog.records) == 2)
        store.problem = None
        await eventually(lambda: node.link.is_up)
    assert "(it keeps no history)" in caplog.records[1].getMessage()


async def test_a_link_can_be_started_again() -> None:
    store = Store()
    node = Node(store)
    for _ in range(2):
        await node.link.start(DEADLINE)
        assert (await node.append(b"1")).stamp.position.offset == 1  # the logs were given back with the engine
        await node.link.stop()
        await node.link.stop()
    assert node.told == ["up", "down", "up", "down"]


async def test_a_connection_that_ends_before_the_broker_is_not_worth_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    async with linked(store) as node:
        node.link.stop_soon()
        assert store.lost is not None
        store.lost(ConnectionError("it ends, too"))
        await eventually(lambda: "down" in node.told)
    assert caplog.records == []


# --- real engines


@asynccontextmanager
async def server_of(kind: str, directory: Path) -> AsyncIterator[Engine]:
    if kind == "nats":
        async with storing(directory) as server:
            yield server
    else:
        async with engine(kind) as server:
            yield server


@pytest.mark.parametrize("kind", ["nats", *KINDS])
async def test_on_an_engine_what_is_appended_is_kept_and_heard_in_order(kind: str, tmp_path: Path) -> None:
    async with server_of(kind, tmp_path) as server, listening(create_backplane(server.url), [LOG.topic]) as listener:
        async with linked(create_history(server.url)) as node:
            results = await asyncio.gather(*(node.append(b"%d" % number) for number in range(200)))
            assert node.had == results
            heard = [Entry.unpack(data) for _, data in await listener.messages(200)]
            assert [entry.stamp for entry in heard] == [result.stamp for result in results]
            found = await node.link.read(Query(LOG, 150, 100))
            assert found.entries == heard[150:]


@pytest.mark.parametrize("kind", ["nats", *KINDS])
async def test_an_engine_that_stands_still_is_given_up_and_reached_again(kind: str, tmp_path: Path) -> None:
    async with server_of(kind, tmp_path) as server, linked(create_history(server.url), timeout=0.5) as node:
        server.freeze()
        errors = await asyncio.gather(
            *map(failing, (node.append(b"1"), node.link.remove(Removal(LOG, "ann")), node.link.top(LOG)))
        )
        assert [error.outcome for error in errors] == ["unknown", "unknown", "refused"]
        await eventually(lambda: node.told == ["up", "down"])
        server.thaw()
        await eventually(lambda: node.told == ["up", "down", "up"])
        await until_it_works(lambda: node.append(b"2"))
        assert node.offsets() == sorted(set(node.offsets()))


@pytest.mark.parametrize("kind", ["nats", *KINDS])
async def test_stopping_while_an_engine_stands_still(kind: str, tmp_path: Path) -> None:
    async with server_of(kind, tmp_path) as server, linked(create_history(server.url)) as node:
        server.freeze()
        calls = node.append(b"1"), node.link.remove(Removal(LOG, "ann")), node.link.top(LOG)
        waiting = [asyncio.ensure_future(failing(call)) for call in calls]
        for _ in range(5):
            await asyncio.sleep(0)  # until all are handed over
        second = asyncio.create_task(failing(node.append(b"2")))
        await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE / 2):  # long before their time is over
            await node.link.stop()
            errors = await asyncio.gather(*waiting, second)
        assert [error.outcome for error in errors] == ["unknown", "unknown", "refused", "refused"]
        assert node.outcomes == (0, 1, 1)


@pytest.mark.parametrize("kind", ["nats", *KINDS])
async def test_an_engine_that_is_killed_under_load(kind: str, tmp_path: Path) -> None:
    async with server_of(kind, tmp_path) as server, linked(create_history(server.url)) as node:
        first = await node.append(b"1")
        writing = [node.append(b"x" * 50_000) for _ in range(100)]
        await eventually(lambda: len(node.had) > 1)
        await server.kill()
        results = await asyncio.gather(*writing, return_exceptions=True)
        done = [each for each in results if isinstance(each, Appended)]
        outcomes = [each.outcome for each in results if isinstance(each, BackplaneUnavailable)]
        assert len(done) + len(outcomes) == 100
        assert outcomes == sorted(outcomes, reverse=True)  # those in doubt are before those that never left
        assert node.offsets() == list(range(1, len(done) + 2))
        assert node.outcomes == (1 + len(done), outcomes.count("refused"), outcomes.count("unknown"))
        await eventually(lambda: node.told == ["up", "down"])
        await server.start()
        await eventually(lambda: node.link.is_up)
        again = await node.append(b"2")
        assert (again.stamp.position.epoch == first.stamp.position.epoch) is (kind == "nats")


async def test_an_embedded_engine_that_is_lost_is_run_again_and_not_missed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(EmbeddedHistory, "grace", DEADLINE)
    async with linked(create_history("embedded://link")) as node:
        await node.append(b"1")
        for process in servers(tmp_path / "velocity-ws"):
            process.kill()
        await eventually(lambda: node.told == ["up", "down", "up"])
        assert (await node.append(b"2")).stamp.position.offset == 1
    assert not servers(tmp_path / "velocity-ws")
    assert [record for record in caplog.records if record.name == "velocity_ws.history"] == []
