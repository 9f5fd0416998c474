"""What an application says of users, beside who is in a room: asked once for each user, told on all nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import pytest
from fastapi import Depends
from pydantic import BaseModel, Field

from tests.support import eventually, settings
from tests.support.crowd import Extra
from tests.support.nodes import Node, application, nodes, person
from velocity_ws import Broker, Client
from velocity_ws.broker import presence, presence_info
from velocity_ws.broker.presence_wire import MAX_INFO
from velocity_ws.cluster.envelopes import PlainNotification, encode_body, encode_header

ROOM = "doc:7"
Info = Callable[..., Any]


class Asked:
    """What the function was asked, and what the application heard of its failures."""

    def __init__(self) -> None:
        self.users: list[Any] = []
        self.errors: list[tuple[str | None, str]] = []

    def prepare(self, say: Info) -> Callable[[Broker], None]:
        """Give a broker rooms of a kind with presence, and that function."""

        def prepared(broker: Broker) -> None:
            application(broker)
            documents = broker.rooms("doc:{doc_id}", presence=True)
            documents.presence_info(say)

            @broker.on_error
            async def failed(client: Client, error: Exception) -> None:
                self.errors.append((client.user_id, str(error)))

        return prepared


@asynccontextmanager
async def brokers(say: Info, url: str = "memory://", count: int = 1) -> AsyncIterator[tuple[list[Broker], Asked]]:
    """Nodes whose rooms of a kind have presence, without a server; and what they asked and heard."""
    asked = Asked()
    found = [Broker(settings(backplane_url=url), twin=True) for _ in range(count)]
    for broker in found:
        asked.prepare(say)(broker)
    try:
        for broker in found:
            await broker.start()
        yield found, asked
    finally:
        for broker in found:
            await broker.stop()


async def comes(broker: Broker, user: Any) -> Extra:
    """Somebody in the room, who looks."""
    extra = Extra(broker, user, looks=True)
    await broker.join_room(extra.id, ROOM)
    return extra


def profile(name: str, colour: str = "red") -> dict[str, str]:
    """A user."""
    return {"id": name.lower(), "name": name, "colour": colour}


async def say_name(user: dict[str, str]) -> dict[str, str]:
    """What is told of it."""
    return {"name": user["name"], "colour": user["colour"]}


async def test_names_and_colours_are_told_on_all_nodes_over_real_connections(url: str) -> None:
    asked = Asked()

    def say(user: str) -> dict[str, str]:
        asked.users.append(user)
        return {"name": user.title()}

    async with nodes(url, prepare=asked.prepare(say)) as pair:
        a, b = pair
        async with person(a, "ann", ROOM) as (ann, _), person(b, "bob", ROOM) as (bob, _), person(a, "ann", ROOM):
            for peer in (ann, bob):
                assert await _adds_up(peer) == {"ann": (2, {"name": "Ann"}), "bob": (1, {"name": "Bob"})}
        assert sorted(asked.users) == ["ann", "bob"]
        assert await _nobody_is_left(pair)


async def _adds_up(peer: Any) -> dict[str, Any]:
    users: dict[str, Any] = {}
    async with asyncio.timeout(10):
        # Who is asked about for long is told without an info first, and a thread may be held up so long.
        while len(users) < 2 or users["ann"][0] < 2 or None in [info for _, info in users.values()]:
            data = await peer.expect("presence")
            users = {} if data["full"] else users
            users |= {user: (count, data.get("info", {}).get(user)) for user, count in data["users"].items()}
    return users


async def _nobody_is_left(pair: list[Node]) -> bool:
    found = [node.broker.node.presence for node in pair]
    await eventually(lambda: all(presence is not None and not presence._rooms for presence in found))
    return True


async def test_info_comes_with_its_user_and_goes_with_it() -> None:
    async with brokers(say_name) as ((a,), asked):
        ann = await comes(a, profile("Ann"))
        bob = await comes(a, profile("Bob", "blue"))
        infos = {"ann": {"name": "Ann", "colour": "red"}, "bob": {"name": "Bob", "colour": "blue"}}
        await eventually(lambda: ann.infos == bob.infos == infos)
        for event in ann.events:
            assert event["data"]["info"].keys() == event["data"]["users"].keys(), "nobody without a name in between"
        bob.leave()
        await eventually(lambda: ann.users == {"ann": 1})
        assert set(ann.infos) == {"ann"}
        assert "info" not in ann.last
        assert asked.errors == []


async def test_a_user_that_is_another_object_is_asked_about_again() -> None:
    async with brokers(say_name, "memory://info-again", 2) as ((a, b), _):
        ann, bob = await comes(a, profile("Ann")), await comes(b, profile("Bob"))
        await eventually(lambda: set(ann.infos) == set(bob.infos) == {"ann", "bob"})
        seen = len(bob.events)
        await ann.session.client.set_user(profile("Ann", "green"))
        await eventually(lambda: all(one.infos["ann"]["colour"] == "green" for one in (ann, bob)))
        # Once, or first without what is asked for, where that takes a second.
        assert all(event["data"]["users"] == {"ann": 1} for event in bob.events[seen:])
        await ann.session.client.set_user(profile("Cat"))
        await eventually(lambda: all(one.users == {"bob": 1, "cat": 1} for one in (ann, bob)))
        await eventually(lambda: all(one.infos.get("cat", {}).get("name") == "Cat" for one in (ann, bob)))
        assert "ann" not in bob.infos
        await ann.session.client.set_user(None)
        await eventually(lambda: bob.users == {"bob": 1} and bob.last["anonymous"] == 1)


async def test_of_a_user_on_two_nodes_the_newest_is_told_on_both() -> None:
    async with brokers(say_name, "memory://info-newest", 2) as ((a, b), _):
        one, other = await comes(a, profile("Ann", "red")), None
        await eventually(lambda: "ann" in one.infos)
        await asyncio.sleep(0.002)  # another millisecond
        other = await comes(b, profile("Ann", "blue"))
        await eventually(lambda: one.users == other.users == {"ann": 2})
        await eventually(lambda: one.infos["ann"]["colour"] == other.infos["ann"]["colour"] == "blue")
        other.leave()
        await eventually(lambda: one.users == {"ann": 1} and one.infos["ann"]["colour"] == "red")


class Person(BaseModel):
    """As an application writes one."""

    display_name: str = Field(serialization_alias="name")


@pytest.mark.parametrize(
    ("said", "told", "error"),
    [
        (None, None, None),
        (Person(display_name="Ann"), {"name": "Ann"}, None),
        ({}, {}, None),
        (["Ann"], None, "returns a dict, or None, and not"),
        ({"name": "x" * MAX_INFO}, None, f"and {MAX_INFO} are told of a user"),
        ({"name": object()}, None, "no JSON form"),
        (RuntimeError("no database"), None, "no database"),
    ],
)
async def test_what_is_no_info_is_reported_and_the_user_is_there_without(
    said: Any, told: Any, error: str | None
) -> None:
    def say(user: Any) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    async with brokers(say) as ((a,), asked):
        ann = await comes(a, "ann")
        await eventually(lambda: ann.users == {"ann": 1})
        await eventually(lambda: bool(asked.errors) == (error is not None))
        await eventually(lambda: ann.infos.get("ann") == told)  # behind its user where a thread is held up
        if error is not None:
            ((user, text),) = asked.errors
            assert user == "ann"
            assert error in text


async def test_hooks_that_never_hear_the_end_of_a_failure_keep_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence_info, "REPORT_TIMEOUT", 0.01)
    told = asyncio.Event()

    def say(user: Any) -> Any:
        raise RuntimeError("no database")

    async with brokers(say) as ((a,), _):

        @a.on_error
        async def hangs() -> None:
            told.set()
            await asyncio.Event().wait()

        await comes(a, "ann")
        await told.wait()
        found = a.node.presence
        assert found is not None
        await eventually(lambda: not found._infos._running)


async def test_a_function_that_takes_long_holds_up_its_own_user_alone_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence_info, "TIMEOUT", 3 * presence.INFO_PATIENCE)  # time enough to open the gate within it
    gate = asyncio.Event()

    async def say(user: str) -> dict[str, str]:
        if user == "slow":
            await gate.wait()
        elif user == "hangs":
            await asyncio.Event().wait()
        return {"name": user}

    async with brokers(say) as ((a,), asked):
        slow, again, hangs, ann = [await comes(a, user) for user in ("slow", "slow", "hangs", "ann")]
        everybody = {"ann": 1, "slow": 2, "hangs": 1}
        await eventually(lambda: all(one.users == everybody for one in (slow, again, hangs, ann)))
        assert ann.events[0]["data"]["users"] == {"ann": 1}, "it waited for others"
        assert "slow" in slow.events[0]["data"]["users"], "it was told something before it was counted"
        assert set(ann.infos) == {"ann"}
        gate.set()
        await eventually(lambda: set(ann.infos) == {"ann", "slow"})
        await eventually(lambda: [user for user, _ in asked.errors] == ["hangs"])


async def test_who_leaves_or_changes_while_it_is_asked_about_is_counted_as_what_it_is() -> None:
    gate = asyncio.Event()

    async def say(user: str) -> dict[str, str]:
        await gate.wait()
        return {"name": user}

    async with brokers(say) as ((a,), _):
        gone, changed = await comes(a, "gone"), await comes(a, "before")
        out, ann = await comes(a, "out"), await comes(a, "ann")
        gone.leave()
        await changed.session.client.set_user("after")
        await out.session.client.set_user(None)
        gate.set()
        await eventually(lambda: ann.users == {"after": 1, "ann": 1} and ann.last["anonymous"] == 1)
        await eventually(lambda: ann.infos == {"after": {"name": "after"}, "ann": {"name": "ann"}})


async def test_who_is_another_object_before_it_is_counted_is_told_as_the_newer_one() -> None:
    gate = asyncio.Event()

    async def say(user: dict[str, str]) -> dict[str, str]:
        await gate.wait()
        return {"colour": user["colour"]}

    async with brokers(say) as ((a,), _):
        ann = await comes(a, profile("Ann", "red"))
        await ann.session.client.set_user(profile("Ann", "green"))
        gate.set()
        await eventually(lambda: ann.infos == {"ann": {"colour": "green"}})


async def test_a_broker_that_stops_waits_for_no_answer() -> None:
    async def say(user: str) -> dict[str, str]:
        await asyncio.Event().wait()
        return {}

    async with brokers(say) as ((a,), _):
        await comes(a, "ann")
        await asyncio.wait_for(a.stop(), 5)


async def test_what_another_node_says_is_no_json_is_dropped_and_counted() -> None:
    async with brokers(say_name, "memory://info-invalid") as ((a,), _):
        ann = await comes(a, profile("Ann"))
        await eventually(lambda: "ann" in ann.infos)
        cluster = a.node.cluster
        assert cluster is not None
        for json in (b"{", b"[]", b'{"a":NaN}', b"x" * (MAX_INFO + 1), b"\xff"):
            change = (ROOM, 0, 1, {"eve": 1}, {"eve": (1, json)})
            body = encode_body(PlainNotification("presence_change", msgspec.Raw(encode_body(change))))
            before = a.get_stats().backplane_invalid
            cluster._receiver.received(cluster.topics.room(ROOM), encode_header("a-stranger-", 1) + body)
            assert a.get_stats().backplane_invalid == before + 1
        assert ann.users == {"ann": 1}


async def test_rooms_of_a_kind_without_presence_have_none() -> None:
    async with brokers(say_name) as ((a,), _):
        a.rooms("chat:{name}")
        ann = Extra(a, profile("Ann"), looks=True)
        await a.join_room(ann.id, "chat:1")
        await a.join_room(ann.id, ROOM)
        await eventually(lambda: ann.users)
        assert {event["data"]["room"] for event in ann.events} == {ROOM}


LOG: list[str] = []


async def get_names() -> AsyncIterator[dict[str, str]]:
    """A dependency that is closed."""
    LOG.append("opened")
    yield {"ann": "Ann"}
    LOG.append("closed")


async def say_with_names(user: str, names: Annotated[dict[str, str], Depends(get_names)]) -> dict[str, str]:
    """What is told of a user, by what a dependency gives."""
    LOG.append(user)
    return {"name": names[user]}


async def test_the_function_may_have_dependencies_which_are_closed_after_it() -> None:
    LOG.clear()
    async with brokers(say_with_names) as ((a,), asked):
        ann = await comes(a, "ann")
        await eventually(lambda: ann.infos == {"ann": {"name": "Ann"}})
        assert LOG == ["opened", "ann", "closed"]
        assert asked.errors == []
