// A backend that is written with the AI SDK: its answer, byte by byte as it goes over HTTP, comes on the output.
const [sdk, what] = process.argv.slice(2);
const { createUIMessageStream, createUIMessageStreamResponse } = await import(sdk);

const stream = createUIMessageStream({
  generateId: () => "of-the-backend",
  onError: (error) => error.message,
  execute: async ({ writer }) => {
    writer.write({ type: "start", messageId: "of-the-backend", messageMetadata: { model: "ours" } });
    writer.write({ type: "text-start", id: "1" });
    writer.write({ type: "text-delta", id: "1", delta: "It scatters 😀\u2028\r\n" });
    if (what === "fail") throw new Error("the model has gone");
    writer.write({ type: "text-end", id: "1" });
    writer.write({ type: "finish" });
  },
});
for await (const bytes of createUIMessageStreamResponse({ stream }).body) process.stdout.write(bytes);
