"""A node is frozen while more is published to its room than an engine keeps for it: the gap is told and counted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from contextlib import AsyncExitStack

import pytest

from tests.support import eventually
from tests.support.engines import engine
from tests.support.say import Say
from tests.support.workers import Member, person, workers

COUNT, SIZE = 120, 500_000
"""60 MB; a message has to be smaller than what a NATS server takes by default, which is 1 MiB."""
CUTS = ["valkey", *(["redis"] if shutil.which("redis-server") else [])]
"""Engines that cut a subscriber off for which they have 32 MiB waiting. NATS does at 64 MiB."""


class Trial:
    """One node of which somebody is in a room of its own, and that is frozen again and again.

    Attributes:
        gaps: how often its member was told of one.
        exact: how often it knew how much it had missed.
        slowest: seconds until everything was heard or told of, at most.
    """

    def __init__(self, member: Member) -> None:
        self.gaps = self.exact = 0
        self.slowest = 0.0
        self._member = member
        self._sent = 0

    async def freeze(self, sender: Member, seconds: float) -> bool:
        """Freeze it while 60 MB are published, and for so long; what it missed is told and counted.

        Returns:
            Whether it missed any.
        """
        member = self._member
        before = await member.request("stats")
        member.gaps.clear()
        member.got.clear()
        member.floods = self._sent = 0
        os.kill(member.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert await sender.request("flood", [member.room, COUNT, SIZE]) == COUNT
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        finally:
            os.kill(member.pid, signal.SIGCONT)
        began = time.monotonic()
        await eventually(lambda: member.floods + self._told() >= COUNT or not self._is_exact(), within=30)
        self.slowest = max(self.slowest, time.monotonic() - began)
        await self._hears_again(sender)
        sent = COUNT + self._sent
        await eventually(lambda: self._heard() + self._told() == sent or not self._is_exact())
        async with asyncio.timeout(30):
            while True:  # where it is not known how much is missing, nothing tells when the last of it has come
                after = await member.request("stats")
                missed = after["backplane_missed"] - before["backplane_missed"]
                if after["healthy"] and self._heard() + missed >= sent:
                    break
                await asyncio.sleep(0.02)
        assert member.is_open
        assert self._heard() + missed == sent
        assert after["backplane_gaps"] - before["backplane_gaps"] == len(member.gaps)
        assert bool(missed) <= bool(self._gaps())
        self.gaps += bool(self._gaps())
        self.exact += self._is_exact()
        return bool(missed)

    async def _hears_again(self, sender: Member) -> None:
        """Have messages sent until one comes; the first may fall into what is a gap."""
        async with asyncio.timeout(30):
            while self._sent - 1 not in self._member.got.get("after", []):
                self._sent += 1
                assert await sender.request("relay", [self._member.room, ["after", self._sent - 1]]) == "published"
                with contextlib.suppress(TimeoutError):
                    await eventually(lambda: self._sent - 1 in self._member.got.get("after", []), within=1)

    def _heard(self) -> int:
        return self._member.floods + len(self._member.got.get("after", []))

    def _gaps(self) -> list[int | None]:
        return [gap["missed"] for gap in self._member.gaps if gap["room"] == self._member.room]

    def _told(self) -> int:
        return sum(missed or 0 for missed in self._gaps())

    def _is_exact(self) -> bool:
        """Where another node was too busy to say in time how much it had sent, it is told that this is not known."""
        return None not in self._gaps()


async def frozen(kind: str, nodes: int, rounds: int, seconds: float, say: Say) -> None:
    async with engine(kind) as server, AsyncExitStack() as stack:
        options = {"WS_SEND_QUEUE_SIZE": "100MiB"}
        ports = [await stack.enter_async_context(workers(1, server.url, **options)) for _ in range(nodes + 1)]
        source = ports.pop()
        sender = await stack.enter_async_context(person(source, "elsewhere"))
        trials: list[Trial] = []
        for number, port in enumerate(ports):
            member = await stack.enter_async_context(person(port, f"room {number}"))
            assert await sender.request("relay", [member.room, ["before", 0]]) == "published"
            await eventually(lambda member=member: member.got == {"before": [0]})  # type: ignore[misc]
            trials.append(Trial(member))
        for _ in range(rounds):
            have_missed = await asyncio.gather(*[trial.freeze(sender, seconds) for trial in trials])
            assert all(have_missed) or kind not in CUTS
        gaps, exact = sum(trial.gaps for trial in trials), sum(trial.exact for trial in trials)
        slowest = max(trial.slowest for trial in trials)
        say(
            f"{kind}: {COUNT * SIZE / 1e6:.0f} MB while frozen for {seconds:g} s: a gap in {gaps} of {nodes * rounds} "
            f"trials, exact in {exact}; every message heard or told of within {slowest:.2f} s"
        )
        assert kind not in CUTS or gaps == nodes * rounds


@pytest.mark.parametrize("kind", ["nats", "valkey", *[pytest.param(kind, marks=pytest.mark.soak) for kind in CUTS[1:]]])
async def test_a_frozen_node_learns_what_it_missed(kind: str, say: Say) -> None:
    await frozen(kind, 1, 1, 1, say)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["nats", *CUTS])
async def test_a_node_frozen_for_5_s_learns_what_it_missed_each_of_100_times(kind: str, say: Say) -> None:
    await frozen(kind, 5, 20, 5, say)
