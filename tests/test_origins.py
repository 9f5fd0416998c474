"""Origins: parsed and compared, never searched for in a text."""

from __future__ import annotations

import string
import time

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from velocity_ws.origins import Origin, OriginPattern, is_same_origin


def parsed(text: str) -> Origin:
    origin = Origin.parse(text)
    assert origin is not None, text
    return origin


label = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
host = st.lists(label, min_size=1, max_size=4).map(".".join)
scheme = st.sampled_from(["http", "https"])
port = st.integers(1, 65535)


# --- Origin.parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.com", ("https", "example.com", 443)),
        ("http://example.com", ("http", "example.com", 80)),
        ("https://example.com:443", ("https", "example.com", 443)),
        ("https://example.com:8443", ("https", "example.com", 8443)),
        ("HTTPS://Example.COM", ("https", "example.com", 443)),
        ("http://localhost:3000", ("http", "localhost", 3000)),
        ("http://127.0.0.1:1", ("http", "127.0.0.1", 1)),
        ("http://example.com:65535", ("http", "example.com", 65535)),
        ("http://[::1]:6001", ("http", "[::1]", 6001)),
        ("https://[2001:DB8::1]", ("https", "[2001:db8::1]", 443)),
        ("https://xn--bcher-kva.example", ("https", "xn--bcher-kva.example", 443)),
        ("https://my_host-1.example", ("https", "my_host-1.example", 443)),
        ("chrome-extension://abcdefgh", ("chrome-extension", "abcdefgh", None)),
        ("null", ("null", "", None)),
        ("file://", ("file", "", None)),
    ],
)
def test_parse(text: str, expected: tuple[str, str, int | None]) -> None:
    origin = parsed(text)
    assert (origin.scheme, origin.host, origin.port) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "NULL",
        "null://",
        "null://example.com:*",
        "*",
        "file:",
        "file:///",
        "file:///etc/passwd",
        "https://example.com:*",
        "https://",
        "example.com",
        "//example.com",
        "https:example.com",
        "https:/example.com",
        "://example.com",
        "https://example.com/",
        "https://example.com/path",
        "https://example.com?query",
        "https://example.com#fragment",
        "https://example.com\\evil.com",
        "https://example.com@evil.com",
        "https://user:password@evil.com",
        "https://example.com:80@evil.com",
        "https://*.example.com",
        "https://example.com https://evil.com",
        "https://example.com,https://evil.com",
        " https://example.com",
        "https://example.com ",
        "https://example.com\n",
        "https://example.com\r\nX-Evil: 1",
        "https://example.com\x00",
        "https://exam\tple.com",
        "https://exa%6dple.com",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com:99999999999",
        "https://example.com:-1",
        "https://example.com:+1",
        "https://example.com:1_0",
        "https://example.com:٨٠",
        "https://example.com:\uff18\uff10",  # full-width digits
        "https://ex\u0430mple.com",  # a Cyrillic a
        "https://bücher.example",
        "https://\u212aelvin.example",  # the Kelvin sign, a k in lower case
        "https://example。com",
        "https://::1",
        "https://[::1",
        "https://[::1]evil.com",
        "https://[]",
        "https://-example.com",
        "https://.example.com",
        "1https://example.com",
        "https://example.com:80:80",
    ],
)
def test_no_origin(text: str) -> None:
    assert Origin.parse(text) is None


@settings(max_examples=150, deadline=None)
@given(st.text() | st.text("htps:/.*@[]0123456789aé\n\x00\u212a"))
@example("https://example.com")
def test_whatever_is_an_origin_is_plain_ascii_and_nothing_is_lost(text: str) -> None:
    origin = Origin.parse(text)
    if origin is None or not origin.host:
        return
    assert text.isascii()
    assert text.isprintable()
    prefix = f"{origin.scheme}://{origin.host}"
    rest = text.lower().removeprefix(prefix)
    assert rest != text.lower()
    assert rest == "" or int(rest.removeprefix(":")) == origin.port


@settings(max_examples=80, deadline=None)
@given(scheme, host, st.none() | port)
def test_an_origin_keeps_its_parts(scheme: str, host: str, port: int | None) -> None:
    origin = parsed(f"{scheme}://{host}" + ("" if port is None else f":{port}"))
    default = {"http": 80, "https": 443}[scheme]
    assert (origin.scheme, origin.host, origin.port) == (scheme, host, default if port is None else port)


