"""URLs: what a ``WS_BACKPLANE_URL`` may be, and which engine it names. Knows no engine's library.

No error repeats more of a URL than its scheme, as a password may be in it.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from velocity_ws.backplane.sentinel_urls import SENTINEL_SCHEMES, parse_sentinel_url

__all__ = ["ALONE", "ENGINES", "check_url", "cluster_urls", "engine_of", "options_of", "server_urls", "split_url"]

ALONE = "memory://"
"""The URL of a process that has no others."""
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster", "valkey+cluster", "valkeys+cluster")
ENGINES = (
    *("memory", "embedded", "redis", "rediss", "valkey", "valkeys"),
    *(*CLUSTER_SCHEMES, *SENTINEL_SCHEMES, "unix", "nats", "tls"),
)
PREFIX = "velocity"
"""What topics begin with where the URL does not say; a database other than 0 adds its number."""
_NAMED = ("memory", "embedded")
_SEVERAL = ("nats", "tls")
MAX_REPLICAS = 5
"""As many as a NATS server takes."""
_FAMILIES = {
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix"), "redis"),
    **dict.fromkeys(CLUSTER_SCHEMES, "redis+cluster"),
    **dict.fromkeys(SENTINEL_SCHEMES, "redis+sentinel"),
    **dict.fromkeys(_SEVERAL, "nats"),
}
"""Which schemes lead to the same kind of engine, where there are several."""
_PORTS = {"redis": 6379, "redis+cluster": 6379, "nats": 4222}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII)
_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,50}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_-]{0,50}", re.ASCII)
_ENCODE = "in a user, a password or a token, the characters / ? # , % are written %2F %3F %23 %2C %25"
_KNOWN = (
    "memory://, embedded://, redis://, rediss://, valkey://, valkeys://, the last four with +cluster or +sentinel, "
    "unix://, nats:// and tls://"
)


def check_url(url: str) -> str:
    """Check that a URL can be used, and return it.

    Raises:
        ValueError: it cannot; the text says why.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise ValueError(f"not a URL; there are {_KNOWN}")
    if scheme[1] not in ENGINES:
        raise ValueError(f"no backplane for {scheme[1]}://; there are {_KNOWN}")
    if scheme[1] in SENTINEL_SCHEMES:
        parse_sentinel_url(url)
        _check_prefix(url)
        return url
    try:
        is_cut_short = _is_cut_short(url)
        engine, _ = split_url(url)
        engine, options = options_of(engine)
        rest = engine.partition("://")[2]
        is_somewhere = scheme[1] in _NAMED or (bool(rest.strip("/")) if scheme[1] == "unix" else _has_hosts(engine))
    except ValueError:
        hint = f"; {_ENCODE}" if "@" in url else ""
        raise ValueError(f"not a URL that {scheme[1]}:// can use{hint}") from None
    if is_cut_short:
        raise ValueError(f"an @ comes behind the first server, or a comma before it; {_ENCODE}")
    _check_prefix(url)
    _check_options(scheme[1], options)
    if scheme[1] in _NAMED and not _NAME.fullmatch(rest):
        raise ValueError(f"a name after {scheme[1]}:// has letters, digits, - and _")
    if not is_somewhere:
        raise ValueError(f"where is it? Write {scheme[1]}://host:port, or the path of its socket after unix://")
    return url


def split_url(url: str) -> tuple[str, str]:
    """Split a URL into the engine's own and the prefix of the topics: ``redis://host/0?prefix=shop`` has ``shop``."""
    given = _given_prefix(url)
    if given is None:
        # What is published in one database of Redis is heard in all of them, unless the topics differ.
        database = _database(url)
        return url, f"{PREFIX}.db={database}" if database else PREFIX
    query = urlsplit(url).query
    rest = "&".join(part for part in query.split("&") if part.partition("=")[0] != "prefix")
    base = url[: url.index("?")]
    return (f"{base}?{rest}" if rest else base), given


def options_of(url: str) -> tuple[str, dict[str, str]]:
    """Split a URL of ``embedded://`` or ``nats://`` into what comes before its options, and these; others stay whole.

    Args:
        url: without a prefix, as `split_url` returns it.
    """
    if not url.startswith(("embedded:", *(f"{scheme}:" for scheme in _SEVERAL))):
        return url, {}
    base, _, query = url.partition("?")
    parts = (part.partition("=") for part in query.split("&") if part)
    return base, {name: unquote(value) for name, _, value in parts}


