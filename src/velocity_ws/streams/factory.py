"""Factory: makes the store of streams that a ``WS_BACKPLANE_URL`` names. Knows no engine's library."""

from __future__ import annotations

import itertools

from velocity_ws.backplane.loading import load_class, make
from velocity_ws.backplane.sentinel_urls import SENTINEL_SCHEMES
from velocity_ws.backplane.urls import ALONE, CLUSTER_SCHEMES, split_url
from velocity_ws.streams.base import StreamStore

__all__ = ["create_streams"]

_MEMORY = ("velocity_ws.streams.memory", "MemoryStreams")
_EMBEDDED = ("velocity_ws.streams.embedded", "EmbeddedStreams")
_REDIS = ("velocity_ws.streams.redis", "RedisStreams")
_NATS = ("velocity_ws.streams.nats", "NatsStreams")
_CLASSES = {
    "memory": _MEMORY,
    "embedded": _EMBEDDED,
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix", *CLUSTER_SCHEMES, *SENTINEL_SCHEMES), _REDIS),
    **dict.fromkeys(("nats", "tls"), _NATS),
}
_numbers = itertools.count(1)


def create_streams(url: str, prefix: str, *, is_node: bool = True) -> StreamStore:
    """Make the store of streams on the engine that a ``WS_BACKPLANE_URL`` names, not yet connected.

    Stores for one URL and prefix share their streams, as far as the engine is shared; those for ``memory://`` without a
    name do not, as what one of them is for has no others.

    Args:
        url: the engine's, as in ``WS_BACKPLANE_URL``.
        prefix: what the topics of the cluster begin with; of another cluster, all ids are others.
        is_node: whether it is for a node; a process that only publishes runs no embedded engine, which would end with
            it.

    Raises:
        SettingsError: there is no engine of that kind, a package is missing, or the URL cannot be used.
    """
    kind = load_class(url, _CLASSES)
    engine, application = split_url(url)
    options: dict[str, object] = {"prefix": prefix}
    if url == ALONE:
        engine = f"{ALONE}={next(_numbers)}"  # which no URL can name
    elif url.startswith(("nats:", "tls:", "embedded:")):
        options["application"] = application  # all clusters of one have one stream of the server's
    if url.startswith("embedded:") and not is_node:
        options["may_run"] = False
    store: StreamStore = make(kind, engine, **options)
    return store
