"""Headers: what an application may not add to the answer of a handshake."""

from __future__ import annotations

import pytest

from velocity_ws.headers import is_token, problem_of_header


@pytest.mark.parametrize(
    ("name", "value"), [("x-trace", ""), ("set-cookie", "a=b; Path=/"), ("x!#$%&'*+-.^_`|~1", "a\tb"), ("x", "café")]
)
def test_what_can_be_sent(name: str, value: str) -> None:
    assert problem_of_header(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("", "a", "break out"),
        ("a b", "a", "break out"),
        ("é", "a", "break out"),
        ("x", "a\r\nset-cookie: b", "break out"),
        ("x", "a\0", "break out"),
        ("upgrade", "h2c", "belongs to the handshake"),
        ("sec-websocket-accept", "a", "belongs to the handshake"),
        ("x", "€", "quote them"),
    ],
)
def test_what_cannot(name: str, value: str, says: str) -> None:
    assert says in (problem_of_header(name, value) or "")


@pytest.mark.parametrize(
    ("text", "token"), [("chat.v2", True), ("", False), ("a,b", False), (None, False), ("é", False)]
)
def test_a_token(text: object, token: bool) -> None:
    assert is_token(text) == token
