// The page of the chat. Whatever somebody typed reaches the page as text (textContent), never as HTML.

import { connect } from "/ws/velocity.js";

const LOST = { TIMEOUT: "it took too long", DISCONNECTED: "the connection broke; it may have arrived" };
const KEEP = 300; // lines of each room

const $ = (id) => document.getElementById(id);
const create = (tag, className = "", text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

let ws = null;
let me = JSON.parse(sessionStorage.getItem("chat") ?? "null"); // {name, token}
const directory = new Map(); // room -> how many people are in it, as the server has told
let node = null; // the server process that has this connection: {id, is_clustered, process}
let current = null;
const joined = new Map(); // room -> {lines, people, unread, typing}; a line has the position of what was said
const WHY = { evicted: "there was too much of it", expired: "it was too long ago", too_many: "there was too much of it", epoch: "the server remembers it no more", rewound: "the server was set back" };

// --- login

function showLogin(message = "") {
  ws?.close();
  ws = null;
  me = current = null;
  sessionStorage.removeItem("chat");
  joined.clear();
  $("chat").hidden = true;
  $("login").hidden = false;
  $("login-error").textContent = message;
  $("name").focus();
}

$("login-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    const response = await fetch("/login", { method: "POST", body: JSON.stringify({ name: $("name").value }) });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.message);
    me = answer;
    sessionStorage.setItem("chat", JSON.stringify(me));
    showChat();
  } catch (error) {
    $("login-error").textContent = error instanceof TypeError ? "The server cannot be reached." : error.message;
  }
});

for (const id of ["logout", "logout-narrow"]) $(id).addEventListener("click", () => showLogin());

// --- the connection

function showChat() {
  $("login").hidden = true;
  $("chat").hidden = false;
  $("me").replaceChildren(avatar(me.name), create("span", "wide-only", me.name));
  ws = connect(() => `/ws?token=${encodeURIComponent(me.token)}`, { baseDelay: 1000, maxDelay: 10_000 });
  ws.on("status", showStatus);
  ws.on("node", (told) => ((node = told), renderPeople(), renderNode()));
  ws.on("rooms", (rooms) => {
    directory.clear();
    rooms.forEach(list);
    renderRooms();
  });
  ws.on("room", (room) => (list(room), renderRooms()));
  ws.on("joined", (room, { recovered, missed }) => recovered && missed && note(nameOf(room), `${missed} new while you were away`, "new"));
  ws.on("resync", (room, reason) => note(nameOf(room), `Something said here may have been missed: ${WHY[reason] ?? reason}`, "bad"));
  ws.on("people", ({ people }, { room }) => update(nameOf(room), (entry) => (entry.people = people)));
  ws.on("came", ({ name, at }, { room }) => addLine(nameOf(room), { note: `${who(name)} joined`, at }));
  ws.on("went", ({ name, at }, { room }) => addLine(nameOf(room), { note: `${who(name)} left`, at }));
  ws.on("chat", ({ name, text, at }, { room, at: position }) => addLine(nameOf(room), { name, text, at, position }));
  ws.on("typing", ({ name }, { room }) => showTyping(nameOf(room), name));
  ws.on("left", ({ room, reason }) => reason !== "INTERNAL_ERROR" && leave(nameOf(room)));
  ws.on("stats", showStats);
  ws.on("rate_limit_exceeded", slowDown);
  ws.on("error", ({ message }) => notice(message));
  showStatus(ws.status, {});
  enter(decodeURIComponent(location.hash.slice(1)) || "lobby");
}

const list = ({ room, people }) => (people ? directory.set(room, people) : directory.delete(room));

// What a room is called here, and what the server calls it: chat:tea, and aside:tea, where is told who comes, goes and types.
const nameOf = (room) => room.slice(room.indexOf(":") + 1);
const keyOf = (name) => `chat:${name}`;

const who = (name) => (name === me.name ? "You" : name);

let returnsAt = 0;
let countdown;
let isAway = false; // between a loss that was noted and the return

