"""Topics: their names. Any string is a room or a user, and none reaches an engine's own syntax. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from velocity_ws.errors import InvalidNameError

__all__ = ["MAIN", "Topics", "encode_name", "prefix_of"]

MAIN = "main"
"""The name of a broker that was given none."""

MAX_ENCODED = 150
"""Characters of a token; what would be longer is hashed, as engines limit their subjects."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")


def encode_name(name: str) -> str:
    """A name as one token of a topic: readable where it can be, and different for different names."""
    token = _UNSAFE.sub(lambda byte: b"=%02X" % byte[0][0], name.encode(errors="surrogatepass")).decode("ascii")
    if len(token) > MAX_ENCODED:
        return "~" + hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=20).hexdigest()
    return token or "="


def prefix_of(prefix: str, name: str) -> str:
    """The prefix of the topics of a broker that has a name.

    No prefix that a URL gives can be the same, nor a topic of the main broker.

    Args:
        prefix: what the topics of the main broker begin with.
        name: the broker's.

    Raises:
        InvalidNameError: it is not a name that a broker can have.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidNameError(f"the name of a broker has 1 to 32 letters, digits, - and _, not {name!r:.80}")
    return prefix if name == MAIN else f"{prefix}.name={name}"


class Topics:
    """The topics of one cluster.

    Attributes:
        all: messages to all clients.
        nodes: what a node says to all nodes.
        kinds: where the engine keeps which kinds of rooms have a history.
        secret: where it keeps a key that all nodes share.
    """

    def __init__(self, prefix: str) -> None:
        """
        Args:
            prefix: what their names begin with.
        """
        self._prefix = prefix
        self.all = f"{prefix}.all"
        self.nodes = f"{prefix}.nodes"
        self.kinds = f"{prefix}.history.kinds"
        self.secret = f"{prefix}.history.secret"

    def node(self, node_id: str) -> str:
        """The topic of one node: what is for it alone."""
        return f"{self._prefix}.node.{node_id}"

    def room(self, room: str) -> str:
        """The topic of messages to a room."""
        return f"{self._prefix}.room.{encode_name(room)}"

    def user(self, user_id: str) -> str:
        """The topic of messages to all clients of a user."""
        return f"{self._prefix}.user.{encode_name(user_id)}"

    def stream(self, id_: str) -> str:
        """The topic of a stream that is of no room."""
        return f"{self._prefix}.stream.{encode_name(id_)}"

    def of(self, kind: Literal["room", "user"], name: str) -> str:
        """The topic of a room or of a user."""
        return self.room(name) if kind == "room" else self.user(name)
