"""Stream answers: the responses that have nothing of a stream but how it is, or why a request is not done.

Source: the Durable Streams protocol, 5 (https://github.com/durable-streams/durable-streams).
"""

from __future__ import annotations

from typing import Final

from starlette.responses import JSONResponse, Response

from velocity_ws.asgi.stream_forms import offset_of, tag_of
from velocity_ws.errors import BackplaneUnavailable, BrokerError, ClientError, Reject, SettingsError
from velocity_ws.logs import get_logger
from velocity_ws.sessions.web_errors import CODES
from velocity_ws.stream_errors import StreamGone, StreamNotFound
from velocity_ws.streams.items import End
from velocity_ws.streams.requests import Appended, Found, Problem

__all__ = ["NO_STORE", "code_of", "error_of", "headers_of", "metadata", "refusal_of", "written"]

log = get_logger("velocity_ws.asgi")

NO_STORE: Final = "no-store"
STATUSES: Final = {
    "missing": 404, "gone": 410, "conflict": 409, "closed": 409, "invalid": 400, "large": 413, "stale": 403,
    "hole": 409, "fixed": 405,
}  # fmt: skip


def headers_of(end: End) -> dict[str, str]:
    """The headers that say that a stream is closed, and how it ended, which the protocol leaves open."""
    return {"stream-closed": "true", "stream-end": end} if end else {}


def metadata(found: Found, content_type: str) -> Response:
    """The answer to a HEAD."""
    headers = {
        "content-type": content_type,
        "cache-control": NO_STORE,
        "stream-next-offset": offset_of(found.stream.length, tag_of(found)),
    }
    if found.note is not None:
        meta = found.note.meta
        if meta.ttl is not None:
            headers["stream-ttl"] = str(meta.ttl)
        if meta.expires_at:
            headers["stream-expires-at"] = meta.expires_at
    response = Response(headers=headers | headers_of(found.stream.end))
    del response.headers["content-length"]  # it would be that of a GET: RFC 9110, 8.6
    return response


def written(done: Appended, status: int) -> Response:
    """The answer to what was written."""
    found = done.found
    headers = {"stream-next-offset": offset_of(found.stream.length, tag_of(found)), "cache-control": NO_STORE}
    headers |= headers_of(found.stream.end)
    if done.producer is not None:
        headers |= {"producer-epoch": str(done.producer.epoch), "producer-seq": str(done.producer.seq)}
    return Response(status_code=status, headers=headers)


def _answer_to(problem: Problem) -> Response:
    code = "NOT_FOUND" if problem.why == "missing" else problem.why.upper()
    response = error_of(STATUSES[problem.why], code, str(problem))
    found, producer = problem.found, problem.producer
    if problem.why == "closed" and found is not None:
        response.headers.update(headers_of(found.stream.end))
        response.headers["stream-next-offset"] = offset_of(found.stream.length, tag_of(found))
    if problem.why == "fixed":
        response.headers["allow"] = "GET, HEAD, OPTIONS"
    if producer is not None and problem.why == "stale":
        response.headers["producer-epoch"] = str(producer.epoch)
    if producer is not None and problem.why == "hole":
        response.headers["producer-expected-seq"] = str(producer.seq)
        if problem.received is not None:
            response.headers["producer-received-seq"] = str(problem.received.seq)
    return response


def code_of(status: int) -> str:
    """What an error is called of which nothing but the status is known; as in answers to messages."""
    return CODES.get(status) or ("INTERNAL_ERROR" if status == 500 else f"HTTP_{status}")


def error_of(status: int, code: str, message: str) -> Response:
    """An answer that says what is wrong."""
    return JSONResponse({"code": code, "message": message}, status, {"cache-control": NO_STORE})


def refusal_of(error: Exception) -> Response:
    """The answer to a request that was not done, whatever it was that was raised.

    Raises:
        Exception: the same, where nobody expects it.
    """
    if isinstance(error, Problem):
        return _answer_to(error)
    if isinstance(error, Reject):
        status = error.status if error.code is None else (401 if error.code == 4401 else 403)
        response = error_of(status, code_of(status), error.reason or "refused")
        response.headers.update(error.headers)
    elif isinstance(error, ClientError):
        response = error_of(500, error.code, error.message)
    elif isinstance(error, SettingsError):
        log.warning("a request for a stream was not done: %s", error)
        response = error_of(501, "UNSUPPORTED", "the engine of this server keeps no streams")
    elif isinstance(error, StreamNotFound | StreamGone):
        response = error_of(404, "NOT_FOUND", "there is no such stream")
    elif isinstance(error, BackplaneUnavailable | BrokerError):
        log.debug("a request for a stream was not done: %s", error)
        response = error_of(503, "UNAVAILABLE", "streams cannot be had now: try again")
        response.headers["retry-after"] = "1"
    elif isinstance(error, TimeoutError):
        response = error_of(408, "TIMEOUT", "the body did not come within WS_MESSAGE_TIMEOUT")
    else:
        raise error
    return response
