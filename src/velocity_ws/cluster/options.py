"""Options: how a node takes part in its cluster, as values. Knows neither settings nor the environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from velocity_ws.cluster.subscriptions import LINGER

__all__ = ["ClusterOptions"]

START_PATIENCE = 3.0
"""Seconds that a node which starts waits for the engine."""


@dataclass(frozen=True)
class ClusterOptions:
    """How a node takes part.

    Attributes:
        prefix: what the names of the topics begin with.
        timeout: seconds after which a publish or a call ends, whatever its outcome.
        lease: seconds unheard after which a node counts as gone.
        queue_size: bytes that may wait for the engine.
        linger: seconds that a subscription is kept when it is no longer needed.
        patience: seconds that starting waits for the engine, before it goes on without.
        is_node: whether it has clients; else it only publishes and calls.
        engine: what the log calls the engine.
        is_of_kind: whether what is sent to a room alone carries its name; by default none does.
    """

    prefix: str
    timeout: float = 1.0
    lease: float = 10.0
    queue_size: int = 8 * 1024 * 1024
    linger: float = LINGER
    patience: float = START_PATIENCE
    is_node: bool = True
    engine: str = ""
    is_of_kind: Callable[[str], bool] = lambda _: False
