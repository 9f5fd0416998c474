"""Redis: a store of room logs in Redis or Valkey, one server or a cluster. Knows no client.

Every step is one script (`velocity_ws.history.redis_scripts`) on the server that carries the log's topic. There are two
connections to each server, so that an append does not wait behind what is read.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

from velocity_ws.backplane.redis import MAX_PAYLOAD
from velocity_ws.history.entries import STAMP_SIZE, Entry
from velocity_ws.history.items import (
    KEPT_SIZE,
    KEY_TTL,
    SECRET_SIZE,
    Append,
    Appended,
    Log,
    Lookup,
    Query,
    Range,
    Refused,
    Removal,
    Top,
    granted,
    too_large,
)
from velocity_ws.history.positions import EPOCH_SIZE, MARK_SIZE, Position
from velocity_ws.history.redis_scripts import (
    APPEND,
    CHANGE,
    CHECK,
    LOOKUP,
    READ,
    pack_append,
    pack_change,
    pack_read,
)
from velocity_ws.history.redis_servers import READS, Call, Reply
from velocity_ws.history.redis_store import RedisStore

__all__ = ["RedisHistory"]

_APPEND_BYTES = EPOCH_SIZE + 2 * MARK_SIZE
_KEY_MILLISECONDS = int(KEY_TTL * 1000)


class RedisHistory(RedisStore):
    """A store of room logs on the servers of a `RedisStore`. On the broker's loop only."""

    def __init__(self, url: str) -> None:
        """
        Args:
            url: as for the backplane.

        Raises:
            ValueError: redis-py does not take it.
        """
        super().__init__(url, (APPEND, READ, CHANGE, LOOKUP), CHECK, "what rooms remember")
        self.max_payload = MAX_PAYLOAD - STAMP_SIZE

    async def append(self, appends: Sequence[Append]) -> list[Appended | Refused]:
        """See `HistoryStore.append`."""
        chance = secrets.token_bytes(_APPEND_BYTES * len(appends))
        calls = [
            self._appending(append, chance[start : start + _APPEND_BYTES])
            for append, start in zip(appends, range(0, len(chance), _APPEND_BYTES), strict=True)
            if len(append.envelope) <= self.max_payload
        ]
        replies = iter(await self.alter(APPEND, calls))
        return [too_large(append.envelope, self.max_payload) or _appended(next(replies)) for append in appends]

    async def tops(self, logs: Sequence[Log]) -> list[Top | Refused]:
        """See `HistoryStore.tops`."""
        calls = [self._reading(each, 0, 0, 0, newest=False) for each in logs]
        return [_top(reply) for reply in await self.call(READS, READ, calls)]

    async def read(self, queries: Sequence[Query]) -> list[Range | Refused]:
        """See `HistoryStore.read`."""
        calls = [
            self._reading(each.log, each.after, each.limit, each.max_bytes, newest=each.newest) for each in queries
        ]
        return [_range(reply) for reply in await self.call(READS, READ, calls)]

    async def remove(self, removals: Sequence[Removal]) -> list[Top | Refused]:
        """See `HistoryStore.remove`."""
        calls = [
            self._changing(each.log, each.notice, each.user)
            for each in removals
            if len(each.notice) <= self.max_payload
        ]
        replies = iter(await self.alter(CHANGE, calls))
        return [too_large(each.notice, self.max_payload) or _top(next(replies)) for each in removals]

    async def removed(self, lookups: Sequence[Lookup]) -> list[int]:
        """See `HistoryStore.removed`."""
        calls = []
        for lookup in lookups:
            meta, _, removals = _keys(lookup.log)
            calls.append(Call(lookup.log.topic, (meta, removals), (_text(lookup.user),)))
        return [granted(reply) for reply in await self.call(READS, LOOKUP, calls)]

    async def clear(self, log: Log, notice: bytes = b"") -> Top:
        """See `HistoryStore.clear`."""
        granted(too_large(notice, self.max_payload))
        (reply,) = await self.alter(CHANGE, [self._changing(log, notice, "")])
        return granted(_top(reply))

    async def secret(self, name: str) -> bytes:
        """See `HistoryStore.secret`."""
        key = f"{{{name}}}:secret"
        commands = [("SET", key, secrets.token_bytes(SECRET_SIZE), "NX"), ("GET", key)]
        made, found = await self.connected().ask(name, commands)
        granted(made)
        return bytes(granted(found))

    async def keep(self, name: str, value: bytes) -> None:
        """See `HistoryStore.keep`."""
        servers = self.connected()
        granted(too_large(value, KEPT_SIZE))
        (reply,) = await servers.ask(name, [("SET", f"{{{name}}}:kept", value)])
        granted(reply)

    async def kept(self, name: str) -> bytes | None:
        """See `HistoryStore.kept`."""
        (reply,) = await self.connected().ask(name, [("GET", f"{{{name}}}:kept")])
        found: bytes | None = granted(reply)
        return found

    def _appending(self, append: Append, chance: bytes) -> Call:
        where, (size, ttl, most) = append.log, append.log.limits
        keys: tuple[str, ...] = _keys(where)
        epoch, mark, own = chance[:EPOCH_SIZE], chance[EPOCH_SIZE:-MARK_SIZE], chance[-MARK_SIZE:]
        params = pack_append(epoch, mark, own, size, ttl, most, where.limits.meta_ttl)
        arguments: tuple[bytes | str | int, ...] = (params, where.topic, append.envelope)
        if append.key:
            name = hashlib.blake2b(_text(append.key), digest_size=16).hexdigest()
            keys = (*keys, f"{{{where.topic}}}:key:{name}")
            arguments = (*arguments, append.digest, _KEY_MILLISECONDS)
        return Call(where.topic, keys, arguments)

    def _reading(self, log: Log, after: int, limit: int, most: int, *, newest: bool) -> Call:
        params = pack_read(*_chance(), log.limits.meta_ttl, after, limit, most, newest)
        return Call(log.topic, _keys(log), (params,))

    def _changing(self, log: Log, notice: bytes, user: str) -> Call:
        params = pack_change(*_chance(), log.limits.meta_ttl)
        return Call(log.topic, _keys(log), (params, log.topic, notice, _text(user)))


def _keys(log: Log) -> tuple[str, str, str]:
    """The engine's keys of a log: of its meta, its entries and its removals."""
    tag = f"{{{log.topic}}}:"
    return tag + "meta", tag + "log", tag + "removals"


def _chance() -> tuple[bytes, bytes]:
    """An epoch and the mark of its beginning, where a log should begin."""
    chance = secrets.token_bytes(EPOCH_SIZE + MARK_SIZE)
    return chance[:EPOCH_SIZE], chance[EPOCH_SIZE:]


def _text(name: str) -> bytes:
    """A name as bytes; different for different names, half surrogate pairs included."""
    return name.encode(errors="surrogatepass")


def _appended(reply: Reply) -> Appended | Refused:
    if type(reply) is bytes:
        return Appended(reply)
    if isinstance(reply, Refused):
        return reply
    if isinstance(reply, list):
        return Appended(reply[0], is_duplicate=True)
    return Refused("conflict", "the key stands for another message, which was first")


def _top(reply: Reply) -> Top | Refused:
    return reply if isinstance(reply, Refused) else Top(Position.unpack(reply[0]), reply[1], reply[2])


def _range(reply: Reply) -> Range | Refused:
    if isinstance(reply, Refused):
        return reply
    return Range(Top(Position.unpack(reply[0]), reply[1], reply[2]), [Entry.unpack(data) for data in reply[3]])
