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
 *
 * In Node, where there is no `WebSocket` before version 22, `connect("ws://…", { WebSocket })` takes that of the package
 * `ws`. One timer runs for each client, whatever it waits for.
 */

/** The version of the package that this module belongs to. */
export const version: string;

/**
 * The number of what client and server say to each other. A server that speaks a higher one has learned something that
 * this client does not understand; then there is one warning in the console. It is found out by a `$ping`.
 */
export const protocol: number;

/**
 * Where the server is: an absolute `ws:`, `wss:`, `http:` or `https:` URL, or a path on the page's own host.
 * A function is called before every attempt, so that a reconnect can carry a fresh token.
 */
export type Address = string | URL | (() => string | URL | PromiseLike<string | URL>);

/**
 * The shape of the type that `connect<Events>()` takes, for a compiler that knows what is sent. Each part may be left
 * out, and says then that there are none of that kind. Without a type everything is `any`.
 *
 * ```ts
 * interface Events {
 *   receives: { chat_message: ChatMessage };                        // ws.on
 *   sends: { say: Say; bye: undefined };                            // ws.send, ws.send("bye")
 *   requests: { history: { data: Query; reply: ChatMessage[] } };   // ws.request
 *   asks: { confirm: { data: Question; reply: boolean } };          // ws.onRequest
 * }
 * const ws = connect<Events>("/ws");
 * ```
 */
export interface EventTypes {
  /** What the server sends: the data of each event. */
  receives?: object;
  /** What the page sends: the data of each event; `undefined` for none. */
  sends?: object;
  /** What the page asks: `{data, reply}` of each event; without `data` there is none. */
  requests?: object;
  /** What the server asks the page (`client.ask`): `{data, reply}` of each event. */
  asks?: object;
}

/** The least that has to be there of a WebSocket; that of the package `ws` has it. */
export interface WebSocketClass {
  new (url: string, protocols?: string | string[]): any;
}

export interface Options {
  /** Upper bound of the first reconnect delay in ms; it doubles with every failure. Default 500. */
  baseDelay?: number;
  /** Upper bound of all reconnect delays in ms, but for those the server asks for. Default 30000. */
  maxDelay?: number;
  /** How long a connection must last, in ms, before the delays start small again. Default 5000. */
  stableAfter?: number;
  /**
   * How long one attempt may take in ms, the URL function included; then another one begins within `baseDelay`, and it
   * does not count as a failure. Default 30000: a browser may not send a packet for that long, as it waits for the
   * handshakes of other tabs, for one of six event streams to end, or (Firefox, up to 18 s) because others have failed.
   */
  connectTimeout?: number;
  /**
   * When nothing has come for so long, in ms, the server is asked for a sign of life (`$ping`); no answer within 8 s is a
   * lost connection. It is asked at once when the page becomes visible, when the browser comes online, and after a
   * request that timed out. If messages come, but no answer to what was sent, that takes as long in all. Default 25000;
   * 0 or `Infinity`: never.
   */
  livenessTimeout?: number;
  /** How many messages may wait for a connection; as many that may be lost are kept for `unconfirmed`. Default 100. */
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
  /**
   * Renews a login that ends: what it returns is sent as `{event: "refresh", data}`, which the server's `@broker.refresh`
   * gets. It is called when 80 % of the time are over that the server has named (`session`), and when the login has ended
   * (`session_expired`). If it throws, or the server fails, it is called again after a while; if the server refuses, the
   * event `error` tells it, and the connection will be closed with 4401. On one connection it is called again only when
   * its promise has settled: give what it fetches a timeout.
   */
  refresh?: () => unknown;
  /** The class of sockets where the global `WebSocket` is missing, or is not to be used. */
  WebSocket?: WebSocketClass;
}

/**
 * - `connecting`: an attempt is under way.
 * - `open`: messages go out at once.
 * - `waiting`: the connection was lost, or could not be had; it will be tried again.
 * - `closed`: over, by `close()` or because the server said not to come back (see `mayReconnect`).
 */
