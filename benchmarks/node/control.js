// The commands of ../servers/control.py, for a server on Node.
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { setImmediate as turn } from "node:timers/promises";

const monotonic = () => process.hrtime.bigint(); // CLOCK_MONOTONIC, in ns

/** Obey until stdin is closed. `contestant` has broadcast(data), toRoom(room, data) and connected(). */
export async function control(contestant, port) {
  let next = 0;

  async function broadcast({ texts, count, per_second = 0, burst = 1, rooms = 0, seconds = 0 }) {
    const first = next;
    const start = performance.now();
    let sent = 0;
    let late = 0;
    while (sent < count) {
      const now = performance.now();
      if (per_second) {
        const due = start + (sent / burst / per_second) * 1000;
        if (now - due > 1000 / per_second) late += 1;
        // A timer of Node has whole milliseconds.
        if (due > now) await sleep(due - now);
        else await turn();
      } else {
        if (seconds && now - start > seconds * 1000) break;
        await turn();
      }
      for (let number = sent; number < sent + burst; number++) {
        const seq = first + (rooms ? Math.floor(number / rooms) : number);
        const data = { seq, t: Number(monotonic()), text: texts[number % texts.length] };
        if (rooms) contestant.toRoom(String(number % rooms), data);
        else contestant.broadcast(data);
      }
      sent += burst;
    }
    const each = rooms ? Math.floor(sent / rooms) : sent;
    next += each;
    return { first, each, late };
  }

  console.log(JSON.stringify({ port }));
  for await (const line of createInterface({ input: process.stdin })) {
    const { command, collect, ...options } = JSON.parse(line);
    if (collect) globalThis.gc?.();
    const answer = command === "broadcast" ? await broadcast(options) : { connected: contestant.connected() };
    console.log(JSON.stringify(answer));
  }
  process.exit(0);
}