@pytest.mark.parametrize(
    "text",
    [
        "https://" + "a" * 1_000_000 + "!",
        "https://" + "a." * 500_000 + "/",
        "https://" + "a-" * 500_000,
        "a" * 1_000_000,
        "https://" + "[" * 1_000_000,
        "https://a:" + "1" * 1_000_000,
    ],
    ids=["letters", "dots", "dashes", "no scheme", "brackets", "port"],
)
def test_a_very_long_one_is_refused_at_once(text: str) -> None:
    began = time.process_time()
    assert Origin.parse(text) is None
    assert not is_same_origin(Origin("https", "example.com", 443), [text])
    # A regular expression that backtracks takes minutes here.
    assert time.process_time() - began < 1.0


# --- OriginPattern


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("https://example.com", "https://example.com"),
        ("https://example.com", "https://example.com:443"),
        ("https://example.com:443", "https://example.com"),
        ("HTTPS://EXAMPLE.com", "https://example.COM"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("https://*.example.com", "https://www.example.com"),
        ("https://*.example.com", "https://a.b.example.com"),
        ("https://*.Example.com:8443", "https://WWW.example.com:8443"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("http://localhost:*", "http://localhost"),
        ("http://localhost:*", "http://localhost:3000"),
        ("http://[::1]:*", "http://[::1]:65535"),
        ("https://*.example.com:*", "https://www.example.com:8443"),
        ("null", "null"),
        ("file://", "file://"),
        ("*", "null"),
        ("*", "file://"),
        ("*", "https://anything.example:1"),
        ("*", "chrome-extension://abc"),
    ],
)
def test_match(pattern: str, origin: str) -> None:
    assert OriginPattern.parse(pattern).matches(parsed(origin))


@pytest.mark.parametrize(
    ("pattern", "origin"),
    [
        ("https://example.com", "https://example.com.evil.com"),
        ("https://example.com", "https://evilexample.com"),
        ("https://example.com", "https://www.example.com"),
        ("https://example.com", "http://example.com"),
        ("https://example.com", "http://example.com:443"),
        ("https://example.com", "https://example.com:444"),
        ("https://example.com", "https://example.co"),
        ("https://example.com", "https://exampleXcom"),
        ("https://example.com:8443", "https://example.com"),
        ("https://*.example.com", "https://example.com"),
        ("https://*.example.com", "https://evil-example.com"),
        ("https://*.example.com", "https://evilexample.com"),
        ("https://*.example.com", "https://www.example.com.evil.com"),
        ("https://*.example.com", "http://www.example.com"),
        ("https://*.example.com", "https://www.example.com:8443"),
        ("https://www.example.com", "https://example.com"),
        ("http://[::1]:3000", "http://[::2]:3000"),
        ("http://localhost:*", "https://localhost:3000"),
        ("http://localhost:*", "http://localhost.evil.com:3000"),
        ("http://localhost:*", "http://www.localhost:3000"),
        ("https://*.example.com:*", "https://example.com:8443"),
        ("null", "file://"),
        ("null", "https://null"),
        ("null", "null://a"),
        ("file://", "null"),
        ("file://", "file://localhost"),
        ("https://example.com", "null"),
        ("chrome-extension://abc", "chrome-extension://abd"),
        ("chrome-extension://abc", "moz-extension://abc"),
    ],
)
def test_no_match(pattern: str, origin: str) -> None:
    assert not OriginPattern.parse(pattern).matches(parsed(origin))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NULL",
        "file:",
        "file:///",
        "example.com",
        "*.example.com",
        "**",
        "https://*",
        "https://*example.com",
        "https://www.*.example.com",
        "https://*.*.example.com",
        "https://example.*",
        "*://example.com",
        "https://example.com/",
        "https://example.com/*",
        "https://user@example.com",
        "https://example.com:**",
        "https://example.com:8*",
        "https://example.com:0",
        "https://example.com:70000",
        "https://bücher.example",
        "https://\u212aelvin.example",
        " *",
        "https://example.com\n",
    ],
)
def test_bad_pattern(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an origin; write https://app\.example\.com"):
        OriginPattern.parse(text)


@settings(max_examples=100, deadline=None)
@given(host, host, scheme)
def test_exact_pattern_matches_its_host_alone(mine: str, other: str, scheme: str) -> None:
    pattern = OriginPattern.parse(f"{scheme}://{mine}")
    assert pattern.matches(parsed(f"{scheme}://{mine}"))
    for text in (other, f"{mine}.{other}", f"{other}.{mine}", mine + other, other + mine):
        assert pattern.matches(parsed(f"{scheme}://{text}")) == (text == mine)


@settings(max_examples=100, deadline=None)
@given(host, host, scheme)
def test_subdomain_pattern_matches_whole_labels_alone(mine: str, other: str, scheme: str) -> None:
    pattern = OriginPattern.parse(f"{scheme}://*.{mine}")
    for text in (mine, other, f"{mine}.{other}", f"{other}.{mine}", mine + other, other + mine, f"{other}-{mine}"):
        labels, suffix = text.split("."), mine.split(".")
        below = len(labels) > len(suffix) and labels[-len(suffix) :] == suffix
        assert pattern.matches(parsed(f"{scheme}://{text}")) == below, text


# --- the same origin


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://example.com", "example.com"),
        ("http://example.com", "example.com"),
        ("https://example.com", "example.com:443"),
        ("http://example.com", "example.com:80"),
        ("https://example.com:443", "example.com"),
        ("https://EXAMPLE.com", "example.COM"),
        ("http://localhost:6001", "localhost:6001"),
        ("http://127.0.0.1:6001", "127.0.0.1:6001"),
        ("http://[::1]:6001", "[::1]:6001"),
        ("http://[::1]", "[::1]"),
        # The proxy that ends TLS may speak to us on whatever port it likes, the header is the browser's.
        ("https://example.com:8443", "example.com:8443"),
    ],
)
def test_same_origin(origin: str, host: str) -> None:
    assert is_same_origin(parsed(origin), [host])


