// What the hooks let through, and, where a line expects an error, what they do not. Nobody runs it.
import { VelocityProvider, typedHooks, useEvent, useRoom, useStream, useVelocity } from "velocity-ws/react";

interface Events {
  receives: { said: { text: string } };
  sends: { say: { text: string } };
}

const typed = typedHooks<Events>();

export function Typed() {
  const { ws, status, detail } = typed.useVelocity();
  const tea = typed.useRoom<{ topic: string }>("tea", { data: 1 });
  typed.useEvent("said", (data, message) => data.text.concat(message.room ?? ""), { room: "tea" });
  typed.useStream("answer-42").text.trim();
  typed.useEvent("status", (next) => next === status);
  typed.useEvent("*", (event, data) => [event, data]);
  ws?.send("say", { text: "hello" });
  // @ts-expect-error: the server sends no such event
  typed.useEvent("sed", () => {});
  // @ts-expect-error: its data has no such key
  typed.useEvent("said", (data) => data.txt);
  // @ts-expect-error: messages of no room have none to choose
  typed.useEvent("binary", () => {}, { room: "tea" });
  // @ts-expect-error: the page sends no such event
  ws?.send("said", { text: "hello" });
  // @ts-expect-error: there is none before the first effect
  ws.send("say", { text: "hello" });
  // @ts-expect-error: what is not joined may have no answer
  tea.answer.topic;
  // @ts-expect-error: there is no such state
  if (tea.state === "left") return null;
  if (tea.state === "refused") return <p>{tea.error.code}</p>;
  if (tea.state === "joined") return <p>{tea.answer.topic}</p>;
  return <p>{detail.delay ?? tea.error?.message}</p>;
}

export function Untyped({ room }: { room: string | undefined }) {
  const { ws } = useVelocity<Events>("/ws", { maxQueue: 10 });
  const tea = useRoom(room ?? null, { ws, state: async () => {} });
  useEvent("said", (data: { text: string }) => data.text, { ws, room });
  useEvent("anything", (data) => data.at.all, { ws });
  useEvent("resync", (lost, reason) => [lost.length, reason.length], { ws, room });
  const { text, end, error, cancel } = useStream("answer-42", { ws, room });
  const { items } = useStream<{ percent: number }>(null);
  useEvent("stream", ({ id, from }, { event }) => [id.length, from.toFixed(), event], { ws, room });
  if (error) return <p>{error.code}</p>;
  if (end === null) return <button onClick={cancel}>{text.length} {items[0]?.percent.toFixed()}</button>;
  // @ts-expect-error: there is no such key
  useStream("answer-42").parts;
  // @ts-expect-error: a room has a name
  useRoom(7);
  return <p>{tea.last?.event}</p>;
}

export const App = () => (
  <VelocityProvider url={async () => new URL("wss://api.example.com/ws")} options={{ connectTimeout: 1000 }}>
    <Typed />
    <Untyped room="tea" />
  </VelocityProvider>
);
