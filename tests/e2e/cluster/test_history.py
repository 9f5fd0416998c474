"""Rooms remember: who comes back gets what it missed, from any node, or is told why not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support import DEADLINE, Peer, running, settings
from tests.support.engines import engine
from tests.support.jetstream import storing
from tests.support.nodes import KINDS, Node, engine_url, nodes
from tests.support.redis_servers import order
from velocity_ws import BackplaneUnavailable, Broker, Client, Emitter, History, HistoryError

ROOM = "chat:7"


def chat(broker: Broker) -> None:
    """Rooms that remember ten messages, into which everybody may come; and one that the server puts clients into."""
    kind = broker.rooms("chat:{chat_id}", history=History(size=10, ttl="1m"))
    latest = broker.rooms("price:{name}", history=History(mode="latest"))
    open_ = broker.rooms("open:{name}", history=History(), rewind=True)

    @broker.authenticate
    async def authenticate(request: Any) -> str | None:
        name: str | None = request.query_params.get("user")
        return name

    async def anybody(client: Client, room: str) -> bool:
        return client.user_id != "banned"

    for each in (kind, latest, open_):
        each.authorize(anybody)

    @broker.on("whoami")
    async def whoami(client: Client) -> str:
        return client.id

    @broker.on_connect
    async def welcome(client: Client) -> None:
        if "room" in client.request.query_params:
            await broker.join_room(client.id, client.request.query_params["room"])
            await client.send("welcome")


@pytest_asyncio.fixture(params=KINDS)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An engine that keeps logs."""
    if request.param == "nats":
        async with storing(tmp_path) as server:
            yield server.url
    else:
        async with engine_url(request.param) as found:
            yield found


@pytest_asyncio.fixture
async def pair(url: str) -> AsyncIterator[list[Node]]:
    """Two nodes on an engine."""
    async with nodes(url, prepare=chat) as found:
        yield found


async def join(peer: Peer, room: str = ROOM, since: Any = None) -> dict[str, Any]:
    """What a client is answered that joins a room."""
    data = {"room": room} if since is None else {"room": room, "since": since}
    answer = await peer.request("join", data)
    assert answer["event"] == "reply", answer
    found: dict[str, Any] = answer["data"]
    return found


async def read(peer: Peer, count: int) -> list[Any]:
    """The data of so many messages that come next."""
    return [await peer.expect("said") for _ in range(count)]


async def message_of(peer: Peer) -> dict[str, Any]:
    """The message that comes next."""
    message: dict[str, Any] = await peer.receive()
    assert message["event"] == "said", message
    return message


async def test_who_comes_back_gets_what_it_missed_then_what_is_new(pair: list[Node]) -> None:
    here, there = pair
    async with here.address.connect() as peer:
        assert "recovered" not in await join(peer)
        sent = await there.broker.to_room(ROOM).send("said", 1)
        message = await message_of(peer)
        assert (message["room"], message["at"], sent.duplicate) == (ROOM, sent.at, False)
    for number in (2, 3, 4):
        await here.broker.to_room(ROOM).send("said", number)
    async with there.address.connect() as peer:
        assert await join(peer, since=message["at"]) == {
            "room": ROOM, "at": message["at"], "recovered": True, "missed": 3,
        }  # fmt: skip
        assert await read(peer, 3) == [2, 3, 4]
        await here.broker.to_room(ROOM).send("said", 5)
        assert await read(peer, 1) == [5]
    assert there.broker.get_stats().recoveries["recovered"] == 1
    assert there.broker.get_stats().recovered_messages == 3


async def test_who_missed_nothing_is_told_so_before_a_first_message_too(pair: list[Node]) -> None:
    async with pair[0].address.connect() as peer:
        at = (await join(peer))["at"]
    async with pair[1].address.connect() as peer:
        assert await join(peer, since=at) == {"room": ROOM, "at": at, "recovered": True, "missed": 0}


async def test_what_is_gone_is_told_with_its_reason_and_nothing_of_it_comes(pair: list[Node]) -> None:
    here, there = pair
    async with here.address.connect() as peer:
        at = (await join(peer))["at"]
    for number in range(12):
        last = await here.broker.to_room(ROOM).send("said", number)
    async with there.address.connect() as peer:
        answer = await join(peer, since=at)
        assert answer == {"room": ROOM, "at": last.at, "recovered": False, "reason": "evicted"}
        await here.broker.to_room(ROOM).send("said", "new")
        assert await read(peer, 1) == ["new"]


