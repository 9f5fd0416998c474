"""The names of topics: any string is a room or a user, and none of them reaches an engine's own syntax. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from velocity_ws.errors import InvalidNameError

__all__ = ["MAIN", "Topics", "encode_name", "prefix_of"]

MAIN = "main"
"""The name of a broker that was given none."""

MAX_ENCODED = 150
"""Characters; what would be longer is hashed, as engines limit their subjects."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")


def encode_name(name: str) -> str:
    """A name as one token of a topic: readable where it can be, and different for different names."""
    token = _UNSAFE.sub(lambda byte: b"=%02X" % byte[0][0], name.encode(errors="surrogatepass")).decode("ascii")
    if len(token) > MAX_ENCODED:
        return "~" + hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=20).hexdigest()
    return token or "="


def prefix_of(prefix: str, name: str) -> str:
    """What the topics of the broker of a name begin with, where those of the main one begin with a prefix.

    No prefix of a URL can be the same, nor a topic of the main broker.

    Raises:
        InvalidNameError: it is no name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidNameError(f"the name of a broker has 1 to 32 letters, digits, - and _, not {name!r:.80}")
    return prefix if name == MAIN else f"{prefix}.name={name}"


class Topics:
    """Where what is published.

    Attributes:
        all: messages to everyone.
        nodes: what nodes say to all nodes.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.all = f"{prefix}.all"
        self.nodes = f"{prefix}.nodes"

    def node(self, node_id: str) -> str:
        """What is for one node alone."""
        return f"{self._prefix}.node.{node_id}"

    def room(self, room: str) -> str:
        """Messages to a room."""
        return f"{self._prefix}.room.{encode_name(room)}"

    def user(self, user_id: str) -> str:
        """Messages to all clients of a user."""
        return f"{self._prefix}.user.{encode_name(user_id)}"

    def of(self, kind: Literal["room", "user"], name: str) -> str:
        """Messages to a room or to a user."""
        return self.room(name) if kind == "room" else self.user(name)
