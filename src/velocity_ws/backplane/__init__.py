"""Backplanes: engines that carry bytes between the processes of one application. They know no rooms and no clients."""

from __future__ import annotations

from importlib import import_module

from velocity_ws.backplane.base import Backplane, Lost, Receive
from velocity_ws.backplane.urls import CLUSTER_SCHEMES, check_url, split_url
from velocity_ws.errors import SettingsError

__all__ = ["Backplane", "Lost", "Receive", "create_backplane"]

_REDIS = ("redis", "RedisBackplane")
_NATS = ("nats", "NatsBackplane")
_REDIS_CLUSTER = ("redis_cluster", "RedisClusterBackplane")
_BY_SCHEME = {
    "memory": ("memory", "MemoryBackplane"),
    "embedded": ("embedded.backplane", "EmbeddedBackplane"),
    "redis": _REDIS,
    "rediss": _REDIS,
    "valkey": _REDIS,
    "valkeys": _REDIS,
    "unix": _REDIS,
    **dict.fromkeys(CLUSTER_SCHEMES, _REDIS_CLUSTER),
    "nats": _NATS,
    "tls": _NATS,
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
    try:
        check_url(url)
    except ValueError as error:
        raise SettingsError({"WS_BACKPLANE_URL": str(error)}) from None
    module, name = _BY_SCHEME[url.partition("://")[0]]
    try:
        factory = getattr(import_module(f"velocity_ws.backplane.{module}"), name)
    except ImportError as error:
        extra = "redis" if module == "redis_cluster" else module.partition(".")[0]
        problem = f"{error.name or module} is not installed; pip install 'velocity-ws[{extra}]'"
        raise SettingsError({"WS_BACKPLANE_URL": problem}) from error
    engine, _ = split_url(url)
    try:
        may_not_run = module == "embedded.backplane" and not is_node
        backplane: Backplane = factory(engine, may_run=False) if may_not_run else factory(engine)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError({"WS_BACKPLANE_URL": f"it cannot be used: {type(error).__name__}"}) from None
    return backplane