@pytest.mark.parametrize("since", ["x", "A" * 32 + "!", [1], {}, True, -1, 1.5])
async def test_what_is_no_position_is_refused(pair: list[Node], since: Any) -> None:
    async with pair[0].address.connect() as peer:
        answer = await peer.request("join", {"room": ROOM, "since": since})
        assert (answer["event"], answer["data"]["code"]) in [("error", "INVALID_DATA"), ("error", "FORBIDDEN")]


async def test_all_members_get_messages_of_both_nodes_in_one_order(pair: list[Node]) -> None:
    async with pair[0].address.connect() as first, pair[1].address.connect() as second:
        await join(first)
        await join(second)
        await asyncio.gather(*[
            node.broker.to_room(ROOM).send("said", (name, number))
            for number in range(50) for name, node in zip("ab", pair, strict=True)
        ])  # fmt: skip
        seen = [await read(peer, 100) for peer in (first, second)]
        assert seen[0] == seen[1]
        kept = [entry.data for entry in await pair[0].broker.history(ROOM)]
        assert seen[0][-10:] == kept


async def test_the_same_message_is_sent_once(pair: list[Node]) -> None:
    here, there = pair
    async with there.address.connect() as peer:
        await join(peer)
        first = await here.broker.to_room(ROOM).send("said", 1, dedupe="order-1")
        again = await there.broker.to_room(ROOM).send("said", 1, dedupe="order-1")
        assert (again.at, again.duplicate, first.duplicate) == (first.at, True, False)
        with pytest.raises(HistoryError) as caught:
            await here.broker.to_room(ROOM).send("said", 2, dedupe="order-1")
        assert caught.value.reason == "conflict"
        await here.broker.to_room(ROOM).send("said", "end")
        assert await read(peer, 2) == [1, "end"]


async def test_what_a_history_does_not_allow_is_refused(pair: list[Node]) -> None:
    broker = pair[0].broker
    for refused in (
        broker.to_room(ROOM).send("said", 1, volatile=True),
        broker.to_room(ROOM).send("said", 1, key="k"),
        broker.to_rooms([ROOM, "other"]).send("said", 1),
        broker.to_room("other").send("said", 1, dedupe="k"),
        broker.history("other"),
        broker.clear_history("other"),
        broker.history(ROOM, "nothing"),
    ):
        with pytest.raises(HistoryError):
            await refused


async def test_the_newest_message_stands_for_all_before_it(pair: list[Node]) -> None:
    here, there = pair
    for number in range(3):
        sent = await here.broker.to_room("price:x").send("said", number, key="k")
    async with there.address.connect() as peer:
        await join(peer, "price:x")
        message = await message_of(peer)
        assert (message["data"], message["at"]) == (2, sent.at)
    async with here.address.connect() as peer:
        assert (await join(peer, "price:x", sent.at))["missed"] == 0
        await here.broker.to_room("price:x").send("said", 3)
        assert await read(peer, 1) == [3]


async def test_a_room_that_allows_it_is_looked_back_into(pair: list[Node]) -> None:
    here, there = pair
    for number in range(5):
        await here.broker.to_room("open:x").send("said", number)
    async with there.address.connect() as peer:
        assert (await join(peer, "open:x", 2))["missed"] == 2
        assert await read(peer, 2) == [3, 4]
    async with there.address.connect() as peer:
        assert (await join(peer, "open:x", "start"))["missed"] == 5
        assert await read(peer, 5) == [0, 1, 2, 3, 4]
    async with there.address.connect() as peer:
        answer = await peer.request("join", {"room": ROOM, "since": "start"})
        assert answer["data"]["code"] == "FORBIDDEN"


async def test_an_application_reads_and_clears_what_is_kept(pair: list[Node]) -> None:
    here, there = pair
    async with there.address.connect() as peer:
        at = (await join(peer))["at"]
    for number in range(5):
        await here.broker.to_room(ROOM).send("said", number)
    entries = await there.broker.history(ROOM, limit=3)
    assert [(entry.event, entry.data) for entry in entries] == [("said", 0), ("said", 1), ("said", 2)]
    assert [entry.data for entry in await there.broker.history(ROOM, entries[-1].at)] == [3, 4]
    assert [entry.data for entry in await there.broker.history(ROOM, limit=2, reverse=True)] == [4, 3]
    for limit in (10**6, 10**30):  # which no engine can be told
        assert len(await there.broker.history(ROOM, limit=limit, reverse=True)) == 5
    await there.broker.clear_history(ROOM)
    assert await here.broker.history(ROOM) == []
    async with here.address.connect() as peer:
        assert (await join(peer, since=at))["reason"] == "evicted"


