#!/usr/bin/env bash
# A POST that offers HTTP/2 loses its body under uvicorn's httptools parser, and is answered 200.
#
# Java's java.net.http.HttpClient sends `Connection: Upgrade, HTTP2-Settings` and `Upgrade: h2c` with every plain
# request of its default version. A server that does not speak h2c is to ignore that (RFC 9110, section 7.8) and to
# serve the request as it is, body included. uvicorn with h11 does. With httptools, its choice where that is installed,
# the parser stops at the end of the head for any Upgrade, uvicorn logs "Unsupported upgrade request." and runs the
# application, whose body is empty, in one piece with the head or after it.
#
# Versions: uvicorn 0.54.0, httptools 0.9.0, h11 0.16.0. Seen:
#   h11: body in one piece with the head: 5 bytes, after it: 5 bytes
#   httptools: body in one piece with the head: 0 bytes, after it: 0 bytes
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet uvicorn==0.54.0 httptools==0.9.0 h11==0.16.0
cat > "$place/program.py" <<'PROGRAM'
import asyncio
import socket

import uvicorn

HEAD = (
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nContent-Length: 5\r\n\r\n"
)


async def application(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = b"%d bytes" % len(body)
    headers = [(b"content-length", b"%d" % len(answer)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def post(http, *, apart):
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, http=http, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(HEAD)
    if apart:
        await asyncio.sleep(0.1)
    writer.write(b"hello")
    response = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    server.should_exit = True
    await serving
    return response.rpartition(b"\r\n")[2].decode()


for http in ("h11", "httptools"):
    together, after = asyncio.run(post(http, apart=False)), asyncio.run(post(http, apart=True))
    print(f"{http}: body in one piece with the head: {together}, after it: {after}")
PROGRAM
expected='h11: body in one piece with the head: 5 bytes, after it: 5 bytes
httptools: body in one piece with the head: 0 bytes, after it: 0 bytes'
seen=$("$place/venv/bin/python" "$place/program.py")
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
