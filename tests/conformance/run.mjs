// Runs the suite: `node run.mjs <address of the server> <file for how the cases went> <how often one is tried again>`.
import { writeFile } from "node:fs/promises";
import { startVitest } from "vitest/node";

const [baseUrl, file, retry] = process.argv.slice(2);
const options = {
  config: false,
  watch: false,
  cache: false, // which would be written into node_modules
  include: ["suite.test.mjs"],
  env: { BASE_URL: baseUrl },
  retry: Number(retry),
  testTimeout: 120_000, // for a machine that does other things; those that say so have less
  reporters: [{}],
};
const vitest = await startVitest("test", [], options);
const modules = vitest.state.getTestModules();
const cases = modules.flatMap((module) => [...module.children.allTests()]).map((test) => ({
  name: test.fullName,
  state: test.result().state,
  retries: test.diagnostic()?.retryCount ?? 0,
  seconds: (test.diagnostic()?.duration ?? 0) / 1000,
  errors: (test.result().errors ?? []).map((error) => error.stack ?? error.message),
}));
const beside = [...modules.flatMap((module) => module.errors()), ...vitest.state.getUnhandledErrors()];
await writeFile(file, JSON.stringify({ cases, errors: beside.map((error) => error.stack ?? error.message) }));
await vitest.close();
process.exit(0); // that some have failed is said in the file
