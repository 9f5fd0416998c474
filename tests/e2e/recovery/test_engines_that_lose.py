"""Engines that lose what they had, whole or in part, or go back: it is told, once, and never other messages."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support import eventually
from tests.support.crossings import wander
from tests.support.remembering import kinds, races
from tests.support.returning import Ledger, Page
from tests.support.stages import Stage, Staging
from velocity_ws import BackplaneUnavailable

ROOM = "chat:1"


@asynccontextmanager
async def audience(stage: Stage, ledger: Ledger, room: str = ROOM) -> AsyncIterator[tuple[list[Page], Page]]:
    """Somebody in a room on each node, and somebody who was there and has lost the connection; each has 3 messages."""
    stay = [await ledger.page(f"stays {number}").open(place) for number, place in enumerate(stage.places)]
    goes = await ledger.page("goes").open(stage.places[0])
    for page in (*stay, goes):
        await page.join(room)
    await ledger.say_all(stage.brokers[0], room, 3)
    await ledger.reaches(room, 2)
    goes.cut()
    try:
        yield stay, goes
    finally:
        for page in ledger.pages:
            page.cut()


async def begins_anew(stage: Stage, ledger: Ledger, stay: list[Page], goes: Page) -> None:
    """The log has a new life: members are told once, and who comes back from the old one."""
    await ledger.insist(stage.brokers[-1], ROOM)
    await ledger.reaches(ROOM, ledger.log(ROOM).begun - 1)
    await stage.listens()  # to its log as well, which has a connection of its own
    await goes.open(stage.places[-1])
    answer = await goes.join(ROOM)
    assert (answer["recovered"], answer["reason"]) == (False, "epoch")
    await ledger.say_all(stage.brokers[0], ROOM, 3)
    await ledger.settles(stage.brokers[0], ROOM)
    for page in stay:
        assert [gap["reason"] for gap in page.trails[ROOM].gaps] == ["epoch"]
        assert page.trails[ROOM].gaps[0]["missed"] is None
    assert goes.trails[ROOM].gaps == []


@pytest.mark.parametrize("kind", kinds("valkey", "redis", "nats", "embedded"))
async def test_the_engine_is_killed_and_returns_empty(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        async with audience(stage, ledger) as (stay, goes):
            await ledger.say(stage.brokers[0], ROOM)  # which who has gone will not get
            await stage.engine.restart_empty()
            await begins_anew(stage, ledger, stay, goes)


@pytest.mark.parametrize("kind", kinds("memory", "alone", "valkey", "redis", "cluster", "nats"))
async def test_an_engine_loses_all_it_had_while_it_runs(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        async with audience(stage, ledger) as (stay, goes):
            await stage.engine.forget()
            await begins_anew(stage, ledger, stay, goes)


@pytest.mark.parametrize("kind", kinds("valkey", "redis", "nats"))
async def test_an_engine_loses_what_it_knows_beside_the_entries(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        async with audience(stage, ledger) as (stay, goes):
            await stage.engine.lose_meta()
            await begins_anew(stage, ledger, stay, goes)


@pytest.mark.parametrize("kind", kinds("valkey", "redis"))
async def test_an_engine_loses_the_entries_alone(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        async with audience(stage, ledger) as (stay, goes):
            await ledger.say(stage.brokers[0], ROOM)
            await ledger.reaches(ROOM, 3)
            await stage.engine.lose_entries()
            where = await ledger.page("new").open(stage.places[-1])
            await where.join(ROOM)
            await ledger.say(stage.brokers[0], ROOM)
            await goes.open(stage.places[-1])
            await goes.join(ROOM)  # with what a node has still, or with the reason
            await ledger.settles(stage.brokers[0], ROOM)
            assert [page.trails[ROOM].gaps for page in stay] == [[]] * len(stay)
            answer = goes.trails[ROOM].answers[-1]
            assert answer["recovered"] or answer["reason"] == "evicted"


async def test_a_broker_that_starts_again_begins_anew(staging: Staging) -> None:
    ledger = Ledger()
    page = ledger.page("ann")
    for turn in range(2):
        async with staging("alone") as stage:
            await page.open(stage.places[0])
            answer = await page.join(ROOM)
            assert answer.get("reason") == ("epoch" if turn else None)
            await ledger.settles(stage.brokers[0], ROOM)
            page.cut()


# --- case 5: the epoch changes at any moment


async def forgetful(stage: Stage, seed: int) -> None:
    """Some speak, others come and go, and the engine forgets everything now and then."""
    chance, room, ledger = random.Random(seed), f"chat:{seed}", Ledger(f"seed {seed}")
    everyone = [ledger.page(f"page {number}") for number in range(4)]

    async def speak() -> None:
        for _ in range(40):
            await ledger.say(chance.choice(stage.brokers), room)
            if not chance.randrange(20):
                await stage.engine.forget()
            await asyncio.sleep(chance.expovariate(500))

    speaking = [asyncio.create_task(speak()) for _ in range(2)]
    try:
        async with asyncio.TaskGroup() as group:
            for page in everyone:
                group.create_task(wander(page, stage, room, chance, lambda: all(task.done() for task in speaking)))
        await asyncio.gather(*speaking)
        await ledger.settles(chance.choice(stage.brokers), room)
    finally:
        for page in everyone:
            page.cut()
        for task in speaking:
            task.cancel()
        await asyncio.wait(speaking)


@pytest.mark.parametrize(("kind", "seeds"), races("memory", "alone", "valkey", "redis", "cluster", "nats"))
async def test_the_epoch_changes_while_people_join(kind: str, seeds: int, staging: Staging) -> None:
    async with staging(kind) as stage:
        for seed in range(seeds):
            await forgetful(stage, seed)


# --- case 6: a log that goes back


@pytest.mark.parametrize("kind", kinds("valkey", "redis", "nats"))
async def test_a_log_that_goes_back_and_on_with_other_messages(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        log = ledger.log(ROOM)
        ahead, behind = [await ledger.page(name).open(stage.places[0]) for name in ("ahead", "behind")]
        stays = await ledger.page("stays").open(stage.places[-1])
        for page in (ahead, behind, stays):
            await page.join(ROOM)
        await ledger.say_all(stage.brokers[0], ROOM, 99)
        await ledger.reaches(ROOM, 98)
        behind.cut()
        await ledger.say(stage.brokers[0], ROOM)
        await stage.engine.save()
        await stage.listens()
        lost = range(100, 105)
        await ledger.say_all(stage.brokers[0], ROOM, len(lost))
        await ledger.reaches(ROOM, lost[-1])
        ahead.cut()
        log.is_straight = False
        log.undone.update(lost)
        await stage.engine.rewind()
        await ledger.insist(stage.brokers[0], ROOM)
        for _ in range(9):
            await ledger.insist(stage.brokers[-1], ROOM)
        for page, recovered, reason in ((ahead, False, "rewound"), (behind, True, None)):
            await page.open(stage.places[-1])
            answer = await page.join(ROOM)
            assert (answer["recovered"], answer.get("reason")) == (recovered, reason)
        assert answer["missed"] == 11
        await ledger.settles(stage.brokers[0], ROOM)
        assert len(stays.trails[ROOM].gaps) == 1
        assert not set(behind.trails[ROOM].got) & set(lost)
        for page in (ahead, behind, stays):
            page.cut()


@pytest.mark.parametrize("kind", kinds("valkey", "redis", "nats"))
async def test_a_log_that_goes_back_and_says_nothing_more(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        page = await ledger.page("ann").open(stage.places[0])
        await page.join(ROOM)
        await ledger.say_all(stage.brokers[0], ROOM, 3)
        await stage.engine.save()
        await stage.listens()
        await ledger.say_all(stage.brokers[0], ROOM, 3)
        await ledger.reaches(ROOM, 5)
        log = ledger.log(ROOM)
        log.is_straight = False
        log.undone.update((3, 4, 5))
        await stage.engine.rewind()
        await eventually(lambda: page.trails[ROOM].gaps)  # without another message
        page.cut()
        await page.open(stage.places[-1])
        await stage.listens()
        assert (await page.join(ROOM))["recovered"] is True  # from where the gap has put it
        with contextlib.suppress(BackplaneUnavailable):
            await ledger.say(stage.brokers[0], ROOM)
        await ledger.settles(stage.brokers[0], ROOM)
        page.cut()