export type Status = "connecting" | "open" | "waiting" | "closed";

export interface StatusDetail {
  /** Since when the status is this one: milliseconds since 1970, as `Date.now()` has them. */
  since: number;
  /** Rooms whose join was answered on this connection; when it has just opened, none. See the event `joined`. */
  joined: string[];
  /** The other rooms that were asked for with `join`. */
  pending: string[];
  /** `connecting`, `waiting`: how many attempts and connections have failed since the last stable one. */
  attempt?: number;
  /** `waiting`: how many ms until the next attempt. It is not there while the page is away, until it returns. */
  delay?: number;
  /**
   * `waiting`, `closed`: the close code; 1006 where there was no close frame, 4100 where the page was left: it is frozen,
   * or kept for the back button.
   */
  code?: number;
  /** `waiting`, `closed`: why, as far as it is known. */
  reason?: string;
  /**
   * `waiting`, `closed`: the messages of which no answer has shown that they arrived, in order. An answer, to a request
   * or a `$ping`, shows it of all that was sent before what it answers; other messages of the server show nothing, as the
   * way there may be dead while they come. So these may be lost, or have arrived: none that is lost is missing here. Each
   * is told once, and is not sent again. While messages are sent there is a `$ping` every `livenessTimeout` / 2.
   * Volatile messages are not among them, nor requests, whose promises tell it. The newest `maxQueue` at most.
   */
  unconfirmed?: Unconfirmed[];
  /** `waiting`, `closed`: how many these are, with those that were not kept. */
  unconfirmedCount?: number;
}

/** A message that may be lost: as `send` was given it, or the `bytes` of `sendBytes` (which may have changed since). */
export interface Unconfirmed {
  event?: string;
  data?: any;
  room?: string;
  bytes?: ArrayBuffer | ArrayBufferView | Blob;
}

