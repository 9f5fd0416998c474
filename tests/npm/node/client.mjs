// A program in Node, with the sockets of the package ws: joins a room, asks, hears the answer, and ends by itself.
import { connect } from "velocity-ws";
import WebSocket from "ws";

async function main() {
  const ws = connect(process.argv[2], { WebSocket });
  const said = new Promise((resolve) => ws.on("said", (data, { room }) => resolve([data, room])));
  const joined = await ws.join("tea", { data: "from node" });
  const doubled = await ws.request("double", 21);
  ws.send("say", "hello");
  console.log(JSON.stringify({ joined, doubled, said: await said, status: ws.status, rooms: ws.rooms }));
  ws.close();
}

main();
