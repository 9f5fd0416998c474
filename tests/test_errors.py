"""Errors: what is promised of them, and that they tell what to do."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

import velocity_ws
from velocity_ws import errors, stream_errors
from velocity_ws.errors import (
    BackplaneUnavailable,
    BrokerError,
    ClientError,
    ClientGone,
    ClientIdError,
    ClientNotFound,
    ClientTimeout,
    EncodeError,
    HistoryError,
    HookError,
    InvalidCloseError,
    InvalidExpiryError,
    InvalidHeaderError,
    InvalidNameError,
    InvalidPathError,
    LoginExpired,
    Reject,
    ServerError,
    SettingsError,
    UpstreamError,
    VelocityError,
    WouldDeadlockError,
)
from velocity_ws.stream_errors import StreamEnded, StreamError, StreamGone, StreamNotFound, StreamTooLarge

BUILTIN: dict[type[VelocityError], type[Exception]] = {
    BackplaneUnavailable: ConnectionError,
    BrokerError: RuntimeError,
    ClientError: Exception,
    ClientGone: ConnectionError,
    ClientIdError: TypeError,
    ClientNotFound: LookupError,
    ClientTimeout: TimeoutError,
    EncodeError: TypeError,
    HistoryError: ValueError,
    HookError: TypeError,
    InvalidCloseError: ValueError,
    InvalidExpiryError: ValueError,
    InvalidHeaderError: ValueError,
    InvalidNameError: ValueError,
    InvalidPathError: ValueError,
    LoginExpired: ClientError,
    Reject: Exception,
    ServerError: RuntimeError,
    SettingsError: ValueError,
    StreamEnded: RuntimeError,
    StreamError: Exception,
    StreamGone: LookupError,
    StreamNotFound: LookupError,
    StreamTooLarge: ValueError,
    UpstreamError: RuntimeError,
    WouldDeadlockError: BrokerError,
}


# --- the tree


def test_every_public_exception_is_in_the_tree() -> None:
    public = [getattr(velocity_ws, name) for name in velocity_ws.__all__]
    exceptions = {thing for thing in public if isinstance(thing, type) and issubclass(thing, BaseException)}
    assert exceptions == {VelocityError, *BUILTIN}
    things = [*vars(errors).values(), *vars(stream_errors).values()]
    defined = {thing for thing in things if isinstance(thing, type) and issubclass(thing, Exception)}
    assert defined == exceptions, "what can be raised can be imported from the package"


@pytest.mark.parametrize(("exception", "builtin"), BUILTIN.items())
def test_each_is_ours_and_the_builtin_that_is_expected(exception: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(exception, VelocityError)
    assert issubclass(exception, builtin)


def test_settings_error_names_every_problem() -> None:
    error = SettingsError({"WS_PORT": "too high", "WS_PATH": "not a path"})
    assert error.problems == {"WS_PORT": "too high", "WS_PATH": "not a path"}
    assert "WS_PORT: too high" in str(error)
    assert "WS_PATH: not a path" in str(error)


def test_encode_error_names_the_event_and_what_can_be_sent() -> None:
    error = EncodeError("price", "a set has no order")
    assert error.event == "price"
    for part in ("'price'", "a set has no order", "pydantic model", "datetime"):
        assert part in str(error)


def test_client_not_found_names_the_client_and_what_to_do() -> None:
    error = ClientNotFound("abc")
    assert error.client_id == "abc"
    # A KeyError would show the repr of its text.
    assert str(error).startswith("no client 'abc' is connected")
    assert "is_connected" in str(error)


@pytest.mark.parametrize("kind", [StreamEnded, StreamGone, StreamNotFound, StreamTooLarge])
def test_each_error_about_a_stream_is_a_stream_error(kind: type[StreamError]) -> None:
    assert issubclass(kind, StreamError)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StreamNotFound("a"), "check the id"),
        (StreamGone("a"), "WS_STREAM_TTL"),
        (StreamEnded("a", "lost"), "(lost)"),
        (StreamTooLarge("a", 1024), "1024 bytes (WS_STREAM_MAX_SIZE)"),
        (StreamTooLarge("a", 1024, is_item=True), "an item of more than 1024 bytes"),
    ],
)
def test_an_error_about_a_stream_names_it_and_what_to_do(error: StreamError, told: str) -> None:
    assert error.stream_id == "a"
    assert str(error).startswith("stream 'a' ")
    assert told in str(error)
    assert len(str(StreamGone("\x00" * 256))) < 500


# --- Reject


def test_reject_is_forbidden_by_default() -> None:
    reject = Reject()
    assert (reject.reason, reject.status, reject.code) == ("", 403, None)
    assert "403" in str(reject)


def test_reject_with_a_status() -> None:
    reject = Reject("token expired", 401)
    assert (reject.reason, reject.status, reject.code) == ("token expired", 401, None)
    assert str(reject) == "token expired"
    assert Reject("token expired", status=401).status == 401


def test_reject_with_a_close_code() -> None:
    reject = Reject("token expired", code=4401)
    assert (reject.reason, reject.code) == ("token expired", 4401)
    assert "4401" in str(Reject(code=4401))


@pytest.mark.parametrize("status", [400, 401, 403, 429, 503, 599])
def test_a_refusal_is_an_error_status(status: int) -> None:
    assert Reject(status=status).status == status


@pytest.mark.parametrize("status", [-1, 0, 100, 101, 200, 302, 399, 600, 4401])
def test_no_other_status_refuses(status: int) -> None:
    with pytest.raises(InvalidCloseError, match="from 400 to 599"):
        Reject(status=status)


@pytest.mark.parametrize("code", [999, 1005, 1006, 1015, 2000, 5000])
def test_reject_checks_the_code_where_it_is_written(code: int) -> None:
    with pytest.raises(InvalidCloseError, match=str(code)):
        Reject(code=code)


def test_reject_checks_the_reason_where_it_is_written() -> None:
    with pytest.raises(InvalidCloseError, match="123"):
        Reject("x" * 124, code=4401)
    # The body of a response has no such limit.
    assert Reject("x" * 124).reason == "x" * 124


# --- ClientError


def test_client_error() -> None:
    error = ClientError("UNAUTHORIZED", "log in first", login="/login")
    assert (error.code, error.message, error.details) == ("UNAUTHORIZED", "log in first", {"login": "/login"})
    assert str(error) == "UNAUTHORIZED: log in first"


def test_client_error_with_a_code_alone() -> None:
    error = ClientError("BUSY")
    assert (error.code, error.message, error.details) == ("BUSY", "", {})
    assert str(error) == "BUSY"


def test_details_may_have_any_name() -> None:
    error = ClientError("A", "b", code="x", message="y", self="z")
    assert (error.code, error.message) == ("A", "b")
    assert error.details == {"code": "x", "message": "y", "self": "z"}


# --- copies, as process pools and task queues make them

SAMPLES: list[VelocityError] = [
    BackplaneUnavailable("the engine is away", "unknown"),
    BrokerError("it is not running"),
    ClientError("CODE", "why", field=1),
    ClientGone("a.b"),
    ClientIdError("to_client(client_id)", object),
    ClientNotFound("a.b"),
    ClientTimeout("a.b", 2.5),
    EncodeError("chat", "it holds itself"),
    UpstreamError("the model has failed"),
    HistoryError("the room has no history", "evicted"),
    HookError("not a hook"),
    InvalidCloseError("not a code"),
    InvalidExpiryError("not a time"),
    InvalidHeaderError("not a header"),
    InvalidNameError("not a name"),
    InvalidPathError("not a path"),
    LoginExpired(2.5),
    Reject("no", code=4401),
    ServerError("the port is taken"),
    SettingsError({"WS_PORT": "not a port"}),
    StreamEnded("a", "done"),
    StreamError("a", "is another's"),
    StreamGone("a"),
    StreamNotFound("a"),
    StreamTooLarge("a", 1024),
    VelocityError("anything"),
    WouldDeadlockError("here"),
]


def test_each_exception_has_a_sample() -> None:
    assert {type(error) for error in SAMPLES} == {VelocityError, *BUILTIN}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_a_copy_says_and_carries_the_same(error: VelocityError, duplicate: Callable[[VelocityError], object]) -> None:
    again = duplicate(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
