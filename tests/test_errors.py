"""Errors and close codes: what is promised of them, and that they tell what to do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import velocity_ws
from velocity_ws import errors
from velocity_ws.close import Close, CloseCode, may_reconnect
from velocity_ws.errors import (
    BackplaneUnavailable,
    BrokerError,
    ClientError,
    ClientGone,
    ClientIdError,
    ClientNotFound,
    ClientTimeout,
    EncodeError,
    HookError,
    InvalidCloseError,
    InvalidNameError,
    InvalidPathError,
    Reject,
    ServerError,
    SettingsError,
    VelocityError,
    WouldDeadlockError,
    validate_close,
)

BUILTIN: dict[type[VelocityError], type[Exception]] = {
    BackplaneUnavailable: ConnectionError,
    BrokerError: RuntimeError,
    ClientError: Exception,
    ClientGone: ConnectionError,
    ClientIdError: TypeError,
    ClientNotFound: LookupError,
    ClientTimeout: TimeoutError,
    EncodeError: TypeError,
    HookError: TypeError,
    InvalidCloseError: ValueError,
    InvalidNameError: ValueError,
    InvalidPathError: ValueError,
    Reject: Exception,
    ServerError: RuntimeError,
    SettingsError: ValueError,
    WouldDeadlockError: BrokerError,
}


# --- the tree


def test_every_public_exception_is_in_the_tree() -> None:
    public = [getattr(velocity_ws, name) for name in velocity_ws.__all__]
    exceptions = {thing for thing in public if isinstance(thing, type) and issubclass(thing, BaseException)}
    assert exceptions == {VelocityError, *BUILTIN}
    defined = {thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)}
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


# --- close codes

NAMES = {
    1000: "NORMAL",
    1001: "GOING_AWAY",
    1002: "PROTOCOL_ERROR",
    1003: "UNSUPPORTED_DATA",
    1005: "NO_STATUS",
    1006: "ABNORMAL",
    1007: "INVALID_PAYLOAD",
    1008: "POLICY_VIOLATION",
    1009: "MESSAGE_TOO_BIG",
    1010: "MISSING_EXTENSION",
    1011: "INTERNAL_ERROR",
    1012: "SERVICE_RESTART",
    1013: "TRY_AGAIN_LATER",
    1014: "BAD_GATEWAY",
}


def test_close_codes_have_the_names_of_the_registry() -> None:
    assert {int(code): code.name for code in CloseCode} == NAMES


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 3000, 4000, 4399, 4500, 4999])
def test_come_back(code: int) -> None:
    assert may_reconnect(code)


@pytest.mark.parametrize("code", [1000, 1002, 1003, 1007, 1008, 1009, 1010, 4400, 4401, 4403, 4429, 4499])
def test_do_not_come_back(code: int) -> None:
    assert not may_reconnect(code)


def test_close_is_frozen() -> None:
    close = Close(1000, "bye", "client")
    assert (close.code, close.reason, close.by) == (1000, "bye", "client")
    with pytest.raises(AttributeError):
        close.code = 1001  # type: ignore[misc] # what mypy says is what this test shows


# --- validate_close

SENDABLE = {*range(1000, 1015), *range(3000, 5000)} - {1004, 1005, 1006}


def test_which_codes_may_be_sent() -> None:
    allowed = set()
    for code in range(-10, 5100):
        try:
            validate_close(code, "")
        except InvalidCloseError as error:
            assert str(code) in str(error)  # noqa: PT017 - one of 5110
        else:
            allowed.add(code)
    assert allowed == SENDABLE


@pytest.mark.parametrize("code", [True, False, None, 1000.0, "1000", 10**30])
def test_what_is_no_code(code: Any) -> None:
    with pytest.raises(InvalidCloseError):
        validate_close(code, "")


def test_an_enum_member_is_a_code() -> None:
    validate_close(CloseCode.GOING_AWAY, "bye")


@pytest.mark.parametrize("reason", ["", "x" * 123, "é" * 61, "é" * 61 + "x", "😀" * 30 + "abc", "\x00"])
def test_reason_that_fits(reason: str) -> None:
    validate_close(1000, reason)


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62, "😀" * 31, "x" * 122 + "é"])
def test_reason_too_long(reason: str) -> None:
    with pytest.raises(InvalidCloseError, match=f"at most 123 bytes of UTF-8, this one {len(reason.encode())}"):
        validate_close(1000, reason)


@pytest.mark.parametrize("reason", ["\ud800", "x\udfff", "\ude00\ud83d"])
def test_reason_with_a_lone_surrogate(reason: str) -> None:
    with pytest.raises(InvalidCloseError, match="surrogate"):
        validate_close(1000, reason)


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=20, max_size=130))
def test_a_reason_passes_if_and_only_if_it_fits_into_a_frame(reason: str) -> None:
    if len(reason.encode()) <= 123:
        validate_close(1000, reason)
    else:
        with pytest.raises(InvalidCloseError):
            validate_close(1000, reason)
