// An attempt that is refused, and one that is not, with the sockets of a package that is what Node has.
import { connect } from "velocity-ws";

const [, , name, dead, alive] = process.argv;
const { default: undici } = await import(name);
const addresses = [dead];
const statuses = [];
const ws = connect(() => addresses.pop() ?? alive, { WebSocket: undici.WebSocket, baseDelay: 1 });
ws.on("status", (status, { code }) => statuses.push(code ? `${status} ${code}` : status));
const doubled = await ws.request("double", 21);
ws.close();
console.log(JSON.stringify({ doubled, statuses }));
process.exit();
