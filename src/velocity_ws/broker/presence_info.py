"""PresenceInfos: asks the application what the members of a room are told of a user. Knows no room and no node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from velocity_ws.broker.presence_wire import MAX_INFO
from velocity_ws.errors import EncodeError, HookError
from velocity_ws.hooks.hook import Hook
from velocity_ws.messages.events import encode_info
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.failures import is_end_of_task

__all__ = ["PresenceInfos"]

TIMEOUT = 5.0
"""Seconds that the application may take; the user is there without info then."""
REPORT_TIMEOUT = 5.0
"""Seconds that ``on_error`` has for a failure of it."""
GRACE = 0.5
"""Seconds that it has to end when it is cancelled."""


class PresenceInfos:
    """The questions that wait for an answer of the application. On the broker's loop only."""

    def __init__(
        self,
        call: Callable[[Hook, Mapping[str, Any]], Awaitable[Any]],
        report: Callable[[Client, BaseException, Hook], Awaitable[None]],
    ) -> None:
        """
        Args:
            call: calls a hook with its values.
            report: tells ``on_error`` of what it raised.
        """
        self._call = call
        self._report = report
        self._running: set[asyncio.Task[None]] = set()

    def ask(self, hook: Hook, client: Client, answered: Callable[[bytes], None]) -> None:
        """Ask what is told of a client's user. Returns at once.

        Args:
            hook: the application's function.
            client: the client; its user as of now is asked about.
            answered: called with a JSON object; with nothing, where the function failed or said nothing.
        """
        task = asyncio.create_task(self._ask(hook, client, client.user, answered), name="velocity-ws presence info")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """Cancel what is still asked, and wait a moment for it; what swallows that is left behind."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=GRACE)

    async def _ask(self, hook: Hook, client: Client, user: Any, answered: Callable[[bytes], None]) -> None:
        info = b""
        try:
            async with asyncio.timeout(TIMEOUT):
                info = _encode(hook, await self._call(hook, {"user": user}))
        except BaseException as error:
            if is_end_of_task(error):
                raise
            answered(b"")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPORT_TIMEOUT):
                    await self._report(client, error, hook)
            return
        answered(info)


def _encode(hook: Hook, said: object) -> bytes:
    if said is None:
        return b""
    try:
        info = encode_info(said)
    except EncodeError as error:
        raise HookError(f"{hook.name} returned what has no JSON form: {error}") from error
    if not info.startswith(b"{"):
        raise HookError(f"{hook.name} returns a dict, or None, and not {said!r:.80}")
    if len(info) > MAX_INFO:
        raise HookError(
            f"{hook.name} returned {len(info)} bytes of JSON, and {MAX_INFO} are told of a user; what is longer can be "
            "fetched by the page"
        )
    return info
