/** A cluster with the functions for one test file: control plane, custom resources, stand-in, runtime; and short ways to use it. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { TestContext } from "vitest";
import { createReconcile, type ReconcileDeps } from "../../functions/reconcile.ts";
import { startLocalCluster } from "../../infra/local/cluster.ts";
import { findBinaries } from "../../infra/local/control-plane/binaries.ts";
import { type EventsListener, listenForEvents } from "../../infra/local/events-listener.ts";
import { lambdaContext } from "../../infra/local/runtime/lambda-context.ts";
import { startRuntime } from "../../infra/local/runtime/runtime.ts";
import { startStandIn } from "../../infra/local/stand-in/stand-in.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import type { Meter } from "../../shared/clusters/cluster.ts";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";
import { createDirectory } from "../../shared/clusters/directory.ts";
import type { PassResult } from "../../shared/clusters/reconcile-pool.ts";
import type { Registry } from "../../shared/clusters/registry.ts";
import type { Fields, Logger } from "../../shared/runtime/logger.ts";
import { type CommandOutcome, run } from "./command.ts";
import { type KubeObject, parseList, parseObject } from "./objects.ts";
import { processesWith } from "./processes.ts";

/** The first run of all may build the programs. */
export const WORLD_TIMEOUT_MS = 30 * 60_000;
/** The cluster, as the functions know it. */
export const CLUSTER_NAME = "local";
/** The same cluster, of which passes only plan. */
const OBSERVED_NAME = "observed";
const REQUEST_TIMEOUT_MS = 30_000;
const READY_TIMEOUT_MS = 120_000;
const POLL_MS = 100;
const RESTARTS_MAX = 30;
const RESTART_PAUSE_MS = 2_000;
/** What the functions log when something happens that should not. */
const FAULTS = new Set(["pass failed", "function failed", "resync failed", "dead letter", "message is not a wake-up"]);

/** Folder of the project. */
export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

export interface WorldOptions {
  /** Plays KubeVirt's part. */
  readonly standIn?: boolean;
  /** Drives the functions by the schedule. */
  readonly functions?: boolean;
}

export interface LogLine {
  readonly level: keyof Logger;
  readonly message: string;
  readonly fields: Fields;
}

/** A pass: what woke it, what it decided and what it has cost. */
export interface SeenPass {
  readonly pool: PoolPlace;
  readonly cause: string;
  readonly result: PassResult;
  readonly meter: Readonly<Meter>;
  readonly durationMs: number;
}

export interface PoolPlace {
  readonly namespace: string;
  readonly name: string;
}

export interface PassOptions {
  /** With the metadata of all machines of the namespace. */
  readonly wide: boolean;
  /** Looks and plans, but writes nothing. */
  readonly observe?: boolean;
}

/** The part of a test's context by which it cleans up; tests that run concurrently each have their own. */
export type Finishing = Pick<TestContext, "onTestFinished">;

export interface KubectlOptions {
  readonly stdin?: string;
  /** Beside the usual ones. */
  readonly env?: NodeJS.ProcessEnv;
}

/** A cluster, as tests use it. */
export interface ClusterUse {
  readonly dir: string;
  /** As `admin`. */
  readonly access: ServerAccess;
  /** As the functions. */
  readonly functionsAccess: ServerAccess;
  /** As `admin`. */
  readonly connection: Connection;
  readonly kubeconfigPath: string;
  readonly kubectlPath: string;
  /** What the functions logged, oldest first. */
  readonly logged: readonly LogLine[];
  /** Runs kubectl as a user would; what it printed. Throws what it said when it failed. */
  kubectl(...args: readonly string[]): Promise<string>;
  tryKubectl(args: readonly string[], options?: KubectlOptions): Promise<CommandOutcome>;
  /** A new namespace; it stays, unless it is given the test at whose end it is deleted. */
  aNamespace(test?: Finishing, labels?: Readonly<Record<string, string>>): Promise<Namespace>;
  /** The namespace of that name, which stays. */
  namespace(name: string): Namespace;
  /** Ends the API server by SIGKILL and starts it again at its address, after a while if that is given. */
  restartApiServer(awayMs?: number): Promise<void>;
  /** Stops everything; throws when a function has failed for a reason that it did not know. */
  stop(): Promise<void>;
}

