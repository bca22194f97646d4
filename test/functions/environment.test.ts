import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { expect, it } from "vitest";
import { aBatch, aBusEvent, aMessage, TICK } from "../support/handlers.ts";

const FUNCTIONS = join(import.meta.dirname, "../../functions");
const SETTINGS = [
  "DEPLOYMENT",
  "REGISTRY_FILE",
  "REGISTRY_PREFIX",
  "PASSES_QUEUE_URL",
  "LATE_QUEUE_URL",
  "EVENT_BUS_NAME",
  "STOPPED",
  "RESYNC_SETTLED_MINUTES",
];

const FACT = {
  version: 1,
  cluster: "west",
  namespace: "ci",
  name: "web",
  uid: "uid-web",
  resourceVersion: "1",
  generation: 1,
  startedAt: "2026-05-01T12:00:00Z",
  durationMs: 0,
  requests: 1,
  actions: {},
  failures: [],
  complete: true,
};

const EVENTS = { reconcile: aBatch(aMessage()), resync: TICK, status: aBusEvent(FACT) };
const FAULTY = { PASSES_QUEUE_URL: "s3cr3t", STOPPED: "s3cr3t", RESYNC_SETTLED_MINUTES: "0" };

const told = runFunctions();

/** Imports the functions in a process of its own and sends each an event; says which settings were read at import, what came of the events, and which modules were loaded. */
function runFunctions(): unknown {
  const script = `
    import { registerHooks } from "node:module";
    const loaded = [];
    registerHooks({ load: (url, context, next) => (loaded.push(url), next(url, context)) });
    const settings = new Set(${JSON.stringify(SETTINGS)});
    const read = [];
    process.env = new Proxy(process.env, { get: (env, key) => (settings.has(key) && read.push(key), env[key]) });
    const handlers = {};
    for (const name of ${JSON.stringify(Object.keys(EVENTS))})
      handlers[name] = (await import(${JSON.stringify(FUNCTIONS)} + "/" + name + ".ts")).handler;
    const atImport = [...read];
    const problems = {};
    for (const [name, event] of Object.entries(${JSON.stringify(EVENTS)}))
      problems[name] = await handlers[name](event, { getRemainingTimeInMillis: () => 10000 }).then(() => "none", String);
    console.log(JSON.stringify({ atImport, atEvent: [...new Set(read)], problems, loaded }));
  `;
  const args = ["--disable-warning=ExperimentalWarning", "--input-type=module", "--eval", script];
  const options = { env: { PATH: "/usr/bin:/bin", ...FAULTY }, encoding: "utf8", stdio: "pipe" } as const;
  return JSON.parse(execFileSync(process.execPath, args, options).trim().split("\n").at(-1) ?? "");
}

it("reads no environment when the functions are imported", () => {
  expect(told).toMatchObject({ atImport: [], atEvent: expect.arrayContaining(SETTINGS) });
});

it.each([
  { name: "reconcile", wrong: ["EVENT_BUS_NAME", "STOPPED"] },
  { name: "resync", wrong: ["RESYNC_SETTLED_MINUTES"] },
  { name: "status", wrong: [] },
])("names every fault of the environment at the first event of $name", ({ name, wrong }) => {
  for (const setting of ["REGISTRY_FILE", "PASSES_QUEUE_URL", "LATE_QUEUE_URL", ...wrong]) {
    const problem = expect.stringMatching(new RegExp(`^ConfigError: .*\\b${setting}: `));
    expect(told).toMatchObject({ problems: { [name]: problem } });
  }
});

it("shows no value of the environment", () => {
  expect(JSON.stringify(told)).not.toContain("s3cr3t");
});

it("starts without the clients that only clusters of EKS need, and without those that only commands use", () => {
  const loaded = expect.arrayContaining([expect.stringContaining("/shared/clusters/connection.ts")]);
  expect(told).toMatchObject({ loaded });
  expect(JSON.stringify(told)).not.toMatch(/client-eks|credential-providers|clusters\/eks\.ts|@kubernetes/);
});
