#!/usr/bin/env bash
# `flush()` of Durable Streams' producer resolves although what it waited for has failed, and is not sent again.
#
# The client's README has `flush()` before a program ends, "to ensure delivery". When one request of an
# `IdempotentProducer` fails (here the `fetch` that it was given throws once, as it does where a connection is cut), the
# batch is dropped: it is not sent again, though its number would make that safe, and `flush()` resolves. `onError` is
# told, which is optional. The number stays used, so that the server answers each later batch with 409, for the one
# that is not there; they are dropped alike, each with the first one's error, and `flush()` resolves for each. With a
# `fetch` that tries again by itself all is appended.
#
# Versions: @durable-streams/client 0.2.7, @durable-streams/server 0.3.7 (in memory), Node 20. Seen:
#   first: flush resolved, asked: failed, errors told: fetch failed
#   second: flush resolved, asked: 409, errors told: fetch failed
#   third: flush resolved, asked: 409, errors told: fetch failed
#   asked again in the next second: 0; the stream: ""
#   with a fetch that tries again, the stream: "first,second,third,"
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
const base = await server.start();
const failsOnce = (seen) => {
  let failed = false;
  return async (...request) => {
    if (!failed) {
      failed = true;
      seen.push("failed");
      throw new TypeError("fetch failed");
    }
    const response = await fetch(...request);
    seen.push(response.status);
    return response;
  };
};
const create = (name) => DurableStream.create({ url: `${base}/v1/stream/${name}`, contentType: "text/plain" });
const kept = async (stream) => JSON.stringify(await (await fetch(stream.url)).text());
const texts = ["first", "second", "third"];

const seen = [];
const errors = [];
const stream = await create("a");
const onError = (error) => errors.push(error.message);
const producer = new IdempotentProducer(stream, "writer", { fetch: failsOnce(seen), onError });
for (const text of texts) {
  producer.append(`${text},`);
  const flushed = await producer.flush().then(() => "resolved", () => "rejected");
  console.log(`${text}: flush ${flushed}, asked: ${seen.splice(0)}, errors told: ${errors.splice(0)}`);
}
await new Promise((resolve) => setTimeout(resolve, 1000));
console.log(`asked again in the next second: ${seen.length}; the stream: ${await kept(stream)}`);

const other = await create("b");
const once = failsOnce([]);
const again = (...request) => once(...request).catch(() => once(...request));
const careful = new IdempotentProducer(other, "writer", { fetch: again });
for (const text of texts) {
  careful.append(`${text},`);
  await careful.flush();
}
console.log(`with a fetch that tries again, the stream: ${await kept(other)}`);
await server.stop();
PROGRAM
expected='first: flush resolved, asked: failed, errors told: fetch failed
second: flush resolved, asked: 409, errors told: fetch failed
third: flush resolved, asked: 409, errors told: fetch failed
asked again in the next second: 0; the stream: ""
with a fetch that tries again, the stream: "first,second,third,"'
seen=$(node program.mjs)
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: expected"; echo "$expected"; exit 1; }