/** With functions that the schedule alone drives. */
export interface World extends ClusterUse {
  /** Passes of the functions that the schedule drives, oldest first. */
  readonly passes: readonly SeenPass[];
  /** Runs one pass of a pool by the exported handler, apart from the schedule's. */
  runPass(pool: PoolPlace, options: PassOptions): Promise<SeenPass>;
  /** Another deployment's runtime on the same cluster, for these namespaces alone if they are given. */
  startFunctions(deployment: string, namespaces?: readonly string[]): { stop(): Promise<void> };
}

export interface Namespace {
  readonly name: string;
  /** Runs kubectl in the namespace. */
  kubectl(...args: readonly string[]): Promise<string>;
  /** `kubectl create -f -`. */
  create(...objects: readonly object[]): Promise<void>;
  pool(name: string): Promise<KubeObject | undefined>;
  machine(name: string): Promise<KubeObject | undefined>;
  machines(): Promise<readonly KubeObject[]>;
  /** Any object by its group and version (`apis/apps/v1`), plural and name. */
  find(groupVersion: string, plural: string, name: string): Promise<KubeObject | undefined>;
  list(groupVersion: string, plural: string): Promise<readonly KubeObject[]>;
}

export interface TestClusterOptions {
  /** Plays KubeVirt's part. */
  readonly standIn: boolean;
  /** The API server tells a listener of changes. */
  readonly webhooks: boolean;
  /** More flags of the API server. */
  readonly apiserverFlags?: readonly string[];
  /** Hears of what takes its time. */
  readonly onProgress?: (step: string) => void;
}

/** A cluster without functions, and what those who start functions on it need. */
export interface TestCluster extends ClusterUse {
  readonly events: EventsListener | undefined;
  readonly logger: Logger;
  /** Done in reverse order by `stop`. */
  readonly cleanups: (() => Promise<void>)[];
}

/** Starts a cluster in a temporary folder. */
export async function startTestCluster(options: TestClusterOptions): Promise<TestCluster> {
  const { standIn, webhooks, apiserverFlags = [], onProgress } = options;
  const dir = await mkdtemp(join(tmpdir(), "end-to-end-"));
  const signal = new AbortController().signal;
  onProgress?.("starting a control plane");
  const binaries = await findBinaries({ env: process.env, onProgress: () => undefined, signal });
  const events = webhooks ? await listenForEvents(dir, CLUSTER_NAME) : undefined;
  const changes = events ?? { apiserverFlags: [], manifests: [] };
  const flags = { ...changes, apiserverFlags: [...changes.apiserverFlags, ...apiserverFlags] };
  const plane = await startLocalCluster({ dir, binaries, events: flags, onProgress: () => undefined, signal });
  const connection = openConnection(plane.access);
  const logged: LogLine[] = [];
  const logger = createListLogger(logged);
  const apiServer = restartableApiServer(plane.server, connection);
  const cleanups: TestCluster["cleanups"] = [
    async () => events?.close(),
    () => plane.stop(),
    () => apiServer.stop(),
    () => connection.close(),
  ];
  if (standIn) {
    onProgress?.("starting the stand-in for KubeVirt");
    const running = await startStandIn({ connection, log: logger, signal });
    cleanups.push(() => running.stop());
  }
  const env = { ...process.env, HOME: dir, KUBECONFIG: plane.kubeconfigPath };
  const tryKubectl: ClusterUse["tryKubectl"] = (args, given = {}) =>
    run(binaries.kubectl, args, { stdin: given.stdin ?? "", env: { ...env, ...given.env } });
  const client: Client = { connection, tryKubectl };
  return {
    dir,
    access: plane.access,
    functionsAccess: plane.functionsAccess,
    connection,
    kubeconfigPath: plane.kubeconfigPath,
    kubectlPath: binaries.kubectl,
    events,
    logged,
    logger,
    cleanups,
    kubectl: (...args) => kubectl(client, args),
    tryKubectl,
    aNamespace: (test, labels = {}) => createNamespace(client, test, labels),
    namespace: (name) => namespaceOf(client, name),
    restartApiServer: apiServer.restart,
    async stop() {
      for (const cleanup of cleanups.toReversed()) await cleanup();
      await rm(dir, { recursive: true, force: true });
      const faults = logged.filter(({ message }) => FAULTS.has(message));
      if (faults.length > 0) throw new Error(`the functions failed: ${JSON.stringify(faults.slice(0, 5))}`);
    },
  };
}

