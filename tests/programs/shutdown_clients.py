"""Many clients of a server that stops, in one process: plain sockets, frames by hand.

Arguments: the port, how many clients, and how many messages each sends in a second. Prints `ready` when all of them
send. A line on its standard input says that the server has gone; then it prints one line of JSON: what became of each
client. Times are those of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any

from tests.programs.shutdown_sizes import ANSWER_EVERY, HALF_DONE, LAST_WORDS, LATE, STUCK
from tests.support.machine import waited_for_a_processor

DEADLINE = 60.0


class Client(asyncio.Protocol):
    """One connection. `kind` is what it does: `sends`, `stuck` (never reads), `late` (reads once others have gone)."""

    def __init__(self, name: str, kind: str) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.kind = kind
        self.connected: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.sent = 0
        self.answers = 0
        self.stuffing = 0
        self.published: int | None = None
        self.wrong: list[str] = []
        self.code = 0
        self.reason = ""
        self.told_at: float | None = None
        self.gone_at: float | None = None
        self.transport: asyncio.Transport
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.write(handshake("/ws"))

    def send(self, event: str, data: Any = None) -> None:
        """Send a message, masked with zeros (RFC 6455, section 5.2)."""
        payload = json.dumps({"event": event, "data": data}).encode()
        self.transport.write(bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload)

    def send_next(self) -> None:
        """Send the next numbered message, while the connection is open."""
        if not self.transport.is_closing():
            self.send("n", [self.name, self.sent])
            self.sent += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self.connected.done():
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head:
                self.connected.set_exception(ConnectionError(head.decode()))
                return
            self.connected.set_result(None)
            self._buffer = rest
            if self.kind != "sends":
                self.transport.pause_reading()
                self.send("stuff")
                return
        at = 0
        buffer = self._buffer
        while len(buffer) >= at + 2:
            start, length = at + 2, buffer[at + 1]
            if length == 126:
                start, length = at + 4, int.from_bytes(buffer[at + 2 : at + 4], "big")
            elif length == 127:
                start, length = at + 10, int.from_bytes(buffer[at + 2 : at + 10], "big")
            if len(buffer) < max(start, start + length):
                break
            self._frame(buffer[at], bytes(buffer[start : start + length]))
            at = start + length
        del buffer[:at]

    def _frame(self, head: int, payload: bytes) -> None:
        if self.told_at is not None:
            self.wrong.append(f"after the close frame: {payload[:60]!r}")
        elif head == 0x88:
            self._told(payload)
        elif head == 0x81:
            message = json.loads(payload)
            event, data = message["event"], message["data"]
            if event == "a":
                self._expect(event, self.answers * ANSWER_EVERY, data)
                self.answers += 1
            elif event == "s":
                self._expect(event, self.stuffing, data[0])
                self.stuffing += 1
            elif event == "b":
                self._expect(event, data if self.published is None else self.published + 1, data)
                self.published = data
            else:
                self.wrong.append(repr(message))
        elif head != 0x89:
            self.wrong.append(f"a frame 0x{head:x}")

    def _expect(self, event: str, expected: int, number: int) -> None:
        if number != expected:
            self.wrong.append(f"{event} {number} where {expected} was next")

    def _told(self, payload: bytes) -> None:
        self.told_at = time.monotonic()
        self.code, self.reason = int.from_bytes(payload[:2], "big"), payload[2:].decode()
        if self.kind == "sends":
            for _ in range(LAST_WORDS):
                self.send_next()
            read_late()
        self.transport.write(b"\x88\x82\x00\x00\x00\x00\x03\xf4")

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone_at = time.monotonic()
        if not self.connected.done():
            self.connected.set_exception(ConnectionError("closed before the handshake was answered"))
        self.gone.set_result(None)

    def report(self) -> dict[str, Any]:
        """What became of it."""
        names = ("name", "kind", "sent", "answers", "stuffing", "wrong", "code", "reason", "told_at", "gone_at")
        return {name: getattr(self, name) for name in names}


late: list[Client] = []


def read_late() -> None:
    """Let those read who have waited for the end to begin."""
    for client in late:
        client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
        client.transport.resume_reading()
    late.clear()


def handshake(path: str) -> bytes:
    """The request for a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


async def connect(port: int, name: str, kind: str) -> Client:
    """A client whose handshake is done."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    if kind != "sends":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    _, client = await loop.create_connection(lambda: Client(name, kind), sock=sock)
    await client.connected
    return client


async def begun(port: int, data: bytes) -> asyncio.Task[tuple[str, float]]:
    """Send what is no complete handshake, which the server takes in this order; the task of `ended`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    return asyncio.create_task(ended(reader, writer))


async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, float]:
    """The first line of what came back until the end, and when that was."""
    try:
        answer = (await reader.read()).partition(b"\r\n")[0].decode()
    except ConnectionError:
        answer = "reset"
    ended_at = time.monotonic()
    writer.close()
    return answer, ended_at


async def send_all(clients: list[Client], rate: float) -> None:
    """Send from everyone in turn, spread evenly."""
    loop = asyncio.get_running_loop()
    slices = 50
    start, turn = loop.time(), 0
    while True:
        for client in clients[turn % slices :: slices]:
            if client.told_at is None:
                client.send_next()
        turn += 1
        await asyncio.sleep(start + turn / (slices * rate) - loop.time())


async def main(port: int, count: int, rate: float) -> None:
    """Connect, send until the server has gone, report."""
    clients: list[Client] = []
    for at in range(0, count, 25):
        several = [connect(port, f"c{number}", "sends") for number in range(at, min(count, at + 25))]
        clients += await asyncio.gather(*several)
    stuck = [await connect(port, f"stuck{number}", "stuck") for number in range(STUCK)]
    late.extend([await connect(port, f"late{number}", "late") for number in range(LATE)])
    everyone = [*clients, *stuck, *late]
    half = [await begun(port, handshake("/ws?never=1")) for _ in range(HALF_DONE // 2)]
    half += [await begun(port, handshake("/ws")[:90]) for _ in range(HALF_DONE - HALF_DONE // 2)]
    malformed = await begun(port, handshake("/ws").replace(b"Sec-WebSocket-Version: 13", b"nonsense: 1"))
    await asyncio.wait([malformed])  # so the server has taken all that came before it
    sending = asyncio.create_task(send_all(clients, rate))
    while min(client.sent for client in clients) < rate or not all(client.answers for client in clients):
        await asyncio.sleep(0.02)
    waited = waited_for_a_processor()
    print("ready", flush=True)
    # Who never reads does not see the end either, and stays until the server has gone.
    await asyncio.gather(*[client.gone for client in everyone if client.kind != "stuck"], *half)
    sending.cancel()
    await asyncio.to_thread(sys.stdin.readline)
    for client in stuck:
        client.transport.abort()
    report = {
        "clients": [client.report() for client in everyone if client.kind != "stuck"],
        "half": [task.result() for task in half],
        "malformed": malformed.result(),
        "waited": waited_for_a_processor() - waited,
    }
    print(json.dumps(report), flush=True)


async def in_time() -> None:
    """The whole, with a deadline."""
    async with asyncio.timeout(DEADLINE):
        await main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))


asyncio.run(in_time())