@pytest.mark.parametrize(
    ("origin", "hosts"),
    [
        ("https://example.com", []),
        ("https://example.com", [""]),
        ("https://example.com", ["example.com", "example.com"]),
        ("https://example.com", ["example.com", "evil.com"]),
        ("https://example.com", ["example.com, evil.com"]),
        ("https://example.com.evil.com", ["example.com"]),
        ("https://evilexample.com", ["example.com"]),
        ("https://example.com", ["www.example.com"]),
        ("https://www.example.com", ["example.com"]),
        ("https://example.com", ["example.com:80"]),
        ("http://example.com", ["example.com:443"]),
        ("https://example.com", ["example.com:8443"]),
        ("https://example.com:8443", ["example.com"]),
        ("http://localhost:3000", ["localhost:6001"]),
        ("http://localhost:6001", ["127.0.0.1:6001"]),
        ("http://[::1]:6001", ["[::2]:6001"]),
        ("https://example.com", ["example.com:"]),
        ("https://example.com", ["example.com:٤٤٣"]),
        ("https://example.com", ["example.com:443 "]),
        ("https://example.com", ["example.com\n"]),
        ("https://example.com", ["user@example.com"]),
        ("https://example.com", ["example.com/"]),
        ("https://example.com", ["*.example.com"]),
        ("https://kelvin.example", ["\u212aelvin.example"]),
        ("null", ["null"]),
        ("null", [""]),
        ("file://", [""]),
        # Without a default port there is nothing that a Host without one could mean.
        ("chrome-extension://example.com", ["example.com"]),
    ],
)
def test_another_origin(origin: str, hosts: list[str]) -> None:
    assert not is_same_origin(parsed(origin), hosts)


@settings(max_examples=100, deadline=None)
@given(scheme, host, port, host, port)
def test_same_origin_means_host_and_port_equal(
    scheme: str, host: str, port: int, other_host: str, other_port: int
) -> None:
    origin = parsed(f"{scheme}://{host}:{port}")
    assert is_same_origin(origin, [f"{host}:{port}"])
    assert is_same_origin(origin, [f"{other_host}:{other_port}"]) == ((host, port) == (other_host, other_port))
    assert is_same_origin(origin, [host]) == (port == {"http": 80, "https": 443}[scheme])


@settings(max_examples=100, deadline=None)
@given(host, st.text(min_size=1, max_size=6))
def test_nothing_added_to_a_host_is_the_same_host(host: str, added: str) -> None:
    origin = parsed(f"https://{host}")
    assume(added != ":443")
    assert not is_same_origin(origin, [host + added])
    assert not is_same_origin(origin, [added + host])
