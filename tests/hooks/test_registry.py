"""Hooks: what is registered, in which order, and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from tests.support.hooks import THREADS, VALUES
from velocity_ws.errors import HookError
from velocity_ws.hooks.options import validate_event
from velocity_ws.hooks.registry import Hooks


def test_registering_returns_the_function_unchanged() -> None:
    hooks = Hooks()

    def connect(client: Any) -> None: ...

    async def event(client: Any, data: int) -> None: ...

    before = dict(vars(event)), event.__annotations__.copy()
    assert hooks.register("connect", connect) is connect
    assert hooks.register_event("e", event) is event
    assert (dict(vars(event)), event.__annotations__) == before


async def test_hooks_of_a_kind_keep_the_order_of_registration() -> None:
    hooks = Hooks()
    for n in range(3):
        hooks.register("connect", functools.partial(lambda n, client: n, n))
    hooks.register("disconnect", lambda: None)
    assert [await hook(THREADS, VALUES) for hook in hooks.of("connect")] == [0, 1, 2]
    assert hooks.of("message") == []


def test_the_same_function_may_be_registered_twice() -> None:
    hooks = Hooks()

    def hook() -> None: ...

    hooks.register("connect", hooks.register("connect", hook))
    assert len(hooks.of("connect")) == 2


def test_an_event_has_one_handler() -> None:
    hooks = Hooks()

    def first(client: Any) -> None: ...

    hooks.register_event("e", first)
    with pytest.raises(HookError, match=r"'e' is handled by .*first already.*on_message"):
        hooks.register_event("e", lambda: None)
    hooks.register_event("E", lambda: None)
    handler = hooks.handler("e")
    assert handler is not None
    assert handler.name.endswith("first")
    assert hooks.handler("other") is None


@pytest.mark.parametrize("event", ["a", " ", "x" * 256, "é" * 256, "*", "\n"])
def test_event_name(event: str) -> None:
    assert validate_event(event) is event


@pytest.mark.parametrize("event", ["", "x" * 257, None, 5, b"e", lambda client: None])
def test_bad_event_name(event: Any) -> None:
    with pytest.raises(HookError, match=r"@broker\.on\('chat_message'\)") as caught:
        validate_event(event)
    assert len(str(caught.value)) < 300


def test_events_that_begin_with_a_dollar_are_reserved() -> None:
    with pytest.raises(HookError, match=r"begin with \$ are reserved.*'\$ping'"):
        validate_event("$ping")
    assert validate_event("a$") == "a$"


def test_a_handler_keeps_its_options() -> None:
    hooks = Hooks()
    hooks.register_event("typing", lambda: None, concurrent=True, rate=5, burst=10)
    hooks.register_event("plain", lambda: None)
    typing, plain = hooks.handler("typing"), hooks.handler("plain")
    assert typing is not None
    assert plain is not None
    assert (typing.options.concurrent, typing.options.rate, typing.options.burst) == (True, 5, 10)
    assert (plain.options.concurrent, plain.options.rate, plain.options.burst) == (False, None, None)


def test_hooks_that_come_later_are_found_where_those_before_are() -> None:
    hooks, router = Hooks(), Hooks()
    handlers, guards = hooks.by_event, hooks.guards
    router.register_event("post", lambda: None)
    router.register("message", lambda: None)
    hooks.include(router, "chat.")
    hooks.register_event("typing", lambda: None)
    assert handlers.keys() == {"chat.post", "typing"}
    assert guards == hooks.of("message")
    assert len(guards) == 1
