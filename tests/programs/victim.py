"""A client that echoes every 10 ms, whatever happens, and says how long each echo took.

Arguments: port, and ``tls`` where it is to speak that. Prints ``ready`` when echoes come back; a line on stdin begins
the measurement, the next one ends it, and then it prints one line of JSON, in milliseconds.
"""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import sys
import time
from collections import deque

from tests.support.machine import waited_for_a_processor
from tests.support.wire import frame, handshake

INTERVAL = 0.01
ECHO = frame(0x81, b'{"event":"echo","data":1,"id":1}')
PATIENCE = 15.0
"""Seconds after the end in which what is missing may still come."""


def connected(port: int, *, tls: bool) -> socket.socket:
    """A connection."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        sock = context.wrap_socket(sock)
    return sock


def main(port: int, *, tls: bool) -> None:
    """Echo until told to stop."""
    sock = connected(port, tls=tls)
    sock.sendall(handshake())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(4096)
    sock.sendall(ECHO)
    size = len(sock.recv(4096))  # all answers are the same
    sent: deque[float] = deque()
    took: list[float] = []
    got = 0
    lines = 0
    waited = 0.0
    due = time.monotonic()
    end = 0.0
    print("ready", flush=True)
    while not end or (sent and time.monotonic() < end + PATIENCE):
        now = time.monotonic()
        if now >= due and not end:
            # Those that should have been sent while this process did not run were not late for the server's sake.
            due = max(due + INTERVAL, now)
            sent.append(time.monotonic())
            sock.sendall(ECHO)
        ready, _, _ = select.select([sock, *([] if end else [sys.stdin])], [], [], max(0.0, min(due - now, 0.1)))
        if sock in ready:
            data = sock.recv(1 << 16)
            while isinstance(sock, ssl.SSLSocket) and sock.pending():  # which no select tells of
                data += sock.recv(1 << 16)
            now = time.monotonic()
            if not data:
                break
            got += len(data)
            while got >= size and sent:
                got -= size
                took.append((now - sent.popleft()) * 1000)
        if sys.stdin in ready:
            os.read(0, 100)
            lines += 1
            if lines == 1:
                took.clear()
                waited = waited_for_a_processor()
            else:
                end = time.monotonic()
                waited = waited_for_a_processor() - waited
    took.sort()
    at = [round(took[min(len(took) - 1, int(len(took) * share))], 2) for share in (0.5, 0.99)] if took else [0.0, 0.0]
    saw = {
        "echoes": len(took),
        "missing": len(sent),
        "p50": at[0],
        "p99": at[1],
        "max": round(max(took, default=0.0), 2),
    }
    print(json.dumps({**saw, "waited": waited}), flush=True)


main(int(sys.argv[1]), tls="tls" in sys.argv)
