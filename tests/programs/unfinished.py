"""Clients that each send a part of a message, answer pings, and connect again some time after they are closed.

Arguments: port, how many, bytes of each part, what they send after it (``nothing``, ``bytes`` or ``fragments``: a few
each second). Prints ``ready``; a line on stdin begins the attack, the next one ends it, and then it prints a line of
JSON: how many connections there were, and how they ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
from collections import Counter

from tests.support.wire import CloseFinder, frame, handshake

codes: Counter[int] = Counter()
PAUSE = 0.3
AWAY = 4.0
"""Seconds at most until one comes again; what 300 handshakes at once cost is another matter."""


async def attack(port: int, size: int, trickle: str) -> None:
    """One connection after the other."""
    start = frame(0x82, bytes(size + 100_000))[:size] if trickle == "bytes" else frame(0x02, bytes(size))
    while True:
        await asyncio.sleep(random.uniform(0, AWAY))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(handshake())
                await reader.readuntil(b"\r\n\r\n")
                writer.write(start)
                codes[await go_on(reader, writer, trickle)] += 1
            finally:
                writer.transport.abort()


async def go_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, trickle: str) -> int:
    """Until the server closes it; the code."""
    finder = CloseFinder()
    while finder.code is None:
        try:
            async with asyncio.timeout(PAUSE):
                data = await reader.read(65536)
        except TimeoutError:
            writer.write({"nothing": b"", "bytes": b"x", "fragments": frame(0x00, b"x")}[trickle])
            continue
        if not data:
            return 0
        if data[0] == 0x89:  # a ping of the server's, which is a read of its own here
            writer.write(frame(0x8A, data[2 : 2 + data[1]]))
        finder.feed(data)
    return finder.code


async def main(port: int, count: int, size: int, trickle: str) -> None:
    """Attack between two lines on stdin."""
    os.nice(10)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    attacks = [asyncio.create_task(attack(port, size, trickle)) for _ in range(count)]
    await asyncio.to_thread(sys.stdin.readline)
    for task in attacks:
        task.cancel()
    await asyncio.gather(*attacks, return_exceptions=True)
    print(json.dumps({"codes": codes}), flush=True)


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
