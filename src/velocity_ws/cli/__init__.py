"""The command ``velocity-ws``: serves an application, and reaches its clients from a shell. Knows public names only."""

from velocity_ws.cli import messaging, serving
from velocity_ws.cli.group import main

__all__ = ["main", "messaging", "serving"]
