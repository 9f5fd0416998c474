"""How much of a page's time `velocity.js` costs: it is one module, and small."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

from tests.support.node_tools import find_node, install, node_environment

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/velocity_ws/browser/velocity.js"
MOST = 6 * 1024


def test_the_client_is_small() -> None:
    esbuild = install(ROOT / "tests" / "npm") / "esbuild" / "bin" / "esbuild"
    command = [find_node(), str(esbuild), "--minify", "--format=esm", str(SOURCE)]
    minified = subprocess.run(command, env=node_environment(), capture_output=True, check=True).stdout
    assert len(gzip.compress(minified, 9)) <= MOST


def test_the_client_imports_nothing() -> None:
    source = SOURCE.read_text(encoding="utf-8")
    assert re.search(r"^\s*import\b|\bimport\(", source, re.MULTILINE) is None
