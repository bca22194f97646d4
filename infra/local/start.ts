/** `npm start`: brings everything up, shows it, runs until Ctrl-C and leaves no process behind. */
import { randomBytes } from "node:crypto";
import { createWriteStream } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { createCluster } from "../../shared/clusters/cluster.ts";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";
import { readsOnly } from "../../shared/clusters/foresee.ts";
import { lookForInTreeController } from "../../shared/clusters/in-tree-controller.ts";
import { KubeconfigError, readKubeconfig } from "../../shared/clusters/kubeconfig.ts";
import { createFileRegistry, type RegistryFile } from "../../shared/clusters/registry.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { parsePool } from "../../shared/planning/model.ts";
import { environment } from "../../shared/runtime/config.ts";
import { describeError, type Fields, type Logger } from "../../shared/runtime/logger.ts";
import { startLocalCluster } from "./cluster.ts";
import { type Console, createConsole } from "./console.ts";
import { findBinaries } from "./control-plane/binaries.ts";
import { writeAtomically } from "./control-plane/files.ts";
import { readManifests } from "./control-plane/manifests.ts";
import { beginStep } from "./control-plane/progress.ts";
import { SetupError } from "./control-plane/setup-error.ts";
import { type EventsListener, listenForEvents } from "./events-listener.ts";
import { listen } from "./http.ts";
import { parseOptions, type StartOptions } from "./options.ts";
import { type LocalRuntime, startRuntime } from "./runtime/runtime.ts";
import { startStandIn } from "./stand-in/stand-in.ts";

const CLUSTER_NAME = "local";
const DEPLOYMENT = "local";
const EXAMPLE = "infra/examples/vm-pool-cirros.yaml";
const POOL_PATH = "/apis/pool.kubevirt.io/v1beta1/namespaces/default/virtualmachinepools";
const POOL_NAME = "vm-pool-cirros";
const READY_TIMEOUT_MS = 120_000;
const POLL_MS = 250;
const REACH_TIMEOUT_MS = 10_000;
/** The longest that a stop may take. */
const STOP_TIMEOUT_MS = 12_000;

/** Things to stop, in reverse order of starting. */
type Cleanups = (() => Promise<void>)[];

interface Session {
  readonly options: StartOptions;
  readonly shown: Console;
  readonly signal: AbortSignal;
  readonly cleanups: Cleanups;
  readonly startedAt: number;
}

const shown = createConsole(process.stdout, process.stderr);
const parsed = parseOptions(process.argv.slice(2));
if (parsed.kind === "help") {
  process.stdout.write(parsed.text);
} else if (parsed.kind === "wrong") {
  shown.error(`${parsed.message}. See npm start -- --help`);
  process.exitCode = 2;
} else {
  process.exitCode = await run(parsed.options);
  process.exit();
}

/** Runs a whole session; returns the exit code. Ctrl-C and SIGTERM are the ordinary end. */
async function run(options: StartOptions): Promise<number> {
  const ending = new AbortController();
  const end = () => {
    ending.abort();
    // Whatever does not heed the signal: the processes that we started end with us.
    setTimeout(() => process.exit(0), STOP_TIMEOUT_MS).unref();
  };
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, end);
  const session: Session = { options, shown, signal: ending.signal, cleanups: [], startedAt: performance.now() };
  let code = 0;
  try {
    code = await serve(session);
  } catch (error) {
    if (!ending.signal.aborted) {
      shown.error(explain(error));
      code = 1;
    }
  }
  shown.endLive();
  // The listener alone is gone at once; processes take a second.
  if (session.cleanups.length > 1) shown.line("stopping …");
  for (const cleanup of session.cleanups.reverse()) {
    await cleanup().catch((error: unknown) => shown.error(`while stopping: ${explain(error)}`));
  }
  return code;
}

function explain(error: unknown): string {
  if (error instanceof SetupError) return `${error.message}: ${error.advice}`;
  if (error instanceof KubeconfigError) return error.message;
  const { error: name, message } = describeError(error);
  return `${name}: ${message}`;
}

async function serve(session: Session): Promise<number> {
  const { options, signal } = session;
  const dir = resolve(options.dir);
  await mkdir(join(dir, "logs"), { recursive: true, mode: 0o700 }).catch((error: unknown) => {
    throw new SetupError(
      `the folder ${options.dir} cannot be made`,
      `choose another with --dir PATH (${describeError(error)["message"]})`,
    );
  });
  const token = await ensureToken(join(dir, "token"));
  let ready = false;
  let routes: LocalRuntime["routes"] = [];
  const http = await listen({ port: options.port, token, isReady: () => ready, routes: () => routes });
  session.cleanups.push(() => http.close());
  const cluster =
    options.kubeconfig === undefined
      ? await startOwnCluster(session, dir)
      : await useCluster(session, options.kubeconfig);
  const runtime = await startFunctions(session, { dir, cluster });
  session.cleanups.push(() => runtime.stop());
  routes = runtime.routes;
  cluster.events?.serve(runtime.eventRoutes);
  if (options.example) await createExample(cluster.connection, signal);
  const good = options.example ? await showPool(session, cluster.connection) : true;
  ready = true;
  sayReady(session, http.url);
  if (options.exitWhenReady) return good ? 0 : 1;
  return waitForEnd(session, cluster.died, signal);
}

