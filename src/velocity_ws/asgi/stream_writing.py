"""Stream writing: what a PUT or POST of a stream is answered. Knows nothing of who may write.

Source: the Durable Streams protocol, 5.1 to 5.3 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from velocity_ws.asgi.pages import route_path
from velocity_ws.asgi.stream_answers import written
from velocity_ws.asgi.stream_forms import JSON, Wanted, parse_body, parse_offset, producer_of, seq_of, wants_end
from velocity_ws.errors import InvalidNameError
from velocity_ws.messages.names import MAX_NAME_LENGTH, validate_room, validate_text
from velocity_ws.origins import Origin, is_same_origin
from velocity_ws.settings import Settings
from velocity_ws.streams.notes import Note
from velocity_ws.streams.requests import Appended, Found, Post, Problem, Said
from velocity_ws.streams.streams import Streams

__all__ = ["Writing", "as_problem", "one"]


class Writing:
    """Writes streams as requests say. On the broker's loop only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def create(self, streams: Streams, id_: str, request: Request) -> Response:
        """Answer a PUT.

        Raises:
            Problem: it is not done.
            BackplaneUnavailable: it may be done, or not.
            TimeoutError: the body did not come.
            ClientDisconnect: the client has gone.
        """
        headers = request.headers
        wanted = Wanted.of(headers)
        room = one(request, "room")
        if room is not None:
            if not room:
                raise Problem("invalid", "room is empty; without it the stream has no room")
            with as_problem():
                validate_room(room)
                validate_text(room)
        body = await self._body(request)
        if await streams.forks.is_kept(id_):
            raise Problem("conflict", "the stream was deleted, and others that began with it are there")
        source: Found | None = None
        if wanted.source is None:
            meta = wanted.meta(secrets.token_hex(8))
        else:
            other = _source_of(wanted.source, id_, request)
            try:
                source, position = await self._fork_point(streams, wanted, other)
            except Problem:
                if (done := await _same_fork(streams, id_, room, wanted, other)) is None:
                    raise
                return _created(done, wanted, request)
            meta = wanted.forked(source, position)
            above = streams.kept.room_of(source)
            room = above if room is None else room
            if room is not None and above is None and not meta.is_json:
                raise Problem(
                    "conflict", "the stream that it begins with is of no room, and has bytes; one of a room has text"
                )
        if room is not None and not (meta.is_json or meta.is_text):
            given = wanted.type or "no Content-Type"
            raise Problem("invalid", f"a stream of a room has text/…, or {JSON}; this request has {given}")
        said = parse_body(body, Note(meta), room or "", is_first=True) if body else Said("", 0, b"")
        if source is None:
            done = await streams.durable.create(id_, room, meta, said, is_closed=wanted.is_closed)
        else:
            done = await streams.forks.fork(id_, room, meta, source, said, is_closed=wanted.is_closed)
        streams.calls.announce()
        return _created(done, wanted, request)

    async def _fork_point(self, streams: Streams, wanted: Wanted, id_: str) -> tuple[Found, int]:
        """The stream that a new one begins with, and how much of it."""
        try:
            source = await streams.forks.find(id_)
        except Problem as problem:
            why = "conflict" if problem.why == "gone" else problem.why
            raise Problem(why, f"of the stream that it begins with: {problem}") from None
        position = source.stream.length if wanted.offset is None else parse_offset(wanted.offset, source)
        if wanted.sub_offset:
            if position + wanted.sub_offset > await streams.forks.next_stop(source, position):
                raise Problem("invalid", "Stream-Fork-Sub-Offset is beyond what was appended next")
            position += wanted.sub_offset
        return source, position

    async def append(self, streams: Streams, id_: str, request: Request) -> Response:
        """Answer a POST. Raises what `create` does."""
        headers = request.headers
        seq, producer, is_closing = seq_of(headers), producer_of(headers), wants_end(headers)
        body = await self._body(request)
        post = Post(headers.get("content-type") if body else None, seq, producer, is_closing)
        if not body and not is_closing:
            raise Problem("invalid", "the body is empty; with Stream-Closed: true that closes the stream")
        if body and not post.content_type:
            raise Problem("invalid", "Content-Type is missing")

        def parse(note: Note, room: str) -> Said:
            return parse_body(body, note, room)

        done = await streams.forks.append(id_, post, parse)
        return written(done, 200 if body and producer is not None and done.is_new else 204)

    async def _body(self, request: Request) -> bytes:
        """The body of a request, as far as a message may go.

        Raises:
            Problem: it is larger.
            ClientDisconnect: the client has gone.
        """
        most = self._settings.max_message_size
        said = request.headers.get("content-length", "")
        if said.isdigit() and int(said) > most:
            raise Problem("large", f"a request has at most {most} bytes (WS_MAX_MESSAGE_SIZE)")
        body = bytearray()
        async with asyncio.timeout(self._settings.message_timeout or None):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise Problem("large", f"a request has at most {most} bytes (WS_MAX_MESSAGE_SIZE)")
        return bytes(body)


