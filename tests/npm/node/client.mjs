// A program in Node, with the sockets of the package ws: says and asks all it can, comes back, and ends by itself.
import { connect } from "velocity-ws";
import WebSocket from "ws";

async function main() {
  const ws = connect(process.argv[2], { WebSocket });
  const said = new Promise((resolve) => ws.on("said", (data, { room }) => resolve([data, room])));
  const joined = await ws.join("tea", { data: "from node" });
  const doubled = await ws.request("double", 21);
  ws.onRequest("confirm", async (number) => number + 1);
  const confirmed = await ws.request("ask");
  const reversed = new Promise((resolve) => ws.on("binary", (bytes) => resolve([...new Uint8Array(bytes)])));
  ws.sendBytes(new Uint8Array([1, 2]));
  await reversed;
  const again = new Promise((resolve) => ws.on("joined", resolve));
  ws.send("restart");
  await again;
  ws.send("say", "hello");
  console.log(JSON.stringify({ joined, doubled, confirmed, reversed: await reversed, said: await said, rooms: ws.rooms }));
  ws.close();
}

main();
