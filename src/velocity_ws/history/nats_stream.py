"""The stream in which a NATS server keeps logs: what it is called, what it must be like, and the names in it.

Knows no log's content. The stream is made where there is none. One that is there is taken as it is, so that who runs
the server may limit or move it, where it has what logs rest on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

from velocity_ws.errors import SettingsError
from velocity_ws.history.jetstream import JetStream

__all__ = ["OLDEST_SERVER", "Names", "check_version", "key_name", "open_stream", "token"]

OLDEST_SERVER: Final = (2, 11)
"""The oldest nats-server that has what is used; the oldest that is tested."""
_NO_STREAM, _EXISTS = 10059, 10058
_NOT_HERE = (10039, 10076)
_ALONE = 10074
"""Codes of errors: JetStream is not enabled for the account, or not at all; there is no cluster."""


class Names:
    """The subjects of a stream. A topic is one token in them, with ``!`` for each dot.

    Attributes:
        stream: the name of the stream.
        subjects: what it takes.
        live: what is published to the topics as well.
    """

    def __init__(self, prefix: str) -> None:
        """
        Args:
            prefix: of the application's topics.
        """
        self.stream = f"{prefix}-history"
        self._root = f"{prefix}+history"
        self.subjects = f"{self._root}.>"
        self.live = f"{self._root}.s.h.*"

    @property
    def wanted(self) -> dict[str, Any]:
        """What the stream must be like; see `open_stream`."""
        return {
            "name": self.stream,
            "subjects": [self.subjects],
            "max_msgs_per_subject": 1,
            "republish": {"src": self.live, "dest": "{{split(1,!)}}"},
        }

    def head(self, topic: str) -> str:
        """A log's newest entry, or notice, with its head; it is published to the topic."""
        return f"{self._root}.s.h.{token(topic)}"

    def quiet(self, topic: str) -> str:
        """A head alone, that nobody hears; the newer of the two is valid."""
        return f"{self._root}.s.q.{token(topic)}"

    def heads(self, topic: str) -> str:
        """The subjects of both messages that have a log's head."""
        return f"{self._root}.s.*.{token(topic)}"

    def slot(self, topic: str, slot: str) -> str:
        """An entry that is not the newest; ``*`` for all."""
        return f"{self._root}.e.{slot}.{token(topic)}"

    def key(self, topic: str, key: str) -> str:
        """The result of an append with an idempotency key."""
        return f"{self._root}.k.{key}.{token(topic)}"

    def removals(self, topic: str) -> str:
        """The record of the users that were removed from a room."""
        return f"{self._root}.r.{token(topic)}"

    def secret(self, name: str) -> str:
        """A secret that stores share."""
        return f"{self._root}.x.{token(name)}"

    @property
    def anchor(self) -> str:
        """A message that is always there, where the stream has replicas."""
        return f"{self._root}.a"

    def kept(self, name: str) -> str:
        """A value that stores share, which may change."""
        return f"{self._root}.v.{token(name)}"


def key_name(key: str) -> str:
    """The name of an idempotency key, which may be any text."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def check_version(version: str, keeps: str = "history") -> None:
    """Check that a server has what is used.

    Raises:
        SettingsError: it is too old.
    """
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    if numbers < list(OLDEST_SERVER):
        needed = ".".join(map(str, OLDEST_SERVER))
        raise _problem(f"nats-server {version} is too old for {keeps}; at least {needed} is needed")


async def open_stream(
    stream: JetStream, special: Mapping[str, Any], storage: Literal["file", "memory"], replicas: int, *, keeps: str
) -> None:
    """Make the stream, or look at the one that is there.

    Args:
        stream: connected; it is told how many replicas there are.
        special: what the stream must be like, beside what all of ours are like: its name, its subjects, how many
            messages each of them has, and what is published to topics.
        storage: where it is kept, if it is made.
        replicas: how many servers keep it, if it is made; 0 for what is usual.
        keeps: what it is for, in a word.

    Raises:
        SettingsError: the server has no JetStream, or is too old, or the stream that is there is no good.
        ConnectionError: it did not answer, or cannot make it now.
    """
    name = special["name"]
    wanted: dict[str, Any] = {
        **special,
        "storage": storage,
        "max_age": 0,
        "retention": "limits",
        "discard": "new",
        "allow_direct": True,
        "allow_msg_ttl": True,
    }
    check_version(str(stream.server.get("version", "")), keeps)
    try:
        answer = await stream.api(f"STREAM.INFO.{name}")
        if _code(answer) == _NO_STREAM:
            answer = await stream.api(f"STREAM.CREATE.{name}", wanted | {"num_replicas": replicas or 1})
            if _code(answer) == _EXISTS:  # another was first
                answer = await stream.api(f"STREAM.INFO.{name}")
    except ConnectionError:
        if stream.server.get("jetstream"):
            raise
        raise _problem(f"nats-server keeps no {keeps} without JetStream; start it with -js") from None
    if _code(answer) in _NOT_HERE:
        raise _problem(f"this account of the nats-server keeps no {keeps}; enable JetStream for it")
    if _code(answer) == _ALONE:
        raise _problem(f"replicas={replicas} needs a cluster of NATS servers, and this one is alone")
    if "error" in answer:
        description = answer["error"].get("description", "")
        raise ConnectionError(f"nats-server does not make the stream {name}: {description}")
    config = answer.get("config", {})
    _check(config, wanted, name, keeps)
    stream.replicas = config.get("num_replicas", 1)


def _check(config: dict[str, Any], wanted: dict[str, Any], name: str, keeps: str) -> None:
    """Check that a stream is as it must be.

    Raises:
        SettingsError: it is not.
    """
    found = {field: config.get(field) for field in wanted}
    republish = found["republish"] or {}
    found["republish"] = {field: republish.get(field) for field in wanted["republish"]}
    for field, value in wanted.items():
        if found[field] != value and not (field == "storage" and value == "file"):
            is_not = f"has {field} {found[field]!r}, which for {keeps} must be {value!r}"
            raise _problem(f"the stream {name} {is_not}; remove it")


def _code(answer: dict[str, Any]) -> int:
    code: int = answer.get("error", {}).get("err_code", 0)
    return code


def _problem(text: str) -> SettingsError:
    return SettingsError({"WS_BACKPLANE_URL": text})


def token(topic: str) -> str:
    """A topic as one token of a subject."""
    return topic.replace(".", "!")
