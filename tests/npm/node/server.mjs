// React on a server, where there is no window, no WebSocket, and nothing may be opened.
import { createElement as h } from "react";
import { renderToString } from "react-dom/server";
import { VelocityProvider, useEvent, useRoom, useStream, useVelocity } from "velocity-ws/react";

delete globalThis.WebSocket;

function Chat() {
  const { ws, status } = useVelocity();
  useEvent("said", () => {});
  const { text, items, end, error } = useStream("a", { room: "tea" });
  return h("p", null, `${ws} ${status} ${useRoom("tea").state} ${useRoom(null).state} ${useRoom("tea").last} [${text}${items}${end}${error}]`);
}

function Alone() {
  useVelocity();
}

function said(component) {
  try {
    renderToString(component);
  } catch (error) {
    return error.message;
  }
}

const html = renderToString(h(VelocityProvider, { url: "/ws" }, h(Chat)));
console.log(JSON.stringify({ html, alone: said(h(Alone)), room: said(h(() => useRoom("tea").state)) }));
