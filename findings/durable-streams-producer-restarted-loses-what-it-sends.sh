#!/usr/bin/env bash
# A producer of Durable Streams' client that starts again with `autoClaim: true` loses what it sends, and is not told.
#
# An `IdempotentProducer` numbers its batches from 0. One that starts again with the same id and the same epoch (0, if
# none is given) begins at 0 once more, so that the server takes its first batches for ones that it has: it answers 204,
# as the protocol wants, and appends nothing. The client takes a 204 for success: `flush()` resolves, `onError` is not
# called. `autoClaim` is there for producers that keep no epoch, but raises it for a 403 only, and there is none, as the
# epoch is not older than the server's. All there is to see is `lastSuccessfulOffset`, which stays undefined.
# With a higher `epoch` it is appended.
#
# Versions: @durable-streams/client 0.2.7, @durable-streams/server 0.3.7 (in memory), Node 20. Seen:
#   begins, autoClaim: answered 200; flush resolved, errors told: 0, an offset: true; the stream: "first,"
#   begins again, autoClaim: answered 204; flush resolved, errors told: 0, an offset: false; the stream: "first,"
#   begins again, epoch 1: answered 200; flush resolved, errors told: 0, an offset: true; the stream: "first,third,"
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
npm init --yes > /dev/null
npm install --silent --no-audit --no-fund @durable-streams/client@0.2.7 @durable-streams/server@0.3.7 > install.log 2>&1
cat > program.mjs <<'PROGRAM'
import { DurableStream, IdempotentProducer } from "@durable-streams/client";
import { DurableStreamTestServer } from "@durable-streams/server";

const server = new DurableStreamTestServer({ port: 0 });
const stream = await DurableStream.create({ url: `${await server.start()}/v1/stream/a`, contentType: "text/plain" });
for (const [name, text, options] of [
  ["begins, autoClaim", "first,", { autoClaim: true }],
  ["begins again, autoClaim", "second,", { autoClaim: true }],
  ["begins again, epoch 1", "third,", { epoch: 1 }],
]) {
  const answers = [];
  const errors = [];
  const asked = async (...request) => {
    const response = await fetch(...request);
    answers.push(response.status);
    return response;
  };
  const onError = (error) => errors.push(error);
  const producer = new IdempotentProducer(stream, "writer", { ...options, fetch: asked, onError });
  producer.append(text);
  const flushed = await producer.flush().then(() => "resolved", () => "rejected");
  const offset = producer.lastSuccessfulOffset !== undefined;
  const kept = JSON.stringify(await (await fetch(stream.url)).text());
  const said = `flush ${flushed}, errors told: ${errors.length}, an offset: ${offset}`;
  console.log(`${name}: answered ${answers}; ${said}; the stream: ${kept}`);
}
await server.stop();
PROGRAM
expected='begins, autoClaim: answered 200; flush resolved, errors told: 0, an offset: true; the stream: "first,"
begins again, autoClaim: answered 204; flush resolved, errors told: 0, an offset: false; the stream: "first,"
begins again, epoch 1: answered 200; flush resolved, errors told: 0, an offset: true; the stream: "first,third,"'
seen=$(node program.mjs)
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
