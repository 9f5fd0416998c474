"""For those who write a part of their own: the suites that it has to pass. Needs pytest and pytest-asyncio to run."""

from __future__ import annotations

from velocity_ws.testing.backplanes import BackplaneContract
from velocity_ws.testing.listener import Listener

__all__ = ["BackplaneContract", "Listener"]
