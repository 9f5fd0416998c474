"""Reading: what an application reads of a log, page by page, while others write, clear and lose it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support import DEADLINE, eventually
from tests.support.holding import HeldHistory
from velocity_ws.errors import BackplaneUnavailable, HistoryError
from velocity_ws.history import reading as reading_module
from velocity_ws.history.appending import Appending
from velocity_ws.history.entries import Entry
from velocity_ws.history.items import Append, Log, Top
from velocity_ws.history.link import HistoryLink
from velocity_ws.history.reading import Reading, parse_since
from velocity_ws.messages.outbound import encode
from velocity_ws.retention import Limits
from velocity_ws.stats import Counters

LOG = Log("x.room.chat", Limits(size=20, ttl=60_000, max_bytes=100_000))
LATEST = Log("x.room.price", Limits(size=1, ttl=60_000, max_bytes=100_000))


class Reader:
    """An application that reads, on an engine of this process."""

    def __init__(self) -> None:
        self.store = HeldHistory()
        self.link = HistoryLink(self.store, timeout=DEADLINE, queue_size=10**6, counters=Counters())
        self.noticed: list[tuple[str, Top, bool]] = []
        self.reading = Reading(self.link, "a" * 11, lambda *told: self.noticed.append(told))
        self.appending = Appending(self.link, "a" * 11)

    async def say(self, *numbers: int, log: Log = LOG) -> list[str]:
        """Append messages; their positions."""
        said = [await self.appending.append("chat", log, encode("said", number)) for number in numbers]
        return [each.stamp.position.at for each in said]

    async def data(self, since: str | None = None, limit: int = 100, *, reverse: bool = False) -> list[Any]:
        return [entry.data for entry in await self.reading.history(LOG, since, limit, reverse=reverse)]


@pytest.fixture
async def reader() -> AsyncIterator[Reader]:
    found = Reader()
    await found.link.start(DEADLINE)
    yield found
    await found.link.stop()


@pytest.mark.parametrize("page", [1, 2, 3, 500])
async def test_all_is_read_page_by_page_in_both_directions(
    monkeypatch: pytest.MonkeyPatch, reader: Reader, page: int
) -> None:
    monkeypatch.setattr(reading_module, "PAGE", page)
    at = await reader.say(*range(7))
    assert await reader.data() == list(range(7))
    assert await reader.data(limit=4) == [0, 1, 2, 3]
    assert await reader.data(at[2]) == [3, 4, 5, 6]
    assert await reader.data(at[2], 2) == [3, 4]
    assert await reader.data(at[6]) == []
    assert await reader.data(reverse=True) == [6, 5, 4, 3, 2, 1, 0]
    assert await reader.data(limit=2, reverse=True) == [6, 5]
    assert await reader.data(at[2], reverse=True) == [6, 5, 4, 3]
    assert await reader.data(at[2], 2, reverse=True) == [6, 5]
    assert await reader.data(at[6], reverse=True) == []
    assert await reader.data(limit=10**30) == list(range(7))
    assert await reader.data(limit=10**30, reverse=True) == [6, 5, 4, 3, 2, 1, 0]


async def test_an_entry_says_what_was_sent_where_it_stands_and_when(reader: Reader) -> None:
    (at,) = await reader.say(1)
    (entry,) = await reader.reading.history(LOG, None, 1, reverse=False)
    assert (entry.event, entry.data, entry.at) == ("said", 1, at)
    assert 1_700_000_000 < entry.time < 2_500_000_000


@pytest.mark.parametrize("reverse", [True, False])
async def test_what_came_after_a_position_is_all_there_or_it_is_said_why_not(reader: Reader, reverse: bool) -> None:
    at = await reader.say(*range(25))
    with pytest.raises(HistoryError) as gone:
        await reader.data(at[0], reverse=reverse)
    assert gone.value.reason == "evicted"
    assert len(await reader.data(at[4], reverse=reverse)) == 20
    for limit in (1, 3):
        with pytest.raises(HistoryError):
            await reader.data(at[0], limit, reverse=reverse)
    with pytest.raises(HistoryError, match="not 'x'"):
        await reader.data("x", reverse=reverse)
    for wrong in (0, -1, True, 1.5, "10"):
        with pytest.raises(HistoryError, match="1 or more"):
            await reader.data(limit=wrong, reverse=reverse)  # type: ignore[arg-type]


@pytest.mark.parametrize("reverse", [True, False])
async def test_the_newest_stands_for_all_before_it_where_it_alone_is_kept(reader: Reader, reverse: bool) -> None:
    at = await reader.say(1, 2, 3, log=LATEST)
    found = await reader.reading.history(LATEST, at[0], 100, reverse=reverse, is_latest=True)
    assert [entry.data for entry in found] == [3]
    assert await reader.reading.history(LATEST, at[2], 100, reverse=reverse, is_latest=True) == []


@pytest.mark.parametrize("way", ["cleared", "anew", "other"])
async def test_what_is_torn_while_it_is_read_ends_before_the_tear(
    monkeypatch: pytest.MonkeyPatch, reader: Reader, way: str
) -> None:
    monkeypatch.setattr(reading_module, "PAGE", 2)
    await reader.say(*range(4))
    read, log = reader.store.read, reader.store._connected()._logs[LOG.topic]

    async def torn(queries: Any) -> Any:
        if queries[0].after:
            match way:
                case "cleared":
                    await reader.link.clear(LOG)
                case "anew":
                    reader.store._connected()._logs.clear()
                    reader.store._connected()._dues.clear()
                case "other":
                    entry = Entry.unpack(log._entries[2])
                    log._entries[2] = entry._replace(stamp=entry.stamp._replace(previous=b"another!")).pack()
        return await read(queries)

    monkeypatch.setattr(reader.link._read, "_ask", torn)
    assert await reader.data() == [0, 1]


async def test_what_nobody_here_can_read_is_left_out(reader: Reader) -> None:
    await reader.say(1)
    await reader.link.append(Append(LOG, b"of a version to come"), lambda _: None)
    await reader.say(2)
    assert await reader.data() == [1, 2]


async def test_what_was_changed_is_noticed_with_where_the_log_ends(reader: Reader) -> None:
    await reader.say(1)
    await reader.reading.remove(LOG, "uann")
    await reader.reading.clear(LOG)
    assert [(topic, top.position.revision, cleared) for topic, top, cleared in reader.noticed] == [
        (LOG.topic, 1, False),
        (LOG.topic, 2, True),
    ]
    assert await reader.data() == []
    unnoticed = Reading(reader.link, "a" * 11)
    await unnoticed.remove(LOG, "uann")
    await unnoticed.clear(LOG)


async def test_an_engine_that_does_not_answer_is_said(monkeypatch: pytest.MonkeyPatch, reader: Reader) -> None:
    monkeypatch.setattr(reader.link._read, "_timeout", 0.2)
    reader.store.hold("read")
    reading = asyncio.create_task(reader.data())
    await eventually(lambda: reader.store.calls["read"])
    with pytest.raises(BackplaneUnavailable):
        await reading


@pytest.mark.parametrize("since", [None, "start", 0, 7])
def test_where_a_client_stands_is_read_as_it_is(since: Any) -> None:
    assert parse_since(since) == since


@pytest.mark.parametrize("since", [True, -1, 1.5, "x", [], ""])
def test_what_says_nowhere_is_refused(since: Any) -> None:
    with pytest.raises(HistoryError, match="a position is the text"):
        parse_since(since)
