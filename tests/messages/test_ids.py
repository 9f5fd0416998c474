"""Ids: a client's names its node, and nothing else does."""

from __future__ import annotations

from velocity_ws.messages.ids import new_node_id, node_of


def test_a_client_id_tells_its_node() -> None:
    node_id = new_node_id()
    assert node_of(f"{node_id}.token") == node_id
    others = ("a b c d e f.x", "a 0\r\n\r\nSUB .x", f"{node_id}.x y", f"{node_id}.x.y", f"{node_id}.x\n")
    for other in ("", "token", ".", f"{node_id}.", ".token", f"{node_id[1:]}.token", *others):
        assert node_of(other) is None
