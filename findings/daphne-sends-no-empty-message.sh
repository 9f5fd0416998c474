#!/usr/bin/env bash
# daphne sends no empty message: a `websocket.send` whose text is "" or whose bytes are b"" goes nowhere, without a word.
#
# RFC 6455 has empty messages (a payload length of 0), and ASGI's `websocket.send` asks only that text or bytes is not
# None. daphne tests for truth instead, so an application's heartbeat of an empty text, or an empty file, never leaves
# it; what a client sends is handed over, empty or not. uvicorn, hypercorn and granian send both.
#
# Versions: daphne 4.2.3, uvicorn 0.54.0, websockets 17.4 (the client). Seen:
#   uvicorn: ['before', '', b'', 'after']
#   daphne: ['before', 'after']
set -euo pipefail
place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet daphne==4.2.3 uvicorn==0.54.0 websockets==17.4
cat > "$place/program.py" <<'PROGRAM'
async def application(scope, receive, send):
    if scope["type"] != "websocket":
        raise RuntimeError("only WebSockets here")
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    for part in ({"text": "before"}, {"text": ""}, {"bytes": b""}, {"text": "after"}):
        await send({"type": "websocket.send", **part})
    await receive()
PROGRAM
cat > "$place/client.py" <<'CLIENT'
import asyncio
import sys

import websockets


async def main():
    while True:
        try:
            client = await websockets.connect(f"ws://127.0.0.1:{sys.argv[1]}/")
            break
        except OSError:
            await asyncio.sleep(0.1)
    await client.send("now")
    got = []
    while not got or got[-1] != "after":
        got.append(await client.recv())
    print(got)
    await client.close()


asyncio.run(asyncio.wait_for(main(), 30))
CLIENT
cd "$place"
port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
one=$(port) two=$(port)
venv/bin/uvicorn program:application --port "$one" --lifespan off --log-level critical &
venv/bin/daphne --port "$two" --verbosity 0 program:application > daphne.log 2>&1 &
seen="uvicorn: $(venv/bin/python client.py "$one")
daphne: $(venv/bin/python client.py "$two")"
expected="uvicorn: ['before', '', b'', 'after']
daphne: ['before', 'after']"
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
