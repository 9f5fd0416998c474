"""Factory: makes the store of logs that a ``WS_BACKPLANE_URL`` names. Knows no engine's library."""

from __future__ import annotations

import itertools

from velocity_ws.backplane.loading import load_class, make
from velocity_ws.backplane.sentinel_urls import SENTINEL_SCHEMES
from velocity_ws.backplane.urls import ALONE, CLUSTER_SCHEMES, split_url
from velocity_ws.history.base import HistoryStore

__all__ = ["create_history"]

_MEMORY = ("velocity_ws.history.memory", "MemoryHistory")
_EMBEDDED = ("velocity_ws.history.embedded", "EmbeddedHistory")
_REDIS = ("velocity_ws.history.redis", "RedisHistory")
_NATS = ("velocity_ws.history.nats", "NatsHistory")
_CLASSES = {
    "memory": _MEMORY,
    "embedded": _EMBEDDED,
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix", *CLUSTER_SCHEMES, *SENTINEL_SCHEMES), _REDIS),
    **dict.fromkeys(("nats", "tls"), _NATS),
}
_numbers = itertools.count(1)


def create_history(url: str, *, is_node: bool = True) -> HistoryStore:
    """Make the store of logs on the engine that a ``WS_BACKPLANE_URL`` names, not yet connected.

    Stores for one URL share their logs, as far as the engine is shared; those for ``memory://`` without a name do not,
    as what one of them is for has no others.

    Args:
        url: the engine's, as in ``WS_BACKPLANE_URL``.
        is_node: whether it is for a node; a process that only publishes runs no embedded engine, which would end with
            it.

    Raises:
        SettingsError: there is no engine of that kind, a package is missing, or the URL cannot be used.
    """
    kind = load_class(url, _CLASSES)
    options: dict[str, object] = {}
    engine, prefix = split_url(url)
    if url == ALONE:
        engine = f"{ALONE}={next(_numbers)}"  # which no URL can name
    elif url.startswith(("nats:", "tls:", "embedded:")):
        options["prefix"] = prefix  # other engines know it as the beginning of each topic
    if url.startswith("embedded:") and not is_node:
        options["may_run"] = False
    store: HistoryStore = make(kind, engine, **options)
    return store
