"""Writing: ``velocity-ws js``, which writes the files of the browser client into a folder. Knows no server."""

from __future__ import annotations

from pathlib import Path

import click

from velocity_ws.asgi.browser_files import BROWSER_FILES, read_browser_file
from velocity_ws.cli.group import main

__all__ = ["js"]


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def js(folder: Path) -> None:
    """Write the browser client and its types into DIR, which is made where it is missing.

    They are what the endpoint serves, and what the package velocity-ws of npm has. Files of the same names are
    replaced, so that the client is the one of this version; the command says which were others. From there, connect
    needs the endpoint's URL: connect("/ws").
    """
    for name in BROWSER_FILES:
        shown = click.format_filename(folder / name)
        try:
            click.echo(f"{shown}: {_write(folder / name, read_browser_file(name).content)}")
        except OSError as error:
            raise click.ClickException(f"{shown}: {error.strerror}") from None


def _write(path: Path, content: bytes) -> str:
    """Write what is not there yet; say what was there."""
    before = path.read_bytes() if path.exists() else None
    if before == content:
        return "as it was"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return "new" if before is None else "replaced"
