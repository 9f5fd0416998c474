"""Binding: which parameter of a hook gets which value, and what is refused at registration."""

from __future__ import annotations

import functools

import pytest

from tests.support.hooks import VALUES, F, call
from velocity_ws.errors import HookError, VelocityError
from velocity_ws.hooks.binding import Kind
from velocity_ws.hooks.registry import Hook

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
