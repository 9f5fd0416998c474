"""One connection never costs another: attackers beside a victim that echoes every 10 ms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.support.say import Say
from tests.support.siege import MEBIBYTE, Besieged, besieged, excused, fight, only_limits, started

MESSAGE_LIMIT = 512 * 1024
"""WS_MAX_MESSAGE_SIZE by default."""
KINDS = {
    "empty-fragments": 1008,
    "one-byte-fragments": 1008,
    "one-byte-messages": 1008,
    "one-byte-messages-unread": 1008,
    "pings-unread": 1008,
    "bomb": 1009,
    "bomb-fragments": 1009,
    "bomb-behind-a-fragment": 1009,
    "long-fragments": 1009,
}
"""What each attacker is closed with."""
FOR_2_SECONDS = ["empty-fragments", "one-byte-messages", "pings-unread", "bomb-fragments"]
"""One of each way; `make soak` has all of them."""
UNREAD = {"one-byte-messages-unread", "pings-unread"}
"""Who does not read may not find its close frame behind all that came before it; the server says what it was."""


async def use(server: Besieged) -> None:
    """Use the server as it is meant to be used, messages as long as they may be included: that, too, takes memory."""
    text = json.dumps({"event": "echo", "data": "x" * (MESSAGE_LIMIT - 100), "id": 1})
    for _ in range(3):
        async with connect(f"ws://127.0.0.1:{server.port}/ws", proxy=None) as peer:
            await peer.send(text)
            await peer.recv()
            await peer.send([text[:1000], text[1000:]])
            await peer.recv()
    await server.until(lambda state: not state["sessions"])


async def siege(kind: str, seconds: float, say: Say) -> dict[str, Any]:
    """An attack; what each side saw."""
    async with besieged() as server:
        await use(server)
        async with (
            started("victim", server.port) as victim,
            started("attacker", server.port, kind, seconds) as attacker,
        ):
            seen = await fight(server, victim, attacker, seconds)
        state = await server.until(lambda state: not state["sessions"], within=15)
    attack, suffered, waited = seen.attack, seen.suffered, seen.waited
    growth = state["peak"] - seen.before
    say(
        f"{kind} for {seconds:g} s: victim p50 {suffered['p50']} p99 {suffered['p99']} max {suffered['max']} ms of "
        f"{suffered['echoes']}; server +{growth / MEBIBYTE:.2f} MiB; {attack['connections']} attackers closed with "
        f"{attack['codes']} after {attack['slowest']:.3f} s at most; the server says {state['closes']}, "
        f"{state['slowest']:.3f} s; they waited {waited:.2f} s for a processor"
    )
    return {"waited": waited, "attack": attack, "victim": suffered, "state": state, "growth": growth, "log": server.log}


def check(kind: str, seconds: float, saw: dict[str, Any]) -> None:
    """What holds of every attack, however short and however busy the machine."""
    code = str(KINDS[kind])
    attack, state, victim = saw["attack"], saw["state"], saw["victim"]
    assert victim["missing"] == 0
    assert victim["echoes"] > seconds * 20
    assert set(state["closes"]) == {code}
    assert state["closes"][code] >= attack["connections"] - 1  # the last one's time may have been over before
    assert set(attack["codes"]) <= ({code, "0"} if kind in UNREAD else {code})
    assert only_limits(saw["log"])


@pytest.mark.parametrize("kind", FOR_2_SECONDS)
async def test_an_attacker_costs_a_victim_nothing(kind: str, say: Say) -> None:
    saw = await siege(kind, 2, say)
    check(kind, 2, saw)
    assert saw["victim"]["p99"] < 150 + excused(saw["waited"], 1000)  # 1.2 to 13 s are a fault's
    assert saw["victim"]["max"] < 600 + excused(saw["waited"], 2000)
    assert saw["growth"] < 8 * MEBIBYTE
    assert saw["attack"]["slowest"] < 2


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
async def test_an_attack_of_20_seconds(kind: str, say: Say) -> None:
    saw = await siege(kind, 20, say)
    check(kind, 20, saw)
    assert saw["victim"]["p99"] <= 20
    assert saw["victim"]["max"] <= 100
    assert saw["growth"] <= (MESSAGE_LIMIT + MEBIBYTE if kind.startswith("bomb") else 8 * MEBIBYTE)
    assert saw["attack"]["slowest"] < 1
