#!/usr/bin/env bash
# The conformance suite of Durable Streams takes two things of the reference server for the protocol.
#
# The protocol calls offsets opaque: what a client sends is -1, now, or what a server has given it. Yet the suite forks
# from the literal 0000000000000000_0000000000000000, the reference server's first offset, which the server under test
# never gave: one whose offsets have another form has to read this one as the beginning, or fails. And for events the
# protocol refers to the HTML standard, where one space behind "data:" is no part of the data, and its own examples
# have that space: the suite looks for the text "data:line1", so that a server that writes "data: line1" fails.
#
# Versions: @durable-streams/server-conformance-tests 0.3.6, vitest 4, Node 20. Seen:
#   fork offset: 0000000000000000_0000000000000000
#   events with a space: 1 failed
#   events without: 1 passed
set -euo pipefail
place=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$place"' EXIT
cd "$place"
echo '{"type": "module"}' > package.json
npm install --silent --no-audit --no-fund @durable-streams/server-conformance-tests@0.3.6 > install.log 2>&1
cat > server.js <<'SERVER'
// Keeps what is put, gives it as events, and says with which offsets it is asked to fork. Its own offsets are letters.
import { createServer } from "node:http";
import { appendFileSync } from "node:fs";

const [space, log] = process.argv.slice(2);
const streams = new Map();
createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, "http://127.0.0.1");
  let body = "";
  request.on("data", (part) => (body += part));
  request.on("end", () => {
    if (request.headers["stream-fork-offset"]) appendFileSync(log, `${request.headers["stream-fork-offset"]}\n`);
    if (request.method === "PUT") {
      streams.set(pathname, body);
      response.writeHead(201, { "stream-next-offset": "b", "content-type": "text/plain" }).end();
    } else if (searchParams.get("live") === "sse") {
      const lines = streams.get(pathname).split("\n").map((line) => `data:${space}${line}\n`).join("");
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`event: data\n${lines}\nevent: control\ndata:${space}{"streamNextOffset":"b","upToDate":true}\n\n`);
    } else {
      response.writeHead(200, { "stream-next-offset": "b" }).end(streams.get(pathname));
    }
  });
}).listen(0, "127.0.0.1", function () {
  console.log(this.address().port);
});
SERVER
cat > suite.test.js <<'SUITE'
import { runConformanceTests } from "@durable-streams/server-conformance-tests";
runConformanceTests({ baseUrl: `http://127.0.0.1:${process.env.PORT}` });
SUITE
run() { # a space or none, and the name of one case: how many passed or failed
  node server.js "$1" "$place/offsets" > port & local server=$!
  until [ -s port ]; do sleep 0.1; done
  PORT=$(cat port) NO_COLOR=1 npx vitest run -t "$2" suite.test.js > suite.log 2>&1 || true
  kill "$server"; rm port
  grep -oE "[0-9]+ (failed|passed)" suite.log | tail -1
}
run "" "should return a Stream-Next-Offset on sub-offset fork creation that is consumable by reads" > /dev/null
newlines="should handle newlines in text/plain payloads"
seen="fork offset: $(sort -u offsets)
events with a space: $(run " " "$newlines")
events without: $(run "" "$newlines")"
expected="fork offset: 0000000000000000_0000000000000000
events with a space: 1 failed
events without: 1 passed"
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
