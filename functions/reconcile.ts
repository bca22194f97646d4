/** The queues' function: one pass for each pool of the batch, whatever the number of its wake-ups; then a fact, and another wake-up where due. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { SQSBatchResponse } from "aws-lambda";
import * as z from "zod";
import { createCluster, type Meter } from "../shared/clusters/cluster.ts";
import { createDirectory, type Directory, type ReachableCluster } from "../shared/clusters/directory.ts";
import { type PassResult, reconcilePool } from "../shared/clusters/reconcile-pool.ts";
import { openRegistry, RegistryError } from "../shared/clusters/registry.ts";
import { createEventBridgeFacts, type Facts, type Reconciled, reconciledSchema } from "../shared/events/facts.ts";
import {
  createSqsWakeUps,
  groupIdOf,
  isWide,
  QUEUE_DELAY_MS,
  type WakeUp,
  type WakeUps,
  wakeUpSchema,
} from "../shared/events/wake-ups.ts";
import { parseJson } from "../shared/planning/json.ts";
import { readConfig, reconcileConfigSchema } from "../shared/runtime/config.ts";
import { createLogger, describeError, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { createStack } from "../shared/runtime/stack.ts";

/** What a pass leaves of the function's time for reporting. */
const REPORT_RESERVE_MS = 5_000;
/** No write starts with less than this left of the pass's time: a call may take that long. */
const WRITE_RESERVE_MS = 12_000;
/** A wake-up that failed for an unknown reason is sent again this often. */
const ATTEMPTS_MAX = 3;
/** A message sent this long before a pass began may still have been written by a sender whose clock is ahead. */
const CLOCK_SLACK_MS = 1_000;
/** A bus takes 256 KB, in bytes; conditions are others' to write, too. What fits no fact stays unwritten. */
const STATUS_LENGTH_MAX = 60_000;
/** Pools whose last pass a warm instance remembers. */
const REMEMBERED_MAX = 10_000;

export interface ReconcileDeps {
  readonly directory: Directory;
  readonly wakeUps: WakeUps;
  readonly facts: Facts;
  /** Name of this deployment in every claim. */
  readonly deployment: string;
  /** The global stop switch: no pass runs, no wake-up is kept. */
  readonly stopped: boolean;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  readonly nonce: () => string;
  readonly logger: Logger;
  /** Hears of every pass; the local live view listens here. */
  readonly onPass?: (key: WakeUp, result: PassResult, meter: Readonly<Meter>, durationMs: number) => void;
}

const batchSchema = z.object({
  Records: z.array(
    z.object({
      messageId: z.string(),
      body: z.string(),
      attributes: z.object({ SentTimestamp: z.string().regex(/^\d+$/) }),
      eventSourceARN: z.string(),
    }),
  ),
});
type QueueRecord = z.output<typeof batchSchema>["Records"][number];

/** The wake-ups of one pool in a batch. */
interface Group {
  readonly wakeUp: WakeUp;
  readonly wide: boolean;
  readonly attempt: number;
  /** When the last of them was due, in epoch milliseconds. */
  readonly dueAt: number;
  readonly messageIds: readonly string[];
}

/** When this warm instance last began a complete pass of a pool, and how widely that looked. A cache: losing it costs a pass. */
type Remembered = Map<string, { readonly startedAt: number; readonly wide: boolean }>;

/** Makes the handler. `deps` is called at the first event, so that importing a function reads no environment. */
export function createReconcile(deps: () => ReconcileDeps) {
  const remembered: Remembered = new Map();
  return createStack(
    { name: "reconcile", event: batchSchema, logger: () => deps().logger },
    async ({ Records }, context) => {
      const given = deps();
      const endsAt = given.now() + context.getRemainingTimeInMillis() - REPORT_RESERVE_MS;
      const groups = groupByPool(Records, given.logger);
      const unfinished = await Promise.all(groups.map((group) => serve(group, { deps: given, remembered, endsAt })));
      const response: SQSBatchResponse = {
        batchItemFailures: unfinished.flat().map((itemIdentifier) => ({ itemIdentifier })),
      };
      return response;
    },
  );
}

