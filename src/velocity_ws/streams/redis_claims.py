"""Redis claims: how a stream begins, as its id is the same one in every topic, and topics are on different servers.

Knows no piece and no end. It takes two steps: an id is claimed, and its stream begins in the topic of the claim. What
finds the claim of another topic, and no stream there, begins it in the name of the claim; who made that finds it begun.
So the stream is one, whichever of them is first or goes half way. A claim is kept for longer than its stream is known:
what finds one that is old, and no stream, replaces it.
"""

from __future__ import annotations

from collections.abc import Sequence

from velocity_ws.history.items import Refused
from velocity_ws.history.redis_servers import READS, Call
from velocity_ws.history.redis_store import RedisStore
from velocity_ws.streams.items import Began, Begin
from velocity_ws.streams.redis_forms import Claim, keep_of, keys_of, named, pack_claim, summary_of, tag_of
from velocity_ws.streams.redis_scripts import AT, BEGIN, CLAIM, pack_times

__all__ = ["begin_all", "topics_of"]

ROUNDS = 5
"""How often an id is claimed, where others replace its claim at the same time."""


async def begin_all(store: RedisStore, prefix: str, begins: Sequence[Begin]) -> list[Began | Refused]:
    """See `StreamStore.begin`.

    Args:
        store: the connection.
        prefix: of the cluster.
        begins: the same.

    Raises:
        OSError: each of them may be done, or not.
    """
    results: list[Began | Refused] = [Refused("moving", "others begin a stream of that id just now")] * len(begins)
    old: dict[int, bytes] = dict.fromkeys(range(len(begins)), b"")
    for _ in range(ROUNDS):
        if not old:
            break
        old = await _round(store, prefix, begins, old, results)
    return results


async def topics_of(store: RedisStore, prefix: str, ids: Sequence[str]) -> list[str | Refused | None]:
    """The topics in which ids are claimed; ``None`` for those that are not.

    Args:
        store: the connection.
        prefix: of the cluster.
        ids: of the streams.

    Raises:
        OSError: the engine did not answer.
    """
    tags = [tag_of(prefix, id_) for id_ in ids]
    replies = await store.call(READS, AT, [Call(tag, (f"{{{tag}}}:at",), ()) for tag in tags])
    return [
        Claim.unpack(reply, id_).begin.topic if type(reply) is bytes else reply
        for id_, reply in zip(ids, replies, strict=True)
    ]


async def _round(
    store: RedisStore, prefix: str, begins: Sequence[Begin], old: dict[int, bytes], results: list[Began | Refused]
) -> dict[int, bytes]:
    """Claim, and begin where that is right.

    Args:
        store: the connection.
        prefix: of the cluster.
        begins: all of them.
        old: which of them are left, and the claims that they replace.
        results: are filled in.

    Returns:
        Those that are left again, as ``old``.
    """
    claims: dict[int, tuple[bytes, Begin, bool]] = {}
    calls = []
    replies = await store.alter(CLAIM, [_claiming(prefix, begins[index], found) for index, found in old.items()])
    for index, reply in zip(old, replies, strict=True):
        if isinstance(reply, Refused):
            results[index] = reply
            continue
        data, now, is_forbidden = reply
        claim = Claim.unpack(data, begins[index].id)
        begin = begins[index] if begins[index].topic == claim.begin.topic else claim.begin
        claims[index] = data, begin, bool(is_forbidden)
        calls.append(_beginning(prefix, begin, is_asking=not claim.is_fresh(now)))
    left: dict[int, bytes] = {}
    for index, reply in zip(claims, await store.alter(BEGIN, calls), strict=True):
        data, begin, is_forbidden = claims[index]
        if isinstance(reply, Refused):
            results[index] = reply
        elif reply[1] is None:
            left[index] = data
        else:
            results[index] = Began(summary_of(begin.topic, *reply), is_forbidden)
    return left


def _claiming(prefix: str, begin: Begin, found: bytes) -> Call:
    tag = tag_of(prefix, begin.id)
    return Call(tag, (f"{{{tag}}}:at", f"{{{tag}}}:no"), (found, pack_claim(begin), keep_of(begin.times)))


def _beginning(prefix: str, begin: Begin, *, is_asking: bool) -> Call:
    """A call that begins a stream, or only asks for it."""
    stream, pieces, streams, name = keys_of(prefix, begin.id, begin.topic)
    times = b"" if is_asking else pack_times(*begin.times)
    return Call(begin.topic, (stream, pieces, streams), (times, begin.writer, named(begin), name))
