"""InboundLimits: what one client may send: messages of an event, bytes, pings; and refusals. Knows no queue."""

from __future__ import annotations

from typing import Any

from velocity_ws.close import TOO_BIG
from velocity_ws.hooks.hook import Hook
from velocity_ws.limits import RateLimiter
from velocity_ws.logs import quote
from velocity_ws.messages.events import PING, encode_pong
from velocity_ws.messages.inbound import Message, decode, head_of
from velocity_ws.sessions.context import NodeContext
from velocity_ws.sessions.inbox_owner import InboxOwner
from velocity_ws.sessions.pacing import PACED
from velocity_ws.sessions.refused import RefusedMessages

__all__ = ["BILLED", "InboundLimits"]

TOO_MANY = "too many messages"
BILLED = 4096
"""Bytes of messages that are counted together against the limit in bytes; less than what is paced."""
SECONDS_AT_ONCE = 4
"""Seconds' worth of the limit in bytes that may come at once."""
PINGS = 1
"""Messages ``$ping`` a second that are answered beside all limits; further ones are messages like others."""
PINGS_AT_ONCE = 10
"""The same at once."""


class InboundLimits:
    """Limits of one client that most never come near: each part is made when it is first needed.

    On the broker's loop only.
    """

    __slots__ = ("_by_handler", "_bytes", "_context", "_owner", "_pings", "_refusals")

    def __init__(self, context: NodeContext[Any], owner: InboxOwner) -> None:
        """
        Args:
            context: of the session.
            owner: the session, which answers the client.
        """
        self._context = context
        self._owner = owner
        self._by_handler: dict[Hook, RateLimiter] | None = None
        self._bytes: RateLimiter | None = None
        self._pings: RateLimiter | None = None
        self._refusals: RefusedMessages | None = None

    def refuses(self, payload: str | bytes, size: int, came: int, limiter: RateLimiter | None) -> bool:
        """Look at every limit; whether a message was over one, and refused.

        Args:
            payload: the message.
            size: its bytes.
            came: with it, bytes that have come and are not billed yet.
            limiter: of the client's messages a second, of those whose event has no limit of its own.
        """
        context = self._context
        if size > context.settings.max_message_size:
            self._owner.close(TOO_BIG)
            return True
        why, hook = TOO_MANY, None
        if context.messages.has_limits:
            limiter, why, hook = self._bucket(payload, limiter)
        if limiter is not None and (retry_after := limiter.acquire()):
            self.refuse(payload, size, retry_after, why, hook)
        elif size >= PACED and not context.pace.has_room(size):
            self.refuse(payload, size, 1.0, "too many large messages at once, of all clients")
        elif retry_after := self._bill(came):
            self.refuse(payload, size, retry_after, "too many bytes")
        else:
            return False
        return True

    def answers_ping(self, text: str) -> bool:
        """Answer a ``$ping`` at once, whatever is being handled; whether that was done.

        It was not if this is something else, or one ping too many, which is a message like others.
        """
        head = head_of(text)
        if head is None or head.event != PING:
            return False
        if self._pings is None:
            self._pings = RateLimiter(PINGS, PINGS_AT_ONCE, self._context.clock)
        if self._pings.acquire():
            return False
        message = decode(text)
        self._owner.offer(encode_pong(head.id, message.data if isinstance(message, Message) else None))
        return True

    def refuse(
        self, payload: str | bytes, size: int, retry_after: float, why: str = TOO_MANY, hook: Hook | None = None
    ) -> None:
        """Answer a message that is over a limit, and close a client that goes on; see `RefusedMessages.refuse`."""
        if self._refusals is None:
            self._refusals = RefusedMessages(self._context, self._owner)
        self._refusals.refuse(payload, size, retry_after, why, hook)

    def _bucket(self, payload: str | bytes, limiter: RateLimiter | None) -> tuple[RateLimiter | None, str, Hook | None]:
        """What a message counts in: the limit of its event, where that has one, or else the client's; what is said of
        too many; and the handler whose limit it is.

        A message is read as far as its names here, before anything is done with it that costs more.
        """
        head = head_of(payload) if isinstance(payload, str) else None
        hook = None if head is None else self._context.messages.limited(head.event, head.room)
        if head is None or hook is None or hook.options.rate is None:
            return limiter, TOO_MANY, None
        if self._by_handler is None:
            self._by_handler = {}
        own = self._by_handler.get(hook)
        if own is None:
            own = RateLimiter(hook.options.rate, hook.options.burst or 0, self._context.clock)
            self._by_handler[hook] = own
        return own, f"{TOO_MANY} of event {quote(head.event)}", hook

    def _bill(self, size: int) -> float:
        """Count bytes that have come; 0 where they are within the limit, else the seconds until they would be."""
        if self._bytes is None:
            settings = self._context.settings
            if not settings.rate_bytes:
                return 0.0
            burst = max(SECONDS_AT_ONCE * settings.rate_bytes, settings.max_message_size + BILLED)
            self._bytes = RateLimiter(settings.rate_bytes, burst, self._context.clock)
        return self._bytes.acquire(size)
