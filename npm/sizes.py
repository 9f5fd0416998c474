"""`make sizes`: what the browser client takes on the way to a page, beside other clients, in a table of Markdown.

Each is what a page imports of it, bundled and minified by esbuild, and then compressed by `gzip -9`. The versions are
those in `npm/peers`.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

from tests.support.node_tools import find_node, install, node_environment
from velocity_ws import __version__

HERE = Path(__file__).parent
BROWSER = HERE.parent / "src/velocity_ws/browser"
CLIENTS = {
    "velocity-ws": f'export {{ connect }} from "{BROWSER}/velocity.js"',
    "velocity-ws/react": f'export * from "{BROWSER}/velocity.js"; export * from "{BROWSER}/react.js"',
    "partysocket": 'export { WebSocket } from "partysocket"',
    "socket.io-client": 'export { io } from "socket.io-client"',
    "centrifuge": 'export { Centrifuge } from "centrifuge"',
}


def size_of(source: str, modules: Path) -> tuple[int, int]:
    """The bytes of a module when it is bundled and minified, and when that is compressed, too. React is not counted."""
    esbuild = str(modules / "esbuild/bin/esbuild")
    options = ("--bundle", "--minify", "--format=esm", "--platform=browser", "--external:react", "--log-level=error")
    command = [find_node(), esbuild, *options]
    done = subprocess.run(
        command, cwd=modules.parent, env=node_environment(), input=source.encode(), check=True, capture_output=True
    )
    return len(done.stdout), len(gzip.compress(done.stdout, 9, mtime=0))


def version_of(name: str, modules: Path) -> str:
    """The version of a client."""
    if name.startswith("velocity-ws"):
        return __version__
    version: str = json.loads((modules / name / "package.json").read_text())["version"]
    return version


def table(modules: Path) -> str:
    """The rows, the smallest first."""
    sizes = {name: size_of(source, modules) for name, source in CLIENTS.items()}
    rows = [
        f"| `{name}` {version_of(name, modules)} | {plain / 1024:.1f} KiB | {compressed / 1024:.1f} KiB |"
        for name, (plain, compressed) in sorted(sizes.items(), key=lambda item: item[1][1])
    ]
    return "\n".join(["| client | minified | and gzipped |", "|---|---:|---:|", *rows])


if __name__ == "__main__":
    sys.stdout.write(table(install(HERE / "peers")) + "\n")
