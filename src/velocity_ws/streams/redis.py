"""Redis: a store of streams in Redis or Valkey, one server or a cluster. Knows no client and no source.

Every step is one script (`velocity_ws.streams.redis_scripts`) on the server that carries the stream's topic. There are
two connections to each server, so that an append does not wait behind what is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from redis.exceptions import ReadOnlyError, ResponseError

from velocity_ws.backplane.redis import MAX_PAYLOAD
from velocity_ws.backplane.urls import PREFIX
from velocity_ws.history.items import Refused, granted, too_large
from velocity_ws.history.redis_servers import READS, Call, Reply
from velocity_ws.history.redis_store import RedisStore
from velocity_ws.streams.items import Append, Began, Begin, Deletion, Ending, Part, Query, Renewal, Summary, Written
from velocity_ws.streams.redis_claims import begin_all, topics_of
from velocity_ws.streams.redis_forms import ENDS, keep_of, keys_of, summary_of, tag_of
from velocity_ws.streams.redis_scripts import (
    ALL,
    APPEND,
    CHECK,
    DELETE,
    END,
    FORBID,
    KEEP,
    LIST,
    LOOK,
    READ,
    RENEW,
    TAKEN,
    UNCLAIM,
    pack_head_size,
    pack_times,
)

__all__ = ["RedisStreams"]

MOST_PIECES: Final = 50
MOST_BYTES: Final = 256 * 1024
"""What one script takes at once, as a server does nothing else meanwhile; one larger piece is taken alone."""
_WRITTEN: Final = {
    step + how: Written(is_taken=bool(step), end=end) for how, end in enumerate(ENDS) for step in (0, TAKEN)
}


class RedisStreams(RedisStore):
    """A store of streams on the servers of a `RedisStore`. On the broker's loop only."""

    def __init__(self, url: str, *, prefix: str = PREFIX) -> None:
        """
        Args:
            url: as for the backplane.
            prefix: of the cluster; those of others have ids of their own.

        Raises:
            ValueError: redis-py does not take the URL.
        """
        super().__init__(url, ALL, CHECK, "streams")
        self.max_payload = MAX_PAYLOAD
        self._prefix = prefix
        self._mark = f"{prefix}.streams"

    async def begin(self, begins: Sequence[Begin]) -> list[Began | Refused]:
        """See `StreamStore.begin`."""
        return await begin_all(self, self._prefix, begins)

    async def append(self, appends: Sequence[Append]) -> list[Written | Refused]:
        """See `StreamStore.append`."""
        batches = list(self._batches(appends))
        calls = [self._appending(topic, [appends[index] for index in mine]) for topic, mine in batches]
        results: list[Written | Refused | None] = [None] * len(appends)
        for (_, mine), reply in zip(batches, await self.alter(APPEND, calls), strict=True):
            each = [reply] * len(mine) if isinstance(reply, Refused) else reply
            for index, one in zip(mine, each, strict=True):
                results[index] = _WRITTEN[one] if type(one) is int else self._refused(one)
        return _in_order(appends, [
            too_large(append.head + append.payload, self.max_payload) or _WRITTEN[0] if result is None else result
            for append, result in zip(appends, results, strict=True)
        ])  # fmt: skip

    async def renew(self, renewals: Sequence[Renewal]) -> list[Written | Refused]:
        """See `StreamStore.renew`."""
        calls, keeping = [], []
        for id_, topic, writer, times in renewals:
            stream, pieces, streams, _ = keys_of(self._prefix, id_, topic)
            tag = tag_of(self._prefix, id_)
            calls.append(Call(topic, (stream, pieces, streams), (writer, pack_times(*times))))
            keeping.append(Call(tag, (f"{{{tag}}}:at",), (keep_of(times),)))
        # What is not kept there for longer is so at the next renewal, and long before it would matter.
        replies, _ = await asyncio.gather(self.alter(RENEW, calls), self.alter(KEEP, keeping))
        return [_WRITTEN[reply] if type(reply) is int else reply for reply in replies]

    async def end(self, endings: Sequence[Ending]) -> list[Summary | Refused | None]:
        """See `StreamStore.end`."""
        calls = []
        for id_, topic, end, head, is_of_dead in endings:
            arguments = (ENDS.index(end), b"1" if is_of_dead else b"", head)
            calls.append(Call(topic, keys_of(self._prefix, id_, topic)[:2], arguments))
        replies = await self.alter(END, calls)
        return [_summary(each.topic, reply) for each, reply in zip(endings, replies, strict=True)]

    async def forbid(self, ids: Sequence[str], milliseconds: int) -> list[Refused | None]:
        """See `StreamStore.forbid`."""
        tags = [tag_of(self._prefix, id_) for id_ in ids]
        replies = await self.alter(FORBID, [Call(tag, (f"{{{tag}}}:no",), (milliseconds,)) for tag in tags])
        return [reply if isinstance(reply, Refused) else None for reply in replies]

    async def delete(self, deletions: Sequence[Deletion]) -> list[Refused | None]:
        """See `StreamStore.delete`. The claim first: what claims the id anew finds the stream, or none."""
        claims, streams = [], []
        for id_, topic, writer in deletions:
            stream, pieces, of_topic, name = keys_of(self._prefix, id_, topic)
            tag = tag_of(self._prefix, id_)
            claims.append(Call(tag, (f"{{{tag}}}:at",), (writer,)))
            streams.append(Call(topic, (stream, pieces, of_topic), (writer, name)))
        taken_back = await self.alter(UNCLAIM, claims)
        deleted = await self.alter(DELETE, streams)
        return [
            next((reply for reply in replies if isinstance(reply, Refused)), None)
            for replies in zip(taken_back, deleted, strict=True)
        ]

    async def look(self, ids: Sequence[str]) -> list[Summary | Refused | None]:
        """See `StreamStore.look`."""
        topics = await topics_of(self, self._prefix, ids)
        found = [(id_, topic) for id_, topic in zip(ids, topics, strict=True) if isinstance(topic, str)]
        calls = [Call(topic, keys_of(self._prefix, id_, topic)[:2], ()) for id_, topic in found]
        replies = iter(await self.call(READS, LOOK, calls))
        return [_summary(topic, next(replies)) if isinstance(topic, str) else topic for topic in topics]

    async def read(self, queries: Sequence[Query]) -> list[Part | Refused | None]:
        """See `StreamStore.read`."""
        calls = [
            Call(topic, keys_of(self._prefix, id_, topic)[:2], (after, most)) for id_, topic, after, most in queries
        ]
        replies = await self.call(READS, READ, calls)
        return [_part(query.topic, reply) for query, reply in zip(queries, replies, strict=True)]

    async def listed(self, topics: Sequence[str]) -> list[list[Summary] | Refused]:
        """See `StreamStore.listed`."""
        replies = await self.call(READS, LIST, [Call(topic, (f"{{{topic}}}:streams",), ()) for topic in topics])
        return [_list(topic, reply) for topic, reply in zip(topics, replies, strict=True)]

    async def mark(self) -> None:
        """See `StreamStore.mark`."""
        (reply,) = await self.connected().ask(self._mark, [("SET", f"{{{self._mark}}}:mark", b"1")])
        granted(reply)

    async def is_marked(self) -> bool:
        """See `StreamStore.is_marked`."""
        (reply,) = await self.connected().ask(self._mark, [("GET", f"{{{self._mark}}}:mark")])
        return granted(reply) is not None

    def _batches(self, appends: Sequence[Append]) -> Iterator[tuple[str, list[int]]]:
        """What one script takes each: its topic, and the places of pieces. Those that are too large are in none."""
        by_topic: dict[str, tuple[int, list[int]]] = {}
        for index, append in enumerate(appends):
            size = len(append.head) + len(append.payload)
            if size > self.max_payload:
                continue
            topic = (append if self.is_cluster else appends[0]).topic  # one server has all of them
            before, mine = by_topic.get(topic, (0, []))
            if mine and (before + size > MOST_BYTES or len(mine) == MOST_PIECES):
                yield topic, mine
                before, mine = 0, []
            mine.append(index)
            by_topic[topic] = before + size, mine
        for topic, (_, mine) in by_topic.items():
            yield topic, mine

    def _appending(self, topic: str, appends: Sequence[Append]) -> Call:
        keys: list[str] = []
        arguments: list[bytes] = []
        for id_, where, writer, payload, head in appends:
            names = keys_of(self._prefix, id_, where)
            keys += (names.stream, names.pieces)
            arguments.append(b"%b%b%b%b" % (writer, pack_head_size(len(head)), head, payload))
        return Call(topic, keys, arguments)

    def _refused(self, reply: bytes | Refused) -> Refused:
        """Why one of a script's pieces was not taken."""
        if isinstance(reply, Refused):
            return reply
        text = reply.decode(errors="replace")
        return self.connected().refusal(ReadOnlyError(text) if "READONLY" in text else ResponseError(text))


