"""Group: the command ``velocity-ws`` itself, its errors, and what it prints. Knows no server and no engine."""

from __future__ import annotations

import click

from velocity_ws import __version__
from velocity_ws.errors import SettingsError, VelocityError
from velocity_ws.logs import printable

__all__ = ["CommandError", "main"]


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Realtime for Python web apps, on plain WebSockets. Settings come from WS_* variables and .env."""


class CommandError(click.ClickException):
    """An error of ours, in lines of its own making only: what others chose is escaped."""

    def __init__(self, error: VelocityError) -> None:
        if isinstance(error, SettingsError):
            problems = [f"\n  {name}: {printable(problem)}" for name, problem in error.problems.items()]
            super().__init__("unusable settings:" + "".join(problems))
        else:
            super().__init__(printable(str(error)))
