"""Backplanes: how the processes of one application reach each other's clients."""

from __future__ import annotations

from velocity_ws.backplane.base import Backplane, Lost, Receive

__all__ = ["Backplane", "Lost", "Receive", "create_backplane", "split_url"]


def create_backplane(url: str) -> Backplane:
    """The backplane a ``WS_BACKPLANE_URL`` names."""
    raise NotImplementedError(url.partition("://")[0])


def split_url(url: str) -> tuple[str, str]:
    """The URL of the engine, and the prefix of the topics."""
    return url, "velocity"
