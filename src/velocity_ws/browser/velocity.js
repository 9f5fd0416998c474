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
const GIVEN = 10_000; // rooms, of which the server may have left some without a word
const HELD_MESSAGES = 1_000; // of one room, while they wait for its state
const HELD_SIZE = 2 ** 20; // characters of these
const RESUMED_SIZE = 100_000; // characters of the positions that are told at once: a server bounds what it takes
const WINDOW = 8; // joins and leaves without an answer: enough to hide the way there, few enough to be refused at once
const ANSWER_TIMEOUT = 10_000;
const READ_DELAY = 200; // after the answer to a join: the streams that it brings come by themselves
const KEPT_SIZE = 2 ** 20; // characters of the streams that have ended and that nobody uses
const KNOWN = 1_000; // streams of which more is not kept than how long they are
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

/**
 * A room that the page wants to be in, or that the server has put it into: up to where its messages have come, and what
 * is held back of them, as a state is to be loaded before, or others are that the server has dropped.
 */
class Room {
  uses = 0; // by the page; 0 where only the server has put it into the room
  data;
  isIn = false; // whether the page's join was answered on this connection
  wasIn = false;
  answer;
  isAsked = false;
  request = null;
  waiter = null;
  due = 0;
  failures = 0;
  failure;
  at; // the position of the last message that has come
  isRefused = false; // whether who answers joins takes that for no position
  isGiven = false; // whether the server has put it into the room by itself
  isConfirmed = false; // whether it has done so on this connection
  missing = null; // {to, count, items}: what the server has dropped up to a position, and `count` of it is still to come
  #link;
  #held = null; // {message, size}: what waits, in order
  #heldSize = 0;
  #states = []; // {load, isDue, settle}: `settle` while a join waits for it
  #isLoading = false;
  #loadedAt = null; // while who waited for that gets to hear it, before what is held back is told
  #loadDue = 0;
  #loadFailures = 0;
  #isOver = false;

  constructor(name, link) {
    this.name = name;
    this.#link = link;
  }

