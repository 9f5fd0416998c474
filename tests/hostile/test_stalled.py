"""One who does not read, among a thousand who do: what they lose by it, in time and memory."""

from __future__ import annotations

from statistics import median

import pytest

from tests.support.say import Say
from tests.support.siege import MEBIBYTE, besieged, only_limits, started

READERS = 999
SIZE = 64 * 1024
"""Bytes of filler in each message."""
ROUNDS = 16
MESSAGES = 256
"""In a round, so that 256 MiB are broadcast beside one that stalls, and as much without it."""
QUEUE = MEBIBYTE
"""WS_SEND_QUEUE_SIZE."""


@pytest.mark.soak
@pytest.mark.parametrize("policy", ["disconnect", "drop"])
async def test_one_stalled_reader_among_a_thousand(policy: str, say: Say) -> None:
    options = {"rate_limit": 0, "ping_interval": 0, "enable_compression": False, "send_queue_size": QUEUE}
    async with (
        besieged(slow_client=policy, **options) as server,
        started("audience", server.port, READERS, ROUNDS, MESSAGES, SIZE) as audience,
    ):
        audience.tell()
        assert await audience.line(within=60) == "warm"
        waited = (await server.ask())["waited"]
        before = await server.ask("mark")
        audience.tell()
        heard = await audience.answer(within=1500)
        state = await server.ask()
    growth = state["peak"] - before
    # The rounds take turns, and each has a percentile of its own, so that what else the machine does falls on both.
    (p50, p99), (p50_beside, p99_beside) = (
        [median(figures[at] for figures in rounds) for at in (0, 1)] for rounds in (heard["alone"], heard["beside"])
    )
    ratio = p99_beside / p99
    say(
        f"one stalled reader among {READERS} ({policy}), {ROUNDS * MESSAGES * SIZE / MEBIBYTE:.0f} MiB broadcast: "
        f"p99 {p99_beside:.1f} ms, without it {p99:.1f} ms, ratio {ratio:.3f} (p50 {p50_beside:.1f} and {p50:.1f} ms); "
        f"server +{growth / MEBIBYTE:.2f} MiB; {heard['seconds']} s, it waited {state['waited'] - waited:.1f} s for a "
        "processor"
    )
    assert ratio < 1.1
    assert growth < QUEUE + 8 * MEBIBYTE
    assert only_limits(server.log)
    assert state["slow_closes"] == (ROUNDS if policy == "disconnect" else 0)
    assert state["closes"] == ({"1013": ROUNDS} if policy == "disconnect" else {})
    assert state["dropped"] > 0
