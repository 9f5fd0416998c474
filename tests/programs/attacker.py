"""A client that attacks a server on this machine for some seconds, and connects again at once when it is closed.

Arguments: port, kind, seconds. At the end prints a line of JSON: how its connections ended, and the slowest to end.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass

from tests.support.wire import DEFLATE, CloseFinder, bomb, frame, handshake

BOMB_FRAGMENTS = 16
PATIENCE = 2.0
"""Seconds in which the last one is to be closed as well; either side may be held up for a part of it."""
LARGE = {
    "large-arrays": b",".join([b"[]"] * 170_000),
    "large-objects": b",".join([b'{"a":1}'] * 64_000),
    "large-numbers": b",".join([b"1e5"] * 128_000),
    "large-strings": b'"%s"' % (b"x" * 510_000),
    "large-nesting": b"[" * 510_000,
    "large-nests": b",".join([b"[" * 400 + b"]" * 400] * 637),
}
"""Data of messages a little below the limit of 512 KiB, cheap to send and dear to handle."""


@dataclass(frozen=True)
class Kind:
    """How to attack.

    Attributes:
        first: what is sent first.
        again: what is sent from then on, again and again.
        reads: whether it reads what comes, and leaves when it is told to.
        headers: of its handshake.
    """

    first: bytes
    again: bytes
    reads: bool
    headers: str = ""


def kind_of(name: str) -> Kind:
    """The attack of that name."""
    match name:
        case "empty-fragments":
            return Kind(frame(0x01, b"x"), frame(0x00) * 10_000, reads=True)
        case "one-byte-fragments":
            return Kind(frame(0x01, b"x"), frame(0x00, b"y") * 10_000, reads=True)
        case "one-byte-messages":
            return Kind(b"", frame(0x81, b"x") * 10_000, reads=True)
        case "one-byte-messages-unread":
            return Kind(b"", frame(0x81, b"x") * 10_000, reads=False)
        case "small-messages":
            return Kind(b"", frame(0x81, b'{"event":"echo","data":1,"id":1}') * 5_000, reads=True)
        case "pings-unread":
            return Kind(b"", frame(0x89) * 10_000, reads=False)
        case "bomb":
            return Kind(b"", frame(0xC1, bomb(512)), reads=True, headers=DEFLATE)
        case "bomb-fragments":
            data = bomb(512)
            step = len(data) // BOMB_FRAGMENTS + 1
            parts = [data[at : at + step] for at in range(0, len(data), step)]
            first, *middle, last = parts
            frames = [frame(0x41, first), *[frame(0x00, part) for part in middle], frame(0x80, last)]
            return Kind(b"", b"".join(frames), reads=True, headers=DEFLATE)
        case "bomb-behind-a-fragment":
            data = bomb(512)
            return Kind(b"", frame(0x41, data[:10]) + frame(0x80, data[10:]), reads=True, headers=DEFLATE)
        case "long-fragments":
            return Kind(frame(0x01, b"x" * 33_000), frame(0x00, b"x" * 33_000), reads=True)
        case name if (kind := name.removesuffix("-malformed")) in LARGE:
            end = b"}" if kind == name else b",}"
            return Kind(b"", frame(0x81, b'{"event":"echo","id":1,"data":[%s]%s' % (LARGE[kind], end)) * 4, reads=True)
    raise ValueError(name)


def once(port: int, kind: Kind, until: float, source: str) -> tuple[int, float]:
    """One connection; the close code (0 where there was none) and the seconds from its attack to its end."""
    with socket.socket() as sock:
        # Nothing of it stays behind on this machine, which has only so many ports.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        sock.bind((source, 0))
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        sock.sendall(handshake(kind.headers))
        head = b""
        while b"\r\n\r\n" not in head:
            if not (data := sock.recv(4096)):
                return -1, 0.0
            head += data
        if b" 101 " not in head:
            return -2, 0.0
        began = time.monotonic()
        finder = CloseFinder()
        finder.feed(head.partition(b"\r\n\r\n")[2])
        sock.setblocking(False)
        wanted = select.POLLOUT | (select.POLLIN if kind.reads else 0)
        poll = select.poll()
        poll.register(sock, wanted)
        rest = memoryview(kind.first or kind.again)
        with contextlib.suppress(ConnectionError):
            while finder.code is None and time.monotonic() < max(until, began + PATIENCE):
                for _, what in poll.poll(50):
                    if what & select.POLLIN:
                        data = sock.recv(1 << 18)
                        if not data:
                            return 0, time.monotonic() - began
                        finder.feed(data)
                    if what & (select.POLLERR | select.POLLHUP):
                        raise ConnectionResetError
                    if what & select.POLLOUT:
                        with contextlib.suppress(BlockingIOError):
                            rest = rest[sock.send(rest) :]
                        rest = rest or memoryview(kind.again)
        ended = time.monotonic()
        with contextlib.suppress(OSError):  # what came before the end can be read after it
            while finder.code is None and (data := sock.recv(1 << 20)):
                finder.feed(data)
        return finder.code or 0, ended - began


def main(port: int, name: str, seconds: float) -> None:
    """Attack until the time is over."""
    os.nice(10)  # it stands for another machine: what it computes is not to be the server's loss
    kind = kind_of(name)
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.monotonic() + seconds
    codes: Counter[int] = Counter()
    slowest = 0.0
    number = 0
    while time.monotonic() < until:
        number += 1
        try:
            code, took = once(port, kind, until, f"127.0.0.{2 + number % 200}")
        except OSError as error:
            code, took = -(error.errno or 9999), 0.0
        if time.monotonic() < until or took > 1:
            codes[code] += 1
            slowest = max(slowest, took)
    print(json.dumps({"codes": codes, "slowest": slowest, "connections": number}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
