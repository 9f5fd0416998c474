"""Stream endpoint: ``{path}/streams/{id}``: streams over HTTP, by the Durable Streams protocol. Knows requests only.

Source: the Durable Streams protocol, 5 and 12 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from velocity_ws.asgi.admission import Admission
from velocity_ws.asgi.stopping import OpenResponse, OpenResponses
from velocity_ws.asgi.stream_access import Access, Visitor
from velocity_ws.asgi.stream_answers import error_of, metadata, refusal_of
from velocity_ws.asgi.stream_feeds import Feeds
from velocity_ws.asgi.stream_forms import JSON, NOW, TEXT, parse_offset
from velocity_ws.asgi.stream_reading import LIFE, LONG_POLL, Reading
from velocity_ws.asgi.stream_writing import Writing, as_problem, one
from velocity_ws.broker.node import Node
from velocity_ws.errors import BrokerError, Reject
from velocity_ws.logs import get_logger, printable
from velocity_ws.messages.names import validate_stream_id
from velocity_ws.streams.requests import Found, Problem
from velocity_ws.streams.streams import Streams

__all__ = ["StreamEndpoint"]

log = get_logger("velocity_ws.asgi")

LONGEST_ID: Final = 250
"""Characters of an id; a little less than names have otherwise."""
MOST_WAITING: Final = 100
"""Requests of one reader without a key that wait at the same time."""
NOT_THERE: Final = "there is no such stream, or it is not for you"
COMMON: Final = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox",
    "cross-origin-resource-policy": "same-origin",
    "vary": "Origin",
}
METHODS: Final = ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS")
ALLOW: Final = ", ".join(METHODS)
EXPOSED: Final = (
    "stream-next-offset, stream-cursor, stream-up-to-date, stream-closed, stream-end, stream-ttl, stream-expires-at, "
    "stream-sse-data-encoding, producer-epoch, producer-seq, producer-expected-seq, producer-received-seq, etag, "
    "location"
)
ALLOWED: Final = (
    "authorization, x-api-key, content-type, if-none-match, last-event-id, stream-seq, stream-closed, stream-ttl, "
    "stream-expires-at, stream-forked-from, stream-fork-offset, stream-fork-sub-offset, producer-id, producer-epoch, "
    "producer-seq"
)


class _Live:
    """A request that is answered by what is yet to come.

    Attributes:
        reading: what is read.
        address: what it is counted by among connections.
        name: what it is counted by among those that wait.
        room: by whose ``authorize`` it is let in; ``None`` where that was by a key.
        user_id: whose it is.
        is_poll: whether one answer is all; else events.
        extra: headers of the answer.
    """

    __slots__ = ("address", "extra", "is_poll", "name", "reading", "room", "user_id")

    def __init__(
        self, reading: Reading, address: str | None, visitor: Visitor, room: str | None, *, is_poll: bool
    ) -> None:
        self.reading = reading
        self.address = address
        self.name = visitor.name
        self.room = None if visitor.has_key else room
        self.user_id = visitor.user_id
        self.is_poll = is_poll
        self.extra = COMMON

    @property
    def seconds(self) -> float:
        """How long it may take."""
        return LONG_POLL if self.is_poll else LIFE


class StreamEndpoint:
    """The streams of one broker, over HTTP. On the broker's loop only."""

    def __init__(self, node: Node, admission: Admission) -> None:
        self._node = node
        self._admission = admission
        self._access = Access(node, admission)
        self._writing = Writing(node.settings)
        self._open = OpenResponses(
            lambda: node.is_running and not node.lifecycle.is_leaving, node.settings.drain_timeout
        )
        self._feeds = Feeds(lambda: node.context.workers)
        self._waiting: Counter[str] = Counter()
        self._members: dict[OpenResponse, _Live] = {}
        self._round = 0
        node.authorization.on_reauthorize.append(self._end_readers)

    async def __call__(self, id_: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a stream."""
        live = await self._answer_or_live(id_, scope, receive, send)
        if live is None:
            return
        # Nothing of the request is kept here while it waits.
        response = self._open.open(receive, live.seconds)
        if live.room is not None:
            self._members[response] = live
        try:
            if live.is_poll:
                await self._poll(live, response, scope, receive, send)
            else:
                await live.reading.send_events(self._feeds, response, live.extra, send)
        finally:
            self._open.close(response)
            self._members.pop(response, None)
            self._node.connection_limits.count_out(live.address)
            self._waiting[live.name] -= 1
            if not self._waiting[live.name]:
                del self._waiting[live.name]

    async def _answer_or_live(self, id_: str, scope: Scope, receive: Receive, send: Send) -> _Live | None:
        """Answer a request, unless it is to be answered by what is yet to come."""
        request = Request(scope, receive)
        extra = await self._common(request)
        try:
            answer = await self._answer(id_, request)
        except ClientDisconnect:
            return None
        except Exception as error:
            answer = refusal_of(error)
        if isinstance(answer, _Live):
            answer.extra = extra
            return answer
        answer.headers.update(extra)
        await answer(scope, receive, send)
        return None

    async def _poll(self, live: _Live, response: OpenResponse, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await live.reading.wait(self._feeds, response)
        except Exception as error:
            answer = refusal_of(error)
        if answer is None:  # nobody hears it, but middleware takes it for a fault where there is none
            answer = Response(status_code=204)
        answer.headers.update(live.extra)
        await answer(scope, receive, send)

    async def _common(self, request: Request) -> dict[str, str]:
        """The headers of each answer: for caches and browsers, and for pages of other origins that may ask."""
        origin = request.headers.get("origin")
        if origin is not None and await self._admission.allows(request, origin):
            return COMMON | {
                "access-control-allow-origin": origin,
                "access-control-allow-credentials": "true",
                "access-control-expose-headers": EXPOSED,
                "cross-origin-resource-policy": "cross-origin",
            }
        return COMMON

    async def _answer(self, id_: str, request: Request) -> Response | _Live:
        """The answer, or what will be it.

        Raises:
            Problem, Reject, ClientError, BackplaneUnavailable, BrokerError, SettingsError, StreamNotFound, StreamGone,
            ClientDisconnect: there is none.
        """
        method = request.method
        if method == "OPTIONS":
            return self._preflight(request)
        if method not in METHODS:
            return Response(status_code=405, headers={"allow": ALLOW})
        if not 0 < len(id_) <= LONGEST_ID:
            raise Problem("invalid", f"the id of a stream has 1 to {LONGEST_ID} characters")
        with as_problem():
            validate_stream_id(id_)
        await self._node.lifecycle.ensure_started()
        is_read = method in ("GET", "HEAD")
        async with self._access.visit(request, is_read=is_read) as visitor:
            streams = self._streams()
            if not visitor.has_key and not streams.is_awake and not streams.is_looking:
                raise Problem("missing", NOT_THERE)  # there is none, and a stranger begins nothing
            await streams.wake()
            if is_read:
                return await self._read(streams, visitor, id_, request)
            if method == "PUT":
                return await self._writing.create(streams, id_, request)
            if method == "POST":
                return await self._writing.append(streams, id_, request)
            await streams.forks.delete(id_)
            return Response(status_code=204)

    def _streams(self) -> Streams:
        if self._node.streams is None:
            raise BrokerError("the broker is not started")
        return self._node.streams

    def _preflight(self, request: Request) -> Response:
        headers = {"allow": ALLOW}
        if "access-control-request-method" in request.headers:
            headers |= {
                "access-control-allow-methods": ALLOW,
                "access-control-allow-headers": ALLOWED,
                "access-control-max-age": "7200",
            }
        return Response(status_code=204, headers=headers)

    # --- reading

    async def _read(self, streams: Streams, visitor: Visitor, id_: str, request: Request) -> Response | _Live:
        while True:
            round_ = self._round
            found = await self._find(streams, visitor, id_)
            if request.method == "GET":
                await streams.kept.touch(found)
            if round_ == self._round:  # else the answer that let it in counts no more
                break
        content_type = found.note.meta.type if found.note is not None else await self._type_of(streams, found)
        if request.method == "HEAD":
            return metadata(found, content_type)
        offset, live = one(request, "offset"), one(request, "live")
        if live not in (None, "long-poll", "sse"):
            raise Problem("invalid", "live is long-poll, or sse")
        if live is not None and offset is None:
            raise Problem("invalid", "live needs an offset: -1, now, or one that a response had")
        if live == "sse":  # an EventSource asks for the same URL again
            offset = request.headers.get("last-event-id", offset)
        position = parse_offset(offset, found)
        reading = Reading(streams.tails, found, content_type, position, one(request, "cursor"))
        if live is not None and (live == "sse" or (position >= found.stream.length and not found.stream.end)):
            return self._live(reading, visitor, streams.kept.room_of(found), request, is_poll=live != "sse")
        chunk = await streams.kept.part(found, position)
        if_none_match = request.headers.get("if-none-match", "")
        return reading.answer(chunk, if_none_match=if_none_match, is_live=live is not None, is_now=offset == NOW)

    def _end_readers(self, room: str | None, user_id: str | None) -> None:
        """It is asked again who may be in a room: who reads its streams is to come again, and is asked about then."""
        self._round += 1
        for response, live in self._members.items():
            if room in (None, live.room) and user_id in (None, live.user_id):
                response.end("revoked")

    async def _find(self, streams: Streams, visitor: Visitor, id_: str) -> Found:
        """A stream that a visitor may read; who may not is told the same of one that is there, or was, as of none."""
        try:
            found = await streams.forks.find(id_)
        except Problem as problem:
            if not await self._may_read(streams, visitor, problem.found):
                raise Problem("missing", NOT_THERE) from None
            raise
        if not await self._may_read(streams, visitor, found):
            raise Problem("missing", NOT_THERE)
        return found

    async def _may_read(self, streams: Streams, visitor: Visitor, found: Found | None) -> bool:
        if found is None:
            return visitor.has_key
        return await visitor.may_read(self._node, streams.kept.room_of(found))

    def _live(
        self, reading: Reading, visitor: Visitor, room: str | None, request: Request, *, is_poll: bool
    ) -> Response | _Live:
        """What stays open; counted as a connection, and against what one reader may have."""
        address = request.client.host if request.client is not None else None
        if not visitor.has_key and self._waiting[visitor.name] >= MOST_WAITING:
            what = f"{MOST_WAITING} of your requests wait already"
            raise Reject(what, status=429, headers={"retry-after": "1"})
        full = self._node.connection_limits.count_in(address)
        if full is not None:
            self._node.hints.full(full, printable(address or "a client without an address"), {})
            response = error_of(503, "UNAVAILABLE", "too many connections")
            response.headers["retry-after"] = "1"
            return response
        self._waiting[visitor.name] += 1
        return _Live(reading, address, visitor, room, is_poll=is_poll)

    async def _type_of(self, streams: Streams, found: Found) -> str:
        kind = await streams.kept.kind_of(found)
        return JSON if kind == "items" else TEXT
