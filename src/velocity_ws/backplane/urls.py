"""What a ``WS_BACKPLANE_URL`` may be. Never repeats more of one than its scheme, as it may hold a password."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

__all__ = ["ALONE", "ENGINES", "check_url", "split_url"]

ALONE = "memory://"
"""One process without others."""
ENGINES = ("memory", "embedded", "redis", "rediss", "valkey", "valkeys", "unix", "nats", "tls")
PREFIX = "velocity"
"""What topics begin with, where the URL does not say."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,50}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]{0,50}", re.ASCII)
_KNOWN = "memory://, embedded://, redis://, rediss://, valkey://, valkeys://, unix://, nats:// and tls://"


def check_url(url: str) -> str:
    """The URL, if it is one that can be used.

    Raises:
        ValueError: it is not; the message says why.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise ValueError(f"not a URL; there are {_KNOWN}")
    if scheme[1] not in ENGINES:
        raise ValueError(f"no backplane for {scheme[1]}://; there are {_KNOWN}")
    try:
        engine, prefix = split_url(url)
        rest = engine.partition("://")[2]
    except ValueError:
        raise ValueError(f"not a URL that {scheme[1]}:// can use") from None
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("the prefix has 1 to 50 letters, digits, - and _")
    if scheme[1] in ("memory", "embedded"):
        if not _NAME.fullmatch(rest):
            raise ValueError(f"a name after {scheme[1]}:// has letters, digits, - and _")
    elif not rest.strip("/"):
        raise ValueError(f"where is it? Write {scheme[1]}://host:port, or the path of its socket after unix://")
    return url


def split_url(url: str) -> tuple[str, str]:
    """The engine's own URL, and the prefix of the topics: ``redis://host/0?prefix=shop`` has ``shop``."""
    query = urlsplit(url).query
    if not query:
        return url, PREFIX
    pairs = parse_qsl(query, keep_blank_values=True)
    rest = [(key, value) for key, value in pairs if key != "prefix"]
    base = url[: url.index("?")]
    prefix = next((value for key, value in pairs if key == "prefix"), PREFIX)
    return (f"{base}?{urlencode(rest)}" if rest else base), prefix
