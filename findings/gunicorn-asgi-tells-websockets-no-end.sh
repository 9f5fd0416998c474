#!/usr/bin/env bash
# gunicorn's own ASGI worker (-k asgi) stops without a word to WebSockets: no close frame, no disconnect, no shutdown.
#
# On SIGTERM the worker "waits for connections to finish" for graceful_timeout (30 s by default), during which nothing
# tells an open WebSocket's application or its client that the server is stopping, so none of them finishes. Then the
# worker is killed: the client sees the TCP connection end (1006), the application gets neither `websocket.disconnect`
# nor `lifespan.shutdown`. uvicorn-worker on the same gunicorn closes with 1012 and runs the shutdown.
#
# Versions: gunicorn 27.0.1, websockets 17.4 (the client). Seen, with --graceful-timeout 3:
#   after 3 s: no close frame
#   application heard: lifespan.startup, websocket.connect
set -euo pipefail
place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet gunicorn==27.0.1 websockets==17.4
cd "$place"
cat > program.py <<'PROGRAM'
def note(what):
    with open("heard", "a") as file:
        file.write(what + "\n")


async def application(scope, receive, send):
    while True:
        message = await receive()
        note(message["type"])
        if message["type"].startswith("lifespan."):
            await send({"type": message["type"] + ".complete"})
        elif message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        if message["type"] in ("lifespan.shutdown", "websocket.disconnect"):
            return
PROGRAM
cat > client.py <<'CLIENT'
import asyncio
import os
import signal
import sys
import time

import websockets


async def main():
    while True:
        try:
            client = await websockets.connect(f"ws://127.0.0.1:{sys.argv[1]}/", ping_interval=None)
            break
        except OSError:
            await asyncio.sleep(0.1)
    os.kill(int(sys.argv[2]), signal.SIGTERM)
    began = time.monotonic()
    try:
        await client.recv()
    except websockets.ConnectionClosed as closed:
        what = "no close frame" if closed.rcvd is None else f"close frame {closed.rcvd.code}"
        print(f"after {time.monotonic() - began:.0f} s: {what}")


asyncio.run(asyncio.wait_for(main(), 60))
CLIENT
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
PYTHONPATH=. venv/bin/gunicorn -k asgi --no-control-socket --graceful-timeout 3 -b "127.0.0.1:$port" program:application > log 2>&1 &
master=$!
seen=$(venv/bin/python client.py "$port" "$master")
wait "$master" || true
heard=$(paste -s -d, heard | sed 's/,/, /g')
echo "$seen"
echo "application heard: $heard"
[ "${seen#after * s: }" = "no close frame" ] && [ "$heard" = "lifespan.startup, websocket.connect" ] || { echo "changed; the log:"; cat log; exit 1; }
