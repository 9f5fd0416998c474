"""Who was put out of a room gets nothing of the time in which it was not let in; who left by itself gets everything."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support import eventually
from tests.support.remembering import RACES, kinds
from tests.support.returning import Denied, Ledger, Page
from tests.support.stages import Stage, Staging
from velocity_ws import Broker

ROOM = "chat:1"
USER = "ann"

PutOut = Callable[[Stage, Page], Awaitable[None]]


async def by_remove_user(stage: Stage, page: Page) -> None:
    """The application takes the user out, which its clients are not told."""
    await stage.brokers[-1].remove_user(USER, ROOM)
    if page.is_open:
        await page.ask("whoami")  # what was under way has come
        page.trails[ROOM].put_out("")


async def by_reauthorize(stage: Stage, page: Page) -> None:
    """The user may be in it no longer, and the application says so."""
    stage.denied.add((USER, ROOM))
    await stage.brokers[-1].reauthorize(ROOM, USER)


async def by_set_user(stage: Stage, page: Page) -> None:
    """Another user takes over, who may not be in it."""
    stage.denied.add(("bob", ROOM))
    page.user = "bob"
    client = stage.brokers[0].get_client(page.id)
    assert client is not None
    await client.set_user("bob")


WAYS: tuple[PutOut, ...] = (by_remove_user, by_reauthorize, by_set_user)


async def enters(stage: Stage, ledger: Ledger, name: str = "page", user: str | None = USER) -> Page:
    """A user on the first node, in the room, which has three messages."""
    page = await ledger.page(name, user).open(stage.places[0])
    page.id = await page.ask("whoami")
    await page.join(ROOM)
    await ledger.say_all(stage.brokers[-1], ROOM, 3)
    await ledger.reaches(ROOM, ledger.log(ROOM).begun - 1)
    return page


async def heard(broker: Broker, at: str | None) -> None:
    """Wait until a node has what was said last: what is on its way to it comes as new, and is not counted as missed."""
    histories = broker.node.histories
    assert histories is not None
    place = histories.place
    await eventually(lambda: (there := place(ROOM)) is None or there.at == at)  # without one the engine is asked


async def comes_again(page: Page, stage: Stage, since: str | None) -> dict[str, object]:
    """Be let in once more, on another node."""
    stage.denied.clear()
    page.cut()
    await page.open(stage.places[-1])
    return await page.join(ROOM, since=since)


@pytest.mark.parametrize("put_out", WAYS)
@pytest.mark.parametrize("kind", kinds())
async def test_nothing_of_before_recovers_past_it(kind: str, put_out: PutOut, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        page = await enters(stage, ledger)
        trail = page.trails[ROOM]
        before = trail.at
        await put_out(stage, page)
        await ledger.say_all(stage.brokers[0], ROOM, 3)
        await eventually(lambda: trail.left)
        assert trail.left == ["" if put_out is by_remove_user else "FORBIDDEN"]
        answer = await comes_again(page, stage, before)
        assert (answer["recovered"], answer["reason"]) == (False, "forbidden")
        since = answer["at"]
        await ledger.say(stage.brokers[0], ROOM)
        await ledger.reaches(ROOM, 6)
        answer = await comes_again(page, stage, str(since))  # one of after it does
        assert (answer["recovered"], answer["missed"]) == (True, 1)
        assert sorted(trail.got) == [0, 1, 2, 6]
        await ledger.settles(stage.brokers[0], ROOM)
        page.cut()


@pytest.mark.parametrize("kind", kinds())
async def test_others_recover_as_if_nothing_had_been(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        page = await enters(stage, ledger)
        other = await ledger.page("other", "cat").open(stage.places[-1])
        anonymous = await ledger.page("anonymous").open(stage.places[0])
        for each in (other, anonymous):
            await each.join(ROOM)
            each.cut()
        await by_remove_user(stage, page)
        said = await ledger.say_all(stage.brokers[0], ROOM, 2)
        await heard(stage.brokers[-1], said[-1].at)
        for each in (other, anonymous):
            await each.open(stage.places[-1])
            answer = await each.join(ROOM)
            assert (answer["recovered"], answer["missed"]) == (True, 2)
        await ledger.settles(stage.brokers[0], ROOM)
        for each in (page, other, anonymous):
            each.cut()


@pytest.mark.parametrize("kind", kinds())
async def test_a_user_that_is_away_is_removed_too(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        page = await enters(stage, ledger)
        before = page.trails[ROOM].at
        page.cut()
        await ledger.say(stage.brokers[0], ROOM)
        await by_remove_user(stage, page)
        await ledger.say(stage.brokers[0], ROOM)
        answer = await comes_again(page, stage, before)
        assert (answer["recovered"], answer["reason"]) == (False, "forbidden")
        await ledger.settles(stage.brokers[0], ROOM)
        page.cut()


@pytest.mark.parametrize("kind", kinds())
async def test_a_position_that_somebody_else_gives_away_is_no_help(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        page = await enters(stage, ledger)
        other = await ledger.page("other", "cat").open(stage.places[-1])
        old = (await other.join(ROOM))["at"]
        await by_remove_user(stage, page)
        await ledger.say(stage.brokers[0], ROOM)
        answer = await comes_again(page, stage, old)
        assert (answer["recovered"], answer["reason"]) == (False, "forbidden")
        for each in (page, other):
            each.cut()


@pytest.mark.parametrize("kind", kinds())
async def test_an_anonymous_client_is_known_by_its_session_alone(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        page = await ledger.page("anonymous", resumes=True).open(stage.places[0])
        await page.resume()
        await page.join(ROOM)
        await ledger.say(stage.brokers[0], ROOM)
        await ledger.reaches(ROOM, 0)
        await eventually(lambda: page.sessions)
        token, before = page.sessions[-1]["token"], page.trails[ROOM].at
        stage.denied.add((None, ROOM))
        await stage.brokers[-1].reauthorize(ROOM)
        await eventually(lambda: page.trails[ROOM].left)
        await ledger.say(stage.brokers[0], ROOM)
        stage.denied.clear()
        page.cut()
        await page.open(stage.places[-1])
        await page.resume(token)
        answer = await page.join(ROOM, since=before)
        assert (answer["recovered"], answer["reason"]) == (False, "forbidden")
        await ledger.settles(stage.brokers[0], ROOM)
        page.cut()


@pytest.mark.parametrize("kind", kinds())
async def test_who_left_by_itself_or_was_taken_out_by_leave_room_recovers(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        page = await enters(stage, ledger)
        await page.leave(ROOM)
        await heard(stage.brokers[0], (await ledger.say(stage.brokers[-1], ROOM)).at)
        answer = await page.join(ROOM)
        assert (answer["recovered"], answer["missed"]) == (True, 1)
        await ledger.reaches(ROOM, 3)
        await stage.brokers[0].leave_room(page.id, ROOM)
        page.trails[ROOM].away("taken out by leave_room")
        await heard(stage.brokers[0], (await ledger.say(stage.brokers[-1], ROOM)).at)
        answer = await page.join(ROOM)
        assert (answer["recovered"], answer["missed"]) == (True, 1)
        assert await ledger.settles(stage.brokers[0], ROOM) == (6, 0)
        page.cut()


@pytest.mark.parametrize("kind", kinds())
async def test_a_refused_join_leaves_no_mark(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger = Ledger()
        page = await enters(stage, ledger)
        page.cut()
        await ledger.say(stage.brokers[0], ROOM)
        stage.denied.add((USER, ROOM))
        await page.open(stage.places[-1])
        with pytest.raises(Denied) as denied:
            await page.join(ROOM)
        assert denied.value.code == "FORBIDDEN"
        stage.denied.clear()
        answer = await page.join(ROOM)
        assert (answer["recovered"], answer["missed"]) == (True, 1)
        assert await ledger.settles(stage.brokers[0], ROOM) == (5, 0)
        page.cut()


# --- at any moment


@contextmanager
def suppress_denial(code: str) -> Iterator[None]:
    """Let something be denied with this code."""
    try:
        yield
    except Denied as denied:
        if denied.code != code:
            raise


async def revoking(stage: Stage, seed: int) -> None:
    """Somebody comes, goes and asks for the past, and is put out at any moment while others speak.

    What is said between the moment at which it is put out for certain and the one at which it is let in again never
    comes to it.
    """
    chance, room, ledger = random.Random(seed), f"chat:{seed}", Ledger(f"seed {seed}")
    page, witness = ledger.page("page", USER), ledger.page("witness", "cat")
    await witness.open(stage.places[-1])
    await witness.join(room)
    forbidden: set[int] = set()
    is_over = False
    log = ledger.log(room)

    async def come_and_go() -> None:
        while not is_over:
            if not page.is_open:
                await page.open(chance.choice(stage.places))
            with suppress_denial("FORBIDDEN"):
                await page.join(room)
            await asyncio.sleep(chance.uniform(0.001, 0.01))
            if chance.randrange(2):
                page.cut()

    async def speak() -> None:
        while not is_over:
            await ledger.insist(chance.choice(stage.brokers), room)
            await asyncio.sleep(chance.expovariate(1000))

    wandering, speaking = asyncio.create_task(come_and_go()), asyncio.create_task(speak())
    try:
        for _ in range(4):
            await asyncio.sleep(chance.uniform(0.01, 0.04))
            stage.denied.add((USER, room))
            if chance.randrange(2):
                await chance.choice(stage.brokers).remove_user(USER, room)
            else:
                await chance.choice(stage.brokers).reauthorize(room)
                await chance.choice(stage.brokers).remove_user(USER, room)  # for while it is away nobody knows of it
            begin = log.begun
            await eventually(lambda begin=begin: log.begun > begin + 3)  # type: ignore[misc]
            forbidden.update(range(begin, log.begun - 1))  # the last one may be under way
            stage.denied.discard((USER, room))
        is_over = True
        await asyncio.gather(wandering, speaking)
        if not page.is_open:
            await page.open(chance.choice(stage.places))
        await page.join(room)
        await ledger.settles(chance.choice(stage.brokers), room)
        assert forbidden
        assert not forbidden & set(page.trails[room].got), page.trails[room].explain()
    finally:
        is_over = True
        for task in (wandering, speaking):
            task.cancel()
        await asyncio.wait([wandering, speaking])
        for each in (page, witness):
            each.cut()


@pytest.mark.parametrize(("kind", "seeds"), RACES)
async def test_somebody_is_put_out_at_any_moment(kind: str, seeds: int, staging: Staging) -> None:
    async with staging(kind) as stage:
        for seed in range(seeds):
            await revoking(stage, seed)


# --- what was not for somebody


@pytest.mark.parametrize("kind", kinds())
async def test_nobody_gets_back_what_it_said_itself(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger, token = Ledger(), None
        page, witness = ledger.page("page", resumes=True), ledger.page("witness")
        await witness.open(stage.places[-1])
        await witness.join(ROOM)
        old = None
        for turn in range(4):
            await page.open(stage.places[turn % len(stage.places)])
            await page.resume(token)
            page.id = await page.ask("whoami")
            await page.join(ROOM)
            old = old or page.trails[ROOM].at
            await ledger.say(stage.brokers[0], ROOM, but=page)
            await ledger.say(stage.brokers[-1], ROOM)
            await ledger.say(stage.brokers[0], ROOM, but=page)
            await ledger.reaches(ROOM, 4 * turn + 1)
            token = page.sessions[-1]["token"]
            page.cut()
            await ledger.say(stage.brokers[0], ROOM)  # which it will recover
        await page.open(stage.places[0])
        await page.resume(token)
        await page.join(ROOM, since=old)  # from the beginning, past all that it said under all of its ids
        await ledger.settles(stage.brokers[0], ROOM)
        for each in (page, witness):
            each.cut()
