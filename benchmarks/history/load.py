"""The clients of `benchmarks.load` that come into a room by themselves: they connect, join, and get what they missed.

A program of its own, as many clients take most of a core.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.client import Client, masked
from benchmarks.load import COMMANDS, Load, faults_in, obey


class Returning(Load):
    """Clients, and what they can be told."""

    def come(
        self,
        ports: Sequence[int],
        count: int,
        at_once: int,
        room: str,
        since: str | None,
        missed: int,
        seconds: float = 0.0,
    ) -> dict[str, Any]:
        """Connect new clients, in turns to these ports; each joins a room, and waits for its answer and what it missed.

        So many in all, so many at a time, evenly over some seconds, or as fast as they can. They stay, and `judge`
        looks at what they got. Without ``since`` they have missed nothing.
        """
        self.keep(0)
        data = {"room": room} if since is None else {"room": room, "since": since}
        # Written out, as a question is the same for each of them.
        question = masked(json.dumps({"event": "join", "id": 1, "data": data}, separators=(",", ":")).encode())
        left: dict[Client, int] = {}
        begun = finished = 0
        self._start()
        start = time.monotonic()

        def turn() -> bool:
            nonlocal begun, finished
            due = count if not seconds else int((time.monotonic() - start) / seconds * count) + 1
            while begun < min(count, due) and len(left) < at_once:
                client = self._open(ports[begun % len(ports)], "plain", deflate=False, room="")
                self._clients.append(client)
                left[client] = -1
                begun += 1
            for client, lacks in list(left.items()):
                if lacks < 0 and client.opened:
                    client.socket.send(question)
                    left[client] = 1 + missed
                elif lacks >= 0 and sum(client.counts) >= lacks:
                    del left[client]
                    finished += 1
                elif client.ended:
                    raise RuntimeError("closed while it came into the room")
            return finished >= count

        whole = self._until(turn, lambda: finished, 0.001 if seconds else 0.1)
        return {"deliveries": finished * (1 + missed), "faults": int(not whole), "busy": self._busy()}

    def judge(self, missed: int, is_back: bool) -> dict[str, Any]:
        """Count what is wrong with what those who came got. That takes a second, in which nothing is to be measured."""
        return {"faults": sum([self._faults(client, missed, is_back=is_back) for client in self._clients])}

    def _faults(self, client: Client, missed: int, *, is_back: bool) -> int:
        """What is wrong with what a client got: its answer, and then each message it missed, in order."""
        payloads, _ = client.take()
        if not payloads:
            return 1
        answer, *messages = [json.loads(payload) for payload in payloads]
        data = answer["data"]
        is_right = answer["event"] == "reply" and data.get("recovered") is (True if is_back else None)
        is_right = is_right and data.get("missed") == (missed if is_back else None)
        return (not is_right) + faults_in([message["data"]["seq"] for message in messages], range(missed))


if __name__ == "__main__":
    obey(Returning(), (*COMMANDS, "come", "judge"))