/** Starts everything in a temporary folder. */
export async function startWorld({ standIn = true, functions = true }: WorldOptions = {}): Promise<World> {
  const cluster = await startTestCluster({ standIn, webhooks: false });
  const { cleanups, functionsAccess, logger } = cluster;
  const passes: SeenPass[] = [];
  const onPass: ReconcileDeps["onPass"] = (...pass) => void passes.push(seenPass(...pass));
  const startFunctions: World["startFunctions"] = (deployment, namespaces) => {
    const access = namespaces === undefined ? functionsAccess : { ...functionsAccess, namespaces: [...namespaces] };
    return startRuntimeFor(access, { deployment, logger, onPass });
  };
  if (functions) {
    const runtime = startFunctions(CLUSTER_NAME);
    cleanups.push(() => runtime.stop());
  }
  const runner = createPassRunner(functionsAccess, logger);
  cleanups.push(() => runner.close());
  return { ...cluster, passes, runPass: runner.run, startFunctions };
}

/** What `onPass` is told. */
export function seenPass(
  ...[key, result, meter, durationMs]: Parameters<NonNullable<ReconcileDeps["onPass"]>>
): SeenPass {
  const { namespace, name, cause } = key;
  return { pool: { namespace, name }, cause, result, meter: { ...meter }, durationMs };
}

/** The API server can be ended by SIGKILL and comes back at its address, as a child of this process. */
function restartableApiServer(server: string, connection: Connection) {
  const itsFlag = `--secure-port=${new URL(server).port} `;
  let restarted: ChildProcess | undefined;
  return {
    async restart(awayMs = 0) {
      const [entry] = processesWith(itsFlag);
      if (entry === undefined) throw new Error("there is no API server");
      const [command = "", ...args] = entry.command.split(" ");
      process.kill(entry.pid, "SIGKILL");
      while (processesWith(itsFlag).length > 0) await sleep(POLL_MS);
      await sleep(awayMs);
      // Somebody's connection may have its port for a while: then it ends at once.
      for (let attempt = 0; attempt < RESTARTS_MAX; attempt += 1) {
        restarted = spawn(command, args, { env: { PATH: "/usr/bin:/bin" }, stdio: "ignore" });
        if (await comesToServe(restarted, connection)) return;
        await sleep(RESTART_PAUSE_MS);
      }
      throw new Error("the API server does not come back");
    },
    async stop() {
      if (restarted === undefined || hasEnded(restarted)) return;
      const ended = once(restarted, "exit");
      restarted.kill("SIGKILL");
      await ended;
    },
  };
}

