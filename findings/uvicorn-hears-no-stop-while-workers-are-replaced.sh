#!/usr/bin/env bash
# uvicorn's parent of several workers acts on SIGTERM only when a restart by SIGHUP is over, and starts workers until then.
#
# A SIGHUP replaces the workers one after the other: a new one is started, and when it serves, the old one is told to
# end and waited for. `restart_all` looks between them whether the parent is to exit. But signals are only noted in a
# list when they come, and what is in it is handled by the loop that called `restart_all`: nothing can say so meanwhile.
# An old worker ends when its last response has. So after "reload", "stop" waits for the slowest client of each worker in
# turn, and each turn starts another worker that is stopped afterwards; a service manager may kill all of them before.
# (How long one worker is waited for, --timeout-graceful-shutdown bounds.)
#
# Versions: uvicorn 0.54.0, two workers, clients that read an endless response from each. Seen:
#   5 s after SIGTERM: the parent runs, and has said 0 times that it came
#   when the clients have gone: 1 worker was started after SIGTERM, and the parent ended
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet uvicorn==0.54.0 h11==0.16.0
cat > "$place/application.py" <<'PROGRAM'
async def application(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello", "more_body": True})
    while (await receive())["type"] != "http.disconnect":
        pass
PROGRAM
cat > "$place/program.py" <<'PROGRAM'
import os
import signal
import socket
import subprocess
import sys
import time

STARTED, ENDING, HEARD = "Started server process", "Terminated child process", "Received SIGTERM"
with socket.create_server(("127.0.0.1", 0)) as found:
    port = found.getsockname()[1]
options = ["application:application", "--workers", "2", "--port", str(port), "--lifespan", "off", "--http", "h11", "--no-access-log"]
log = open("log", "w")
parent = subprocess.Popen(
    [sys.executable, "-m", "uvicorn", *options, "--timeout-worker-healthcheck", "60"], stderr=log, start_new_session=True
)


def said(what):
    return open("log").read().count(what)


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, open("log").read()
        time.sleep(0.05)


try:
    until(lambda: said(STARTED) == 2)
    clients = []
    for _ in range(30):  # so that each worker has some
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert client.recv(1000)
        clients.append(client)
    parent.send_signal(signal.SIGHUP)
    until(lambda: said(ENDING) == 1)
    parent.send_signal(signal.SIGTERM)
    time.sleep(5)
    before, runs, heard = said(STARTED), parent.poll() is None, said(HEARD)
    print("5 s after SIGTERM: the parent", "runs," if runs else "has ended,", "and has said", heard, "times that it came")
    for client in clients:
        client.close()
    until(lambda: parent.poll() is not None)
    late = said(STARTED) - before
    print("when the clients have gone:", late, "worker was started after SIGTERM, and the parent ended")
    assert (runs, heard, late, said(HEARD)) == (True, 0, 1, 1)
finally:
    if parent.poll() is None:
        os.killpg(parent.pid, signal.SIGKILL)
PROGRAM
cd "$place"
"$place/venv/bin/python" program.py
