"""Coming back to a room: everything that was missed comes, once and in order, or the reason why nothing does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import eventually
from tests.support.crossings import BROKEN, speak, wander
from tests.support.remembering import RACES, kinds
from tests.support.returning import Denied, Ledger, Page
from tests.support.say import Say
from tests.support.stages import Stage, Staging
from velocity_ws import Broker

ROOM = "chat:1"


async def empties(broker: Broker, room: str) -> None:
    """Wait until a room remembers nothing any more."""
    async with asyncio.timeout(10):
        while await broker.history(room):
            await asyncio.sleep(0.02)  # no event tells


# --- case 1: joining while messages flow


async def surf(page: Page, stage: Stage, room: str, chance: random.Random, is_over: Callable[[], bool]) -> None:
    """The same of somebody whom the server puts into the room, and who says where it stopped before anything else."""
    while True:
        await page.open(chance.choice(stage.places), query=f"in={room}")
        is_last = is_over()
        try:
            token = page.sessions[-1].get("token") if page.sessions else None
            await page.resume(token)
            if is_last:
                await eventually(lambda: room in page.trails and page.trails[room].is_in)
                return
            await asyncio.sleep(chance.choice([0, 0.001, chance.uniform(0, 0.04)]))
        except BROKEN:
            pass
        page.cut()
        await asyncio.sleep(chance.choice([0, chance.uniform(0, 0.03)]))


async def crossing(stage: Stage, seed: int, moves: Callable[..., Any], **pages: Any) -> tuple[int, int]:
    """Some speak, others come and go, as a seed has it; how many messages came, and were told lost."""
    chance, room, ledger = random.Random(seed), f"chat:{seed}", Ledger(f"seed {seed}")
    everyone = [ledger.page(f"page {number}", **pages) for number in range(4)]
    speaking = [asyncio.create_task(speak(stage, ledger, room, chance, 40, 500)) for _ in range(2)]
    try:
        async with asyncio.TaskGroup() as group:
            for page in everyone:
                group.create_task(moves(page, stage, room, chance, lambda: all(task.done() for task in speaking)))
        await asyncio.gather(*speaking)
        return await ledger.settles(chance.choice(stage.brokers), room)
    finally:
        for page in everyone:
            page.cut()
        for task in speaking:
            task.cancel()
        await asyncio.wait(speaking)


@pytest.mark.parametrize(("kind", "seeds"), RACES)
async def test_joins_while_messages_flow(kind: str, seeds: int, staging: Staging, say: Say) -> None:
    async with staging(kind) as stage:
        sums = [await crossing(stage, seed, wander) for seed in range(seeds)]
    assert sum(told for _, told in sums) == 0
    say(f"{kind}: {seeds} seeds, {sum(delivered for delivered, _ in sums)} messages came, none was lost")


@pytest.mark.parametrize(("kind", "seeds"), RACES)
async def test_joins_by_the_server_while_messages_flow(kind: str, seeds: int, staging: Staging, say: Say) -> None:
    async with staging(kind) as stage:
        sums = [await crossing(stage, seed, surf, resumes=True) for seed in range(seeds)]
    assert sum(told for _, told in sums) == 0
    say(f"{kind}: {seeds} seeds, {sum(delivered for delivered, _ in sums)} messages came, none was lost")


@pytest.mark.parametrize(("kind", "seeds"), RACES)
async def test_the_first_message_of_a_room_races_its_first_join(kind: str, seeds: int, staging: Staging) -> None:
    async with staging(kind, max_rooms_per_client=0) as stage:
        ledger = Ledger()
        everyone = [await ledger.page(f"page {number}").open(stage.places[-number]) for number in range(2)]
        for seed in range(10 * seeds):
            chance, room = random.Random(seed), f"chat:{seed}"
            ledger.note = f"seed {seed}"

            async def at_some_time(act: Callable[..., Any], *args: Any, chance: random.Random = chance) -> None:
                for _ in range(chance.randint(0, 6)):
                    await asyncio.sleep(0)
                await act(*args)

            acts: list[tuple[Any, ...]] = [(page.join, room) for page in everyone]
            acts += [(ledger.insist, chance.choice(stage.speakers), room) for _ in range(2)]
            chance.shuffle(acts)
            await asyncio.gather(*[at_some_time(*act) for act in acts])
            await ledger.settles(stage.brokers[0], room)
        for page in everyone:
            page.cut()


# --- case 2: nothing was missed


@pytest.mark.parametrize("kind", kinds())
async def test_nothing_was_missed(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        page = await ledger.page("ann").open(stage.places[0])
        first = await page.join(ROOM)  # a room to which nobody has ever said anything
        assert set(first) == {"room", "at"}
        for number in range(3):
            page.cut()
            await page.open(stage.places[-number % 2 - 1] if len(stage.places) > 1 else stage.places[0])
            assert await page.join(ROOM) == {"room": ROOM, "at": first["at"], "recovered": True, "missed": 0}
        assert await ledger.settles(stage.brokers[0], ROOM) == (1, 0)
        page.cut()


@pytest.mark.parametrize("kind", kinds())
async def test_a_silence_longer_than_anything_is_kept(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger, room = Ledger(), "brief:1"
        page = await ledger.page("ann").open(stage.places[0])
        await page.join(room)
        await ledger.say(stage.brokers[0], room)
        await ledger.reaches(room, 0)
        page.cut()
        await empties(stage.brokers[0], room)
        await page.open(stage.places[-1])
        answer = await page.join(room)
        assert (answer["recovered"], answer["missed"]) == (True, 0)
        assert await ledger.settles(stage.brokers[0], room) == (2, 0)
        page.cut()


# --- case 3: too much was missed


async def away_for(
    stage: Stage, room: str, count: int, *, size: int = 0, wait: bool = False, others: bool = False
) -> dict[str, Any]:
    """Be away while so many messages are said; the answer to who comes back, who then goes on live.

    Args:
        stage: the nodes.
        room: a room that nobody was in.
        count: how many.
        size: bytes of each.
        wait: whether to be away until they are too old.
        others: whether others stay, so that nodes have the messages and need not read them.
    """
    ledger, apart = Ledger(f"{count} in {room}"), Ledger()
    page = await ledger.page("ann").open(stage.places[0])
    await page.join(room)
    for place in stage.places if others else ():
        await (await apart.page("other").open(place)).join(room)
    before = ledger.log(room).begun
    page.cut()
    await ledger.say_all(stage.brokers[-1], room, count, size=size)
    if wait:
        await empties(stage.brokers[0], room)
    await page.open(stage.places[-1])
    answer = await page.join(room)
    sums = await ledger.settles(stage.brokers[0], room)
    assert sums == ((count + 1, 0) if answer["recovered"] else (1, count))
    if not answer["recovered"]:
        assert set(answer) == {"room", "at", "recovered", "reason"}
        assert list(page.trails[room].got) == [before + count]
    for each in (page, *apart.pages):
        each.cut()
    return answer


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("kind", kinds())
async def test_more_was_missed_than_can_be_had(kind: str, others: bool, staging: Staging) -> None:
    async with staging(kind, recovery_limit=20) as stage:
        for room, kept, size, reason in (("small:1", 10, 0, "evicted"), ("tiny:1", 2, 300, "evicted"),
                                         ("chat:1", 20, 0, "too_many")):  # fmt: skip
            answer = await away_for(stage, room, kept, size=size, others=others)
            assert (answer["recovered"], answer["missed"]) == (True, kept)
            answer = await away_for(stage, f"{room}0", kept + 1, size=size, others=others)
            assert (answer["recovered"], answer["reason"]) == (False, reason)
        answer = await away_for(stage, "brief:1", 1, wait=True, others=others)
        assert (answer["recovered"], answer["reason"]) == (False, "expired")
        recoveries = [broker.get_stats().recoveries for broker in stage.brokers]
        sums = {key: sum(each.get(key, 0) for each in recoveries) for each in recoveries for key in each}
        assert {key: count for key, count in sums.items() if count} == {
            "recovered": 3, "evicted": 2, "too_many": 1, "expired": 1
        }  # fmt: skip


@pytest.mark.parametrize("kind", kinds())
async def test_what_an_application_has_cleared_comes_to_nobody(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        goes, stays, ends = [await ledger.page(name).open(stage.places[0]) for name in ("goes", "stays", "ends")]
        for page in (goes, stays, ends):
            await page.join(ROOM)
        await ledger.say(stage.brokers[0], ROOM, dedupe="key")
        await ledger.reaches(ROOM, 0)
        goes.cut()
        await ledger.say(stage.brokers[-1], ROOM)
        await ledger.reaches(ROOM, 1)
        ends.cut()
        await stage.brokers[-1].clear_history(ROOM)
        assert await stage.brokers[0].history(ROOM) == []
        for page, recovered, reason in ((goes, False, "evicted"), (ends, True, None)):
            await page.open(stage.places[-1])
            answer = await page.join(ROOM)
            assert (answer["recovered"], answer.get("reason"), answer.get("missed", 0)) == (recovered, reason, 0)
        assert not (await stage.brokers[0].to_room(ROOM).send("other", dedupe="key")).duplicate
        assert stays.trails[ROOM].gaps == []
        for page in (goes, stays, ends):
            page.cut()


# --- case 12: the latest alone


async def follow_the_latest(stage: Stage, seed: int) -> None:
    chance, room, ledger = random.Random(seed), f"latest:{seed}", Ledger(f"seed {seed}")
    everyone = [ledger.page(f"page {number}") for number in range(4)]
    speaking = [asyncio.create_task(speak(stage, ledger, room, chance, 40, 500)) for _ in range(2)]
    try:
        async with asyncio.TaskGroup() as group:
            for page in everyone:
                group.create_task(wander(page, stage, room, chance, lambda: all(task.done() for task in speaking)))
        await asyncio.gather(*speaking)
        await ledger.settles(chance.choice(stage.brokers), room)
        last = ledger.log(room).begun - 1
        late = await ledger.page("late").open(chance.choice(stage.places))
        everyone.append(late)
        await late.join(room)
        await ledger.reaches(room, last)
        assert list(late.trails[room].got) == [last]
        back = everyone[0]
        back.cut()
        await back.open(chance.choice(stage.places))
        assert (await back.join(room))["missed"] == 0
        ledger.proves()
    finally:
        for page in everyone:
            page.cut()
        for task in speaking:
            task.cancel()
        await asyncio.wait(speaking)


@pytest.mark.parametrize(("kind", "seeds"), RACES)
async def test_the_latest_is_never_older_than_what_was_seen(kind: str, seeds: int, staging: Staging) -> None:
    async with staging(kind) as stage:
        for seed in range(seeds):
            await follow_the_latest(stage, seed)


# --- what a position may be


@pytest.mark.parametrize("kind", kinds())
async def test_any_position_ever_seen_and_what_is_none(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger, room, other = Ledger(), "open:1", "open:2"
        page = await ledger.page("ann").open(stage.places[0])
        seen = [(await page.join(room))["at"]]
        seen += [sent.at for sent in await ledger.say_all(stage.brokers[-1], room, 5)]
        foreign = (await ledger.say(stage.brokers[0], other)).at
        await ledger.reaches(room, 4)
        for number, at in enumerate(seen):
            page.cut()
            await page.open(stage.places[number % len(stage.places)])
            answer = await page.join(room, since=at)
            assert (answer["recovered"], answer["missed"]) == (True, 5 - number)
            await ledger.reaches(room, 4) if number < 5 else None
        for start, missed in (("start", 5), (2, 2), (9, 5)):
            page.cut()
            await page.open(stage.places[0])
            answer = await page.join(room, since=start)
            assert (answer["recovered"], answer["missed"]) == (True, missed)
            await ledger.reaches(room, 4)
        page.cut()
        await page.open(stage.places[0])
        answer = await page.join(room, since=foreign)  # of another room
        assert answer["recovered"] is False
        nothing: tuple[Any, ...] = ("", "x", 7.5, True, {}, "A" * 33, "é" * 32)
        for since in nothing:
            with pytest.raises(Denied) as denied:
                await page.join("chat:9", since=since)
            assert denied.value.code == "INVALID_DATA"
        with pytest.raises(Denied) as denied:
            await page.join("chat:9", since="start")
        assert denied.value.code == "FORBIDDEN"
        page.cut()
