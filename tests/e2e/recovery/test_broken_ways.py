"""Ways between nodes and engine that break or lose: the node mends it, and nobody notices but where nobody can."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.support import eventually
from tests.support.redis_servers import order
from tests.support.remembering import EVERY, FEW, NETWORKED, RememberingRedis, kinds, races
from tests.support.returning import Denied, Ledger, Page, until_available
from tests.support.say import Say
from tests.support.stages import Stage, Staging
from velocity_ws import BackplaneUnavailable, HistoryError
from velocity_ws.history.checks import FIRST

SHARED = tuple(kind for kind in EVERY if kind != "alone")
DISTURBED = tuple(kind for kind in EVERY if kind in (*NETWORKED, "cluster"))


async def present(stage: Stage, ledger: Ledger, room: str, count: int = 2) -> list[Page]:
    """So many in a room on each node."""
    found = []
    for number, place in enumerate(stage.places * count):
        found.append(await ledger.page(f"page {number}").open(place))
        await found[-1].join(room)
    return found


def went(pages: list[Page]) -> None:
    for page in pages:
        page.cut()


# --- holes


async def leaking(stage: Stage, seed: int) -> int:
    """Some speak, and nodes do not hear a third of it; how much that was."""
    chance, room, ledger = random.Random(seed), f"chat:{seed}", Ledger(f"seed {seed}")
    pages = await present(stage, ledger, room)
    for leak in stage.leaks:
        leak.swallowed = 0
        leak.swallows = lambda topic, payload: ".room." in topic and chance.random() < 0.3

    async def speak() -> None:
        for _ in range(40):
            await ledger.insist(chance.choice(stage.speakers), room)
            await asyncio.sleep(chance.expovariate(500))

    await asyncio.gather(speak(), speak())
    for leak in stage.leaks:
        leak.swallows = None
    delivered, told = await ledger.settles(chance.choice(stage.brokers), room)
    assert (delivered, told) == (81 * len(pages), 0)
    assert all(page.trails[room].gaps == [] for page in pages)
    went(pages)
    return sum(leak.swallowed for leak in stage.leaks)


@pytest.mark.parametrize(("kind", "seeds"), races(*SHARED))
async def test_what_a_node_did_not_hear_it_reads(kind: str, seeds: int, staging: Staging, say: Say) -> None:
    async with staging(kind) as stage:
        swallowed = sum([await leaking(stage, seed) for seed in range(seeds)])
        repaired = sum(broker.get_stats().repaired for broker in stage.brokers)
    assert swallowed
    assert repaired
    say(f"{kind}: {seeds} seeds, {swallowed} messages swallowed on their way to a node, {repaired} read by nodes")


@pytest.mark.parametrize("kind", kinds(*SHARED))
async def test_a_hole_that_the_engine_cannot_fill_any_more_is_one_gap(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger, room = Ledger(), "small:1"
        pages = await present(stage, ledger, room)
        await ledger.say(stage.brokers[0], room)
        await ledger.reaches(room, 0)
        deaf = [page for number, page in enumerate(pages) if number % 2]
        stage.leaks[1].swallows = lambda topic, payload: ".room." in topic
        await ledger.say_all(stage.brokers[0], room, 25)
        await eventually(lambda: stage.leaks[1].swallowed >= 25)  # all of them, else there are two holes
        stage.leaks[1].swallows = None
        await ledger.settles(stage.brokers[0], room)
        for page in pages:
            gaps = [(gap["reason"], gap["missed"]) for gap in page.trails[room].gaps]
            assert gaps == ([("evicted", 16)] if page in deaf else [])  # 10 of 26 are kept
        went(pages)


# --- case 7: connections


async def disturbed(stage: Stage, seed: int, rounds: int) -> int:
    """Some speak until it is taken, and the engine ends its connections; how many messages everyone got."""
    chance, room, ledger = random.Random(seed), f"chat:{seed}", Ledger(f"seed {seed}")
    pages = await present(stage, ledger, room)

    async def speak() -> None:
        for _ in range(40):
            await ledger.insist(chance.choice(stage.brokers), room)
            await asyncio.sleep(chance.expovariate(400))

    speaking = asyncio.gather(speak(), speak())
    for _ in range(rounds):
        await asyncio.sleep(chance.uniform(0.02, 0.1))
        if stage.ways and chance.randrange(2):
            await chance.choice(stage.ways).close()
        elif stage.ways:
            for way in stage.ways:
                await way.close()
        else:
            await stage.engine.disconnect()
    await speaking
    await stage.listens()
    delivered, told = await ledger.settles(stage.brokers[0], room)
    assert (delivered, told) == (81 * len(pages), 0)
    assert all(page.trails[room].gaps == [] for page in pages)
    went(pages)
    return delivered


@pytest.mark.parametrize(("kind", "seeds"), races(*NETWORKED))
async def test_connections_to_the_engine_break_under_load(kind: str, seeds: int, staging: Staging, say: Say) -> None:
    async with staging(kind, ways=True, backplane_timeout=5) as stage:
        delivered = sum([await disturbed(stage, seed, 2) for seed in range(seeds)])
    say(f"{kind}: {seeds} seeds, {delivered} messages came, each once, and no gap")


@pytest.mark.parametrize(("kind", "seeds"), races("valkey", "redis", "cluster"))
async def test_the_engine_ends_its_connections_under_load(kind: str, seeds: int, staging: Staging) -> None:
    async with staging(kind, backplane_timeout=5) as stage:
        for seed in range(seeds):
            await disturbed(stage, seed, 2)


@pytest.mark.parametrize("kind", kinds(*NETWORKED))
async def test_what_is_gone_when_the_connection_is_back_is_one_gap(kind: str, staging: Staging) -> None:
    async with staging(kind, ways=True, backplane_timeout=1.5) as stage:
        ledger, room = Ledger(), "small:1"
        pages = await present(stage, ledger, room)
        await ledger.say(stage.brokers[0], room)
        await ledger.reaches(room, 0)
        stage.ways[1].die()
        await eventually(lambda: not stage.brokers[1].healthy)
        await ledger.say_all(stage.brokers[0], room, 25)
        stage.ways[1].live()
        await ledger.reaches(room, 25)  # without another message
        await ledger.settles(stage.brokers[0], room)
        for number, page in enumerate(pages):
            gaps = [(gap["reason"], gap["missed"]) for gap in page.trails[room].gaps]
            assert gaps == ([("evicted", 15)] if number % 2 else [])
        went(pages)


@pytest.mark.parametrize("kind", kinds(*NETWORKED))
async def test_who_comes_while_the_engine_cannot_be_asked_is_told_to_come_again(kind: str, staging: Staging) -> None:
    async with staging(kind, ways=True, backplane_timeout=1.5) as stage:
        ledger, room = Ledger(), "chat:1"
        page = await ledger.page("ann").open(stage.places[0])
        await page.join(room)
        await ledger.say(stage.brokers[0], room)
        await ledger.reaches(room, 0)
        page.cut()
        await ledger.say(stage.brokers[1], room)
        stage.ways[0].die()
        await eventually(lambda: not stage.brokers[0].healthy)
        await page.open(stage.places[0])
        with pytest.raises(Denied) as denied:
            await page.join(room)
        assert denied.value.code == "UNAVAILABLE"
        assert denied.value.data["retry_after"] > 0
        stage.ways[0].live()
        await stage.listens()

        answer = await asyncio.wait_for(until_available(lambda: page.join(room)), 10)
        assert (answer["recovered"], answer["missed"]) == (True, 1)
        assert await ledger.settles(stage.brokers[1], room) == (3, 0)
        page.cut()


@pytest.mark.parametrize("kind", kinds("valkey", "redis"))
async def test_a_node_that_cannot_reach_what_rooms_remember_is_not_healthy(kind: str, staging: Staging) -> None:
    async with staging(kind, backplane_timeout=1.5) as stage:
        assert isinstance(stage.engine, RememberingRedis)
        server = stage.engine.server
        await order(server, "ACL", "SETUSER", "default", "-@scripting")  # which messages do not need
        await stage.engine.disconnect()
        with pytest.raises(BackplaneUnavailable):
            await stage.brokers[0].to_room("chat:1").send("n", 0)
        cluster = stage.brokers[0].node.cluster
        await eventually(lambda: cluster is not None and cluster.is_healthy)
        assert not stage.brokers[0].healthy
        await stage.brokers[0].to_room("live:1").send("n", 0)
        await order(server, "ACL", "SETUSER", "default", "+@scripting")
        await stage.listens()
        assert (await stage.brokers[0].to_room("chat:1").send("n", 0)).at is not None


# --- case 8: the last message before silence


@pytest.mark.parametrize(
    ("kind", "interval"),
    [
        *[pytest.param(kind, 0.2) for kind in FEW],
        *[pytest.param(kind, FIRST, marks=pytest.mark.soak) for kind in SHARED],
    ],
)
async def test_the_last_message_before_silence_is_lost_on_its_way(
    kind: str, interval: float, staging: Staging, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    monkeypatch.setattr("velocity_ws.history.checks.FIRST", interval)
    async with staging(kind) as stage:
        ledger, room = Ledger(), "chat:1"
        pages = await present(stage, ledger, room)
        await ledger.say(stage.brokers[0], room)
        await ledger.reaches(room, 0)
        stage.leaks[1].swallows = lambda topic, payload: ".room." in topic
        await ledger.say(stage.brokers[0], room)
        await eventually(lambda: stage.leaks[1].swallowed)
        stage.leaks[1].swallows = None
        began = asyncio.get_running_loop().time()
        await ledger.reaches(room, 1, within=1.5 * interval + 5)
        say(f"{kind}: read {asyncio.get_running_loop().time() - began:.1f} s later")
        assert ledger.proves() == (2 * len(pages), 0)
        went(pages)


# --- case 9: an outcome that is unknown


@pytest.mark.parametrize("kind", kinds(*NETWORKED))
async def test_what_nobody_answered_is_said_again_under_its_key(kind: str, staging: Staging) -> None:
    async with staging(kind, ways=True, backplane_timeout=1.5) as stage:
        ledger, room = Ledger(), "chat:1"
        pages = await present(stage, ledger, room)
        await ledger.say(stage.brokers[0], room)
        stage.ways[0].die("down")
        with pytest.raises(BackplaneUnavailable) as caught:
            await ledger.say(stage.brokers[0], room, dedupe=f"{room} 1")
        assert caught.value.outcome == "unknown"
        is_taken = kind != "nats"  # there a writer asks for the key first
        if is_taken:
            heard = [page for number, page in enumerate(pages) if number % 2]
            await eventually(lambda: all(1 in page.trails[room].got for page in heard))
        stage.ways[0].live()
        await stage.listens()
        again = [await ledger.insist(broker, room, 1) for broker in stage.brokers]
        assert [sent.duplicate for sent in again] == [is_taken, True]
        assert [entry.data for entry in await stage.brokers[1].history(room)] == [0, 1]
        assert await ledger.settles(stage.brokers[1], room) == (3 * len(pages), 0)
        assert all(page.trails[room].gaps == [] for page in pages)
        went(pages)


@pytest.mark.parametrize("kind", kinds())
async def test_a_key_is_used_once(kind: str, staging: Staging) -> None:
    async with staging(kind) as stage:
        ledger, room = Ledger(), "chat:1"
        pages = await present(stage, ledger, room)
        sent = await ledger.say(stage.brokers[0], room, dedupe="key")
        again = await asyncio.gather(*[ledger.say_again(each, room, 0, dedupe="key") for each in stage.brokers * 3])
        assert (sent.duplicate, {each.duplicate for each in again}) == (False, {True})
        assert {each.at for each in again} == {sent.at}
        with pytest.raises(HistoryError):
            await stage.brokers[-1].to_room(room).send("n", "other", dedupe="key")
        together = ledger.log(room).begin()
        raced = await asyncio.gather(*[
            ledger.say_again(each, room, together, dedupe="race") for each in stage.brokers * 3
        ])  # fmt: skip
        assert sorted(each.duplicate for each in raced) == [False] + [True] * (len(raced) - 1)
        assert await ledger.settles(stage.brokers[0], room) == (3 * len(pages), 0)
        assert len(await stage.brokers[0].history(room)) == 3
        went(pages)
