#!/usr/bin/env bash
# Durable Streams' client for Python goes on asking for more of a stream that is closed.
#
# The protocol says with `Stream-Closed: true` that there will never be more, and has servers answer a long poll at the
# end of a closed stream at once: 204, with that header. The client does not read it. Who iterates (`live="auto"`, the
# default, or "long-poll") gets all that there is, and then the loop does not end: the client asks again as soon as it
# is answered, without a pause. With `live=False` it ends.
# Here the requests are counted for half a second behind the first answer with that header; then the program ends it.
#
# Versions: durable-streams 0.1.0, httpx 0.28.1 (Python), @durable-streams/server 0.3.7 (in memory), Node 20. Seen (N
# was 408 to 921):
#   live=False: all was read: True, it ended: True, asked behind the end: 0
#   live=auto: all was read: True, it ended: False, asked behind the end: N, answered: 204 Stream-Closed: true
#   live=long-poll: all was read: True, it ended: False, asked behind the end: N, answered: 204 Stream-Closed: true
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
npm init --yes > /dev/null
npm install --silent --no-audit --no-fund @durable-streams/server@0.3.7 > install.log 2>&1
python3 -m venv venv
venv/bin/pip install --quiet durable-streams==0.1.0 httpx==0.28.1
cat > server.mjs <<'SERVER'
import { DurableStreamTestServer } from "@durable-streams/server";

console.log(await new DurableStreamTestServer({ port: 0 }).start());
SERVER
cat > program.py <<'PROGRAM'
import subprocess
import sys
import time

import httpx
from durable_streams import stream


class Enough(Exception):
    pass


class Counting(httpx.HTTPTransport):
    """Keeps what is answered behind the first answer that says that the stream is closed, for half a second."""

    def __init__(self):
        super().__init__()
        self.end, self.behind = None, []

    def handle_request(self, request):
        if self.end is not None and time.monotonic() > self.end:
            raise Enough
        response = super().handle_request(request)
        closed = response.headers.get("stream-closed")
        if self.end is not None:
            self.behind.append(f"{response.status_code} Stream-Closed: {closed}")
        elif closed == "true":
            self.end = time.monotonic() + 0.5
        return response


def read(url, live):
    counting, got, ended = Counting(), b"", True
    with httpx.Client(transport=counting) as client:
        try:
            with stream(url, offset="-1", live=live, client=client) as response:
                for chunk in response:
                    got += chunk
        except Enough:
            ended = False
    if counting.end is None:
        sys.exit("no answer has said that the stream is closed")
    return got == b"all of it", ended, counting.behind


server = subprocess.Popen(["node", "server.mjs"], stdout=subprocess.PIPE, text=True)
try:
    url = f"{server.stdout.readline().strip()}/v1/stream/a"
    headers = {"Content-Type": "text/plain", "Stream-Closed": "true"}
    httpx.put(url, content=b"all of it", headers=headers, trust_env=False).raise_for_status()
    same = True
    for live in (False, "auto", "long-poll"):
        whole, ended, behind = read(url, live)
        answers = f", answered: {', '.join(sorted(set(behind)))}" if behind else ""
        print(f"live={live}: all was read: {whole}, it ended: {ended}, asked behind the end: {len(behind)}{answers}")
        if live is False:
            same = same and whole and ended and not behind
        else:
            same = same and whole and not ended and len(behind) > 1 and set(behind) == {"204 Stream-Closed: true"}
    if not same:
        sys.exit("it is another way now")
finally:
    server.kill()
    server.wait()
PROGRAM
venv/bin/python program.py
