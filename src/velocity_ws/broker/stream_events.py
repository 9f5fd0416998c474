"""StreamEvents: the events ``stream_read`` and ``stream_cancel``, by which members of a room read and stop streams.

They exist where the application has no handlers of these names, before the first stream, too: a page may wait for one
that has not begun. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from velocity_ws.errors import BackplaneUnavailable, ClientError, HookError
from velocity_ws.hooks.hook import Hook
from velocity_ws.hooks.registry import Hooks
from velocity_ws.messages.events import REPLY
from velocity_ws.messages.inbound import Message
from velocity_ws.messages.names import MAX_NAME_LENGTH
from velocity_ws.sessions.client import Client
from velocity_ws.sessions.followed import Followed
from velocity_ws.sessions.hub import Hub
from velocity_ws.sessions.session import Session
from velocity_ws.stream_errors import StreamError, StreamGone, StreamNotFound
from velocity_ws.streams.streams import Streams

__all__ = ["StreamEvents"]

RETRY_AFTER = 1.0
"""Seconds after which a client may ask again for what the engine cannot say now."""

Call = Callable[[Hook, dict[str, Any]], Awaitable[Any]]
StreamId = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_LENGTH, pattern=r"^[^\x00]*$")]


class ReadRequest(BaseModel):
    """The data of ``stream_read``."""

    id: StreamId
    start: Annotated[int, Field(alias="from", ge=0)] = 0


class CancelRequest(BaseModel):
    """The data of ``stream_cancel``."""

    id: StreamId


class StreamEvents:
    """The members of rooms here that read and stop streams by themselves. On the broker's loop only."""

    def __init__(self, hooks: Hooks, hub: Hub[Session], call: Call, streams: Callable[[], Streams | None]) -> None:
        """
        Args:
            hooks: where the two events are handled; has the kinds of rooms.
            hub: knows who is in which room.
            call: calls a hook with its values; see `Dispatcher.call`.
            streams: those of the node; ``None`` where it does not run.
        """
        self._hooks = hooks
        self._hub = hub
        self._call = call
        self._streams = streams

    def register(self) -> None:
        """Handle the two events, where the application does not."""

        def is_there() -> bool:
            return self._streams() is not None

        self._hooks.register_built_in("stream_read", self.read, is_there)
        self._hooks.register_built_in("stream_cancel", self.cancel, is_there)

    async def read(self, client: Client, data: ReadRequest, message: Message) -> Any:
        """Handle ``stream_read``: the stream follows the answer, from where the client says on.

        Raises:
            ClientError: there is no such stream in this room, it is gone, or the engine cannot say.
        """
        room = _room_of(message)
        streams, session = self._streams(), self._hub.get(client.id)
        if streams is None or session is None:
            return None
        if not streams.is_awake:
            raise _not_had() if streams.is_looking else _not_found()
        try:
            length, end = await streams.entrances.find(data.id, room)
        except StreamGone:
            raise ClientError("GONE", "what this stream said is kept no more") from None
        except StreamError:
            raise _not_found() from None
        except BackplaneUnavailable:
            raise _not_had() from None
        start = min(data.start, length)
        answer: dict[str, object] = {"id": data.id, "room": room, "from": start}
        if end:
            answer["end"] = end
        return Followed(
            answer, REPLY, session.offer, lambda: streams.entrances.read_from(session, room, data.id, start)
        )

    async def cancel(self, client: Client, data: CancelRequest, message: Message) -> Any:
        """Handle ``stream_cancel``, where the room's kind has an ``on_cancel`` that allows it.

        Raises:
            ClientError: it may not be cancelled by this client, it is one of another room, or the engine cannot say.
        """
        room = _room_of(message)
        found, streams = self._hooks.kinds.of(room), self._streams()
        hook = None if found is None else found[0].on_cancel
        if found is None or hook is None or streams is None:
            raise ClientError("FORBIDDEN", "streams of this room are not for members to stop")
        values = {**found[1], "client": client, "stream_id": data.id, "room": room, "message": message}
        answer = await self._call(hook, values)
        if answer is False:
            raise ClientError("FORBIDDEN", "this stream is not for you to stop")
        if answer is not True:
            raise HookError(
                f"{hook.name} says whether a stream may be stopped: it returns a bool, and not {answer!r:.80}"
            )
        try:
            await streams.calls.cancel(data.id, room)  # one of another room is not for this room's hook to allow
        except StreamGone:
            raise ClientError("GONE", "what this stream said is kept no more") from None
        except StreamNotFound:
            raise _not_found() from None
        except BackplaneUnavailable:
            raise ClientError(
                "UNAVAILABLE", "this stream cannot be stopped now: try again", retry_after=RETRY_AFTER
            ) from None
        return {"id": data.id, "room": room}


def _not_found() -> ClientError:
    return ClientError("NOT_FOUND", "there is no such stream in this room")


def _not_had() -> ClientError:
    return ClientError("UNAVAILABLE", "this stream cannot be had now: try again", retry_after=RETRY_AFTER)


def _room_of(message: Message) -> str:
    """The room that a message names; its sender is in it, which was looked at before.

    Raises:
        ClientError: it names none.
    """
    if message.room is None:
        raise ClientError("INVALID_DATA", 'the message has to name its room, beside "event"')
    return message.room
