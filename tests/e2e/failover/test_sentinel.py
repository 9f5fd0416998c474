"""Redis with Sentinel under load: another server becomes the primary, asked for, and as the old one fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engines import Engine
from tests.support.failing_over import FAILOVERS, SEED, Mend, failing_over
from tests.support.say import Say
from tests.support.sentinels import Guarded, guarded

LIMIT = 300 + 45 * FAILOVERS
"""Seconds: the Sentinels let some pass from one failover to the next."""


class Failing:
    """What happens to the servers."""

    def __init__(self, servers: Guarded) -> None:
        self._servers = servers

    async def asked(self) -> Mend:
        """Somebody asks for another primary; the old one is told so some 10 s later."""
        await self._servers.fail_over()
        return self._servers.settled

    async def killed(self) -> Mend:
        """The primary is gone."""
        old = await self._servers.primary()
        await old.kill()
        return await self._without(old)

    async def frozen(self) -> Mend:
        """The primary does nothing, and goes on as one when it is not one any more."""
        old = await self._servers.primary()
        old.freeze()
        mend = await self._without(old)
        old.thaw()
        return mend

    async def _without(self, old: Engine) -> Mend:
        await self._servers.promoted(old)

        async def mend() -> None:
            if old.process.returncode is not None:
                await old.start()
            await self._servers.settled()

        return mend


@pytest.mark.soak
@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("how", ["asked", "killed", "frozen"])
async def test_nobody_misses_what_nobody_tells(how: str, tmp_path: Path, say: Say) -> None:
    async with guarded(tmp_path) as servers, failing_over([servers.url] * 3, keeps_all=False) as found:
        await found.fails_over([getattr(Failing(servers), how)])
        delivered, told = await found.ends()
        say(
            f"Sentinel, {how}, {FAILOVERS} failovers, seed {SEED}:\n{found}\n"
            f"  {delivered} messages of rooms with history came, {told} were told lost"
        )
        if how == "asked":
            assert max(each.plain for each in found.failovers) < 2
