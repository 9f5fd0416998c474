"""Ids: of nodes and of clients, made and read. A client's id names its node, so that every node can ask it. Pure."""

from __future__ import annotations

import re
import secrets
from typing import Final

__all__ = ["CLIENT_ID", "NODE_ID", "NODE_ID_LENGTH", "new_client_id", "new_node_id", "node_of"]

NODE_ID_LENGTH: Final = 11
NODE_ID: Final = rf"[A-Za-z0-9_-]{{{NODE_ID_LENGTH}}}"
"""A node's id, as a regular expression."""
CLIENT_ID: Final = rf"({NODE_ID})\.[A-Za-z0-9_-]{{1,64}}"
"""A client's id, as a regular expression; its group is the node's."""
_is_client_id = re.compile(CLIENT_ID, re.ASCII).fullmatch


def new_node_id() -> str:
    """Make an unguessable id for a node; it begins the id of each of its clients."""
    return secrets.token_urlsafe(8)


def new_client_id(node_id: str) -> str:
    """Make an unguessable id for a client of this node."""
    return f"{node_id}.{secrets.token_urlsafe(16)}"


def node_of(client_id: str) -> str | None:
    """Read the id of the node that a client is connected to; ``None`` if the text is not a client's id."""
    found = _is_client_id(client_id)
    return None if found is None else found[1]
