// A page that a test tells what to show: which connection, which rooms, and how often the same one.
import { Activity, StrictMode, Suspense, use, useState } from "react";
import { createRoot } from "react-dom/client";
import { connect } from "velocity-ws";
import { typedHooks } from "velocity-ws/react";

import type { Events } from "./events.js";

const { VelocityProvider, useVelocity, useRoom, useEvent, useStream } = typedHooks<Events>();

interface View {
  /** Which one it is, to see that it is shown. */
  number: number;
  url: string | null;
  /** Rooms that are shown, of which one may be there several times. */
  rooms: string[];
  /** Added to what is heard, to see that it is the latest handler that hears it. */
  mark: string;
  /** Show a component that waits before it uses anything. */
  suspends?: boolean;
  /** Hide the rooms, and keep their state. */
  hidden?: boolean;
  /** A room whose state is shown. */
  loads?: string;
  /** Streams that are shown. */
  streams?: (string | null)[];
  /** How many components to show that name the URL themselves. */
  own?: number;
}

declare global {
  interface Window {
    show(view: View): void;
    heard: string[];
    connect: typeof connect;
    resume?: () => void;
    rooms: number;
    streams: number;
  }
}

window.heard = [];
window.rooms = 0;
window.streams = 0;
window.connect = connect;

function Room({ name, mark }: { name: string; mark: string }) {
  const room = useRoom(name, { data: { from: "page" } });
  window.rooms++; // renders
  useEvent("said", (data, message) => window.heard.push(`${mark} ${name}: ${data.text} in ${message.room}`), { room: name });
  useEvent("left", (data) => window.heard.push(`${mark} ${name}: ${data.reason}`), { room: name });
  return <li>{`${name} ${room.state} ${JSON.stringify(room.answer ?? null)} ${room.error?.code ?? ""}`.trim()}</li>;
}

function Last({ name }: { name: string }) {
  return <i>{useRoom(name).last?.event ?? "none"}</i>;
}

function Loaded({ name }: { name: string }) {
  const { ws } = useVelocity();
  const [text, setText] = useState("nothing");
  const { state, error } = useRoom(name, { state: async () => setText(await ws!.request("load")) });
  return <s>{`${text} ${state} ${error?.code ?? ""}`.trim()}</s>;
}

function Answer({ id }: { id: string | null }) {
  const { text, items, end, error, cancel } = useStream<unknown>(id, { room: "tea" });
  window.streams++;
  const failed = ({ code }: { code: string }) => window.heard.push(`not cancelled: ${code}`);
  const shown = `${text}${JSON.stringify(items)} ${end} ${error?.code ?? ""}`.trim();
  return <button className="stream" onClick={() => cancel().catch(failed)}>{shown}</button>;
}

const gate = new Promise<void>((resolve) => (window.resume = resolve));

function Waiting() {
  use(gate);
  return <Room name="tea" mark="suspended" />;
}

function Own() {
  const { ws, status } = useVelocity("/ws");
  const { state } = useRoom("shared", { ws, data: { from: "page" } });
  useEvent("said", (data) => window.heard.push(`own: ${data.text}`), { ws, room: "shared" });
  return <em>{`${status} ${state}`}</em>;
}

function Status() {
  const { ws, status, detail } = useVelocity();
  return (
    <p>
      {status} {detail.code ?? ""}
      <button onClick={() => ws?.send("say", { room: "tea", text: "hello" })}>say</button>
    </p>
  );
}

function Page({ view }: { view: View }) {
  return (
    // Functions that are others in each render, as one writes them: they open nothing anew.
    <VelocityProvider
      url={view.url === "function" ? () => `/ws?mark=${view.mark}` : view.url!}
      options={{ protocols: () => [view.mark] }}
    >
      <Status />
      {Array.from({ length: view.own ?? 0 }, (_, index) => <Own key={index} />)}
      <Activity mode={view.hidden ? "hidden" : "visible"}>
        <ul data-number={view.number}>{view.rooms.map((name, index) => <Room key={index} name={name} mark={view.mark} />)}</ul>
      </Activity>
      {view.rooms.includes("watched") && <Last name="watched" />}
      {view.loads && <Loaded name={view.loads} />}
      {view.streams?.map((id) => <Answer key={id} id={id} />)}
      {view.suspends && <Suspense fallback={<b>waits</b>}><Waiting /></Suspense>}
    </VelocityProvider>
  );
}

function App() {
  const [view, setView] = useState<View | null>(null);
  window.show = setView;
  return view?.url ? <Page view={view} /> : null;
}

createRoot(document.getElementById("root")!).render(<StrictMode><App /></StrictMode>);
