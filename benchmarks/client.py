"""One client of the load: its socket, its handshake, the frames that come. Knows the wire, not what is measured."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

__all__ = ["BINARY", "CLOSE", "Client", "SocketIOClient", "frames", "masked"]

FIN_TEXT, BINARY, COMPRESSED, CLOSE = 0x81, 0x82, 0x40, 0x88
READ = 65536


def frames(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Each whole frame of a server (RFC 6455, section 5.2): its first byte, where its payload begins and ends."""
    at, size = 0, len(data)
    while size - at >= 2:
        length = data[at + 1]
        start = at + 2
        if length >= 126:
            start += 2 if length == 126 else 8
            length = int.from_bytes(data[at + 2 : start])
        if start + length > size or start > size:
            return
        yield data[at], start, start + length
        at = start + length


def whole_frames(data: bytes) -> tuple[int, int]:
    """Where the last whole frame ends, and how many there are. `frames`, written out: it is called for every read."""
    count = at = 0
    size = len(data)
    while size - at >= 2:
        length = data[at + 1]
        end = at + 2 + length
        if length >= 126:
            start = at + (4 if length == 126 else 10)
            end = start + int.from_bytes(data[at + 2 : start])
            if start > size:
                break
        if end > size:
            break
        at = end
        count += 1
    return at, count


def masked(payload: bytes, first: int = FIN_TEXT) -> bytes:
    """A whole frame as a client sends it; at most 65,535 bytes."""
    size = len(payload)
    head = bytes([first, 0x80 | size]) if size < 126 else bytes([first, 0xFE, *size.to_bytes(2)])
    key = os.urandom(4)
    long_key = (key * (size // 4 + 1))[:size]
    return head + key + (int.from_bytes(payload) ^ int.from_bytes(long_key)).to_bytes(size)


class Client:
    """A connection. Until it is open it looks at what comes; then it counts frames and keeps the bytes and times.

    Args:
        port: where the server listens.
        deflate: whether to offer permessage-deflate as browsers do, and require it.
        room: of the query; empty for none.
    """

    PATH = "/ws?"

    def __init__(self, port: int, *, deflate: bool, room: str = "") -> None:
        self._port = port
        self._deflate = deflate
        self._room = room
        self._head = b""
        self._rest = b""
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self.chunks: list[bytes] = []
        self.times: list[int] = []
        self.counts: list[int] = []
        self.wire = 0
        self.opened = False
        self.ended = False
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))  # the backlog of a server that listens is taken by the kernel
        self.socket.setblocking(False)
        self._hello()

    def _hello(self) -> None:
        # What a browser offers (RFC 7692).
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" if self._deflate else ""
        key = base64.b64encode(os.urandom(16)).decode()
        room = f"room={self._room}" if self._room else ""
        self.socket.send(
            f"GET {(self.PATH + room).rstrip('?')} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n".encode()
        )

    def read(self) -> int:
        """Take what has come; how many messages that were. Raises RuntimeError on a handshake that was not meant."""
        try:
            data = self.socket.recv(READ)
        except BlockingIOError:
            return 0
        except ConnectionError:
            data = b""
        if not data:
            self.ended = True
            return 0
        if not self.opened:
            return self._opening(data)
        if self._rest:
            data = self._rest + data
            self._rest = b""
        end, count = whole_frames(data)
        if end < len(data):
            self._rest = data[end:]
            data = data[:end]
        if count:
            self.chunks.append(data)
            self.times.append(time.monotonic_ns())
            self.counts.append(count)
        return count

    def _opening(self, data: bytes) -> int:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return 0
        if not head.startswith(b"HTTP/1.1 101 ") or (b"permessage-deflate" in head) != self._deflate:
            raise RuntimeError(f"not the handshake that was asked for: {head!r}")
        self._rest = rest
        self.opened = self._greeted()
        return 0

    def _greeted(self) -> bool:
        """Whether messages may come now."""
        return True

    def take(self) -> tuple[list[bytes], list[int]]:
        """The payloads of all messages since the last time, decompressed, and when each came (monotonic, ns)."""
        data = b"".join(self.chunks)
        times = [time_ for time_, count in zip(self.times, self.counts, strict=True) for _ in range(count)]
        self.wire = len(data)
        self.forget()
        payloads = []
        for first, start, end in frames(data):
            if first != CLOSE:
                payloads.append(self._payload(first, data[start:end]))
        return payloads, times

    def forget(self) -> None:
        """Keep nothing of what has come."""
        self.chunks, self.times, self.counts = [], [], []

    def _payload(self, first: int, payload: bytes) -> bytes:
        if first == FIN_TEXT | COMPRESSED:
            return self._inflate.decompress(payload + b"\x00\x00\xff\xff")
        if first != FIN_TEXT:
            raise RuntimeError(f"not a text message in one frame: {first:#x} {payload[:16]!r}")
        return payload

    def decode(self, payload: bytes) -> dict[str, Any]:
        """The data of a message."""
        data: dict[str, Any] = json.loads(payload)["data"]
        return data

    @staticmethod
    def encode(event: str, data: dict[str, Any]) -> bytes:
        """A message as the server expects it."""
        return json.dumps({"event": event, "data": data}, separators=(",", ":")).encode()

    def close_code(self) -> int | None:
        """Of the close frame among what has come since the last time; ``None`` where there is none."""
        data = b"".join(self.chunks)
        codes = [int.from_bytes(data[start : start + 2]) for first, start, _ in frames(data) if first == CLOSE]
        return codes[-1] if codes else None


class SocketIOClient(Client):
    """The same in Engine.IO packets over the WebSocket transport; opened once ``40`` is answered by ``40``."""

    PATH = "/socket.io/?EIO=4&transport=websocket&"

    def _opening(self, data: bytes) -> int:
        if b"\r\n\r\n" not in self._head:
            return super()._opening(data)
        self._rest += data
        self.opened = self._greeted()
        return 0

    def _greeted(self) -> bool:
        data, taken = self._rest, 0
        packets = []
        for first, start, end in frames(data):
            packets.append(self._payload(first, data[start:end]))
            taken = end
        self._rest = data[taken:]
        if any(packet.startswith(b"0") for packet in packets):
            self.socket.send(masked(b"40"))
        return any(packet.startswith(b"40") for packet in packets)

    def decode(self, payload: bytes) -> dict[str, Any]:
        """The data of an event packet."""
        data: dict[str, Any] = json.loads(payload.removeprefix(b"42"))[1]
        return data

    @staticmethod
    def encode(event: str, data: dict[str, Any]) -> bytes:
        """An event packet."""
        return b"42" + json.dumps([event, data], separators=(",", ":")).encode()
