"""The clients of `benchmarks.load` that say who they are: they come and go, come at a pace, or talk at one.

A program of its own; those that only talk have another one, so that they need not wait for those that come.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.client import CLOSE, Client, masked
from benchmarks.connections.visitor import Visitor
from benchmarks.load import COMMANDS, HANDSHAKES_AT_ONCE, PATIENCE, Load, faults_in, obey

LATE_START = 0.02
"""Seconds after which a client that comes later than it should counts as late: the load's own fault."""
LATE_WELCOME = 1.0
"""Seconds after which a welcome counts as late."""


class Talk:
    """Clients that each say something again and again, whatever is answered.

    Args:
        clients: who talks.
        every: seconds from one message of a client to its next; all are spread evenly over them.
    """

    def __init__(self, clients: Sequence[Client], every: float) -> None:
        self._clients = clients
        self._step = int(every / len(clients) * 1e9)
        self._due = time.monotonic_ns()
        self._count = 0
        self._dues: list[list[int]] = [[] for _ in clients]

    def until_next(self) -> float:
        """Seconds until a message is due."""
        return max(0.0, (self._due - time.monotonic_ns()) / 1e9)

    def say(self) -> None:
        """Send what is due."""
        while self._due <= time.monotonic_ns():
            number = self._count % len(self._clients)
            client, dues = self._clients[number], self._dues[number]
            client.socket.send(masked(client.encode("echo", {"seq": len(dues), "text": "how are you"})))
            dues.append(self._due)
            self._due += self._step
            self._count += 1

    def said(self) -> int:
        """How many messages were sent."""
        return self._count

    def heard(self) -> tuple[list[int], int]:
        """How long answers took from when their messages were due (ns, sorted), and how many were wrong or none."""
        took, faults = [], 0
        for client, dues in zip(self._clients, self._dues, strict=True):
            payloads, times = client.take()
            got = [client.decode(payload)["seq"] for payload in payloads]
            faults += faults_in(got, range(len(dues)))
            took += [came - dues[seq] for seq, came in zip(got, times, strict=True) if seq < len(dues)]
        return sorted(took), faults


