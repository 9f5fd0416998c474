"""No block of code on any page is only looked at: Python and JavaScript are type-checked, JSON is parsed.

What a block does, beyond being right to a type checker, is tested in `test_guides.py` and its neighbours.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.node_tools import find_node, install, node_environment
from tests.support.pages import PAGES, ROOT, Block, blocks, program

SHOWN = {
    "sh": "commands and variables",
    "text": "what is printed, and drawings",
    **dict.fromkeys(["ini", "dockerfile", "yaml", "toml", "html"], "files"),
    **dict.fromkeys(["nginx", "haproxy", "apache", "caddyfile", "vcl", "lighttpd", "squid"], "proxies, run in e2e"),
    **dict.fromkeys(["{eval-rst}", "{toctree}"], "Sphinx reads it"),
}
"""What is no program, and why: a block that names one of these is only shown."""
SCRIPTS = ("js", "ts", "tsx")
CHECKED = {"python", "json", *SCRIPTS}

ALONE = {"README.md", "docs/browser.md", "docs/users.md", "docs/migration.md", "docs/deployment.md", "docs/scaling.md"}
"""Pages of which each block is a program; those of another page are one, in their order."""
APART = {
    # Blocks of such pages that go on from the first one, by a word of theirs.
    "docs/users.md": ["def set_cookie", "def log_out"],
}
CONTINUES = {
    "docs/testing.md": "docs/dependencies.md",
    **dict.fromkeys(
        ["docs/adapters.md", "docs/adapters-ai-sdk.md", "docs/adapters-langchain.md"], "docs/adapters-openai.md"
    ),
}
"""Pages whose program goes on from that of another page."""
ELSEWHERE = {"CONTRIBUTING.md": "a part of a module, which `test_docs.py` finds there"}
BESIDE = "from app import"
"""What stands in a block that is another file beside the program of its page, which is `app.py`."""
EXPECTED = "the password stays here"
"""What stands on a line that a type checker is right to refuse."""


def programs(page: Path) -> list[list[Block]]:
    """The programs on a page."""
    name = str(page.relative_to(ROOT))
    found = [] if name in ELSEWHERE else blocks(page, "python")
    beside = [[block] for block in found if BESIDE in block.source]
    if beside:
        return [[block for block in found if BESIDE not in block.source], *beside]
    if name not in ALONE:
        before = blocks(CONTINUES[name], "python") if name in CONTINUES else []
        return [[*before, *found]] if found else []
    together = [block for block in found if any(word in block.source for word in APART.get(name, ()))]
    return [*([together] if together else []), *([block] for block in found if block not in together)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    wrong = [
        f"{block}: say behind the fence what it is: {', '.join(sorted(CHECKED))}, which is checked; or one of "
        f"{', '.join(SHOWN)}, which is only shown"
        for block in blocks(page)
        if block.language not in CHECKED | SHOWN.keys()
    ]
    assert not wrong, "\n".join(wrong)


async def test_a_type_checker_takes_every_block_of_python(tmp_path: Path) -> None:
    owners: dict[str, list[Block | None]] = {}
    sources: dict[str, list[str]] = {}
    for page in PAGES:
        for parts in programs(page):
            has_beside = BESIDE not in parts[0].source and any(BESIDE in block.source for block in blocks(page))
            name = "app.py" if has_beside else re.sub(r"\W", "_", str(parts[-1])) + ".py"
            source, owners[name] = program(parts)
            sources[name] = source.splitlines()
            (tmp_path / name).write_text(source)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mypy", "--no-error-summary", "--allow-untyped-decorators", "--allow-subclassing-any"),
        *("--cache-dir", ".mypy_cache/blocks"),  # what is known under other options is of no use, and would be replaced
        *(str(tmp_path / name) for name in owners),
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": f"src{os.pathsep}{tmp_path}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode in (0, 1), output
    wrong, expected = [], 0
    for name, number, problem in re.findall(r"(\w+\.py):(\d+): error: (.*)", output):
        line, block = sources[name][int(number) - 1], owners[name][int(number) - 1]
        if EXPECTED in line:
            expected += 1
        else:
            wrong.append(f"{block}: {line.strip()}\n    {problem}")
    assert not wrong, "\n".join(wrong)
    assert expected == sum(source.count(EXPECTED) for lines in sources.values() for source in lines)


async def test_a_type_checker_takes_every_block_of_javascript_and_typescript(tmp_path: Path) -> None:
    modules = install(ROOT / "tests" / "npm")
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "yours.d.ts").write_text(YOURS)
    for name in ("velocity.d.ts", "react.d.ts"):
        shutil.copy(ROOT / "src/velocity_ws/browser" / name, tmp_path)
    files = {}
    for page in PAGES:
        for block in blocks(page, *SCRIPTS):
            name = f"{re.sub(r'[^a-z0-9]', '_', str(block), flags=re.IGNORECASE)}.{block.language}"
            given = "\n".join(f'import {{ {used} }} from "velocity-ws";' for used in _not_imported(block.source))
            files[name] = block
            source = block.source.replace("/ws/velocity.js", "velocity-ws")
            (tmp_path / name).write_text(f"{given}\n{source}\nexport {{}};\n")
    config = {
        "compilerOptions": {
            "allowJs": True,
            "checkJs": True,
            "noEmit": True,
            "strict": True,
            "noImplicitAny": False,
            "target": "es2022",
            "module": "esnext",
            "moduleResolution": "bundler",
            "lib": ["es2024", "dom"],
            "jsx": "react-jsx",
            "paths": {"velocity-ws": ["./velocity.d.ts"], "velocity-ws/react": ["./react.d.ts"]},
            "types": ["node"],
        },
        "include": ["*.js", "*.ts", "*.tsx"],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        *(find_node(), str(modules / "typescript" / "bin" / "tsc"), "-p", str(tmp_path), "--pretty", "false"),
        cwd=tmp_path,
        env=node_environment(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    problems = [
        f"{files.get(name, name)}: {problem}"
        for name, problem in re.findall(r"^([\w.]+)\(\d+,\d+\): error (.*)$", output, re.MULTILINE)
    ]
    assert process.returncode == 0, "\n".join(problems) or output


def _not_imported(source: str) -> list[str]:
    """What a block uses of the browser client and does not import itself, as it goes on from another one."""
    return [] if "connect }" in source or "connect(" not in source else ["connect"]


YOURS = """
declare var ws: import("velocity-ws").Velocity;
declare var room: string;
declare var id: string;
declare var input: HTMLInputElement;
declare const people: Map<string, unknown>;
declare function token(): string;
declare function show(...what: unknown[]): void;
declare function load(reason?: string): void;
interface Events { receives: { said: { text: string } } }
"""


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page, "json")], ids=str)
def test_every_block_of_json_is_json(block: Block) -> None:
    for line in block.source.splitlines():
        json.loads(line)
