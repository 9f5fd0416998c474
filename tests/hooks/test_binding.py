"""Binding: which parameter of a hook gets which value, and what is refused at registration."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.support.hooks import THREADS, VALUES, F, call
from velocity_ws import Broker
from velocity_ws.errors import HookError, VelocityError
from velocity_ws.hooks.binding import ARGUMENTS, Kind
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.scope import SCOPE, Scope, Surroundings
from velocity_ws.hooks.validation import InvalidDataError

GETS: dict[Kind, tuple[str, ...]] = {
    "authenticate": ("request",),
    "connect": ("client",),
    "message": ("client", "message"),
    "binary": ("client", "data"),
    "event": ("client", "data"),
    "disconnect": ("client", "close"),
    "error": ("client", "error"),
}
"""What the documentation says each kind is called with, in its order."""


@pytest.mark.parametrize("kind", GETS)
async def test_by_name(kind: Kind) -> None:
    names = ", ".join(GETS[kind])
    expected = tuple(VALUES[name] for name in GETS[kind])
    assert await call(kind, eval(f"lambda {names}: ({names},)")) == expected
    assert await call(kind, eval(f"lambda *, {names}: ({names},)")) == expected


@pytest.mark.parametrize("kind", GETS)
async def test_by_name_in_another_order(kind: Kind) -> None:
    names = ", ".join(reversed(GETS[kind]))
    assert await call(kind, eval(f"lambda {names}: ({names},)")) == tuple(VALUES[name] for name in reversed(GETS[kind]))


@pytest.mark.parametrize("kind", GETS)
async def test_by_position_whatever_the_names(kind: Kind) -> None:
    names = ", ".join(f"x{n}" for n, _ in enumerate(GETS[kind]))
    expected = tuple(VALUES[name] for name in GETS[kind])
    assert await call(kind, eval(f"lambda {names}: ({names},)")) == expected
    assert await call(kind, eval(f"lambda {names}, /: ({names},)")) == expected


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in GETS.items() for name in names])
async def test_any_one_of_them_alone(kind: Kind, name: str) -> None:
    assert await call(kind, eval(f"lambda {name}: {name}")) == VALUES[name]


@pytest.mark.parametrize("kind", GETS)
async def test_none_of_them(kind: Kind) -> None:
    assert await call(kind, lambda: "called") == "called"


@pytest.mark.parametrize("kind", GETS)
async def test_all_of_them(kind: Kind) -> None:
    assert await call(kind, lambda *args: args) == tuple(VALUES[name] for name in GETS[kind])


async def test_disconnect_by_position_may_leave_the_close_out() -> None:
    assert await call("disconnect", lambda c: c) == "CLIENT"


async def test_an_event_may_ask_for_the_message_too() -> None:
    assert await call("event", lambda message, client: (message, client)) == ("MESSAGE", "CLIENT")
    assert await call("event", lambda client, data, *, message: (client, data, message)) == (
        "CLIENT",
        "DATA",
        "MESSAGE",
    )


async def test_by_position_and_keyword() -> None:
    assert await call("disconnect", lambda c, *, close: (c, close)) == ("CLIENT", "CLOSE")


async def test_defaults() -> None:
    assert await call("event", lambda client, data=None: (client, data)) == ("CLIENT", "DATA")
    assert await call("event", lambda data=None: data) == "DATA"
    assert await call("event", lambda client, limit=5: (client, limit)) == ("CLIENT", 5)
    assert await call("event", lambda client, limit=5, data=None: (client, limit, data)) == ("CLIENT", 5, "DATA")
    assert await call("connect", lambda client, *, limit=5: (client, limit)) == ("CLIENT", 5)
    assert await call("connect", lambda limit=5: limit) == 5


async def test_variable_arguments_beside_others() -> None:
    assert await call("event", lambda client, *args: (client, args)) == ("CLIENT", ())
    assert await call("event", lambda client, **more: (client, more)) == ("CLIENT", {})
    assert await call("connect", lambda *args, **more: (args, more)) == (("CLIENT",), {})


async def test_variable_arguments_and_a_keyword_that_is_known() -> None:
    assert "DATA" in str(await call("event", lambda *args, data: (args, data)))


@pytest.mark.parametrize(
    ("kind", "function", "parameter"),
    [
        ("authenticate", lambda client, request: None, "client"),
        ("connect", lambda client, user: None, "user"),
        ("connect", lambda client, *, user: None, "user"),
        ("connect", lambda a, b: None, "a"),
        ("message", lambda client, message, extra: None, "extra"),
        ("message", lambda only: None, "only"),
        ("event", lambda client, data, message, extra: None, "extra"),
        ("event", lambda only: None, "only"),
        ("event", lambda *, database: None, "database"),
        ("event", lambda client, data, *, database: None, "database"),
        ("event", lambda *args, database: None, "database"),
        ("event", functools.partial(lambda a, b, c, d: None, 1), "b"),
        ("disconnect", lambda a, b, c: None, "a"),
        ("error", lambda exception: None, "exception"),
        ("binary", lambda client, payload, more: None, "payload"),
    ],
)
def test_refused_signature(kind: Kind, function: F, parameter: str) -> None:
    with pytest.raises(HookError) as caught:
        Hook(kind, function)
    message = str(caught.value)
    assert f"{parameter!r}" in message, "which parameter"
    assert ", ".join(GETS[kind]) in message, "what it can ask for"
    assert "lambda" in message, "which function"
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, VelocityError)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("event", lambda data, sender: None),
        ("event", lambda sender, client: None),
        ("message", lambda message, sender: None),
        ("message", lambda x, client: None),
        ("disconnect", lambda close, c: None),
        ("error", lambda error, c: None),
    ],
)
def test_a_known_name_never_gets_another_value(kind: Kind, function: F) -> None:
    # By position it would get the value of the other name, which nobody can mean.
    with pytest.raises(HookError):
        Hook(kind, function)


@pytest.mark.parametrize(
    ("kind", "function", "expected"),
    [
        ("room_event", lambda client, data, chat_id: (client, data, chat_id), ("CLIENT", "DATA", "7")),
        ("room_event", lambda c, d, chat_id: (c, d, chat_id), ("CLIENT", "DATA", "7")),
        ("room_event", lambda c, chat_id, d: (c, chat_id, d), ("CLIENT", "7", "DATA")),
        ("room_event", lambda chat_id: chat_id, "7"),
        ("room_event", lambda *, chat_id, room: (chat_id, room), ("7", "ROOM")),
        ("room_event", lambda c, d, *, chat_id: (c, d, chat_id), ("CLIENT", "DATA", "7")),
        ("room_event", lambda client, limit=5, chat_id=None: (client, limit, chat_id), ("CLIENT", 5, "7")),
        ("authorize", lambda client, chat_id: (client, chat_id), ("CLIENT", "7")),
        ("room_event", lambda c, d, room, chat_id: (c, d, room, chat_id), ("CLIENT", "DATA", "ROOM", "7")),
        ("room_event", lambda c, message, d: (c, message, d), ("CLIENT", "MESSAGE", "DATA")),
        ("room_join", lambda c, room: (c, room), ("CLIENT", "ROOM")),
        ("authorize", lambda c: c, "CLIENT"),
        ("room_join", lambda c, chat_id: (c, chat_id), ("CLIENT", "7")),
    ],
)
async def test_parameters_of_a_room_are_asked_for_by_their_names(kind: Kind, function: F, expected: object) -> None:
    values = {**VALUES, "room": "ROOM", "chat_id": "7"}
    assert await Hook(kind, function, ["chat_id"])(THREADS, values) == expected


@pytest.mark.parametrize(
    "function", [lambda client, data, other: None, lambda a, b, c, chat_id: None, lambda chat_id, x: None]
)
def test_a_parameter_that_the_room_does_not_have_is_refused(function: F) -> None:
    with pytest.raises(HookError, match=r"no room event hook gets.*client, data, message, room, chat_id"):
        Hook("room_event", function, ["chat_id"])


@pytest.mark.parametrize(
    ("kind", "function", "rule"),
    [
        ("event", lambda c: None, "or only client and data, in this order, by names of its own, and others by theirs"),
        ("event", lambda c, d, m: None, "client, data, message, broker; or only client and data, in this order"),
        ("event", lambda d, client: None, "or only client and data, in this order"),
        ("message", lambda c: None, "or only client and message, in this order"),
        ("disconnect", lambda c, d, e: None, "or only client, or client and close, in this order"),
        ("connect", lambda c, d: None, "or only client by a name of its own"),
    ],
)
def test_what_may_have_other_names_is_said_where_it_is_refused(kind: Kind, function: F, rule: str) -> None:
    with pytest.raises(HookError, match=rule):
        Hook(kind, function)


@pytest.mark.parametrize("kind", ARGUMENTS)
async def test_every_hook_may_ask_for_the_broker_by_name_or_by_annotation(kind: Kind) -> None:
    async def by_name(broker) -> object:  # type: ignore[no-untyped-def]
        return broker

    async def annotated(*, app: Broker) -> object:
        return app

    async def of_users(broker: Broker[str]) -> object:
        return broker

    async def optional(broker: Broker | None = None) -> object:
        return broker

    def plain(app: Broker) -> object:
        return app

    async with Scope(Surroundings("BROKER"), lambda: THREADS) as scope:
        for function in (by_name, annotated, of_users, optional, plain):
            hook = Hook(kind, function)
            assert hook.needs_scope
            assert await hook(THREADS, {**VALUES, SCOPE: scope}) == "BROKER"


async def test_the_broker_stands_anywhere_among_the_others() -> None:
    async def named(data: int, broker: Broker, client: Any) -> object:
        return data, broker, client

    async def own_names(c: Any, b: Broker, d: int) -> object:
        return d, b, c

    async with Scope(Surroundings("BROKER"), lambda: THREADS) as scope:
        for function in (named, own_names):
            values = {**VALUES, "data": "7", SCOPE: scope}
            with pytest.raises(InvalidDataError):
                await Hook("event", function)(THREADS, {**values, "data": "x"})
            assert await Hook("event", function)(THREADS, values) == (7, "BROKER", "CLIENT")


def test_what_does_not_ask_for_the_broker_needs_no_scope() -> None:
    assert not Hook("event", lambda client, data: None).needs_scope
    assert not Hook("event", lambda *args, **broker: None).needs_scope
    with pytest.raises(HookError, match="'broker'"):
        Hook("event", _of_another_type)


async def _of_another_type(broker: int) -> None: ...