/** One group a pool: one pass serves the union of its wake-ups. What is not a wake-up is logged and let go. */
function groupByPool(records: readonly QueueRecord[], logger: Logger): Group[] {
  const groups = new Map<string, Group>();
  for (const record of records) {
    const parsed = wakeUpSchema.safeParse(parseJson(record.body));
    if (!parsed.success) {
      logger.error("message is not a wake-up", { messageId: record.messageId });
      continue;
    }
    const wakeUp = parsed.data;
    const id = groupIdOf(wakeUp);
    const earlier = groups.get(id);
    const delayMs = /late\.fifo$/.test(record.eventSourceARN) ? QUEUE_DELAY_MS.late : QUEUE_DELAY_MS.passes;
    groups.set(id, {
      wakeUp,
      wide: isWide(wakeUp.cause) || earlier?.wide === true,
      attempt: Math.max(wakeUp.attempt, earlier?.attempt ?? 0),
      dueAt: Math.max(Number(record.attributes.SentTimestamp) + delayMs + CLOCK_SLACK_MS, earlier?.dueAt ?? 0),
      messageIds: [...(earlier?.messageIds ?? []), record.messageId],
    });
  }
  return [...groups.values()];
}

interface Serving {
  readonly deps: ReconcileDeps;
  readonly remembered: Remembered;
  /** When the pass must be over, in epoch milliseconds. */
  readonly endsAt: number;
}

/** Serves one pool; returns the messages that must come again. A pool never waits for another's failure. */
async function serve(group: Group, serving: Serving): Promise<readonly string[]> {
  const { deps } = serving;
  const { cluster, namespace, name } = group.wakeUp;
  try {
    await pass(group, serving);
    return [];
  } catch (error) {
    deps.logger.error("pass failed", {
      cluster,
      namespace,
      pool: name,
      attempt: group.attempt,
      ...describeError(error),
    });
    if (group.attempt >= ATTEMPTS_MAX) return [];
    const wakeUp: WakeUp = { ...group.wakeUp, cause: group.wide ? "sweep" : "error", attempt: group.attempt + 1 };
    const unsent = await deps.wakeUps.send("late", [{ wakeUp, seenAtMs: undefined }]).catch(() => ["unsent"]);
    return unsent.length > 0 ? group.messageIds : [];
  }
}

async function pass(group: Group, { deps, remembered, endsAt }: Serving): Promise<void> {
  const { wakeUp, wide } = group;
  const { now, logger } = deps;
  const last = remembered.get(groupIdOf(wakeUp));
  if (last !== undefined && last.startedAt > group.dueAt && (last.wide || !wide)) return;
  const startedAt = now();
  const target = await findCluster(wakeUp.cluster, deps);
  if (deps.stopped || target === undefined || !isServed(target, wakeUp)) {
    const why = deps.stopped ? "stopped" : "not served";
    logger.warn("pool is not reconciled", {
      cluster: wakeUp.cluster,
      namespace: wakeUp.namespace,
      pool: wakeUp.name,
      why,
    });
    return;
  }
  const meter: Meter = { requests: 0, writes: 0, bytes: 0 };
  const deadline = AbortSignal.timeout(Math.max(1, endsAt - startedAt));
  const cluster = createCluster({ transport: target.connection.send, meter, deadline, cache: target.cache });
  const result = await reconcilePool(wakeUp, {
    cluster,
    mode: target.access.mode,
    by: deps.deployment,
    wide,
    now,
    sleep: deps.sleep,
    nonce: deps.nonce,
    writeTimeLeftMs: () => endsAt - now() - WRITE_RESERVE_MS,
  });
  const durationMs = now() - startedAt;
  if (result.unreadable?.failure.kind === "unauthorized") deps.directory.refuse(wakeUp.cluster);
  if (result.complete) remember(remembered, groupIdOf(wakeUp), { startedAt, wide });
  logPass(deps, { wakeUp, result, meter, durationMs });
  await publish(deps, { group, result, meter, startedAt, durationMs, mode: target.access.mode });
}

/** Undefined also when the registration is of no use: whoever looks at it mends it, and resync looks again. */
async function findCluster(cluster: string, { directory, logger }: ReconcileDeps) {
  try {
    return await directory.find(cluster);
  } catch (error) {
    if (!(error instanceof RegistryError) || error.retryable) throw error;
    logger.error("cluster cannot be read", { cluster, kind: error.kind, message: error.message });
    return undefined;
  }
}

function isServed({ access }: ReachableCluster, { namespace }: WakeUp): boolean {
  return access.namespaces === undefined || access.namespaces.includes(namespace);
}

