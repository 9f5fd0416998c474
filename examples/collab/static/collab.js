// The page of the example. What people wrote reaches it as text (textContent), never as HTML. Its URLs are relative, so
// that it works below any path.

import { connect } from "../ws/velocity.js";

const $ = (id) => document.getElementById(id);
const create = (tag, className = "", text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
const roomOf = (id) => `document:${id}`;

let ws = null;
let me = null;
let open = null; // the document that is shown: {id, title, role, members, comments}
let present = {}; // the users who are in its room now: id -> {name, color}
const typing = new Map(); // name -> the timer after which it is forgotten

async function api(method, path, body) {
  const response = await fetch(`api/${path}`, {
    method,
    headers: body && { "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const answer = response.status === 204 ? null : await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.detail), { status: response.status });
  return answer;
}

/** Make a listener whose failure is shown. */
const shown = (action) => async (...args) => {
  args[0]?.preventDefault?.();
  $("error").textContent = "";
  try {
    await action(...args);
  } catch (error) {
    $("error").textContent = error.message;
  }
};

// --- logging in

function showLogin(why = "") {
  ws?.close();
  ws = me = open = null;
  $("app").hidden = true;
  $("login").hidden = false;
  $("login-error").textContent = why;
  $("name").focus();
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    me = await api("POST", "login", { name: $("name").value, password: $("password").value });
    await start();
  } catch (error) {
    $("login-error").textContent = error.message;
  }
});

$("logout").addEventListener("click", shown(async () => {
  await api("POST", "logout");
  showLogin();
}));

async function start() {
  $("login").hidden = true;
  $("app").hidden = false;
  $("password").value = "";
  $("me").textContent = me.name;
  ws = connect(undefined, { refresh: () => api("POST", "login/renew") });
  ws.on("status", shown(showStatus));
  ws.on("joined", shown(async (room) => open && room === roomOf(open.id) && reload())); // now nothing is missed any more
  ws.on("presence", showPresence);
  ws.on("typing", showTyping);
  ws.on("comment", (comment, { room }) => open && room === roomOf(open.id) && addComment(comment));
  ws.on("bell", (notice) => addNotice(notice, shown(loadDocuments)));
  ws.on("left", showLeft);
  ws.on("gap", shown(reload)); // messages were lost: look what is there
}

async function showStatus(status, { code, reason } = {}) {
  $("status").textContent = status === "open" ? "" : status;
  if (status === "closed" && code === 4401) showLogin(reason);
  if (status !== "open") return;
  $("notices").replaceChildren();
  for (const notice of await api("GET", "notices")) addNotice(notice);
  await loadDocuments();
}

// --- documents

async function loadDocuments() {
  const documents = await api("GET", "documents");
  $("documents").replaceChildren(...documents.map(({ id, title }) => new Option(title, id, false, id === open?.id)));
  if (!open && documents.length) await show(documents[0].id);
}

$("documents").addEventListener("change", shown(() => show(Number($("documents").value))));

async function show(id) {
  if (open) await ws.leave(roomOf(open.id));
  present = {};
  open = { id };
  await ws.join(roomOf(id)); // its content is loaded when that is answered, each time
}

async function reload() {
  if (!open) return;
  const found = await api("GET", `documents/${open.id}`);
  if (found.id !== open?.id) return; // another one was opened meanwhile
  open = found;
  $("document").hidden = false;
  $("title").textContent = open.title;
  $("comments").replaceChildren();
  for (const comment of open.comments) addComment(comment);
  $("composer").hidden = open.role === "viewer";
  $("members").hidden = open.role !== "owner";
  showMembers();
}

function showLeft({ room, reason }) {
  if (!open || room !== roomOf(open.id) || reason === "INTERNAL_ERROR") return; // then it is asked for again by itself
  closeDocument("You are no longer a member.");
}

async function closeDocument(why) {
  open = null;
  $("document").hidden = true;
  await shown(loadDocuments)();
  $("error").textContent = why;
}

function addComment({ id, author, text }) {
  if ($(`comment-${id}`)) return; // loaded, and told
  const line = create("li");
  line.id = `comment-${id}`;
  const name = create("span", "author", author.name);
  name.style.color = author.color;
  line.append(name, " ", create("span", "text", text));
  $("comments").append(line);
  stopTyping(author.name);
}

$("composer").addEventListener("submit", shown(async () => {
  await ws.request("comment", { text: $("text").value }, { room: roomOf(open.id) });
  $("text").value = "";
}));

// --- who is here, and who types

function showPresence({ room, users, full, info = {} }) {
  if (!open || room !== roomOf(open.id)) return;
  if (full) present = {};
  for (const [id, connections] of Object.entries(users)) {
    if (connections) present[id] = info[id] ?? present[id] ?? { name: id, color: "gray" };
    else delete present[id];
  }
  $("present").replaceChildren(...Object.values(present).map(({ name, color }) => {
    const chip = create("li", "", name);
    chip.style.background = color;
    return chip;
  }));
}

let lastTyped = 0;
$("text").addEventListener("input", () => {
  if (Date.now() - lastTyped < 1000) return;
  lastTyped = Date.now();
  ws.send("typing", null, { room: roomOf(open.id), volatile: true });
});

function showTyping({ name }) {
  clearTimeout(typing.get(name));
  typing.set(name, setTimeout(() => stopTyping(name), 3000));
  renderTyping();
}

function stopTyping(name) {
  clearTimeout(typing.get(name));
  typing.delete(name);
  renderTyping();
}

function renderTyping() {
  $("typing").textContent = typing.size ? `${[...typing.keys()].join(", ")} writing…` : "";
}

// --- the bell

function addNotice(notice, then) {
  $("notices").prepend(create("li", "", notice.text));
  $("bell-count").textContent = $("notices").childElementCount;
  then?.();
}

$("bell").addEventListener("click", shown(async () => {
  $("notices").hidden = !$("notices").hidden;
  if (!$("notices").hidden) return;
  await api("DELETE", "notices");
  $("notices").replaceChildren();
  $("bell-count").textContent = 0;
}));

// --- members, for owners

function showMembers() {
  $("member-list").replaceChildren(...open.members.map(({ user, role }) => {
    const line = create("li", "", `${user.name}: ${role}`);
    if (user.id === me.id) return line;
    const remove = create("button", "", "Remove");
    remove.setAttribute("aria-label", `Remove ${user.name}`);
    remove.addEventListener("click", shown(async () => {
      await api("DELETE", `documents/${open.id}/members/${user.id}`);
      await reload();
    }));
    line.append(remove);
    return line;
  }));
}

$("add-member").addEventListener("submit", shown(async () => {
  await api("PUT", `documents/${open.id}/members`, { name: $("member-name").value, role: $("member-role").value });
  $("member-name").value = "";
  await reload();
}));

// --- begin

try {
  me = await api("GET", "me");
  await start();
} catch (error) {
  showLogin(error.status === 401 ? "" : error.message);
}
