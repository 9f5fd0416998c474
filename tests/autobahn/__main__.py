"""`make autobahn`: all cases against the class, compression among them; fails unless they are as they must be.

`python -m tests.autobahn [PART …]` runs some parts alone. The pages about each case are left in `artifacts/autobahn`.
"""

from __future__ import annotations

import os
import shutil
import sys

from tests.autobahn.environment import ROOT, ready
from tests.autobahn.suite import PARTS, run

WITHIN = 3600.0
"""Seconds one part may take."""


def main(parts: list[str]) -> int:
    """Run, print what is not OK and a summary; 1 where something must not be."""
    if unknown := set(parts) - set(PARTS):
        sys.stderr.write(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}\n")
        return 2
    pages = ROOT / "artifacts" / "autobahn"
    shutil.rmtree(pages, ignore_errors=True)
    report = run(ready(), parts or list(PARTS), jobs=os.cpu_count() or 1, within=WITHIN, keep=pages)
    sys.stdout.write(f"{report}\n")
    for problem in report.problems:
        sys.stderr.write(f"wrong: {problem}\n")
    return 1 if report.problems else 0


sys.exit(main(sys.argv[1:]))
