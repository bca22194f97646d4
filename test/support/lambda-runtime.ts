/**
 * Runs a deployment package as Lambda does: unpacked into a folder of its own, in a process that AWS's runtime interface client
 * leads, with nothing of this project within reach, frozen between invocations and ended at the deadline.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { parseJson } from "../../shared/planning/json.ts";
import { findInterfaceClient } from "./lambda-interface-client.ts";
import { listen } from "./listener.ts";
import { unpackZip } from "./zip.ts";

const HTTP_CLIENT = fileURLToPath(new URL("lambda-http-client.mjs", import.meta.url));
const API = "/2018-06-01/runtime";
/** Lambda's own limits. */
const INIT_TIMEOUT_MS = 10_000;
const PAYLOAD_BYTES_MAX = 6 * 1024 * 1024;
/** How much of the memory is the heap's. */
const HEAP_SHARE = 0.9;

export interface LambdaOptions {
  readonly functionName: string;
  /** Path of the deployment package. */
  readonly zip: string;
  /** Such as `webhook.handler`. */
  readonly handler: string;
  readonly memoryMb: number;
  readonly timeoutMs: number;
  /** What the function's configuration says, and nothing of this process's. */
  readonly environment: Readonly<Record<string, string>>;
  readonly region: string;
  readonly account: string;
  /** Names who calls AWS. */
  readonly accessKeyId: string;
  /** Stands in for AWS. */
  readonly endpoint: string;
  readonly logFormat?: "JSON" | "Text";
  /** Only counts for JSON, as in Lambda. */
  readonly logLevel?: string;
}

export type Outcome =
  | { readonly kind: "answered"; readonly answer: unknown }
  | { readonly kind: "failed"; readonly errorType: string; readonly errorMessage: string };

export interface Invocation {
  readonly outcome: Outcome;
  /** From the start of the process until it asked for work; undefined for a warm instance. */
  readonly initMs: number | undefined;
  /** From then, or from the call, until the answer. */
  readonly durationMs: number;
  /** The most that the process has had at any time; undefined where the system does not say. */
  readonly memoryMb: number | undefined;
  /** What was printed since the invocation before. */
  readonly printed: string;
}

/** One function with one instance at most, so that calls come one after the other. */
export interface Lambda {
  readonly functionName: string;
  invoke(event: unknown): Promise<Invocation>;
  stop(): Promise<void>;
}

/** Unpacks the package; the first call starts the process. */
export async function prepareLambda(options: LambdaOptions): Promise<Lambda> {
  const root = await realpath(await mkdtemp(join(tmpdir(), "lambda-")));
  const folders: Folders = { task: join(root, "task"), runtime: join(root, "runtime"), tmp: join(root, "tmp") };
  for (const folder of Object.values(folders)) await mkdir(folder);
  await unpackZip(await readFile(options.zip), folders.task);
  await copyFile(join(await findInterfaceClient(process.env), "index.mjs"), join(folders.runtime, "index.mjs"));
  await copyFile(HTTP_CLIENT, join(folders.runtime, "http-client.mjs"));
  // What is not there is not asked for.
  await writeFile(join(folders.runtime, "rapid-client.node"), "");
  let instance: Instance | undefined;
  let turn: Promise<unknown> = Promise.resolve();
  const invoke = async (event: unknown): Promise<Invocation> => {
    const isCold = instance === undefined;
    instance ??= await startInstance(options, folders);
    const { invocation, isAlive } = await serve(instance, { options, event, isCold });
    if (!isAlive) {
      await instance.end();
      instance = undefined;
    }
    return invocation;
  };
  return {
    functionName: options.functionName,
    invoke(event) {
      const mine = turn.then(() => invoke(event));
      turn = mine.catch(() => undefined);
      return mine;
    },
    async stop() {
      await turn;
      await instance?.end();
      await rm(root, { recursive: true, force: true });
    },
  };
}

interface Folders {
  readonly task: string;
  readonly runtime: string;
  readonly tmp: string;
}

/** What the process tells the Runtime API, or its end tells us. */
type Signal =
  | { readonly kind: "polled"; readonly give: (headers: Record<string, string>, body: string) => void }
  | { readonly kind: "answered" | "failed"; readonly requestId: string; readonly body: string }
  | { readonly kind: "initFailed"; readonly body: string }
  | { readonly kind: "exited"; readonly why: string };

interface Instance {
  /** The next of what the process has told; undefined when it says nothing until then. */
  hear(untilMs: number): Promise<Signal | undefined>;
  freeze(): void;
  thaw(): void;
  memoryMb(): Promise<number | undefined>;
  takePrinted(): string;
  readonly startedAt: number;
  /** The poll that waits for work. */
  poll: Extract<Signal, { kind: "polled" }> | undefined;
  end(): Promise<void>;
}

interface Serving {
  readonly options: LambdaOptions;
  readonly event: unknown;
  readonly isCold: boolean;
}

interface Served {
  readonly invocation: Invocation;
  readonly isAlive: boolean;
}

