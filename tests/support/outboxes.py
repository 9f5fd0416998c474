"""Outboxes of both kinds, each with a client that reads when a test lets it."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from typing import Any

from tests.support import eventually
from velocity_ws.delivery.flusher import Flusher
from velocity_ws.delivery.outbox import Outbox
from velocity_ws.delivery.queue_outbox import QueueOutbox
from velocity_ws.delivery.transport_outbox import TransportOutbox
from velocity_ws.messages.outbound import encode
from velocity_ws.stats import Counters

__all__ = ["LIMIT", "QueueRig", "Rig", "TransportRig"]


LIMIT = 1000


class Owner:
    """Closes an outbox that is full, as a session does."""

    def __init__(self) -> None:
        self.full = 0
        self.broken = 0
        self.lost: list[tuple[str, str, str]] = []
        self.outbox: Outbox | None = None

    def outbox_full(self) -> None:
        self.full += 1
        if self.outbox is not None:
            self.outbox.close(1013, "too slow", discard=True)

    def outbox_dropped(self) -> None: ...

    def outbox_lost(self, room: str, before: str, at: str) -> None:
        self.lost.append((room, before, at))

    def outbox_broken(self) -> None:
        self.broken += 1


class Rig(ABC):
    """An outbox, and a client that reads or does not."""

    outbox: Outbox

    def __init__(self) -> None:
        self.counters = Counters()
        self.owner = Owner()
        self.seen: list[Any] = []

    @abstractmethod
    async def hold(self) -> None:
        """The client reads no more, and whatever lies between it and the outbox is full."""

    @abstractmethod
    def read(self) -> None:
        """The client reads again."""

    def offer(self, *data: Any) -> list[bool]:
        return [self.outbox.offer(encode("e", item)) for item in data]

    async def sees(self, *expected: Any) -> None:
        await eventually(lambda: len(self.seen) >= len(expected))
        assert self.seen == list(expected)

    def note(self, content: bytes) -> None:
        message = json.loads(content)
        data = message["data"]
        if message["event"] == "gap":
            data = f"gap {data['dropped']}" if "dropped" in data else data
        self.seen.append(data)


class QueueRig(Rig):
    """`QueueOutbox` over an ASGI ``send`` that waits while the client does not read."""

    def __init__(self, drop: bool) -> None:
        super().__init__()
        self._open = asyncio.Event()
        self._open.set()
        self._held = 0
        queue = QueueOutbox(self._send, self.owner, self.counters, limit=LIMIT, drop=drop)
        self.outbox = self.owner.outbox = queue

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        await self._open.wait()
        if message["type"] == "websocket.close":
            self.seen.append(f"close {message['code']}")
        elif message.get("bytes") is not None:
            self.seen.append(message["bytes"])
        elif json.loads(message["text"])["data"] != "held":
            self.note(message["text"].encode())

    async def hold(self) -> None:
        self._open.clear()

    def read(self) -> None:
        self._open.set()


class TransportRig(Rig):
    """`TransportOutbox` on a transport that is paused while the client does not read."""

    def __init__(self, drop: bool) -> None:
        super().__init__()
        self.is_paused = False
        self.writes: list[bytes] = []
        self._closing = False
        self.flusher = Flusher()
        outbox = TransportOutbox(
            self, self.owner, self.counters, self.flusher, window_bits=0, burst=LIMIT // 2, limit=LIMIT, drop=drop
        )
        self.direct = self.outbox = self.owner.outbox = outbox

    @property
    def transport(self) -> Any:
        return self

    def write(self, data: bytes) -> None:
        self.writes.append(data)
        while data:
            size, at = data[1], 2
            if size == 126:
                size, at = int.from_bytes(data[2:4], "big"), 4
            payload, is_text = data[at : at + size], data[0] & 0xF == 1
            data = data[at + size :]
            if is_text:
                self.note(payload)
            else:
                self.seen.append(payload)

    def is_closing(self) -> bool:
        return self._closing

    def send_close(self, code: int, reason: str) -> None:
        self.seen.append(f"close {code}")

    def abort(self) -> None:
        self._closing = True

    async def ping(self) -> float | None:
        return 0.5

    async def hold(self) -> None:
        self.is_paused = True
        self.direct.pause()

    def read(self) -> None:
        self.is_paused = False
        self.direct.resume()
