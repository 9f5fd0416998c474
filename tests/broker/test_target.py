"""Targets: to whom, said before what. What they publish is looked at, nothing is sent."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest

from velocity_ws.broker.target import TargetFactory
from velocity_ws.errors import EncodeError, InvalidNameError
from velocity_ws.history.values import Sent
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage


class Publisher:
    """Remembers what was published, and says that it was queued for three."""

    def __init__(self) -> None:
        self.published: list[tuple[Address, PreparedMessage]] = []
        self.keys: list[str | None] = []

    async def __call__(self, address: Address, message: PreparedMessage, dedupe: str | None = None) -> Sent:
        self.published.append((address, message))
        self.keys.append(dedupe)
        return Sent(3)

    @property
    def address(self) -> Address:
        return self.published[-1][0]


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def targets(publisher: Publisher) -> TargetFactory:
    return TargetFactory(publisher)


async def test_send(targets: TargetFactory, publisher: Publisher) -> None:
    assert await targets.rooms(["red", "green"]).send("news", {"n": 1}) == 3
    ((address, message),) = publisher.published
    assert (address.kind, list(address.names), address.excluded) == ("rooms", ["red", "green"], frozenset())
    assert (message.payload, message.is_text) == (b'{"event":"news","data":{"n":1}}', True)


async def test_a_message_that_is_to_be_sent_once_has_a_key(targets: TargetFactory, publisher: Publisher) -> None:
    await targets.rooms(["red"]).send("news", dedupe="form 7")
    await targets.rooms(["red"]).send("news")
    await targets.rooms(["red"]).send("news", dedupe="x" * 256)
    assert publisher.keys == ["form 7", None, "x" * 256]


@pytest.mark.parametrize("dedupe", ["", "x" * 257, 7, True, b"form", "\ud800"])
async def test_what_is_no_key_sends_nothing(targets: TargetFactory, publisher: Publisher, dedupe: Any) -> None:
    with pytest.raises(InvalidNameError):
        await targets.rooms(["red"]).send("news", dedupe=dedupe)
    assert publisher.published == []


async def test_send_without_data(targets: TargetFactory, publisher: Publisher) -> None:
    await targets.all().send("news")
    assert publisher.published[0][0].kind == "all"
    assert publisher.published[0][1].payload == b'{"event":"news","data":null}'


async def test_send_bytes(targets: TargetFactory, publisher: Publisher) -> None:
    data = bytearray(b"\x00\xff")
    assert await targets.clients(["a"]).send_bytes(cast("bytes", data)) == 3
    data[0] = 7
    ((address, message),) = publisher.published
    assert (address.kind, list(address.names)) == ("clients", ["a"])
    assert (message.payload, message.is_text) == (b"\x00\xff", False), "not what the buffer holds later"


@pytest.mark.parametrize("data", [5, 0, "text", None, [1, 2]])
async def test_send_bytes_takes_nothing_else(targets: TargetFactory, publisher: Publisher, data: Any) -> None:
    # bytes(5) is five zeros, which nobody means who passes a 5.
    with pytest.raises(TypeError):
        await targets.all().send_bytes(data)
    assert publisher.published == []


@pytest.mark.parametrize(("event", "data", "error"), [("e", object(), EncodeError), ("", 1, InvalidNameError)])
async def test_what_cannot_be_sent_is_sent_to_nobody(
    targets: TargetFactory, publisher: Publisher, event: str, data: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await targets.all().send(event, data)
    assert publisher.published == []


@pytest.mark.parametrize("make", [list, tuple, dict.fromkeys, iter, lambda names: (name for name in names)])
async def test_several_may_be_any_iterable(
    targets: TargetFactory, publisher: Publisher, make: Callable[[list[str]], Iterable[str]]
) -> None:
    for target in (targets.rooms(make(["a", "b"])), targets.clients(make(["a", "b"]))):
        for _ in range(2):  # an iterator is not used up by the first message
            await target.send("e")
            assert list(publisher.address.names) == ["a", "b"]


async def test_none_are_nobody_and_not_everyone(targets: TargetFactory, publisher: Publisher) -> None:
    await targets.rooms([]).send("e")
    assert (publisher.address.kind, list(publisher.address.names)) == ("rooms", [])


# --- mistakes


def test_one_name_is_not_several(targets: TargetFactory) -> None:
    with pytest.raises(TypeError, match=r"to_rooms takes several; for one alone use to_room\('abc'\)"):
        targets.rooms("abc")
    with pytest.raises(TypeError, match=r"to_clients takes several; for one alone use to_client\('abc'\)"):
        targets.clients("abc")


@pytest.mark.parametrize("names", [None, 5, object()])
def test_what_holds_no_names(targets: TargetFactory, names: Any) -> None:
    with pytest.raises(TypeError, match=r"iterable|several"):
        targets.rooms(names)
    with pytest.raises(TypeError, match=r"iterable|several"):
        targets.clients(names)


class SomeClient:
    """Stands for the client object that is passed in place of its id."""

    id = "a"


@pytest.mark.parametrize("name", [SomeClient(), None, 5, b"a", ["a"], True])
def test_what_is_no_client_id(targets: TargetFactory, name: Any) -> None:
    with pytest.raises(TypeError, match=r"string.*client\.id"):
        targets.clients(["a", name])
    with pytest.raises(TypeError, match=r"string.*client\.id"):
        targets.all().except_("a", name)


async def test_a_user_may_be_named_by_a_number(targets: TargetFactory, publisher: Publisher) -> None:
    await targets.users([42, "ann", -1, 2**70]).send("e")
    assert publisher.address == Address("users", ("42", "ann", "-1", str(2**70)))


@pytest.mark.parametrize("user", [SomeClient(), None, b"a", ["a"], True, 4.2, uuid.UUID(int=1)])
def test_what_is_no_user(targets: TargetFactory, user: Any) -> None:
    with pytest.raises(TypeError, match=r"string or an integer.*client\.user_id"):
        targets.users(["a", user])
    with pytest.raises(InvalidNameError, match="a user id is a string of at most 256 characters"):
        targets.users(["a", "x" * 257])
    with pytest.raises(TypeError, match=r"to_users takes several; for one alone use to_user\('ann'\)"):
        targets.users("ann")


@pytest.mark.parametrize("room", [None, 5, b"red", ["red"], "x" * 257])
def test_what_is_no_room(targets: TargetFactory, room: Any) -> None:
    with pytest.raises(InvalidNameError, match="a room is a string of at most 256 characters"):
        targets.rooms(["red", room])


# --- except_


async def test_except_accumulates_and_changes_nothing(targets: TargetFactory, publisher: Publisher) -> None:
    room = targets.rooms(["red"])
    without_a = room.except_("a")
    without_abc = without_a.except_("b", "c").except_("a")
    for target, excluded in ((room, set()), (without_a, {"a"}), (without_abc, {"a", "b", "c"})):
        await target.send("e")
        assert publisher.address == Address("rooms", ("red",), frozenset(excluded))


async def test_except_nobody(targets: TargetFactory, publisher: Publisher) -> None:
    await targets.clients(["a"]).except_().send("e")
    assert publisher.address == Address("clients", ("a",))


def test_repr_says_to_whom(targets: TargetFactory) -> None:
    shown = repr(targets.rooms(["red"]).except_("a"))
    assert "red" in shown
    assert "'a'" in shown
