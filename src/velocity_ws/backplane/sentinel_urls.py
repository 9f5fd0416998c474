"""Sentinel URLs: what ``redis+sentinel://user:password@a:26379,b:26379/name?sentinel_password=…`` says.

Knows no connection. What is before the ``@`` and the options are for the servers; the Sentinels have the same options,
but for user, password and database, and those that begin with ``sentinel_`` replace them.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

__all__ = ["SENTINEL_SCHEMES", "SentinelURL", "parse_sentinel_url"]

SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel", "valkey+sentinel", "valkeys+sentinel")
PORT = 26379
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)
_OWN = ("username", "password", "db", "client_name")
"""Options of servers that Sentinels do not share."""
_YES, _NO = ("1", "yes", "true"), ("0", "no", "false")


class SentinelURL(NamedTuple):
    """What a URL says.

    Attributes:
        name: what the Sentinels call the servers.
        places: host and port of each Sentinel.
        sentinels: the URL of each of them, as redis-py takes it.
        server: that of the primary, as redis-py takes it, with a host and port that have to be replaced.
    """

    name: str
    places: list[tuple[str, int]]
    sentinels: list[str]
    server: str


def parse_sentinel_url(url: str) -> SentinelURL:
    """Read a URL of one of `SENTINEL_SCHEMES`.

    Raises:
        ValueError: it is none; the text says why, and repeats nothing of it.
    """
    try:
        parts = urlsplit(url)
        login, at, hosts = parts.netloc.rpartition("@")
        servers = [urlsplit(f"//{host}") for host in hosts.split(",") if host]
        places = [(server.hostname or "", server.port or PORT) for server in servers]
    except ValueError:  # whose text repeats it
        raise ValueError(
            "not a URL with Sentinels: redis+sentinel://user:password@host:26379,host:26379/name; in the user and the "
            "password the characters / ? # % are written %2F %3F %23 %25"
        ) from None
    if "," in login:
        raise ValueError("the user and the password come once, before the first Sentinel; in them a comma is %2C")
    if not places or not all(host for host, _ in places):
        raise ValueError("where are the Sentinels? Write redis+sentinel://host:26379,host:26379/name")
    name = unquote(parts.path.strip("/"))
    if not _NAME.fullmatch(name):
        raise ValueError(
            "which servers? The path is what the Sentinels call them: redis+sentinel://host:26379/name; a database is "
            "?db=1"
        )
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    theirs = {key[9:]: value for key, value in options.items() if key.startswith("sentinel_")}
    own = {key: value for key, value in options.items() if not key.startswith("sentinel_")}
    scheme = parts.scheme.removesuffix("+sentinel")
    tls = theirs.pop("ssl", _YES[0] if scheme in ("rediss", "valkeys") else _NO[0]).lower()
    if tls not in _YES + _NO:
        raise ValueError("sentinel_ssl is yes or no")
    shared = {key: value for key, value in own.items() if key not in _OWN and (tls in _YES or key[:4] != "ssl_")}
    query = urlencode(shared | theirs)
    return SentinelURL(
        name,
        places,
        [f"{'rediss' if tls in _YES else 'redis'}://{_host(host)}:{port}?{query}" for host, port in places],
        f"{scheme}://{login}{at}{_host(places[0][0])}?{urlencode(own)}",
    )


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
