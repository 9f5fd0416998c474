"""SessionState: where a session stands between its first hook and its last, and what leads from one to the next.

    NEW      open()                                                           -> OPEN
    NEW      detach(), if the client was not accepted                         -> ENDED
    NEW      finish(), if open() raised                                       -> ENDED
    OPEN     close() as the goodbye is said, abort(), finish(), a failed send -> CLOSING
    CLOSING  no hook is waited for any more                                   -> ENDED

None goes back. A client is in the hub, and can be sent to, only while its session is OPEN; so it still is while a close
waits for what is to be handled first. In NEW, `abort` changes no state: there is no transport to cancel yet.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal, NamedTuple, get_args

from velocity_ws.close import Goodbye

__all__ = ["OPEN", "Closing", "Handle", "SessionState"]


class SessionState(Enum):
    """Where a session stands."""

    NEW = "new"
    OPEN = "open"
    CLOSING = "closing"
    ENDED = "ended"


OPEN: Final = SessionState.OPEN
"""For the paths of messages: a name of a module is found faster than a member of an enum."""

Handle = Literal["nothing", "current", "arrived", "all"]
"""What of a client's messages is still handled when its connection is closed: ``nothing`` (the handler that runs is
cancelled), the ``current`` one, all that have ``arrived``, or ``all``, those too that come until the client answers."""
HANDLES: Final[tuple[Handle, ...]] = get_args(Handle)
"""From the least to the most."""


class Closing(NamedTuple):
    """How a session is to be closed: the arguments of `Session.close`."""

    goodbye: Goodbye
    handle: Handle
    discard: bool
    within: float

    def handles_less_than(self, other: Closing) -> bool:
        """Whether less is still handled with this one than with the other."""
        return HANDLES.index(self.handle) < HANDLES.index(other.handle)
