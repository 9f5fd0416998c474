"""Bare: what is said of a decorator that is written with the parentheses of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from velocity_ws import Broker, EventRouter, HookError
from velocity_ws.broker.bare import bare

OF_BROKERS = (
    *("authenticate", "refresh", "on_connect", "on_message", "on_binary"),
    *("on_disconnect", "on_join", "on_leave", "on_error"),
)
OF_ROOMS = ("authorize", "on_join", "on_leave", "presence_info")


def decorators() -> list[tuple[str, Callable[..., Any]]]:
    broker, router = Broker(), EventRouter()
    owners = [(broker, OF_BROKERS), (router, OF_BROKERS), (broker.rooms("x:{y}", presence=True), OF_ROOMS)]
    return [(name, getattr(owner, name)) for owner, names in owners for name in names]


@pytest.mark.parametrize(("name", "decorator"), decorators())
def test_a_decorator_of_one_function_says_that_it_has_no_parentheses(name: str, decorator: Callable[..., Any]) -> None:
    for args, options in (((), {}), ((), {"concurrent": True}), ((print, 5), {}), ((print,), {"rate": 5})):
        with pytest.raises(HookError, match=f"^{name} is written without the parentheses"):
            decorator(*args, **options)


def test_it_is_the_same_method_for_whoever_writes_it_right() -> None:
    class Owner:
        @bare
        def takes(self, function: str) -> str:
            """Take it."""
            return function

    assert Owner().takes("f") == Owner().takes(function="f") == "f"
    assert Owner.takes.__doc__ == "Take it."
