"""Topics: any string makes one, no two names make the same, and none is syntax of an engine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.cluster.topics import Topics, encode_name, prefix_of

LONGEST = 250
"""Characters of a topic, by the contract of a backplane."""


def test_topics_have_the_same_names_as_ever() -> None:
    topics = Topics("velocity")
    assert (topics.all, topics.nodes) == ("velocity.all", "velocity.nodes")
    assert topics.node("elevenchars") == "velocity.node.elevenchars"
    assert topics.room("lobby") == topics.of("room", "lobby") == "velocity.room.lobby"
    assert topics.room("a b.*>é") == "velocity.room.a=20b=2E=2A=3E=C3=A9"
    assert topics.user("") == topics.of("user", "") == "velocity.user.="
    assert topics.user("x" * 150) == f"velocity.user.{'x' * 150}"
    assert topics.user("x" * 151) == "velocity.user.~9ede9b0a1d9a6d328de380867c642874a083a60b"
    assert prefix_of("velocity", "internal") == "velocity.name=internal"
    assert prefix_of("velocity", "main") == "velocity"


@given(st.text(max_size=256), st.text(max_size=256))
def test_names_become_tokens_that_no_engine_takes_for_syntax(one: str, other: str) -> None:
    tokens = [encode_name(one), encode_name(other)]
    for token in tokens:
        assert 0 < len(token) <= 150
        assert all(character.isascii() and (character.isalnum() or character in "-_=~") for character in token)
    assert (tokens[0] == tokens[1]) == (one == other)


def test_no_name_makes_the_topics_of_another() -> None:
    prefixes = ["velocity", "velocity.db=1", "velocity-name", "p" * 50]
    names = ["main", "Main", "all", "room", "node", "db", "1", "n" * 32]
    found: list[str] = []
    for prefix in prefixes:
        for name in names:
            topics = Topics(prefix_of(prefix, name))
            found += [topics.all, topics.nodes, topics.node("i" * 11)]
            for other in ("all", "name=all", "", "☕" * 256, "y" * 150):
                found += [topics.room(other), topics.user(other)]
    assert len(set(found)) == len(found)
    assert max(map(len, found)) <= LONGEST