def engine_of(url: str) -> str:
    """The engine that a URL leads to: the same text for all spellings, without user, password and options."""
    scheme, _, rest = split_url(url)[0].partition("?")[0].partition("://")
    family = _FAMILIES.get(scheme)
    if family is None:
        return f"{scheme}://{rest or 'default'}"
    if family == "redis+sentinel":
        where = parse_sentinel_url(url)
        return f"{family}://{','.join(sorted(f'{host}:{port}' for host, port in where.places))}/{where.name}"
    if scheme == "unix":
        return f"unix://{urlsplit(url).path}"
    urls = cluster_urls(url) if scheme in CLUSTER_SCHEMES else server_urls(f"{scheme}://{rest}")
    servers = [urlsplit(server) for server in urls]
    places = {f"{server.hostname}:{server.port or _PORTS[family]}" for server in servers}
    return f"{family}://{','.join(sorted(places))}"


def server_urls(url: str) -> list[str]:
    """The URL of each server in a URL that may have several: ``nats://a:4222,b:4222``, or each with its scheme."""
    scheme, _, rest = url.partition("://")
    return [part if "://" in part else f"{scheme}://{part}" for part in rest.split(",") if part]


def _check_prefix(url: str) -> None:
    """Check what a URL says of the prefix of the topics.

    Raises:
        ValueError: it can be none.
    """
    given = _given_prefix(url)
    if given is not None and not _PREFIX.fullmatch(given):
        raise ValueError("the prefix has 1 to 50 letters, digits, - and _")


def cluster_urls(url: str) -> list[str]:
    """The URL of each server that one of `CLUSTER_SCHEMES` names, as redis-py takes it.

    Args:
        url: ``redis+cluster://user:password@a:6379,b:6379/0?option=…``; all but the servers is that of each of them.
    """
    scheme, _, rest = url.partition("://")
    hosts = urlsplit(url).netloc
    behind = rest[len(hosts) :]
    login, at, hosts = hosts.rpartition("@")
    return [f"{scheme.removesuffix('+cluster')}://{login}{at}{host}{behind}" for host in hosts.split(",") if host]


def _check_options(scheme: str, options: dict[str, str]) -> None:
    """Check what a URL says of how history is kept.

    Raises:
        ValueError: it cannot be.
    """
    if scheme == "embedded":
        unknown = sorted(options.keys() - {"store"})
        if unknown:
            raise ValueError(f"embedded:// has no option {unknown[0]:.80}; there are prefix and store")
        store = options.get("store")
        if store is not None and (not store.startswith("/") or store.strip("/") == "" or "\0" in store):
            raise ValueError("store is the absolute path of a directory, as in embedded://?store=/var/lib/chat")
    replicas = options.get("replicas")
    if replicas is not None and replicas not in map(str, range(1, MAX_REPLICAS + 1)):
        raise ValueError(f"replicas is a number from 1 to {MAX_REPLICAS}, as in nats://a,b,c?replicas=3")


def _is_cut_short(url: str) -> bool:
    """Whether a character of a user or password was taken for the end of it, or of a server, so that an @ is left over.

    Raises:
        ValueError: it is no URL at all.
    """
    if url.startswith("unix:"):  # whose path may have any
        return False
    scheme, _, rest = url.partition("://")
    if scheme in CLUSTER_SCHEMES and "," in urlsplit(url).netloc.rpartition("@")[0]:
        return True
    for parts in map(urlsplit, server_urls(url) if url.startswith(_SEVERAL) else [url]):
        if "@" in parts.path + parts.fragment or "@" in parts.query.partition("=")[0]:
            return True
    first, *others = itertools.takewhile(lambda server: "://" not in server, rest.split(","))
    return url.startswith(_SEVERAL) and "@" not in first and any("@" in other for other in others)


def _given_prefix(url: str) -> str | None:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)).get("prefix")


def _database(url: str) -> int:
    """The number of the database of a Redis that redis-py would take a URL to name; 0 where it names none."""
    parts = urlsplit(url)
    family = _FAMILIES.get(parts.scheme)
    if family not in ("redis", "redis+cluster", "redis+sentinel"):
        return 0
    path = "" if parts.scheme == "unix" or family == "redis+sentinel" else unquote(parts.path).replace("/", "")
    with contextlib.suppress(ValueError):  # which the library says, or takes for none
        return int(parse_qs(parts.query).get("db", [path])[0])
    return 0


def _has_hosts(url: str) -> bool:
    """Whether it says where every server is.

    Raises:
        ValueError: a port is none, or servers of different kinds are mixed.
    """
    several = url.startswith(tuple(f"{scheme}://" for scheme in _SEVERAL))
    scheme, _, rest = url.partition("://")
    if scheme in CLUSTER_SCHEMES:
        if "://" in rest.partition("?")[0]:
            raise ValueError("what is before the servers comes once")
        servers = [urlsplit(server) for server in cluster_urls(url)]
    else:
        servers = [urlsplit(server) for server in (server_urls(url) if several else [url])]
    if several and any(server.scheme not in _SEVERAL for server in servers):
        raise ValueError("not all of them are NATS servers")
    # What is no port raises when it is asked for.
    return bool(servers) and all(server.hostname and (server.port is None or server.port > 0) for server in servers)
