"""Backplanes: engines that carry bytes between the processes of one application. They know no rooms and no clients."""

from __future__ import annotations

from velocity_ws.backplane.base import Backplane, Lost, Receive
from velocity_ws.backplane.loading import load_class, make
from velocity_ws.backplane.sentinel_urls import SENTINEL_SCHEMES
from velocity_ws.backplane.urls import CLUSTER_SCHEMES, split_url

__all__ = ["Backplane", "Lost", "Receive", "create_backplane"]

_EMBEDDED = ("velocity_ws.backplane.embedded.backplane", "EmbeddedBackplane")
_REDIS = ("velocity_ws.backplane.redis", "RedisBackplane")
_REDIS_CLUSTER = ("velocity_ws.backplane.redis_cluster", "RedisClusterBackplane")
_NATS = ("velocity_ws.backplane.nats", "NatsBackplane")
_CLASSES = {
    "memory": ("velocity_ws.backplane.memory", "MemoryBackplane"),
    "embedded": _EMBEDDED,
    **dict.fromkeys(("redis", "rediss", "valkey", "valkeys", "unix", *SENTINEL_SCHEMES), _REDIS),
    **dict.fromkeys(CLUSTER_SCHEMES, _REDIS_CLUSTER),
    **dict.fromkeys(("nats", "tls"), _NATS),
}


def create_backplane(url: str, *, is_node: bool = True) -> Backplane:
    """Make the backplane that a ``WS_BACKPLANE_URL`` names, not yet connected.

    Args:
        url: the engine's, as in ``WS_BACKPLANE_URL``.
        is_node: whether it is for a node; a process that only publishes runs no embedded engine, which would end with
            it.

    Raises:
        SettingsError: there is no engine of that kind, a package is missing, or the URL cannot be used.
    """
    kind = load_class(url, _CLASSES)
    options = {} if is_node or not url.startswith("embedded:") else {"may_run": False}
    engine, _ = split_url(url)
    backplane: Backplane = make(kind, engine, **options)
    return backplane