interface ServedCluster {
  /** The functions' own. */
  readonly access: ServerAccess;
  readonly connection: Connection;
  readonly died: Promise<string>;
  /** Undefined when the cluster tells of nothing. */
  readonly events: EventsListener | undefined;
}

async function startOwnCluster({ options, shown, signal, cleanups }: Session, dir: string): Promise<ServedCluster> {
  const onProgress = shown.progress;
  const binaries = await findBinaries({ env: environment, onProgress, signal });
  const events = options.webhooks ? await listenForEvents(dir, CLUSTER_NAME) : undefined;
  if (events !== undefined) cleanups.push(() => events.close());
  const plane = await startLocalCluster({ dir, binaries, events, onProgress, signal });
  cleanups.push(() => plane.stop());
  const connection = openConnection(plane.access);
  cleanups.push(() => connection.close());
  if (options.standIn) {
    const step = beginStep(onProgress, "starting the stand-in for KubeVirt");
    const log = createFileLogger(join(dir, "logs", "stand-in.log"));
    const standIn = await startStandIn({ connection, log, signal });
    cleanups.push(() => standIn.stop());
    step.finish();
  }
  return { access: plane.functionsAccess, connection, died: plane.died, events };
}

/** Creates the example pool unless it is there: a pool that somebody has changed since stays as it is. */
async function createExample(connection: Connection, signal: AbortSignal): Promise<void> {
  const [example] = await readManifests(EXAMPLE);
  const path = POOL_PATH.replace("v1beta1", "v1alpha1");
  const { status } = await connection.send({
    method: "POST",
    path: `${path}?fieldManager=vmpool-functions-local`,
    body: example,
    signal,
  });
  if (status >= 300 && status !== 409)
    throw new SetupError(`${EXAMPLE} was refused (HTTP ${status})`, "look at logs/kube-apiserver.log");
}

async function useCluster({ options, shown, signal, cleanups }: Session, kubeconfig: string): Promise<ServedCluster> {
  const access = readKubeconfig(kubeconfig, options.act ? "act" : "observe");
  const connection = openConnection(access);
  cleanups.push(() => connection.close());
  const step = beginStep(shown.progress, `reaching ${access.server}`);
  const timed = AbortSignal.any([signal, AbortSignal.timeout(REACH_TIMEOUT_MS)]);
  const answer = await connection.send({ method: "GET", path: "/version", signal: timed }).catch((error: unknown) => {
    step.fail("no answer");
    const cause =
      isRecord(error) && typeof error["code"] === "string" ? error["code"] : describeError(error)["message"];
    throw new SetupError(
      `the API server ${access.server} cannot be reached (${cause})`,
      "start the cluster, or give --kubeconfig another file",
    );
  });
  if (answer.status !== 200) {
    step.fail(`HTTP ${answer.status}`);
    throw new SetupError(
      `the API server ${access.server} answers HTTP ${answer.status}`,
      "check the credentials of the kubeconfig",
    );
  }
  step.finish();
  if (options.act) await refuseBesideInTreeController(access, connection, timed);
  return { access, connection, died: new Promise(() => {}), events: undefined };
}

/** The same check as of `npm run cluster -- mode NAME act`. */
async function refuseBesideInTreeController(access: ServerAccess, { send }: Connection, deadline: AbortSignal) {
  const meter = { requests: 0, writes: 0, bytes: 0 };
  const cluster = createCluster({ transport: readsOnly(send), meter, deadline, cache: { poolVersion: undefined } });
  const { namespaces } = access;
  const findings = await lookForInTreeController({ cluster, viewer: cluster, namespaces, now: Date.now });
  const against = findings.filter(({ verdict }) => verdict === "bad").map(({ text }) => text);
  if (against.length === 0) return;
  throw new SetupError(
    `the functions must not act in ${access.server}: ${against.join("; ")}`,
    "docs/hand-over.md says what to do; without --act they only plan",
  );
}

