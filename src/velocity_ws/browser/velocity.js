// velocity.js: the browser client of velocity-ws. One ES module without a build step; velocity.d.ts documents it.

export const version = "0.1.0";
export const protocol = 1;

const MAX_TIMER = 2 ** 31 - 1; // beyond it, setTimeout fires at once
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1009, 1010]);
const HINT = /\bretry_after=(\d+(?:\.\d+)?)/; // seconds, in the reason of a close with one of the next three
const COME_BACK = new Set([1001, 1012, 1013]);
const PAGE_FROZEN = 4100; // a close of ours that says "will come back"
const ANSWERS = new Set(["reply", "error", "rate_limit_exceeded"]);
const RESERVED = new Set(["status", "binary", "*"]); // names of the client's own events
const FAILURES = new Set(["INTERNAL_ERROR", "UNAVAILABLE", "TIMEOUT", "RATE_LIMITED"]); // which are no refusals
const WINDOW = 8; // joins and leaves without an answer: enough to hide the way there, few enough to be refused at once
const ANSWER_TIMEOUT = 10_000;
const PONG_TIMEOUT = 8_000;
const GRACE = 500; // after the time for an answer is over: a page that has hung has not read yet what came meanwhile
const SERVED_AS = /\/velocity(\.\w+)?\.js$/; // by our endpoint, also with a fingerprint

const now = () => performance.now();
let hasWarned = false;

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
    this.retryAfter = typeof data?.retry_after === "number" ? data.retry_after : undefined; // an application may say anything
  }
}

/**
 * Whether a connection lives, judged by what has come whenever somebody looks at the clock, and what was sent that may
 * be lost. A frame shows that the way here is open; that the way there is, only an answer to what was sent shows.
 */
class Liveness {
  #timeout;
  #keep;
  #openedAt = 0;
  #heardAt = 0;
  #ping = null; // {at, mark}: the one without an answer
  #isAnswered = false; // whether one was, on this connection: the first is sent in any case, as the answer has the protocol
  #graceUntil = 0;
  #count = 0; // of messages that were sent, and so the number of the last
  #proven = 0; // the last one that was there before something that was answered
  #unproven = []; // {number, at, frame} of the newest ones after that
  #unprovenAt = Infinity; // when the first one after that was sent

  constructor(timeout, keep) {
    this.#timeout = timeout;
    this.#keep = keep;
  }

