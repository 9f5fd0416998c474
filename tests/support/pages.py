"""The pages of the documentation and their blocks of code. Knows nothing of what they show."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import yours

__all__ = [
    "PAGES", "ROOT", "Block", "block_of", "blocks", "module_of", "program", "program_of", "run", "section",
]  # fmt: skip

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/RESULTS.md"])
"""Every page that people read, be it a part of the site or not."""

_FENCE = re.compile(r"^( *)(`{3,})([^\n`]*)\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: the page's path, below the repository's root.
        line: the line on which its code begins, counted from 1.
        language: what stands behind the fence; empty where nothing does.
        source: the code.
    """

    page: str
    line: int
    language: str
    source: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path | str, *languages: str) -> list[Block]:
    """The blocks on a page, of these languages where some are given."""
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    found = [
        Block(
            str(path.relative_to(ROOT)),
            text.count("\n", 0, match.start()) + 2,
            match[3].strip(),
            textwrap.dedent(match[4]) if match[1] else match[4],
        )
        for match in _FENCE.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def block_of(page: str, word: str) -> str:
    """The one block of Python on a page that has a word in it."""
    (found,) = [each.source for each in blocks(f"docs/{page}", "python") if word in each.source]
    return found


def program_of(*pages: str) -> str:
    """The blocks of Python on pages, in their order."""
    return "\n".join(each.source for page in pages for each in blocks(f"docs/{page}", "python"))


def run(source: str, names: dict[str, Any]) -> None:
    """Run it as a part of a module in which these names are there."""
    exec(compile(source, "a page", "exec", dont_inherit=True), names)


@contextmanager
def module_of(source: str, **names: Any) -> Iterator[Any]:
    """Run it as a module, in which these names are there."""
    module = types.ModuleType("a_page")
    sys.modules[module.__name__] = module  # where annotations are looked for
    vars(module).update(names)
    try:
        run(source, vars(module))
        yield module
    finally:
        del sys.modules[module.__name__]


def section(page: Path | str, heading: str) -> str:
    """What a page says below a heading, up to the next one of its level or above."""
    text = (ROOT / page).read_text(encoding="utf-8")
    begin = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert begin is not None, f"{page} has no heading {heading!r}"
    rest = text[begin.end() :]
    without_code = re.sub(r"(?ms)^```.*?^```$", lambda block: " " * len(block[0]), rest)
    end = re.search(rf"^#{{1,{len(begin[1])}}} ", without_code, re.MULTILINE)
    return rest[: end.start()] if end else rest


def program(parts: list[Block]) -> tuple[str, list[Block | None]]:
    """One module of Python made of blocks; and for each of its lines, the block that it is of.

    What they use and do not define is imported from `tests.support.yours`. A block that waits, or returns, outside of a
    function stands in one.
    """
    lines: list[str] = []
    owners: list[Block | None] = []
    used: set[str] = set()
    defined: set[str] = set()
    for number, block in enumerate(parts):
        source = block.source
        try:
            tree = ast.parse(source)
            compile(source, str(block), "exec", dont_inherit=True)  # which finds `await` and `return` outside of one
        except SyntaxError:
            function = ast.parse("async def fragment():\n" + textwrap.indent(source, "    ")).body[0]
            assert isinstance(function, ast.AsyncFunctionDef)
            changed = sorted(_used_first(function.body) & _defined_by(function.body))
            inside = (f"global {', '.join(changed)}\n" if changed else "") + source
            source = f"async def fragment_{number}() -> yours.Any:\n" + textwrap.indent(inside, "    ")
            tree = ast.parse(source)
        used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        defined |= _defined_by(tree.body) - (_used_first(tree.body) - defined)
        lines += source.splitlines()
        owners += [block] * len(source.splitlines())
    names = sorted((used - defined) & set(vars(yours)))
    head = ["from tests.support import yours", *(f"from tests.support.yours import {name}" for name in names)]
    return "\n".join([*head, *lines]) + "\n", [*([None] * len(head)), *owners]


def _used_first(body: list[ast.stmt]) -> set[str]:
    """The names that statements use before they define them."""
    used: set[str] = set()
    defined: set[str] = set()
    for node in body:  # the body of a `with` counts as before it, which does no harm to names of none of `yours`
        used |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and not _stores(each)} - defined
        defined |= _defined_by([node])
    return used & set(vars(yours))


def _defined_by(body: list[ast.stmt]) -> set[str]:
    """The names that statements define, at their own level."""
    names: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            case _:
                names |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and _stores(each)}
    return names


def _stores(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)
