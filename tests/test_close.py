"""Close codes: their names, who comes back after them, and which may be sent, with which reasons."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velocity_ws.close import Close, CloseCode, may_reconnect
from velocity_ws.errors import InvalidCloseError, validate_close

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