class Coming(Load):
    """Clients, and what they can be told."""

    def __init__(self) -> None:
        super().__init__()
        self._talk: Talk | None = None

    def _turn(self, timeout: float | None) -> bool:
        talk = self._talk
        if talk is None:
            return super()._turn(timeout)
        left = talk.until_next()
        goes_on = super()._turn(left if timeout is None else min(left, timeout))
        talk.say()
        return goes_on

    def _visit(self, port: int, number: int, rooms: int, due: int = 0) -> Visitor:
        visitor = Visitor(port, number, rooms, due)
        self._register(visitor)
        return visitor

    def settle(self, port: int, clients: int, rooms: int) -> dict[str, Any]:
        """Have that many clients come and stay, spread over rooms, and get their welcome."""
        self.keep(0)
        self._counted = 0
        self._start()
        while (made := len(self._clients)) < clients:
            numbers = range(made, min(clients, made + HANDSHAKES_AT_ONCE))
            batch: list[Client] = [self._visit(port, number, rooms) for number in numbers]
            self._clients += batch
            self._handshakes(batch)
        self._until(lambda: self._counted >= clients, lambda: self._counted)
        busy = self._busy()
        faults = sum([not visitor.is_welcomed() for visitor in self._clients if isinstance(visitor, Visitor)])
        gc.collect()
        gc.freeze()  # the collector would go over thousands of clients while messages come
        return {"deliveries": self._counted, "faults": faults, "busy": busy}

    def visit(self, port: int, count: int, at_once: int, rooms: int, first: int = 0) -> dict[str, Any]:
        """Connect, get the welcome, say goodbye, wait for the answer and the end; so many in all, so many at a time."""
        goodbye = masked((1000).to_bytes(2), CLOSE)
        live: dict[Visitor, bool] = {}
        begun = finished = clean = 0
        self._start()

        def turn() -> bool:
            nonlocal begun, finished, clean
            while begun < count and len(live) < at_once:
                live[self._visit(port, first + begun, rooms)] = False
                begun += 1
            for visitor, has_said in list(live.items()):
                if visitor.ended:
                    clean += visitor.close_code() == 1000 and visitor.is_welcomed()
                    finished += 1
                    del live[visitor]
                elif visitor.counts and not has_said:
                    visitor.socket.send(goodbye)
                    live[visitor] = True
            return finished >= count

        self._until(turn, lambda: finished)
        for visitor in live:
            self._selector.unregister(visitor.socket)
            visitor.socket.close()
        return {"deliveries": clean, "faults": count - clean, "busy": self._busy()}

    def storm(self, port: int, count: int, seconds: float, rooms: int) -> dict[str, Any]:
        """Have clients come at an even pace, whatever the server does; they stay. When each got its welcome, ms."""
        self.keep(0)
        self._counted = late = 0
        gc.disable()  # it would go over all who have come, and others would come late
        self._start()
        begin = time.monotonic_ns()
        step = int(seconds * 1e9 / count)
        moved, counted = time.monotonic(), 0
        while self._counted < count and time.monotonic() < moved + PATIENCE:
            while (begun := len(self._clients)) < count and (due := begin + begun * step) <= time.monotonic_ns():
                late += time.monotonic_ns() - due > LATE_START * 1e9
                self._clients.append(self._visit(port, begun, rooms, due))
            self._turn(0.1 if begun == count else max(0.0, (begin + begun * step - time.monotonic_ns()) / 1e9))
            if counted != self._counted or begun < count:
                moved, counted = time.monotonic(), self._counted
        busy = self._busy()
        gc.enable()
        return {**self._welcomes(), "late_starts": late, "busy": busy}

    def _welcomes(self) -> dict[str, Any]:
        visitors = [client for client in self._clients if isinstance(client, Visitor)]
        waits = [visitor.waited() for visitor in visitors]
        came = sorted([wait for wait in waits if wait >= 0])
        failed = sum([not visitor.is_welcomed() or visitor.ended for visitor in visitors])
        return {
            "deliveries": len(came),
            "faults": failed,
            "late": sum([wait > LATE_WELCOME * 1e9 for wait in came]),
            "p99": _p99(came),
            "last": came[-1] / 1e6 if came else 0.0,
        }

    def chatter(self, every: float) -> dict[str, Any]:
        """Have all clients talk from now on, each so often, whatever else they are told."""
        self._counted = 0
        self._talk = Talk(self._clients, every)
        return {}

    def hush(self) -> dict[str, Any]:
        """End that; when the last answer is here, how long they took, ms."""
        talk, self._talk = self._talk, None
        if talk is None:
            raise RuntimeError("nobody talks")
        self._until(lambda: self._counted >= talk.said(), lambda: self._counted)
        took, faults = talk.heard()
        return {"deliveries": len(took), "faults": faults, "p99": _p99(took), "most": took[-1] / 1e6 if took else 0.0}

    def hear(self, count: int) -> dict[str, Any]:
        """Wait until all clients together have got so many messages since `expect`."""
        self._until(lambda: self._counted >= count, lambda: self._counted)
        return {"busy": self._busy()}

    def compare(self, first: int, each: int, groups: int, told: int) -> dict[str, Any]:
        """Compare what came since `expect` with what was to come: so many for each client of the groups told.

        A client is in the group that its number is of, modulo how many groups there are.
        """
        faults = deliveries = 0
        for number, client in enumerate(self._clients):
            got = [client.decode(payload)["seq"] for payload in client.take()[0]]
            is_due = number % groups < told
            faults += faults_in(got, range(first, first + each) if is_due else range(0))
            deliveries += len(got)
        return {"deliveries": deliveries, "faults": faults}


def _p99(sorted_ns: Sequence[int]) -> float:
    """Milliseconds."""
    return sorted_ns[int(len(sorted_ns) * 0.99)] / 1e6 if sorted_ns else 0.0


if __name__ == "__main__":
    obey(Coming(), (*COMMANDS, "settle", "visit", "storm", "chatter", "hush", "hear", "compare"))
