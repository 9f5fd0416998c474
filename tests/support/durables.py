"""Nodes that write and read streams by requests, without HTTP: on one store in this process, whose clocks tests set."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from tests.support import DEADLINE
from tests.support.clocks import HandClock
from velocity_ws.backplane.base import Lost
from velocity_ws.cluster.topics import Topics
from velocity_ws.history.items import Refused
from velocity_ws.streams.asking import Asking
from velocity_ws.streams.durable import Durable
from velocity_ws.streams.forks import Forks
from velocity_ws.streams.items import Append, Part, Query, Summary, Times, Written
from velocity_ws.streams.kept_streams import KeptStreams
from velocity_ws.streams.link import StreamLink
from velocity_ws.streams.memory import MemoryStreams
from velocity_ws.streams.notes import Meta, Note
from velocity_ws.streams.requests import Appended, Found, Post, Said

__all__ = ["META", "NOTHING", "TAG", "Requests", "Store", "data", "note_of", "requests", "text_of"]

TAG = "0123456789abcdef"
META = Meta("text/plain", TAG)
NOTHING = Said("", 0, b"")
TIMES = Times(10_000, 60_000, 600_000)
_names = itertools.count()


class Store(MemoryStreams):
    """A store in this process.

    Attributes:
        lost: ends the connection.
        calls: the names of what was asked, in order: each read, and each call of other kinds.
        looked: the ids that were looked at.
        unsure: whether the next append is done, and the engine does not say so, and is away.
        left: appends until the connection ends in place of one; ``None`` for never.
        before: called before an append is done, once.
        is_held: whether what was read is not answered yet.
        go_on: set when it is answered.
    """

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        super().__init__(url, clock=clock)
        self.calls: list[str] = []
        self.looked: list[str] = []
        self.lost: Lost = lambda _: None
        self.unsure = False
        self.left: int | None = None
        self.before: Callable[[], Awaitable[object]] | None = None
        self.is_held = False
        self.go_on = asyncio.Event()

    async def connect(self, lost: Lost) -> None:
        self.lost = lost
        await super().connect(lost)

    async def append(self, appends: Sequence[Append]) -> list[Written | Refused]:
        self.calls.append("append")
        before, self.before = self.before, None
        if before is not None:
            await before()
        if self.left is not None:
            if not self.left:
                raise ConnectionError("it was reset")
            self.left -= 1
        found = await super().append(appends)
        if self.unsure:
            self.unsure = False
            raise ConnectionError("nobody knows whether it was done")
        return found

    async def look(self, ids: Sequence[str]) -> list[Summary | Refused | None]:
        self.calls.append("look")
        self.looked += ids
        return await super().look(ids)

    async def read(self, queries: Sequence[Query]) -> list[Part | Refused | None]:
        self.calls += ["read"] * len(queries)
        found = await super().read(queries)
        if self.is_held:
            await self.go_on.wait()
        return found


class Requests:
    """What one node does with streams for requests.

    Attributes:
        took: the id of each piece that the engine has taken here.
    """

    def __init__(self, store: Store, clock: HandClock, wall: HandClock, node_id: str, limit: int) -> None:
        self.store = store
        self.clock = clock
        self.wall = wall
        self.link = StreamLink(store, timeout=DEADLINE)
        self.took: list[str] = []
        topics = Topics("velocity")
        self.topics = topics
        self.kept = KeptStreams(self.link, topics, TIMES, clock, wall)
        self.durable = Durable(
            self.kept, self.link, topics, node_id, limit, lambda _, id_, __: self.took.append(id_), wall
        )
        self.forks = Forks(self.kept, self.durable, self.link, topics, node_id)
        self.asking = Asking(self.link, node_id, TIMES, topics.room)

    async def create(
        self, id_: str = "a", said: bytes = b"", meta: Meta = META, room: str | None = None, *, is_closed: bool = False
    ) -> Appended:
        """Create a stream of text."""
        return await self.durable.create(id_, room, meta, data(said, room), is_closed=is_closed)

    async def append(self, said: bytes | None, id_: str = "a", type_: str = "text/plain", **more: object) -> Appended:
        """Append to it; ``None`` for nothing, with what closes it."""
        content_type = None if said is None else type_
        post = Post(content_type, **more)  # type: ignore[arg-type]
        return await self.forks.append(id_, post, lambda _, room: data(said or b"", room or None))

    async def fork(
        self,
        id_: str,
        source: str,
        position: int,
        said: bytes = b"",
        meta: Meta | None = None,
        *,
        is_closed: bool = False,
    ) -> Appended:
        """Create a stream that begins with what another one has, up to a position."""
        found = await self.forks.find(source)
        assert found.note is not None
        meta = meta or Meta("text/plain", found.note.meta.tag, source=source, fork=f"{position}+0", forked_at=position)
        return await self.forks.fork(id_, None, meta, found, data(said), is_closed=is_closed)

    async def text(self, id_: str = "a") -> str:
        """What a stream has."""
        found = await self.forks.find(id_)
        return await text_of(self.kept, found)

    def kept_bytes(self, id_: str = "a") -> int:
        """Bytes of all that the engine keeps of a stream."""
        assert self.store._engine is not None
        return sum(map(len, self.store._engine.streams[id_].payloads))

    def advance(self, seconds: float) -> None:
        """Let time pass, on the clocks of all nodes and of the engine."""
        self.clock.advance(seconds)
        self.wall.advance(seconds)


async def text_of(kept: KeptStreams, found: Found) -> str:
    """All that a stream has, read part by part."""
    whole, position = b"", 0
    while True:
        chunk = await kept.part(found, position)
        whole += chunk.data
        assert chunk.start == position
        position = chunk.stop
        if chunk.is_all:
            return whole.decode()


def data(said: bytes, room: str | None = None) -> Said:
    """What a request says, of a stream of no room, or of one."""
    if not said:
        return NOTHING
    return Said("bytes", len(said), said) if room is None else Said("text", len(said.decode()), said)


def note_of(found: Found) -> Note:
    """What is kept with a stream."""
    assert found.note is not None
    return found.note


@asynccontextmanager
async def requests(count: int = 1, limit: int = 1 << 24) -> AsyncIterator[list[Requests]]:
    """So many nodes on one store, for as long as the block."""
    clock, wall = HandClock(), HandClock(1_800_000_000.0)
    url = f"memory://requests-{next(_names)}"
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            node = Requests(Store(url, wall), clock, wall, f"{number:011d}", limit)
            await node.link.start(DEADLINE)
            stack.push_async_callback(node.link.stop)
            found.append(node)
        yield found