export interface RoomOptions {
  /**
   * The room, of a kind that the server has handlers for (`broker.rooms`), that the message is for. If it was asked for
   * with `join`, the message waits until that is answered.
   */
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

export interface JoinOptions {
  /**
   * Sent along: `{event: "join", data: {room, data}}`. It is copied, and sent again after every reconnect, until another
   * `join` of the room brings other data.
   */
  data?: unknown;
  /**
   * Loads what the room shows, and shows it. It is called when the join is answered, and so when it is known from where
   * on messages come; those that are sent to the room meanwhile are held back until its promise has resolved, and follow
   * then. What was said while it was loading may be in both, and comes behind: newer is never followed by older.
   *
   * It is called again when messages are lost (`resync`), and after each reconnect to a room that has no history; until
   * it has ended, nothing newer is told. Two calls never run at once. If it throws at first, the join fails with that
   * error, and this use ends. Later, the error is reported as an uncaught one, and it is called again after a while.
   *
   * Of a room 1,000 messages or a million characters are held back; beyond, they are let go, `resync` tells it
   * (`too_many`), and the state is loaded once more. Only messages that name their `room` can be held back: those to one
   * room of a kind.
   */
  state?: () => unknown;
}

export interface LeaveOptions {
  /** That which this use gave to `join`; without it, the newest is forgotten of those that are too many. */
  state?: (() => unknown) | undefined;
}

/**
 * Why what was missed in a room with history is not told: it was more than is kept (`evicted`), longer ago (`expired`, or
 * not asked for in time), or more than is given at once (`too_many`); the history has begun anew (`epoch`), or was set
 * back (`rewound`); this client was put out of the room meanwhile (`forbidden`); or messages were `dropped`, as it read too
 * slowly, and could not be had again.
 */
export type LossReason = "evicted" | "expired" | "epoch" | "rewound" | "too_many" | "forbidden" | "dropped" | (string & {});

/** A message of the server as it came. */
export interface Incoming {
  event: string;
  data?: any;
  /** The room that it was sent to, where that is one of a kind (`broker.rooms`). */
  room?: string;
  /** Where that room stands with this message, if it has history. This client keeps it, and comes back to there. */
  at?: string;
  /** Of a question (`onRequest`). */
  id?: number | string;
}

/** Messages that are missing. */
export interface Gap {
  dropped?: number;
  room?: string | null;
  missed?: number | null;
  /** In a room with history: why. */
  reason?: "evicted" | "expired" | "epoch" | "dropped";
  /** Behind the last message before them. */
  from?: string;
  /** Behind them: from there on it goes on. */
  at?: string;
}

export interface StreamOptions {
  /**
   * The room that the stream belongs to. Without it the stream is found among those of all rooms that the page is in. With
   * it, one that the server does not send by itself is read, too: what has ended long ago. The page has to be in the room;
   * else it is `FORBIDDEN`.
   */
  room?: string | undefined;
}

/**
 * How a stream has ended: its writer was `done`; it was `cancelled`; it failed (`error`); or it died (`lost`). What came
 * before is kept in any case.
 */
export type StreamEnd = "done" | "cancelled" | "error" | "lost" | (string & {});

/** What comes of a stream, as the event `stream` tells it: contiguous, and nothing twice, over reconnects too. */
export interface StreamPiece {
  id: string;
  /** How many characters (code points) or items came before. */
  from: number;
  text?: string;
  items?: any[];
  end?: StreamEnd;
}

/**
 * A stream: text, or items, that one writer on the server says piece by piece, and that no lost connection ends.
 *
 * ```js
 * const answer = ws.stream("answer-42", { room: "chat:7" });
 * for await (const part of answer) show(part);
 * if (answer.end !== "done") show("this is all there is");
 * ```
 *
 * Each loop gets all of it from the beginning: of a text what there is, and then what comes; of items one after the other.
 * It waits for one that has not begun, goes on after a reconnect, and ends when the stream does, however that is: see
 * `end`. It throws a `RequestError`:
 *
 * - `NOT_FOUND`: there is no such stream, and the page is not in its room, so that it would not hear of it.
 * - `GONE`: it ended so long ago that it is not kept any more.
 * - `FORBIDDEN`, or another code of the server: the page may not read it, or was put out of its room.
 * - `ABORTED`: the page has left the room before the end.
 * - `CLOSED`: the connection is closed for good.
 *
 * Another loop tries again. Several for one id have the same text, and cost nothing more of the server.
 */
export interface Stream<Part = string> extends AsyncIterable<Part> {
  readonly id: string;
  /** The room; `undefined` where it was not given, and nothing has come yet. */
  readonly room: string | undefined;
  /** All that has come, where it is text. */
  readonly text: string;
  /** All that has come, where it is items. It grows; do not change it. */
  readonly items: readonly Part[];
  /** How it has ended; `null` as long as it has not, as far as the page knows. */
  readonly end: StreamEnd | null;
  /** Why nothing more comes, where that is for now no end of the stream, but what a loop throws. */
  readonly error: RequestError | undefined;

  /**
   * Call a function when any of these has changed, once for each piece; returns what undoes it. As a loop does, it has the
   * stream read where that does not come by itself.
   */
  onChange(handler: () => void): () => void;

