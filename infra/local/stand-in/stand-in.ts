/** The stand-in for KubeVirt and CDI around a pool: plays their part towards the API server, without any guest. */
import type { Connection } from "../../../shared/clusters/connection.ts";
import { syncClaim, syncDataVolume } from "./data-volumes.ts";
import { ensureInstallation } from "./installation.ts";
import { syncInstance } from "./instances.ts";
import { syncMachine } from "./machines.ts";
import { syncMetrics } from "./metrics.ts";
import { keepNodes } from "./nodes.ts";
import { RefusedError } from "./requests.ts";
import { createWorkQueue, type WorkQueue } from "./work-queue.ts";
import { isPart, keysOfAll, openWorld, type Part, type World } from "./world.ts";

const CONCURRENCY_MAX = 8;
const START_BACKOFF_MS = 2_000;

export interface StandInLog {
  info(message: string, fields?: Readonly<Record<string, unknown>>): void;
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void;
}

export interface StandInOptions {
  /** To an API server that has the custom resources; opened and closed by the caller. */
  readonly connection: Connection;
  readonly log: StandInLog;
  /** Stops the stand-in, as `stop` does. */
  readonly signal: AbortSignal;
  /** Epoch milliseconds. */
  readonly clock?: () => number;
  /** Pause after the first failed start; it grows with the square of the failures. */
  readonly startBackoffMs?: number;
}

export interface StandIn {
  /** Ends all watches and writes, and waits until nothing is under way. What is in the cluster stays as it is. */
  stop(): Promise<void>;
}

/** What each part does for one key. */
const SYNC: Readonly<Record<Part, (world: World, key: string) => Promise<void>>> = {
  machine: syncMachine,
  instance: syncInstance,
  dataVolume: syncDataVolume,
  claim: syncClaim,
  metrics: syncMetrics,
};

/** Starts the stand-in; resolves when it has seen everything there is and its nodes are ready. */
export async function startStandIn(options: StandInOptions): Promise<StandIn> {
  const { connection, log, clock: now = Date.now, startBackoffMs = START_BACKOFF_MS } = options;
  const stopping = new AbortController();
  const signal = AbortSignal.any([options.signal, stopping.signal]);
  const onError = warnOncePerKind(log);
  await ensureInstallation(connection, signal);
  let isSynced = false;
  const queue: WorkQueue = createWorkQueue({
    concurrencyMax: CONCURRENCY_MAX,
    work: (entry) => workOn(world, entry),
    onError: (entry, error) => onError(`work on ${entry.split(" ")[0]}`, error),
  });
  const world = openWorld({
    connection,
    signal,
    onError,
    now,
    startBackoffMs,
    // Half a picture never leads to a write.
    add: (part, key) => isSynced && queue.add(`${part} ${key}`),
    addAfter: (part, key, delayMs) => queue.addAfter(`${part} ${key}`, delayMs),
  });
  const nodes = keepNodes({ connection, signal, now, onError });
  const { machines, instances, dataVolumes, claims, pods, pools, kubeVirts } = world;
  const following = [machines, instances, dataVolumes, claims, pods, pools, kubeVirts, nodes];
  const stop = async () => {
    stopping.abort(new Error("the stand-in stops"));
    await Promise.all([queue.stop(), ...following.map(({ ended }) => ended)]);
  };
  try {
    await unlessAborted(Promise.all(following.map(({ synced }) => synced)), signal);
  } catch (error) {
    await stop();
    throw error;
  }
  isSynced = true;
  for (const [part, key] of keysOfAll(world)) queue.add(`${part} ${key}`);
  log.info("stand-in for KubeVirt started");
  return { stop };
}

async function workOn(world: World, entry: string): Promise<void> {
  const [part = "", key = ""] = entry.split(" ");
  if (!isPart(part)) throw new Error(`unknown part ${part}`);
  await SYNC[part](world, key);
}

async function unlessAborted(promise: Promise<unknown>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  await Promise.race([promise, aborted.promise]).finally(() => signal.removeEventListener("abort", onAbort));
}

/** Races with other writers are part of the game; anything else is worth one line a kind. */
function warnOncePerKind(log: StandInLog): (operation: string, error: unknown) => void {
  const seen = new Set<string>();
  return (operation, error) => {
    if (error instanceof RefusedError && error.isStale) return;
    const name = error instanceof Error ? error.name : "";
    const cause = error instanceof RefusedError ? `${error.status} ${error.reason}` : name;
    const kind = `${operation} ${cause}`;
    if (seen.has(kind)) return;
    seen.add(kind);
    const message = error instanceof Error ? error.message : String(error);
    log.warn("the stand-in failed and tries again", { operation, error: message });
  };
}