async def test_who_was_removed_does_not_get_what_was_said_since_on_any_node(pair: list[Node]) -> None:
    here, there = pair
    async with here.address.connect("/ws?user=ann") as ann, here.address.connect("/ws?user=bob") as bob:
        await join(ann)
        at = (await join(bob))["at"]
        assert await there.broker.remove_user("ann", ROOM) == 1
        await here.broker.to_room(ROOM).send("said", "secret")
        assert await read(bob, 1) == ["secret"]
    async with there.address.connect("/ws?user=ann") as ann, there.address.connect("/ws?user=bob") as bob:
        assert (await join(ann, since=at))["reason"] == "forbidden"
        assert (await join(bob, since=at))["missed"] == 1
        assert await read(bob, 1) == ["secret"]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is to say where it stopped is waited for as long as a busy machine may need."""
    monkeypatch.setattr("velocity_ws.history.resuming.PATIENCE", DEADLINE)


@pytest.mark.usefixtures("patient")
async def test_a_room_that_the_server_joins_recovers_where_the_client_announced_it(pair: list[Node]) -> None:
    here, there = pair
    async with here.address.connect(f"/ws?resume=1&room={ROOM}") as peer:
        await peer.expect("welcome")
        token = (await peer.expect("session"))["token"]
        await peer.send("resume", {"rooms": {}})
        at = (await peer.expect("joined"))["at"]
        me = (await peer.request("whoami"))["data"]
    await here.broker.to_room(ROOM).except_(me).send("said", "of my own")
    await here.broker.to_room(ROOM).send("said", "missed")
    async with there.address.connect(f"/ws?resume=1&room={ROOM}") as peer:
        await peer.expect("welcome")
        await peer.expect("session")
        await peer.send("resume", {"rooms": {ROOM: at}, "session": token})
        await peer.expect("session")
        assert await peer.expect("joined") == {"room": ROOM, "at": at, "recovered": True, "missed": 1}
        assert await read(peer, 1) == ["missed"]


async def test_a_client_that_announces_nothing_gets_what_is_new_at_once(pair: list[Node]) -> None:
    async with pair[0].address.connect(f"/ws?room={ROOM}") as peer:
        await peer.expect("welcome")
        await pair[1].broker.to_room(ROOM).send("said", 1)
        assert await read(peer, 1) == [1]


async def test_the_application_joins_a_client_of_another_node_where_it_stopped(pair: list[Node]) -> None:
    here, there = pair
    sent = await here.broker.to_room(ROOM).send("said", 0)
    await here.broker.to_room(ROOM).send("said", 1)
    async with here.address.connect() as peer:
        me = (await peer.request("whoami"))["data"]
        joined = await there.broker.join_room(me, ROOM, since=sent.at)
        assert (joined.at, joined.recovered, joined.missed) == (sent.at, True, 1)
        assert await read(peer, 1) == [1]
        assert (await there.broker.join_room(me, ROOM, since=sent.at)).missed == 0


async def test_a_process_without_clients_sends_to_a_room_that_remembers(url: str, pair: list[Node]) -> None:
    if url.startswith("memory:"):
        pytest.skip("an emitter is for another process")
    async with Emitter(url, timeout=DEADLINE) as emitter, pair[0].address.connect() as peer:
        at = (await join(peer))["at"]
        sent = await emitter.to_room(ROOM).send("said", 1)
        assert (await message_of(peer))["at"] == sent.at
        assert [entry.data for entry in await emitter.history(ROOM, at)] == [1]


async def test_an_engine_that_was_emptied_is_told_again_which_rooms_remember(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.broker.emitter_logs.FRESH", 0.0)
    async with (
        engine("valkey") as server,
        nodes(server.url, 1, prepare=chat) as (node,),
        Emitter(server.url, timeout=DEADLINE) as old,
    ):
        async with node.address.connect() as peer:
            await join(peer)
            assert (await old.to_room(ROOM).send("said", 1)).at
            await order(server, "FLUSHALL")
            assert (await old.to_room(ROOM).send("said", 2)).at  # as it was told before
            await peer.expect("said")
            assert (await peer.expect("gap"))["reason"] == "epoch"
            assert await peer.expect("said") == 2
            async with asyncio.timeout(10):
                while not await order(server, "KEYS", "*history.kinds*"):
                    await asyncio.sleep(0.01)  # no event tells
        async with Emitter(server.url, timeout=DEADLINE) as new:
            assert (await new.to_room(ROOM).send("said", 3)).at


async def test_a_room_without_history_is_as_it_was(pair: list[Node]) -> None:
    broker = pair[0].broker
    async with pair[1].address.connect() as peer:
        me = (await peer.request("whoami"))["data"]
        assert (await broker.join_room(me, "plain")) == ("plain", None, None, None, None)
        assert (await broker.to_room("plain").send("said", 1)).at is None
        assert await message_of(peer) == {"event": "said", "data": 1}


async def test_nothing_can_be_said_before_the_broker_has_started() -> None:
    broker = Broker(settings())
    chat(broker)
    with pytest.raises(BackplaneUnavailable, match="not started"):
        await broker.to_room(ROOM).send("said", 1)
    async with running(broker, "ours"):
        assert (await broker.to_room(ROOM).send("said", 1)).at is not None


async def test_who_says_where_it_stopped_too_late_is_told_that_something_is_missing(pair: list[Node]) -> None:
    here, there = pair
    async with here.address.connect(f"/ws?room={ROOM}") as peer:
        await peer.expect("welcome")
        sent = await here.broker.to_room(ROOM).send("said", 1)
        assert await read(peer, 1) == [1]
    await here.broker.to_room(ROOM).send("said", 2)
    async with there.address.connect(f"/ws?room={ROOM}") as peer:
        await peer.expect("welcome")
        await here.broker.to_room(ROOM).send("said", 3)
        assert await read(peer, 1) == [3]
        assert (await join(peer, since=sent.at))["reason"] == "expired"
        assert (await join(peer, since=sent.at))["missed"] == 0
    last = (await here.broker.history(ROOM))[-1]
    async with there.address.connect(f"/ws?room={ROOM}") as peer:
        await peer.expect("welcome")
        await here.broker.to_room(ROOM).send("said", 4)
        assert await read(peer, 1) == [4]
        assert (await join(peer, since=last.at))["recovered"] is True


async def test_who_says_it_before_anything_new_gets_what_it_missed(pair: list[Node]) -> None:
    here, there = pair
    sent = await here.broker.to_room(ROOM).send("said", 1)
    await here.broker.to_room(ROOM).send("said", 2)
    async with there.address.connect(f"/ws?room={ROOM}") as peer:
        await peer.expect("welcome")
        assert await join(peer, since=sent.at) == {"room": ROOM, "at": sent.at, "recovered": True, "missed": 1}
        assert await read(peer, 1) == [2]
        await here.broker.to_room(ROOM).send("said", 3)
        assert await read(peer, 1) == [3]


async def test_a_first_message_that_is_no_resume_lets_the_room_go_on(pair: list[Node]) -> None:
    here, there = pair
    async with here.address.connect(f"/ws?resume=1&room={ROOM}") as peer:
        await peer.expect("welcome")
        await peer.expect("session")
        await there.broker.to_room(ROOM).send("said", 1)
        await peer.send("whoami", None, id=7)
        told = [await peer.receive() for _ in range(3)]
        assert [message["event"] for message in told if message.get("id") is None] == ["joined", "said"]


async def test_a_connection_that_says_nothing_is_not_waited_for_long(pair: list[Node]) -> None:
    here, there = pair
    async with here.address.connect(f"/ws?resume=1&room={ROOM}") as peer:
        await peer.expect("welcome")
        await peer.expect("session")
        await there.broker.to_room(ROOM).send("said", 1)
        assert (await peer.expect("joined"))["room"] == ROOM
        assert await read(peer, 1) == [1]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("user", ["ann", None])
async def test_who_was_put_out_does_not_get_what_was_said_until_it_was_let_in_again(
    pair: list[Node], user: str | None
) -> None:
    here, there = pair
    banned: set[str] = set()  # for everybody
    for node in pair:
        node.broker.rooms("club:{name}", history=History()).authorize(lambda: not banned)
    path = "/ws?resume=1" + (f"&user={user}" if user else "")
    async with here.address.connect(path) as peer:
        token = (await peer.expect("session"))["token"]
        at = (await join(peer, "club:x"))["at"]
        banned.add("everybody")
        await there.broker.reauthorize("club:x")
        assert (await peer.expect("left"))["reason"] == "FORBIDDEN"
    await here.broker.to_room("club:x").send("said", "secret")
    banned.clear()
    async with there.address.connect(path) as peer:
        await peer.expect("session")
        await peer.send("resume", {"rooms": {}, "session": token})
        await peer.expect("session")
        assert (await join(peer, "club:x", at))["reason"] == "forbidden"


async def test_who_leaves_by_itself_gets_what_it_missed(pair: list[Node]) -> None:
    here, there = pair
    async with here.address.connect() as peer:
        at = (await join(peer))["at"]
        await peer.request("leave", {"room": ROOM})
        await there.broker.to_room(ROOM).send("said", 1)
        # What this node has not heard yet is not missed, and comes behind what was.
        assert (await join(peer, since=at))["recovered"]
        assert await read(peer, 1) == [1]
        me = (await peer.request("whoami"))["data"]
        await there.broker.leave_room(me, ROOM)
        await there.broker.to_room(ROOM).send("said", 2)
        assert (await join(peer, since=at))["recovered"]
        assert await read(peer, 2) == [1, 2]


async def test_a_node_of_before_puts_its_client_into_a_room_that_remembers(pair: list[Node]) -> None:
    here, there = pair
    cluster = here.broker.node.cluster
    assert cluster is not None
    del cluster._rpc._procedures["enter"]  # as in a node of an older version
    async with here.address.connect() as peer:
        me = (await peer.request("whoami"))["data"]
        assert await there.broker.join_room(me, ROOM) == (ROOM, None, None, None, None)
        assert here.broker.get_room_clients(ROOM)
        with pytest.raises(BackplaneUnavailable, match="enter is not known"):
            await there.broker.join_room(me, ROOM, since=1)


async def test_errors_of_a_room_that_remembers_say_who_has_the_message(pair: list[Node]) -> None:
    broker = pair[0].broker
    await broker.to_room(ROOM).send("said", 1, dedupe="order-1")
    with pytest.raises(HistoryError, match=rf"dedupe='order-1' was used for another message of room '{ROOM}'"):
        await broker.to_room(ROOM).send("said", 2, dedupe="order-1")
    with pytest.raises(BackplaneUnavailable, match="; nobody has it") as caught:
        await broker.to_room(ROOM).send("said", "x" * 100_000_000)
    assert caught.value.outcome == "refused"


async def test_who_has_had_all_since_it_came_in_has_missed_nothing(pair: list[Node]) -> None:
    here, there = pair
    async with here.address.connect(f"/ws?room={ROOM}") as peer:
        await peer.expect("welcome")
        for number in range(3):
            await there.broker.to_room(ROOM).send("said", number)
        at = [(await message_of(peer))["at"] for _ in range(3)][1]
        assert await join(peer, since=at) | {"at": ""} == {"room": ROOM, "at": "", "recovered": True, "missed": 0}


async def test_a_client_has_its_token_before_it_is_told_where_it_is(pair: list[Node]) -> None:
    here, _ = pair
    gate = asyncio.Event()
    here.broker.on_connect(gate.wait)
    async with here.address.connect(f"/ws?resume=1&room={ROOM}") as peer:
        await peer.expect("welcome")
        await peer.send("whoami", None, id=1)
        gate.set()
        told = [await peer.receive() for _ in range(3)]
        assert [message["event"] for message in told if "id" not in message] == ["session", "joined"]


async def test_who_was_there_before_the_key_was_known_gets_its_token_then(pair: list[Node]) -> None:
    histories = pair[0].broker.node.histories
    assert histories is not None
    key, histories.resumptions.key = histories.resumptions.key, None
    assert key is not None
    async with pair[0].address.connect("/ws?resume=1") as peer, pair[0].address.connect() as other:
        await other.request("whoami")
        await peer.request("whoami")
        histories.resumptions.learned(key, pair[0].broker.node.hub.members())
        assert (await peer.expect("session"))["token"]
        await other.request("whoami")