  get isFull() { return this.#held !== null && (this.#held.length > HELD_MESSAGES || this.#heldSize > HELD_SIZE); }
  get #isDue() { return this.#states.some(({ isDue }) => isDue); }
  get #lastHeld() { return this.#held?.findLast(({ message }) => message.at !== undefined)?.message.at; }

  /** Whether a message is to be told now; if not, it was told before, or is held back. */
  takes(message, size) {
    const { at } = message;
    if (at !== undefined && at === this.at) return false;
    if (this.missing?.count) {
      this.missing.items.push({ message, size });
      if (!--this.missing.count) this.#complete();
      return false;
    }
    if (at !== undefined && !this.missing && (this.isIn || this.isGiven)) this.at = at;
    if (!this.#held) return true;
    this.#hold({ message, size });
    return false;
  }

  /** Go on from where an answer says; why something is lost between here and there, or null. */
  goOn(answer) {
    const { at, recovered, reason } = answer ?? {};
    const isElsewhere = this.at !== undefined && at !== undefined && at !== this.at;
    if (typeof at === "string") this.at = at;
    this.isRefused = false;
    if (recovered === false) return reason;
    return isElsewhere && recovered !== true ? "expired" : null; // what it missed was not asked for in time
  }

  /** It is not in the room for now: what comes when it is again goes on from the position. */
  out() {
    this.isIn = this.isConfirmed = false;
    if (this.missing) this.missing = this.#held = null; // that is the one before what was dropped
  }

  end() {
    this.#isOver = true;
    this.#held = this.missing = null;
    this.#forget(this.#states.splice(0));
  }

  /** Hold back what comes until what was dropped between two positions has come; null where that cannot be. */
  wait(from, to) {
    if (this.#held || !from) return null;
    this.at = from;
    this.#holdAll([]);
    return (this.missing = { to, count: 0, items: [] });
  }

  /** So many of the next messages are what was dropped. */
  comes(count) {
    this.missing.count = count;
    if (!count) this.#complete();
  }

  /** Something is lost; what is held back is told behind that, or is in the state, where there is one. */
  lose(at) {
    this.at = at ?? this.#lastHeld ?? this.missing?.to ?? this.at;
    this.missing = null;
    this.reload();
  }

  /** Have a state loaded now, and again when something is lost; the promise of the first time, and what gives it up. */
  follow(load) {
    const state = { load, isDue: true };
    this.#states.push(state);
    const loaded = new Promise((resolve, reject) => {
      state.settle = (error) => {
        state.settle = null;
        if (error === undefined) resolve();
        else reject(error);
      };
    });
    loaded.catch(() => {}); // where the join itself has failed
    return { loaded, forgo: () => (state.settle = null) };
  }

  /** Forget the state of a use that has ended; of an unknown one, the newest. */
  unfollow(load) {
    const index = this.#states.findIndex((state) => state.load === load);
    if (index >= 0) this.#forget(this.#states.splice(index, 1));
    this.#forget(this.#states.splice(this.uses));
    this.settle();
  }

  /** Hold back what comes from now on until all states have been loaded anew, which have what was held back before. */
  reload() {
    if (!this.#states.length) return;
    this.#loadedAt = null;
    for (const state of this.#states) state.isDue = true;
    this.#holdAll([]);
  }

  /** Hold back what comes from now on, if a state is to be loaded before. */
  hold() {
    if (!this.#held && this.#isDue) this.#holdAll([]);
  }

  /** Load the states that are due, and tell what was held back; when to look again. */
  load(time) {
    if (this.#loadedAt !== null) {
      if (time < this.#loadedAt + 1) return this.#loadedAt + 1;
      this.#loadedAt = null;
      this.settle();
    }
    if (!this.isIn || this.#isLoading || !this.#isDue) return Infinity;
    if (time < this.#loadDue) return this.#loadDue;
    this.#isLoading = true;
    const calls = this.#states.filter(({ isDue }) => isDue).map((state) => this.#call(state));
    Promise.all(calls).then((ends) => {
      this.#isLoading = false;
      this.#loadDue = ends.includes("failed") ? now() + this.#link.backoff(this.#loadFailures++) : (this.#loadFailures = 0);
      this.settle();
      this.#link.again();
    });
    return Infinity;
  }

  /** Tell what was held back, if there is nothing more to wait for. */
  settle() {
    if (this.missing || this.#isLoading || this.#isDue || this.#loadedAt !== null) return;
    const joins = this.#states.filter(({ settle }) => settle);
    for (const { settle } of joins) settle();
    if (joins.length) this.#loadedAt = now(); // their callers may only now say who is to be told
    else this.#release();
  }

  // --- inside

  #release() {
    const held = this.#held ?? [];
    this.at = this.#lastHeld ?? this.at;
    this.#held = null;
    for (const item of held) {
      if (this.#isOver) return;
      if (this.#held) this.#hold(item); // as a handler has asked for a state
      else this.#link.tell(item.message);
    }
  }

  #holdAll(items) {
    this.#held = [];
    this.#heldSize = 0;
    for (const item of items) this.#hold(item);
  }

  #hold(item) {
    this.#held.push(item);
    this.#heldSize += item.size;
  }

  #complete() {
    const { items, to } = this.missing;
    const again = new Set(items.map(({ message }) => message.at));
    this.#holdAll([...items, ...this.#held.filter(({ message }) => !again.has(message.at))]);
    this.missing = null;
    this.at = to ?? this.at;
    this.settle();
  }

  async #call(state) {
    state.isDue = false;
    try {
      await state.load();
    } catch (error) {
      if (state.settle) return this.#fail(state, error);
      report(error);
      state.isDue = true;
      return "failed";
    }
  }

  /** The first time has failed: then the join has. */
  #fail(state, error) {
    this.#states = this.#states.filter((other) => other !== state);
    state.settle(error);
    this.#link.leave(this.name);
  }

  #forget(states) {
    for (const { settle } of states) settle?.(new RequestError("ABORTED", "left before its state was loaded"));
  }
}

/** The rooms of the page and of the server, and what was said about each on the present connection. */
class Rooms {
  #link;
  hasHistory = false; // whether some room has: only a server that knows of positions sends any
  #rooms = new Map(); // name -> Room
  #leaves = new Map(); // name -> {room, promise, finish}: still to be sent
  #leaving = new Set(); // names of the rooms of which leaves are sent, and not answered
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
    this.#link = { ...link, again: () => this.send(), leave: (name) => this.leave(name) };
  }

  get names() { return this.#wanted.map(({ name }) => name); }
  get joined() { return this.#wanted.filter(({ isIn }) => isIn).map(({ name }) => name); }
  get pending() { return this.#wanted.filter(({ isIn }) => !isIn).map(({ name }) => name); }
  get #wanted() { return [...this.#rooms.values()].filter(({ uses }) => uses); }

  /**
   * Where it stands, the latest first. In rooms of the page, too: the server may put it into any of them as it connects,
   * and who joins a room that it is in gets nothing of what it missed.
   */
  get positions() {
    const positions = {};
    let size = 0;
    for (const { name, at } of [...this.#rooms.values()].reverse()) {
      if (at && (size += name.length + at.length) < RESUMED_SIZE) positions[name] = at;
    }
    return positions;
  }

  /** Whether a message, to this room or to none, has to wait until rooms are joined again. */
  holds(name) {
    if (name === undefined) return this.#isBehind && !this.#interval;
    const room = this.#rooms.get(name);
    return !!room?.uses && !room.isIn;
  }

  /** Whether it is known to be in a room. */
  isIn(name) {
    const room = this.#rooms.get(name);
    return !!room && (room.isIn || room.isConfirmed);
  }

  /** Whether what comes was said before the server has heard that the page has left. */
  isLeaving(name) {
    return this.#leaves.has(name) || this.#leaving.has(name);
  }

  join(name, { data, state } = {}) {
    const room = this.#room(name);
    if (!room.uses++) {
      this.#leaves.get(name)?.finish(null);
      this.#leaves.delete(name);
    }
    if (data !== undefined) room.data = data;
    const joined = room.isIn ? Promise.resolve(room.answer) : (room.waiter ??= this.#waiter(room)).promise;
    const followed = state ? this.#follow(room, state, joined) : joined;
    this.send();
    return followed;
  }

  leave(name, { state } = {}) {
    const room = this.#rooms.get(name);
    if (room?.uses > 1) {
      room.uses--;
      room.unfollow(state);
      this.send();
      return Promise.resolve(null);
    }
    this.#out(name);
    room?.waiter?.promise.catch(() => {}); // nobody has to hear any more that it was refused
    if (!room?.request) room?.waiter?.done(new RequestError("ABORTED", "left before it was joined"));
    if (!this.#link.isOpen()) return Promise.resolve(null); // who is not connected is in no room
    let leave = this.#leaves.get(name);
    if (!leave) {
      leave = { room: name };
      leave.promise = new Promise((resolve, reject) => {
        leave.finish = resolve;
        leave.fail = reject;
      });
      leave.promise.catch(() => {}); // where nobody waits for it
      this.#leaves.set(name, leave);
    }
    this.send();
    return leave.promise;
  }

  /** There is another connection, or none: what was said about rooms is of the past. */
  reset(wasStable) {
    for (const leave of this.#leaves.values()) leave.finish(null);
    this.#leaves.clear();
    this.#leaving.clear();
    for (const room of this.#rooms.values()) {
      if (wasStable && !room.isConfirmed) room.isGiven = false; // the server has put it into others now
      room.out();
      room.isAsked = false;
      room.due = room.failures = 0;
      if (!room.uses && !room.isGiven) this.#out(room.name);
    }
    this.#isBehind = this.#wanted.length > 0;
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
    for (const room of this.#wanted) {
      due = Math.min(due, room.load(time));
      if (room.isIn || room.request || !room.uses) continue;
      if (room.due > time) due = Math.min(due, room.due);
      else if (!asks(() => this.#askToJoin(room))) this.#isBehind ||= !room.isAsked;
    }
    if (this.#link.isOpen()) this.#link.wakeAt(due);
    this.#link.flush();
  }

  // --- what the server says

  /** It is in a room without having asked by a request; why something is lost there, or null. */
  told(name, answer) {
    if (answer.at === undefined) return null; // a room without history
    if (this.isLeaving(name)) return null;
    const room = this.#room(name);
    this.#rooms.delete(name);
    this.#rooms.set(name, room); // the latest is the last
    if (this.#rooms.size > GIVEN) this.#rooms.delete([...this.#rooms.values()].find(({ uses }) => !uses)?.name);
    room.isGiven = room.isConfirmed = true;
    this.#link.joined(name);
    return room.goOn(answer);
  }

  left(name, reason) {
    const room = this.#rooms.get(name);
    const error = reason && new RequestError(reason, `put out of "${name}"`);
    if (!room?.uses) return this.#out(name, error);
    if (!reason || !room.isIn) return; // what is asked for has an answer of its own
    room.out();
    if (FAILURES.has(reason)) this.#later(room);
    else this.#out(name, error);
    this.send();
  }

  /** Whether a message of a room is to be told now. */
  takes(message, size) {
    this.hasHistory ||= message.at !== undefined;
    const room = this.#rooms.get(message.room);
    if (!room || room.takes(message, size)) return true;
    if (room.isFull) this.lose(room.name, room.missing ? "dropped" : "too_many");
    return false;
  }

  /** Messages of a room are missing. Those that the server has dropped for this client can be had, if asked for at once. */
  gap({ room: name, reason, from, at }) {
    if (typeof name !== "string" || !reason) return; // of what has no history
    const room = this.#rooms.get(name);
    const missing = reason === "dropped" ? room?.wait(from, at) : null;
    if (!missing) return this.lose(name, reason, at);
    this.#askToBeIn(room, from, (error, answer) => {
      if (room.missing !== missing || error?.code === "DISCONNECTED" || error?.code === "CLOSED") return;
      if (answer?.recovered !== true) return this.lose(name, answer?.reason ?? reason, answer?.at);
      this.#link.emit("joined", name, answer);
      room.comes(answer.missed);
    });
  }

  lose(name, reason, at) {
    const room = this.#rooms.get(name);
    room?.lose(at);
    this.#link.emit("resync", name, reason);
    room?.settle();
    this.send();
  }

  // --- inside

  #room(name) {
    const room = this.#rooms.get(name) ?? new Room(name, this.#link);
    this.#rooms.set(name, room);
    return room;
  }

  /** The page is not in a room any more, for which there may be an error. */
  #out(name, error) {
    const room = this.#rooms.get(name);
    if (room) {
      room.uses = 0;
      room.end();
      this.#rooms.delete(name);
    }
    this.#link.left(name, error);
  }

  /** The promise of a join that waits for a state, too. */
  #follow(room, load, joined) {
    const { loaded, forgo } = room.follow(load);
    if (room.isIn) room.hold();
    const fail = (error) => {
      if (error instanceof RequestError && !error.data) followed.catch(() => {}); // nobody has to hear it
      throw error;
    };
    const followed = joined.then(
      (answer) => loaded.then(() => answer, fail),
      (error) => (forgo(), fail(error)),
    );
    return followed;
  }

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
    this.#leaving.add(leave.room);
    this.#ask(this.#link.leaveEvent, { room: leave.room }, (error, answer) => {
      this.#leaving.delete(leave.room);
      if (!error) leave.finish(answer);
      else if (error.code === "DISCONNECTED" || error.code === "CLOSED" || this.#rooms.get(leave.room)?.uses) leave.finish(null);
      else if (isTooMuch(error)) this.#leaves.set(leave.room, leave);
      else leave.fail(error);
    });
  }

  #askToBeIn({ name, data }, since, done) {
    return this.#ask(this.#link.joinEvent, { room: name, since, data, streams: this.#link.streams(name) }, done);
  }

  #askToJoin(room) {
    const { name } = room;
    const isThere = room.isConfirmed; // the server has said so, and it has got all since
    const since = isThere || room.isRefused ? undefined : room.at;
    room.isAsked = true;
    room.request = this.#askToBeIn(room, since, (error, answer) => {
      room.request = null;
      if (this.#rooms.get(name) !== room || !room.uses) room.waiter?.done(error, answer); // it was left meanwhile
      else if (!error) this.#joined(room, answer, isThere);
      else if (isTooMuch(error)) return; // it goes on when there is room
      else if (FAILURES.has(error.code)) this.#later(room, error);
      else if (since && error.code === "INVALID_DATA") room.isRefused = true; // and it is asked without
      else if (error.data) this.#refused(room, error);
    });
  }

  #joined(room, answer, isThere) {
    const lost = isThere ? null : room.goOn(answer);
    room.isIn = room.wasIn = true;
    room.failures = 0;
    room.answer = answer;
    if (isThere || answer?.recovered === true) room.hold();
    else room.reload();
    room.waiter?.done(null, answer);
    this.#link.joined(room.name);
    this.#link.flush(); // before what is said now that it is joined
    this.#link.emit("joined", room.name, answer);
    if (lost && this.#rooms.get(room.name) === room) this.lose(room.name, lost, room.at);
  }

  /** The server could not decide whether it may be in a room: on this connection, ask again after a while. */
  #later(room, error) {
    room.failure = error;
    room.due = now() + Math.max(this.#link.backoff(room.failures++), 1000 * (error?.retryAfter ?? 0));
  }

  #refused(room, error) {
    const { name, waiter } = room;
    this.#out(name, error);
    waiter?.done(error);
    if (waiter && !room.wasIn) return;
    const data = { room: name, reason: error.code };
    const heard = this.#link.emit("left", data, { event: "left", data });
    this.#link.complain({ ...error.data, code: error.code, room: name }, heard);
  }

  /** The promise of the joins that wait for an answer; only a refusal has to be heard by somebody. */
  #waiter(room) {
    const waiter = {};
    waiter.promise = new Promise((resolve, reject) => {
      const told = (error, answer) => {
        room.waiter = null;
        if (!error) return resolve(answer);
        if (!error.data) waiter.promise.catch(() => {});
        if (error.code === "TIMEOUT" && room.failure?.data) error.message += `, but: ${room.failure.message}`;
        reject(error);
      };
      waiter.done = this.#link.expect(this.#link.joinEvent, undefined, {}, told).done;
    });
    return waiter;
  }
}

/** What the page has of a stream. */
class Course {
  text = "";
  items = [];
  count = 0; // of the characters of the text, which are code points, or of the items
  end = null;
  error; // why nothing more of it comes, for now
  size = 0;
  users = new Set(); // functions that are called when something has changed
  last = {}; // the last part: each has the next one, so that those are let go that nobody reads any more
  isSeen = false; // whether anything of it has come
  isLive = false; // whether it comes on the present connection
  isAsked = false;
  due = Infinity; // when it is to be read
  failures = 0;

  constructor(id, room) {
    this.id = id;
    this.room = room;
  }

  add({ text = "", items = [] }) {
    this.text += text;
    for (const item of items) this.items.push(item);
    for (const part of text ? [text] : items) this.last = this.last.next = { part };
  }

  tell() {
    for (const user of [...this.users]) {
      try {
        user();
      } catch (error) {
        report(error);
      }
    }
  }

  fail(error) {
    this.error = error;
    this.due = Infinity;
    this.tell();
  }
}

/** The streams that the page has heard of, or waits for. */
class Streams {
  #link;
  #courses = new Map(); // id -> Course, in the order in which they were heard of
  #known = new Map(); // id -> {room, count}: of those that have ended, and that are not kept
  #joinedAt = 0;
  isUsed = false; // whether the server has any

  constructor(link) {
    this.#link = link;
  }

  get(id) { return this.#courses.get(id); }

  /** Those of a room, or all, of which something has come. */
  list(room) {
    return [...this.#courses.values()].filter((course) => course.isSeen && (room == null || course.room === room));
  }

  /** How much the page has of those of a room, or of all; the latest first. */
  positions(room) {
    const positions = {};
    let size = 0;
    for (const [id, { room: own, count }] of [...this.#known, ...this.#courses].reverse()) {
      if (own === undefined || (room !== undefined && own !== room)) continue;
      if ((size += id.length + 10) < RESUMED_SIZE) positions[id] = count;
    }
    return size ? positions : undefined;
  }

  /** Have a function called when something of a stream has come, or nothing more can: the stream. */
  use(id, room, user) {
    const course = this.#course(id, room);
    const error = this.#link.isClosed() ? closed() : undefined;
    if (course.error?.code !== error?.code) course.fail(error);
    course.users.add(user);
    if (!course.isLive) this.#readAt(course, Math.max(now(), this.#joinedAt + READ_DELAY));
    return course;
  }

  unuse(course, user) {
    if (!course.users.delete(user) || course.users.size) return;
    if (!course.isSeen || course.error) this.#delete(course);
    this.#trim();
  }

  // --- what happens to the connection

  /** It is open, or, with a name, that room is joined: streams of which nothing comes now are read after a while. */
  goOn(room) {
    this.#joinedAt = now();
    for (const course of this.#courses.values()) {
      if (course.end || course.isLive || !course.users.size || (room !== undefined && course.room !== room)) continue;
      if (course.error) course.fail(undefined);
      this.#readAt(course, this.#joinedAt + READ_DELAY);
    }
  }

  /** It is lost. */
  reset() {
    for (const course of this.#courses.values()) {
      course.isLive = false;
      course.due = Infinity;
    }
  }

  close() {
    for (const course of this.#courses.values()) if (!course.end && course.users.size) course.fail(closed());
  }

  /** The page is not in a room any more. */
  left(room, error = new RequestError("ABORTED", `not in "${room}" any more`)) {
    for (const course of [...this.#courses.values()]) {
      if (course.end || course.room !== room) continue;
      course.isLive = false;
      if (course.users.size) course.fail(error);
      else this.#delete(course);
    }
  }

  /** Read what is due. */
  send() {
    const time = now();
    for (const course of this.#link.isOpen() ? this.#courses.values() : []) {
      if (course.isAsked || this.#link.holds(course.room)) continue;
      if (course.due <= time) this.#read(course);
      else this.#link.wakeAt(course.due);
    }
  }

  // --- what comes

  /** The piece of a stream that the page does not have yet, where one has come. */
  take(room, { id, from, text = "", items, end = null }, size) {
    this.isUsed = true;
    if (!this.#courses.has(id) && this.#known.has(id)) return null;
    const course = this.#course(id);
    if (course.end) return null;
    const { count, isSeen } = course;
    course.room = room;
    course.isSeen = true;
    if (from > count) return this.#missing(course);
    course.isLive = true;
    course.due = Infinity;
    course.failures = 0;
    course.error = undefined;
    const whole = items ?? [...text];
    const isNews = from + whole.length - count || end || !isSeen;
    if (from + whole.length < count || !isNews) return null; // it came before
    const rest = whole.slice(count - from);
    const said = items ? { items: rest } : { text: from < count ? rest.join("") : text };
    course.count += rest.length;
    course.size += size;
    course.end = end;
    course.add(said);
    course.tell();
    if (end) this.#trim();
    return { id, from: count, ...said, ...(end && { end }) };
  }

  // --- inside

  #course(id, room) {
    const course = this.#courses.get(id) ?? new Course(id, this.#known.get(id)?.room);
    course.room ??= room;
    this.#known.delete(id);
    this.#courses.set(id, course);
    return course;
  }

  #delete(course) {
    if (this.#courses.get(course.id) === course) this.#courses.delete(course.id);
  }

  /** Let go of streams that have ended and that nobody uses, the oldest first, where they are too much. */
  #trim() {
    const ended = [...this.#courses.values()].filter((course) => course.end && !course.users.size);
    let size = ended.reduce((sum, course) => sum + course.size, 0);
    for (const course of ended) {
      if (size <= KEPT_SIZE) return;
      size -= course.size;
      this.#delete(course);
      this.#known.set(course.id, { room: course.room, count: course.count });
      if (this.#known.size > KNOWN) this.#known.delete(this.#known.keys().next().value);
    }
  }

  #readAt(course, due) {
    if (course.room === undefined) return; // it is found where it comes
    course.due = due;
    if (this.#link.isOpen()) this.#link.wakeAt(due);
  }

  /** Something lies between what the page has and what has come. */
  #missing(course) {
    if (course.isAsked || course.due < Infinity) return null; // that is on its way, or will be
    this.#readAt(course, now() + (course.failures ? this.#link.backoff(course.failures) : 0));
    course.failures++; // until something comes that goes on
    this.send();
    return null;
  }

  #read(course) {
    const { id, room, count } = course;
    course.due = Infinity;
    course.isAsked = true;
    this.#link.ask("stream_read", { id, from: count }, { room }, (error) => {
      course.isAsked = false;
      if (!error) course.isLive = true;
      else if (FAILURES.has(error.code)) {
        this.#readAt(course, now() + Math.max(this.#link.backoff(course.failures++), 1000 * (error.retryAfter ?? 0)));
      } else if (error.code === "NOT_FOUND" && !course.count && this.#link.isIn(room)) return; // it has not begun
      else if (error.data && !course.end) course.fail(error);
    });
  }
}

/** A stream as a page reads it. */
class Stream {
  #streams;
  #link;
  #room;
  #known;

  constructor(id, room, streams, link) {
    this.id = id;
    this.#room = room;
    this.#streams = streams;
    this.#link = link;
    this.#known = streams.get(id);
  }

  get room() { return this.#course.room ?? this.#room; }
  get text() { return this.#course.text; }
  get items() { return this.#course.items; }
  get end() { return this.#course.end; }
  get error() { return this.#course.error; }

  /** What has ended stays as it was here, whatever is let go and read again elsewhere. */
  get #course() {
    if (!this.#known?.end) this.#known = this.#streams.get(this.id) ?? this.#known;
    return this.#known ?? new Course();
  }

  #use(user) {
    return this.end ? this.#known : (this.#known = this.#streams.use(this.id, this.#room, user));
  }

  onChange(handler) {
    const user = () => handler();
    const course = this.#use(user);
    return () => this.#streams.unuse(course, user);
  }

  async cancel() {
    if (this.end) return null;
    const { id, room } = this;
    if (room === undefined) throw new RequestError("NOT_FOUND", `it is not known in which room "${id}" is: give { room }`);
    return this.#link.request("stream_cancel", { id }, { room });
  }

  async *[Symbol.asyncIterator]() {
    let wake;
    const user = () => wake?.();
    const course = this.#use(user);
    try {
      let { last } = course;
      yield* course.text ? [course.text] : [...course.items];
      for (;;) {
        while (last.next) yield (last = last.next).part;
        if (course.end) return;
        if (course.error) throw course.error;
        await new Promise((resolve) => (wake = resolve));
      }
    } finally {
      this.#streams.unuse(course, user);
    }
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
  #link;
  #rooms;
  #streams;
  #token; // of the session, once a server that has history has given one
  #newToken; // that of the present connection, until it has the one before
  #isResuming = false;
  #isSilent = true; // whether nothing was sent on the present connection
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
    this.#link = {
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
      tell: (message) => this.#tell(message),
      complain: (...args) => this.#complain(...args),
      isClosed: () => this.#status === "closed",
      request: (...args) => this.request(...args),
      holds: (room) => this.#rooms.holds(room),
      isIn: (room) => this.#rooms.isIn(room),
      streams: (room) => this.#streams.positions(room),
      joined: (room) => this.#streams.goOn(room),
      left: (room, error) => this.#streams.left(room, error),
    };
    this.#rooms = new Rooms(this.#link);
    this.#streams = new Streams(this.#link);
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
      if (this.#status === "closed") throw closed();
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

  join(room, { data, state } = {}) {
    try {
      const copy = data === undefined ? data : JSON.parse(JSON.stringify(data)); // as it is sent again and again
      const joined = this.#rooms.join(room, { data: copy, state });
      if (this.#status === "closed") this.#closeRequests();
      return joined;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  leave(room, options) {
    return this.#rooms.leave(room, options);
  }

  stream(id, { room } = {}) {
    return new Stream(id, room, this.#streams, this.#link);
  }

  streams(room) {
    return this.#streams.list(room).map(({ id }) => this.stream(id));
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
      if (turn === this.#turn) this.#attach(new this.#WebSocket(announced(resolve(url)), protocols));
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
      this.#isSilent = true;
      this.#isResuming = false;
      if (this.#token !== undefined || this.#rooms.hasHistory || this.#streams.isUsed) this.#resume(); // before all else, as anything lets go what the server holds back
      this.#isGreeting = true;
      this.#setStatus("open", {});
      this.#isGreeting = false;
      this.#rooms.send();
      this.#streams.goOn();
    };
  }

  #detach(code, reason) {
    const socket = this.#socket;
    const wasStable = now() - this.#openedAt >= this.#options.stableAfter;
    this.#turn++;
    this.#socket = null;
    this.#refreshDue = Infinity;
    this.#refreshFailures = 0;
    if (wasStable) this.#attempt = 0;
    this.#openedAt = Infinity;
    if (!socket) return wasStable;
    socket.onopen = socket.onmessage = socket.onclose = null; // what it still has to say is of the past
    socket.close(code, reason); // nothing waits for the end of that, which may take minutes
    return wasStable;
  }

  #lost(code, reason, { isFailure = true, ownCode } = {}) {
    const wasStable = this.#detach(ownCode, ownCode && reason);
    if (!mayReconnect(code)) return this.#end(code, reason);
    for (const request of [...this.#requests.values()]) {
      if (request.isSent) request.done(new RequestError("DISCONNECTED", "the connection was lost before the answer came"));
    }
    this.#rooms.reset(wasStable);
    this.#streams.reset();
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
    this.#streams.reset();
    this.#streams.close();
    this.#setStatus("closed", { code, reason, ...this.#liveness.end() });
  }

  #closeRequests() {
    for (const request of [...this.#requests.values()]) request.done(closed());
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
      this.#streams.send();
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
    if (this.#isOpen) this.#put(JSON.stringify({ event: "$ping", data: { v: protocol } }));
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

  #put(frame) {
    this.#isSilent = false;
    this.#socket.send(frame);
  }

  #transmit({ frame, request, volatile }) {
    this.#put(frame);
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
    if (event === "stream" && isPiece(message)) return this.#hear(message, text.length);
    if (id != null) this.#answer(message).catch(report);
    else if (message.room !== undefined && !this.#rooms.takes(message, text.length)) return;
    this.#tell(message);
  }

  /** Streams have positions of their own: they wait for no state, and are none of the messages that were missed. */
  #hear(message, size) {
    const { room, data } = message;
    const piece = this.#rooms.isLeaving(room) ? null : this.#streams.take(room, data, size);
    if (piece) this.#tell({ ...message, data: piece });
  }

  #tell(message) {
    const { event, data = null } = message;
    // A join that was no request is answered with `joined`; without a room that is an event of the application.
    const room = event === "joined" && typeof data?.room === "string" ? data.room : null;
    const told = room === null ? [data, message] : [room, data];
    const lost = room === null ? null : this.#rooms.told(room, data);
    if (event === "left" && data?.room) this.#rooms.left(data.room, data.reason);
    if (event === "session") this.#startSession(data ?? {});
    if (event === "session_expired") this.#refreshAt(0);
    const heard = (RESERVED.has(event) ? 0 : this.#emit(event, ...told)) + this.#emit("*", event, data, message);
    if (!heard && (event === "error" || RESERVED.has(event))) console.warn(`velocity: nobody heard "${event}":`, data);
    if (lost) this.#rooms.lose(room, lost, data.at);
    if (event === "gap" && data) this.#rooms.gap(data);
  }

  #startSession({ expires_in: expiresIn, token }) {
    this.#refreshAt(now() + 800 * (expiresIn ?? Infinity));
    if (typeof token !== "string") return;
    if (this.#isSilent) this.#resume(); // what the server holds back need not wait
    if (this.#isResuming) this.#newToken = token;
    else this.#token = token;
  }

  /**
   * Say where the page stands in rooms that the server may put it into, and which sessions were its own. Only to a server
   * that has given a token, a position, or a stream: another would take it for an event of the application.
   */
  #resume() {
    this.#newToken = undefined;
    this.#isResuming = this.#token !== undefined;
    const said = { rooms: this.#rooms.positions, session: this.#token, streams: this.#streams.positions() };
    this.#ask("resume", said, {}, (error) => {
      this.#isResuming = false;
      if (!error) this.#token = this.#newToken ?? this.#token; // one that knows the sessions before, too
    });
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
    if (socket === this.#socket && this.#isOpen) this.#put(answer);
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

/** Whether a message is a piece of a stream, and no event of the application that has its name. */
function isPiece({ room, data }) {
  return typeof room === "string" && typeof data?.id === "string" && Number.isInteger(data.from);
}

function closed() {
  return new RequestError("CLOSED", "the connection is closed");
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

/** A URL that says to the server that a `resume` may come; the application's own query stays as it is, and behind it. */
function announced(url) {
  const address = new URL(url);
  address.search = `?resume=1${address.search.replace("?", "&")}`;
  return address.href;
}

function copyOf(data) {
  if (!ArrayBuffer.isView(data)) return data.slice(0); // an ArrayBuffer, or a Blob
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice(); // of shared memory, too
}

function report(error) {
  (globalThis.reportError ?? console.error)(error);
}