  /**
   * Ask the server to stop it, which the `on_cancel` of its kind of rooms decides. The end comes as any end does. It resolves
   * when the server has answered, and at once where the stream has ended.
   *
   * @throws RequestError (as a rejection): `FORBIDDEN`; `NOT_FOUND` where the room is not known; and as `request` does.
   */
  cancel(): Promise<unknown>;
}

/** What the server, or this client, complains about. */
export interface Complaint {
  code: string;
  message: string;
  /** The room that could not be joined, or not again. */
  room?: string;
  [more: string]: any;
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
   * - `ABORTED`: `leave` was called before `join` was sent, or before its state was loaded.
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
 * once, and when the page becomes visible, unless the server has named the time.
 *
 * A server that restarts (1012, or 1001) or is too busy (1013) can say in the close's reason when to come back:
 * `retry_after=2.5`, in seconds. Then the first attempt comes that long after the loss, and only if it fails, too, the
 * usual delays follow. A connection that had not lasted `stableAfter` waits for its usual delay, if that is longer.
 *
 * A page that its browser freezes, or keeps for the back button, loses all that is sent to it, while the browser goes on
 * answering for it. So the connection is closed then, with 4100, which the server knows as `CloseCode.PAGE_FROZEN`; the
 * status is `waiting`, and when the page returns it connects at once.
 *
 * A handshake that was refused with an HTTP status looks to a browser like a lost connection; a server that wants
 * a client to stay away closes with a code that says so (`Reject(code=4401)`).
 *
 * No promise of its own is ever rejected without anybody who could catch it.
 *
 * @param url By default the server that served this module, at the path this module is below.
 * @throws SyntaxError or TypeError if the URL is none, if it is missing and this module did not come from the server (as
 *   in a bundle), or if there is no `WebSocket`.
 */
export function connect<E extends EventTypes = any>(url?: Address, options?: Options): Velocity<E>;

type IsAny<T> = 0 extends 1 & T ? true : false;
/** One part of `EventTypes`; of `any` nothing is known. */
type Part<E, Name extends keyof EventTypes> = E extends { [key in Name]?: infer T } ? NonNullable<T> : {};
type NamesOf<E, Name extends keyof EventTypes> = IsAny<E> extends true ? never : keyof Part<E, Name> & string;
/** Any name, where the types of the application are not known. */
type Untyped<E> = IsAny<E> extends true ? string : never;
type DataOf<T> = T extends { data: infer Data } ? Data : T extends { data?: infer Data } ? Data | undefined : undefined;
type ReplyOf<T> = T extends { reply: infer Reply } ? Reply : void;
/** Data that may be left out where it is `undefined`, and the options behind it. */
type Arguments<Data, More> = undefined extends Data ? [data?: Data, options?: More] : [data: Data, options?: More];

export class Velocity<E extends EventTypes = any> {
  /** The same as `connect(url, options)`. */
  constructor(url?: Address, options?: Options);

  readonly status: Status;
  /** How many messages were lost because the queue was full or the connection closed; requests are not among them. */
  readonly dropped: number;
  /** How many messages and requests wait, for a connection or for the answer to the join of their room. */
  readonly queued: number;
  /** The rooms that were asked for with `join`, and are asked for again after every reconnect. */
  readonly rooms: string[];
  /** Those of them whose join was answered on this connection. */
  readonly joined: string[];

