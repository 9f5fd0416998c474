"""Bare: decorators that take a function and nothing else, and say so where they are written otherwise. Calls none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from velocity_ws.errors import HookError

__all__ = ["bare"]

Method = TypeVar("Method", bound=Callable[..., Any])


def bare(method: Method) -> Method:
    """Let a method that is a decorator refuse to be called with anything but one function, as in ``@broker.on_join()``.

    Raises:
        HookError: by the method, with what to write.
    """

    @functools.wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) + len(kwargs) != 1 or kwargs.keys() - {"function"}:
            name = method.__name__
            raise HookError(f"{name} is written without the parentheses, and takes no options: @….{name}")
        return method(self, *args, **kwargs)

    return cast(Method, checked)
