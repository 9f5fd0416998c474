// Runs scripts beside velocity.js in Node: a line of JSON for each on stdin, {id, script, argument}, and for each answer.
// Arguments: the module of the client, and of a WebSocket class where Node's own is not to be used.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [client, sockets, prelude] = process.argv.slice(2);
const say = (message) => process.stdout.write(JSON.stringify(message) + "\n");
for (const event of ["unhandledRejection", "uncaughtException"]) {
    process.on(event, (error) => say({ error: String(error?.stack ?? error) }));
}
if (sockets) globalThis.WebSocket = (await import(pathToFileURL(sockets))).WebSocket;
const velocity = await import(pathToFileURL(client));
const run = new Function(`${prelude}; return run;`)();
say({ ready: [process.version, typeof WebSocket] });

for await (const line of createInterface({ input: process.stdin })) {
    const { id, script, argument } = JSON.parse(line);
    run(script, velocity, argument).then(
        (value) => say({ id, value: value ?? null }),
        (error) => say({ id, failed: String(error?.stack ?? error) }),
    );
}
process.exit(0);