function showStatus(status, detail) {
  $("status").dataset.status = status;
  $("status-text").textContent = { connecting: "Connecting", open: "Connected", waiting: "Reconnecting", closed: "Disconnected" }[status];
  $("reconnect").hidden = status !== "waiting" && status !== "closed";
  $("drop").disabled = status !== "open";
  clearInterval(countdown);
  $("countdown").textContent = "";
  if (status === "waiting") {
    returnsAt = performance.now() + (detail.delay ?? 0); // there is none while the page is away
    countdown = setInterval(showCountdown, 100);
    showCountdown();
    if (!isAway) noteEverywhere(`Connection lost (${detail.reason || "code " + detail.code}). Coming back by itself…`, "bad");
    isAway = true;
  } else if (status === "open") {
    if (isAway) noteEverywhere("Connected again", "good");
    isAway = false;
    if ($("stats").open) ws.send("watch", true); // before the rooms are joined again, like all that is sent here
  } else if (status === "closed") {
    isAway = false;
    if (detail.code === 4401) showLogin("Your login is not valid any more. Please enter again.");
  }
  renderComposer();
}

function showCountdown() {
  const seconds = Math.max(0, returnsAt - performance.now()) / 1000;
  $("countdown").textContent = `in ${seconds.toFixed(1)} s`;
}

function noteEverywhere(text, kind) {
  for (const room of joined.keys()) note(room, text, kind);
}

function note(room, text, kind) {
  addLine(room, { note: text, kind, at: new Date().toISOString() });
}

$("reconnect").addEventListener("click", () => ws.reconnect());
$("drop").addEventListener("click", () => ws.send("drop"));
$("flood").addEventListener("click", async () => {
  const room = current;
  const numbers = Array.from({ length: 20 }, (_, i) => i + 1);
  const outcomes = await Promise.allSettled(numbers.map((n) => ws.request("chat", { text: `${n} of 20` }, { room: keyOf(room) })));
  const refused = outcomes.filter(({ reason }) => reason?.code === "RATE_LIMITED");
  if (refused.length) slowDown({ retry_after: refused.at(-1).reason.retryAfter });
  note(room, `20 sent at once, ${refused.length} of them over the rate limit`, "bad");
});

// --- rooms

async function enter(room) {
  if (!joined.has(room)) {
    joined.set(room, { lines: [], people: [], unread: 0, typing: new Map() });
    ws.join(keyOf(room), { state: () => loadEarlier(room) }).catch((error) => {
      if (!error.data) return; // without an answer of the server, velocity.js goes on asking
      notice(`Not joined: ${error.message}`);
      leave(room);
    });
  }
  show(room);
}

// What was said before: for a newcomer, and where more was missed than came by itself. What comes meanwhile waits.
async function loadEarlier(room) {
  const lines = await again(["RATE_LIMITED", "ENGINE_AWAY"], () => ws.request("earlier", null, { room: keyOf(room) }));
  const entry = joined.get(room);
  if (entry?.lines.some(({ position }) => position)) return lines.forEach((line) => addLine(room, line));
  lines.forEach((line, i) => (line.follows = isNextOf(lines[i - 1], line)));
  entry?.lines.unshift(...lines);
  if (room === current) renderLog();
}

function leave(room) {
  joined.delete(room);
  if (current === room) show([...joined.keys()].at(-1) ?? null);
  renderRooms();
}

function show(room) {
  current = room;
  history.replaceState(null, "", room === null ? location.pathname : `#${encodeURIComponent(room)}`);
  const entry = joined.get(room);
  if (entry) entry.unread = 0;
  $("room-title").textContent = room === null ? "No room" : room;
  $("leave").hidden = room === null;
  renderLog();
  openPanel(null);
  renderRooms();
  renderPeople();
  renderTyping();
  renderComposer();
}

function update(room, change) {
  const entry = joined.get(room);
  if (!entry) return;
  change(entry);
  if (room === current) renderPeople();
}

$("leave").addEventListener("click", () => {
  ws.leave(keyOf(current)).catch((error) => notice(`The server was not told: ${error.message}`));
  leave(current);
});

$("room-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const room = $("room-name").value.trim();
  if (room) enter(room);
  $("room-name").value = "";
  $("text").focus();
});

function renderRooms() {
  const counts = new Map([...joined].map(([room, entry]) => [room, entry.people.length]));
  for (const [room, people] of directory) counts.set(room, people);
  const names = [...counts.keys()].sort((a, b) => a.localeCompare(b));
  $("rooms").replaceChildren(...names.map((room) => {
    const entry = joined.get(room);
    const button = create("button");
    button.type = "button";
    if (room === current) button.setAttribute("aria-current", "true");
    button.classList.toggle("joined", Boolean(entry));
    button.append(create("span", "name", room));
    if (entry?.unread) button.append(create("span", "unread", `${entry.unread} new`));
    const count = create("span", "count", counts.get(room));
    count.title = "people in the room";
    button.append(count);
    button.addEventListener("click", () => enter(room));
    const item = create("li");
    item.append(button);
    return item;
  }));
}