function remember(remembered: Remembered, id: string, entry: { startedAt: number; wide: boolean }): void {
  if (remembered.size >= REMEMBERED_MAX) remembered.clear();
  remembered.set(id, entry);
}

interface Passed {
  readonly wakeUp: WakeUp;
  readonly result: PassResult;
  readonly meter: Readonly<Meter>;
  readonly durationMs: number;
}

/** One decision line a pass, at info only when it decided something. */
function logPass({ logger, onPass }: ReconcileDeps, { wakeUp, result, meter, durationMs }: Passed): void {
  const { cluster, namespace, name: pool, cause } = wakeUp;
  const { outcome, decisions, actions, failures, complete, again } = result;
  const fields = {
    cluster,
    namespace,
    pool,
    cause,
    outcome,
    decisions: decisions.slice(0, 20),
    actions,
    failures,
    complete,
    again,
    durationMs,
    ...meter,
  };
  const { unreadable, secondWriter } = result;
  if (unreadable !== undefined) {
    const { kind, message } = unreadable.failure;
    logger.warn("pool cannot be read", { ...fields, what: unreadable.what, kind, message });
  } else if (result.view?.seen.verdict.legal === false && !result.view.seen.pool.deleting) {
    logger.error("pool is illegal and held", fields);
  } else if (secondWriter !== undefined) {
    logger.error("pool has a second writer and is held", { ...fields, secondWriter: secondWriter.kind });
  } else if (failures.length > 0) logger.warn("pass had failures", fields);
  else if (decisions.length > 0) logger.info("pass decided", fields);
  else logger.debug("pass found nothing to do", fields);
  onPass?.(wakeUp, result, meter, durationMs);
}

interface Published extends Omit<Passed, "wakeUp"> {
  readonly group: Group;
  readonly startedAt: number;
  readonly mode: "observe" | "act";
}

/** The fact, unless there is nothing to tell, and the next wake-up. Throws when one cannot be sent. */
async function publish(
  deps: ReconcileDeps,
  { group, result, meter, startedAt, durationMs, mode }: Published,
): Promise<void> {
  const { wakeUp, wide } = group;
  const fact = mode === "act" ? factOf({ wakeUp, result, meter, startedAt, durationMs }) : undefined;
  if (fact !== undefined && !(await deps.facts.publishReconciled(fact)))
    throw new Error("the fact could not be published");
  if (!result.again || mode === "observe") return;
  const cause = wide && !result.complete ? "sweep" : "again";
  const unsent = await deps.wakeUps.send("passes", [{ wakeUp: { ...wakeUp, cause, attempt: 0 }, seenAtMs: undefined }]);
  if (unsent.length > 0) throw new Error("the wake-up for another look could not be sent");
}

/** Undefined when the pass changed nothing, failed in nothing and found the pool's status as it should be. */
function factOf({
  wakeUp,
  result,
  meter,
  startedAt,
  durationMs,
}: Passed & { startedAt: number }): Reconciled | undefined {
  const { pool, view, status, statusChanged, failures, actions, complete, resourceVersion } = result;
  const silent = !statusChanged && failures.length === 0 && complete && Object.keys(actions).length === 0;
  const hasNews = view !== undefined || status !== undefined;
  if (pool === undefined || !hasNews || resourceVersion === undefined || silent) return undefined;
  const { uid, generation } = pool;
  const { cluster, namespace, name } = wakeUp;
  return reconciledSchema.parse({
    version: 1,
    cluster,
    namespace,
    name,
    uid,
    resourceVersion,
    generation,
    startedAt: new Date(startedAt).toISOString(),
    durationMs,
    requests: meter.requests,
    actions,
    ...(status === undefined || JSON.stringify(status).length > STATUS_LENGTH_MAX ? {} : { status }),
    failures,
    complete,
  });
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): ReconcileDeps {
  const config = readConfig(reconcileConfigSchema);
  return {
    directory: createDirectory({ registry: openRegistry(config), now: Date.now }),
    wakeUps: createSqsWakeUps({ passes: config.PASSES_QUEUE_URL, late: config.LATE_QUEUE_URL }),
    facts: createEventBridgeFacts(config.EVENT_BUS_NAME),
    deployment: config.DEPLOYMENT,
    stopped: config.STOPPED === "true",
    now: Date.now,
    sleep: (ms) => sleep(ms),
    nonce: randomUUID,
    logger: createLogger("reconcile"),
  };
}

export const handler = createReconcile(once(productionDeps));
