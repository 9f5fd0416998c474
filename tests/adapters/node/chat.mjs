// A page without a browser: the chat that is inside of useChat, told what to do by lines on its input.
//
// Arguments: which of the SDKs (ai5, ai6, ai7), the address, the id of the chat. Each line is a command; each answer is a
// line of JSON. What changes in the chat is told by lines of its own.
import { createInterface } from "node:readline";

const [sdk, address, id] = process.argv.slice(2);
const { AbstractChat, DefaultChatTransport, readUIMessageStream } = await import(sdk);
const tell = (what) => process.stdout.write(JSON.stringify(what) + "\n");

// What useChat keeps of a chat; every change is told.
class State {
  #status = "ready";
  #error = undefined;
  constructor(messages = []) { this.messages = messages; }
  get status() { return this.#status; }
  set status(status) { this.#status = status; this.#changed(); }
  get error() { return this.#error; }
  set error(error) { this.#error = error; this.#changed(); }
  pushMessage = (message) => { this.messages = [...this.messages, this.snapshot(message)]; this.#changed(); };
  popMessage = () => { this.messages = this.messages.slice(0, -1); };
  replaceMessage = (index, message) => {
    this.messages = this.messages.with(index, this.snapshot(message));
    this.#changed();
  };
  snapshot = (what) => structuredClone(what);
  #changed() { tell({ status: this.#status, error: this.#error?.message, messages: this.messages }); }
}

class Chat extends AbstractChat {
  constructor({ messages, ...options }) { super({ ...options, state: new State(messages) }); }
}

// What a browser says of a connection that is cut: the SDK knows by it that the answer may be had by coming back.
async function fetchAsBrowsers(url, options) {
  const response = await fetch(url, options);
  if (response.body === null) return response;
  const reader = response.body.getReader();
  const body = new ReadableStream({
    pull: (controller) => reader.read().then(
      ({ done, value }) => (done ? controller.close() : controller.enqueue(value)),
      () => controller.error(new TypeError("network error")),
    ),
    cancel: (reason) => reader.cancel(reason),
  });
  return new Response(body, response);
}

const transport = new DefaultChatTransport({ api: `${address}/api/chat`, fetch: fetchAsBrowsers });
let chat = new Chat({ id, transport });

const commands = {
  send: (text) => chat.sendMessage({ text }),
  resume: () => chat.resumeStream(),
  // The page is drawn anew: it has what its server has stored, which is the question alone.
  reload: () => { chat = new Chat({ id, transport, messages: chat.messages.filter((each) => each.role === "user") }); },
  // Without a chat: the messages that come of the stream, and how it has ended.
  read: async () => {
    const stream = await transport.reconnectToStream({ chatId: id });
    if (stream === null) return tell({ read: null });
    tell({ reading: true });
    const types = [];
    const counted = stream.pipeThrough(new TransformStream({
      transform(chunk, controller) { types.push(chunk.type); controller.enqueue(chunk); },
    }));
    const errors = [];
    let message;
    for await (message of readUIMessageStream({ stream: counted, onError: (error) => errors.push(error.message) }));
    tell({ read: message, types, errors });
  },
};

tell({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...rest] = JSON.parse(line);
  Promise.resolve(commands[command](...rest)).then(
    () => tell({ done: command }),
    (error) => tell({ done: command, failed: String(error) }),
  );
}
