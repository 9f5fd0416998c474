"""Redis: a store of room logs in Redis or Valkey, one server or a cluster. Knows no client.

Every step is one script (`velocity_ws.history.redis_scripts`) on the server that carries the log's topic. There are two
connections to each server, so that an append does not wait behind what is read.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence

from velocity_ws.backplane.base import Lost
from velocity_ws.backplane.redis import MAX_PAYLOAD
from velocity_ws.backplane.redis_roles import Roles
from velocity_ws.history.entries import STAMP_SIZE, Entry, Stamp
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
    Script,
    pack_append,
    pack_change,
    pack_read,
)
from velocity_ws.history.redis_servers import CHANGES, READS, Call, Reply, Servers, servers_of
from velocity_ws.logs import get_logger

__all__ = ["RedisHistory"]

log = get_logger("velocity_ws.history")

_APPEND_BYTES = EPOCH_SIZE + 2 * MARK_SIZE
_KEY_MILLISECONDS = int(KEY_TTL * 1000)


class RedisHistory:
    """The schemes of `RedisBackplane` and of `RedisClusterBackplane`. On the broker's loop only.

    Attributes:
        on_moved: see `MovingStore`.
        server_id: what names the servers of the connection; empty where that is not known, or they have changed.
    """

    def __init__(self, url: str) -> None:
        """
        Args:
            url: as for the backplane.

        Raises:
            ValueError: redis-py does not take it.
        """
        self.max_payload = MAX_PAYLOAD - STAMP_SIZE
        self.on_moved: Callable[[], None] = lambda: None
        self.server_id = ""
        is_cluster = "+cluster:" in url.partition("/")[0]
        scripts = (APPEND, READ, CHANGE, LOOKUP, CHECK)
        self._scripts: tuple[Script, ...] = tuple(each.sharded() for each in scripts) if is_cluster else scripts
        self._append, self._read, self._change, self._lookup, self._check = self._scripts
        self._servers: Servers | None = None
        self._lost: Lost | None = None
        self._is_allowed = self._has_warned = False
        self._where = servers_of(url)
        self._roles = Roles(is_sharded=is_cluster)

    async def connect(self, lost: Lost) -> None:
        """See `HistoryStore.connect`."""

        def ended(error: Exception) -> None:
            if self._lost is lost:
                self._lost = None
                lost(error)

        self._lost, self._is_allowed = lost, False
        self._servers = Servers(self._where, self._roles, self._scripts, ended, self._moved)
        await self._servers.open()
        self.server_id = await self._servers.ids()
        for policy in await self._servers.policies():
            if policy.startswith("allkeys") and not self._has_warned:
                self._has_warned = True
                log.warning(
                    "the engine may evict any key when its memory is full (maxmemory-policy %s), and so what rooms "
                    "remember; give them an engine with the policy noeviction",
                    policy,
                )

    async def append(self, appends: Sequence[Append]) -> list[Appended | Refused]:
        """See `HistoryStore.append`."""
        chance = secrets.token_bytes(_APPEND_BYTES * len(appends))
        calls = [
            self._appending(append, chance[start : start + _APPEND_BYTES])
            for append, start in zip(appends, range(0, len(chance), _APPEND_BYTES), strict=True)
            if len(append.envelope) <= self.max_payload
        ]
        replies = iter(await self._alter(self._append, calls))
        return [too_large(append.envelope, self.max_payload) or _appended(next(replies)) for append in appends]

    async def tops(self, logs: Sequence[Log]) -> list[Top | Refused]:
        """See `HistoryStore.tops`."""
        calls = [self._reading(each, 0, 0, 0, newest=False) for each in logs]
        return [_top(reply) for reply in await self._connected().call(READS, self._read, calls)]

    async def read(self, queries: Sequence[Query]) -> list[Range | Refused]:
        """See `HistoryStore.read`."""
        calls = [
            self._reading(each.log, each.after, each.limit, each.max_bytes, newest=each.newest) for each in queries
        ]
        return [_range(reply) for reply in await self._connected().call(READS, self._read, calls)]

    async def remove(self, removals: Sequence[Removal]) -> list[Top | Refused]:
        """See `HistoryStore.remove`."""
        calls = [
            self._changing(each.log, each.notice, each.user)
            for each in removals
            if len(each.notice) <= self.max_payload
        ]
        replies = iter(await self._alter(self._change, calls))
        return [too_large(each.notice, self.max_payload) or _top(next(replies)) for each in removals]

    async def removed(self, lookups: Sequence[Lookup]) -> list[int]:
        """See `HistoryStore.removed`."""
        calls = []
        for lookup in lookups:
            meta, _, removals = _keys(lookup.log)
            calls.append(Call(lookup.log.topic, (meta, removals), (_text(lookup.user),)))
        return [granted(reply) for reply in await self._connected().call(READS, self._lookup, calls)]

    async def clear(self, log: Log, notice: bytes = b"") -> Top:
        """See `HistoryStore.clear`."""
        granted(too_large(notice, self.max_payload))
        (reply,) = await self._alter(self._change, [self._changing(log, notice, "")])
        return granted(_top(reply))

    async def secret(self, name: str) -> bytes:
        """See `HistoryStore.secret`."""
        key = f"{{{name}}}:secret"
        commands = [("SET", key, secrets.token_bytes(SECRET_SIZE), "NX"), ("GET", key)]
        made, found = await self._connected().ask(name, commands)
        granted(made)
        return bytes(granted(found))

    async def keep(self, name: str, value: bytes) -> None:
        """See `HistoryStore.keep`."""
        servers = self._connected()
        granted(too_large(value, KEPT_SIZE))
        (reply,) = await servers.ask(name, [("SET", f"{{{name}}}:kept", value)])
        granted(reply)

    async def kept(self, name: str) -> bytes | None:
        """See `HistoryStore.kept`."""
        (reply,) = await self._connected().ask(name, [("GET", f"{{{name}}}:kept")])
        found: bytes | None = granted(reply)
        return found

    async def close(self) -> None:
        """See `HistoryStore.close`."""
        self._lost = None
        servers, self._servers = self._servers, None
        if servers is not None:
            await servers.close()

    def release(self) -> None:
        """See `HistoryStore.release`. There is nothing to give back."""

    async def _alter(self, script: Script, calls: Sequence[Call]) -> list[Reply | Refused]:
        """Call a script that changes logs; not where a command of it is forbidden, which would stop it half way."""
        servers = self._connected()
        if calls and not self._is_allowed:
            topic = calls[0].topic
            (reply,) = await servers.call(CHANGES, self._check, [Call(topic, (), (f"{{{topic}}}:meta", topic))])
            if not isinstance(reply, Refused) and reply:
                lacking = b", ".join(reply).decode()
                reply = Refused("engine", f"the login may not {lacking} there: docs/scaling.md has what it needs")
            if isinstance(reply, Refused):
                return [reply] * len(calls)
            self._is_allowed = True
        return await servers.call(CHANGES, script, calls)

    def _moved(self) -> None:
        self.server_id = ""
        self.on_moved()

    def _connected(self) -> Servers:
        if self._servers is None or self._lost is None:
            raise ConnectionError("there is no connection")
        return self._servers

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
        return Appended(Stamp.unpack(reply))
    if isinstance(reply, Refused):
        return reply
    if isinstance(reply, list):
        return Appended(Stamp.unpack(reply[0]), is_duplicate=True)
    return Refused("conflict", "the key stands for another message, which was first")


def _top(reply: Reply) -> Top | Refused:
    return reply if isinstance(reply, Refused) else Top(Position.unpack(reply[0]), reply[1], reply[2])


def _range(reply: Reply) -> Range | Refused:
    if isinstance(reply, Refused):
        return reply
    return Range(Top(Position.unpack(reply[0]), reply[1], reply[2]), [Entry.unpack(data) for data in reply[3]])
