#!/usr/bin/env bash
# uvloop rounds a delay to whole milliseconds, half of one downwards: call_later(0.0005) and sleep(0.0005) do not wait at
# all. What paces itself by such pauses, so many a second in small steps, runs as fast as it can, and is a busy loop.
#
# asyncio's own loop never wakes before the time. libuv, on which uvloop is built, has timers of milliseconds; uvloop
# rounds to the nearest one, and a timer of 0 is due in the next turn of the loop. A longer delay may end up to half a
# millisecond early for the same reason. `loop.time()` does not show it, as it is as exact as the clock.
#
# Versions: uvloop 0.23.0 and 0.22.1, CPython 3.11.7. Seen: 2,000 sleeps of 0.5 ms, one second in all, take 0.0 s on uvloop
# and 1.0 s and more on asyncio's loop; 500 of 0.6 ms, 0.3 s in all, take 0.5 s and more on both.
# Set PYTHON for another interpreter than python3.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cat > "$place/program.py" <<'PROGRAM'
import asyncio
import time

import uvloop


async def sleeps(count: int, seconds: float) -> float:
    began = time.monotonic()
    for _ in range(count):
        await asyncio.sleep(seconds)
    return time.monotonic() - began


for run in (uvloop.run, asyncio.run):
    print(f"{run.__module__}: 2,000 of 0.5 ms {run(sleeps(2000, 0.0005)):.1f} s, 500 of 0.6 ms {run(sleeps(500, 0.0006)):.1f} s")
assert uvloop.run(sleeps(2000, 0.0005)) < 0.5
assert asyncio.run(sleeps(2000, 0.0005)) >= 1
assert uvloop.run(sleeps(500, 0.0006)) >= 0.3
PROGRAM
for version in 0.23.0 0.22.1; do
    "${PYTHON:-python3}" -m venv "$place/$version"
    "$place/$version/bin/pip" install -q "uvloop==$version"
    echo "uvloop $version"
    "$place/$version/bin/python" "$place/program.py"
done
