#!/usr/bin/env bash
# A WebSocket of undici whose attempt is refused ends in three ways, by version; in one of them it never ends.
#
# The standard has `error`, then `close` with 1006, and `readyState` 3. undici 6 (6.24.1 in Node 20.20.2, 6.21.2 in
# 22.20.0) fires `error` alone: there is no `close`, and `readyState` stays 0 (CONNECTING), so code that reconnects in
# `onclose` waits for ever. undici 7.0 to 7.15 (7.8.0 in Node 24.0.0) says `close` with 1002, "protocol error", which a
# rule like "come back, but not after 1002" takes for the server's word. From 7.16 on it is 1006.
#
# Versions: undici 6.24.1, 7.15.0, 7.30.2, on Node 20.20.2. Nothing listens at the port. Seen:
#   6.24.1: error, readyState 0
#   7.15.0: error, close 1002, readyState 3
#   7.30.2: error, close 1006, readyState 3
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
npm init --yes > /dev/null
npm install --silent --no-audit --no-fund a@npm:undici@6.24.1 b@npm:undici@7.15.0 c@npm:undici@7.30.2
cat > program.mjs <<'PROGRAM'
import { once } from "node:events";
import { createServer } from "node:net";

const server = createServer().listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address();
server.close();
await once(server, "close");
for (const [name, version] of [["a", "6.24.1"], ["b", "7.15.0"], ["c", "7.30.2"]]) {
  const { default: undici } = await import(name);
  const seen = [];
  const socket = new undici.WebSocket(`ws://127.0.0.1:${port}/`);
  socket.addEventListener("open", () => seen.push("open"));
  socket.addEventListener("error", () => seen.push("error"));
  socket.addEventListener("close", ({ code }) => seen.push(`close ${code}`));
  await new Promise((resolve) => setTimeout(resolve, 3000));
  console.log(`${version}: ${[...seen, `readyState ${socket.readyState}`].join(", ")}`);
}
PROGRAM
expected='6.24.1: error, readyState 0
7.15.0: error, close 1002, readyState 3
7.30.2: error, close 1006, readyState 3'
seen=$(node program.mjs)
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
