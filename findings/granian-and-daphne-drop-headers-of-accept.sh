#!/usr/bin/env bash
# granian and daphne send no `headers` of `websocket.accept`: a cookie that an application sets there never arrives.
#
# The ASGI specification has them since its version 2.1 ("headers to return in the websocket handshake"). granian says 2.3
# in `scope["asgi"]["spec_version"]`; daphne says nothing there. Neither complains. The subprotocol, in the same message,
# is sent by all three.
#
# Versions: granian 2.8.9, daphne 4.2.3, uvicorn 0.54.0, websockets 17.4 (the client). Seen:
#   uvicorn: 2.4 ['a=1', 'b=2'] v2
#   granian: 2.3 [] v2
#   daphne: None [] v2
set -euo pipefail
place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet granian==2.8.9 daphne==4.2.3 uvicorn==0.54.0 websockets==17.4
cat > "$place/program.py" <<'PROGRAM'
async def application(scope, receive, send):
    if scope["type"] != "websocket":
        raise RuntimeError("only WebSockets here")
    await receive()
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    await send({"type": "websocket.accept", "subprotocol": "v2", "headers": cookies})
    await send({"type": "websocket.send", "text": str(scope["asgi"].get("spec_version"))})
    await receive()
PROGRAM
cat > "$place/client.py" <<'CLIENT'
import asyncio
import sys

import websockets


async def main():
    while True:
        try:
            client = await websockets.connect(f"ws://127.0.0.1:{sys.argv[1]}/", subprotocols=["v2"])
            break
        except OSError:
            await asyncio.sleep(0.1)
    print(await client.recv(), client.response.headers.get_all("set-cookie"), client.subprotocol)
    await client.close()


asyncio.run(asyncio.wait_for(main(), 30))
CLIENT
cd "$place"
port() { python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
one=$(port) two=$(port) three=$(port)
venv/bin/uvicorn program:application --port "$one" --lifespan off --log-level critical &
venv/bin/granian --interface asginl --port "$two" --no-log program:application &
venv/bin/daphne --port "$three" --verbosity 0 program:application > daphne.log 2>&1 &
seen="uvicorn: $(venv/bin/python client.py "$one")
granian: $(venv/bin/python client.py "$two")
daphne: $(venv/bin/python client.py "$three")"
expected="uvicorn: 2.4 ['a=1', 'b=2'] v2
granian: 2.3 [] v2
daphne: None [] v2"
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
