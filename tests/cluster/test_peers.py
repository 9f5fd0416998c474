"""Peers: a node lives as long as it is heard."""

from __future__ import annotations

from velocity_ws.cluster.envelopes import Beat
from velocity_ws.cluster.peers import Peers


def test_a_node_lives_as_long_as_it_is_heard() -> None:
    now, told = [0.0], []
    peers = Peers(lambda: now[0], lambda node: told.append(f"+{node}"), lambda node: told.append(f"-{node}"))
    peers.heard("a", Beat("hello", 10.0))
    peers.heard("b", Beat("alive", 2.0))
    peers.heard("script", Beat("hello", 10.0, (), False))
    now[0] = 1.9
    peers.expire()
    assert told == ["+a", "+b", "-b"]
    peers.heard("b", Beat("alive", 2.0))
    now[0] = 9.9
    peers.renew()  # this node was deaf
    peers.expire()
    assert peers.ids() == {"a", "b"}
    peers.heard("a", Beat("bye", 0.0))
    peers.heard("a", Beat("bye", 0.0))
    now[0] = 12.0
    peers.expire()
    assert told == ["+a", "+b", "-b", "+b", "-a", "-b"]
    assert len(peers) == 0


def test_a_node_that_went_without_a_word_may_live_for_a_while() -> None:
    now = [0.0]
    peers = Peers(lambda: now[0], lambda _: None, lambda _: None)
    for name in ("held up", "said goodbye", "back again", "late goodbye"):
        peers.heard(name, Beat("alive", 2.0))
    peers.heard("said goodbye", Beat("bye", 0.0))
    now[0] = 2.0
    peers.expire()
    peers.heard("back again", Beat("alive", 1000.0))
    peers.heard("late goodbye", Beat("bye", 0.0))
    assert len(peers) == 1
    found = [name for name in ("held up", "said goodbye", "back again", "late goodbye") if peers.may_live(name)]
    assert found == ["held up", "back again"]
    now[0] = 62.0
    peers.expire()
    assert not peers.may_live("held up")
    for number in range(1500):
        peers.heard(f"node {number}", Beat("alive", 1.0))
    now[0] = 64.0
    peers.expire()
    assert sum(peers.may_live(f"node {number}") for number in range(1500)) == 1000
