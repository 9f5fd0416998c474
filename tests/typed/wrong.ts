// What a type checker must refuse, at each line that ends so: tests/test_client_types.py looks at it.

import { connect } from "velocity-ws";

interface Events {
  receives: { chat_message: { text: string } };
  sends: { say: { text: string }; bye: undefined };
  requests: { history: { data: { since: number }; reply: string[] }; rooms: { reply: string[] } };
  asks: { confirm: { data: { text: string }; reply: boolean } };
}

const ws = connect<Events>("/ws");
ws.on("chat_mesage", () => {}); // wrong
ws.on("chat_message", (data) => data.author); // wrong
ws.on("chat_message", (data: number) => data); // wrong
ws.on("status", (status) => status === "opened"); // wrong
ws.send("sya", { text: "hello" }); // wrong
ws.send("say", { txt: "hello" }); // wrong
ws.send("say"); // wrong
ws.send("bye", 1); // wrong
ws.send("history", { since: 3 }); // wrong
ws.request("history", { since: "3" }); // wrong
ws.request("history"); // wrong
ws.request("rooms", {}); // wrong
ws.request("say", { text: "hello" }); // wrong
ws.request("rooms").then((rooms) => rooms.toFixed()); // wrong
ws.onRequest("confrim", () => true); // wrong
ws.onRequest("confirm", () => "yes"); // wrong
ws.onRequest("confirm", async ({ text }) => text.toFixed()); // wrong
ws.join(7); // wrong
connect<{ recieves: { a: number } }>(); // wrong
connect("/ws", { livenessTimout: 1 }); // wrong

const partial = connect<{ receives: { tick: number } }>();
partial.send("tick", 1); // wrong
partial.request("tick"); // wrong
partial.onRequest("tick", () => 1); // wrong
