"""Ids: a client's names its node, and nothing else does."""

from __future__ import annotations

import re

from velocity_ws.messages.ids import new_client_id, new_node_id, node_of


def test_a_client_id_tells_its_node() -> None:
    node_id = new_node_id()
    assert node_of(f"{node_id}.token") == node_id
    others = ("a b c d e f.x", "a 0\r\n\r\nSUB .x", f"{node_id}.x y", f"{node_id}.x.y", f"{node_id}.x\n")
    for other in ("", "token", ".", f"{node_id}.", ".token", f"{node_id[1:]}.token", *others):
        assert node_of(other) is None


def test_a_new_client_id_is_22_letters_of_base64_for_urls() -> None:
    node_id = new_node_id()
    made = {new_client_id(node_id) for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(rf"{node_id}\.[A-Za-z0-9_-]{{22}}", each) for each in made)
    assert {"-", "_"} <= set("".join(made))
    assert all(node_of(each) == node_id for each in made)
