"""Testing: the contract suites for parts that others write, such as a backplane. Need pytest and pytest-asyncio."""

from __future__ import annotations

from velocity_ws.testing.backplanes import BackplaneContract
from velocity_ws.testing.histories import HistoryContract
from velocity_ws.testing.listener import Listener
from velocity_ws.testing.streams import StreamContract

__all__ = ["BackplaneContract", "HistoryContract", "Listener", "StreamContract"]
