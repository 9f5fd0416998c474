// velocity.js: the browser client of velocity-ws. One ES module without a build step; velocity.d.ts documents it.

const MAX_TIMER = 2 ** 31 - 1; // beyond it, setTimeout fires at once
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010]);
const HINT = /\bretry_after=(\d+(?:\.\d+)?)/; // seconds, in the reason of a close with one of the next three
const COME_BACK = new Set([1001, 1012, 1013]);
const ANSWERS = new Set(["reply", "error", "rate_limit_exceeded"]);
const RESERVED = new Set(["status", "binary", "*"]); // names of the client's own events

/** Whether to come back after a close with this code: the rule of Python's `may_reconnect`. */
export function mayReconnect(code) {
  return !FINAL.has(code) && !(code >= 4400 && code <= 4499);
}

/** Open a connection that comes back by itself. */
export function connect(url, options) {
  return new Velocity(url, options);
}

/** A request that failed; `code` says how. */
export class RequestError extends Error {
  constructor(code, message, data) {
    super(message || code);
    this.name = "RequestError";
    this.code = code;
    this.data = data; // the server's answer; a request that failed on this side has none
    this.details = data?.details;
    this.retryAfter = data?.retry_after;
  }
}

export class Velocity {
  #url;
  #options;
  #handlers = new Map(); // event -> set of functions
  #status = "closed";
  #socket = null;
  #turn = 0; // changes with every attempt and every end, so that what is awaited across one is known to be stale
  #attempt = 0; // failures since the last stable connection
  #timer; // of the present status: the connect timeout, the time to be stable, or the backoff
  #joinTimer;
  #queue = []; // [frame, request?]
  #requests = new Map(); // id -> request without an answer
  #rooms = new Map(); // room -> {request, socket}: the join without an answer, and the socket that was last asked
  #lastId = 0;
  #dropped = 0;

