"""Web errors: what the exceptions of web frameworks, raised in hooks, are here. Knows no client, and tells nobody."""

from __future__ import annotations

import http
import json
from typing import Any, TypeGuard

from starlette.exceptions import HTTPException, WebSocketException

from velocity_ws.close import MAX_REASON_BYTES
from velocity_ws.errors import BackplaneUnavailable, ClientError, HistoryError, Reject
from velocity_ws.hooks.validation import InvalidHandshakeError
from velocity_ws.stream_errors import StreamError, StreamGone, StreamNotFound

__all__ = ["CODES", "client_error_of", "goodbye_of", "is_unavailable", "reject_of", "unavailable"]

CODES = {
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "CONFLICT",
    422: "INVALID_DATA",
    429: "RATE_LIMITED",
}
"""What an error is called that a handler answers with this status; others are ``HTTP_<status>``."""
RETRY_AFTER = 1.0
"""Seconds after which a client may try again what the engine was needed for."""
POLICY_VIOLATION = 1008
"""What FastAPI's documentation closes with where a dependency lets nobody in."""


def client_error_of(error: BaseException) -> ClientError | None:
    """What a client is answered that its message has led to an exception; ``None`` where the server has failed.

    Every hook that can raise `ClientError` can raise `Reject`, and ``HTTPException`` of Starlette, which is FastAPI's
    too, and depend on what does.

    Args:
        error: what a hook, or a dependency of it, has raised.
    """
    if isinstance(error, ClientError):
        return error
    if isinstance(error, Reject):  # of a function that serves `authenticate`, too
        status = error.status if error.code is None else error.code - 4000  # 4401 is what 401 is in HTTP
        return ClientError(CODES.get(status, "FORBIDDEN"), error.reason)
    if _is_answer(error):
        code = CODES.get(error.status_code, f"HTTP_{error.status_code}")
        detail: Any = error.detail
        if isinstance(detail, str):
            return ClientError(code, detail)
        return ClientError(code, _phrase(error.status_code), detail=detail)
    if isinstance(error, InvalidHandshakeError):
        return ClientError("INVALID_DATA", str(error), details=error.details)
    if isinstance(error, HistoryError) and error.reason is not None:  # without one the application is at fault
        return ClientError("INVALID_DATA", str(error), reason=error.reason)
    if isinstance(error, StreamError):  # as the id of a stream is often what a client has sent
        return ClientError(_code_of(error), str(error))
    if isinstance(error, WebSocketException) and error.code == POLICY_VIOLATION:
        return ClientError("FORBIDDEN", error.reason)
    return None


def _code_of(error: StreamError) -> str:
    if isinstance(error, StreamGone):
        return "GONE"
    return "NOT_FOUND" if isinstance(error, StreamNotFound) else "CONFLICT"


def is_unavailable(error: BaseException) -> bool:
    """Whether an exception says only that the engine, or other nodes, did not answer: no fault of the hook's code."""
    if isinstance(error, BaseExceptionGroup):  # of tasks that the hook has started
        return all(is_unavailable(each) for each in error.exceptions)
    return isinstance(error, BackplaneUnavailable)


def unavailable(what: str) -> ClientError:
    """What a client is answered where the engine, or other nodes, did not answer: what cannot be had now."""
    return ClientError("UNAVAILABLE", f"{what} now: try again", retry_after=RETRY_AFTER)


def reject_of(error: BaseException) -> Reject | None:
    """How a handshake is refused that has led to an exception; ``None`` where the server has failed.

    Args:
        error: what an ``authenticate`` hook, or a dependency of it, has raised.
    """
    if isinstance(error, Reject):
        return error
    if _is_answer(error):
        status = error.status_code if 400 <= error.status_code <= 599 else 403  # a redirect, which nobody follows
        return Reject(_text(error.detail), status=status, headers=error.headers)
    if isinstance(error, InvalidHandshakeError):
        return Reject(str(error), status=422)
    if isinstance(error, HistoryError) and error.reason is not None:
        return Reject(str(error), status=422)
    if isinstance(error, WebSocketException):
        code = error.code if 4000 <= error.code <= 4999 else None
        return Reject(_short(error.reason), code=code)
    return None


def goodbye_of(error: BaseException) -> tuple[int, str] | None:
    """With which code and reason a client is closed that ``on_connect`` does not want; ``None`` where that has failed.

    A status is told as 4000 and the status, so that a script in a browser can read it: 4401, 4403.
    """
    if isinstance(error, Reject):
        return error.code or 4000 + error.status, _short(error.reason)
    if _is_answer(error) and 400 <= error.status_code <= 599:
        return 4000 + error.status_code, _short(_text(error.detail))
    return None


def _is_answer(error: BaseException) -> TypeGuard[HTTPException]:
    """Whether it is an ``HTTPException`` with a status: one made of a string is a fault of the application."""
    return isinstance(error, HTTPException) and isinstance(error.status_code, int)


def _text(detail: Any) -> str:
    if isinstance(detail, str):
        return detail
    try:
        return json.dumps(detail, default=str)
    except (TypeError, ValueError, RecursionError):  # keys that are no text, or it holds itself
        return repr(detail)


def _short(reason: str) -> str:
    return reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""
