"""Options: what an application says of a handler beside its function. Knows nothing of how it is obeyed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from velocity_ws.errors import HookError
from velocity_ws.messages.names import MAX_NAME_LENGTH

__all__ = ["NO_OPTIONS", "HandlerOptions", "validate_event"]


@dataclass(frozen=True, slots=True)
class HandlerOptions:
    """How the messages of one event are handled.

    Attributes:
        concurrent: whether the client's next message does not wait for the handler.
        rate: messages a second of each client, in a limit of this event's own; ``None`` for the client's limit.
        burst: messages at once within that limit; given a rate alone, twice the rate, and at least one.
    """

    concurrent: bool = False
    rate: float | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            HookError: a rate is not above 0, a burst is less than 1, or there is one without a rate.
        """
        if self.rate is None:
            if self.burst is not None:
                raise HookError("burst is the size of an event's own limit: give on() a rate, too")
            return
        if not _is_number(self.rate) or self.rate <= 0:
            raise HookError(f"rate is a number of messages a second above 0, and not {self.rate!r:.80}")
        if self.burst is None:
            object.__setattr__(self, "burst", max(1, math.ceil(2 * self.rate)))
        elif not isinstance(self.burst, int) or self.burst < 1:
            raise HookError(f"burst is a whole number of messages at once, 1 or more, and not {self.burst!r:.80}")


NO_OPTIONS = HandlerOptions()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def validate_event(event: str, decorator: str = "on") -> str:
    """Check the name of an event that a handler is registered for, and return it.

    Args:
        event: the name.
        decorator: what registers it, for the error.

    Raises:
        HookError: it is not a string of 1 to 256 characters, or begins with a $.
    """
    if not isinstance(event, str) or not 0 < len(event) <= MAX_NAME_LENGTH:
        raise HookError(
            f"{decorator}() takes the event's name, 1 to {MAX_NAME_LENGTH} characters, as in "
            f"@broker.{decorator}('chat_message'); it got {event!r:.80}"
        )
    if event.startswith("$"):
        raise HookError(f"events that begin with $ are reserved: give the event {event!r:.80} another name")
    return event
