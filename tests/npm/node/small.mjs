import { mayReconnect } from "velocity-ws";

console.log(mayReconnect(1012), mayReconnect(4401));
