// What `connect<Events>()` lets through, and, below, what it does not. Nobody runs it.
import { connect, mayReconnect, RequestError, Velocity, version, protocol } from "velocity-ws";
import type { Incoming, StatusDetail, Stream, StreamEnd, StreamPiece, Unconfirmed } from "velocity-ws";

interface ChatMessage { author: string; text: string }
interface Events {
  receives: { chat_message: ChatMessage; bell: undefined };
  sends: { say: { text: string }; bye: undefined };
  requests: { history: { data: { since: number }; reply: ChatMessage[] }; rooms: { reply: string[] }; drop: {} };
  asks: { confirm: { data: { text: string }; reply: boolean }; ping: { reply: number } };
}

const ws = connect<Events>("/ws", { refresh: async () => ({ token: "t" }), livenessTimeout: 10_000 });
const same: Velocity<Events> = ws;
const undo: () => void = same.on("chat_message", (data, { room }) => console.log(data.author, room?.length));
undo();
ws.on("bell", (data) => data === undefined);
ws.on("status", (status, { since, joined, pending, unconfirmed }) => {
  const lost: Unconfirmed[] | undefined = unconfirmed;
  console.log(status === "open", since.toFixed(), joined.concat(pending).length, lost);
});
ws.on("joined", (room, answer) => console.log(room.length, answer));
ws.on("left", ({ room, reason }) => console.log(room.length, reason?.length));
ws.on("gap", ({ room, missed, reason, at }) => console.log(room, missed, reason === "dropped", at?.length));
ws.on("resync", (room, reason) => console.log(room.length, reason === "evicted", reason.length));
ws.on("*", (event, data, message: Incoming) => console.log(event.length, data, message.room, message.at));
ws.on("binary", (data) => console.log(data.byteLength));
ws.on("error", ({ code, room }) => console.log(code.length, room));
const sent: boolean = ws.send("say", { text: "hello" }, { room: "tea", volatile: true });
ws.send("bye");
ws.send("bye", undefined, { room: "tea" });
ws.sendBytes(new Uint8Array(3));

async function ask(): Promise<void> {
  const history: ChatMessage[] = await ws.request("history", { since: 3 }, { timeout: 100, room: "tea" });
  const rooms: string[] = await ws.request("rooms");
  await ws.request("drop");
  const answer = await ws.join<{ room: string }>("tea", { data: { since: 7 } });
  const load = async (): Promise<void> => {};
  await ws.join("tea", { state: load });
  await ws.leave("tea", { state: load });
  await ws.leave("tea");
  console.log(history[0]?.text, rooms, answer.room, sent);
}
ask().catch((error: unknown) => error instanceof RequestError && console.log(error.code, error.retryAfter));
ws.onRequest("confirm", async ({ text }) => text.length > 3)();
ws.onRequest("ping", () => 1);

async function follow(): Promise<void> {
  const answer: Stream = ws.stream("answer-42", { room: "chat:7" });
  for await (const part of answer) console.log(part.trim(), answer.text.length, answer.room?.length);
  const steps = ws.stream<{ percent: number }>("job-9");
  for await (const { percent } of steps) console.log(percent.toFixed(), steps.items[0]?.percent);
  const end: StreamEnd | null = steps.end;
  const undo: () => void = steps.onChange(() => console.log(steps.error?.code, end === "lost"));
  undo();
  await steps.cancel();
  const running: string[] = ws.streams("chat:7").filter((each) => each.end === null).map(({ id }) => id);
  ws.on("stream", ({ id, from, text, items, end }: StreamPiece, { room }) => console.log(id, from, text, items, end, room, running));
  // @ts-expect-error
  for (const part of answer) console.log(part);
  // @ts-expect-error
  answer.text = "";
  // @ts-expect-error
  ws.stream("answer-42", { rooms: "chat:7" });
  // @ts-expect-error
  for await (const part of answer) part.percent;
}
follow();

// Without a type everything is any, as it is without types at all.
const any = connect();
any.on("anything", (data) => data.whatever.it.is);
any.on<ChatMessage>("chat", (data) => data.text);
any.on("chat", (data: ChatMessage, message) => console.log(data.text, message.event));
any.send("anything", 1);
any.onRequest("anything", (data) => data.text);
any.request("anything").then((reply) => reply.anything);
any.request<number>("count", [1]).then((reply) => reply.toFixed());

// Each part may be left out.
const partial = connect<{ receives: { tick: number } }>(() => Promise.resolve("/ws"));
partial.on("tick", (data) => data.toFixed());
const detail = (given: StatusDetail): number => given.delay ?? given.unconfirmedCount ?? 0;
console.log(mayReconnect(1000), detail, version.length, protocol + 1);

// What is wrong.
// @ts-expect-error
ws.on("chat_mesage", () => {});
// @ts-expect-error
ws.on("chat_message", (data) => data.autor);
// @ts-expect-error
ws.on("chat_message", (data: number) => data);
// @ts-expect-error
ws.on("status", (status) => status === "opened");
// @ts-expect-error
ws.send("sya", { text: "hello" });
// @ts-expect-error
ws.send("say", { txt: "hello" });
// @ts-expect-error
ws.send("say");
// @ts-expect-error
ws.send("bye", 1);
// @ts-expect-error
ws.send("history", { since: 3 });
// @ts-expect-error
ws.request("history", { since: "3" });
// @ts-expect-error
ws.request("history");
// @ts-expect-error
ws.request("rooms", {});
// @ts-expect-error
ws.request("say", { text: "hello" });
// @ts-expect-error
ws.request("rooms").then((rooms) => rooms.toFixed());
// @ts-expect-error
ws.onRequest("confrim", () => true);
// @ts-expect-error
ws.onRequest("confirm", () => "yes");
// @ts-expect-error
ws.onRequest("confirm", async ({ text }) => text.toFixed());
// @ts-expect-error
ws.join(7);
// @ts-expect-error
connect<{ recieves: { a: number } }>();
// @ts-expect-error
connect("/ws", { livenessTimout: 1 });

// @ts-expect-error
partial.send("tick", 1);
// @ts-expect-error
partial.request("tick");
// @ts-expect-error
partial.onRequest("tick", () => 1);
