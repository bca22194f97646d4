/** Writes the status that a pass reported to the pool's status subresource, when it differs, and wakes the pool to have it verified. */
import * as z from "zod";
import { type Answer, type Cluster, createCluster, type Meter, poolsOf } from "../shared/clusters/cluster.ts";
import { createDirectory, type Directory } from "../shared/clusters/directory.ts";
import { openRegistry } from "../shared/clusters/registry.ts";
import { FACT_SOURCE, RECONCILED, type Reconciled, reconciledSchema } from "../shared/events/facts.ts";
import { createSqsWakeUps, type WakeUps } from "../shared/events/wake-ups.ts";
import { parsePool } from "../shared/planning/model.ts";
import { isSameStatus } from "../shared/planning/status.ts";
import { readConfig, statusConfigSchema } from "../shared/runtime/config.ts";
import { createLogger, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { createStack } from "../shared/runtime/stack.ts";

/** An older fact says nothing worth writing; the pool is only woken. */
const FACT_AGE_MAX_MS = 60_000;
const TIME_RESERVE_MS = 3_000;

export interface StatusDeps {
  readonly directory: Directory;
  readonly wakeUps: WakeUps;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly logger: Logger;
}

export type StatusResult =
  | "equal"
  | "written"
  | "conflict"
  | "stale"
  | "gone"
  | "failed"
  | "observing"
  | "unknownCluster"
  | "nothing";

const eventSchema = z.object({
  source: z.literal(FACT_SOURCE),
  "detail-type": z.literal(RECONCILED),
  detail: reconciledSchema,
});

/** Makes the handler. `deps` is called at the first event, so that importing a function reads no environment. */
export function createStatus(deps: () => StatusDeps) {
  return createStack(
    { name: "status", event: eventSchema, logger: () => deps().logger },
    async ({ detail }, context) => {
      const deadline = AbortSignal.timeout(Math.max(1, context.getRemainingTimeInMillis() - TIME_RESERVE_MS));
      const result = await writeStatus(detail, deps(), deadline);
      // Every write is followed by a pass that verifies it, so the sequence ends in equality.
      if (result === "written" || result === "conflict" || result === "stale") await wake(detail, deps());
      return result;
    },
  );
}

async function writeStatus(
  fact: Reconciled,
  { directory, now, logger }: StatusDeps,
  deadline: AbortSignal,
): Promise<StatusResult> {
  const { status } = fact;
  if (status === undefined) return "nothing";
  if (now() - Date.parse(fact.startedAt) - fact.durationMs > FACT_AGE_MAX_MS) return "stale";
  const found = await directory.find(fact.cluster);
  if (found === undefined) return "unknownCluster";
  if (found.access.mode !== "act") return "observing";
  const meter: Meter = { requests: 0, writes: 0, bytes: 0 };
  const cluster = createCluster({ transport: found.connection.send, meter, deadline, cache: found.cache });
  const answer = await patchIfDifferent(cluster, fact, status);
  if (typeof answer === "string") return answer;
  if (answer.ok) return "written";
  if (answer.failure.kind === "unauthorized") directory.refuse(fact.cluster);
  if (answer.failure.kind === "conflict") return "conflict";
  if (answer.failure.kind === "notFound") return "gone";
  const { kind, message } = answer.failure;
  logger.warn("status could not be written", {
    cluster: fact.cluster,
    namespace: fact.namespace,
    pool: fact.name,
    kind,
    message,
  });
  return "failed";
}

async function patchIfDifferent(
  cluster: Cluster,
  fact: Reconciled,
  status: NonNullable<Reconciled["status"]>,
): Promise<Answer<unknown> | "equal" | "gone"> {
  const version = await cluster.poolVersion();
  if (!version.ok) return version;
  const pools = poolsOf(version.value);
  const read = await cluster.get(pools, fact);
  if (!read.ok) return read;
  const pool = parsePool(read.value);
  if (pool === undefined || pool.uid !== fact.uid) return "gone";
  if (isSameStatus(pool.status, status)) return "equal";
  // In a merge patch null removes: without conditions `kubectl describe` shows no empty heading.
  const merged = { ...status, conditions: status.conditions.length === 0 ? null : status.conditions };
  const body = { metadata: { uid: fact.uid, resourceVersion: fact.resourceVersion }, status: merged };
  return cluster.patch(pools, fact, { type: "merge", body }, "status");
}

async function wake({ cluster, namespace, name }: Reconciled, { wakeUps, logger }: StatusDeps): Promise<void> {
  const wakeUp = { version: 1, cluster, namespace, name, cause: "status", attempt: 0 } as const;
  const unsent = await wakeUps.send("passes", [{ wakeUp, seenAtMs: undefined }]);
  if (unsent.length > 0) logger.error("wake-up could not be sent", { cluster, namespace, pool: name });
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): StatusDeps {
  const config = readConfig(statusConfigSchema);
  return {
    directory: createDirectory({ registry: openRegistry(config), now: Date.now }),
    wakeUps: createSqsWakeUps({ passes: config.PASSES_QUEUE_URL, late: config.LATE_QUEUE_URL }),
    now: Date.now,
    logger: createLogger("status"),
  };
}

export const handler = createStatus(once(productionDeps));
