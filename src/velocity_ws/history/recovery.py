"""Recovery: whether a client can have all it missed since a position, judged from what a store says. Pure.

Knows neither the client nor the engine. It is all or nothing: where a single message could be missing, be another than
it was, or be of a time in which the client was not allowed in, there is a reason, and no message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from velocity_ws.history.entries import Entry
from velocity_ws.history.items import Top
from velocity_ws.history.positions import Position

__all__ = ["Reason", "View", "judge", "view_of"]

Reason = Literal["evicted", "expired", "epoch", "rewound", "too_many", "forbidden"]
"""Why a position does not recover: more was missed than the log keeps, by number or bytes, or by age; the log began
anew; it went back and on with other messages; more was missed than may come at once; the user was removed since."""


class View(NamedTuple):
    """What is known of a log beside its top, seen from one position.

    Attributes:
        oldest: the smallest offset after the position's that can be had, with all that follow; beyond the top where
            there is none.
        mark: that of the entry with the position's offset; ``None`` where nothing tells it any more.
    """

    oldest: int
    mark: bytes | None


def view_of(position: Position, top: Top, entries: Sequence[Entry]) -> View:
    """What a range of a log shows of a position.

    Args:
        position: where the client stands.
        top: the end of the log.
        entries: contiguous, in order; entries up to the top that begin where the position ends, or earlier, or at the
            oldest that is left. Where a bound has cut their end off, it does not matter here.
    """
    after = position.offset + 1
    if position.offset == top.position.offset:
        return View(after, top.position.mark)
    if not entries:
        return View(top.position.offset + 1, None)
    oldest, last = entries[0].stamp.position.offset, entries[-1].stamp.position.offset
    if oldest > after or last < after:
        return View(oldest if oldest > after else top.position.offset + 1, None)
    return View(after, entries[after - oldest].stamp.previous)


def judge(
    position: Position, top: Top, view: View, *, removed: int, limit: int, is_latest: bool = False
) -> Reason | None:
    """Why a client that stands at a position cannot have all that came after it; ``None`` where it can.

    Args:
        position: where it stands, as it says or as is known.
        top: the end of the log.
        view: what else is known of the log; see `view_of`.
        removed: the revision at which the client's user was last removed; 0 for never. `HistoryStore.removed` is asked
            only where the position's revision is smaller than the top's.
        limit: how many messages may come at once.
        is_latest: whether the newest message stands for all before it (``mode="latest"``).
    """
    end = top.position
    if position.epoch != end.epoch:
        return "epoch"
    if position.revision < removed:
        return "forbidden"
    if position.offset > end.offset or position.revision > end.revision:
        return "rewound"
    if view.mark is not None and not position.is_behind(view.mark):
        return "rewound"
    missed = end.offset - position.offset
    if not missed:
        return None
    # What is not there at all is told by the smallest offset that should have been.
    needed = end.offset if is_latest else position.offset + 1
    if view.oldest > needed:
        return "evicted" if needed <= top.evicted else "expired"
    if view.mark is None and not is_latest:
        return "evicted"
    return "too_many" if missed > limit and not is_latest else None
