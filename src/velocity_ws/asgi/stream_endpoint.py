"""Stream endpoint: ``{path}/streams/{id}``: streams over HTTP, by the Durable Streams protocol. Knows requests only.

Source: the Durable Streams protocol, 5 and 12 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from velocity_ws.asgi.admission import Admission
from velocity_ws.asgi.stopping import OpenResponses
from velocity_ws.asgi.stream_access import Access, Visitor
from velocity_ws.asgi.stream_answers import error_of, metadata, refusal
from velocity_ws.asgi.stream_forms import (
    JSON,
    NOW,
    TEXT,
    parse_offset,
)
from velocity_ws.asgi.stream_reading import Reading, watch
from velocity_ws.asgi.stream_writing import Writing, as_problem, one
from velocity_ws.broker.node import Node
from velocity_ws.errors import BackplaneUnavailable, BrokerError, ClientError, Reject, SettingsError
from velocity_ws.limits import RateLimiter
from velocity_ws.logs import get_logger
from velocity_ws.messages.names import validate_text
from velocity_ws.stream_errors import StreamGone, StreamNotFound
from velocity_ws.streams.requests import Found, Problem
from velocity_ws.streams.streams import Streams

__all__ = ["StreamEndpoint"]

log = get_logger("velocity_ws.asgi")

LONGEST_ID: Final = 250
"""Characters of an id; a little less than names have otherwise."""
MOST_WAITING: Final = 100
"""Requests of one reader without a key that wait at the same time."""
MOST_READERS: Final = 10_000
"""Readers without a key whose rates are known."""
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


class StreamEndpoint:
    """The streams of one broker, over HTTP. On the broker's loop only."""

    def __init__(self, node: Node, admission: Admission) -> None:
        self._node = node
        self._admission = admission
        self._access = Access(node, admission)
        self._writing = Writing(node.settings)
        self._open = OpenResponses(lambda: node.is_running and not node.lifecycle.is_leaving)
        self._waiting: Counter[str] = Counter()
        self._rates: OrderedDict[str, RateLimiter] = OrderedDict()

    async def __call__(self, id_: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for a stream."""
        request = Request(scope, receive)
        extra = self._common(request)
        try:
            response = await self._answer(id_, request, extra, receive, send)
        except Problem as problem:
            response = refusal(problem)
        except Reject as reject:
            status = reject.status if reject.code is None else (401 if reject.code == 4401 else 403)
            response = error_of(status, "FORBIDDEN" if status == 403 else "UNAUTHORIZED", reject.reason or "refused")
            response.headers.update(reject.headers)
        except ClientError as error:
            response = error_of(500, error.code, error.message)
        except (BackplaneUnavailable, BrokerError) as error:
            log.debug("a request for a stream was not done: %s", error)
            response = error_of(503, "UNAVAILABLE", "streams cannot be had now: try again")
            response.headers["retry-after"] = "1"
        except SettingsError as error:
            log.warning("a request for a stream was not done: %s", error)
            response = error_of(501, "UNSUPPORTED", "the engine of this server keeps no streams")
        except (StreamNotFound, StreamGone):
            response = error_of(404, "NOT_FOUND", "there is no such stream")
        except TimeoutError:
            response = error_of(408, "TIMEOUT", "the body did not come within WS_MESSAGE_TIMEOUT")
        except ClientDisconnect:
            return
        if response is not None:
            response.headers.update(extra)
            await response(scope, receive, send)

    def _common(self, request: Request) -> dict[str, str]:
        """The headers of each answer: for caches and browsers, and for pages of other origins that may ask."""
        headers = {"x-content-type-options": "nosniff", "cross-origin-resource-policy": "same-origin", "vary": "Origin"}
        origin = request.headers.get("origin")
        if origin is not None and self._admission.allows(origin, request.headers.getlist("host")):
            headers |= {
                "access-control-allow-origin": origin,
                "access-control-allow-credentials": "true",
                "access-control-expose-headers": EXPOSED,
                "cross-origin-resource-policy": "cross-origin",
            }
        return headers

    async def _answer(
        self, id_: str, request: Request, extra: dict[str, str], receive: Receive, send: Send
    ) -> Response | None:
        """The answer; ``None`` where it was sent already.

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
            validate_text(id_)
        if "\0" in id_:
            raise Problem("invalid", "the id of a stream has no zero byte")
        await self._node.lifecycle.ensure_started()
        async with self._access.visit(request) as visitor:
            streams = self._streams()
            if method in ("GET", "HEAD"):
                self._check_rate(visitor)
            else:
                self._check_writer(visitor)
            if not visitor.has_key and not streams.is_awake and not streams.is_looking:
                raise Problem("missing", "there is no such stream")  # there is none, and a stranger begins nothing
            await streams.wake()
            if method in ("GET", "HEAD"):
                return await self._read(streams, visitor, id_, request, extra, receive, send)
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

    def _check_writer(self, visitor: Visitor) -> None:
        if not visitor.has_key:
            if not self._access.has_keys:
                raise Reject("streams are written with a key of WS_API_KEYS, which is not set", status=403)
            headers = {"www-authenticate": "Bearer"}
            raise Reject("streams are written with a key of WS_API_KEYS", status=401, headers=headers)

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

    async def _read(
        self,
        streams: Streams,
        visitor: Visitor,
        id_: str,
        request: Request,
        extra: dict[str, str],
        receive: Receive,
        send: Send,
    ) -> Response | None:
        found = await streams.forks.find(id_)
        if not await visitor.may_read(self._node, streams.kept.room_of(found)):
            raise Problem("missing", "there is no such stream, or it is not for you")
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
        await streams.kept.touch(found)
        reading = Reading(streams.tails, found, content_type, position, one(request, "cursor"))
        if live is not None and (live == "sse" or (position >= found.stream.length and not found.stream.end)):
            return await self._live(reading, visitor, request, extra, receive, send)
        chunk = await streams.kept.part(found, position)
        if_none_match = request.headers.get("if-none-match", "")
        return reading.answer(chunk, if_none_match=if_none_match, is_live=live is not None, is_now=offset == NOW)

    async def _live(
        self, reading: Reading, visitor: Visitor, request: Request, extra: dict[str, str], receive: Receive, send: Send
    ) -> Response | None:
        """Answer what stays open; counted as a connection, and against what one reader may have."""
        address = request.client.host if request.client is not None else None
        limits = self._node.connection_limits
        if not visitor.has_key and self._waiting[visitor.name] >= MOST_WAITING:
            response = error_of(429, "TOO_MANY", f"{MOST_WAITING} of your requests wait already")
            response.headers["retry-after"] = "1"
            return response
        if limits.count_in(address) is not None:
            response = error_of(503, "UNAVAILABLE", "too many connections")
            response.headers["retry-after"] = "1"
            return response
        self._waiting[visitor.name] += 1
        try:
            if one(request, "live") == "sse":
                await reading.send_events(self._open, extra, receive, send)
                return None
            async with self._open.opened() as response_:
                watching = asyncio.create_task(watch(receive, response_), name="velocity-ws stream reader")
                try:
                    return await reading.wait(response_)
                finally:
                    watching.cancel()
        finally:
            limits.count_out(address)
            self._waiting[visitor.name] -= 1
            if not self._waiting[visitor.name]:
                del self._waiting[visitor.name]

    def _check_rate(self, visitor: Visitor) -> None:
        settings = self._node.settings
        if visitor.has_key or not settings.rate_limit:
            return
        rate = self._rates.get(visitor.name)
        if rate is None:
            rate = RateLimiter(settings.rate_limit, settings.rate_burst, asyncio.get_running_loop().time)
            self._rates[visitor.name] = rate
            if len(self._rates) > MOST_READERS:
                self._rates.popitem(last=False)
        seconds = rate.acquire()
        if seconds:
            raise Reject("too many requests", status=429, headers={"retry-after": str(max(1, round(seconds)))})

    async def _type_of(self, streams: Streams, found: Found) -> str:
        kind = await streams.kept.kind_of(found)
        return JSON if kind == "items" else TEXT
