// Socket.IO on Node: emit to all, or to a room.
import { createServer } from "node:http";
import { Server } from "socket.io";

import { control } from "./control.js";

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  pingInterval: 600_000, // no keepalive, as everywhere
  perMessageDeflate: process.argv.includes("--deflate") ? { threshold: 0 } : false,
});

io.on("connection", (socket) => {
  const { room } = socket.handshake.query;
  if (room) socket.join(room);
  socket.on("echo", (data) => socket.emit("echo", data));
});

http.listen({ host: "127.0.0.1", port: 0, backlog: 2048 }, () =>
  control(
    {
      broadcast: (data) => io.emit("news", data),
      toRoom: (room, data) => io.to(room).emit("news", data),
      connected: () => io.of("/").sockets.size,
    },
    http.address().port,
  ),
);
