"""`make fuzz`: run atheris on each target for a while; fails where an input shows a fault, and leaves that input.

`python -m tests.fuzz TARGET FILE…` replays inputs. FUZZ_SECONDS says how long all targets together may take, 60 by
default. What is found is left in `artifacts/fuzz`, and where a run begins is what the last one has learnt.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

NAMES = ("cut", "class")
PLACE = Path(__file__).parents[2] / "artifacts" / "fuzz"
LONGEST = {"cut": 70_000, "class": 4_000}
"""Bytes of an input."""


def fuzz(name: str, seconds: int) -> None:
    """Look for faults with one target; ends the process."""
    atheris = importlib.import_module("atheris")  # it has no types
    with atheris.instrument_imports(include=["velocity_ws"], enable_loader_override=False):
        targets = importlib.import_module("tests.fuzz.targets")
    targets.make_quick()
    place = PLACE / name
    corpus = place / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(targets.SEEDS[name]):
        (corpus / f"seed-{index}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST[name]}", "-timeout=20", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={place}/", str(corpus)], targets.TARGETS[name])
    atheris.Fuzz()


def replay(name: str, files: list[str]) -> None:
    """Run a target on inputs that were found before."""
    targets = importlib.import_module("tests.fuzz.targets")
    for file in files:
        targets.TARGETS[name](Path(file).read_bytes())


def main(arguments: list[str]) -> int:
    """All targets one after the other, one of them, or a replay; 0 where no fault was found."""
    seconds = max(1, int(os.environ.get("FUZZ_SECONDS", "60")) // (1 if arguments else len(NAMES)))
    if len(arguments) > 1:
        replay(arguments[0], arguments[1:])
        return 0
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("there is no atheris for this Python: it has wheels for 3.11 to 3.14 on Linux, x86-64\n")
        return 2
    if arguments:
        fuzz(arguments[0], seconds)
        return 0
    found = 0
    for name in NAMES:
        sys.stdout.write(f"fuzzing {name} for {seconds} s\n")
        sys.stdout.flush()
        run = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", name],
            env={**os.environ, "FUZZ_SECONDS": str(seconds)},
            check=False,
        )
        found |= run.returncode
    return 1 if found else 0


sys.exit(main(sys.argv[1:]))