  constructor(url, options) {
    this.#url = url;
    this.#options = {
      baseDelay: 500,
      maxDelay: 30_000,
      stableAfter: 5_000,
      connectTimeout: 10_000,
      maxQueue: 100,
      joinEvent: "join",
      leaveEvent: "leave",
      protocols: [],
      ...options,
    };
    if (typeof url !== "function") resolve(url); // throws for what can never be a URL
    this.reconnect();
  }

  get status() { return this.#status; }
  get dropped() { return this.#dropped; }
  get queued() { return this.#queue.length; }
  get rooms() { return [...this.#rooms.keys()]; }

  on(event, handler) {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    return () => this.off(event, handler);
  }

  off(event, handler) {
    this.#handlers.get(event)?.delete(handler);
  }

  send(event, data, { room, volatile = false } = {}) {
    if (volatile && !this.#isOpen) return false;
    return this.#sendOrQueue(JSON.stringify({ event, room, data })); // undefined is left out
  }

  sendBytes(data, { volatile = false } = {}) {
    if (volatile && !this.#isOpen) return false;
    return this.#sendOrQueue(this.#isOpen ? data : new Blob([data])); // a copy, as the buffer may change meanwhile
  }

  async request(event, data, options) {
    const request = this.#ask(event, data, options);
    if (this.#requests.has(request.id) && !this.#sendOrQueue(request.frame, request)) {
      if (this.#status === "closed") request.fail("CLOSED", "the connection is closed");
      else request.fail("QUEUE_FULL", "too much is waiting to be sent");
    }
    return request.promise;
  }

  async join(room) {
    let entry = this.#rooms.get(room);
    if (!entry?.request) {
      this.#rooms.set(room, (entry = { request: null, socket: null, failures: 0 }));
      const request = this.#askToJoin(room, entry);
      request.promise.catch((error) => error.data && this.#forget(room, entry));
      if (this.#status === "closed") request.fail("CLOSED", "the connection is closed");
      this.#sendJoins();
    }
    return entry.request.promise;
  }

  async leave(room) {
    const entry = this.#rooms.get(room);
    this.#forget(room, entry);
    if (entry?.request) entry.request.repeat = false;
    if (entry?.request?.sent === false) entry.request.fail("ABORTED", "left before it was joined");
    if (this.#isOpen) return this.request(this.#options.leaveEvent, { room });
    return null; // who is not connected is in no room
  }

  reconnect() {
    if (this.#status === "closed") {
      this.#attempt = 0;
      this.#listen("addEventListener");
      this.#open();
    } else if (this.#status === "waiting") {
      this.#open();
    }
  }

  close(code = 1000, reason = "") {
    if (this.#status === "closed") return;
    this.#socket?.close(code, reason); // before all else, as it throws for a code that may not be sent
    this.#end(code, reason);
  }

  // --- the connection: closed -> connecting -> open -> waiting -> connecting ...

  get #isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  async #open() {
    const turn = ++this.#turn;
    this.#after(this.#options.connectTimeout, () => this.#lost(1006, "connecting took too long"));
    this.#setStatus("connecting", { attempt: this.#attempt });
    try {
      const url = typeof this.#url === "function" ? await this.#url() : this.#url;
      const offered = this.#options.protocols;
      const protocols = typeof offered === "function" ? await offered() : offered;
      if (turn === this.#turn) this.#attach(new WebSocket(resolve(url), protocols));
    } catch (error) {
      report(error);
      if (turn === this.#turn) this.#lost(1006, "there is no usable URL");
    }
  }

  #attach(socket) {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => this.#receive(data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    socket.onopen = () => {
      this.#after(this.#options.stableAfter, () => (this.#attempt = 0));
      this.#setStatus("open", {});
      this.#sendJoins();
      while (this.#isOpen && this.#queue.length) this.#transmit(...this.#queue.shift());
    };
  }

  #detach() {
    const socket = this.#socket;
    this.#turn++;
    this.#socket = null;
    clearTimeout(this.#timer);
    clearTimeout(this.#joinTimer);
    for (const entry of this.#rooms.values()) clearTimeout(entry.timer);
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null; // what it still has to say is of the past
    socket.close();
  }

  #lost(code, reason) {
    this.#detach();
    if (!mayReconnect(code)) return this.#end(code, reason);
    for (const request of [...this.#requests.values()]) {
      if (request.repeat) request.sent = false;
      else if (request.sent) request.fail("DISCONNECTED", "the connection was lost before the answer came");
    }
    const { baseDelay, maxDelay } = this.#options;
    const usual = Math.random() * Math.min(maxDelay, baseDelay * 2 ** this.#attempt);
    const hint = COME_BACK.has(code) ? HINT.exec(reason) : null;
    // A server that sends everyone away over and over does not keep the backoff from growing.
    const delay = hint ? Math.max(hint[1] * 1000, this.#attempt && usual) : usual;
    this.#attempt++;
    this.#after(delay, () => this.#open());
    this.#setStatus("waiting", { delay, attempt: this.#attempt, code, reason });
  }

  #end(code, reason) {
    this.#detach();
    this.#listen("removeEventListener");
    this.#dropped += this.#queue.filter(([, request]) => !request).length;
    this.#queue = [];
    for (const request of [...this.#requests.values()]) request.fail("CLOSED", "the connection was closed");
    this.#setStatus("closed", { code, reason });
  }

  #after(delay, action) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, Math.min(delay, MAX_TIMER));
  }

  #setStatus(status, detail) {
    this.#status = status;
    this.#emit("status", status, detail);
  }

  #listen(method) {
    for (const event of ["online", "pageshow", "pagehide"]) globalThis[method]?.(event, this.#onPageEvent);
  }

  // The back button can bring back a page that waits, but none with an open socket; so it waits until it is shown again.
  #onPageEvent = ({ type, persisted }) => {
    if (type === "pagehide" && persisted) this.#lost(1001, "the page was left");
    if ((type === "online" || persisted) && type !== "pagehide" && this.#status === "waiting") this.#open();
  };

  // --- sending

  #sendOrQueue(frame, request) {
    if (this.#isOpen) {
      this.#transmit(frame, request);
    } else if (this.#status !== "closed" && this.#queue.length < this.#options.maxQueue) {
      this.#queue.push([frame, request]);
    } else {
      if (!request) this.#dropped++; // a request's promise tells its own loss
      return false;
    }
    return true;
  }

  #transmit(frame, request) {
    this.#socket.send(frame);
    if (request) request.sent = true;
  }

  /** Prepare a request; `repeat` says that it outlives its connection. */
  #ask(event, data, { timeout = 10_000, signal, room } = {}) {
    const id = ++this.#lastId;
    const request = { id, frame: JSON.stringify({ event, room, data, id }), sent: false, repeat: false };
    request.promise = new Promise((succeed, reject) => {
      const settled = (finish) => (value) => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
        this.#requests.delete(id);
        this.#queue = this.#queue.filter((queued) => queued[1] !== request);
        finish(value);
      };
      const fail = settled(reject);
      const abort = () => fail(signal.reason);
      const expire = () => request.fail("TIMEOUT", `no answer to "${event}" within ${timeout} ms`);
      const timer = timeout > MAX_TIMER ? undefined : setTimeout(expire, timeout);
      request.succeed = settled(succeed);
      request.fail = (code, message, data) => fail(new RequestError(code, message, data));
      this.#requests.set(id, request);
      signal?.addEventListener("abort", abort);
      if (signal?.aborted) abort();
    });
    return request;
  }

  #askToJoin(room, entry) {
    const request = this.#ask(this.#options.joinEvent, { room });
    request.repeat = true; // joining twice is harmless
    entry.request = request;
    const answered = () => (entry.request = null);
    request.promise.then(answered, answered);
    return request;
  }

  #sendJoins() {
    for (const [room, entry] of this.#rooms) {
      if (!this.#isOpen) return;
      if (entry.socket === this.#socket) continue;
      entry.socket = this.#socket;
      const request = entry.request ?? this.#joinAgain(room, entry);
      this.#transmit(request.frame, request);
    }
  }

  #joinAgain(room, entry) {
    const request = this.#askToJoin(room, entry);
    const answered = () => (entry.failures = 0);
    request.promise.then(answered, (error) => {
      if (error.data && error.code === "INTERNAL_ERROR") {
        this.#joinLater(entry);
      } else if (error.code === "RATE_LIMITED") {
        entry.socket = null;
        clearTimeout(this.#joinTimer);
        this.#joinTimer = setTimeout(() => this.#sendJoins(), error.retryAfter * 1000);
      } else if (error.data) {
        this.#forget(room, entry);
        this.#emit("error", { ...error.data, room });
      }
    });
    return request;
  }

  /** The server could not decide whether it may be in a room; on this connection, ask again after a while. */
  #joinLater(entry) {
    const socket = this.#socket;
    const { baseDelay, maxDelay } = this.#options;
    const delay = Math.random() * Math.min(maxDelay, baseDelay * 2 ** entry.failures++);
    const again = () => {
      if (entry.socket === socket) entry.socket = null; // else it was asked for on another meanwhile
      this.#sendJoins();
    };
    clearTimeout(entry.timer);
    entry.timer = setTimeout(again, Math.min(delay, MAX_TIMER));
  }

  #putOut(room, reason) {
    const entry = this.#rooms.get(room);
    if (!entry || entry.request || !reason) return; // what is asked for has an answer of its own
    if (reason === "INTERNAL_ERROR") this.#joinLater(entry);
    else this.#forget(room, entry);
  }

  #forget(room, entry) {
    clearTimeout(entry?.timer);
    if (this.#rooms.get(room) === entry) this.#rooms.delete(room);
  }

  // --- receiving

  #receive(text) {
    if (typeof text !== "string") return this.#emit("binary", text);
    let message;
    try {
      message = JSON.parse(text);
    } catch {} // told below
    const { event, id, data = null } = message ?? {};
    if (typeof event !== "string") return console.warn("velocity: ignored a message without an event:", text);
    if (id != null && ANSWERS.has(event)) return this.#answer(this.#requests.get(id), event, data);
    if (event === "left") this.#putOut(data?.room, data?.reason);
    const heard = (RESERVED.has(event) ? 0 : this.#emit(event, data, message)) + this.#emit("*", event, data, message);
    if (!heard && (event === "error" || RESERVED.has(event))) console.warn(`velocity: nobody heard "${event}":`, data);
  }

  #answer(request, event, data) {
    if (!request) return; // it timed out, and its caller knows
    if (event === "reply") return request.succeed(data);
    const code = event === "error" ? data?.code : "RATE_LIMITED";
    request.fail(code, data?.message, data ?? {});
  }

  #emit(event, ...args) {
    const handlers = [...(this.#handlers.get(event) ?? [])];
    for (const handler of handlers) {
      try {
        handler(...args);
      } catch (error) {
        report(error);
      }
    }
    return handlers.length;
  }
}

function resolve(url) {
  const absolute = new URL(url ?? new URL(".", import.meta.url), globalThis.location?.href);
  absolute.protocol = absolute.protocol.replace("http", "ws");
  absolute.hash = "";
  return absolute.href;
}

function report(error) {
  (globalThis.reportError ?? console.error)(error);
}
