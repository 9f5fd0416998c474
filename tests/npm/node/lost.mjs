// What is said where the client cannot know where the server is, or has no sockets.
import { connect } from "velocity-ws";

function outcome(attempt) {
  try {
    return attempt();
  } catch (error) {
    return `${error.name}: ${error.message}`;
  }
}

globalThis.WebSocket = class {};
const nowhere = outcome(() => connect());
delete globalThis.WebSocket;
console.log(JSON.stringify({ nowhere, noSocket: outcome(() => connect("ws://127.0.0.1:1/ws")) }));
