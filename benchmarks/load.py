"""All clients, in one process: raw sockets and one selector, and as little as possible for each message.

While messages arrive it only counts frames and keeps bytes and times. Every message is decoded and checked afterwards.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.client import BINARY, CLOSE, Client, SocketIOClient, masked

HANDSHAKES_AT_ONCE = 50
PATIENCE = 3.0
"""Seconds without any message until what has not arrived counts as lost."""
GRANT = 4
"""Messages after which their sender hears of them, if it wants to."""
CLIENTS: dict[str, type[Client]] = {"plain": Client, "socketio": SocketIOClient}


def faults_in(got: Sequence[int], due: range) -> int:
    """How many numbers are missing, come again, were not to come, or come before a smaller one."""
    distinct = set(got)
    lost, foreign = len(set(due) - distinct), len(distinct - set(due))
    duplicated = len(got) - len(distinct)
    disordered = sum(a > b for a, b in itertools.pairwise(got))
    return lost + foreign + duplicated + disordered


class Load:
    """The clients, and what they can be told."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._clients: list[Client] = []
        self._counted = 0
        self._began = (0.0, 0.0)
        self._lines = b""
        self._selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        self._on_message: Callable[[Client, int], None] | None = None
        self._credit: socket.socket | None = None
        self._granted = 0

    def next_command(self) -> dict[str, Any] | None:
        """Serve the clients until there is a command; ``None`` at the end of stdin."""
        while b"\n" not in self._lines:
            if not self._turn(None):
                return None
        line, _, self._lines = self._lines.partition(b"\n")
        command: dict[str, Any] = json.loads(line)
        return command

    def _turn(self, timeout: float | None) -> bool:
        for key, _ in self._selector.select(timeout):
            client = key.data
            if client is None:
                read = os.read(key.fd, 65536)
                if not read:
                    return False
                self._lines += read
                continue
            count = client.read()
            if count:
                self._counted += count
                if self._on_message is not None:
                    self._on_message(client, count)
            elif client.ended:
                self._selector.unregister(client.socket)
                client.socket.close()
        if self._credit is not None and self._clients:
            self._grant(self._credit)
        return True

    def _grant(self, credit: socket.socket) -> None:
        """Tell the sender how many messages have reached everyone, on the whole."""
        granted = self._counted // len(self._clients)
        if granted >= self._granted + GRANT:
            self._granted = granted
            credit.send(granted.to_bytes(8))

    def _until(self, done: Callable[[], bool], progress: Callable[[], Any], look: float = 0.1) -> bool:
        """Serve the clients until it is done, which is looked at every so many seconds; false where nothing moves for
        too long."""
        last, moved = progress(), time.monotonic()
        while not done():
            self._turn(look)
            now = progress()
            if now != last:
                last, moved = now, time.monotonic()
            elif time.monotonic() - moved > PATIENCE:
                return False
        return True

    def _open(self, port: int, framing: str, *, deflate: bool, room: str) -> Client:
        client = CLIENTS[framing](port, deflate=deflate, room=room)
        self._register(client)
        return client

    def _register(self, client: Client) -> None:
        self._selector.register(client.socket, selectors.EVENT_READ, client)

    def keep(self, clients: int) -> dict[str, Any]:
        """Close all but the first ones, without a goodbye."""
        for client in self._clients[clients:]:
            if not client.ended:
                self._selector.unregister(client.socket)
                client.socket.close()
        del self._clients[clients:]
        return {}

    def connect(
        self, port: int, clients: int, framing: str, deflate: bool, rooms: int = 0, room: str = ""
    ) -> dict[str, Any]:
        """Connect new clients, in place of those that there were, all in that room.

        With ``rooms`` they are spread over that many, whose names are that of the room and a number.
        """
        self.keep(0)
        while (made := len(self._clients)) < clients:
            numbers = range(made, min(clients, made + HANDSHAKES_AT_ONCE))
            rooms_of = [f"{room}{number % rooms}" if rooms else room for number in numbers]
            batch = [self._open(port, framing, deflate=deflate, room=name) for name in rooms_of]
            self._clients += batch
            self._handshakes(batch)
        gc.collect()
        gc.freeze()  # the collector would go over thousands of clients while messages come
        return {}

    def _handshakes(self, clients: list[Client]) -> None:
        def opened() -> int:
            return sum(client.opened for client in clients)

        def done() -> bool:
            return all(client.opened or client.ended for client in clients)

        if not self._until(done, opened):
            raise RuntimeError("a handshake was not answered")
        if any(client.ended for client in clients):
            raise RuntimeError("closed during the handshake")

    def expect(self, credit: int = 0) -> dict[str, Any]:
        """Messages will come from now on; whoever listens on the port of that number is told how many have."""
        self._counted = self._granted = 0
        if self._credit is not None:
            self._credit.close()
        self._credit = socket.create_connection(("127.0.0.1", credit)) if credit else None
        self._start()
        return {}

    def _start(self) -> None:
        self._began = (time.perf_counter(), time.process_time())

    def _busy(self) -> float:
        seconds = time.perf_counter() - self._began[0]
        return (time.process_time() - self._began[1]) / seconds

    def wait(self, each: int) -> dict[str, Any]:
        """Wait until every client has so many; how busy this process was since `expect`, 0 to 1."""
        due = each * len(self._clients)
        self._until(lambda: self._counted >= due, lambda: self._counted)  # `check` says what is missing
        return {"busy": self._busy()}

    def check(self, first: int, each: int) -> dict[str, Any]:
        """Decode everything since `expect` and compare it with what was to come; when and how late it came."""
        faults = 0
        latencies: list[int] = []
        begin, end = sys.maxsize, 0
        due = range(first, first + each)
        wire = 0
        for client in self._clients:
            payloads, times = client.take()
            wire += client.wire
            got = []
            for payload, came in zip(payloads, times, strict=True):
                data = client.decode(payload)
                got.append(data["seq"])
                begin = min(begin, data["t"])
                latencies.append(came - data["t"])
            end = max(end, times[-1] if times else 0)
            faults += faults_in(got, due)
        latencies.sort()
        count = len(latencies)
        return {
            "deliveries": count,
            "wire": wire / max(count, 1),
            "faults": faults,
            "seconds": (end - begin) / 1e9 if count else 0.0,
            "p50": latencies[count // 2] / 1e3 if count else 0.0,
            "p99": latencies[int(count * 0.99)] / 1e3 if count else 0.0,
        }

    def echo(self, each: int, size: int, first: int) -> dict[str, Any]:
        """Every client sends its next message when the last is answered, so many times; checks the answers."""
        encode = self._clients[0].encode
        room = size - len(encode("echo", {"seq": 1000, "text": ""}))
        messages = [masked(encode("echo", {"seq": first + n, "text": "x" * room})) for n in range(each)]
        sent = dict.fromkeys(self._clients, 1)

        def answer(client: Client, count: int) -> None:
            for _ in range(count):
                if (number := sent[client]) < each:
                    sent[client] = number + 1
                    client.socket.send(messages[number])

        due = each * len(self._clients)
        self.expect()
        start = time.monotonic()
        self._on_message = answer
        try:
            for client in self._clients:
                client.socket.send(messages[0])
            self._until(lambda: self._counted >= due, lambda: self._counted)
        finally:
            self._on_message = None
        seconds, busy = time.monotonic() - start, self._busy()
        faults = 0
        for client in self._clients:
            got = [client.decode(payload)["seq"] for payload in client.take()[0]]
            faults += faults_in(got, range(first, first + each))
        return {"deliveries": self._counted, "faults": faults, "busy": busy, "seconds": seconds}

    def talk(self, size: int, at_once: int) -> dict[str, Any]:
        """Every client sends a text and a binary message, and gets both back; so many clients at a time."""
        text = masked(self._clients[0].encode("echo", {"seq": 0, "text": "x" * size}))
        self.expect()
        for first in range(0, len(self._clients), at_once):
            speakers = self._clients[first : first + at_once]
            for client in speakers:
                client.socket.send(text + masked(bytes(size), BINARY))
            due = 2 * (first + len(speakers))
            if not self._until(lambda due=due: self._counted >= due, lambda: self._counted):  # type: ignore[misc]
                raise RuntimeError("a message was not answered")
        for client in self._clients:
            client.forget()
        return {"deliveries": self._counted}

    def churn(self, port: int, framing: str, count: int, at_once: int) -> dict[str, Any]:
        """Connect, send a close frame, wait for the answer and the end; so many in all, so many at a time."""
        self.keep(0)
        goodbye = masked((1000).to_bytes(2), CLOSE)
        live: dict[Client, bool] = {}
        begun = finished = clean = 0
        self._start()

        def turn() -> bool:
            nonlocal begun, finished, clean
            while begun < count and len(live) < at_once:
                live[self._open(port, framing, deflate=False, room="")] = False
                begun += 1
            for client, said in list(live.items()):
                if client.ended:
                    clean += client.close_code() == 1000
                    finished += 1
                    del live[client]
                elif client.opened and not said:
                    client.socket.send(goodbye)
                    live[client] = True
            return finished >= count

        whole = self._until(turn, lambda: finished)
        for client in live:
            self._selector.unregister(client.socket)
            client.socket.close()
        return {"deliveries": finished, "faults": count - clean if whole else count - finished, "busy": self._busy()}


COMMANDS = ("connect", "keep", "expect", "wait", "check", "echo", "talk", "churn")


def obey(load: Load, commands: Sequence[str]) -> None:
    """Do as told until stdin is closed."""
    handlers = {name: getattr(load, name) for name in commands}
    print(json.dumps({}), flush=True)
    while (arguments := load.next_command()) is not None:
        print(json.dumps(handlers[arguments.pop("command")](**arguments)), flush=True)


if __name__ == "__main__":
    obey(Load(), COMMANDS)
