"""Backplanes: how the processes of one application reach each other's clients."""

from __future__ import annotations

from velocity_ws.backplane.base import Backplane
from velocity_ws.backplane.memory import MemoryBackplane

__all__ = ["Backplane", "MemoryBackplane", "create_backplane"]


_BY_SCHEME: dict[str, type[Backplane]] = {"memory": MemoryBackplane}


def create_backplane(url: str) -> Backplane:
    """The backplane a ``WS_BACKPLANE_URL`` names; `Settings` has checked that there is one."""
    return _BY_SCHEME[url.partition("://")[0]]()
