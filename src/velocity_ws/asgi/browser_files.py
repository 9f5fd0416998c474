"""Browser files: those of the browser client, and the names under which browsers may keep them. Knows no request."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["BROWSER_FILES", "BrowserFile", "browser_client_path", "find_browser_file", "read_browser_file"]

BROWSER_FILES = {
    "velocity.js": "text/javascript",
    "velocity.d.ts": "text/plain",
    "react.js": "text/javascript",
    "react.d.ts": "text/plain",
}
"""What there is, with its media type."""

_CLIENT = "velocity.js"
_FINGERPRINTED = re.compile(r"velocity\.[0-9a-f]{16}\.js")


@dataclass(frozen=True)
class BrowserFile:
    """A file of the browser client.

    Attributes:
        content: what is in it.
        media_type: what it is.
        fingerprint: 16 hexadecimal digits, others for other content.
    """

    content: bytes
    media_type: str
    fingerprint: str


def find_browser_file(name: str) -> tuple[BrowserFile, bool] | None:
    """The file of that name, and whether the name has its fingerprint, so that it will never mean another content.

    ``velocity.js`` and ``velocity.<fingerprint>.js`` are the same file. A fingerprint that is not its own belongs to
    another version, which a page asks for while nodes are updated: it gets the file, too.
    """
    if name in BROWSER_FILES:
        return read_browser_file(name), False
    if _FINGERPRINTED.fullmatch(name):
        return read_browser_file(_CLIENT), name == _client_name()
    return None


def browser_client_path(path: str = "/ws") -> str:
    """The URL path of the browser client with its fingerprint, which browsers keep without asking again.

    For the templates of an application: ``import { connect } from "{{ browser_client_path() }}"``. It is another one
    with another version of this package. From any thread.

    Args:
        path: of the endpoint as browsers see it, behind what a proxy puts before it.

    Returns:
        ``/ws/velocity.<fingerprint>.js``.
    """
    return f"{path.rstrip('/')}/{_client_name()}"


@functools.cache
def read_browser_file(name: str) -> BrowserFile:
    """One of `BROWSER_FILES`."""
    content = files("velocity_ws").joinpath("browser", name).read_bytes()
    return BrowserFile(content, BROWSER_FILES[name], hashlib.sha256(content).hexdigest()[:16])


def _client_name() -> str:
    return f"velocity.{read_browser_file(_CLIENT).fingerprint}.js"
