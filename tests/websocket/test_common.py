"""What many handshakes have in common is one object, and nothing else is changed or kept."""

from __future__ import annotations

from velocity_ws.websocket.common import MAX_KNOWN, MAX_SIZE, Common, CommonHeaders


def headers(*pairs: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """Headers as a parser gives them: new objects, and equal ones."""
    return [(name.encode(), value.encode()) for name, value in pairs]


BROWSER = (("host", "example.com"), ("user-agent", "Mozilla/5.0"), ("sec-websocket-key", "x" * 24), ("cookie", "id=1"))


def test_equal_values_are_one_object() -> None:
    common: Common[str] = Common()
    first = common.of(str(10**9))
    assert common.of(str(10**9)) is first


def test_strangers_cannot_fill_it() -> None:
    common: Common[int] = Common()
    for number in range(MAX_KNOWN * 3):
        assert common.of(number) == number
        assert len(common._known) <= MAX_KNOWN


def test_what_browsers_send_alike_is_one_object_and_secrets_are_not_kept() -> None:
    common = CommonHeaders()
    first, second = (common.of_all(headers(*BROWSER)) for _ in range(2))
    assert first == second == headers(*BROWSER)
    assert [one is other for one, other in zip(first, second, strict=True)] == [True, True, False, False]
    assert {name for name, _ in common._known} == {b"host", b"user-agent"}


def test_a_request_keeps_its_order_and_its_repetitions() -> None:
    pairs = (("x-a", "1"), ("origin", "http://b"), ("x-a", "1"), ("origin", "http://a"), ("origin", "http://b"))
    assert CommonHeaders().of_all(headers(*pairs)) == headers(*pairs)


def test_a_long_header_is_not_kept() -> None:
    common = CommonHeaders()
    long = headers(("user-agent", "x" * (MAX_SIZE + 1)))
    assert common.of_all(long) == long
    assert not common._known
