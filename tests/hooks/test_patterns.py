"""Patterns: which names they mean, against a plain regular expression; what is refused; how long it takes."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.errors import HookError
from velocity_ws.hooks.patterns import Pattern


@pytest.mark.parametrize(
    ("pattern", "room", "parameters"),
    [
        ("lobby", "lobby", {}),
        ("lobby", "lobbyist", None),
        ("chat:{chat_id}", "chat:7", {"chat_id": "7"}),
        ("chat:{chat_id}", "chat:", None),
        ("chat:{chat_id}", "chat:7:8", None),
        ("chat:{chat_id}", "chat:7/8", None),
        ("chat:{chat_id}", "my chat:7", None),
        ("chat:{chat_id}", "chat:7\n", {"chat_id": "7\n"}),
        ("{name}", "ünïcode 🎈", {"name": "ünïcode 🎈"}),
        ("{name}", "", None),
        ("file:{path:path}", "file:a/b:c\nd", {"path": "a/b:c\nd"}),
        ("file:{path:path}", "file:", None),
        ("file:{path:path}.txt", "file:a.txt.txt", {"path": "a.txt"}),
        ("org:{org}:team:{team}", "org:7:team:blue", {"org": "7", "team": "blue"}),
        ("dm:{one}-{two}", "dm:ann-bob", {"one": "ann", "two": "bob"}),
        ("dm:{one}-{two}", "dm:ann-bob-cy", {"one": "ann-bob", "two": "cy"}),
        ("{rest:path}-{two}", "x-y/z-w", {"rest": "x-y/z", "two": "w"}),
        ("{one}-end", "x-end-end", {"one": "x-end"}),
        ("{a:path}x{b}", "1x2:3x4", {"a": "1x2:3", "b": "4"}),
    ],
)
def test_a_pattern_means_the_rooms_that_fit_and_says_what_its_parameters_stand_for(
    pattern: str, room: str, parameters: dict[str, str] | None
) -> None:
    assert Pattern(pattern).match(room) == parameters


TEXT = st.text(alphabet="ab-:/\n", min_size=1, max_size=3)
PARAMETER = st.sampled_from(["", ":path"])


@st.composite
def patterns(draw: st.DrawFn) -> str:
    pieces = [draw(st.just("") | TEXT)]
    for index in range(draw(st.integers(0, 4))):
        pieces += [f"{{p{index}{draw(PARAMETER)}}}", draw(TEXT)]
    if len(pieces) > 1 and draw(st.booleans()):
        pieces.pop()
    return "".join(pieces) or "a"


def model(pattern: str) -> re.Pattern[str]:
    """What a pattern means, as a regular expression that tries everything."""
    expression = re.escape(pattern)
    expression = re.sub(r"\\{(\w+):path\\}", r"(?P<\1>.+)", expression)
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^:/]+)", expression), re.DOTALL)


@given(pattern=patterns(), room=st.text(alphabet="ab-:/\n", max_size=24))
def test_every_name_is_read_as_by_a_regular_expression(pattern: str, room: str) -> None:
    expected = model(pattern).fullmatch(room)
    assert Pattern(pattern).match(room) == (None if expected is None else expected.groupdict())


@given(pattern=patterns(), data=st.data())
def test_a_name_that_is_made_of_a_pattern_fits_it(pattern: str, data: st.DataObject) -> None:
    def filled(found: re.Match[str]) -> str:
        return data.draw(TEXT if found[2] else st.text(alphabet="ab-", min_size=1, max_size=4))

    room = re.sub(r"{(\w+)(:path)?}", filled, pattern)
    found = Pattern(pattern).match(room)
    assert found is not None
    assert re.sub(r"{(\w+)(:path)?}", lambda match: found[match[1]], pattern) == room


@pytest.mark.parametrize(
    "pattern",
    [
        "".join([f"{{p{index}:path}}a" for index in range(40)]) + "b",
        "-".join([f"{{p{index}}}" for index in range(60)]) + "b",
        "{a:path}aa{b}aa{c:path}aa{d}aab",
    ],
)
@pytest.mark.parametrize("room", ["a" * 255 + "b", "a" * 256, "a-" * 127 + "-b", "-" * 255 + "b"])
def test_no_name_takes_long_whatever_the_pattern(pattern: str, room: str) -> None:
    compiled = Pattern(pattern)
    fastest = float("inf")
    for _ in range(5):  # the machine may be busy once
        began = time.thread_time()
        compiled.match(room)
        fastest = min(fastest, time.thread_time() - began)
    assert fastest < 0.1


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "takes a pattern"),
        (7, "takes a pattern"),
        ("chat:{chat_id", "brace"),
        ("chat:chat_id}", "brace"),
        ("chat:{{chat_id}}", "brace"),
        ("chat:{}", "no parameter"),
        ("chat:{chat-id}", "no parameter"),
        ("chat:{7}", "no parameter"),
        ("chat:{class}", "no parameter"),
        ("chat:{chat_id:int}", "chat_id: int"),
        ("chat:{chat_id:}", "converter"),
        ("{a}:{a}", "two parameters of one name"),
        ("{a}{b}", "put a text between"),
        ("{a:path}{b:path}", "put a text between"),
        ("chat:{room}", "another name"),
        ("chat:{client}", "another name"),
        ("x" * 257, "fits no room"),
        ("x" * 256 + "{a}", "fits no room"),
    ],
)
def test_what_is_no_pattern_is_refused_with_what_to_write(pattern: str, said: str) -> None:
    with pytest.raises(HookError, match=re.escape(said)):
        Pattern(pattern)


def test_patterns_that_mean_the_same_rooms_have_the_same_shape() -> None:
    assert Pattern("chat:{a}").shape == Pattern("chat:{b}").shape
    assert Pattern("chat:{a}").shape != Pattern("chat:{a:path}").shape
    assert Pattern("chat:{a}").shape != Pattern("chat:a").shape