  get mark() { return this.#count; }
  get isOff() { return this.#timeout === Infinity; }
  get isPinged() { return this.#ping !== null; }

  /** When to look again. */
  get due() {
    if (!this.#ping) {
      const first = this.#isAnswered ? this.#heardAt : this.#openedAt;
      return Math.min(first + this.#timeout, this.#unprovenAt + this.#timeout / 2);
    }
    const { at } = this.#ping;
    const until = Math.min(Math.max(at, this.#heardAt), at + this.#timeout / 2) + PONG_TIMEOUT;
    return Math.max(until, this.#graceUntil);
  }

  /** What is to be done now: nothing, to "ping", or to take the connection for "lost". */
  judge(time) {
    if (time < this.due) return null;
    if (!this.#ping) return "ping";
    if (this.#graceUntil) return "lost";
    this.#graceUntil = time + GRACE;
    return null;
  }

  opened(time) {
    this.#openedAt = this.#heardAt = time;
    this.#isAnswered = false;
    this.#ping = null;
  }

  heard(time) {
    this.#heardAt = time;
  }

  sent(frame, time) {
    if (this.#proven === this.#count) this.#unprovenAt = time;
    this.#unproven.push({ number: ++this.#count, at: time, frame });
    if (this.#unproven.length > this.#keep) this.#unproven.shift();
  }

  pinged(time) {
    this.#ping = { at: time, mark: this.#count };
    this.#graceUntil = 0;
  }

  ponged() {
    this.proved(this.#ping?.mark);
    this.#ping = null;
    this.#isAnswered = true;
  }

  /** The server has what was sent up to this mark. */
  proved(mark) {
    if (!(mark > this.#proven)) return;
    this.#proven = mark;
    while (this.#unproven[0]?.number <= mark) this.#unproven.shift();
    this.#unprovenAt = this.#unproven[0]?.at ?? Infinity;
  }

  /** The connection is over: what was sent after the last answer, which is told once. */
  end() {
    const told = ({ frame }) => (typeof frame === "string" ? JSON.parse(frame) : { bytes: frame });
    const detail = { unconfirmed: this.#unproven.map(told), unconfirmedCount: this.#count - this.#proven };
    this.#unproven = [];
    this.#unprovenAt = Infinity;
    this.#proven = this.#count;
    this.#ping = null;
    return detail;
  }
}

/** The rooms that the page wants to be in, and what the server has said about each on the present connection. */
class Rooms {
  #link;
  #wanted = new Map(); // name -> {room, uses, data, isIn, wasIn, answer, isAsked, request, waiter, due, failures, failure}
  #leaves = new Map(); // name -> {room, promise, finish}: still to be sent
  #asking = 0; // joins and leaves without an answer
  #isBehind = false; // whether there are rooms that have not been asked for on this connection
  // Once the server has refused one as too many, they have a budget: `interval` ms for each, up to `burst` at once.
  #taken = 0;
  #burst = 1;
  #interval = 0;
  #budget = 0;
  #budgetAt = 0;
  #slowedAt = 0;

  constructor(link) {
    this.#link = link;
  }

  get names() { return [...this.#wanted.keys()]; }
  get joined() { return this.names.filter((room) => this.#wanted.get(room).isIn); }
  get pending() { return this.names.filter((room) => !this.#wanted.get(room).isIn); }

  /** Whether a message, to this room or to none, has to wait until rooms are joined again. */
  holds(room) {
    if (room === undefined) return this.#isBehind && !this.#interval;
    return this.#wanted.get(room)?.isIn === false;
  }

  join(room, data) {
    let entry = this.#wanted.get(room);
    if (!entry) {
      entry = { room, uses: 0, isIn: false, wasIn: false, isAsked: false, request: null, waiter: null, due: 0, failures: 0 };
      this.#wanted.set(room, entry);
      this.#leaves.get(room)?.finish(null);
      this.#leaves.delete(room);
    }
    entry.uses++;
    if (data !== undefined) entry.data = data;
    if (entry.isIn) return Promise.resolve(entry.answer);
    const { promise } = (entry.waiter ??= this.#waiter(entry));
    this.send();
    return promise;
  }

  leave(room) {
    const entry = this.#wanted.get(room);
    if (entry && --entry.uses) return Promise.resolve(null);
    this.#wanted.delete(room);
    entry?.waiter?.promise.catch(() => {}); // nobody has to hear any more that it was refused
    if (!entry?.request) entry?.waiter?.done(new RequestError("ABORTED", "left before it was joined"));
    if (!this.#link.isOpen()) return Promise.resolve(null); // who is not connected is in no room
    let leave = this.#leaves.get(room);
    if (!leave) {
      leave = { room };
      leave.promise = new Promise((resolve, reject) => {
        leave.finish = resolve;
        leave.fail = reject;
      });
      leave.promise.catch(() => {}); // where nobody waits for it
      this.#leaves.set(room, leave);
    }
    this.send();
    return leave.promise;
  }

  /** There is another connection, or none: what was said about rooms is of the past. */
  reset() {
    for (const leave of this.#leaves.values()) leave.finish(null);
    this.#leaves.clear();
    for (const entry of this.#wanted.values()) {
      entry.isIn = entry.isAsked = false;
      entry.due = entry.failures = 0;
    }
    this.#isBehind = this.#wanted.size > 0;
    this.#taken = this.#interval = 0;
  }

  /** Send what may be sent now. */
  send() {
    if (this.#link.isGreeting()) return; // it comes after that
    const time = now();
    let due = Infinity;
    const asks = (next) => {
      const wait = this.#asking < WINDOW ? this.#wait(time) : Infinity; // an answer goes on with it
      if (wait) due = Math.min(due, time + wait);
      return !wait && this.#link.isOpen() && (next(), true);
    };
    for (const leave of this.#leaves.values()) if (!asks(() => this.#askToLeave(leave))) break;
    this.#isBehind = false;
    for (const entry of this.#wanted.values()) {
      if (entry.isIn || entry.request) continue;
      if (entry.due > time) due = Math.min(due, entry.due);
      else if (!asks(() => this.#askToJoin(entry))) this.#isBehind ||= !entry.isAsked;
    }
    if (this.#link.isOpen()) this.#link.wakeAt(due);
    this.#link.flush();
  }

  putOut(room, reason) {
    const entry = this.#wanted.get(room);
    if (!entry?.isIn) return; // what is asked for has an answer of its own
    entry.isIn = false;
    if (FAILURES.has(reason)) this.#later(entry);
    else this.#wanted.delete(room);
    this.send();
  }

  // --- inside

  /** In how many ms the next may be sent; 0 for now. */
  #wait(time) {
    if (!this.#interval) return 0;
    this.#budget = Math.min(this.#burst, this.#budget + (time - this.#budgetAt) / this.#interval);
    this.#budgetAt = time;
    return this.#budget >= 1 ? 0 : Math.ceil((1 - this.#budget) * this.#interval);
  }

  #ask(event, data, done) {
    const time = now();
    this.#asking++;
    this.#budget--;
    const timeout = this.#asking * ANSWER_TIMEOUT; // they are answered one after the other
    return this.#link.ask(event, data, { timeout }, (error, answer) => {
      this.#asking--;
      if (isTooMuch(error)) this.#slowDown(1000 * error.retryAfter, time > this.#slowedAt);
      else this.#taken++;
      done(error, answer);
      this.send();
    });
  }

  /** Take half of what the server allows, as the page has other things to say; and less, if that was too much. */
  #slowDown(retryAfter, isAgain) {
    if (!this.#interval) this.#burst = Math.max(1, this.#taken);
    this.#interval = Math.max(isAgain ? 1.5 * this.#interval : this.#interval, 2 * retryAfter, 1);
    this.#budget = 1 - retryAfter / this.#interval;
    this.#budgetAt = this.#slowedAt = now();
  }

  #askToLeave(leave) {
    this.#leaves.delete(leave.room);
    this.#ask(this.#link.leaveEvent, { room: leave.room }, (error, answer) => {
      if (!error) leave.finish(answer);
      else if (error.code === "DISCONNECTED" || error.code === "CLOSED" || this.#wanted.has(leave.room)) leave.finish(null);
      else if (isTooMuch(error)) this.#leaves.set(leave.room, leave);
      else leave.fail(error);
    });
  }

  #askToJoin(entry) {
    entry.isAsked = true;
    entry.request = this.#ask(this.#link.joinEvent, { room: entry.room, data: entry.data }, (error, answer) => {
      entry.request = null;
      if (this.#wanted.get(entry.room) !== entry) entry.waiter?.done(error, answer); // it was left meanwhile
      else if (!error) this.#joined(entry, answer);
      else if (isTooMuch(error)) return; // it goes on when there is room
      else if (FAILURES.has(error.code)) this.#later(entry, error);
      else if (error.data) this.#refused(entry, error);
    });
  }

  #joined(entry, answer) {
    entry.isIn = entry.wasIn = true;
    entry.failures = 0;
    entry.answer = answer;
    entry.waiter?.done(null, answer);
    this.#link.flush(); // before what is said now that it is joined
    this.#link.emit("joined", entry.room, answer);
  }

  /** The server could not decide whether it may be in a room: on this connection, ask again after a while. */
  #later(entry, error) {
    entry.failure = error;
    entry.due = now() + Math.max(this.#link.backoff(entry.failures++), 1000 * (error?.retryAfter ?? 0));
  }

  #refused(entry, error) {
    const { room, waiter } = entry;
    this.#wanted.delete(room);
    waiter?.done(error);
    if (waiter && !entry.wasIn) return;
    const data = { room, reason: error.code };
    const heard = this.#link.emit("left", data, { event: "left", data });
    this.#link.complain({ ...error.data, code: error.code, room }, heard);
  }

  /** The promise of the joins that wait for an answer; only a refusal has to be heard by somebody. */
  #waiter(entry) {
    const waiter = {};
    waiter.promise = new Promise((resolve, reject) => {
      const told = (error, answer) => {
        entry.waiter = null;
        if (!error) return resolve(answer);
        if (!error.data) waiter.promise.catch(() => {});
        if (error.code === "TIMEOUT" && entry.failure?.data) error.message += `, but: ${entry.failure.message}`;
        reject(error);
      };
      waiter.done = this.#link.expect(this.#link.joinEvent, undefined, {}, told).done;
    });
    return waiter;
  }
}

export class Velocity {
  #url;
  #options;
  #handlers = new Map(); // event -> set of functions
  #answering = new Map(); // event -> functions of which the last one answers the server's questions
  #status = "closed";
  #socket = null;
  #turn = 0; // changes with every attempt and every end, so that what is awaited across one is known to be stale
  #attempt = 0; // failures since the last stable connection
  #openedAt = Infinity;
  #connectDue = 0;
  #retryDue = 0;
  #isHinted = false; // whether the server has named that time
  #isAway = false; // whether the page is frozen, or kept for the back button
  #isGreeting = false; // while handlers are told of an open connection, which may say something before all else
  #timer; // the only one: what is due is found by the clock whenever it fires, or anything else happens
  #timerDue = Infinity;
  #liveness;
  #queue = []; // {frame, room, request}
  #requests = new Map(); // id -> {event, frame, timeout, due, done, isSent, mark}: without an answer
  #rooms;
  #refreshDue = Infinity;
  #refreshTurn = 0; // the turn in which a login is being renewed
  #refreshFailures = 0;
  #lastId = 0;
  #dropped = 0;

  constructor(url, options) {
    this.#url = url;
    this.#options = {
      baseDelay: 500,
      maxDelay: 30_000,
      stableAfter: 5_000,
      connectTimeout: 30_000,
      livenessTimeout: 25_000,
      maxQueue: 100,
      joinEvent: "join",
      leaveEvent: "leave",
      protocols: [],
      ...options,
    };
    if (typeof url !== "function") resolve(url); // throws for what can never be a URL
    if (!this.#WebSocket) throw new TypeError('velocity: there is no WebSocket here: import one ("ws" for Node) and connect(url, { WebSocket })');
    this.#liveness = new Liveness(this.#options.livenessTimeout || Infinity, this.#options.maxQueue);
    this.#rooms = new Rooms({
      joinEvent: this.#options.joinEvent,
      leaveEvent: this.#options.leaveEvent,
      isOpen: () => this.#isOpen,
      isGreeting: () => this.#isGreeting,
      ask: (...args) => this.#ask(...args),
      expect: (...args) => this.#expect(...args),
      wakeAt: (due) => this.#wakeAt(due),
      flush: () => this.#flush(),
      backoff: (failures) => this.#backoff(failures),
      emit: (...args) => this.#emit(...args),
      complain: (...args) => this.#complain(...args),
    });
    this.reconnect();
  }

  get status() { return this.#status; }
  get dropped() { return this.#dropped; }
  get queued() { return this.#queue.length; }
  get rooms() { return this.#rooms.names; }
  get joined() { return this.#rooms.joined; }

  on(event, handler) {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    return () => this.off(event, handler);
  }

  off(event, handler) {
    const handlers = this.#handlers.get(event);
    if (handlers?.delete(handler) && !handlers.size) this.#handlers.delete(event);
  }

  onRequest(event, handler) {
    const entry = { handler };
    this.#answering.set(event, [...(this.#answering.get(event) ?? []), entry]);
    return () => this.#answering.set(event, this.#answering.get(event).filter((other) => other !== entry));
  }

  send(event, data, { room, volatile = false } = {}) {
    this.#look();
    return this.#sendOrQueue({ frame: JSON.stringify({ event, room, data }), room, volatile }); // undefined is left out
  }

  sendBytes(data, { volatile = false } = {}) {
    if (typeof data === "string") throw new TypeError("velocity: sendBytes is for bytes: send a text with send(event, text)");
    this.#look();
    return this.#sendOrQueue({ frame: data, volatile });
  }

  request(event, data, { timeout = ANSWER_TIMEOUT, signal, room } = {}) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      this.#look();
      if (this.#status === "closed") throw new RequestError("CLOSED", "the connection is closed");
      const abort = () => {
        reject(signal.reason); // which may be anything, null too
        request.done();
      };
      const request = this.#expect(event, data, { timeout, room }, (error, answer) => {
        signal?.removeEventListener("abort", abort);
        if (error) reject(error);
        else resolve(answer);
      });
      signal?.addEventListener("abort", abort);
      if (this.#sendOrQueue({ frame: request.frame, room, request })) return;
      request.done(new RequestError("QUEUE_FULL", "too much is waiting to be sent"));
    });
  }

  join(room, { data } = {}) {
    try {
      const copy = data === undefined ? data : JSON.parse(JSON.stringify(data)); // as it is sent again and again
      const joined = this.#rooms.join(room, copy);
      if (this.#status === "closed") this.#closeRequests();
      return joined;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  leave(room) {
    return this.#rooms.leave(room);
  }

  reconnect() {
    if (this.#status === "closed") {
      this.#attempt = 0;
      this.#listen("addEventListener");
      this.#open();
    } else if (this.#status === "waiting" && !this.#isAway) {
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
    return this.#socket?.readyState === 1;
  }

  get #WebSocket() {
    return this.#options.WebSocket ?? globalThis.WebSocket;
  }

  async #open() {
    const turn = ++this.#turn;
    this.#connectDue = now() + this.#options.connectTimeout;
    this.#wakeAt(this.#connectDue);
    this.#setStatus("connecting", { attempt: this.#attempt });
    try {
      const url = typeof this.#url === "function" ? await this.#url() : this.#url;
      const offered = this.#options.protocols;
      const protocols = typeof offered === "function" ? await offered() : offered;
      if (turn === this.#turn) this.#attach(new this.#WebSocket(resolve(url), protocols));
    } catch (error) {
      report(error);
      if (turn === this.#turn) this.#lost(1006, "there is no usable URL");
    }
  }

  #attach(socket) {
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      this.#liveness.heard(now());
      this.#receive(data);
      this.#look(); // afterwards: what has come is not late, however late the page reads it
    };
    let failing; // told to be so by an error, but not yet by a close
    // Before it was open, no server has said anything: Node 24.0 has 1002 for an attempt that was refused.
    socket.onclose = ({ code, reason }) => {
      clearTimeout(failing);
      this.#lost(this.#openedAt < Infinity ? code : 1006, reason);
    };
    // A close follows, but for an attempt in Node 20 and sometimes in WebKit; and those of "ws" throw where nobody listens.
    socket.onerror = () => {
      failing = setTimeout(() => {
        if (socket === this.#socket && this.#status === "connecting") this.#lost(1006, "there was no connection");
      });
    };
    socket.onopen = () => {
      this.#openedAt = now();
      this.#liveness.opened(this.#openedAt);
      this.#wakeAt(this.#liveness.due);
      this.#isGreeting = true;
      this.#setStatus("open", {});
      this.#isGreeting = false;
      this.#rooms.send();
    };
  }

  #detach(code, reason) {
    const socket = this.#socket;
    this.#turn++;
    this.#socket = null;
    this.#refreshDue = Infinity;
    this.#refreshFailures = 0;
    if (now() - this.#openedAt >= this.#options.stableAfter) this.#attempt = 0;
    this.#openedAt = Infinity;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null; // what it still has to say is of the past
    socket.close(code, reason); // nothing waits for the end of that, which may take minutes
  }

  #lost(code, reason, { isFailure = true, ownCode } = {}) {
    this.#detach(ownCode, ownCode && reason);
    if (!mayReconnect(code)) return this.#end(code, reason);
    for (const request of [...this.#requests.values()]) {
      if (request.isSent) request.done(new RequestError("DISCONNECTED", "the connection was lost before the answer came"));
    }
    this.#rooms.reset();
    const detail = { code, reason, ...this.#liveness.end() };
    if (!this.#isAway) {
      const usual = this.#backoff(isFailure ? this.#attempt : 0);
      const hint = COME_BACK.has(code) ? HINT.exec(reason) : null;
      // A server that sends everyone away over and over does not keep the backoff from growing.
      detail.delay = hint ? Math.max(hint[1] * 1000, this.#attempt && usual) : usual;
      this.#isHinted = hint !== null;
      if (isFailure) this.#attempt++;
      this.#retryDue = now() + detail.delay;
      this.#wakeAt(this.#retryDue);
    }
    this.#setStatus("waiting", { attempt: this.#attempt, ...detail });
  }

  #end(code, reason) {
    this.#detach();
    this.#listen("removeEventListener");
    this.#isAway = false;
    this.#dropped += this.#queue.filter(({ request }) => !request).length;
    this.#queue = [];
    this.#closeRequests();
    this.#rooms.reset();
    this.#setStatus("closed", { code, reason, ...this.#liveness.end() });
  }

  #closeRequests() {
    for (const request of [...this.#requests.values()]) request.done(new RequestError("CLOSED", "the connection is closed"));
    this.#stopTimer();
  }

  #backoff(failures) {
    const { baseDelay, maxDelay } = this.#options;
    return Math.random() * Math.min(maxDelay, baseDelay * 2 ** failures);
  }

  #setStatus(status, detail) {
    this.#status = status;
    this.#emit("status", status, { since: Date.now(), joined: this.#rooms.joined, pending: this.#rooms.pending, ...detail });
  }

  // --- the clock

  /** Look at the clock again at this time, or before. A page that is away does not. */
  #wakeAt(due) {
    if (due >= this.#timerDue || this.#isAway) return;
    this.#stopTimer();
    this.#timerDue = due;
    this.#timer = setTimeout(() => this.#wake(), Math.min(Math.max(Math.ceil(due - now()), 0), MAX_TIMER));
  }

  #stopTimer() {
    clearTimeout(this.#timer);
    this.#timerDue = Infinity;
  }

  /** Do what is due while the page is busy anyway: timers of a hidden one run once a minute. */
  #look() {
    if (now() >= this.#timerDue) this.#wake();
  }

  #wake() {
    this.#stopTimer();
    const time = now();
    for (const request of [...this.#requests.values()]) {
      if (time >= request.due) this.#expire(request);
      else this.#wakeAt(request.due);
    }
    if (this.#status === "connecting") {
      // A browser may not even have begun with it: it waits for other tabs, or because attempts have failed before.
      if (time >= this.#connectDue) this.#lost(1006, "connecting took too long", { isFailure: false });
      else this.#wakeAt(this.#connectDue);
    } else if (this.#status === "waiting") {
      if (time >= this.#retryDue) this.#open();
      else this.#wakeAt(this.#retryDue);
    } else if (this.#status === "open") {
      this.#judge();
      this.#rooms.send();
      if (now() >= this.#refreshDue) this.#refresh();
      else this.#wakeAt(this.#refreshDue);
    }
  }

  #expire(request) {
    if (request.isSent) this.#check(); // perhaps it is not the answer that takes too long
    request.done(new RequestError("TIMEOUT", `no answer to "${request.event}" within ${request.timeout} ms`));
  }

  /** Find out now whether the connection lives. */
  #check() {
    if (this.#status !== "open" || this.#liveness.isOff) return;
    if (this.#liveness.isPinged) this.#judge();
    else this.#ping();
  }

  #judge() {
    const verdict = this.#liveness.judge(now());
    if (verdict === "lost") return this.#lost(1006, "the server gave no sign of life");
    if (verdict === "ping") this.#ping();
    this.#wakeAt(this.#liveness.due);
  }

  #ping() {
    if (this.#isOpen) this.#socket.send(JSON.stringify({ event: "$ping", data: { v: protocol } }));
    this.#liveness.pinged(now());
    this.#wakeAt(this.#liveness.due);
  }

  #ponged(theirs) {
    this.#liveness.ponged();
    if (!(theirs > protocol) || hasWarned) return;
    hasWarned = true;
    console.warn(`velocity: the server speaks protocol ${theirs}, and this velocity.js ${version} protocol ${protocol}: load the page again, or update the package`);
  }

  // --- the life of a page

  #listen(method) {
    for (const event of ["online", "pageshow", "pagehide"]) globalThis[method]?.(event, this.#onPageEvent);
    for (const event of ["freeze", "resume", "visibilitychange"]) globalThis.document?.[method](event, this.#onPageEvent);
  }

  // A frozen page, or one kept for the back button, loses what is sent to it, while its browser answers all pings.
  #onPageEvent = ({ type, persisted }) => {
    if (type === "freeze" || (type === "pagehide" && persisted)) return this.#leavePage();
    if (type === "visibilitychange" && globalThis.document.visibilityState !== "visible") return;
    if ((type === "online" && this.#isAway) || (type.startsWith("page") && !persisted)) return;
    this.#isAway = false;
    const isAsked = type === "visibilitychange" && this.#isHinted; // to wait, and then it does
    if (this.#status === "waiting" && !isAsked) this.#open();
    this.#check();
    this.#wake();
  };

  #leavePage() {
    if (this.#isAway) return;
    this.#isAway = true;
    this.#stopTimer();
    this.#isHinted = false;
    if (this.#status === "waiting") this.#retryDue = 0; // when it returns
    else this.#lost(PAGE_FROZEN, "the page was left", { isFailure: false, ownCode: PAGE_FROZEN });
  }

  // --- sending

  #sendOrQueue(item) {
    const { room, request, volatile } = item;
    const isHeld = !(this.#isGreeting && room === undefined) && this.#rooms.holds(room);
    if (this.#isOpen && !isHeld) {
      this.#transmit(item);
    } else if (volatile) {
      return false;
    } else if (this.#status !== "closed" && this.#queue.length < this.#options.maxQueue) {
      if (typeof item.frame !== "string") item.frame = copyOf(item.frame);
      this.#queue.push(item);
    } else {
      if (!request) this.#dropped++; // a request's promise tells its own loss
      return false;
    }
    return true;
  }

  #transmit({ frame, request, volatile }) {
    this.#socket.send(frame);
    if (request) {
      request.isSent = true;
      request.mark = this.#liveness.mark;
    } else if (!volatile) {
      this.#liveness.sent(frame, now());
      this.#wakeAt(this.#liveness.due);
    }
  }

  /** Send what was queued, but for what still has to wait for its room. */
  #flush() {
    if (!this.#queue.length || !this.#isOpen) return;
    const queue = this.#queue;
    this.#queue = [];
    for (const item of queue) {
      try {
        if (this.#isOpen && !this.#rooms.holds(item.room)) this.#transmit(item);
        else this.#queue.push(item);
      } catch (error) {
        this.#dropped++; // what the socket does not take costs nothing else
        report(error);
      }
    }
  }

  /** Have a function called once, with an answer, or with an error: that of the server, or that there is no answer. */
  #expect(event, data, { timeout = ANSWER_TIMEOUT, room }, done) {
    const id = ++this.#lastId;
    const frame = JSON.stringify({ event, room, data, id });
    const request = { event, frame, timeout, due: now() + timeout, isSent: false, mark: 0 };
    request.done = (...outcome) => {
      if (!this.#requests.delete(id)) return;
      if (!request.isSent) this.#queue = this.#queue.filter((item) => item.request !== request);
      done(...outcome);
    };
    this.#requests.set(id, request);
    this.#wakeAt(request.due);
    return request;
  }

  /** Ask something at once, before what is queued. */
  #ask(event, data, options, done) {
    const request = this.#expect(event, data, options, done);
    this.#transmit({ frame: request.frame, request });
    return request;
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
    if (event === "$pong") return this.#ponged(data);
    if (id != null && ANSWERS.has(event)) return this.#settle(this.#requests.get(id), event, data);
    if (id != null) this.#answer(message).catch(report);
    if (event === "left" && data?.reason) this.#rooms.putOut(data.room, data.reason);
    if (event === "session") this.#refreshAt(now() + 800 * (data?.expires_in ?? Infinity));
    if (event === "session_expired") this.#refreshAt(0);
    // A join that was no request is answered with `joined`; without a room that is an event of the application.
    const told = event === "joined" && typeof data?.room === "string" ? [data.room, data] : [data, message];
    const heard = (RESERVED.has(event) ? 0 : this.#emit(event, ...told)) + this.#emit("*", event, data, message);
    if (!heard && (event === "error" || RESERVED.has(event))) console.warn(`velocity: nobody heard "${event}":`, data);
  }

  #settle(request, event, data) {
    if (!request) return; // it timed out, and its caller knows
    this.#liveness.proved(request.mark);
    if (event === "reply") return request.done(null, data);
    const code = event === "error" ? data?.code : "RATE_LIMITED";
    request.done(new RequestError(code, data?.message, data ?? {}));
  }

  /** Answer a question of the server. */
  async #answer(message) {
    const { event, id, data = null } = message;
    const socket = this.#socket;
    const handler = this.#answering.get(event)?.at(-1)?.handler;
    let answer;
    try {
      if (!handler) throw new RequestError("UNKNOWN_EVENT", `this page does not answer "${event}"`);
      answer = JSON.stringify({ event: "reply", id, data: (await handler(data, message)) ?? null });
    } catch (error) {
      const code = typeof error?.code === "string" ? error.code : "";
      if (!code) report(error);
      const said = { ...(error instanceof RequestError && error.data), code: code || "INTERNAL_ERROR", message: String(error?.message ?? error) };
      answer = JSON.stringify({ event: "error", id, data: said });
    }
    if (socket === this.#socket && this.#isOpen) socket.send(answer);
  }

  #refreshAt(due) {
    if (!this.#options.refresh) return;
    this.#refreshDue = due;
    this.#refreshFailures = 0;
    if (due) this.#wakeAt(due);
    else this.#refresh();
  }

  async #refresh() {
    const turn = this.#turn;
    this.#refreshDue = Infinity;
    if (this.#refreshTurn === turn) return;
    this.#refreshTurn = turn;
    let failure = null;
    try {
      const data = await this.#options.refresh();
      if (turn === this.#turn) await new Promise((resolve) => this.#ask("refresh", data, {}, (error) => resolve((failure = error))));
    } catch (error) {
      report(error);
      failure = new RequestError("TIMEOUT");
    }
    if (turn !== this.#turn) return;
    this.#refreshTurn = 0;
    if (failure?.data) this.#complain({ ...failure.data, code: failure.code });
    if (!FAILURES.has(failure?.code)) return;
    this.#refreshDue = now() + Math.max(this.#backoff(this.#refreshFailures++), 1000 * (failure.retryAfter ?? 0));
    this.#wakeAt(this.#refreshDue);
  }

  /** Tell of what has no promise to tell it. */
  #complain(data, heard = 0) {
    if (!this.#emit("error", data) && !heard) console.warn('velocity: nobody heard "error":', data);
  }

  #emit(event, ...args) {
    const present = this.#handlers.get(event);
    const handlers = [...(present ?? [])];
    for (const handler of handlers) {
      if (!present.has(handler)) continue; // one before it has taken it off
      try {
        handler(...args);
      } catch (error) {
        report(error);
      }
    }
    return handlers.length;
  }
}

/** Whether the server has not looked at a request, as there were too many; an application's own 429 says no time. */
function isTooMuch(error) {
  return error?.code === "RATE_LIMITED" && error.retryAfter !== undefined;
}

function resolve(url) {
  const own = import.meta.url;
  const absolute = url == null && !SERVED_AS.test(own?.split("?")[0]) ? null : new URL(url ?? new URL(".", own), globalThis.location?.href);
  if (absolute) absolute.protocol = absolute.protocol.replace("http", "ws");
  if (!absolute || (url == null && !absolute.protocol.startsWith("ws"))) {
    throw new TypeError('velocity: this module does not come from the server: say where that is, as in connect("/ws")');
  }
  absolute.hash = "";
  return absolute.href;
}

function copyOf(data) {
  if (!ArrayBuffer.isView(data)) return data.slice(0); // an ArrayBuffer, or a Blob
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice(); // of shared memory, too
}

function report(error) {
  (globalThis.reportError ?? console.error)(error);
}
