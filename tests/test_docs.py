"""What the pages for developers say of the code is true: files, names, rooms, floors and loggers that are there."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src/velocity_ws"
ARCHITECTURE = ROOT / "docs/architecture.md"
PAGES = [ARCHITECTURE, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "docs/performance.md"]
REFERENCE = re.compile(r"([\w./-]+\.py)(?:::([\w.]+))?")
"""`room/file.py` or `room/file.py::name`, below src/velocity_ws or else below the repository's root."""


def section(heading: str) -> str:
    """What docs/architecture.md says below a heading of the second level."""
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", ARCHITECTURE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"docs/architecture.md has no section {heading!r}"
    return found[1]


def names_of(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """What is defined in a module or a class, each with what is defined in it."""
    names: dict[str, list[ast.stmt]] = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            names[node.name] = node.body
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names[node.name] = []
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update({target.id: [] for target in targets if isinstance(target, ast.Name)})
    return names


def problem_of(quoted: str) -> str | None:
    """What is wrong with a reference; ``None`` where what it names is there."""
    found = REFERENCE.fullmatch(quoted)
    if found is None:
        return "write `room/file.py` or `room/file.py::Class.method`"
    path, name = found[1], found[2]
    file = next((folder / path for folder in (SOURCES, ROOT) if (folder / path).exists()), None)
    if file is None:
        return f"there is no src/velocity_ws/{path} and no {path}"
    body = ast.parse(file.read_text()).body
    for part in name.split(".") if name else ():
        names = names_of(body)
        if part not in names:
            return f"{path} does not define {part!r} there"
        body = names[part]
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_function_that_a_page_names_is_there(page: Path) -> None:
    quoted = re.findall(r"`([^`\n]*\.py\b[^`\n]*)`", page.read_text())
    assert quoted or page.name == "SECURITY.md"
    wrong = [f"{each}: {problem}" for each in dict.fromkeys(quoted) if (problem := problem_of(each)) is not None]
    assert not wrong, f"{page.name} names what is not there:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("quoted", "problem"),
    [
        ("sessions/hub.py::Hub.deliver", None),
        ("tests/test_docs.py", None),
        ("sessions/hubs.py", "there is no"),
        ("sessions/hub.py::Hub.enter", "does not define 'enter'"),
        ("sessions/hub.py:12", "write"),
    ],
)
def test_a_reference_to_what_is_not_there_is_found(quoted: str, problem: str | None) -> None:
    said = problem_of(quoted)
    assert said == problem or (problem is not None and said is not None and problem in said)


def test_the_docstring_that_is_shown_as_a_good_one_is_that_of_the_code() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    example = re.search(r"`([\w/]+\.py)::\w+`[^`]*```python\n(.*?)^  ```$", page, re.MULTILINE | re.DOTALL)
    assert example is not None
    assert re.sub(r"^  ", "", example[2], flags=re.MULTILINE) in (SOURCES / example[1]).read_text()


def test_each_room_has_its_paragraph_and_each_file_at_the_top_its_line() -> None:
    text = section("The rooms")
    rooms = {path.name for path in SOURCES.iterdir() if (path / "__init__.py").is_file() or path.name == "browser"}
    assert set(re.findall(r"^\*\*`(\w+)/`\*\*", text, re.MULTILINE)) == rooms
    files = {path.name for path in SOURCES.glob("*.py")}
    assert set(re.findall(r"`(\w+\.py)`", text)) == files


def test_the_floors_drawn_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    drawing = re.search(r"^```text\n(.*?)^```$", section("The floors"), re.MULTILINE | re.DOTALL)
    assert drawing is not None
    assert [re.split(r" {2,}", line)[0] for line in drawing[1].splitlines()] == layers


def test_the_loggers_listed_are_those_that_there_are() -> None:
    there: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "get_logger":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path}: give get_logger the name itself"
                assert isinstance(name.value, str)
                there.add(name.value)
    listed = re.findall(r"^\| `(velocity_ws\.\w+)` \|", section("Loggers"), re.MULTILINE)
    assert listed == sorted(there), "the table of loggers in docs/architecture.md is not what get_logger is called with"