def _in_order(appends: Sequence[Append], results: list[Written | Refused]) -> list[Written | Refused]:
    """The results, where nothing is said of a piece that only lacks the one before, as that one was refused."""
    refused: dict[str, Refused] = {}
    for index, result in enumerate(results):
        if isinstance(result, Refused):
            refused[appends[index].id] = result
        elif refused and result == _WRITTEN[0] and appends[index].id in refused:
            results[index] = refused[appends[index].id]
    return results


def _summary(topic: str, reply: Reply | Refused) -> Summary | Refused | None:
    if isinstance(reply, Refused):
        return reply
    now, known, *rest = reply
    return None if known is None else summary_of(topic, now, known, *rest)


def _part(topic: str, reply: Reply | Refused) -> Part | Refused | None:
    if isinstance(reply, Refused):
        return reply
    now, known, count, payloads = reply
    if known is None:
        return None
    stream = summary_of(topic, now, known, count)
    return Part(stream, [] if stream.is_gone else payloads)


def _list(topic: str, reply: Reply | Refused) -> list[Summary] | Refused:
    if isinstance(reply, Refused):
        return reply
    now, found = reply
    summaries = [summary_of(topic, now, *each) for each in zip(found[0::2], found[1::2], strict=True)]
    return [summary for summary in summaries if not summary.is_gone]
