"""A client that floods a server: in a process of its own, so that it takes nothing but the server's time.

Prints the close code it got, if the server closed it.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading

FLOODS = {
    "pings": b"\x89\x80\x00\x00\x00\x00" * 1000,
    "empty fragments": b"\x01\x81\x00\x00\x00\x00x" + b"\x00\x80\x00\x00\x00\x00" * 1000,
    "one-byte fragments": b"\x01\x81\x00\x00\x00\x00x" + b"\x00\x81\x00\x00\x00\x00y" * 600_000,
}
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def main(port: int, kind: str) -> None:
    """Flood until the server or the test ends it."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(HANDSHAKE)
        sock.recv(4096)
        last = b""

        def read() -> None:
            nonlocal last
            with contextlib.suppress(OSError):
                while data := sock.recv(65536):
                    last = (last + data)[-200:]

        reader = threading.Thread(target=read)
        reader.start()
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(FLOODS[kind])
        reader.join(10)
        at = last.rfind(b"\x88")
        print(int.from_bytes(last[at + 2 : at + 4], "big") if at >= 0 else 0, flush=True)


main(int(sys.argv[1]), sys.argv[2])
