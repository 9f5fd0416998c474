"""RefusedMessages: what a client over a limit is told, and when it is closed for going on. Knows no queue."""

from __future__ import annotations

from typing import Any

from velocity_ws.close import TOO_MANY_MESSAGES
from velocity_ws.hooks.hook import Hook
from velocity_ws.limits import RateLimiter
from velocity_ws.messages.events import encode_rate_limit_exceeded
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.messages.scan import find_id
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.inbox_owner import InboxOwner

__all__ = ["RefusedMessages"]

REFUSALS = 1000
"""Messages a second over the rate limit that a client may go on sending; beyond, it is closed (1008)."""
REFUSALS_AT_ONCE = 5000
"""The same at once."""
REFUSED_BYTES = 4096
"""Bytes of such a message that count as another one."""
FLOOD_CLOSE_TIMEOUT = 0.25
"""Seconds that such a client has to be closed: what it goes on sending costs the others until it is gone."""


class RefusedMessages:
    """The refused messages of one client. On the broker's loop only."""

    __slots__ = ("_context", "_limiter", "_owner")

    def __init__(self, context: NodeContext[Any], owner: InboxOwner) -> None:
        """
        Args:
            context: of the session.
            owner: the session, which answers the client.
        """
        self._context = context
        self._owner = owner
        self._limiter = RateLimiter(REFUSALS, REFUSALS_AT_ONCE, context.clock)

    def refuse(self, payload: str | bytes, size: int, retry_after: float, why: str, hook: Hook | None = None) -> None:
        """Answer a message that is over a limit, and close a client that goes on and on.

        Args:
            payload: the message.
            size: its bytes.
            retry_after: seconds until it would be within the limit.
            why: which limit it is, as the client and the log are told.
            hook: the handler whose own limit it is; ``None`` if it is of the settings.
        """
        context, owner = self._context, self._owner
        context.hints.too_many(owner.client.id, why, hook, is_closed=False)
        context.counters.rate_limited += 1
        owner.offer(_rate_limit_exceeded(payload, retry_after, why))
        if self._limiter.acquire(1 + size // REFUSED_BYTES):
            context.hints.too_many(owner.client.id, why, hook, is_closed=True)
            owner.close(TOO_MANY_MESSAGES, discard=True, within=FLOOD_CLOSE_TIMEOUT)


def _rate_limit_exceeded(payload: str | bytes, retry_after: float, why: str) -> PreparedMessage:
    request_id = find_id(payload) if isinstance(payload, str) else None
    return encode_rate_limit_exceeded(why, retry_after, request_id)
