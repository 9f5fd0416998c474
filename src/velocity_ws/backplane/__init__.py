"""Backplanes: how the processes of one application reach each other's clients."""

from __future__ import annotations

from velocity_ws.backplane.base import Backplane, Lost, Receive

__all__ = ["Backplane", "Lost", "Receive"]
