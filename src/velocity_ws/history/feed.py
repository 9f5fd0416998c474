"""Feed: one room on one node, with what the engine says when it is asked: what was missed, where the log ends. Pure.

Whatever the engine says, members get each message once and in order, or are told what is missing. Knows no client, and
does not ask the engine itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from velocity_ws.history.entries import Entry, Stamp
from velocity_ws.history.envelopes import open_envelope
from velocity_ws.history.hearing import FeedUser, Gap, Hearing, Opened
from velocity_ws.history.items import Query, Range, Top
from velocity_ws.history.positions import Position
from velocity_ws.history.recovery import judge, view_of
from velocity_ws.history.ring import Frame
from velocity_ws.messages.events import GapReason
from velocity_ws.messages.outbound import PlacedMessage, placed

__all__ = ["Asked", "Feed", "FeedUser", "Gap", "Opened"]

NO_LIMIT = 2**53


class Asked(NamedTuple):
    """What was known when the engine was asked: an answer cannot be older than that.

    Attributes:
        epoch: the epoch; empty where none was known.
        offset: the offset.
    """

    epoch: bytes
    offset: int


class Feed(Hearing):
    """One room's log, as far as a node has it. On the broker's loop only."""

    def asked(self) -> Asked:
        """What is known, for the engine's answer to be held against."""
        return Asked(self.epoch, self.offset)

    def learned_top(self, top: Top, asked: Asked) -> None:
        """The engine has said where the log ends."""
        end = top.position
        if not self._is_current(asked):
            self.wants_top = True
            return
        self.wants_top = False
        self._learn(top)
        if not self.is_open:
            self._open_at(end)
            self.ring.is_whole = not self.offset
            self._drain()
            self._revise(end.revision)
            self.wants_rest = end.offset > self.offset
        elif end.epoch != self.epoch or end.offset < asked.offset or not self._agrees(end):
            self.wants_range = True
        elif end.offset > self.offset:
            self.wants_rest = True
        else:
            self._revise(end.revision)

    def learned_rest(self, found: Range, query: Query, asked: Asked) -> int:
        """The engine was asked for what follows the last message; how many that were missing it had.

        Args:
            found: what it has said.
            query: what it was asked, with ``after``.
            asked: what was known then.
        """
        top, entries = found
        if not self._is_current(asked) or not self.is_open:
            return 0
        self.wants_top = self.wants_rest = False
        self._learn(top)
        if query.after != self.offset:  # members have got some of it meanwhile
            entries = [entry for entry in entries if entry.stamp.position.offset > self.offset]
            if top.position.offset > self.offset and not entries:
                self.wants_rest = True
                return 0
        if top.position.epoch != self.epoch or top.position.offset < asked.offset or not self._agrees(top.position):
            self.wants_range = True
            return 0
        if top.position.offset <= self.offset:
            self._revise(top.position.revision)
            return 0
        view = view_of(self.position, top, entries)
        reason = judge(self.position, top, view, removed=0, limit=NO_LIMIT, is_latest=self.is_latest)
        if reason == "rewound":
            self.wants_range = True
            return 0
        if reason is not None or (entries and entries[0].stamp.position.offset > self.offset + 1):
            to = entries[0].stamp.before if entries else top.position
            if self.is_latest and reason is None:
                self._stand(to)
            else:
                self._skip(to, to.offset - self.offset, "expired" if reason == "expired" else "evicted")
        repaired = self._take(entries)
        self.wants_rest = top.position.offset > self.offset
        self._drain()
        return repaired

    def learned_range(self, found: Range, query: Query, asked: Asked) -> None:
        """The engine was asked for its newest entries.

        Args:
            found: what it has said.
            query: what it was asked, ``newest``.
            asked: what was known then.
        """
        top, entries = found
        if not self._is_current(asked):
            return  # and it is asked again
        self.wants_top = self.wants_range = False
        self._learn(top)
        is_whole = self._is_all(query, entries)
        end = top.position
        if not self.is_open:
            self._open_at(end)
        elif end.epoch != self.epoch:
            self._begin(top, entries, is_whole=is_whole)
            return
        elif end.offset < asked.offset or not self._agrees(end) or not self._agree(entries):
            self._go_back(top, entries)
            return
        elif entries and entries[0].stamp.position.offset > self.offset + 1:
            self.wants_rest = True  # which asks for what is between as well
            return
        elif end.offset > self.offset and not entries:
            self.wants_rest = True
            return
        self.ring.is_whole = is_whole
        self._fill(entries)
        self._take([entry for entry in entries if entry.stamp.position.offset > self.offset])
        self._revise(end.revision)
        if entries and self.ring.frames and not self._begins_with(entries[0]):
            self.ring.is_whole = False
        self._drain()

    def _is_all(self, query: Query, entries: Sequence[Entry]) -> bool:
        """Whether the newest entries that were asked for are all that there are."""
        limits = self.log.limits
        if entries and entries[0].stamp.position.offset == 1:
            return True
        size = sum([len(entry.envelope) for entry in entries])
        return (len(entries) < query.limit or query.limit >= limits.size) and (
            size < query.max_bytes or query.max_bytes >= limits.max_bytes
        )

    def _begin(self, top: Top, entries: Sequence[Entry], *, is_whole: bool) -> None:
        """The log has begun anew: all that is in it, the members have not had."""
        self._skip(entries[0].stamp.before if entries else top.position, None, "epoch")
        self.ring.is_whole = is_whole
        self._take(entries)
        self._revise(top.position.revision)
        self._drain()

    def _go_back(self, top: Top, entries: Sequence[Entry]) -> None:
        """The log went back, and perhaps on with others: behind what is as it was, all is new to the members.

        Where it is not known any more what was, all is that is newer than their last message.
        """
        to, new = top.position, entries[:0]
        for index, entry in enumerate(entries):
            if entry.stamp.time > self._newest:
                to, new = entry.stamp.before, entries[index:]
                break
        if entries and self._mark_of(entries[0].stamp.position.offset - 1) == entries[0].stamp.previous:
            to, new = entries[0].stamp.before, entries
        for index, entry in enumerate(entries):
            if self._mark_of(entry.stamp.position.offset) == entry.stamp.position.mark:
                to, new = entry.stamp.position, entries[index + 1 :]
        self._user.went_back(self, self.epoch, self._behind(to.offset))
        self._skip(to, None, "epoch")
        self._take(new)
        self._revise(top.position.revision)
        self._drain()

    def _take(self, entries: Sequence[Entry]) -> int:
        """Give the members entries that follow."""
        taken = 0
        for entry in entries:
            stamp = entry.stamp.pack()
            opened = open_envelope(entry.envelope)
            if opened is None:  # of a version to come: it has a place, and nobody here can read it
                self._skip(entry.stamp.position, 1, "evicted")
                continue
            if stamp[:13] == self._next and stamp[24:32] == self._mark:
                self._advance(stamp, *opened)
                taken += 1
        return taken

    def _fill(self, entries: Sequence[Entry]) -> None:
        """Put entries that the members have had, or that were there before them, in front of the ring."""
        first = self.ring.frames[0].offset if self.ring.frames else self.offset + 1
        older: list[Frame] = []
        for entry in entries:
            offset = entry.stamp.position.offset
            if offset >= first:
                break
            opened = open_envelope(entry.envelope)
            if opened is None:
                older.clear()
                continue
            message = self._placed(entry, opened)
            older.append(Frame(entry.stamp.pack(), offset, message, opened.excluded))
        if older and older[-1].offset == first - 1:
            self.ring.prepend(older)

    def _placed(self, entry: Entry, opened: Opened) -> PlacedMessage:
        stamp = entry.stamp
        return placed(opened.payload, self.room, stamp.position.at, stamp.before.at, opened.key)

    def _begins_with(self, entry: Entry) -> bool:
        return self.ring.frames[0].offset <= entry.stamp.position.offset

    # --- inside

    def _open_at(self, end: Position) -> None:
        """It is known where the log ends: who was let in before that gets what was heard since."""
        heard = [Stamp.unpack(stamp) for stamp, _ in self._ahead.values() if stamp[:6] == end.epoch]
        heard = [stamp for stamp in heard if stamp.position.offset <= end.offset]
        if not heard:
            self._stand(end)
            return
        first = min(heard, key=lambda stamp: stamp.position.offset)
        # What is missing between can be read, but where the newest stands for all before it.
        is_whole = len(heard) == end.offset - first.position.offset + 1
        self._stand(first.before if is_whole or not self.is_latest else end)

    def _is_current(self, asked: Asked) -> bool:
        return asked.epoch == self.epoch

    def _agree(self, entries: Sequence[Entry]) -> bool:
        return all(self._agrees(entry.stamp.position) for entry in entries)

    def _skip(self, position: Position, missed: int | None, reason: GapReason) -> None:
        """Tell the members that something is missing, and go on behind it."""
        was_at = self._at
        self._stand(position)
        self._user.tell(self, Gap(missed, reason, was_at, self._at))
