// `ws`: its documentation's loop over the clients.
import { WebSocket, WebSocketServer } from "ws";

import { control } from "./control.js";

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  backlog: 2048,
  perMessageDeflate: process.argv.includes("--deflate") ? { threshold: 0 } : false,
});
const rooms = new Map();

server.on("connection", (socket, request) => {
  const room = new URL(request.url, "http://localhost").searchParams.get("room");
  if (room !== null) {
    if (!rooms.has(room)) rooms.set(room, new Set());
    rooms.get(room).add(socket);
  }
  socket.on("error", console.error);
  socket.on("message", (message) => {
    socket.send(JSON.stringify({ event: "echo", data: JSON.parse(message).data }));
  });
  socket.on("close", () => rooms.get(room)?.delete(socket));
});

function send(clients, data) {
  const message = JSON.stringify({ event: "news", data });
  for (const client of clients) {
    if (client.readyState === WebSocket.OPEN) client.send(message);
  }
}

server.on("listening", () =>
  control(
    {
      broadcast: (data) => send(server.clients, data),
      toRoom: (room, data) => send(rooms.get(room) ?? [], data),
      connected: () => server.clients.size,
    },
    server.address().port,
  ),
);
