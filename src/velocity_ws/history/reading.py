"""Reading: what an application does with a room's log but for appending: reads, clears, removes. Knows no client."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from velocity_ws.errors import HistoryError
from velocity_ws.history.entries import Entry as Stored
from velocity_ws.history.envelopes import CLEARED, REMOVED, encode_notice, open_envelope
from velocity_ws.history.items import Log, Query, Removal, Top
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.positions import InvalidPosition, Position
from velocity_ws.history.recoveries import Since
from velocity_ws.history.recovery import judge, view_of
from velocity_ws.history.values import Entry
from velocity_ws.messages.outbound import parse
from velocity_ws.retention import MAX_SIZE

__all__ = ["Reading", "no_history", "parse_since"]

PAGE = 500
PAGE_BYTES = 1024 * 1024


Noticed = Callable[[str, Top, bool], None]
"""Called with a topic, the end of its log, and whether the log was cleared."""


class Reading:
    """The logs of rooms, as an application reads them. On the broker's loop only."""

    def __init__(self, link: HistoryLink, node_id: str, noticed: Noticed | None = None) -> None:
        """
        Args:
            link: the way to the logs.
            node_id: the id of this node.
            noticed: told where a log ends once it was changed; ``None`` where nobody here is in a room.
        """
        self._link = link
        self._node_id = node_id
        self._noticed = noticed

    async def history(
        self, log: Log, since: str | None, limit: int, *, reverse: bool, is_latest: bool = False
    ) -> list[Entry]:
        """Read entries of a log.

        Args:
            log: which.
            is_latest: whether its newest entry stands for all before it.
            since: only those after this position.
            limit: how many at most.
            reverse: whether the newest come first.

        Raises:
            HistoryError: the position is none, or what came after it is not all there.
            BackplaneUnavailable: the engine did not answer.
        """
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise HistoryError(f"the limit is a number of messages, 1 or more, not {limit!r:.80}")
        limit = min(limit, MAX_SIZE)  # or an engine could not write it, and it may be a stranger's
        position = None if since is None else _parse(since)
        if reverse:
            return await self._newest(log, position, limit, is_latest=is_latest)
        after = 0 if position is None else position.offset
        found: list[Stored] = []
        while True:
            query = Query(log, after, min(PAGE, limit - len(found)), PAGE_BYTES)
            top, entries = await self._link.read(query)
            if not found and position is not None:
                _check(position, top, entries, is_latest=is_latest)
            if found and (top.position.epoch != found[-1].stamp.position.epoch or _is_torn(found, entries)):
                return _opened(found)  # it began anew, or lost some, while it was read
            found += entries
            if not entries or len(found) >= limit or found[-1].stamp.position.offset >= top.position.offset:
                return _opened(found)
            after = found[-1].stamp.position.offset

    async def _newest(self, log: Log, position: Position | None, limit: int, *, is_latest: bool) -> list[Entry]:
        """The newest entries after a position, the newest first."""
        top, found = await self._link.read(Query(log, 0, limit, log.limits.max_bytes, newest=True))
        if position is None:
            return _opened(found[::-1])
        after, entries = position.offset + 1, found
        if not found or found[0].stamp.position.offset > after:  # they do not show whether there was more
            top, entries = await self._link.read(Query(log, position.offset, 1, PAGE_BYTES))
        _check(position, top, entries, is_latest=is_latest)
        return _opened([entry for entry in reversed(found) if entry.stamp.position.offset >= after])

    async def clear(self, log: Log) -> None:
        """Forget the entries of a log.

        Raises:
            BackplaneUnavailable: the engine did not do it, or that is not known.
        """
        top = await self._link.clear(log, encode_notice(self._node_id, CLEARED))
        if self._noticed is not None:
            self._noticed(log.topic, top, True)

    async def remove(self, log: Log, mark: str) -> None:
        """Keep that somebody was removed from the room of a log.

        Args:
            log: the log.
            mark: of whom; see `user_mark`.

        Raises:
            BackplaneUnavailable: the engine did not do it, or that is not known.
        """
        top = await self._link.remove(Removal(log, mark, encode_notice(self._node_id, REMOVED)))
        if self._noticed is not None:
            self._noticed(log.topic, top, False)


def no_history(room: str) -> HistoryError:
    """The error about a room that has no history."""
    return HistoryError(f"room {room!r:.80} has no history: give its kind one, as rooms(pattern, history=History())")


def parse_since(since: object) -> Since | None:
    """Read where an application says that a client stands.

    Raises:
        HistoryError: it is neither a position, ``"start"`` nor a number of messages.
    """
    if since is None or since == "start":
        return since
    if isinstance(since, int) and not isinstance(since, bool) and since >= 0:
        return since
    return _parse(since)


def _parse(text: object) -> Position:
    try:
        return Position.parse(text)
    except InvalidPosition as error:
        raise HistoryError(f"{error}, and not {text!r:.80}") from None


def _check(position: Position, top: Top, entries: list[Stored], *, is_latest: bool) -> None:
    view = view_of(position, top, entries)
    reason = judge(position, top, view, removed=0, limit=2**53, is_latest=is_latest)
    if reason is not None:
        raise HistoryError("what came after this position is not all there any more: read without it", reason)


def _is_torn(found: list[Stored], entries: list[Stored]) -> bool:
    return bool(entries) and entries[0].stamp.previous != found[-1].stamp.position.mark


def _opened(entries: list[Stored]) -> list[Entry]:
    """What an application gets of entries; nothing of those that no node of this version has appended."""
    found: list[Entry] = []
    for entry in entries:
        opened = open_envelope(entry.envelope)
        if opened is not None:
            with contextlib.suppress(ValueError):
                event, data = parse(opened.payload)
                found.append(Entry(event, data, entry.stamp.position.at, entry.stamp.time / 1000))
    return found
