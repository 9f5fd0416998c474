"""The clients of `benchmarks.load` that read streams: each text is checked, and when each of its tokens came.

A program of its own, as many clients take most of a core.
"""

from __future__ import annotations

import itertools
import socket
import time
from array import array
from typing import Any

from benchmarks.client import Client
from benchmarks.load import COMMANDS, Load, obey
from benchmarks.streams.readers import EventReader, Piece, Reader
from benchmarks.streams.sources import times_in
from benchmarks.streams.tokens import tokens_of

__all__ = ["Listening", "faults_of", "latencies_of"]

READERS: dict[str, type[Client]] = {"plain": Reader, "sse": EventReader}
SIP = 512
"""Bytes that a slow reader takes at a time."""
WINDOW = 128 * 1024
"""Bytes that the kernel keeps for a slow reader, of which there are megabytes by itself; it doubles them (socket(7)).

Segments of the loopback have 64 KiB: with less, each would wait for the sender's timer.
"""


class _Slow:
    """A reader that takes so many bytes a second, whatever comes."""

    def __init__(self, reader: Reader, per_second: float) -> None:
        self.reader = reader
        self.raw: list[bytes] = []
        self._per_second = per_second
        self._taken = 0
        self._began = time.monotonic()

    def sip(self) -> None:
        """Take what is due by now."""
        due = int((time.monotonic() - self._began) * self._per_second) - self._taken
        if due >= SIP:
            try:
                data = self.reader.socket.recv(due)
            except BlockingIOError:
                return
            self._taken += len(data)
            self.raw.append(data)
            self.reader.ended = not data


class Listening(Load):
    """Readers, and what they can be told."""

    def __init__(self) -> None:
        super().__init__()
        self._over = 0
        self._slow: list[_Slow] = []
        self._last: list[Piece] = []

    def _open(self, port: int, framing: str, *, deflate: bool, room: str) -> Client:
        client = READERS[framing](port, deflate=deflate, room=room)
        self._register(client)
        return client

    def _turn(self, timeout: float | None) -> bool:
        for slow in self._slow:
            slow.sip()
        return super()._turn(0.01 if self._slow else timeout)

    def slow(self, port: int, clients: int, room: str, per_second: float) -> dict[str, Any]:
        """Connect readers beside the others, which take so many bytes a second each, and have a small buffer."""
        readers = [Reader(port, deflate=False, room=room) for _ in range(clients)]
        for reader in readers:
            self._register(reader)
        self._handshakes([*readers])
        for reader in readers:
            self._selector.unregister(reader.socket)
            reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)
        self._slow = [_Slow(reader, per_second) for reader in readers]
        return {}

    def expect(self, credit: int = 0) -> dict[str, Any]:
        """Streams will come from now on."""
        self._over = 0
        self._on_message = self._heard
        return super().expect(credit)

    def _heard(self, client: Any, count: int) -> None:
        if client.is_ending:
            client.is_ending = False
            self._over += 1

    def wait_ends(self) -> dict[str, Any]:
        """Wait until every reader that is not slow has an end; how busy this process was since `expect`, 0 to 1."""
        due = len(self._clients)
        self._until(lambda: self._over >= due, lambda: self._counted)  # `check` says what is missing
        return {"busy": self._busy()}

    def check(self, streams: int, tokens: int, size: int, times: str) -> dict[str, Any]:  # type: ignore[override]
        """Compare what came since `expect` with what was said, and when.

        Args:
            streams: how many there were; the clients' rooms are theirs, in turns.
            tokens: of each of them.
            size: of a token; see `tokens_of`.
            times: the file that says when each was there; it is removed. Empty where only the texts are of interest.
        """
        said = times_in(times) if times else None
        latencies: list[int] = []
        faults = frames = 0
        texts = [tokens_of(stream, tokens, size) for stream in range(streams)]
        stops = [list(itertools.accumulate(map(len, of_stream))) for of_stream in texts]
        whole = ["".join(of_stream) for of_stream in texts]
        for number, client in enumerate(self._clients):
            stream = number % streams
            pieces = list(client.pieces())  # type: ignore[attr-defined] # as those of `READERS` have it
            frames += len(pieces)
            faults += faults_of(pieces, whole[stream])
            if said is not None:
                latencies += latencies_of(pieces, stops[stream], said[stream * tokens : (stream + 1) * tokens])
            self._last = pieces
        latencies.sort()
        count = len(latencies)
        return {
            "deliveries": len(self._clients) * tokens,
            "frames": frames,
            "faults": faults,
            "p50": latencies[count // 2] / 1e3 if count else 0.0,
            "p99": latencies[int(count * 0.99)] / 1e3 if count else 0.0,
        }

    def pieces(self) -> dict[str, Any]:
        """What the last reader that was checked had got: the nanoseconds from its first piece, and the data."""
        start = self._last[0].came
        return {"pieces": [(piece.came - start, piece.data) for piece in self._last]}

    def drain(self, tokens: int, size: int) -> dict[str, Any]:
        """Have the slow readers take the rest of stream 0 as fast as it comes, and check them; then they are gone."""
        slow, self._slow = self._slow, []
        self.expect()
        for each in slow:
            each.reader._rest = b"".join(each.raw)
            self._register(each.reader)
        self._until(lambda: self._over >= len(slow), lambda: self._counted)
        whole = "".join(tokens_of(0, tokens, size))
        read = [list(each.reader.pieces()) for each in slow]
        for each in slow:
            if not each.reader.ended:
                self._selector.unregister(each.reader.socket)
                each.reader.socket.close()
        return {
            "faults": sum(faults_of(pieces, whole) for pieces in read),
            "frames": sum(map(len, read)),
            "largest": max((piece.size for pieces in read for piece in pieces), default=0),
        }


def faults_of(pieces: list[Piece], whole: str) -> int:
    """How many pieces are not where they say, and whether the text is another one."""
    faults = at = 0
    for piece in pieces:
        faults += piece.start not in (None, at)
        at += len(piece.text)
    return faults + ("".join([piece.text for piece in pieces]) != whole)


def latencies_of(pieces: list[Piece], stops: list[int], said: array[int]) -> list[int]:
    """How long each token took until the last of it was there; without those that never were."""
    found = []
    at = token = 0
    for piece in pieces:
        at += len(piece.text)
        while token < len(stops) and stops[token] <= at:
            found.append(piece.came - said[token])
            token += 1
    return found


if __name__ == "__main__":
    obey(Listening(), (*COMMANDS, "slow", "wait_ends", "pieces", "drain"))
