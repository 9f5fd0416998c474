"""Who may be in a room: asked when a client joins, and again when rights change; and what it gets until then."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends

from tests.support import DEADLINE, Address, Peer, ServerKind, eventually, running, settings
from tests.support.say import Say
from velocity_ws import Broker, Client, ClientError, HookError, Message
from velocity_ws.sessions.concurrent import MAX_RUNNING

ROOM = "chat:7"


class Chats:
    """A broker with rooms ``chat:{chat_id}``, and who may be in them.

    Attributes:
        allowed: user and room.
        asked: who was asked about, in order.
        asking: how many are being asked about now.
        most: the same at most.
        gate: answers wait for it.
        errors: what ``on_error`` was told.
        left: what ``on_leave`` was told.
    """

    def __init__(self, **values: Any) -> None:
        self.broker = broker = Broker(settings(**values), presence=["chat:9"])
        self.allowed: set[tuple[str | None, str]] = set()
        self.asked: list[str | None] = []
        self.asking = self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: list[BaseException] = []
        self.left: list[tuple[str | None, str]] = []
        chats = broker.rooms("chat:{chat_id}")

        @broker.authenticate
        async def authenticate(request: Any) -> str | None:
            name: str | None = request.query_params.get("user")
            return name

        @chats.authorize
        async def may_enter(client: Client, room: str, chat_id: int) -> bool:
            user = client.user_id
            self.asked.append(user)
            self.asking += 1
            self.most = max(self.most, self.asking)
            answer = (user, f"chat:{chat_id}") in self.allowed  # as it is when it is asked
            try:
                await self.gate.wait()
            finally:
                self.asking -= 1
            assert room == f"chat:{chat_id}"
            return answer

        @chats.on("say")
        async def say(client: Client, data: Any, room: str) -> int:
            return await broker.to_room(room).except_(client.id).send("said", data)

        @broker.on("put")
        async def put(client: Client, data: str) -> str:
            await broker.join_room(client.id, data)
            return client.id

        @broker.on_error
        async def failed(error: Exception) -> None:
            self.errors.append(error)

        @broker.on_leave
        async def on_leave(client: Client, room: str) -> None:
            self.left.append((client.user_id, room))

    def close_gate(self) -> None:
        """Let no answer come."""
        self.gate = asyncio.Event()

    async def say(self, *numbers: int, room: str = ROOM) -> None:
        """Say numbers in a room."""
        for number in numbers:
            await self.broker.to_room(room).send("said", number)


@asynccontextmanager
async def inside(chats: Chats, address: Address, user: str, *rooms: str) -> AsyncIterator[Peer]:
    """Somebody that may be in some rooms, and is."""
    async with address.connect(f"/ws?user={user}") as peer:
        for room in rooms or (ROOM,):
            chats.allowed.add((user, room))
            assert (await peer.request("join", {"room": room}))["data"] == {"room": room}
        yield peer


# --- joins


async def test_who_may_not_be_in_a_room_is_refused_with_the_reason(kind: ServerKind) -> None:
    chats = Chats()
    async with running(chats.broker, kind) as address, inside(chats, address, "ann"), address.connect() as peer:
        for room in (ROOM, "chat:x", "chat:07", "chat: 7", "other", "chat:"):
            assert (await peer.request("join", {"room": room}))["data"]["code"] == "FORBIDDEN", room
        assert chats.broker.get_rooms() == [ROOM]
        assert chats.asked == ["ann", None]


async def test_a_room_that_a_dependency_would_read_as_another_one_is_none(kind: ServerKind) -> None:
    broker = Broker(settings())

    def is_seven(chat_id: int, room: str) -> bool:
        return chat_id == 7 and room.startswith("chat:")

    @broker.rooms("chat:{chat_id}").authorize
    async def authorize(client: Client, may: bool = Depends(is_seven)) -> bool:
        return may

    async with running(broker, kind) as address, address.connect("/ws?chat_id=7&room=chat:7") as peer:
        for room in ("chat:8", "chat:x", "chat:07", "chat: 7", "chat:+7"):
            assert (await peer.request("join", {"room": room}))["data"]["code"] == "FORBIDDEN", room
        assert (await peer.request("join", {"room": "chat:7"}))["event"] == "reply"
        assert broker.get_rooms() == ["chat:7"]


@pytest.mark.parametrize(
    ("fault", "code", "reported"),
    [
        (ClientError("BANNED", "until noon"), "BANNED", False),
        (OSError("no database"), "INTERNAL_ERROR", True),
        ("yes", "INTERNAL_ERROR", True),
        (None, "INTERNAL_ERROR", True),
        ("late", "INTERNAL_ERROR", True),
    ],
)
@pytest.mark.parametrize("is_plain", [False, True])
async def test_an_authorize_that_does_not_answer_with_a_bool_lets_nobody_in_and_puts_members_out(
    monkeypatch: pytest.MonkeyPatch, fault: Any, code: str, reported: bool, is_plain: bool
) -> None:
    broker, errors, release = Broker(settings()), [], asyncio.Event()
    is_broken = False

    def answer() -> Any:
        if not is_broken:
            return True
        if isinstance(fault, Exception):
            raise fault
        return fault

    async def waiting() -> Any:
        if is_broken and fault == "late":
            await release.wait()
        return answer()

    kind_of_rooms = broker.rooms("chat:{chat_id}")
    kind_of_rooms.authorize(answer if is_plain and fault != "late" else waiting)

    @broker.on_error
    async def failed(error: Exception) -> None:
        errors.append(error)

    async with running(broker) as address, address.connect() as peer:
        assert "code" not in ((await peer.request("join", {"room": ROOM}))["data"] or {})
        is_broken = True
        if fault == "late":
            monkeypatch.setattr("velocity_ws.sessions.permission.AUTHORIZE_TIMEOUT", 0.3)
        assert (await peer.request("join", {"room": "chat:8"}))["data"]["code"] == code
        await broker.reauthorize()
        assert await peer.expect("left") == {"room": ROOM, "reason": code}
        assert broker.get_rooms() == []
        await eventually(lambda: len(errors) == 2 * reported)
        release.set()


async def test_a_join_whose_question_began_before_a_revocation_is_asked_about_again() -> None:
    chats = Chats()
    async with running(chats.broker) as address, address.connect("/ws?user=ann") as peer:
        chats.allowed.add(("ann", ROOM))
        chats.close_gate()
        await peer.send("join", {"room": ROOM}, id=1)
        await eventually(lambda: chats.asking)
        chats.allowed.clear()
        await chats.broker.reauthorize(ROOM)
        chats.gate.set()
        assert (await peer.receive())["data"]["code"] == "FORBIDDEN"
        assert chats.asked == ["ann", "ann"]
        assert chats.broker.get_rooms() == []


async def test_a_join_whose_question_began_before_a_removal_is_asked_about_again() -> None:
    chats = Chats()
    async with running(chats.broker) as address, address.connect("/ws?user=ann") as peer:
        chats.allowed.add(("ann", ROOM))
        chats.close_gate()
        await peer.send("join", {"room": ROOM}, id=1)
        await eventually(lambda: chats.asking)
        chats.allowed.clear()
        await chats.broker.remove_user("bob", ROOM)
        assert await chats.broker.remove_user("ann", ROOM) == 0
        chats.gate.set()
        assert (await peer.receive())["data"]["code"] == "FORBIDDEN"
        assert chats.asked == ["ann", "ann"]
        assert chats.broker.get_rooms() == []


async def test_a_join_that_is_refused_while_rights_are_given_is_asked_about_again() -> None:
    chats = Chats()
    async with running(chats.broker) as address, address.connect("/ws?user=ann") as peer:
        chats.close_gate()
        await peer.send("join", {"room": ROOM}, id=1)
        await eventually(lambda: chats.asking)
        chats.allowed.add(("ann", ROOM))
        await chats.broker.reauthorize(user_id="ann")
        chats.gate.set()
        assert (await peer.receive())["event"] == "reply"


async def test_who_is_put_out_before_its_join_is_answered_is_not_told_that_it_is_in() -> None:
    chats, gate = Chats(), asyncio.Event()
    chats.allowed.add(("ann", ROOM))

    @chats.broker.on_join
    async def on_join() -> None:
        await gate.wait()

    async with running(chats.broker) as address, address.connect("/ws?user=ann") as peer:
        await peer.send("join", {"room": ROOM}, id=1)
        await eventually(chats.broker.get_rooms)
        chats.allowed.clear()
        await chats.broker.reauthorize(ROOM)
        gate.set()
        assert await peer.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        assert (await peer.receive())["data"]["code"] == "FORBIDDEN"


async def test_a_join_is_given_up_when_rights_change_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.broker.authorization.MOST_SECONDS", 0.1)
    broker = Broker(settings())
    chats = broker.rooms("chat:{chat_id}")

    @chats.authorize
    async def may_enter() -> bool:
        await broker.reauthorize(ROOM)
        return True

    async with running(broker) as address, address.connect() as peer:
        assert (await peer.request("join", {"room": ROOM}))["data"]["code"] == "INTERNAL_ERROR"


# --- revocation


async def test_what_is_said_while_members_are_asked_about_comes_in_order_or_not_at_all(kind: ServerKind) -> None:
    chats = Chats()
    async with (
        running(chats.broker, kind) as address,
        inside(chats, address, "ann") as ann,
        inside(chats, address, "bob") as bob,
    ):
        await chats.say(0)
        chats.allowed.discard(("bob", ROOM))
        chats.close_gate()
        revoking = asyncio.create_task(chats.broker.reauthorize(ROOM))
        await eventually(lambda: chats.asking == 2)
        await chats.say(1, 2)
        assert await chats.broker.count(ROOM) == 2
        chats.gate.set()
        await revoking
        assert await chats.broker.count(ROOM) == 1
        await chats.say(3)
        assert [await ann.expect("said") for _ in range(4)] == [0, 1, 2, 3]
        assert await bob.expect("said") == 0
        assert await bob.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        await chats.broker.broadcast("all", 4)
        assert await bob.expect("all") == 4
        assert chats.left == [("bob", ROOM)]


async def test_only_whom_it_means_is_asked_about() -> None:
    chats = Chats()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(running(chats.broker))
        for user in ("ann", "bob"):
            await stack.enter_async_context(inside(chats, address, user, ROOM, "chat:8"))
        plain = await stack.enter_async_context(address.connect("/ws?user=ann"))
        await plain.request("put", "plain")
        for arguments, asked in (
            ({"room": ROOM}, ["ann", "bob"]),
            ({"user_id": "ann"}, ["ann", "ann"]),
            ({"room": ROOM, "user_id": "bob"}, ["bob"]),
            ({"room": "plain"}, []),
            ({"room": "chat:nobody"}, []),
            ({"user_id": 42}, []),
            ({}, ["ann", "ann", "bob", "bob"]),
        ):
            chats.asked.clear()
            await chats.broker.reauthorize(**arguments)
            assert sorted(map(str, chats.asked)) == asked, arguments


async def test_members_that_the_application_put_in_are_asked_about_too() -> None:
    chats = Chats()
    async with running(chats.broker) as address, address.connect("/ws?user=ann") as peer:
        await peer.request("put", ROOM)
        assert chats.asked == []
        await chats.broker.reauthorize()
        assert await peer.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}


async def test_it_can_be_asked_for_from_a_thread() -> None:
    chats = Chats()
    async with running(chats.broker) as address, inside(chats, address, "ann") as ann:
        chats.allowed.clear()
        await asyncio.to_thread(chats.broker.sync.reauthorize, ROOM)
        assert chats.broker.get_rooms() == []
        assert (await ann.expect("left"))["room"] == ROOM


async def test_another_revocation_meanwhile_asks_again_and_the_last_answer_counts() -> None:
    chats = Chats()
    async with running(chats.broker) as address, inside(chats, address, "ann") as ann:
        chats.asked.clear()
        chats.close_gate()
        first = asyncio.create_task(chats.broker.reauthorize(ROOM))
        await eventually(lambda: chats.asking)
        chats.allowed.clear()
        second = asyncio.create_task(chats.broker.reauthorize(user_id="ann"))
        await chats.say(1)
        await eventually(lambda: chats.broker.node.authorization._questions._open)
        third = asyncio.create_task(chats.broker.reauthorize())
        await asyncio.sleep(0)
        chats.gate.set()
        await asyncio.gather(first, second, third)
        assert await ann.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        assert chats.asked == ["ann", "ann"]


async def test_only_so_many_are_asked_about_at_once() -> None:
    chats = Chats()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(running(chats.broker))
        peers = [await stack.enter_async_context(inside(chats, address, f"u{number}")) for number in range(120)]
        chats.close_gate()
        revoking = asyncio.create_task(chats.broker.reauthorize())
        await eventually(lambda: chats.asking == 50)
        await chats.say(1)
        changed = asyncio.create_task(changes(chats, "u119"))  # who comes before the others
        await eventually(lambda: chats.asked[-1] == "u119")
        chats.gate.set()
        await asyncio.gather(revoking, changed)
        assert chats.most == 51
        assert [await peer.expect("said") for peer in peers] == [1] * 120


async def test_an_on_error_hook_that_never_returns_holds_up_no_other_member(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velocity_ws.broker.questions.AT_ONCE", 2)
    monkeypatch.setattr("velocity_ws.broker.authorization.REPORT_TIMEOUT", 0.05)
    broker, is_broken, told = Broker(settings()), False, 0

    @broker.rooms("chat:{chat_id}").authorize
    async def may_enter() -> bool:
        if is_broken:
            raise OSError("no database")
        return True

    @broker.on_error
    async def failed(error: Exception) -> None:
        nonlocal told
        told += 1
        await asyncio.Event().wait()

    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(running(broker))
        peers = [await stack.enter_async_context(address.connect()) for _ in range(5)]
        for peer in peers:
            await peer.request("join", {"room": ROOM})
        is_broken = True
        async with asyncio.timeout(DEADLINE):
            await broker.reauthorize()
        for peer in peers:
            assert await peer.expect("left") == {"room": ROOM, "reason": "INTERNAL_ERROR"}
        await eventually(lambda: told == 5)


async def changes(chats: Chats, user: str) -> None:
    """As `set_user` does for a client of that user."""
    (session,) = chats.broker.node.hub.user_members(user)
    await chats.broker.node.authorization.user_changed(session)


async def test_when_its_user_changes_a_client_is_asked_about_in_all_its_rooms() -> None:
    chats = Chats()
    async with (
        running(chats.broker) as address,
        inside(chats, address, "ann", ROOM, "chat:8") as ann,
        inside(chats, address, "bob"),
    ):
        await ann.request("put", "plain")
        chats.asked.clear()
        chats.allowed.discard(("ann", ROOM))
        await changes(chats, "ann")
        assert chats.asked == ["ann", "ann"]
        await chats.say(1)
        await chats.say(2, room="chat:8")
        assert await ann.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        assert await ann.expect("said") == 2
        assert sorted(chats.broker.get_rooms()) == [ROOM, "chat:8", "plain"]


async def test_who_logs_in_over_or_out_is_asked_about_before_set_user_returns(kind: ServerKind) -> None:
    chats = Chats()
    async with running(chats.broker, kind) as address, inside(chats, address, "ann", ROOM, "chat:8") as ann:
        (client,) = chats.broker.get_clients()
        chats.allowed.add(("bob", ROOM))
        await client.set_user("bob")
        assert await chats.broker.count(ROOM) == 1
        assert await chats.broker.count("chat:8") == 0
        await chats.say(1, room="chat:8")
        await chats.say(2)
        await client.set_user(None)
        assert await chats.broker.count(ROOM) == 0
        await chats.say(3)
        await client.send("end")
        assert await ann.expect("left") == {"room": "chat:8", "reason": "FORBIDDEN"}
        assert await ann.expect("said") == 2
        assert await ann.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        await ann.expect("end")


@pytest.mark.parametrize("name", ["set_user", "reauthorize"])
@pytest.mark.parametrize("is_member", [False, True])
@pytest.mark.parametrize("how", ["async", "plain", "dependency"])
async def test_an_authorize_that_would_wait_for_its_own_answer_is_told_so(name: str, is_member: bool, how: str) -> None:
    broker = Broker(settings())
    errors: list[BaseException] = []
    is_wrong = False
    chats = broker.rooms("chat:{chat_id}")

    async def in_task(client: Client) -> bool:
        if is_wrong:
            await (client.set_user("ann") if name == "set_user" else broker.reauthorize())
        return True

    def in_thread(client: Client) -> bool:
        if is_wrong and name == "set_user":
            client.sync.set_user("ann")
        elif is_wrong:
            broker.sync.reauthorize()
        return True

    async def depends(client: Client, answer: Annotated[bool, Depends(in_thread)]) -> bool:
        return answer

    hooks: dict[str, Any] = {"async": in_task, "plain": in_thread, "dependency": depends}
    chats.authorize(hooks[how])

    @broker.on_error
    async def failed(error: Exception) -> None:
        errors.append(error)

    async with running(broker, "ours") as address, address.connect() as peer:
        await peer.request("join", {"room": ROOM})
        is_wrong = True
        if is_member:
            await broker.reauthorize()
            assert await peer.expect("left") == {"room": ROOM, "reason": "INTERNAL_ERROR"}
        else:
            assert (await peer.request("join", {"room": "chat:8"}))["data"]["code"] == "INTERNAL_ERROR"
        await eventually(lambda: errors)
        assert isinstance(errors[0], HookError)
        assert name in str(errors[0])
        is_wrong = False
        await broker.reauthorize()
        await broker.get_clients()[0].set_user("ann")
        assert (await peer.request("join", {"room": "chat:8"}))["event"] == "reply"


async def test_a_join_is_asked_about_again_when_the_user_changes_meanwhile() -> None:
    chats = Chats()
    async with running(chats.broker) as address, address.connect("/ws?user=ann") as peer:
        await peer.send("nothing")
        (client,) = chats.broker.get_clients()
        chats.allowed.add(("ann", ROOM))
        chats.close_gate()
        await peer.receive()
        await peer.send("join", {"room": ROOM}, id=1)
        await eventually(lambda: chats.asking)
        await client.set_user("bob")
        chats.gate.set()
        assert (await peer.receive())["data"]["code"] == "FORBIDDEN"
        assert chats.asked == ["ann", "bob"]


# --- what is held


async def test_what_is_not_of_the_room_is_not_held(kind: ServerKind) -> None:
    chats = Chats()
    async with running(chats.broker, kind) as address, inside(chats, address, "ann") as ann:
        (client,) = chats.broker.get_clients()
        chats.close_gate()
        revoking = asyncio.create_task(chats.broker.reauthorize())
        await eventually(lambda: chats.asking)
        await chats.say(0)
        await chats.broker.broadcast("all", 1)
        await chats.broker.to_user("ann").send("user", 2)
        await chats.broker.to_client(client.id).send("client", 3)
        assert await client.send("own", 4)
        assert [await ann.expect(event) for event in ("all", "user", "client", "own")] == [1, 2, 3, 4]
        chats.gate.set()
        await revoking
        assert await ann.expect("said") == 0


async def test_a_message_to_several_rooms_comes_once_to_who_is_held_in_some_of_them() -> None:
    chats = Chats()
    both = [ROOM, "chat:8"]
    async with running(chats.broker) as address, inside(chats, address, "ann", *both) as ann:
        chats.close_gate()
        one = asyncio.create_task(chats.broker.reauthorize(ROOM))
        await eventually(lambda: chats.asking == 1)
        assert await chats.broker.to_rooms(both).send("said", 0) == 1
        assert await ann.expect("said") == 0  # by the room in which it is not held
        other = asyncio.create_task(chats.broker.reauthorize("chat:8"))
        await eventually(lambda: chats.asking == 2)
        assert await chats.broker.to_rooms([*both, "elsewhere"]).send("said", 1) == 1
        await chats.say(2)
        await chats.say(3, room="chat:8")
        chats.gate.set()
        await asyncio.gather(one, other)
        assert sorted([await ann.expect("said") for _ in range(3)]) == [1, 2, 3]
        await chats.say(4)
        assert await ann.expect("said") == 4


async def test_what_is_held_is_bounded_and_what_is_lost_is_told_where_it_was() -> None:
    chats = Chats(send_queue_size=64 * 1024, enable_compression=False)
    async with running(chats.broker) as address, inside(chats, address, "ann") as ann:
        chats.close_gate()
        revoking = asyncio.create_task(chats.broker.reauthorize())
        await eventually(lambda: chats.asking)
        sizes = [30_000, 30_000, 30_000, 10]
        assert [await chats.broker.to_room(ROOM).send("said", "x" * size) for size in sizes] == [1, 1, 0, 0]
        chats.gate.set()
        await revoking
        await chats.say(1)
        assert [len(await ann.expect("said")) for _ in range(2)] == sizes[:2]
        assert await ann.expect("gap") == {"room": ROOM, "missed": 2}
        assert await ann.expect("said") == 1
        assert chats.broker.get_stats().dropped == 2


async def test_a_message_of_a_member_waits_for_the_answer() -> None:
    chats = Chats()
    async with running(chats.broker) as address, AsyncExitStack() as stack:
        ann, bob = [await stack.enter_async_context(inside(chats, address, user)) for user in ("ann", "bob")]
        chats.close_gate()
        chats.allowed.discard(("bob", ROOM))
        revoking = asyncio.create_task(chats.broker.reauthorize())
        await eventually(lambda: chats.asking == 2)
        for peer in (ann, bob):
            await peer.send("say", "hello", room=ROOM, id=5)
        await chats.broker.broadcast("all")
        for peer in (ann, bob):
            await peer.expect("all")
        chats.gate.set()
        await revoking
        assert (await ann.receive())["data"] == 0
        assert await bob.expect("left") == {"room": ROOM, "reason": "FORBIDDEN"}
        assert (await bob.receive())["data"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize("comes_back", [False, True])
async def test_who_leaves_while_it_is_asked_about_gets_nothing_of_what_was_held(comes_back: bool) -> None:
    chats = Chats()
    async with running(chats.broker) as address, inside(chats, address, "ann") as ann:
        (client,) = chats.broker.get_clients()
        chats.close_gate()
        revoking = asyncio.create_task(chats.broker.reauthorize())
        await eventually(lambda: chats.asking)
        await chats.say(1)
        await chats.broker.leave_room(client.id, ROOM)
        if comes_back:
            await chats.broker.join_room(client.id, ROOM)
            await chats.say(2)
            assert await ann.expect("said") == 2
        chats.allowed.clear()
        chats.gate.set()
        await revoking
        await chats.broker.broadcast("all")
        await ann.expect("all")
        assert await chats.broker.count(ROOM) == comes_back


async def test_who_is_gone_while_it_is_asked_about_is_forgotten() -> None:
    chats = Chats()
    async with running(chats.broker) as address:
        async with inside(chats, address, "ann"):
            gone = weakref.ref(chats.broker.get_clients()[0])
            chats.close_gate()
            revoking = asyncio.create_task(chats.broker.reauthorize())
            await eventually(lambda: chats.asking)
            await chats.say(1)
        await eventually(lambda: not chats.broker.get_clients())
        chats.gate.set()
        await revoking
        gc.disable()
        try:
            await eventually(lambda: gone() is None)
        finally:
            gc.enable()
        assert chats.broker.node.hub._held == {}
        assert chats.broker.node.authorization._questions._open == {}


async def test_a_broker_stops_while_members_are_asked_about() -> None:
    chats = Chats(drain_timeout=1)
    async with running(chats.broker) as address, inside(chats, address, "ann") as ann:
        chats.close_gate()
        revoking = asyncio.create_task(chats.broker.reauthorize())
        await eventually(lambda: chats.asking)
        await chats.broker.stop()
        assert (await ann.closed())[0] == 1001
        await revoking
    assert chats.asking == 0


async def test_a_hook_that_cancels_its_own_task_puts_its_member_out_and_costs_no_other() -> None:
    chats = Chats()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(running(chats.broker))
        peers = [await stack.enter_async_context(inside(chats, address, f"u{number}")) for number in range(120)]
        is_answered = asyncio.Event()
        is_answered.set()

        class Cancels:
            """In place of the gate: whoever waits here is cancelled."""

            async def wait(self) -> None:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await is_answered.wait()
                await asyncio.sleep(0)

        chats.gate = Cancels()  # type: ignore[assignment]
        await chats.broker.reauthorize()
        assert chats.broker.get_rooms() == []
        for peer in peers:
            assert await peer.expect("left") == {"room": ROOM, "reason": "INTERNAL_ERROR"}


async def test_questions_that_come_when_the_last_ones_have_just_been_answered_are_asked() -> None:
    chats = Chats()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(running(chats.broker))
        for number in range(50):
            await stack.enter_async_context(inside(chats, address, f"u{number}"))
        for _ in range(20):
            await asyncio.gather(*[chats.broker.reauthorize() for _ in range(3)])
        assert chats.broker.node.authorization._questions._others.workers == set()


async def test_where_no_kind_of_rooms_has_an_authorize_nothing_is_asked() -> None:
    broker = Broker(settings())
    broker.rooms("chat:{chat_id}")

    @broker.on("put")
    async def put(client: Client, data: str) -> None:
        await broker.join_room(client.id, data)

    async with running(broker) as address, address.connect() as peer:
        await peer.request("put", ROOM)
        await broker.reauthorize()
        await broker.to_room(ROOM).send("said", 1)
        assert await peer.expect("said") == 1


# --- all at once


class Storm:
    """Clients join again and again while their rights come and go, and messages flow.

    Attributes:
        entered: joins that went through.
        put_out: members that lost their room.
        refused: joins that were refused.
    """

    def __init__(self, users: int, seed: int) -> None:
        self.entered = self.put_out = self.refused = 0
        self._chats = Chats(rate_limit=0, rate_bytes=0)
        self._users = [f"u{number}" for number in range(users)]
        self._chance = random.Random(seed)
        self._said = 0
        self._forbidden: dict[str, list[tuple[int, int]]] = {user: [] for user in self._users}
        """Numbers of which nobody of that user may get any: from one that is excluded to one that is included."""
        self._heard: dict[str, list[int]] = {user: [] for user in self._users}
        self._is_over = False

    async def run(self, joins: int) -> None:
        """Let each join so often, and until one is put out, and look at what it has got."""
        chats = self._chats

        chats.allowed |= {(user, ROOM) for user in self._users}
        async with running(chats.broker, "ours") as address, AsyncExitStack() as stack:
            # One that has stopped reading would see no close frame when the test is over, and wait for it.
            connecting = {user: address.connect(f"/ws?user={user}", max_queue=None) for user in self._users}
            peers = {user: await stack.enter_async_context(each) for user, each in connecting.items()}
            others = [asyncio.create_task(self._talk()), asyncio.create_task(self._revoke())]
            async with asyncio.TaskGroup() as group:
                for user, peer in peers.items():
                    group.create_task(self._come_and_go(user, peer, joins // len(peers)))
            self._is_over = True
            await asyncio.gather(*others)
        for user, heard in self._heard.items():
            for after, until in self._forbidden[user]:
                assert not [number for number in heard if after < number <= until], "said when it was out"

    async def _talk(self) -> None:
        while not self._is_over:
            self._said += 1
            await self._chats.say(self._said)
            await asyncio.sleep(0)

    async def _revoke(self) -> None:
        broker, allowed, chance = self._chats.broker, self._chats.allowed, self._chance
        while not self._is_over:
            some = chance.sample(self._users, 1 + len(self._users) // 3)
            allowed.difference_update((user, ROOM) for user in some)
            if chance.random() < 0.5:
                await broker.reauthorize(ROOM)
                since = dict.fromkeys(some, self._said)
            else:
                since = {}
                for user in some:
                    await broker.reauthorize(user_id=user)
                    since[user] = self._said
            for _ in range(chance.randrange(10)):
                await asyncio.sleep(0)
            for user in some:
                self._forbidden[user].append((since[user], self._said))
            allowed.update((user, ROOM) for user in some)
            await asyncio.sleep(0.01 * chance.random())

    async def _come_and_go(self, user: str, peer: Peer, joins: int) -> None:
        for number in itertools.count():
            if number >= joins and self.put_out:
                break
            await peer.send("join", {"room": ROOM}, id=number)
            answer = await self._until_answered(user, peer)
            if answer["event"] == "reply":
                self.entered += 1
            else:
                assert answer["data"]["code"] == "FORBIDDEN"
                self.refused += 1
                await eventually(lambda: (user, ROOM) in self._chats.allowed)
            if number % 5 == 0:
                await peer.send("leave", {"room": ROOM}, id=number)
                await self._until_answered(user, peer)
                self._heard[user].append(0)

    async def _until_answered(self, user: str, peer: Peer) -> Any:
        """Read until an answer. What comes until a member has left, or is put out, has no hole; 0 stands for these."""
        heard = self._heard[user]
        while True:
            message = await peer.receive()
            if message["event"] == "said":
                assert message["data"] > max(heard[-2:], default=0), "in order, and once"
                assert not heard or heard[-1] in (0, message["data"] - 1), "a member misses nothing"
                heard.append(message["data"])
            elif message["event"] == "left":
                self.put_out += 1
                heard.append(0)
            else:
                return message


@pytest.mark.parametrize("seed", range(3))
async def test_joins_and_revocations_at_once_while_messages_flow(seed: int) -> None:
    storm = Storm(20, seed)
    await storm.run(400)
    assert storm.entered
    assert storm.put_out


@pytest.mark.soak
async def test_ten_thousand_joins_against_revocations_while_messages_flow(say: Say) -> None:
    storm = Storm(50, 1)
    await storm.run(10_000)
    say(f"{storm.entered} joins went through, {storm.refused} were refused, {storm.put_out} members were put out")
    assert storm.entered > 1000
    assert storm.put_out > 100


# --- hooks that change what they are asked or told about


@pytest.mark.parametrize(
    ("where", "call"),
    [
        *itertools.product(("on_join", "on_leave"), ("set_user", "reauthorize", "disconnect")),
        ("authorize", "disconnect"),  # the others are refused there
    ],
)
@pytest.mark.parametrize("plain", [False, True])
async def test_no_hook_of_rooms_waits_for_itself(where: str, call: str, plain: bool) -> None:
    broker = Broker(settings())
    chats = broker.rooms("chat:{chat_id}")
    done = []

    async def in_task(client: Client) -> None:
        if call == "set_user":
            await client.set_user("ann")
        elif call == "reauthorize":
            await broker.reauthorize(ROOM)
        else:
            await client.disconnect(4000, "no more")
        done.append(call)

    def in_thread(client: Client) -> None:
        if call == "set_user":
            client.sync.set_user("ann")
        elif call == "reauthorize":
            broker.sync.reauthorize(ROOM)
        else:
            client.sync.disconnect(4000, "no more")
        done.append(call)

    @chats.authorize
    async def may_enter(client: Client) -> bool:
        if where == "authorize":
            await (asyncio.to_thread(in_thread, client) if plain else in_task(client))
        return True

    if where != "authorize":
        tell = chats.on_join if where == "on_join" else chats.on_leave
        tell(in_thread if plain else in_task)
    async with running(broker) as address, address.connect() as peer:
        await peer.send("join", {"room": ROOM})
        await peer.send("leave", {"room": ROOM})
        if call == "disconnect":
            assert await peer.closed() == (4000, "no more")
        else:
            assert await peer.expect("joined") == {"room": ROOM}
            assert await peer.expect("left") == {"room": ROOM}
        await eventually(lambda: done == [call])


# --- handlers of who is put out


class Streams(Chats):
    """Members have something said in the room for as long as their handler runs.

    Attributes:
        begun: whose handlers have begun, and in which room.
        ended: whose were cancelled.
        go_on: lets all of them end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[tuple[str | None, str | None]] = []
        self.ended: list[tuple[str | None, str | None]] = []
        self.go_on = asyncio.Event()
        chats = self.broker.rooms("chat:{chat_id}/{part}")

        @chats.authorize
        async def may_enter(client: Client, room: str) -> bool:
            return (client.user_id, room) in self.allowed

        @chats.on("stream", concurrent=True)
        @self.broker.on("stream", concurrent=True)
        async def stream(client: Client, message: Message) -> str:
            who = client.user_id, message.room
            self.begun.append(who)
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.ended.append(who)
                raise
            return "done"

    async def stream(self, peer: Peer, room: str, request_id: str) -> None:
        """Have a handler begin, or wait if too many run."""
        await peer.send("stream", id=request_id, room=room)


