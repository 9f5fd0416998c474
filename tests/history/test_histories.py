"""Histories: what a node owes its engine, and tells it as soon as it can; its start, its stop, and its start again."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.support import eventually, settings
from tests.support.holding import ROOM, HeldHistory, house, open_to_all
from velocity_ws import BackplaneUnavailable, Broker
from velocity_ws.history import histories as histories_module


async def test_a_removal_that_the_engine_refused_is_told_again_while_it_is_reached(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(histories_module, "AGAIN", 0.01)
    async with house(monkeypatch) as place, place.guest() as guest:
        at = (await guest.join())["at"]
        place.store.failing.add("remove")
        await place.histories.put_out(guest.session, ROOM)
        assert "told later" in caplog.text
        assert place.histories._owed
        await eventually(lambda: place.store.calls["remove"] > 2)
        place.store.failing.clear()
        await eventually(lambda: not place.histories._owed)
        await place.say("a")
        await place.broker.leave_room(guest.session.id, ROOM)
        answer = await place.broker.join_room(guest.session.id, ROOM, since=at)
        assert answer.reason == "forbidden"


async def test_the_key_and_the_kinds_are_told_though_one_of_them_is_refused_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(histories_module, "AGAIN", 0.01)
    store = HeldHistory()
    store.failing |= {"secret"}
    async with house(monkeypatch, store=store) as place:
        await eventually(lambda: store.calls["keep"])
        assert place.histories.resumptions.key is None
        store.failing.clear()
        await eventually(lambda: place.histories.resumptions.key)


async def test_what_is_owed_at_the_end_is_logged_and_there_is_a_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(histories_module, "MAX_OWED", 1)
    async with house(monkeypatch) as place, place.guest() as guest, place.guest() as other:
        place.store.failing |= {"remove"}
        await place.histories.put_out(guest.session, ROOM)
        await place.histories.put_out(other.session, ROOM)
        assert "are forgotten" in caplog.text
        assert len(place.histories._owed) == 1
    assert "was not told of 1 removals" in caplog.text


async def test_nothing_is_left_of_a_broker_that_stops_and_it_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(monkeypatch) as place:
        before = asyncio.all_tasks()
        for _ in range(2):
            async with place.guest() as guest:
                at = (await guest.join())["at"]
                await place.say("a")
                assert await guest.reads(1) == ["a"]
            old = place.histories
            await place.broker.stop()
            assert not old.feeds.by_topic
            assert place.broker.node.hub.logs is None
            assert asyncio.all_tasks() <= before
            await place.broker.start()
            async with place.guest() as guest:
                answer = await guest.join(since=at)
                assert (answer["recovered"], answer["reason"]) == (False, "epoch")  # as the engine ends with it
            before |= asyncio.all_tasks()


async def test_rooms_that_are_empty_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    async with house(monkeypatch) as place:
        for number in range(20):
            async with place.guest() as guest:
                await guest.join(f"chat:{number}")
                await place.say("a", room=f"chat:{number}")
        feeds = place.histories.feeds
        await eventually(lambda: not feeds._steps)
        assert not feeds.by_topic
        assert not feeds._by_room
        assert not feeds._checks._due
        assert feeds._rings.size == 0
    assert not caplog.records


async def test_a_start_that_nobody_waits_for_any_more_starts_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    store = HeldHistory()
    store.hold("connect")
    monkeypatch.setattr("velocity_ws.broker.wiring.create_history", lambda _url: store)
    broker = Broker(settings(backplane_url="memory://nobody-waits"))
    open_to_all(broker)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await broker.start()
    try:
        cluster = broker.node.cluster
        assert cluster is not None
        await eventually(lambda: cluster.is_healthy)
        with pytest.raises(BackplaneUnavailable, match=r"^there is no connection"):
            await broker.to_room(ROOM).send("said", 1)
        histories = broker.node.histories
        assert histories is not None
        store.let_go("connect")
        await eventually(lambda: histories.entrances.is_up)
        assert (await broker.to_room(ROOM).send("said", 1)).at
    finally:
        await broker.stop()