async def _same_fork(streams: Streams, id_: str, room: str | None, wanted: Wanted, source: str) -> Appended | None:
    """The fork that is asked for, where it is there already, though what it begins with may be no more.

    Raises:
        Problem: it is there, and otherwise than it is asked for.
    """
    try:
        found = await streams.forks.find(id_)
    except Problem:
        return None
    if found.note is None or found.note.meta.source != source:
        return None
    meta = msgspec.structs.replace(wanted.forked(found, found.note.meta.forked_at), source=source)
    room = streams.kept.room_of(found) if room is None else room
    return streams.durable.same(found, room, meta, is_closed=wanted.is_closed)


def _source_of(source: str, id_: str, request: Request) -> str:
    """The id of the stream that a new one begins with: its path is that of the request, up to the id.

    Args:
        source: the path, or the address, of that stream.
        id_: of the new one.
        request: the one for it.

    Raises:
        Problem: it is that of something else.
    """
    scope = request.scope
    asked = [scope.get("root_path", "").rstrip("/") + route_path(scope)]
    asked.append(unquote(scope.get("raw_path", b"").decode("latin-1")))  # as some proxies, and mounts, cut the other
    with contextlib.suppress(ValueError):  # no address at all
        there = urlsplit(source)
        path = unquote(there.path)
        is_here = not there.scheme and not there.netloc
        if not is_here and (origin := Origin.parse(f"{there.scheme}://{there.netloc}")) is not None:
            is_here = is_same_origin(origin, request.headers.getlist("host"))
        for own in asked:
            before = own.removesuffix(id_)
            if is_here and before != own and path.startswith(before):
                found = path.removeprefix(before)
                if 0 < len(found) <= MAX_NAME_LENGTH and "\0" not in found:
                    return found
    raise Problem("invalid", "Stream-Forked-From is the path of a stream, which is that of the request up to the id")


def _created(done: Appended, wanted: Wanted, request: Request) -> Response:
    created = written(done, 201 if done.is_new else 200)
    note = done.found.note
    created.headers["content-type"] = wanted.type or ("" if note is None else note.meta.type)
    if done.is_new:
        created.headers["location"] = _address_of(request)
    return created


def _address_of(request: Request) -> str:
    """Where a request was sent, without its query; its path is encoded again, as an id may have any characters."""
    base = request.base_url
    return f"{base.scheme}://{base.netloc}{quote(request.scope['path'])}"


@contextlib.contextmanager
def as_problem() -> Iterator[None]:
    """Let a name that cannot be one be the request's fault."""
    try:
        yield
    except InvalidNameError as error:
        raise Problem("invalid", str(error)) from None


def one(request: Request, name: str) -> str | None:
    """A parameter of the query.

    Raises:
        Problem: it comes twice.
    """
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise Problem("invalid", f"{name} comes once")
    return values[0] if values else None
