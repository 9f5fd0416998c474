"""The command ``velocity-ws``."""

from velocity_ws.cli.commands import main

__all__ = ["main"]
