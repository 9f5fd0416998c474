"""Close codes: their names, who comes back after them, and which may be sent, with which reasons."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velocity_ws import close
from velocity_ws.close import Close, CloseCode, Goodbye, may_reconnect, problem_of_close
from velocity_ws.errors import InvalidCloseError, validate_close
from velocity_ws.messages.events import ANSWERS

SOURCE = Path(close.__file__).parent
COME_BACK: dict[str, Goodbye] = {
    "SHUTTING_DOWN": close.SHUTTING_DOWN,
    "SETUP_FAILED": close.SETUP_FAILED,
    "HANDLING_FAILED": close.HANDLING_FAILED,
    "APPLICATION_FAILED": close.APPLICATION_FAILED,
    "TOO_SLOW": close.TOO_SLOW,
    "TOO_MUCH_UNFINISHED": close.TOO_MUCH_UNFINISHED,
    "PING_TIMEOUT": close.PING_TIMEOUT,
    "restarting": close.restarting(1012, 2.5),
}
STAY_AWAY: dict[str, Goodbye] = {
    "APPLICATION_RETURNED": close.APPLICATION_RETURNED,
    "TOO_BIG": close.TOO_BIG,
    "TOO_MANY_MESSAGES": close.TOO_MANY_MESSAGES,
    "TOO_MANY_FRAGMENTS": close.TOO_MANY_FRAGMENTS,
    "TOO_MANY_PINGS": close.TOO_MANY_PINGS,
    "SESSION_EXPIRED": close.SESSION_EXPIRED,
    "INVALID_UTF8": close.INVALID_UTF8,
    "slow_message": close.slow_message(60.0),
    "wrong_frame": close.wrong_frame("invalid opcode"),
    "refused": close.refused("origin not allowed"),
}
NOT_OURS = {
    "LOST",
    "MAX_REASON_BYTES",
    "SENDABLE",
    "Close",
    "CloseCode",
    "Goodbye",
    "may_reconnect",
    "problem_of_close",
}

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
    4100: "PAGE_FROZEN",
}


def test_close_codes_have_the_names_of_the_registry_and_one_is_ours() -> None:
    assert {int(code): code.name for code in CloseCode} == NAMES


@pytest.mark.parametrize("code", [1001, 1005, 1006, 1011, 1012, 1013, 1014, 1015, 3000, 4000, 4100, 4399, 4500, 4999])
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


# --- what we close with ourselves


def in_browser(name: str) -> set[str]:
    """The members of a set that the browser client declares, as they are written."""
    found = re.search(
        rf"^const {name} = new Set\(\[(.*)\]\);", (SOURCE / "browser/velocity.js").read_text(), re.MULTILINE
    )
    assert found is not None
    return {member.strip().strip('"') for member in found[1].split(",")}


def test_every_close_says_whether_to_come_back() -> None:
    assert set(close.__all__) - NOT_OURS == COME_BACK.keys() | STAY_AWAY.keys()


@pytest.mark.parametrize("name", [*COME_BACK, *STAY_AWAY])
def test_a_close_may_be_sent_and_the_code_tells_whether_to_come_back(name: str) -> None:
    code, reason = {**COME_BACK, **STAY_AWAY}[name]
    assert problem_of_close(code, reason) is None
    assert may_reconnect(code) is (name in COME_BACK)


def test_no_other_module_has_a_close_of_its_own() -> None:
    written = re.compile(r"""CloseCode\.\w+, (?:f?"|reason|problem)""")
    elsewhere = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        if path != Path(close.__file__)
        for line in path.read_text().splitlines()
        if written.search(line) and "Close(" not in line
    ]
    assert not elsewhere


def test_the_browser_client_stays_away_after_the_same_codes() -> None:
    assert in_browser("FINAL") == {str(int(code)) for code in CloseCode if not may_reconnect(code)}


def test_the_browser_client_reads_the_hint_of_every_close_that_has_one() -> None:
    for code in (1001, 1012):  # those that WS_RESTART_CODE can be
        assert str(close.restarting(code, 1)[0]) in in_browser("COME_BACK")
    hint = re.search(r"^const HINT = /(.*)/;", (SOURCE / "browser/velocity.js").read_text(), re.MULTILINE)
    assert hint is not None
    seconds = re.search(hint[1], close.restarting(1012, 2.5)[1])
    assert seconds is not None
    assert float(seconds[1]) == 2.5


def test_the_browser_client_closes_with_the_code_that_the_server_knows() -> None:
    source = (SOURCE / "browser/velocity.js").read_text()
    assert f"const PAGE_FROZEN = {int(CloseCode.PAGE_FROZEN)};" in source


def test_the_browser_client_takes_the_same_events_for_answers() -> None:
    assert in_browser("ANSWERS") == ANSWERS