async function startFunctions(
  { options, shown }: Session,
  { dir, cluster: { access, events } }: { readonly dir: string; readonly cluster: ServedCluster },
): Promise<LocalRuntime> {
  const path = join(dir, "registry.json");
  const entry = { access, ...(events === undefined ? {} : { webhook: events.webhook }) };
  const registry: RegistryFile = { clusters: { [CLUSTER_NAME]: entry } };
  await writeAtomically(path, `${JSON.stringify(registry, null, 2)}\n`, 0o600);
  return startRuntime({
    registry: createFileRegistry(path),
    deployment: DEPLOYMENT,
    resyncSeconds: options.resyncSeconds,
    wakeEverything: events === undefined,
    logger: createFileLogger(join(dir, "logs", "functions.log")),
    onPass: (key, result) => shown.pass(key, result, !options.act),
  });
}

/** Follows the example pool until it is as wanted; false when it does not get there in time. */
async function showPool({ shown, signal, options }: Session, connection: Connection): Promise<boolean> {
  const giveUpAt = performance.now() + READY_TIMEOUT_MS;
  while (performance.now() < giveUpAt) {
    signal.throwIfAborted();
    const answer = await connection.send({ method: "GET", path: `${POOL_PATH}/${POOL_NAME}`, signal });
    const pool = parsePool(answer.body);
    const desired = pool !== undefined && isRecord(pool.spec) ? Number(pool.spec["replicas"] ?? 1) : Number.NaN;
    const current = pool?.status?.replicas ?? 0;
    const ready = pool?.status?.readyReplicas ?? 0;
    shown.live(`  ${POOL_NAME}: desired ${desired}, current ${current}, ready ${ready}`);
    if (pool?.status !== undefined && current === desired && (ready === desired || !options.standIn)) {
      shown.line(`  ✓ ${POOL_NAME}: desired ${desired}, current ${current}, ready ${ready}`);
      shown.endLive();
      return true;
    }
    await sleep(POLL_MS, undefined, { signal });
  }
  shown.endLive();
  shown.error(
    `${POOL_NAME} is not ready after ${READY_TIMEOUT_MS / 1_000} s: kubectl describe vmpool ${POOL_NAME} says more`,
  );
  return false;
}

function sayReady({ options, shown, startedAt }: Session, url: string): void {
  const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1);
  const place = options.kubeconfig === undefined ? "a local cluster" : `the cluster of ${options.kubeconfig}`;
  const does = options.act ? "" : ", planning only: --act would do what is planned";
  shown.line(`ready in ${seconds} s, serving ${place} (health: ${url}/healthz)${does}`);
  if (options.kubeconfig !== undefined || options.exitWhenReady) return;
  shown.line("");
  shown.line("In another shell:");
  shown.line(`  export KUBECONFIG=${shownPath(options.dir)}/kubeconfig`);
  if (options.example) {
    shown.line("  kubectl get vmpool,vm,vmi,pods");
    shown.line(`  kubectl scale vmpool ${POOL_NAME} --replicas 5`);
    shown.line(`  kubectl delete vm ${POOL_NAME}-1`);
    shown.line(`  kubectl describe vmpool ${POOL_NAME}`);
  } else {
    shown.line(`  kubectl create -f ${EXAMPLE}`);
  }
  shown.line("Ctrl-C stops everything; the data stay for the next start.");
  shown.line("");
}

/** As the user gave it: relative stays relative. */
function shownPath(dir: string): string {
  const path = resolve(dir);
  const fromHere = relative(process.cwd(), path);
  return fromHere.startsWith("..") ? path : fromHere || ".";
}

async function waitForEnd({ shown }: Session, died: Promise<string>, signal: AbortSignal): Promise<number> {
  const ended = new Promise<undefined>((resolve) =>
    signal.addEventListener("abort", () => resolve(undefined), { once: true }),
  );
  const reason = signal.aborted ? undefined : await Promise.race([ended, died]);
  if (reason === undefined) return 0;
  shown.error(`the control plane has ended by itself: ${reason}`);
  return 1;
}

/** Made once and kept, so that clients of an earlier start go on working. */
async function ensureToken(path: string): Promise<string> {
  const existing = await readFile(path, "utf8").catch(() => "");
  if (existing.length >= 32) return existing;
  const token = randomBytes(32).toString("base64url");
  await writeAtomically(path, token, 0o600);
  return token;
}

/** A logger that appends JSON lines to a file. */
function createFileLogger(path: string): Logger {
  const stream = createWriteStream(path, { flags: "a", mode: 0o600 });
  const write =
    (level: string) =>
    (message: string, fields: Fields = {}) => {
      stream.write(`${JSON.stringify({ time: new Date().toISOString(), level, message, ...fields })}\n`);
    };
  return { debug: () => {}, info: write("info"), warn: write("warn"), error: write("error") };
}
