"""The files of the browser client: under which names each is found, and which names are theirs for ever."""

from __future__ import annotations

import pytest

from velocity_ws import browser_client_path
from velocity_ws.asgi.browser_files import find_browser_file, read_browser_file


def test_a_path_with_the_fingerprint_is_below_the_endpoint() -> None:
    name = f"velocity.{read_browser_file('velocity.js').fingerprint}.js"
    assert browser_client_path() == f"/ws/{name}"
    assert browser_client_path("/app/realtime/") == f"/app/realtime/{name}"
    assert browser_client_path("/") == f"/{name}"


def test_a_name_is_final_only_with_the_fingerprint_of_the_content() -> None:
    own = browser_client_path("/").removeprefix("/")
    other = "velocity.0123456789abcdef.js"
    found = {name: find_browser_file(name) for name in ("velocity.js", own, other)}
    assert {name: each and each[1] for name, each in found.items()} == {"velocity.js": False, own: True, other: False}
    assert len({each and each[0] for each in found.values()}) == 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        "velocity",
        "velocity.0123456789ABCDEF.js",
        "velocity.0123.js",
        "velocity.ts",
        "../errors.py",
        "react.0123456789abcdef.js",
    ],
)
def test_no_other_name_is_served(name: str) -> None:
    assert find_browser_file(name) is None
