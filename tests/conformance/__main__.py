"""`make conformance`: the public suite of the Durable Streams protocol, on each engine that keeps streams.

`python -m tests.conformance [ENGINE …]` runs it on some alone. No case is tried again: let the machine do nothing else.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tests.conformance.engines import ENGINES, started
from tests.conformance.suite import run

WITHIN = 600.0
"""Seconds that the suite may take on one of them."""


async def main(kinds: list[str]) -> int:
    """Run, print how it went on each; 1 where something must not be."""
    if unknown := set(kinds) - set(ENGINES):
        sys.stderr.write(f"no such engine: {', '.join(sorted(unknown))}; there are {', '.join(ENGINES)}\n")
        return 2
    wrong = 0
    for kind in kinds or ENGINES:
        began = time.monotonic()
        async with started(kind) as url:
            report = await run(url, within=WITHIN)
        sys.stdout.write(f"{kind}: {report}, in {time.monotonic() - began:.0f} s\n")
        sys.stdout.flush()
        for problem in report.problems:
            sys.stderr.write(f"{kind}: wrong: {problem}\n")
        wrong += len(report.problems)
    return 1 if wrong else 0


sys.exit(asyncio.run(main(sys.argv[1:])))
