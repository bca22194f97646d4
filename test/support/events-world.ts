/** A cluster whose API server tells the functions of changes, wired as `npm start` wires it; every part can be restarted on its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { WEBHOOK_CONFIGURATIONS } from "../../infra/kubernetes/webhooks.ts";
import { findBinaries } from "../../infra/local/control-plane/binaries.ts";
import { startControlPlane } from "../../infra/local/control-plane/control-plane.ts";
import { applyManifests, readManifests, waitForCrds } from "../../infra/local/control-plane/manifests.ts";
import { listenForEvents } from "../../infra/local/events-listener.ts";
import { type LocalRuntime, startRuntime } from "../../infra/local/runtime/runtime.ts";
import { startStandIn } from "../../infra/local/stand-in/stand-in.ts";
import type { ClusterAccess } from "../../shared/clusters/access.ts";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";
import type { Registry } from "../../shared/clusters/registry.ts";
import type { Fields, Logger } from "../../shared/runtime/logger.ts";
import { type CommandOutcome, run } from "./command.ts";
import { parseList, parseObject } from "./objects.ts";
import { processesWith } from "./processes.ts";
import { type KubectlOptions, type LogLine, type Namespace, ROOT, type SeenPass } from "./world.ts";

const CLUSTER_NAME = "local";
const CRDS = ["kubevirts", "virtualmachines", "virtualmachineinstances", "datavolumes", "virtualmachinepools"];
const REQUEST_TIMEOUT_MS = 30_000;
const READY_TIMEOUT_MS = 60_000;
const POLL_MS = 100;
/** What the functions log when something happens that should not. */
const FAULTS = new Set(["pass failed", "function failed", "resync failed", "dead letter", "message is not a wake-up"]);

export interface FunctionsOptions {
  /** Between ticks of the schedule; 0 switches it off. */
  readonly resyncSeconds: number;
}

/** A pass, and what woke it. */
export interface WokenPass extends SeenPass {
  readonly cause: string;
  readonly durationMs: number;
}

export interface EventsWorld {
  readonly connection: Connection;
  /** Passes of the functions, oldest first. */
  readonly passes: readonly WokenPass[];
  /** Requests that each function was called with from outside. */
  readonly calls: ReadonlyMap<string, number>;
  readonly logged: readonly LogLine[];
  kubectl(...args: readonly string[]): Promise<string>;
  tryKubectl(args: readonly string[], options?: KubectlOptions): Promise<CommandOutcome>;
  /** A new namespace, which stays. */
  aNamespace(labels?: Readonly<Record<string, string>>): Promise<Namespace>;
  namespace(name: string): Namespace;
  /** The functions serve from here on; those that ran before are stopped. */
  startFunctions(options: FunctionsOptions): Promise<void>;
  /** Nobody answers the API server's requests any more, and all that waits in queues is lost. */
  stopFunctions(): Promise<void>;
  /** Applies the webhook configurations, or deletes them: what is left are audit events. */
  setAdmission(on: boolean): Promise<void>;
  /** Ends the API server by SIGKILL and starts it again at its address. */
  restartApiServer(): Promise<void>;
  /** Stops everything; throws when a function has failed for a reason that it did not know. */
  stop(): Promise<void>;
}

export interface EventsWorldOptions {
  /** Hears of what takes its time. */
  readonly onProgress?: (step: string) => void;
}

