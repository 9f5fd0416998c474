"""CLI: the command ``velocity-ws``: serves an application, and reaches its clients. Knows public names only."""

from velocity_ws.cli import messaging, serving
from velocity_ws.cli.group import main

__all__ = ["main", "messaging", "serving"]
