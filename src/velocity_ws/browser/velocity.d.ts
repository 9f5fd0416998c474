/**
 * The browser client of velocity-ws: a WebSocket that comes back by itself, speaks `{event, data}`, and knows
 * requests and rooms. It needs no build step:
 *
 * ```js
 * import { connect } from "/ws/velocity.js";
 *
 * const ws = connect();
 * ws.on("chat_message", (data) => console.log(data.text));
 * ws.send("chat_message", { text: "hello" });
 * ```
 */

/**
 * Where the server is: an absolute `ws:`, `wss:`, `http:` or `https:` URL, or a path on the page's own host.
 * A function is called before every attempt, so that a reconnect can carry a fresh token.
 */
export type Address = string | URL | (() => string | URL | PromiseLike<string | URL>);

export interface Options {
  /** Upper bound of the first reconnect delay in ms; it doubles with every failure. Default 500. */
  baseDelay?: number;
  /** Upper bound of all reconnect delays in ms, but for those the server asks for. Default 30000. */
  maxDelay?: number;
  /** How long a connection must last, in ms, before the delays start small again. Default 5000. */
  stableAfter?: number;
  /** How long one attempt may take in ms, the URL function included. Default 10000. */
  connectTimeout?: number;
  /** How many messages may wait for a connection. Default 100. */
  maxQueue?: number;
  /** The event that `join` sends. Default `"join"`. */
  joinEvent?: string;
  /** The event that `leave` sends. Default `"leave"`. */
  leaveEvent?: string;
  /**
   * WebSocket subprotocols to offer, of which the server's WS_SUBPROTOCOLS must have one. Default none. A function is
   * called before every attempt, so that a reconnect can carry a fresh token: `() => ["bearer", token()]`.
   */
  protocols?: string | string[] | (() => string | string[] | PromiseLike<string | string[]>);
}

/**
 * - `connecting`: an attempt is under way.
 * - `open`: messages go out at once.
 * - `waiting`: the connection was lost, or could not be had; it will be tried again.
 * - `closed`: over, by `close()` or because the server said not to come back (see `mayReconnect`).
 */
export type Status = "connecting" | "open" | "waiting" | "closed";

export interface StatusDetail {
  /** `connecting`, `waiting`: how many attempts and connections have failed since the last stable one. */
  attempt?: number;
  /** `waiting`: how many ms until the next attempt. */
  delay?: number;
  /** `waiting`, `closed`: the close code; 1006 where there was no close frame. */
  code?: number;
  /** `waiting`, `closed`: why, as far as it is known. */
  reason?: string;
}

export interface RoomOptions {
  /** The room, of a kind that the server has handlers for (`broker.rooms`), that the message is for. */
  room?: string;
}

export interface VolatileOptions {
  /** Never wait for a connection: what is soon out of date (where the mouse is) is left out while there is none. */
  volatile?: boolean;
}

export interface SendOptions extends RoomOptions, VolatileOptions {}

export interface RequestOptions extends RoomOptions {
  /** In ms, waiting for a connection included. Default 10000; `Infinity` is never. */
  timeout?: number;
  /** Gives the request up: it rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** A message of the server as it came. */
export interface Incoming {
  event: string;
  data?: any;
  /** The room that it was sent to, where that is one of a kind (`broker.rooms`). */
  room?: string;
}

/** A request that failed. */
export class RequestError extends Error {
  constructor(code: string, message?: string, data?: Record<string, unknown>);
  /**
   * The server's code (`INVALID_DATA`, `UNKNOWN_EVENT`, the application's own...), or one of the client's:
   *
   * - `RATE_LIMITED`: the server did not look at it; `retryAfter` says when it would.
   * - `TIMEOUT`: no answer in time. If it was still waiting for a connection, it is never sent.
   * - `DISCONNECTED`: the connection was lost after it was sent. The outcome is unknown; it is not sent again.
   * - `CLOSED`: the connection is closed for good.
   * - `QUEUE_FULL`: `maxQueue` messages wait already.
   * - `ABORTED`: `leave` was called before `join` was sent.
   */
  readonly code: string;
  /** All that the server said, `code` and `message` included; `undefined` where the server did not answer. */
  readonly data: Record<string, any> | undefined;
  /** For `INVALID_DATA`: where and why. */
  readonly details: any;
  /** For `RATE_LIMITED`: in how many seconds it would be accepted. */
  readonly retryAfter: number | undefined;
}

/** Whether to come back after a close with this code: not after 1000, 1002, 1003, 1007 to 1010, and 4400 to 4499. */
export function mayReconnect(code: number): boolean;

/**
 * Open a connection that comes back by itself.
 *
 * After a loss it waits a random time between 0 and a bound that starts at `baseDelay` and doubles up to `maxDelay`;
 * the bound starts small again once a connection has lasted `stableAfter`. When the browser comes online it tries at
 * once.
 *
 * A server that restarts (1012, or 1001) or is too busy (1013) can say in the close's reason when to come back:
 * `retry_after=2.5`, in seconds. Then the first attempt comes that long after the loss, and only if it fails, too, the
 * usual delays follow. A connection that had not lasted `stableAfter` waits for its usual delay, if that is longer.
 *
 * A handshake that was refused with an HTTP status looks to a browser like a lost connection; a server that wants
 * a client to stay away closes with a code that says so (`Reject(code=4401)`).
 *
 * @param url By default the server that served this module, at the path this module is below.
 * @throws SyntaxError or TypeError if the URL is none.
 */
export function connect(url?: Address, options?: Options): Velocity;

export class Velocity {
  /** The same as `connect(url, options)`. */
  constructor(url?: Address, options?: Options);

