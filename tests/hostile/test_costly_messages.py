"""Clients that break no rule, or are told so one message at a time, and are as dear as they can: others go on."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from tests.programs.attacker import LARGE
from tests.support.say import Say
from tests.support.siege import MEBIBYTE, besieged, excused, fight, only_limits, started
from velocity_ws.messages.inbound import Malformed, decode
from velocity_ws.messages.outbound import encode

KINDS: dict[str, dict[str, Any]] = {
    "large-arrays": {},
    "large-objects": {},
    "large-numbers": {},
    "large-strings": {},
    "large-nesting": {},
    "one-byte-messages": {"rate_limit": 0},
    "small-messages": {"rate_limit": 0},
    "large-strings-unlimited": {"rate_limit": 0},
}
"""What each attacker sends, and the settings it finds; with a rate limit, all but the first 200 are refused."""
FOR_2_SECONDS = ["large-numbers", "large-nesting", "small-messages"]
"""One of each way; `make soak` has all of them."""
FOUR = ["large-arrays", "large-nests", "large-objects", "large-numbers"]
"""What four senders send at once, well-formed and malformed at its last character."""
UNLIMITED = {"rate_limit": 0, "rate_bytes": 0}


def undivided(kind: str) -> float:
    """Milliseconds that one large message and its answer take on this machine, in which nothing else can run."""
    text = b'{"event":"echo","data":[%s]}' % LARGE.get(kind.removesuffix("-unlimited"), b"")
    took = []
    for _ in range(5):
        began = time.perf_counter()
        message = decode(text.decode())
        encode("echo", None if isinstance(message, Malformed) else message.data)
        took.append(1000 * (time.perf_counter() - began))
    return min(took)


async def siege(
    kind: str, seconds: float, say: Say, senders: int = 1, **options: Any
) -> tuple[dict[str, Any], float, float]:
    """What the victim saw, by how much the server's memory grew, in bytes, and the seconds both had no processor."""
    options = options or KINDS[kind]
    async with (
        besieged(**options) as server,
        started("victim", server.port) as victim,
        started("attacker", server.port, kind.removesuffix("-unlimited"), seconds) as attacker,
        contextlib.AsyncExitStack() as others,
    ):
        for _ in range(senders - 1):
            other = await others.enter_async_context(
                started("attacker", server.port, kind.removesuffix("-unlimited"), seconds)
            )
            other.tell("begin")
        seen = await fight(server, victim, attacker, seconds)
        state = await server.until(lambda state: state["sessions"] <= 1)
    attack, suffered, waited = seen.attack, seen.suffered, seen.waited
    growth = state["peak"] - seen.before
    say(
        f"{senders} {kind} {options or ''} for {seconds:g} s: victim p50 {suffered['p50']} p99 {suffered['p99']} "
        f"max {suffered['max']} ms of {suffered['echoes']}; server +{growth / MEBIBYTE:.2f} MiB; "
        f"{attack['connections']} attackers, closed with {attack['codes']}; they waited {waited:.2f} s for a processor"
    )
    assert suffered["missing"] == 0
    assert suffered["echoes"] > seconds * 20
    assert only_limits(server.log)
    return suffered, growth, waited


@pytest.mark.parametrize("kind", FOR_2_SECONDS)
async def test_a_costly_client_costs_others_little(kind: str, say: Say) -> None:
    suffered, growth, waited = await siege(kind, 2, say)
    # Without bounds in bytes and time on what is done for one client in a turn, half of all echoes took a second.
    assert suffered["p50"] < 200 + excused(waited, 250)
    assert suffered["p99"] < 600 + excused(waited, 1000)
    assert growth < 32 * MEBIBYTE


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
async def test_a_costly_client_for_20_seconds(kind: str, say: Say) -> None:
    suffered, growth, _ = await siege(kind, 20, say)
    alone = undivided(kind)
    assert suffered["p99"] <= 20 + 1.5 * alone
    assert suffered["max"] <= 100 + 3 * alone
    # A client that goes on is closed, and comes again: several at a time have such a message in their buffers.
    assert growth <= (24 if kind.startswith("large") else 10) * MEBIBYTE


async def test_large_messages_of_four_senders_cost_others_little(say: Say) -> None:
    suffered, growth, waited = await siege("large-arrays-malformed", 2, say, senders=4, **UNLIMITED)
    # With one such message of each sender in each turn, and each parsed twice, half of all echoes took 468 ms.
    assert suffered["p50"] < 60 + excused(waited, 100)
    assert suffered["p99"] < 150 + excused(waited, 1000)  # one of the two may have had none for a second
    assert growth < 64 * MEBIBYTE


@pytest.mark.soak
@pytest.mark.parametrize("options", [{"rate_bytes": "4MiB"}, UNLIMITED], ids=["limited", "unlimited"])
@pytest.mark.parametrize("kind", [*FOUR, *[f"{kind}-malformed" for kind in FOUR]])
async def test_large_messages_of_four_senders_for_20_seconds(kind: str, options: dict[str, Any], say: Say) -> None:
    suffered, growth, _ = await siege(kind, 20, say, senders=4, **options)
    assert suffered["p99"] <= 60
    assert growth <= 64 * MEBIBYTE