function renderPeople() {
  const people = joined.get(current)?.people ?? [];
  const number = people.length === 1 ? "1 person" : `${people.length} people`;
  $("room-people").textContent = current === null ? "Join a room to talk" : number + " here";
  $("people").replaceChildren(...people.map(({ name, nodes }) => {
    const item = create("li");
    item.append(avatar(name), create("span", "name", name));
    if (name === me.name) item.append(create("span", "muted", "you"));
    if (node?.is_clustered) {
      const label = create("span", "node", nodes.map((id) => id.slice(0, 4)).join(" "));
      label.title = nodes.includes(node.id) ? "on the node that you are on" : "on another node";
      label.classList.toggle("same", nodes.includes(node.id));
      item.append(label);
    }
    return item;
  }));
}

function renderNode() {
  $("process").hidden = !node.is_clustered;
  $("process").textContent = `Your worker is process ${node.process}: kill -9 ${node.process}`;
}

// --- lines

// Whether somebody goes on to talk.
function isNextOf(previous, { name, text, at }) {
  return Boolean(text && previous?.name === name && Date.parse(at) - Date.parse(previous.at) < 120_000);
}

function addLine(room, line) {
  const entry = joined.get(room);
  if (!entry || (line.position && entry.lines.some(({ position }) => position === line.position))) return;
  line.follows = isNextOf(entry.lines.at(-1), line);
  entry.lines.push(line);
  if (entry.lines.length > KEEP) entry.lines.shift();
  if (line.name) entry.typing.delete(line.name);
  if (room === current) {
    const log = $("log");
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    appendLine(line);
    if (log.childElementCount > KEEP) log.firstElementChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
    renderTyping();
  } else if (line.text) {
    entry.unread++;
    renderRooms();
  }
}

function renderLog() {
  $("log").replaceChildren();
  for (const line of joined.get(current)?.lines ?? []) appendLine(line);
  $("log").scrollTop = $("log").scrollHeight;
}

function appendLine(line) {
  const at = new Date(line.at);
  const time = create("time", "", at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  time.dateTime = line.at;
  const row = create("div", line.text ? "message" : `note ${line.kind ?? ""}`);
  if (line.text) {
    row.classList.toggle("mine", line.name === me.name);
    row.classList.toggle("follows", line.follows);
    const head = create("div", "head");
    head.append(create("strong", "", who(line.name)), time);
    const bubble = create("div", "bubble");
    bubble.append(head, create("p", "", line.text));
    row.append(avatar(line.name), bubble);
  } else {
    row.append(create("span", "", line.note), time);
  }
  $("log").append(row);
}

function avatar(name) {
  const picture = create("span", "avatar", [...name].slice(0, 1).join("").toUpperCase());
  let hue = 7;
  for (const character of name) hue = (hue * 31 + character.codePointAt(0)) % 360;
  picture.style.setProperty("--hue", hue);
  picture.setAttribute("aria-hidden", "true");
  return picture;
}

// --- talking

async function say(room, text) {
  const id = `${Date.now()} ${Math.random()}`; // sent again under its id, a message is there once
  try {
    await again(["DISCONNECTED", "ENGINE_AWAY"], () => {
      const answer = ws.request("chat", { text, id }, { room: keyOf(room), timeout: 60_000 });
      renderComposer();
      return answer;
    });
  } catch (error) {
    if (error.code === "RATE_LIMITED") slowDown({ retry_after: error.retryAfter });
    const why = LOST[error.code] ?? (error.code === "RATE_LIMITED" ? "too fast" : error.message);
    note(room, `Not sent: “${text}” (${why})`, "bad");
  }
  renderComposer();
}

// Ask again after a second where it has failed with one of these codes, four times at most.
async function again(codes, ask) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      if (attempt === 5 || !codes.includes(error.code)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

function send() {
  const text = $("text").value.trim();
  if (!text || current === null) return;
  $("text").value = "";
  say(current, text);
}

$("composer").addEventListener("submit", (event) => (event.preventDefault(), send()));
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});

function renderComposer() {
  $("text").disabled = current === null;
  const waiting = ws?.queued ? ` · ${ws.queued} waiting` : "";
  const away = ws && ws.status !== "open" && current !== null;
  $("text").placeholder = away ? `Sent when you are back${waiting}` : current === null ? "" : `Message ${current}`;
}