PART = "chat:7/a"


@pytest.mark.parametrize("change", ["reauthorize", "set_user", "join"])
async def test_concurrent_handlers_of_who_is_put_out_of_a_room_end_with_its_membership(
    kind: ServerKind, change: str
) -> None:
    chats = Streams()
    others = [("bob", "chat:7/b"), ("ann", PART)]
    async with (
        running(chats.broker, kind) as address,
        inside(chats, address, "ann", PART) as ann,
        inside(chats, address, "bob", PART, "chat:7/b") as bob,
    ):
        await chats.stream(ann, PART, "ann's")
        await chats.stream(bob, PART, "gone")
        await chats.stream(bob, "chat:7/b", "stays")
        await eventually(lambda: len(chats.begun) == 3)
        chats.allowed.discard(("bob", PART))
        if change == "reauthorize":
            await chats.broker.reauthorize(PART)
        elif change == "set_user":
            (member,) = [m for m in await chats.broker.members("chat:7/b") if m.user == "bob"]
            session = chats.broker.node.hub.get(member.client_id)
            assert session is not None
            await session.client.set_user("bob")
        else:
            await bob.send("join", {"room": PART}, id="again")
        answers: dict[str, Any] = {}
        while len(answers) < (3 if change == "join" else 2):
            message = await bob.receive()
            answers[message.get("id", message["event"])] = message["data"]
        assert answers["left"] == {"room": PART, "reason": "FORBIDDEN"}
        assert answers["gone"]["code"] == "CANCELLED"
        assert chats.ended == [("bob", PART)]
        chats.go_on.set()
        assert (await bob.receive()) == {"event": "reply", "id": "stays", "data": "done"}
        assert (await ann.receive()) == {"event": "reply", "id": "ann's", "data": "done"}
    assert chats.ended == [("bob", PART)]
    assert sorted(chats.begun) == [("ann", PART), ("bob", PART), others[0]]
    assert chats.broker.get_stats().errors == 0