/** One invocation, with the start of the instance where it is cold. */
async function serve(instance: Instance, { options, event, isCold }: Serving): Promise<Served> {
  const requestId = randomUUID();
  const failed = isCold ? await awaitInit(instance, requestId) : undefined;
  const begun = performance.now();
  const initMs = isCold ? begun - instance.startedAt : undefined;
  const { outcome, isAlive } =
    failed === undefined
      ? await runHandler(instance, { options, event, requestId })
      : { outcome: failed, isAlive: false };
  const durationMs = performance.now() - begun;
  // Lambda lets the process run until it asks for the next event, and then no further.
  const isWaiting = isAlive && (await awaitPoll(instance, options.timeoutMs));
  const memoryMb = await instance.memoryMb();
  if (isWaiting) instance.freeze();
  const printed = instance.takePrinted();
  return { invocation: { outcome, initMs, durationMs, memoryMb, printed }, isAlive: isWaiting };
}

/** Undefined when the process asks for work. */
async function awaitInit(instance: Instance, requestId: string): Promise<Outcome | undefined> {
  const signal = await instance.hear(INIT_TIMEOUT_MS);
  switch (signal?.kind) {
    case "polled":
      instance.poll = signal;
      return undefined;
    case "initFailed":
      return failureOf(signal.body);
    case "exited":
      return exitError(requestId, signal.why);
    default:
      return { kind: "failed", errorType: "Sandbox.Timedout", errorMessage: `${requestId} Init timed out` };
  }
}

interface Running {
  readonly options: LambdaOptions;
  readonly event: unknown;
  readonly requestId: string;
}

async function runHandler(instance: Instance, running: Running): Promise<{ outcome: Outcome; isAlive: boolean }> {
  const { options, event, requestId } = running;
  const { functionName, region, account, timeoutMs } = options;
  const body = JSON.stringify(event);
  if (body.length > PAYLOAD_BYTES_MAX) throw new Error("Lambda does not take an event of more than 6 MB");
  instance.thaw();
  instance.poll?.give(
    {
      "lambda-runtime-aws-request-id": requestId,
      "lambda-runtime-deadline-ms": String(Date.now() + timeoutMs),
      "lambda-runtime-invoked-function-arn": `arn:aws:lambda:${region}:${account}:function:${functionName}`,
      "lambda-runtime-trace-id": `Root=1-${randomBytes(4).toString("hex")}-${randomBytes(12).toString("hex")};Parent=${randomBytes(8).toString("hex")};Sampled=0`,
    },
    body,
  );
  instance.poll = undefined;
  const signal = await instance.hear(timeoutMs);
  switch (signal?.kind) {
    case "answered":
      return { outcome: answerOf(signal.body), isAlive: true };
    case "failed":
      return { outcome: failureOf(signal.body), isAlive: true };
    case "exited":
      return { outcome: exitError(requestId, signal.why), isAlive: false };
    default: {
      const errorMessage = `${requestId} Task timed out after ${(timeoutMs / 1_000).toFixed(2)} seconds`;
      return { outcome: { kind: "failed", errorType: "Sandbox.Timedout", errorMessage }, isAlive: false };
    }
  }
}

async function awaitPoll(instance: Instance, untilMs: number): Promise<boolean> {
  const signal = await instance.hear(untilMs);
  if (signal?.kind !== "polled") return false;
  instance.poll = signal;
  return true;
}

function answerOf(body: string): Outcome {
  if (Buffer.byteLength(body) <= PAYLOAD_BYTES_MAX) return { kind: "answered", answer: parseJson(body) };
  const errorMessage = `Response payload size exceeded maximum allowed payload size (${PAYLOAD_BYTES_MAX} bytes).`;
  return { kind: "failed", errorType: "Function.ResponseSizeTooLarge", errorMessage };
}

const errorSchema = z.object({ errorType: z.string(), errorMessage: z.string() });

function failureOf(body: string): Outcome {
  return { kind: "failed", ...errorSchema.parse(parseJson(body)) };
}

function exitError(requestId: string, why: string): Outcome {
  const errorMessage = `RequestId: ${requestId} Error: Runtime exited with error: ${why}`;
  return { kind: "failed", errorType: "Runtime.ExitError", errorMessage };
}

/** Starts the process; nothing is awaited of it. */
async function startInstance(options: LambdaOptions, folders: Folders): Promise<Instance> {
  const signals = createSignals();
  const server = createServer((request, response) => {
    serveApi(request, response, signals.tell).catch(() => response.destroy());
  });
  const listener = await listen(server);
  const startedAt = performance.now();
  const child = spawnRuntime(options, folders, `127.0.0.1:${listener.port}`);
  let printed = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => {
      printed += text;
    });
  }
  const exited = once(child, "exit");
  child.once("exit", (code, signal) => {
    signals.tell({ kind: "exited", why: signal === null ? `exit status ${code}` : `signal: ${signal}` });
  });
  return {
    hear: signals.hear,
    freeze: () => void child.kill("SIGSTOP"),
    thaw: () => void child.kill("SIGCONT"),
    memoryMb: () => peakMemoryMb(child.pid),
    takePrinted() {
      const taken = printed;
      printed = "";
      return taken;
    },
    startedAt,
    poll: undefined,
    async end() {
      child.kill("SIGKILL");
      await exited;
      await listener.close();
    },
  };
}

