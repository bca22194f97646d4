/**
 * The schedule's function: lists the pools of every registered cluster and wakes those that are due, and now and then those
 * that are gone and have left machines behind. Reads clusters, writes to none.
 */
import * as z from "zod";
import { type Cluster, createCluster, type Meter } from "../shared/clusters/cluster.ts";
import { createDirectory, type Directory, type ReachableCluster } from "../shared/clusters/directory.ts";
import { listPools } from "../shared/clusters/pool-summary.ts";
import { openRegistry } from "../shared/clusters/registry.ts";
import { listAbandoned } from "../shared/clusters/strays.ts";
import { createSqsWakeUps, type Outgoing, type WakeUps } from "../shared/events/wake-ups.ts";
import { parsePool } from "../shared/planning/model.ts";
import { isStalled, type ResyncRules, resyncCause, strayTurn } from "../shared/planning/schedule.ts";
import { readConfig, resyncConfigSchema } from "../shared/runtime/config.ts";
import { createLogger, describeError, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { createStack } from "../shared/runtime/stack.ts";

/** Pools that one line of the log names. */
const NAMED_MAX = 20;
/** Stays below the function's own time-out, so that a slow cluster costs nothing but its own pools. */
const TIME_RESERVE_MS = 5_000;

export interface ResyncDeps {
  readonly directory: Directory;
  readonly wakeUps: WakeUps;
  readonly rules: ResyncRules;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly logger: Logger;
}

export interface ResyncResult {
  readonly clusters: number;
  readonly unreachable: number;
  readonly pools: number;
  /** Pools that are gone included. */
  readonly woken: number;
}

/** EventBridge Scheduler sends what the schedule's input says; nothing of it is needed. */
const tickSchema = z.unknown();

/** Makes the handler. `deps` is called at the first event, so that importing a function reads no environment. */
export function createResync(deps: () => ResyncDeps) {
  return createStack({ name: "resync", event: tickSchema, logger: () => deps().logger }, async (_event, context) => {
    const { directory, wakeUps, logger } = deps();
    const deadline = AbortSignal.timeout(Math.max(1, context.getRemainingTimeInMillis() - TIME_RESERVE_MS));
    const names = await directory.names();
    const lists = await Promise.all(names.map((name) => listDue(name, deps(), deadline)));
    const due = lists.flatMap((list) => list?.due ?? []);
    const unsent = [...(await wakeUps.send("passes", due))];
    // After that: machines are many more than pools, and nobody is to wait for their lists.
    const abandoned = (await Promise.all(lists.map((list) => list && findAbandoned(list, deps())))).flat();
    const wanted = abandoned.filter((outgoing) => outgoing !== undefined);
    if (wanted.length > 0) unsent.push(...(await wakeUps.send("passes", wanted)));
    const result: ResyncResult = {
      clusters: names.length,
      unreachable: lists.filter((list) => list === undefined).length,
      pools: lists.reduce((sum, list) => sum + (list?.pools ?? 0), 0),
      woken: due.length + wanted.length - unsent.length,
    };
    if (unsent.length > 0) logger.error("wake-ups could not be sent", { unsent: unsent.length });
    logger.debug("resynced", { ...result });
    return result;
  });
}

interface DueList {
  readonly pools: number;
  readonly due: readonly Outgoing[];
  /** Undefined when there is no such cluster any more. */
  readonly source:
    | { readonly found: ReachableCluster; readonly cluster: Cluster; readonly objects: readonly unknown[] }
    | undefined;
}

/** The due pools of one cluster; undefined when it could not be read. No failure here touches another cluster. */
async function listDue(name: string, deps: ResyncDeps, deadline: AbortSignal): Promise<DueList | undefined> {
  try {
    const found = await deps.directory.find(name);
    if (found === undefined) return { pools: 0, due: [], source: undefined };
    const { access, connection, cache } = found;
    const meter: Meter = { requests: 0, writes: 0, bytes: 0 };
    const cluster = createCluster({ transport: connection.send, meter, deadline, cache });
    const listed = await listPools(cluster, access.namespaces);
    if (listed.ok)
      return { ...selectDue(found, listed.value, deps), source: { found, cluster, objects: listed.value } };
    if (listed.failure.kind === "unauthorized") deps.directory.refuse(name);
    deps.logger.warn("cluster cannot be read", {
      cluster: name,
      kind: listed.failure.kind,
      message: listed.failure.message,
    });
  } catch (error) {
    deps.logger.error("cluster cannot be read", { cluster: name, ...describeError(error) });
  }
  return undefined;
}

function selectDue(
  { name: cluster, access }: ReachableCluster,
  objects: readonly unknown[],
  { now, rules, logger }: ResyncDeps,
): Omit<DueList, "source"> {
  const seenAtMs = now();
  const stalled: string[] = [];
  const due = objects.flatMap((object): Outgoing[] => {
    const pool = parsePool(object);
    if (pool === undefined) {
      logger.error("a pool's metadata are not what the API promises", { cluster });
      return [];
    }
    const { namespace, name } = pool;
    // Where nothing is written, nothing converges.
    if (access.mode === "act" && isStalled(pool, object, seenAtMs)) stalled.push(`${namespace}/${name}`);
    const cause = resyncCause(pool, seenAtMs, rules);
    if (cause === undefined) return [];
    return [{ wakeUp: { version: 1, cluster, namespace, name, cause, attempt: 0 }, seenAtMs }];
  });
  if (stalled.length > 0)
    logger.warn("pools have not converged", { cluster, count: stalled.length, pools: stalled.slice(0, NAMED_MAX) });
  return { pools: objects.length, due };
}

/** Wake-ups of pools that are gone and have left machines behind; none when that cannot be told. */
async function findAbandoned({ source }: DueList, { now, rules, logger }: ResyncDeps): Promise<readonly Outgoing[]> {
  const seenAtMs = now();
  if (source === undefined || !strayTurn(source.found.name, seenAtMs, rules)) return [];
  const { found, cluster, objects } = source;
  const listed = await listAbandoned(cluster, { namespaces: found.access.namespaces, pools: objects });
  if (!listed.ok) {
    const { kind, message } = listed.failure;
    logger.warn("machines without a pool cannot be looked for", { cluster: found.name, kind, message });
    return [];
  }
  for (const { namespace, name } of listed.value)
    logger.info("a pool is gone and has left machines behind", { cluster: found.name, namespace, pool: name });
  return listed.value.map(({ namespace, name }) => ({
    wakeUp: { version: 1, cluster: found.name, namespace, name, cause: "sweep", attempt: 0 },
    seenAtMs,
  }));
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): ResyncDeps {
  const config = readConfig(resyncConfigSchema);
  return {
    directory: createDirectory({ registry: openRegistry(config), now: Date.now }),
    wakeUps: createSqsWakeUps({ passes: config.PASSES_QUEUE_URL, late: config.LATE_QUEUE_URL }),
    rules: { settledMinutes: config.RESYNC_SETTLED_MINUTES, everything: false },
    now: Date.now,
    logger: createLogger("resync"),
  };
}

export const handler = createResync(once(productionDeps));
