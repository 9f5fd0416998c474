"""`make npm`: the browser client as a package of npm, in `dist/npm/` and packed beside it; it is not published.

Its files are those of `src/velocity_ws/browser`, as they are. publint and Are The Types Wrong check the package, in the
versions that `npm/tools` pins.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.node_tools import find_node, find_npm, install, node_environment
from velocity_ws import __version__
from velocity_ws.asgi.browser_files import BROWSER_FILES

HERE = Path(__file__).parent
ROOT = HERE.parent
CHECKS = (
    ("publint/src/cli.js", "run", "--strict"),
    # There is no CommonJS in it: `require` of an ES module works since Node 20.19.
    ("@arethetypeswrong/cli/dist/index.js", "--profile", "esm-only", "--no-emoji", "--no-color"),
)
"""What is run of `npm/tools`, before the name of the tarball."""
STAGES = {"a": "alpha", "b": "beta", "rc": "rc"}


def version_of_npm(version: str) -> str:
    """A version as npm writes it: `0.2.0b1` is `0.2.0-beta.1`.

    Raises:
        ValueError: npm has no such version.
    """
    found = re.fullmatch(r"(\d+\.\d+\.\d+)(?:(a|b|rc)(\d+))?", version)
    if found is None:
        raise ValueError(f"npm has no version like {version!r}: write it as 1.2.3, or 1.2.3b1")
    return found[1] + (f"-{STAGES[found[2]]}.{found[3]}" if found[2] else "")


def write_package(folder: Path) -> None:
    """Write the package into a folder, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in BROWSER_FILES:
        shutil.copy(ROOT / "src/velocity_ws/browser" / name, folder)
    shutil.copy(HERE / "README.md", folder)
    shutil.copy(ROOT / "LICENSE", folder)
    declared = json.loads((HERE / "package.json").read_text())
    declared = {"name": declared.pop("name"), "version": version_of_npm(__version__), **declared}
    (folder / "package.json").write_text(json.dumps(declared, indent=2) + "\n")


def pack(folder: Path, into: Path) -> Path:
    """Pack it as npm does; returns the tarball."""
    command = [*find_npm(), "pack", "--json", "--silent", "--pack-destination", str(into)]
    output = subprocess.run(command, cwd=folder, env=node_environment(), check=True, capture_output=True, text=True)
    return into / str(json.loads(output.stdout)[0]["filename"])


def check(tarball: Path) -> str:
    """What the checkers say of a tarball; empty where they find nothing wrong."""
    tools = install(HERE / "tools")
    said = ""
    for script, *arguments in CHECKS:
        command = [find_node(), str(tools / script), *arguments, str(tarball)]
        done = subprocess.run(command, env=node_environment(), check=False, capture_output=True, text=True)
        if done.returncode:
            said += f"{script.split('/dist')[0]}:\n{done.stdout}{done.stderr}"
    return said


def main() -> int:
    """Write, pack and check; 1 where something is wrong."""
    folder = ROOT / "dist" / "npm"
    write_package(folder)
    tarball = pack(folder, folder.parent)
    wrong = check(tarball)
    sys.stdout.write(f"{folder.relative_to(ROOT)}, {tarball.relative_to(ROOT)}: {tarball.stat().st_size} bytes\n")
    sys.stderr.write(wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
