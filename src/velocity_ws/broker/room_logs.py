"""RoomLogs: which rooms have a history, by the application's kinds, and what other processes are told of that. Pure."""

from __future__ import annotations

import msgspec

from velocity_ws.cluster.topics import Topics
from velocity_ws.errors import HistoryError, HookError
from velocity_ws.history.items import Log
from velocity_ws.history.link import HistoryLink
from velocity_ws.hooks.kinds import Kinds
from velocity_ws.messages.address import Address
from velocity_ws.messages.outbound import PreparedMessage
from velocity_ws.retention import History, Limits

__all__ = [
    "RoomLogs", "describe", "find_log", "keep_description", "read_description",
    "refuse_dedupe",
]  # fmt: skip

MAX_REMEMBERED = 4096
"""Rooms whose log is remembered; strangers choose their names."""


class RoomLogs:
    """The logs of rooms. On the broker's loop only."""

    def __init__(self, kinds: Kinds, topics: Topics) -> None:
        """
        Args:
            kinds: the application's.
            topics: names the log of a room.
        """
        self._kinds = kinds
        self._topics = topics
        self._found: dict[str, tuple[Log, bool] | None] = {}
        self._known = 0  # kinds that there were then

    def __call__(self, room: str) -> tuple[Log, bool] | None:
        """The log of a room, and whether its newest message stands for all before it; ``None`` where it has none."""
        if len(self._kinds.all) != self._known:
            self._known = len(self._kinds.all)
            self._found.clear()
        try:
            return self._found[room]
        except KeyError:
            found = self._look(room)
        if len(self._found) >= MAX_REMEMBERED:
            del self._found[next(iter(self._found))]
        self._found[room] = found
        return found

    def _look(self, room: str) -> tuple[Log, bool] | None:
        found = self._kinds.of(room)
        history = None if found is None else found[0].history
        if history is None:
            return None
        return Log(self._topics.room(room), history.limits), history.mode == "latest"


def find_log(logs: RoomLogs, address: Address, message: PreparedMessage) -> Log | None:
    """The log to which a message to rooms goes; ``None`` where it goes to none.

    Raises:
        HistoryError: it goes to several rooms, one of which has a history; or it may be left out, or replaced, which
            what is kept may not.
    """
    if len(address.names) != 1:
        for room in address.names:
            if logs(room) is not None:
                raise HistoryError(
                    f"room {room!r:.80} has a history, and what is sent to it is kept in an order of its own: send to "
                    "each of the rooms by itself"
                )
        return None
    (room,) = address.names
    found = logs(room)
    if found is None or not message.is_text:
        return None
    lossy = message.lossy
    if lossy is not None and (lossy.volatile or (lossy.key is not None and not found[1])):
        raise HistoryError(
            f"room {room!r:.80} has a history, and each message is kept there: send without volatile and key, or give "
            'the rooms a History(mode="latest"), which keeps the newest alone and takes a key'
        )
    return found[0]


def refuse_dedupe(dedupe: str | None) -> None:
    """Refuse an idempotency key for what is kept nowhere.

    Raises:
        HistoryError: there is one.
    """
    if dedupe is not None:
        raise HistoryError("dedupe is for what is sent to one room with history, which knows what it has: leave it out")


class _Described(msgspec.Struct, array_like=True, frozen=True):
    """A kind of rooms: its pattern, and what is kept of its rooms; nothing of them, where ``size`` is 0."""

    pattern: str
    size: int
    ttl: int
    max_bytes: int
    is_latest: bool


_decode = msgspec.msgpack.Decoder(tuple[_Described, ...]).decode


def describe(kinds: Kinds) -> bytes:
    """What other processes are told of the kinds: all of them, as the first that means a room is the one."""
    return msgspec.msgpack.encode(
        [
            _Described(
                kind.pattern.text,
                *(Limits(0, 0, 0) if kind.history is None else kind.history.limits),
                kind.history is not None and kind.history.mode == "latest",
            )
            for kind in kinds.all
        ]
    )


async def keep_description(link: HistoryLink, topics: Topics, kinds: Kinds, is_new: bool) -> None:
    """Have the engine keep what other processes are told of the kinds.

    Args:
        link: the way to the engine.
        topics: the names of the cluster's topics.
        kinds: the application's kinds of rooms.
        is_new: whether the engine was reached anew; else what another node has told it stays.

    Raises:
        BackplaneUnavailable: it did not, or that is not known.
    """
    described = describe(kinds)
    found = await link.kept(topics.kinds)
    if found is None or (is_new and found != described):
        await link.keep(topics.kinds, described)


def read_description(data: bytes) -> Kinds:
    """Read what `describe` has made; of a kind that cannot be read, no room has a history."""
    kinds = Kinds()
    try:
        described = _decode(data)
    except msgspec.DecodeError:
        return kinds
    for each in described:
        try:
            history = History(each.size, each.ttl / 1000, each.max_bytes, "latest" if each.is_latest else "all")
        except ValueError:
            history = None
        try:
            kinds.register(each.pattern, history=history)
        except HookError:
            continue
    return kinds
