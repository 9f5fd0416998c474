"""Appending: messages to rooms with history, which the engine keeps and publishes in one step. Knows no client."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from velocity_ws.errors import BackplaneUnavailable, HistoryError
from velocity_ws.history.envelopes import encode_entry
from velocity_ws.history.items import Append, Appended, Log
from velocity_ws.history.link import HistoryLink
from velocity_ws.messages.outbound import PreparedMessage

__all__ = ["Appending", "Heard"]

NOBODY_HAS_IT = "nobody has it"
"""Hint of the error about a message that was refused."""
MAY_BE_THERE = "whether the room has it is not known, and sending it again with the same dedupe is safe"
"""Hint of the error about a message of which that is not known."""
Heard = Callable[[Log, bytes, bytes, frozenset[str], str], None]
"""Called with a log, the packed stamp of what was appended, the message's JSON, who does not get it, and its key."""


class Appending:
    """The messages of one node, or of an emitter. On the broker's loop only."""

    def __init__(self, link: HistoryLink, node_id: str, heard: Heard | None = None) -> None:
        """
        Args:
            link: the way to the logs.
            node_id: the id of the sender.
            heard: told what was appended, each time, in order; ``None`` where nobody here gets it.
        """
        self._link = link
        self._node_id = node_id
        self._heard = heard

    async def append(
        self,
        room: str,
        log: Log,
        message: PreparedMessage,
        excluded: frozenset[str] = frozenset(),
        dedupe: str | None = None,
        until: float | None = None,
    ) -> Appended:
        """Append a message; returns when the engine has it. Cancelling this takes nothing back.

        Args:
            room: the room.
            log: its log.
            message: the message.
            excluded: the ids of clients that do not get it.
            dedupe: what makes it the same message when it is sent again.
            until: when its outcome is told at the latest, in the loop's time; by default at the end of the timeout.

        Raises:
            BackplaneUnavailable: the engine has it not, or that is not known.
            HistoryError: the key stands for another message.
        """
        payload, key = message.payload, message.key or ""
        envelope = encode_entry(self._node_id, room, payload, excluded, key)
        append = Append(log, envelope)
        if dedupe is not None:
            append = Append(log, envelope, dedupe, hashlib.blake2b(payload, digest_size=16).digest())
        heard = self._heard

        def then(appended: Appended) -> None:
            if heard is not None:
                heard(log, appended.packed, payload, excluded, key)

        try:
            return await self._link.append(append, then, until)
        except HistoryError:
            raise HistoryError(
                f"dedupe={dedupe!r:.80} was used for another message of room {room!r:.80} within 5 minutes: give each "
                "message a name of its own, and send the very same again, not one with another time or id in it",
                "conflict",
            ) from None
        except BackplaneUnavailable as error:
            hint = NOBODY_HAS_IT if error.outcome == "refused" else MAY_BE_THERE
            raise BackplaneUnavailable(error.reason, error.outcome, hint=hint) from None
