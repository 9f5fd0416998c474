"""Finding: what does not fit into what is kept is read in pages, for each reader, and once in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest

from velocity_ws.streams.copies import Copies, StreamCopy
from velocity_ws.streams.finding import Finding
from velocity_ws.streams.items import Part, Query, Summary
from velocity_ws.streams.pieces import Kind, Piece, pack

KEPT = 1024 * 1024


class _Link:
    """An engine that has one stream, of pieces that are all alike."""

    def __init__(self, kind: Kind, data: bytes, length: int, pieces: int) -> None:
        self.payloads = [pack(Piece(n, n * length, length, kind, "", data)) for n in range(pieces)]
        self.stream = Summary("a", "topic", "room", b"w" * 16, pieces, pieces * length, "done", 0, 0)
        self.reads = 0
        self._length = length

    async def read(self, query: Query) -> Part:
        self.reads += 1
        found: list[bytes] = []
        for payload in self.payloads[query.after // self._length :]:
            if found and sum(map(len, found)) + len(payload) > query.max_bytes:
                break
            found.append(payload)
        return Part(self.stream, found)


@pytest.mark.parametrize(
    ("kind", "data", "length"), [("items", b'"%b"' % (b"x" * 100_000), 1), ("text", "𝄞".encode() * 8192, 8192)]
)
async def test_what_does_not_fit_into_what_is_kept_is_read_to_its_end(kind: Kind, data: bytes, length: int) -> None:
    link, copies = _Link(kind, data, length, 48), Copies(KEPT)
    copy = StreamCopy("a", "room", "topic", copies)
    copy.learn(link.stream)

    def run(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(work)

    finding = Finding(cast("Any", SimpleNamespace(copies=copies, run=run)), cast("Any", link))
    cursor = messages = 0
    while cursor < copy.length:
        found = copy.message(cursor)
        if found is None and await finding.filled(copy):
            found = copy.message(cursor)
        elif found is None:
            page = await finding.page(copy, cursor)
            assert page is not None
            found = copy.message_of(page)
        assert found is not None, "it was filled, and is not kept"
        cursor = found[1]
        messages += 1
    assert link.reads <= messages + 1
    assert copies.size <= KEPT