/** False when the process has ended before. */
async function comesToServe(child: ChildProcess, { send }: Connection): Promise<boolean> {
  const deadline = AbortSignal.timeout(READY_TIMEOUT_MS);
  while (!hasEnded(child)) {
    const answer = await send({ method: "GET", path: "/readyz", signal: deadline }).catch(() => undefined);
    if (answer?.status === 200) return true;
    await sleep(POLL_MS, undefined, { signal: deadline });
  }
  return false;
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

interface Client {
  readonly connection: Connection;
  readonly tryKubectl: ClusterUse["tryKubectl"];
}

async function kubectl({ tryKubectl }: Client, args: readonly string[], stdin = ""): Promise<string> {
  const { ok, stdout, stderr } = await tryKubectl(args, { stdin });
  if (!ok) throw new Error(`kubectl ${args.join(" ")}: ${stderr}`);
  return stdout;
}

async function createNamespace(
  client: Client,
  test: Finishing | undefined,
  labels: Readonly<Record<string, string>>,
): Promise<Namespace> {
  const name = `test-${randomUUID().slice(0, 8)}`;
  const signal = () => AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  const body = { apiVersion: "v1", kind: "Namespace", metadata: { name, labels } };
  const { send } = client.connection;
  const { status } = await send({ method: "POST", path: "/api/v1/namespaces", body, signal: signal() });
  if (status !== 201) throw new Error(`the namespace ${name} was refused: ${status}`);
  test?.onTestFinished(async () => {
    await send({ method: "DELETE", path: `/api/v1/namespaces/${name}`, signal: signal() });
  });
  return namespaceOf(client, name);
}

function namespaceOf(client: Client, name: string): Namespace {
  const read = async (path: string): Promise<unknown> => {
    const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    const { status, body } = await client.connection.send({ method: "GET", path, signal });
    if (status === 404) return undefined;
    if (status !== 200) throw new Error(`GET ${path}: ${status} ${JSON.stringify(body)}`);
    return body;
  };
  const find: Namespace["find"] = async (groupVersion, plural, object) => {
    const body = await read(`/${groupVersion}/namespaces/${name}/${plural}/${object}`);
    return body === undefined ? undefined : parseObject(body);
  };
  const list: Namespace["list"] = async (groupVersion, plural) =>
    parseList(await read(`/${groupVersion}/namespaces/${name}/${plural}`)).items;
  return {
    name,
    kubectl: (...args) => kubectl(client, ["--namespace", name, ...args]),
    async create(...objects) {
      const stdin = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
      await kubectl(client, ["--namespace", name, "create", "-f", "-"], stdin);
    },
    pool: (pool) => find("apis/pool.kubevirt.io/v1beta1", "virtualmachinepools", pool),
    machine: (machine) => find("apis/kubevirt.io/v1", "virtualmachines", machine),
    machines: () => list("apis/kubevirt.io/v1", "virtualmachines"),
    find,
    list,
  };
}

function createListLogger(lines: LogLine[]): Logger {
  const write =
    (level: LogLine["level"]) =>
    (message: string, fields: Fields = {}) => {
      if (level !== "debug") lines.push({ level, message, fields });
    };
  return { debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
}

/** Clusters by name; all of them take events by the same secrets. */
export function registryOf(
  clusters: Readonly<Record<string, ServerAccess>>,
  webhook?: Awaited<ReturnType<Registry["webhook"]>>,
): Registry {
  return {
    names: async () => Object.keys(clusters),
    access: async (name) => clusters[name],
    webhook: async (name) => (Object.hasOwn(clusters, name) ? webhook : undefined),
  };
}

function startRuntimeFor(
  access: ServerAccess,
  options: Pick<Parameters<typeof startRuntime>[0], "deployment" | "logger" | "onPass">,
) {
  return startRuntime({
    ...options,
    registry: registryOf({ [CLUSTER_NAME]: access }),
    resyncSeconds: 1,
    wakeEverything: true,
  });
}

/** One warm instance of `reconcile` whose wake-ups and facts go nowhere. */
function createPassRunner(access: ServerAccess, logger: Logger) {
  const now = Date.now;
  const registry = registryOf({ [CLUSTER_NAME]: access, [OBSERVED_NAME]: { ...access, mode: "observe" } });
  const directory = createDirectory({ registry, now });
  const runPass = async (pool: PoolPlace, options: PassOptions): Promise<SeenPass> => {
    const { promise, resolve } = Promise.withResolvers<SeenPass>();
    const deps: ReconcileDeps = {
      directory,
      wakeUps: { send: async () => [] },
      facts: { publishReconciled: async () => true },
      deployment: CLUSTER_NAME,
      stopped: false,
      now,
      sleep: async () => undefined,
      nonce: randomUUID,
      logger,
      onPass: (...pass) => resolve(seenPass(...pass)),
    };
    const handler = createReconcile(() => deps);
    const response = await handler(passEvent(pool, options), lambdaContext("reconcile", 60_000));
    if (response.batchItemFailures.length > 0) throw new Error("the pass failed");
    return promise;
  };
  return {
    run: runPass,
    async close() {
      for (const name of await directory.names()) await (await directory.find(name))?.connection.close();
    },
  };
}

/** What Lambda's poller makes of one wake-up. */
function passEvent({ namespace, name }: PoolPlace, { wide, observe = false }: PassOptions): object {
  const cause = wide ? "sweep" : "resync";
  const cluster = observe ? OBSERVED_NAME : CLUSTER_NAME;
  return {
    Records: [
      {
        messageId: randomUUID(),
        receiptHandle: "receipt",
        body: JSON.stringify({ version: 1, cluster, namespace, name, cause, attempt: 0 }),
        attributes: {
          ApproximateReceiveCount: "1",
          SentTimestamp: String(Date.now()),
          SenderId: "test",
          ApproximateFirstReceiveTimestamp: String(Date.now()),
        },
        messageAttributes: {},
        md5OfBody: "",
        eventSource: "aws:sqs",
        eventSourceARN: "arn:aws:sqs:local:000000000000:passes.fifo",
        awsRegion: "local",
      },
    ],
  };
}
