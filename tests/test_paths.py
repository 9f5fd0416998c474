"""The path of an endpoint: what it matches, what is directly below it, and which texts are none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velocity_ws.errors import InvalidPathError
from velocity_ws.paths import EndpointPath


@pytest.mark.parametrize(
    ("path", "asked", "parameters"),
    [
        ("/ws", "/ws", {}),
        ("/ws", "/ws/", {}),
        ("/ws/", "/ws", {}),
        ("/ws", "/ws//", None),
        ("/ws", "/ws\n", None),
        ("/ws", "/WS", None),
        ("/", "", {}),
        ("/", "/", {}),
        ("/", "/ws", None),
        ("/{room}", "/tea", {"room": "tea"}),
        ("/{room}", "/tea/", {"room": "tea"}),
        ("/{room}", "/tea/green", None),
        ("/{room}", "/tea\n", {"room": "tea\n"}),
        ("/ws/{tenant}/{room:path}", "/ws/shop/tea/green", {"tenant": "shop", "room": "tea/green"}),
        ("/ws/{tenant}/{room:path}", "/ws/shop/", {"tenant": "shop", "room": ""}),
        ("/ws/{number:int}", "/ws/7", {"number": 7}),
        ("/ws/{number:int}", "/ws/seven", None),
        ("/ws/{number:int}", "/ws/" + "1" * 5000, None),
    ],
)
def test_a_path_has_its_parameters_or_is_another(path: str, asked: str, parameters: dict[str, Any] | None) -> None:
    assert EndpointPath(path).match(asked) == parameters


@given(st.text())
def test_a_path_without_parameters_is_itself_with_and_without_a_slash(asked: str) -> None:
    assert (EndpointPath("/ws").match(asked) is not None) == (asked in ("/ws", "/ws/"))


@pytest.mark.parametrize(
    ("path", "asked", "found"),
    [
        ("/ws", "/ws/health", ({}, "health")),
        ("/ws", "/ws/", ({}, "")),
        ("/ws", "/ws/more/health", None),
        ("/ws", "/health", None),
        ("/", "/health", ({}, "health")),
        ("/{room}", "/tea/health", ({"room": "tea"}, "health")),
    ],
)
def test_what_is_below_a_path_has_its_parameters_and_a_name(
    path: str, asked: str, found: tuple[dict[str, Any], str] | None
) -> None:
    assert EndpointPath(path).match_below(asked) == found


@pytest.mark.parametrize(("path", "is_wide"), [("/", True), ("/{room}", True), ("/ws", False), ("/ws/{room}", False)])
def test_a_path_that_says_nothing_of_its_own_is_wide(path: str, is_wide: bool) -> None:
    assert EndpointPath(path).is_wide is is_wide


def test_names_of_parameters_and_a_slash_at_the_end_make_no_other_path() -> None:
    assert EndpointPath("/ws/{room}").form == EndpointPath("/ws/{place}/").form
    assert EndpointPath("/ws/{room}").form != EndpointPath("/ws/{room:path}").form
    assert EndpointPath("/ws/{room}").form != EndpointPath("/ws").form


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "starts with a slash"),
        ("ws", "starts with a slash"),
        ("/{a}/{a}", "no path"),
        ("/{a:unknown}", "no path"),
        ("/{a", "is written {name}"),
        ("/a}", "is written {name}"),
        ("/{}", "is written {name}"),
    ],
)
def test_what_is_no_path_is_refused_where_it_is_written(path: str, why: str) -> None:
    with pytest.raises(InvalidPathError, match=why):
        EndpointPath(path)


@pytest.mark.parametrize(
    ("path", "asked", "found"),
    [
        ("/ws", "/ws/streams/a", ({}, "a")),
        ("/ws", "/ws//streams/a", ({}, "a")),
        ("/ws", "/ws/streams/a/b", ({}, "a/b")),
        ("/ws", "/ws/streams/", ({}, "")),
        ("/ws", "/ws/streams", None),
        ("/ws", "/ws/streams/streams/a", ({}, "streams/a")),
        ("/ws", "/ws/streams/streams/streams/a", ({}, "streams/streams/a")),
        ("/ws", "/streams/ws/streams/a", None),
        ("/ws", "/ws/streams/../../secret", ({}, "../../secret")),
        ("/ws", "/ws/more/streams/a", None),
        ("/ws", "/other/streams/a", None),
        ("/ws", "/wsx/streams/a", None),
        ("/streams", "/streams/streams/a", ({}, "a")),
        ("/streams", "/streams/a", None),
        ("/", "/streams/a", ({}, "a")),
        ("/", "/streams/streams/a", ({}, "streams/a")),
        ("/{room}", "/tea/streams/a", ({"room": "tea"}, "a")),
        ("/{room}", "/streams/streams/a", ({"room": "streams"}, "a")),
        ("/ws/{room:path}", "/ws/x/streams/a/streams/b", ({"room": "x"}, "a/streams/b")),
        ("/ws/{number:int}", "/ws/x/streams/a", None),
    ],
)
def test_the_path_of_a_stream_has_its_parameters_and_its_id(
    path: str, asked: str, found: tuple[dict[str, Any], str] | None
) -> None:
    assert EndpointPath(path).match_stream(asked) == found


@given(st.text())
def test_any_id_is_found_behind_the_path_of_streams(id_: str) -> None:
    assert EndpointPath("/ws").match_stream("/ws/streams/" + id_) == ({}, id_)
    assert EndpointPath("/{tenant}").match_stream("/shop/streams/" + id_) == ({"tenant": "shop"}, id_)
