"""CLI: the command ``velocity-ws``: serves an application, and reaches its clients. Knows no client and no session."""

from velocity_ws.cli import messaging, serving, writing  # noqa: F401 - they add their commands to the group
from velocity_ws.cli.group import main

__all__ = ["main"]
