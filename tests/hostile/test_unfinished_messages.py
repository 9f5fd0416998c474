"""300 clients that never finish a message, and answer their pings: their memory is bounded, and others go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.say import Say
from tests.support.siege import MEBIBYTE, besieged, excused, started

CLIENTS = 300
PART = 400 * 1024
LIMIT = 64 * MEBIBYTE
"""WS_MAX_UNFINISHED_SIZE by default; without a bound they had 240 MiB."""


async def siege(trickle: str, seconds: float, say: Say, **options: Any) -> tuple[dict[str, Any], Any, float, float]:
    """What the victim saw, what the server closed with, by how much its memory grew, and what both waited."""
    async with (
        besieged(**options) as server,
        started("victim", server.port) as victim,
        started("unfinished", server.port, CLIENTS, PART, trickle) as attackers,
    ):
        waited = (await server.ask())["waited"]
        before = await server.ask("mark")
        victim.tell("begin")
        attackers.tell()
        await asyncio.sleep(seconds)  # how long the attack is, not a wait
        state = await server.ask()
        victim.tell("end")
        suffered = await victim.answer(within=30)
        attackers.tell()
        attack = await attackers.answer(within=30)
        waited = state["waited"] - waited + suffered["waited"]
    growth = state["peak"] - before
    say(
        f"{CLIENTS} unfinished messages, then {trickle} for {seconds:g} s: victim p50 {suffered['p50']} p99 "
        f"{suffered['p99']} max {suffered['max']} ms of {suffered['echoes']}; server +{growth / MEBIBYTE:.2f} MiB; "
        f"closed with {attack['codes']}; they waited {waited:.2f} s for a processor"
    )
    assert suffered["missing"] == 0
    assert suffered["echoes"] > seconds * 20
    assert server.log == []
    return suffered, attack["codes"], growth, waited


async def test_300_unfinished_messages_cost_others_little(say: Say) -> None:
    for seconds in (5, 20, 40):  # on a machine that does other things it takes longer until there are too many bytes
        suffered, codes, growth, waited = await siege("nothing", seconds, say)
        if codes:
            break
    assert set(codes) == {"1013"}
    assert growth < LIMIT + 48 * MEBIBYTE
    assert suffered["p99"] < 150 + excused(waited, 1000)


@pytest.mark.soak
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("trickle", ["nothing", "bytes", "fragments"])
async def test_300_unfinished_messages_for_20_seconds(trickle: str, loop: str, say: Say) -> None:
    suffered, codes, growth, _ = await siege(trickle, 20, say, loop=loop, message_timeout=5)
    assert set(codes) <= {"1013", "1008"}
    assert growth <= LIMIT + 32 * MEBIBYTE
    assert suffered["p99"] <= 60
