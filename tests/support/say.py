"""How these tests say what they measured."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

Say = Callable[[str], None]


@pytest.fixture
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints a line of figures: from long runs always, from short ones where they fail."""

    def print_line(line: str) -> None:
        if request.node.get_closest_marker("soak"):
            with capsys.disabled():
                sys.stdout.write(f"\n{line}\n")
                sys.stdout.flush()
        else:
            sys.stdout.write(f"{line}\n")

    return print_line