/** Starts everything but the functions, in a temporary folder. */
export async function startEventsWorld({ onProgress }: EventsWorldOptions = {}): Promise<EventsWorld> {
  const dir = await mkdtemp(join(tmpdir(), "events-"));
  const signal = new AbortController().signal;
  onProgress?.("starting a control plane");
  const binaries = await findBinaries({ env: process.env, onProgress: () => undefined, signal });
  const crds = (
    await Promise.all(CRDS.map((name) => readManifests(join(ROOT, `infra/local/crds/${name}.yaml`))))
  ).flat();
  const events = await listenForEvents(dir, CLUSTER_NAME);
  const plane = await startControlPlane({
    dir,
    binaries,
    extraApiserverFlags: events.apiserverFlags,
    onProgress: () => undefined,
    signal,
    beforeControllers: async (access, inner) => {
      const connection = openConnection(access);
      await applyManifests(connection, crds, { signal: inner });
      await waitForCrds(connection, crds, { signal: inner });
      await connection.close();
    },
  });
  const connection = openConnection(plane.access);
  const logged: LogLine[] = [];
  const logger = createListLogger(logged);
  onProgress?.("starting the stand-in for KubeVirt");
  const standIn = await startStandIn({ connection, log: logger, signal });
  const passes: WokenPass[] = [];
  const calls = new Map<string, number>();
  const env = { ...process.env, HOME: dir, KUBECONFIG: plane.kubeconfigPath };
  const tryKubectl: EventsWorld["tryKubectl"] = (args, options = {}) =>
    run(binaries.kubectl, args, { stdin: options.stdin ?? "", env: { ...env, ...options.env } });
  const client: Client = { connection, tryKubectl };
  let functions: LocalRuntime | undefined;
  let apiServer: ChildProcess | undefined;
  const stopFunctions = async () => {
    events.serve([]);
    await functions?.stop();
    functions = undefined;
  };
  const setAdmission = async (on: boolean) => {
    if (on) return applyManifests(connection, events.manifests, { signal });
    for (const name of WEBHOOK_CONFIGURATIONS)
      await kubectl(client, ["delete", "validatingwebhookconfiguration", name]);
  };
  await setAdmission(true);
  return {
    connection,
    passes,
    calls,
    logged,
    kubectl: (...args) => kubectl(client, args),
    tryKubectl,
    aNamespace: (labels) => createNamespace(client, labels),
    namespace: (name) => namespaceOf(client, name),
    async startFunctions({ resyncSeconds }) {
      await stopFunctions();
      functions = startRuntime({
        registry: registryOf(plane.access, events.webhook),
        deployment: CLUSTER_NAME,
        resyncSeconds,
        wakeEverything: false,
        logger,
        onPass: ({ cause, namespace, name }, result, meter, durationMs) =>
          void passes.push({ pool: { namespace, name }, cause, result, meter: { ...meter }, durationMs }),
      });
      events.serve(
        functions.eventRoutes.map((route) => ({
          ...route,
          handle: (event, context) => {
            calls.set(route.functionName, (calls.get(route.functionName) ?? 0) + 1);
            return route.handle(event, context);
          },
        })),
      );
    },
    stopFunctions,
    setAdmission,
    async restartApiServer() {
      const [entry] = processesWith(`--secure-port=${new URL(plane.server).port} `);
      if (entry === undefined) throw new Error("there is no API server");
      const [command = "", ...args] = entry.command.split(" ");
      process.kill(entry.pid, "SIGKILL");
      while (processesWith(`--secure-port=${new URL(plane.server).port} `).length > 0) await sleep(POLL_MS);
      apiServer = spawn(command, args, { env: { PATH: "/usr/bin:/bin" }, stdio: "ignore" });
      await untilServing(connection);
    },
    async stop() {
      await stopFunctions();
      await standIn.stop();
      await connection.close();
      if (apiServer !== undefined) {
        const ended = once(apiServer, "exit");
        apiServer.kill("SIGKILL");
        await ended;
      }
      await plane.stop();
      await events.close();
      await rm(dir, { recursive: true, force: true });
      const faults = logged.filter(({ message }) => FAULTS.has(message));
      if (faults.length > 0) throw new Error(`the functions failed: ${JSON.stringify(faults.slice(0, 5))}`);
    },
  };
}

interface Client {
  readonly connection: Connection;
  readonly tryKubectl: EventsWorld["tryKubectl"];
}

async function kubectl({ tryKubectl }: Client, args: readonly string[], stdin = ""): Promise<string> {
  const { ok, stdout, stderr } = await tryKubectl(args, { stdin });
  if (!ok) throw new Error(`kubectl ${args.join(" ")}: ${stderr}`);
  return stdout;
}

async function createNamespace(client: Client, labels: Readonly<Record<string, string>> = {}): Promise<Namespace> {
  const body = { apiVersion: "v1", kind: "Namespace", metadata: { generateName: "test-", labels } };
  const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  const answer = await client.connection.send({ method: "POST", path: "/api/v1/namespaces", body, signal });
  return namespaceOf(client, parseObject(answer.body).metadata.name);
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

function registryOf(access: ClusterAccess, webhook: Awaited<ReturnType<Registry["webhook"]>>): Registry {
  return {
    names: async () => [CLUSTER_NAME],
    access: async (name) => (name === CLUSTER_NAME ? access : undefined),
    webhook: async (name) => (name === CLUSTER_NAME ? webhook : undefined),
  };
}

async function untilServing({ send }: Connection): Promise<void> {
  const deadline = AbortSignal.timeout(READY_TIMEOUT_MS);
  for (;;) {
    const answer = await send({ method: "GET", path: "/readyz", signal: deadline }).catch(() => undefined);
    if (answer?.status === 200) return;
    await sleep(POLL_MS, undefined, { signal: deadline });
  }
}

function createListLogger(lines: LogLine[]): Logger {
  const write =
    (level: LogLine["level"]) =>
    (message: string, fields: Fields = {}) => {
      if (level !== "debug") lines.push({ level, message, fields });
    };
  return { debug: write("debug"), info: write("info"), warn: write("warn"), error: write("error") };
}
