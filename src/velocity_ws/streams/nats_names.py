"""Names: what the stream of a NATS server that keeps streams is called and must be like, and what is in it. Pure.

A topic is one token of a subject, and so is an id, as a hash, with the prefix of its cluster.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from velocity_ws.history.nats_stream import token

__all__ = ["ROLLUP", "Names"]

ROLLUP: Final = b"Nats-Rollup: sub\r\n"
"""The header of a message that takes the place of all before it at its subject."""


class Names:
    """The subjects of a stream.

    Attributes:
        stream: the name of the stream.
        anchor: a message that is always there, where the stream has replicas.
        indexes: those of `index`, of all streams.
        turn: a message that is there while nobody needs to look for what is gone.
        mark: that there are streams in the cluster.
    """

    def __init__(self, prefix: str, application: str) -> None:
        """
        Args:
            prefix: of the cluster.
            application: the prefix of all its clusters.
        """
        self._prefix = prefix
        self._root = f"{application}+streams"
        self.stream = f"{application}-streams"
        self.anchor = f"{self._root}.a"
        self.indexes = f"{self._root}.i.*.*"
        self.turn = f"{self._root}.t"
        self.mark = f"{self._root}.m.{token(prefix)}"

    @property
    def wanted(self) -> dict[str, Any]:
        """What the stream must be like; see `open_stream`."""
        return {
            "name": self.stream,
            "subjects": [f"{self._root}.>"],
            "max_msgs_per_subject": -1,
            "allow_rollup_hdrs": True,
            "republish": {"src": f"{self._root}.s.p.*.*", "dest": "{{split(2,!)}}"},
        }

    def key(self, id_: str) -> str:
        """What an id is called, which may be any text; another one in each cluster."""
        return hashlib.sha256(f"{self._prefix}\0{id_}".encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def record(self, key: str) -> str:
        """What is known of a stream beside its pieces. One message, the time of which is that of the last renewal."""
        return f"{self._root}.s.r.{key}.r"

    def pieces(self, key: str, topic: str) -> str:
        """The pieces of a stream, which are published to its topic."""
        return f"{self._root}.s.p.{key}.{token(topic)}"

    def all_of(self, key: str) -> str:
        """Record and pieces of a stream."""
        return f"{self._root}.s.*.{key}.*"

    def index(self, topic: str, key: str) -> str:
        """That a topic has a stream; ``*`` for all. It has no expiry: what is left of a stream is found by it."""
        return f"{self._root}.i.{token(topic)}.{key}"

    def forbidden(self, key: str) -> str:
        """That a stream must not begin."""
        return f"{self._root}.f.{key}"
