#!/usr/bin/env bash
# A client on websocket-driver hears "service restart" (1012) as "protocol error" (1002), and so does its server.
#
# 1012, 1013 and 1014 are in IANA's registry of close codes, and servers say 1012 when they restart and 1013 when a
# client is to try again later. websocket-driver 0.8.0 (below faye-websocket on Node, and by its twin below Action
# Cable's and faye's clients in Ruby) allows 1000 to 1003, 1007 to 1011 and 3000 to 4999: any other code is answered
# with 1002, and its close event says 1002 with the server's own reason. A rule like "come back, but not after 1002"
# then keeps such clients away for good after every deploy. 1001 is understood.
#
# Versions: faye-websocket 0.11.4, websocket-driver 0.8.0, ws 8.23.0 (the server). Seen:
#   sent 1001: client saw 1001, server was answered 1001
#   sent 1012: client saw 1002, server was answered 1002
#   sent 1013: client saw 1002, server was answered 1002
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
npm init --yes > /dev/null
npm install --silent --no-audit --no-fund faye-websocket@0.11.4 websocket-driver@0.8.0 ws@8.23.0
cat > program.mjs <<'PROGRAM'
import { once } from "node:events";
import faye from "faye-websocket";
import { WebSocketServer } from "ws";

const server = new WebSocketServer({ port: 0, host: "127.0.0.1" });
await once(server, "listening");
for (const code of [1001, 1012, 1013]) {
  const answered = new Promise((resolve) => {
    server.once("connection", (socket) => {
      socket.on("close", resolve);
      socket.close(code, "restarting");
    });
  });
  const client = new faye.Client(`ws://127.0.0.1:${server.address().port}/`);
  const seen = await new Promise((resolve) => client.on("close", (event) => resolve(event.code)));
  console.log(`sent ${code}: client saw ${seen}, server was answered ${await answered}`);
}
server.close();
PROGRAM
expected='sent 1001: client saw 1001, server was answered 1001
sent 1012: client saw 1002, server was answered 1002
sent 1013: client saw 1002, server was answered 1002'
seen=$(node program.mjs)
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
