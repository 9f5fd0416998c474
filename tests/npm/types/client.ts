// What `connect<Events>()` lets through, and, where a line expects an error, what it does not. Nobody runs it.
import { RequestError, connect, mayReconnect, version } from "velocity-ws";

interface Events {
  receives: { said: { text: string }; count: number };
  sends: { say: { text: string }; bye: undefined };
  requests: { double: { data: number; reply: number }; now: { reply: string } };
  asks: { confirm: { data: { question: string }; reply: boolean } };
}

const ws = connect<Events>("/ws", { protocols: () => ["bearer", version], refresh: async () => "token" });
const room: string = ws.rooms[0] ?? "tea";

ws.on("said", (data, message) => data.text.concat(message.room ?? "", room));
ws.on("count", (data) => data.toFixed());
ws.on("status", (status, detail) => status === "waiting" && detail.code && mayReconnect(detail.code));
ws.on("joined", (name, answer) => [name, answer]);
ws.send("say", { text: "hello" }, { room: "tea" });
ws.send("bye");
const doubled: Promise<number> = ws.request("double", 2);
const now: Promise<string> = ws.request("now");
ws.onRequest("confirm", async ({ question }) => question === "sure?");
ws.join("tea", { data: { password: "milk" } }).catch((error: unknown) => error instanceof RequestError && error.code);
export const promises = [doubled, now];

// @ts-expect-error: the server sends no such event
ws.on("sed", () => {});
// @ts-expect-error: its data is no number
ws.on("said", (data: number) => data);
// @ts-expect-error: its data has no such key
ws.on("said", (data) => data.txt);
// @ts-expect-error: the page sends no such event
ws.send("said", { text: "hello" });
// @ts-expect-error: data of another type
ws.send("say", { text: 1 });
// @ts-expect-error: data is missing
ws.send("say");
// @ts-expect-error: data of another type
ws.request("double", "2");
// @ts-expect-error: an answer of another type
const wrong: Promise<string> = ws.request("double", 2);
// @ts-expect-error: an answer of another type
ws.onRequest("confirm", () => "yes");
// @ts-expect-error: no such option
connect("/ws", { maxDelays: 1 });

const untyped = connect();
untyped.on("anything", (data) => data.at.all);
untyped.send("anything", wrong);
