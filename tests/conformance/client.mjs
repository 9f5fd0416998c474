// What a program does with a stream, by the client of npm: `node client.mjs <which program> <URL> <key> [URL to
// read it from]`. Says how it went, in JSON.
import { once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client";

const [program, url, key, from = url] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${key}` };
const create = (contentType) => DurableStream.create({ url, headers, contentType });
const read = (options) => stream({ url: from, headers, live: false, ...options });
const names = (error) => ({ name: error.name, status: error.status, code: error.code });
const refused = (promise) => promise.then(() => null, names);
const all = async (iterable) => {
  const got = [];
  for await (const each of iterable) got.push(each);
  return got;
};

async function json() {
  const handle = await create("application/json");
  await handle.append(JSON.stringify([1, "two"])); // one item, which is an array
  const { offset } = await handle.head();
  await Promise.all(Array.from({ length: 50 }, (_, n) => handle.append(JSON.stringify({ n }))));
  const whole = await read();
  const items = await whole.json();
  const { finalOffset } = await handle.close({ body: JSON.stringify("last") });
  const found = await DurableStream.head({ url, headers });
  const result = {
    items,
    type: whole.contentType,
    rest: await (await read({ offset })).json(),
    last: await (await read({ offset: whole.offset })).json(),
    isLast: finalOffset === found.offset,
    isClosed: found.streamClosed,
    late: await refused(handle.append("1")),
    again: await refused(DurableStream.create({ url, headers, contentType: "text/plain" })),
  };
  await handle.delete();
  return { ...result, isThere: (await handle.head()).exists };
}

async function strangers() {
  const strange = { Authorization: "Bearer another key" };
  const nobody = await refused(DurableStream.create({ url, contentType: "text/plain" }));
  const wrong = await refused(DurableStream.create({ url, headers: strange, contentType: "text/plain" }));
  const handle = await create("text/plain");
  await handle.append("a secret");
  const reading = await refused(stream({ url, headers: strange, live: false, onError: () => {} }));
  return { nobody, wrong, reading, text: await (await read()).text() };
}

// More than comes in one answer: 4 MB, which a producer sends in requests of 64 kB.
async function long() {
  const handle = await create("application/json");
  const writer = new IdempotentProducer(handle, "a writer", { maxBatchBytes: 65_536 });
  for (let n = 0; n < 40_000; n++) writer.append(JSON.stringify([n, "x".repeat(90)]));
  await writer.close();
  const items = await (await read({ live: true })).json(); // until it is up to date; without `live` it is one answer
  const one = await (await fetch(url, { headers })).json();
  const isInOrder = items.every(([n], index) => n === index);
  return { count: items.length, isInOrder, parts: one.length < items.length };
}

// Two readers who wait for what comes while it is written, and one who comes late.
async function live(contentType, parts, kind) {
  const handle = await create(contentType);
  const methods = { json: "jsonStream", text: "textStream", bytes: "bodyStream" };
  const follow = async (mode) => {
    const response = await read({ live: mode, offset: "-1" });
    const got = await all(response[methods[kind]]());
    return { got: kind === "bytes" ? got.flatMap((chunk) => [...chunk]) : got, isClosed: response.streamClosed };
  };
  const readers = [follow("sse"), follow("long-poll"), follow(true)];
  for (const part of parts) await handle.append(part);
  await handle.close();
  const [sse, longPoll, either] = await Promise.all(readers);
  return { sse, longPoll, either, late: await follow("sse") };
}

async function producer() {
  const handle = await create("application/json");
  const errors = [];
  const options = { lingerMs: 1, maxBatchBytes: 100, onError: (error) => errors.push(error) };
  const first = new IdempotentProducer(handle, "a writer", options);
  for (let n = 0; n < 500; n++) first.append(JSON.stringify(n));
  await first.flush();
  const second = new IdempotentProducer(handle, "a writer", { ...options, epoch: 1 });
  for (let n = 500; n < 600; n++) second.append(JSON.stringify(n));
  await second.flush();
  const before = errors.length;
  first.append(JSON.stringify("a zombie's"));
  await first.flush().catch(() => {});
  const third = new IdempotentProducer(handle, "a writer", { ...options, autoClaim: true });
  for (let n = 600; n < 700; n++) third.append(JSON.stringify(n));
  const { finalOffset } = await third.close(JSON.stringify("last"));
  const response = await read();
  return {
    items: await response.json(),
    before,
    zombie: errors.map((error) => [error.name, error.currentEpoch]),
    epoch: third.epoch,
    isLast: response.offset === finalOffset,
    isClosed: response.streamClosed,
  };
}

// Writes until the standard input ends, and asks again where no answer came, as the client leaves that to its `fetch`.
async function persistent() {
  const handle = await create("application/json");
  let cut = 0;
  const persist = async (...request) => {
    for (;;) {
      try {
        const response = await fetch(...request);
        if (response.status < 500) return response;
        await response.body?.cancel();
      } catch {
        cut++;
      }
      await pause(5);
    }
  };
  const errors = [];
  const onError = (error) => errors.push(error.stack);
  const writer = new IdempotentProducer(handle, "a writer", { lingerMs: 0, maxBatchBytes: 50, onError, fetch: persist });
  let isOver = false;
  once(process.stdin.resume(), "end").then(() => (isOver = true));
  let count = 0;
  while (!isOver) {
    for (let n = 0; n < 20; n++) writer.append(JSON.stringify(count++));
    do await pause(1);
    while (writer.inFlightCount > 10);
    if (count === 200) console.log("writing");
  }
  await writer.flush();
  await writer.close();
  const items = await (await read({ live: true })).json();
  return { count, cut, errors, length: items.length, isInOrder: items.every((item, index) => item === index) };
}

const programs = {
  json,
  strangers,
  long,
  producer,
  persistent,
  "live json": () => live("application/json", [`{"n":1}`, `"\\r\\n"`, `[2,[3]]`], "json"),
  "live text": () => live("text/plain", ["one\ntwo\n\n", " three", "\u2028 €"], "text"),
  "live bytes": () => live("application/octet-stream", [new Uint8Array([0, 255, 10, 13]), new Uint8Array([195])], "bytes"),
};
console.log(JSON.stringify(await programs[program]()));