  readonly status: Status;
  /** How many messages were lost because the queue was full or the connection closed; requests are not among them. */
  readonly dropped: number;
  /** How many messages and requests wait for a connection. */
  readonly queued: number;
  /** The rooms that are joined, and joined again after every reconnect. */
  readonly rooms: string[];

  /**
   * Call a function for every message of an event; returns what undoes it. A handler that throws is reported as an
   * uncaught error, and does not keep others from being called.
   *
   * Three names are the client's own: `status`, `binary` and `*`. An event of the server that has one of them reaches
   * the handlers of `*` only, and the client's own events never reach those.
   *
   * What handlers of the status `open` send goes out before rooms are joined again and before what was queued: the
   * place to authenticate with a message.
   */
  on(event: "status", handler: (status: Status, detail: StatusDetail) => void): () => void;
  /** Binary messages. */
  on(event: "binary", handler: (data: ArrayBuffer) => void): () => void;
  /** Every event of the server, beside its own handlers. Answers to requests are none. */
  on(event: "*", handler: (event: string, data: any, message: Incoming) => void): () => void;
  /** What the server complains about outside of a request, and rooms that could not be joined again (`room`). */
  on(event: "error", handler: (error: { code: string; message: string; [more: string]: any }) => void): () => void;
  /** Any event of the server; `message` is all of it. */
  on<Data = any>(event: string, handler: (data: Data, message: Incoming) => void): () => void;

  /** Undo `on`. */
  off(event: string, handler: (...args: any[]) => void): void;

  /**
   * Send a message, or queue it while there is no connection.
   *
   * @returns false if it was dropped, because the queue is full or the connection closed, or if it is volatile and was
   *   left out, which `dropped` does not count.
   */
  send(event: string, data?: unknown, options?: SendOptions): boolean;

  /** The same for a binary message. */
  sendBytes(data: ArrayBuffer | ArrayBufferView | Blob, options?: VolatileOptions): boolean;

  /**
   * Send a message and wait for its answer.
   *
   * @throws RequestError (as a rejection), see its `code`.
   */
  request<Reply = any>(event: string, data?: unknown, options?: RequestOptions): Promise<Reply>;

  /**
   * Ask to be in a room: a request `{event: "join", data: {room}}`. From then on it is asked again after every
   * reconnect, until `leave`, or until the server refuses. This request alone survives a lost connection.
   *
   * @throws RequestError (as a rejection). After `TIMEOUT` and `CLOSED` the room is still asked for when there is a
   *   connection; after an answer of the server it is not.
   */
  join<Reply = any>(room: string): Promise<Reply>;

  /** Leave a room: a request `{event: "leave", data: {room}}`. Without a connection there is nothing to leave. */
  leave<Reply = any>(room: string): Promise<Reply | null>;

  /** Open again after `closed`, joining the same rooms; while `waiting`, try at once. Otherwise it does nothing. */
  reconnect(): void;

  /**
   * Close for good. What is queued is dropped, and requests without an answer reject with `CLOSED`.
   *
   * @param code 1000, or 3000 to 4999.
   * @throws InvalidAccessError or SyntaxError if code or reason may not be sent; then nothing has changed.
   */
  close(code?: number, reason?: string): void;
}
