// The page: the questions of a chat, and below each what the model answers. What comes is shown as text, never as HTML.
//
// All that streams take here are the five lines that say ws.stream, ws.streams, onChange, cancel and "stream".

import { connect } from "/ws/velocity.js";
import { show } from "/static/markdown.js";

const ENDS = {
  done: "Done",
  cancelled: "Stopped",
  error: "Failed: the model raised an error",
  lost: "Lost: the worker that wrote it has died",
};
const AGAIN = ["DISCONNECTED", "TIMEOUT", "UNAVAILABLE", "INTERNAL_ERROR"]; // asked again under its id, it is asked once

const $ = (id) => document.getElementById(id);
const create = (tag, className = "", text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
const name = decodeURIComponent(location.hash.slice(1)) || "lobby";
const room = `chat:${name}`;
const ws = connect("/ws", { baseDelay: 300, maxDelay: 5_000 });
const exchanges = new Map(); // the id of a question's first answer -> {text, answers, shown, node}
const failures = new Map(); // the id of an answer -> why it could not be asked for

// --- the connection

ws.on("status", showStatus);
ws.on("worker", (process) => ($("worker").textContent = `Your worker is process ${process}. While it writes: kill -9 ${process}`));
ws.on("asked", asked);
ws.on("stream", drawRunning);
ws.on("error", ({ message }) => notice(message));
ws.on("joined", showWelcome);
ws.join(room, { state: async () => (await request("earlier")).forEach(asked) }).catch((error) => {
  notice(error.code === "FORBIDDEN" ? "The name of a chat has letters, digits, - and _, 40 at most." : error.message);
});
showStatus(ws.status);

function showStatus(status) {
  $("status").dataset.status = status;
  $("status-text").textContent = { connecting: "Connecting", open: "Connected", waiting: "Reconnecting", closed: "Disconnected" }[status];
}

/** Ask the server, and again where it is not known that it has heard, or where it cannot answer now. */
async function request(event, data) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ws.request(event, data, { room, timeout: 60_000 });
    } catch (error) {
      if (attempt === 10 || !AGAIN.includes(error.code)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

// --- questions

/** Ask a question, or one that there is once more: another answer has another id. */
async function ask(text, to) {
  const id = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const exchange = asked({ id, text, to });
  exchange.node.scrollIntoView({ block: "start" });
  try {
    await request("ask", { id, text, to });
  } catch (error) {
    failures.set(id, error.code === "RATE_LIMITED" ? "too many questions at once" : error.message);
    changed(exchange);
  }
}

/** A question is there, be it that this page has asked it, hears of it, or finds it. */
function asked({ id, text, to }) {
  const key = exchanges.has(to) ? to : id;
  let exchange = exchanges.get(key);
  if (exchange?.answers.some((answer) => answer.id === id)) return exchange;
  if (!exchange) exchanges.set(key, (exchange = { key, text, answers: [], shown: 0, node: nodeOf(key, text) }));
  const answer = ws.stream(id, { room });
  answer.onChange(() => changed(exchange));
  exchange.shown = exchange.answers.push(answer) - 1;
  changed(exchange);
  showWelcome();
  return exchange;
}

function nodeOf(key, text) {
  const node = $("exchange").content.firstElementChild.cloneNode(true);
  const on = (selector, act) => node.querySelector(selector).addEventListener("click", () => act(exchanges.get(key)));
  node.querySelector(".question").append(text);
  on(".stop", ({ answers, shown }) => stop(answers[shown]));
  on(".again", (exchange) => ask(exchange.text, key));
  on(".previous", (exchange) => (exchange.shown--, changed(exchange)));
  on(".next", (exchange) => (exchange.shown++, changed(exchange)));
  keepingTheEnd(() => $("exchanges").append(node));
  return node;
}

function stop(answer) {
  answer.cancel().catch(({ message }) => notice(`Not stopped: ${message}`));
}

function showWelcome() {
  $("welcome").hidden = exchanges.size > 0;
}

// --- answers

const stale = new Set();

/** An exchange is drawn once before the next picture, however much of it has come. */
function changed(exchange) {
  if (!stale.size) requestAnimationFrame(drawAll);
  stale.add(exchange);
}

function drawAll() {
  keepingTheEnd(() => stale.forEach(draw));
  stale.clear();
}

function draw({ node, answers, shown }) {
  const answer = answers[shown];
  const [state, words] = stateOf(answer);
  const said = (selector, text) => (node.querySelector(selector).textContent = text);
  if (node.dataset.state === "writing" && state !== "writing") $("announcer").textContent = `Answer: ${words}`;
  node.dataset.state = state;
  show(node.querySelector(".text"), answer.text);
  node.querySelector(".answer").setAttribute("aria-busy", state === "writing");
  said(".state-text", answer.text ? `${words} · ${answer.text.length.toLocaleString()} characters` : words);
  said(".again", state === "done" || state === "cancelled" ? "Regenerate" : "Retry");
  node.querySelector(".stop").hidden = state !== "writing";
  node.querySelector(".again").hidden = state === "writing";
  node.querySelector(".versions").hidden = answers.length === 1;
  node.querySelector(".previous").disabled = shown === 0;
  node.querySelector(".next").disabled = shown === answers.length - 1;
  said(".version", `${shown + 1} / ${answers.length}`);
}

function stateOf({ id, end, text, error }) {
  if (end) return [end, ENDS[end] ?? end];
  if (failures.has(id)) return ["unsent", `Not asked: ${failures.get(id)}`];
  if (error && error.code !== "CLOSED") return ["gone", "This answer is not kept any more"];
  return ["writing", text ? "Writing" : "Thinking"];
}

function drawRunning() {
  const running = ws.streams(room).filter(({ end }) => end === null);
  if (sameIds(running.map(({ id }) => id))) return;
  const items = running.map((answer) => {
    const item = create("li");
    const exchange = [...exchanges.values()].find(({ answers }) => answers.some(({ id }) => id === answer.id));
    const jump = create("button", "quiet jump", exchange?.text ?? "An answer");
    const end = create("button", "quiet", "✕");
    end.setAttribute("aria-label", `Stop: ${jump.textContent}`);
    jump.addEventListener("click", () => exchange?.node.scrollIntoView({ block: "start" }));
    end.addEventListener("click", () => stop(answer));
    item.dataset.id = answer.id;
    item.append(create("i", "dot"), jump, end);
    return item;
  });
  keepingTheEnd(() => $("running").replaceChildren(...items));
}

/** Whether these are the answers that are listed. */
const sameIds = (ids) => ids.join() === [...$("running").children].map(({ dataset }) => dataset.id).join();

/** Change what is shown; who looks at the end of it goes on to do so. */
function keepingTheEnd(change) {
  const log = $("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  change();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

// --- the composer

function submit(text) {
  if (text.trim()) ask(text.trim());
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit($("text").value);
  $("text").value = "";
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
for (const button of document.querySelectorAll(".suggestions button")) {
  button.addEventListener("click", () => submit(button.textContent));
}

// --- the rest of the page

$("chat-name").textContent = name;
$("new").addEventListener("click", () => (location.hash = Math.random().toString(36).slice(2, 8)));
addEventListener("hashchange", () => location.reload());

let noticeTimer;

function notice(text) {
  $("notices").replaceChildren(create("p", "", text));
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => $("notices").replaceChildren(), 6000);
}

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