  /**
   * Call a function for every message of an event; returns what undoes it. A handler that throws is reported as an
   * uncaught error, and does not keep others from being called.
   *
   * Three names are the client's own: `status`, `binary` and `*`. An event of the server that has one of them reaches the
   * handlers of `*` only, and the client's own events never reach those. See also `joined`.
   *
   * What handlers of the status `open` send goes out before rooms are joined again and before what was queued: the
   * place to authenticate with a message. What they send to a room (`room`) waits for it as ever.
   */
  on(event: "status", handler: (status: Status, detail: StatusDetail) => void): () => void;
  /** Binary messages. */
  on(event: "binary", handler: (data: ArrayBuffer) => void): () => void;
  /**
   * Every answer to a join, the first one and those after a reconnect. In a room with history the answer says whether the
   * messages that were missed follow (`recovered`), and how many (`missed`); else this is the place to load what has
   * happened in the room. Rooms with history that the server puts this client into are told, too.
   *
   * An answer that the server gave to a join that was no request (`ws.send("join", …)`) is told, too. It is a message
   * `joined` whose data has a text `room`; one without is an event of the application, and calls `(data, message)`, as
   * other events do. A page that hears both tells them apart by the first argument, which is a text for rooms only.
   */
  on(event: "joined", handler: (room: string, answer: any) => void): () => void;
  /**
   * Messages of a room with history are lost for this client: what it shows of the room has to be loaded anew, which the
   * `state` of its joins does. What is told from now on is newer than what is lost.
   */
  on(event: "resync", handler: (room: string, reason: LossReason) => void): () => void;
  /**
   * The server has put this client out of a room: `reason` is `FORBIDDEN`, or a code of the application; also where it
   * has refused a join after a reconnect, or after the promise of `join` had ended. The room is forgotten, and `leave`
   * has nothing to do. With `INTERNAL_ERROR`, where the server could not decide, it is asked for again by itself.
   */
  on(event: "left", handler: (data: { room: string; reason?: string }, message: Incoming) => void): () => void;
  /** Every event of the server, beside its own handlers. Answers to requests are none. */
  on(event: "*", handler: (event: string, data: any, message: Incoming) => void): () => void;
  /**
   * What the server complains about outside of a request; rooms that could not be joined again, or joined when nobody
   * waited for it any more (`room`); a login that could not be renewed.
   */
  on(event: "error", handler: (error: Complaint, message?: Incoming) => void): () => void;
  /** A message was over the server's rate limit, and not looked at; `retry_after` is in seconds. */
  on(
    event: "rate_limit_exceeded",
    handler: (data: { message: string; retry_after: number }, message: Incoming) => void,
  ): () => void;
  /**
   * When the login ends, in seconds; without `expires_in` it does not. See `Options.refresh`. A server with rooms that
   * have history gives a `token`, by which this client is known to be the same when it comes back.
   */
  on(event: "session", handler: (data: { expires_in?: number; token?: string }, message: Incoming) => void): () => void;
  /** The login has ended; the connection will, too, unless it is renewed. */
  on(event: "session_expired", handler: (data: null, message: Incoming) => void): () => void;
  /**
   * Messages are missing: `dropped` by the server for this client, or `missed` (null: an unknown number) of a room. In a
   * room with history they have a `reason` and positions; `resync` follows, unless they were dropped for this client
   * alone and come again.
   */
  on(event: "gap", handler: (data: Gap, message: Incoming) => void): () => void;
  /**
   * Something of a stream, in any room that the page is in, has come that it did not have: see `stream`, for which nobody
   * has to listen. An event of the application that has this name is told as any other.
   */
  on(event: "stream", handler: (piece: StreamPiece, message: Incoming) => void): () => void;
  /** Any event of the server; `message` is all of it. */
  on<Name extends NamesOf<E, "receives">>(
    event: Name,
    handler: (data: Part<E, "receives">[Name], message: Incoming) => void,
  ): () => void;
  on<Data = any>(event: Untyped<E>, handler: (data: Data, message: Incoming) => void): () => void;

  /** Undo `on`: from now on, the function is not called, by a message that is being told either. */
  off(event: string, handler: (...args: any[]) => void): void;

  /**
   * Answer what the server asks this client (`await client.ask(event, data)`); returns what undoes it. The answer is what
   * the function returns. If it throws, the server gets a `ClientError` with the error's `code`, where that is a text, its
   * `message`, and the further data of a `RequestError`: `throw new RequestError("BUSY", "later")`. Any other error is
   * `INTERNAL_ERROR`, and reported as an uncaught one in the page, too.
   *
   * A question that nothing answers is `UNKNOWN_EVENT`. Of several functions for one event the last one answers. Handlers
   * of `on` are called for questions, too. The answer to a connection that is gone is dropped.
   */
  onRequest<Name extends NamesOf<E, "asks">>(
    event: Name,
    handler: (
      data: DataOf<Part<E, "asks">[Name]>,
      message: Incoming,
    ) => ReplyOf<Part<E, "asks">[Name]> | PromiseLike<ReplyOf<Part<E, "asks">[Name]>>,
  ): () => void;
  onRequest<Data = any>(event: Untyped<E>, handler: (data: Data, message: Incoming) => unknown): () => void;

