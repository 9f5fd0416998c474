"""HistoryStore: the contract of one connection to an engine that keeps the logs of rooms. Knows no client and no hook.

It stands beside `Backplane`, on the same engine: an append is stored and published in one step, and is heard by the
backplanes that are subscribed to its topic. A store decides nothing: `velocity_ws.history.recovery` judges what it
says. `velocity_ws.testing` has the suite that every store passes.

A log belongs to a topic. It is a cache of the newest entries, bounded in number, age and bytes:

* *Offsets* are contiguous, from 1 in each *epoch*. An epoch is one life of a log. A call for a log that the engine does
  not know, or knows no more, begins a new one, with a name and a *mark* that were never used; entries that are left of
  an older life are gone then. `append`, `tops`, `read`, `remove` and `clear` do so alike.
* Each entry has a mark of its own and the mark of the entry before; a log's beginning (offset 0) has one too. Marks are
  made by the store, from a source that nobody guesses.
* Of a log that has lost its entries, by whatever way, the top stays known: its epoch, offset, mark and revision, for
  `Limits.meta_ttl` after the last of these calls for it. After that the engine forgets all of the log.
* The *revision* counts how often the log was cleared or somebody removed. Every stamp and top says the current one.
* Time is the engine's, and never goes back within an epoch: an entry's is at least that of the entry before. The clocks
  of nodes play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from velocity_ws.backplane.base import Lost
from velocity_ws.history.items import Append, Appended, Log, Lookup, Query, Range, Refused, Removal, Top

__all__ = ["HistoryStore", "LocalStore", "MovingStore"]


class HistoryStore(Protocol):
    """One connection to an engine, opened, closed and opened again by its user. On the broker's loop only.

    A call takes many items, for the same and for different logs, and costs about one round trip; its list of results
    has one for each item, in order. An item that the engine did not do has a `Refused` there, and the others go on.
    Items of one call for one log are done in their order. `append` is called one at a time; the others overlap with it
    and with each other.

    A call that raises has done each of its items, or not, and the user closes the connection. A call that is cancelled
    has done or does each of them, or not; changes that are called after it are done after it, unless ``lost`` was
    called, and what is asked after it may be answered before.
    """

    max_payload: int
    """Bytes of the largest envelope, or notice; known once connected. A larger one is `Refused`.

    A store may also have a ``server_id``: what names the server of its connection, and another one after a restart, or
    where another one has taken over, as that one may lack what was confirmed. Without it, or where it is empty, that is
    looked for after each connection.
    """

    async def connect(self, lost: Lost) -> None:
        """Open a connection.

        Args:
            lost: called once when the connection ends in any way but `close`.

        Raises:
            OSError: there is no engine, it refuses the login, or it cannot keep logs; the text says what to do.
            SettingsError: it is of a kind, or set up so, that it never keeps logs; the text says what to do.
        """

    async def append(self, appends: Sequence[Append]) -> list[Appended | Refused]:
        """Store entries and publish them; when it returns, the engine has done both.

        One step for each: the next offset, a new mark, the entry with its stamp, what goes beyond the limits, the
        result for its key, and the publication of ``envelope + stamp`` to the topic. Nobody sees a part of it. Whatever
        the number of writers, offsets have no hole and no repeat, and who is subscribed to the topic receives
        the entries in order of offsets. The writer's own backplane hears them as well.

        An append with a key that was used for the log in the last `KEY_TTL` seconds, since it was cleared last and in
        this epoch, changes and publishes nothing: with the same digest its result is that of the first, also where that
        entry is gone, else it is `Refused` with ``conflict``.

        Raises:
            OSError: each of them may be done, or not.
        """

    async def tops(self, logs: Sequence[Log]) -> list[Top | Refused]:
        """Ask for the ends of logs.

        Raises:
            OSError: the engine did not answer.
        """

    async def read(self, queries: Sequence[Query]) -> list[Range | Refused]:
        """Read parts of logs. An entry that is too old by the engine's clock does not come, whether stored or not.

        Raises:
            OSError: the engine did not answer.
        """

    async def remove(self, removals: Sequence[Removal]) -> list[Top | Refused]:
        """Keep that users were removed: one more revision, and with the user this revision, in one step for each.

        It is kept as long as the top is. Positions that have a smaller revision are from before. A notice is published
        to the log's topic, in order with the entries, with the stamp of the top that is returned.

        Raises:
            OSError: each of them may be done, or not.
        """

    async def removed(self, lookups: Sequence[Lookup]) -> list[int]:
        """Ask at which revision each user was last removed; 0 for never.

        Where the engine has lost what it knew of removals, and the log's epoch goes on, it is the current revision for
        every user: too many are refused rather than too few. Where more than `MAX_REMOVED` users were removed, some are
        given up, and every user counts as removed at the last of their revisions. Nothing has to be asked for a
        position that has the revision of the top, as nobody was removed since.

        Raises:
            OSError: the engine did not answer.
        """

    async def clear(self, log: Log, notice: bytes = b"") -> Top:
        """Forget a log's entries and its idempotency keys, in one step; its epoch, offset and mark go on.

        There is one more revision; all that was there counts as evicted. Removals stay known. A notice is published as
        by `remove`.

        Raises:
            Refused: it is not done.
            OSError: it may be done, or not.
        """

    async def secret(self, name: str) -> bytes:
        """32 random bytes that all stores of the engine share under a name; made by the first that asks, and kept.

        Args:
            name: as a topic.

        Raises:
            OSError: the engine did not answer, or cannot keep it.
        """

    async def keep(self, name: str, value: bytes) -> None:
        """Keep a small value under a name, in place of the one before. It has no expiry, and is not pushed out.

        When it returns, every store of the engine is told this value, or a later one.

        Args:
            name: as a topic; names of secrets are others.
            value: any bytes, at most `KEPT_SIZE`.

        Raises:
            Refused: it is not kept; the value before stays.
            OSError: it may be kept, or not.
        """

    async def kept(self, name: str) -> bytes | None:
        """The value that was kept last under a name; ``None`` where the engine has none.

        Raises:
            OSError: the engine did not answer.
        """

    async def close(self) -> None:
        """End the connection, within a second. Harmless when there is none; `connect` works again after it."""

    def release(self) -> None:
        """Give back what outlives a connection, where there is such a thing. Called after the last `close`."""


@runtime_checkable
class LocalStore(Protocol):
    """What a store may have beside: its logs are in this process, and nothing of an append has to be waited for."""

    def append_now(self, append: Append) -> Appended | Refused:
        """Store an entry and publish it, as `HistoryStore.append` does.

        Raises:
            ConnectionError: there is no connection.
        """


@runtime_checkable
class MovingStore(Protocol):
    """What a store may have beside: it follows logs from one server to another, and its connection goes on.

    Attributes:
        on_moved: set by the user. Called on the loop when a server is left, and another one has its logs, which may
            have less than that one has confirmed.
    """

    on_moved: Callable[[], None]
