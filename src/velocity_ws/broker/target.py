"""Target: the clients that a message goes to, named before the message. Knows no connection and no hub."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from typing import Any, Literal, Protocol, TypeVar

from velocity_ws.errors import ClientIdError
from velocity_ws.history.values import Sent
from velocity_ws.messages.address import Address
from velocity_ws.messages.names import name_user, validate_key, validate_room
from velocity_ws.messages.outbound import PreparedMessage, encode, encode_bytes, make_lossy

__all__ = ["Nodes", "Target", "TargetFactory"]

N = TypeVar("N")

Tell = Callable[[str, bytes], Awaitable[None]]


class Publish(Protocol):
    """Sends a message to the clients that an address means."""

    def __call__(self, address: Address, message: PreparedMessage, dedupe: str | None = None, /) -> Awaitable[Sent]:
        """For how many clients of this process it was queued, and where it stands in a room with history."""


class Target:
    """The clients that fit a description when a message is sent. Can be kept, and used many times."""

    def __init__(self, publish: Publish, address: Address) -> None:
        self._publish = publish
        self._address = address

    def __repr__(self) -> str:
        return f"<Target {self._address}>"

    def except_(self, *client_ids: str) -> Target:
        """The same without these clients; unknown ids are harmless.

        Raises:
            ClientIdError: an argument is not a string; pass ``client.id``, not the client.
        """
        return Target(self._publish, _without(self._address, client_ids))

    async def send(
        self, event: str, data: Any = None, *, volatile: bool = False, key: str | None = None, dedupe: str | None = None
    ) -> Sent:
        """Send a message, encoded once, to all of them. From any loop, in a coroutine.

        To one room with history, alone, it goes by the engine, which keeps it and gives it its place: where that
        refuses it, nobody has it. The order is that of the room, and says nothing of what is sent elsewhere.

        Args:
            event: the name of the event, 1 to 256 characters.
            data: anything that has a JSON form.
            volatile: whether it is left out for the clients for which something waits, as they read too slowly.
            key: 1 to 256 characters, such as ``cursor:ann``. The message replaces one of the same event and key that
                still waits for a client, and keeps its place, unless a message without a key has come after that. To
                one room of a kind it replaces what was sent to that room alone.
            dedupe: 1 to 256 characters that name this message in its room, which has a history. Sent again within 5
                minutes it is the same message, and is not there twice, whatever became of the first attempt.

        Returns:
            The number of clients of this process for which it was queued; in a room with history, of its members here
            when the engine took it. There ``at`` says where it stands, and ``duplicate`` whether it was sent before.

        Raises:
            InvalidNameError: the event name or the key is empty or too long, the event is ``joined``, ``left`` or
                ``resync`` where some kind of rooms has an ``authorize`` or a history, or the name of a room or a user
                cannot be sent to other processes.
            TypeError: it is volatile and has a key.
            EncodeError: the data has no JSON form; it was sent to nobody.
            HistoryError: it is for several rooms, one of which has a history; it is volatile, or has a key, and is for
                such a room, unless the newest message is all that it keeps; ``dedupe`` is for something else than one
                such room, or was used for another message. It was sent to nobody.
            BackplaneUnavailable: it could not be sent to the other nodes, or it is not known whether it was; clients of
                this process have it, unless it is for a room with history.
        """
        message = encode(event, data)
        if volatile or key is not None:
            make_lossy(message, volatile=volatile, key=key)
        if dedupe is not None:
            validate_key(dedupe)
        return await self._publish(self._address, message, dedupe)

    async def send_bytes(self, data: bytes, *, volatile: bool = False, key: str | None = None) -> Sent:
        """Send a binary message to all of them. From any loop, in a coroutine.

        It is kept by no room, and has no place among what a room with history keeps.

        Args:
            data: the bytes of the message.
            volatile: as for `send`.
            key: as for `send`; it replaces a binary message of the same key.

        Returns:
            The number of clients of this process for which it was queued.

        Raises:
            InvalidNameError: the name of a room or a user cannot be sent to other processes, or the key is not valid.
            TypeError: it is volatile and has a key.
            BackplaneUnavailable: as for `send`.
        """
        message = encode_bytes(data)
        if volatile or key is not None:
            make_lossy(message, volatile=volatile, key=key)
        return await self._publish(self._address, message)


class Nodes:
    """All nodes, as the receivers of what ``on_node`` handlers hear. Can be kept, and used many times."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    async def send(self, event: str, data: Any = None) -> None:
        """Tell something to every node that runs now, this one included. From any loop, in a coroutine.

        It does not wait for the handlers. A node that has no handler of that name ignores it, and one that has no
        connection to the engine misses it.

        Args:
            event: the name that ``on_node`` was given, 1 to 256 characters.
            data: anything that has a JSON form; each node gets what JSON makes of it.

        Raises:
            InvalidNameError: the name is empty or too long.
            EncodeError: the data has no JSON form; nobody was told.
            BackplaneUnavailable: other nodes were not told, or it is not known whether they were; this node was. Or it
                is not running.
        """
        await self._tell(event, encode(event, data).payload)


class TargetFactory:
    """The ways to name a target."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish

    def all(self) -> Target:
        """The target of all clients."""
        return Target(self._publish, Address("all"))

    def rooms(self, rooms: Iterable[str]) -> Target:
        """The target of the members of these rooms. A room that is named twice is one."""
        names = tuple(validate_room(room) for room in _names("rooms", rooms))
        if len(names) > 1:
            names = tuple(dict.fromkeys(names))
        return Target(self._publish, Address("rooms", names))

    def users(self, user_ids: Iterable[str | int]) -> Target:
        """The target of all clients of these users, on every node. A user that is named twice is one."""
        names = _names("users", user_ids)
        return Target(self._publish, Address("users", tuple(name_user(user_id) for user_id in names)))

    def clients(self, client_ids: Iterable[str]) -> Target:
        """The target of these clients, named by their ids."""
        return Target(
            self._publish, Address("clients", _strings("to_client(client_id)", _names("clients", client_ids)))
        )


def _names(kind: Literal["rooms", "users", "clients"], names: Iterable[N]) -> tuple[N, ...]:
    if isinstance(names, str):
        raise TypeError(f"to_{kind} takes several; for one alone use to_{kind[:-1]}({names!r:.80})")
    return tuple(names)


def _strings(call: str, names: Collection[str]) -> tuple[str, ...]:
    for name in names:
        if not isinstance(name, str):
            raise ClientIdError(call, name)
    return tuple(names)


def _without(address: Address, client_ids: tuple[str, ...]) -> Address:
    return replace(address, excluded=address.excluded | set(_strings("except_(client_id)", client_ids)))
