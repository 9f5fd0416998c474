"""One client of `benchmarks.connections.load`: it says who it is and gets a welcome. Knows not what is measured."""

from __future__ import annotations

import base64
import json
import os
import time

from benchmarks.client import Client, frames, masked, whole_frames
from benchmarks.connections.visits import ORIGINS, USERS, room_of, token_of, welcome

__all__ = ["Visitor"]

PING, PONG = 0x89, 0x8A
PING_HEAD = bytes([PING, 4])
"""How a server's keepalive ping begins. Messages are ASCII, and have it nowhere."""


class Visitor(Client):
    """A connection that shows its page's origin and a token, and answers pings. Its welcome is its first message.

    Args:
        port: where the server listens.
        number: which client it is.
        rooms: how many rooms the clients are spread over.
        due: when it was to come (monotonic, ns); 0 where that is not looked at.
    """

    def __init__(self, port: int, number: int, rooms: int, due: int = 0) -> None:
        self.number = number
        self.due = due
        super().__init__(port, deflate=False, room=room_of(number, rooms))

    def _hello(self) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.send(
            f"GET /ws?token={token_of(self.number)}&room={self._room} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f"Connection: Upgrade\r\nUpgrade: websocket\r\nOrigin: {ORIGINS[0]}\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def _opening(self, data: bytes) -> int:
        super()._opening(data)
        # The welcome may have come together with the answer to the handshake, and then nothing else comes to be read.
        end, count = whole_frames(self._rest) if self.opened else (0, 0)
        if count:
            self.chunks.append(self._rest[:end])
            self.times.append(time.monotonic_ns())
            self.counts.append(count)
            self._rest = self._rest[end:]
        return count

    def read(self) -> int:
        """Take what has come; how many messages that were, without pings."""
        count = super().read()
        return self._answer() if count and PING_HEAD in self.chunks[-1] else count

    def _answer(self) -> int:
        """Answer the pings among what came last, and forget them; how many messages are left."""
        data, came = self.chunks.pop(), self.times.pop()
        count = self.counts.pop()
        kept = b""
        at = 0
        for first, start, end in frames(data):
            if first == PING:
                self.socket.send(masked(data[start:end], PONG))
                count -= 1
            else:
                kept += data[at:end]
            at = end
        if count:
            self.chunks.append(kept)
            self.times.append(came)
            self.counts.append(count)
        return count

    def waited(self) -> int:
        """Nanoseconds from when it was to come to its first message; -1 where there is none."""
        return self.times[0] - self.due if self.times else -1

    def is_welcomed(self) -> bool:
        """Whether all that has come is the welcome of this client; what has come is forgotten then."""
        payloads, _ = self.take()
        expected = {"event": "welcome", "data": welcome(USERS[token_of(self.number)], self._room)}
        return [json.loads(payload) for payload in payloads] == [expected]
