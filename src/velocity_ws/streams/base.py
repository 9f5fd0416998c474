"""StreamStore: the contract of one connection to an engine that keeps streams. Knows no client and no source.

It stands beside `HistoryStore`, on the same engine. A stream is text, or items, said by one writer piece by piece; each
piece is stored and published in one step, and heard by the backplanes that are subscribed to the topic.
`velocity_ws.testing` has the suite that every store passes.

* An id has one stream, for as long as the engine knows it; after that it may be begun anew.
* Its *writer* is the one that began it. It has a lease, which it renews; what it appends does not. Nobody takes over
  from it: where the lease is over by the engine's clock, it counts as dead, and others may end the stream. Until
  somebody does, a writer that was only slow goes on.
* *Pieces* are numbered from 0, without a hole. After the end there is none. Who knows the writer's proof may append as
  the writer, from anywhere: of several that append the piece of one number, one is taken. A piece may have a *note*,
  which is kept with the stream until the next one has another.
* What has ended is kept for `Times.ttl`; then the pieces are gone. Where the writer died and nobody ended the stream,
  it counts as ended when the lease was over. The id is known for `Times.memory` longer. What is gone stays so: nothing
  is appended to it, it is not renewed, and it does not end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from velocity_ws.backplane.base import Lost
from velocity_ws.history.items import Refused
from velocity_ws.streams.items import Append, Began, Begin, Deletion, Ending, Part, Query, Renewal, Summary, Written

__all__ = ["StreamStore"]


class StreamStore(Protocol):
    """One connection to an engine, opened, closed and opened again by its user. On the broker's loop only.

    A call takes many items, for the same and for different streams, and costs about one round trip; its list of results
    has one for each item, in order. An item that the engine did not do has a `Refused` there, and the others go on.
    Items of one call for one stream are done in their order. `append` is called one at a time; the others overlap with
    it and with each other.

    A call that raises has done each of its items, or not, and the user closes the connection; each may be asked again,
    with the same result. A call that is cancelled has done or does each of them, or not.
    """

    max_payload: int
    """Bytes of the largest head and payload together; known once connected. Larger ones are `Refused`."""

    async def connect(self, lost: Lost) -> None:
        """Open a connection.

        Args:
            lost: called once when the connection ends in any way but `close`.

        Raises:
            OSError: there is no engine, it refuses the login, or it cannot keep streams; the text says what to do.
            SettingsError: it is of a kind, or set up so, that it never keeps streams; the text says what to do.
        """

    async def begin(self, begins: Sequence[Begin]) -> list[Began | Refused]:
        """Begin streams whose ids are not known; of those that are, say what is known.

        Where several begin one id at once, it is one stream, with one of their writers. Done again with the same
        writer, it has the same result.

        Raises:
            OSError: each of them may be done, or not.
        """

    async def append(self, appends: Sequence[Append]) -> list[Written | Refused]:
        """Store pieces and publish them; when it returns, the engine has done both.

        One step for each, and only where the stream has not ended, has this writer, and as many pieces as the number
        of this one. A piece whose number the last one of this writer has was taken before, and is taken, and not
        published again.

        Raises:
            OSError: each of them may be done, or not.
        """

    async def renew(self, renewals: Sequence[Renewal]) -> list[Written | Refused]:
        """Say that writers live, also where their leases were over, if nobody has ended their streams since.

        Raises:
            OSError: each of them may be done, or not.
        """

    async def end(self, endings: Sequence[Ending]) -> list[Summary | Refused | None]:
        """End streams of others, and publish the ends; in one step for each, only where it has not ended.

        Returns:
            The streams as they are then; with another end, or none, where this one was not to be. ``None`` for one that
            is not known.

        Raises:
            OSError: each of them may be done, or not.
        """

    async def forbid(self, ids: Sequence[str], milliseconds: int) -> list[Refused | None]:
        """Keep, for a while, that streams must not begin; `begin` says so. Those that are there go on.

        Raises:
            OSError: each of them may be done, or not.
        """

    async def delete(self, deletions: Sequence[Deletion]) -> list[Refused | None]:
        """Remove streams, with all that is known of them, so that their ids may be begun anew at once.

        Nothing is published. What is not there, or has another writer, is left as it is.

        Raises:
            OSError: each of them may be done, or not.
        """

    async def look(self, ids: Sequence[str]) -> list[Summary | Refused | None]:
        """Ask for streams by their ids, with their notes; ``None`` for one that is not known.

        Raises:
            OSError: the engine did not answer.
        """

    async def read(self, queries: Sequence[Query]) -> list[Part | Refused | None]:
        """Read parts of streams; ``None`` for one that is not known.

        Raises:
            OSError: the engine did not answer.
        """

    async def listed(self, topics: Sequence[str]) -> list[list[Summary] | Refused]:
        """Ask for the streams of topics, the newest first, at most `MAX_LISTED` of each; those that are gone are not
        among them.

        Raises:
            OSError: the engine did not answer.
        """

    async def mark(self) -> None:
        """Keep that there are streams on this engine, in the cluster of this prefix. It has no expiry.

        Raises:
            Refused: it is not kept.
            OSError: it may be kept, or not.
        """

    async def is_marked(self) -> bool:
        """Whether `mark` was ever called, by any store of this engine and prefix.

        Raises:
            OSError: the engine did not answer.
        """

    async def close(self) -> None:
        """End the connection, within a second. Harmless when there is none; `connect` works again after it."""

    def release(self) -> None:
        """Give back what outlives a connection, where there is such a thing. Called after the last `close`."""