let typedAt = -Infinity;

$("text").addEventListener("input", () => {
  if (!$("text").value.trim() || ws.status !== "open" || performance.now() - typedAt < 2500) return;
  typedAt = performance.now();
  ws.send("typing", null, { room: keyOf(current), volatile: true });
});

function showTyping(room, name) {
  const typing = joined.get(room)?.typing;
  if (!typing) return;
  clearTimeout(typing.get(name));
  typing.set(name, setTimeout(() => (typing.delete(name), renderTyping()), 3500));
  renderTyping();
}

function renderTyping() {
  const names = [...(joined.get(current)?.typing.keys() ?? [])];
  const verb = names.length === 1 ? "is" : "are";
  $("typing").textContent = names.length ? `${new Intl.ListFormat("en").format(names)} ${verb} typing…` : "";
}

// --- notices

let noticeTimer;

function notice(text) {
  $("notices").replaceChildren(create("p", "", text));
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => $("notices").replaceChildren(), 6000);
}

function slowDown({ retry_after }) {
  notice(`Slow down: the server takes a few messages a second. Try again in ${retry_after.toFixed(1)} s.`);
}

// --- statistics, pushed while they are looked at

const rates = new Array(60).fill(0);
let lastStats = null;

$("stats").addEventListener("toggle", () => {
  if (ws?.status === "open") ws.send("watch", $("stats").open);
});

function showStats(stats) {
  const seconds = lastStats ? stats.uptime - lastStats.uptime : 0;
  const total = ({ messages_sent, messages_received }) => messages_sent + messages_received;
  const rate = seconds > 0 ? (total(stats) - total(lastStats)) / seconds : 0; // an uptime that went back is a restart
  lastStats = stats;
  rates.push(rate);
  rates.shift();
  const top = Math.max(10, ...rates);
  const points = rates.map((value, i) => `${(240 * i) / 59},${46 - (42 * value) / top}`).join(" ");
  $("spark").querySelector("polyline").setAttribute("points", points);
  $("spark").querySelector("polygon").setAttribute("points", `0,48 ${points} 240,48`);
  $("rate").textContent = rate.toFixed(rate < 10 ? 1 : 0);
  const figures = {
    "Clients": stats.connected_clients,
    "Rooms": directory.size, // the server has one more, for those who look at this
    "Sent": `${stats.messages_sent.toLocaleString()} · ${size(stats.bytes_sent)}`,
    "Received": `${stats.messages_received.toLocaleString()} · ${size(stats.bytes_received)}`,
    "Rate limited": stats.rate_limited,
    "Refused": stats.rejected,
    "Dropped": stats.dropped,
    "Errors": stats.errors,
    "Up for": duration(stats.uptime),
  };
  $("figures").replaceChildren(...Object.entries(figures).flatMap(([name, value]) => [create("dt", "", name), create("dd", "", value)]));
}

function size(bytes) {
  const unit = Math.min(3, Math.floor(Math.log2(bytes + 1) / 10));
  return `${(bytes / 1024 ** unit).toFixed(unit ? 1 : 0)} ${["B", "KiB", "MiB", "GiB"][unit]}`;
}

function duration(seconds) {
  const parts = [seconds / 3600, (seconds / 60) % 60, seconds % 60].map((part) => String(Math.floor(part)).padStart(2, "0"));
  return parts.join(":");
}

// --- panels on a narrow screen, and the colours

const panels = { rooms: "show-rooms", info: "show-info" };

function openPanel(name) {
  document.body.dataset.panel = name ?? "";
  for (const [panel, button] of Object.entries(panels)) $(button).setAttribute("aria-expanded", String(panel === name));
}

for (const [panel, button] of Object.entries(panels)) {
  $(button).addEventListener("click", () => openPanel(document.body.dataset.panel === panel ? null : panel));
}
$("backdrop").addEventListener("click", () => openPanel(null));
document.addEventListener("keydown", (event) => event.key === "Escape" && openPanel(null));

function setScheme(scheme) {
  document.documentElement.style.colorScheme = scheme ?? "";
}

$("theme").addEventListener("click", () => {
  const chosen = document.documentElement.style.colorScheme;
  const isDark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem("scheme", isDark ? "light" : "dark");
  setScheme(localStorage.getItem("scheme"));
});

setScheme(localStorage.getItem("scheme"));
if (me) showChat();
else showLogin();
