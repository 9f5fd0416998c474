"""Accept: which times a login can end at, and which headers can go out with the answer to a handshake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from starlette.responses import Response

from velocity_ws import Accept, InvalidExpiryError, InvalidHeaderError, VelocityError

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
FAR_EAST, FAR_WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, None),
        (NOON, NOON),
        (NOON.astimezone(FAR_EAST), NOON),
        (int(NOON.timestamp()), NOON),
        (NOON.timestamp() + 0.25, NOON + timedelta(milliseconds=250)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (253_402_300_799, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
        (datetime.max.replace(tzinfo=FAR_WEST), datetime.max.replace(tzinfo=UTC)),
        (datetime.min.replace(tzinfo=FAR_EAST), datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_a_login_ends_at_an_aware_datetime_or_at_unix_seconds(given: Any, meant: datetime | None) -> None:
    found = Accept("ann", expires_at=given).expires_at
    assert found == meant
    assert found is None or found.tzinfo is UTC


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (NOON.replace(tzinfo=None), "no time zone"),
        (True, "aware datetime, or Unix seconds"),
        ("2030-01-01", "aware datetime, or Unix seconds"),
        (timedelta(minutes=5), "aware datetime, or Unix seconds"),
        (-1, "between 1970 and the year 9999"),
        (float("nan"), "between 1970 and the year 9999"),
        (float("-inf"), "between 1970 and the year 9999"),
        (float("inf"), "between 1970 and the year 9999"),
        (10**400, "between 1970 and the year 9999"),
        (1_900_000_000_000, "milliseconds"),
    ],
)
def test_any_other_end_is_refused_where_it_is_said(given: Any, said: str) -> None:
    with pytest.raises(InvalidExpiryError, match=said) as caught:
        Accept("ann", expires_at=given)
    assert isinstance(caught.value, VelocityError)
    assert isinstance(caught.value, ValueError)


def test_the_login_of_nobody_does_not_end() -> None:
    with pytest.raises(InvalidExpiryError, match="none without a user"):
        Accept(None, expires_at=NOON)
    assert Accept(None).user is None


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({}, []),
        ({"X-Trace": " a b\t"}, [(b"x-trace", b"a b")]),
        ([("Set-Cookie", "a=1"), (b"set-cookie", b"b=\xe9")], [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=\xe9")]),
        (iter([("X", "é")]), [(b"x", b"\xe9")]),
        ({"content-length": "0", "Server": "x"}, [(b"server", b"x")]),
    ],
)
def test_headers_are_a_mapping_or_pairs(given: Any, sent: list[tuple[bytes, bytes]]) -> None:
    assert Accept("ann", headers=given).headers == sent


def test_the_headers_of_a_response_are_taken_with_all_of_its_cookies() -> None:
    response = Response()
    response.set_cookie("a", "1", httponly=True)
    response.set_cookie("b", "2")
    response.delete_cookie("c")
    names = [name for name, _ in Accept("ann", headers=response.headers).headers]
    assert names == [b"set-cookie"] * 3


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([("x", "a\r\nset-cookie: stolen=1")], "break out"),
        ([("x", "a\nb")], "break out"),
        ([("x", "a\x00b")], "break out"),
        ([("x y", "a")], "break out"),
        ([("x:", "a")], "break out"),
        ([("", "a")], "break out"),
        ([("x\r\ny", "a")], "break out"),
        ([("é", "a")], "break out"),
        ([("x", "€")], "characters that no header can"),
        ({"Sec-WebSocket-Protocol": "v2"}, "belongs to the handshake"),
        ({"sec-websocket-accept": "x"}, "belongs to the handshake"),
        ({"Upgrade": "h2c"}, "belongs to the handshake"),
        ({"CONNECTION": "close"}, "belongs to the handshake"),
        ({"transfer-encoding": "chunked"}, "belongs to the handshake"),
        ({"x": 5}, "each of them text"),
        (["x: a"], "each of them text"),
        ("x", "each of them text"),
        ([("x", "a", "b")], "each of them text"),
    ],
)
def test_what_is_no_header_of_ones_own_is_refused_where_it_is_said(headers: Any, said: str) -> None:
    with pytest.raises(InvalidHeaderError, match=said) as caught:
        Accept("ann", headers=headers)
    assert "stolen" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("subprotocol", ["", "a b", "a\r\nb", "a,b", "é", 5])
def test_what_is_no_subprotocol_is_refused(subprotocol: Any) -> None:
    with pytest.raises(InvalidHeaderError, match="a subprotocol is"):
        Accept("ann", subprotocol=subprotocol)


def test_it_shows_neither_user_nor_cookie() -> None:
    accept = Accept({"secret": "s3cret"}, NOON, "v2", {"set-cookie": "s3cret"})
    assert "s3cret" not in repr(accept)
    assert (accept.subprotocol, accept.expires_at) == ("v2", NOON)
