#!/usr/bin/env bash
# Each WebSocket handshake that is refused with a body is logged as an error of the application by uvicorn.
#
# ASGI's "WebSocket denial response" extension lets an application refuse a handshake with a status, headers and a
# body; Starlette's middleware (TrustedHostMiddleware, for one) and WebSocket.send_denial_response() use it, and uvicorn
# says in the scope that it has it. The client gets all of that. But uvicorn's class on the `websockets` library's
# sans-I/O part, which it takes by default, does not take the handshake for complete then, and logs at ERROR "ASGI
# callable returned without completing handshake.". With wsproto it does not.
#
# Versions: uvicorn 0.54.0, websockets 17.4, wsproto 1.3.2. Seen:
#   websockets-sansio: 400, "who are you?", errors: ['ASGI callable returned without completing handshake.']
#   wsproto: 400, "who are you?", errors: []
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet uvicorn==0.54.0 websockets==17.4 wsproto==1.3.2 h11==0.16.0
cat > "$place/program.py" <<'PROGRAM'
import asyncio
import logging
import socket

import uvicorn

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
BODY = b"who are you?"


class Errors(logging.Handler):
    def emit(self, record):
        found.append(record.getMessage())


async def application(scope, receive, send):
    assert "websocket.http.response" in scope["extensions"]
    await receive()
    headers = [(b"content-length", b"%d" % len(BODY))]
    await send({"type": "websocket.http.response.start", "status": 400, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": BODY})


async def refused(ws):
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, ws=ws, http="h11", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(HANDSHAKE)
    response = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    server.should_exit = True
    await serving
    head, _, body = response.partition(b"\r\n\r\n")
    return head.split()[1].decode(), body.decode()


logging.getLogger("uvicorn.error").addHandler(Errors(logging.ERROR))
for ws in ("websockets-sansio", "wsproto"):
    found = []
    status, body = asyncio.run(refused(ws))
    print(f'{ws}: {status}, "{body}", errors: {found}')
PROGRAM
expected="websockets-sansio: 400, \"who are you?\", errors: ['ASGI callable returned without completing handshake.']
wsproto: 400, \"who are you?\", errors: []"
seen=$("$place/venv/bin/python" "$place/program.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
