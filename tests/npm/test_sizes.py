"""The size of the client: what is promised, and what the page about it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from npm.sizes import CLIENTS, size_of

pytestmark = pytest.mark.timeout(300)  # for what npm brings

PAGE = Path(__file__).parents[2] / "docs" / "browser.md"


def test_the_client_takes_no_more_than_it_may_and_what_the_page_about_it_says(project: Path) -> None:
    page = PAGE.read_text()
    told = {name: float(size) for name, size in re.findall(r"^\| `(\S+)` .* \| ([\d.]+) KiB \|$", page, re.MULTILINE)}
    for name, most in (("velocity-ws", 9.5), ("velocity-ws/react", 11)):
        size = size_of(CLIENTS[name], project / "node_modules")[1] / 1024
        assert size <= most
        assert abs(size - told[name]) < 0.2, f"write what `make sizes` says of {name} into docs/browser.md"