  /**
   * Send a message, or queue it while there is no connection, or while its room is being joined.
   *
   * What waits goes out in order, when the rooms that were asked for are joined again. Where there are so many of them
   * that the server's rate limit delays their joins, only messages that name a room (`room`) wait for theirs.
   *
   * @returns false if it was dropped, because the queue is full or the connection closed, or if it is volatile and was
   *   left out, which `dropped` does not count.
   */
  send<Name extends NamesOf<E, "sends">>(event: Name, ...rest: Arguments<Part<E, "sends">[Name], SendOptions>): boolean;
  send(event: Untyped<E>, data?: unknown, options?: SendOptions): boolean;

  /**
   * The same for a binary message.
   *
   * @throws TypeError for a text.
   */
  sendBytes(data: ArrayBuffer | ArrayBufferView | Blob, options?: VolatileOptions): boolean;

  /**
   * Send a message and wait for its answer.
   *
   * @throws RequestError (as a rejection), see its `code`.
   */
  request<Name extends NamesOf<E, "requests">>(
    event: Name,
    ...rest: Arguments<DataOf<Part<E, "requests">[Name]>, RequestOptions>
  ): Promise<ReplyOf<Part<E, "requests">[Name]>>;
  request<Reply = any>(event: Untyped<E>, data?: unknown, options?: RequestOptions): Promise<Reply>;

  /**
   * Ask to be in a room: a request `{event: "join", data: {room}}`. From then on it is asked again after every
   * reconnect, until `leave`, or until the server refuses. This request alone survives a lost connection.
   *
   * Uses are counted: a room that was joined twice is left by the second `leave`. Where it is joined already, nothing is
   * sent, and the promise has the last answer.
   *
   * A few are asked for at a time, and at half the pace that the server's rate limit allows, once it has refused one. As
   * they are answered one after the other, each may take 10 s beyond those before it. An answer `INTERNAL_ERROR` or `UNAVAILABLE`, and one that does not come, is a failure and no refusal: it is asked again,
   * with a growing delay, and the promise waits for that.
   *
   * A room that the server remembers (`History`) is joined again where this client has stopped: what it has missed comes
   * in order and once, before what is new, or `resync` tells that it cannot be had. `leave` forgets where that was.
   *
   * @returns What the server has answered, once for this use; all answers are told by the event `joined`. With
   *   a `state`, when that is loaded; what was held back meanwhile is told just after that.
   * @throws RequestError (as a rejection), to the caller alone. After `TIMEOUT` (10 s) and `CLOSED` the room is still asked
   *   for when there is a connection, and this use counts; after an answer of the server it does not. Where nobody
   *   waits for the promise, only such an answer is an unhandled rejection.
   */
  join<Reply = any>(room: string, options?: JoinOptions): Promise<Reply>;

  /**
   * Leave a room: with the last use a request `{event: "leave", data: {room}}`. It is not asked for any more, be it that
   * the server has put this client out and would have been asked again. Without a connection there is nothing to leave,
   * and it resolves with null, as it does when the connection is lost meanwhile.
   */
  leave<Reply = any>(room: string, options?: LeaveOptions): Promise<Reply | null>;

  /**
   * A stream by its id, be it that it has ended, or not begun. Nothing is asked for before it is read, by `for await` or
   * `onChange`.
   *
   * The page has all that comes in its rooms, read or not. Of streams that have ended and that nothing reads a million
   * characters are kept; others are read again when they are needed, for which `room` has to be given if the page was
   * loaded anew since.
   */
  stream<Part = string>(id: string, options?: StreamOptions): Stream<Part>;

  /** The streams of a room, or of all, of which something has come and is kept, in the order in which it came first. */
  streams<Part = string>(room?: string): Stream<Part>[];

  /**
   * Open again after `closed`, joining the same rooms; while `waiting`, try at once, unless the page is away. Otherwise
   * it does nothing.
   */
  reconnect(): void;

  /**
   * Close for good. What is queued is dropped, and requests without an answer reject with `CLOSED`.
   *
   * @param code 1000, or 3000 to 4999.
   * @throws InvalidAccessError or SyntaxError if code or reason may not be sent; then nothing has changed.
   */
  close(code?: number, reason?: string): void;
}
