"""A cleaner of temporary files removes the embedded engine's while it is in use, and another worker starts."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support import eventually
from tests.support.embedded import servers
from tests.support.workers import Member, an_engine, owner, person, workers


async def test_workers_that_were_split_become_one_cluster_again_and_are_told_of_the_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "velocity-ws"
    async with an_engine("embedded", tmp_path, monkeypatch) as url, AsyncExitStack() as stack:
        ports = await asyncio.gather(*[stack.enter_async_context(workers(1, url)) for _ in range(2)])
        people = [await stack.enter_async_context(person(port, "x")) for port in ports]
        await reach_each_other(people)
        runs = owner(tmp_path)[0]
        os.kill(runs, signal.SIGSTOP)  # so that it does not notice before another has taken its place
        try:
            shutil.rmtree(directory)
            port = await stack.enter_async_context(workers(1, url))
            newcomer = await stack.enter_async_context(person(port, "x"))
            assert owner(tmp_path)[0] == newcomer.pid
            assert len(servers(directory)) == 2
            assert (await newcomer.request("stats"))["healthy"]
        finally:
            os.kill(runs, signal.SIGCONT)
        await reach_each_other([*people, newcomer])
        await eventually(lambda: len(servers(directory)) == 1)  # the other one ends behind its workers
        for member in people:
            await eventually(lambda member=member: [gap for gap in member.gaps if gap["room"] == "x"])  # type: ignore[misc]
            assert member.is_open


async def reach_each_other(people: list[Member]) -> None:
    """Have each of them say something until everyone has heard one of them."""
    for speaker in people:
        number = 0
        async with asyncio.timeout(20):
            while not all(speaker.id in member.got for member in people):
                await speaker.request("relay", ["x", [speaker.id, number]])
                await asyncio.sleep(0.05)
                number += 1
    for member in people:
        member.got.clear()
