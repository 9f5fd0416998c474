"""Permission: asks an ``authorize`` whether a client may be in a room, in time. Knows no member and no queue."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from velocity_ws.errors import ClientError, HookError
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.validation import InvalidParameterError
from velocity_ws.sessions.calls import Calls
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.failures import is_end_of_task
from velocity_ws.sessions.room_messages import MAY_NOT_BE_IN
from velocity_ws.sessions.web_errors import client_error_of, is_unavailable, unavailable

__all__ = ["Permission", "ask", "failed", "forbidden"]

AUTHORIZE_TIMEOUT = 5.0
"""Seconds that an ``authorize`` may take."""


class Permission(NamedTuple):
    """What an ``authorize`` has said.

    Attributes:
        refusal: why not, as the client is told; ``None`` for yes.
        failure: what the hook should not have raised; ``None`` where it did not fail.
        hook: the hook.
    """

    refusal: ClientError | None
    failure: BaseException | None = None
    hook: Hook | None = None


def forbidden() -> ClientError:
    """The refusal of a room that a client may not be in, or that there is not."""
    return ClientError("FORBIDDEN", MAY_NOT_BE_IN)


def failed() -> ClientError:
    """The refusal where that could not be found out."""
    return ClientError("INTERNAL_ERROR", "the server failed to decide whether you may be in this room")


async def ask(calls: Calls, hook: Hook, client: Client, room: str, parameters: Mapping[str, str]) -> Permission:
    """Ask whether a client may be in a room. Raises nothing but its cancellation.

    Args:
        calls: runs hooks.
        hook: the ``authorize``.
        client: who.
        room: the room.
        parameters: what the parameters of its pattern stand for in the room's name.
    """
    try:
        async with asyncio.timeout(AUTHORIZE_TIMEOUT) as limit:
            answer = await calls.call(hook, {**parameters, "client": client, "room": room})
    except InvalidParameterError:
        return Permission(forbidden())
    except BaseException as error:
        if is_end_of_task(error):
            raise
        if limit.expired():
            return _too_late(hook)
        if is_unavailable(error):
            return Permission(unavailable("whether you may be in this room cannot be found out"), error, hook)
        refusal = client_error_of(error)
        return Permission(failed(), error, hook) if refusal is None else Permission(refusal)
    if limit.expired():  # and the hook has swallowed its cancellation
        return _too_late(hook)
    if answer is True:
        return Permission(None)
    if answer is False:
        return Permission(forbidden())
    what = f"{hook.name} says whether a client may be in a room: it returns a bool, and not {answer!r:.80}"
    return Permission(failed(), HookError(what), hook)


def _too_late(hook: Hook) -> Permission:
    late = TimeoutError(f"{hook.name} took more than {AUTHORIZE_TIMEOUT:g} s, and was cancelled")
    return Permission(failed(), late, hook)
