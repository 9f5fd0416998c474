#!/usr/bin/env bash
# anyio: a timeout of one loop cancels what a worker thread runs on another loop, late if that loop has nothing to do.
#
# `from_thread.run(function, token=...)` runs a coroutine on the loop that the token names. In a thread that
# `to_thread.run_sync` started, it puts the coroutine's task into the cancel scope of that thread, which belongs to the
# loop that started the thread: its timeout cancels the task on the other loop, from its own thread. `Task.cancel` does
# not wake a loop of another thread, so that one which waits for nothing sooner notices when its next timer is due.
# `asyncio.run_coroutine_threadsafe`, called in the same place, knows no scope: the coroutine runs to its end.
# Who offers blocking calls into a loop of its own, to code that may run in anyio's threads, has to know which of the
# two is wanted; with the first, a request that times out cancels work half done on the other loop.
#
# Versions: anyio 4.16.0, Python 3.11. Seen: see `expected` below, for a timeout of 0.3 s and a coroutine of 1.5 s.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet anyio==4.16.0
cat > "$place/program.py" <<'PROGRAM'
import asyncio
import threading
import time

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread


async def long():
    began = time.monotonic()
    end = "finished"
    try:
        await asyncio.sleep(1.5)
    except asyncio.CancelledError:
        end = "cancelled"
        raise
    finally:
        ends.append(f"{end} {'at the timeout' if time.monotonic() - began < 1 else 'after 1.5 s'}")


async def other_loop(tick):
    global token
    token = anyio.lowlevel.current_token()
    ready.set()
    while True:
        await asyncio.sleep(tick)


def by_anyio():
    anyio.from_thread.run(long, token=token)


def by_asyncio():
    asyncio.run_coroutine_threadsafe(long(), token.native_token).result()


async def main(call):
    with anyio.move_on_after(0.3):
        await anyio.to_thread.run_sync(call)


for state, tick in (("busy", 0.01), ("idle", 60)):
    ready, ends, token = threading.Event(), [], None
    threading.Thread(target=lambda: asyncio.run(other_loop(tick)), daemon=True).start()
    ready.wait()
    for name, call in (("from_thread.run", by_anyio), ("run_coroutine_threadsafe", by_asyncio)):
        asyncio.run(main(call))
        print(f"{name}, the other loop is {state}: {ends.pop()}")
PROGRAM
expected='from_thread.run, the other loop is busy: cancelled at the timeout
run_coroutine_threadsafe, the other loop is busy: finished after 1.5 s
from_thread.run, the other loop is idle: cancelled after 1.5 s
run_coroutine_threadsafe, the other loop is idle: finished after 1.5 s'
seen=$("$place/venv/bin/python" "$place/program.py" 2> /dev/null)
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
