/** The schedule's function: lists the pools of every registered cluster and wakes those that are due. Reads clusters, writes to none. */
import * as z from "zod";
import { createCluster, type Meter } from "../shared/clusters/cluster.ts";
import { createDirectory, type Directory, type ReachableCluster } from "../shared/clusters/directory.ts";
import { listPools } from "../shared/clusters/pool-summary.ts";
import { createFileRegistry } from "../shared/clusters/registry.ts";
import { createSqsWakeUps, type Outgoing, type WakeUps } from "../shared/events/wake-ups.ts";
import { parsePool } from "../shared/planning/model.ts";
import { type ResyncRules, resyncCause } from "../shared/planning/schedule.ts";
import { readConfig, resyncConfigSchema } from "../shared/runtime/config.ts";
import { createLogger, describeError, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { createStack } from "../shared/runtime/stack.ts";

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
    const unsent = await wakeUps.send("passes", due);
    const result: ResyncResult = {
      clusters: names.length,
      unreachable: lists.filter((list) => list === undefined).length,
      pools: lists.reduce((sum, list) => sum + (list?.pools ?? 0), 0),
      woken: due.length - unsent.length,
    };
    if (unsent.length > 0) logger.error("wake-ups could not be sent", { unsent: unsent.length });
    logger.debug("resynced", { ...result });
    return result;
  });
}

interface DueList {
  readonly pools: number;
  readonly due: readonly Outgoing[];
}

/** The due pools of one cluster; undefined when it could not be read. No failure here touches another cluster. */
async function listDue(name: string, deps: ResyncDeps, deadline: AbortSignal): Promise<DueList | undefined> {
  try {
    const found = await deps.directory.find(name);
    if (found === undefined) return { pools: 0, due: [] };
    const { access, connection, cache } = found;
    const meter: Meter = { requests: 0, writes: 0, bytes: 0 };
    const cluster = createCluster({ transport: connection.send, meter, deadline, cache });
    const listed = await listPools(cluster, access.namespaces);
    if (listed.ok) return selectDue(found, listed.value, deps);
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
  { name: cluster }: ReachableCluster,
  objects: readonly unknown[],
  { now, rules, logger }: ResyncDeps,
): DueList {
  const seenAtMs = now();
  const due = objects.flatMap((object): Outgoing[] => {
    const pool = parsePool(object);
    if (pool === undefined) {
      logger.error("a pool's metadata are not what the API promises", { cluster });
      return [];
    }
    const cause = resyncCause(pool, seenAtMs, rules);
    if (cause === undefined) return [];
    const { namespace, name } = pool;
    return [{ wakeUp: { version: 1, cluster, namespace, name, cause, attempt: 0 }, seenAtMs }];
  });
  return { pools: objects.length, due };
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): ResyncDeps {
  const config = readConfig(resyncConfigSchema);
  return {
    directory: createDirectory({ registry: createFileRegistry(config.REGISTRY_FILE), now: Date.now }),
    wakeUps: createSqsWakeUps({ passes: config.PASSES_QUEUE_URL, late: config.LATE_QUEUE_URL }),
    rules: { settledMinutes: config.RESYNC_SETTLED_MINUTES, everything: false },
    now: Date.now,
    logger: createLogger("resync"),
  };
}

export const handler = createResync(once(productionDeps));