async def test_messages_that_wait_behind_such_handlers_are_refused() -> None:
    chats = Streams()
    async with running(chats.broker) as address, inside(chats, address, "bob", PART) as bob:
        for number in range(MAX_RUNNING + 3):
            await chats.stream(bob, PART, str(number))
        await eventually(lambda: len(chats.begun) == MAX_RUNNING)
        chats.allowed.clear()
        await chats.broker.reauthorize(PART, "bob")
        assert await bob.expect("left") == {"room": PART, "reason": "FORBIDDEN"}
        codes: dict[int, str] = {}
        while len(codes) < MAX_RUNNING + 3:
            message = await bob.receive()
            codes[int(message["id"])] = message["data"]["code"]
        assert [codes[number] for number in sorted(codes)] == ["CANCELLED"] * MAX_RUNNING + ["FORBIDDEN"] * 3
    assert len(chats.begun) == MAX_RUNNING


@pytest.mark.parametrize("how", ["leave", "leave_room", "remove_user"])
async def test_who_leaves_or_is_taken_out_by_the_application_keeps_its_handlers(how: str) -> None:
    chats = Streams()
    async with running(chats.broker) as address, inside(chats, address, "bob", PART) as bob:
        await chats.stream(bob, PART, "goes on")
        await eventually(lambda: len(chats.begun) == 1)
        if how == "leave":
            assert (await bob.request("leave", {"room": PART}))["event"] == "reply"
        elif how == "leave_room":
            (member,) = await chats.broker.members(PART)
            await chats.broker.leave_room(member.client_id, PART)
        else:
            assert await chats.broker.remove_user("bob", PART) == 1
        assert not await chats.broker.members(PART)
        chats.go_on.set()
        assert (await bob.receive()) == {"event": "reply", "id": "goes on", "data": "done"}
    assert chats.ended == []