function spawnRuntime(options: LambdaOptions, { task, runtime, tmp }: Folders, api: string): ChildProcess {
  const { memoryMb } = options;
  const flags = [
    // It may read its package and the runtime, and write to its temporary folder: whatever else it needs has to be in the package.
    "--permission",
    `--allow-fs-read=${task}`,
    `--allow-fs-read=${runtime}`,
    `--allow-fs-read=${tmp}`,
    `--allow-fs-write=${tmp}`,
    `--max-old-space-size=${Math.floor(memoryMb * HEAP_SHARE)}`,
    // Off in Lambda unless a function asks for them.
    "--no-experimental-require-module",
    "--no-experimental-detect-module",
    `--import=${join(runtime, "http-client.mjs")}`,
  ];
  const environment = { ...environmentOf(options, { task, runtime, tmp }), AWS_LAMBDA_RUNTIME_API: api };
  const stdio = ["ignore", "pipe", "pipe"] as const;
  return spawn(process.execPath, [...flags, join(runtime, "index.mjs")], {
    cwd: task,
    env: environment,
    stdio: [...stdio],
  });
}

/** The variables that Lambda documents, and the function's own. */
function environmentOf(options: LambdaOptions, { task, runtime, tmp }: Folders): Record<string, string> {
  const { functionName, memoryMb, region, logFormat = "Text", logLevel } = options;
  return {
    ...options.environment,
    PATH: "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    LANG: "en_US.UTF-8",
    TZ: ":UTC",
    TMPDIR: tmp,
    _HANDLER: options.handler,
    LAMBDA_TASK_ROOT: task,
    LAMBDA_RUNTIME_DIR: runtime,
    AWS_EXECUTION_ENV: "AWS_Lambda_nodejs24.x",
    AWS_LAMBDA_FUNCTION_NAME: functionName,
    AWS_LAMBDA_FUNCTION_VERSION: "$LATEST",
    AWS_LAMBDA_FUNCTION_MEMORY_SIZE: String(memoryMb),
    AWS_LAMBDA_INITIALIZATION_TYPE: "on-demand",
    AWS_LAMBDA_LOG_GROUP_NAME: `/aws/lambda/${functionName}`,
    AWS_LAMBDA_LOG_STREAM_NAME: "2026/01/01/[$LATEST]0123456789abcdef0123456789abcdef",
    AWS_LAMBDA_LOG_FORMAT: logFormat,
    ...(logLevel === undefined ? {} : { AWS_LAMBDA_LOG_LEVEL: logLevel }),
    AWS_REGION: region,
    AWS_DEFAULT_REGION: region,
    AWS_ACCESS_KEY_ID: options.accessKeyId,
    AWS_SECRET_ACCESS_KEY: "secret",
    AWS_SESSION_TOKEN: "session",
    AWS_ENDPOINT_URL: options.endpoint,
  };
}

/** Hears the process in the order in which it speaks. */
function createSignals() {
  const told: Signal[] = [];
  let waiting: ((signal: Signal) => void) | undefined;
  return {
    tell(signal: Signal): void {
      if (waiting === undefined) told.push(signal);
      else waiting(signal);
    },
    async hear(untilMs: number): Promise<Signal | undefined> {
      const [first] = told.splice(0, 1);
      if (first !== undefined) return first;
      const { promise, resolve } = Promise.withResolvers<Signal>();
      waiting = resolve;
      const waited = new AbortController();
      const tooLate = sleep(untilMs, undefined, { signal: waited.signal }).catch(() => undefined);
      try {
        return await Promise.race([promise, tooLate]);
      } finally {
        waiting = undefined;
        waited.abort();
      }
    },
  };
}

/** The Runtime API: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html */
async function serveApi(request: IncomingMessage, response: ServerResponse, tell: (signal: Signal) => void) {
  const path = (request.url ?? "").replace(API, "");
  if (request.method === "GET" && path === "/invocation/next") {
    tell({ kind: "polled", give: (headers, body) => void response.writeHead(200, headers).end(body) });
    return;
  }
  const body = await text(request);
  const [, requestId, what] = /^\/invocation\/([\w-]+)\/(response|error)$/.exec(path) ?? [];
  if (requestId !== undefined) tell({ kind: what === "response" ? "answered" : "failed", requestId, body });
  else if (path === "/init/error") tell({ kind: "initFailed", body });
  else return void response.writeHead(404).end();
  response.writeHead(202, { "content-type": "application/json" }).end('{"status":"OK"}');
}

async function peakMemoryMb(pid: number | undefined): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB$/m.exec(status) ?? [];
  return kilobytes === undefined ? undefined : Number(kilobytes) / 1_024;
}
