/**
 * The functions as they run on AWS, in this process: the same exported handlers, driven by queues, a bus and a schedule
 * with the same rules. Takes no decision of its own.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Context, SQSBatchResponse } from "aws-lambda";
import { type AdmissionDeps, createAdmission } from "../../../functions/admission.ts";
import { createFleet } from "../../../functions/fleet.ts";
import { createReconcile, type ReconcileDeps } from "../../../functions/reconcile.ts";
import { createResync, type ResyncDeps } from "../../../functions/resync.ts";
import { createScale } from "../../../functions/scale.ts";
import { createStatus } from "../../../functions/status.ts";
import { createIssuerKeys, createWebhook, type WebhookDeps } from "../../../functions/webhook.ts";
import type { ClusterAccess } from "../../../shared/clusters/access.ts";
import { type Connection, openConnection } from "../../../shared/clusters/connection.ts";
import { createDirectory, type Directory } from "../../../shared/clusters/directory.ts";
import { createSenderCache, type Registry } from "../../../shared/clusters/registry.ts";
import { FACT_SOURCE, type Facts, RECONCILED } from "../../../shared/events/facts.ts";
import type { QueueName, WakeUps } from "../../../shared/events/wake-ups.ts";
import { describeError, type Logger } from "../../../shared/runtime/logger.ts";
import type { Route } from "../routes.ts";
import { BATCH_MAX, createFifoQueue, type FifoQueue, type Message } from "./fifo-queue.ts";
import { createFleetRoutes } from "./fleet-routes.ts";
import { lambdaContext } from "./lambda-context.ts";
import { createScaleRoutes } from "./scale-routes.ts";
import { type FunctionName, leadsTo, QUEUES, routesOf, TIMEOUT_MS } from "./wiring.ts";

/** Invocations of `reconcile` at once. */
const CONCURRENCY = 8;
const SETTLED_MINUTES = 10;
/** Between tries to reach a cluster that did not answer. */
const CATCH_UP_MS = 3_000;

export interface RuntimeOptions {
  readonly registry: Registry;
  readonly deployment: string;
  /** Seconds between ticks of the schedule; 0 switches it off, but for the look at everything at the start and after an outage. */
  readonly resyncSeconds: number;
  /** Every tick wakes every pool, with the full look: no events are expected. */
  readonly wakeEverything: boolean;
  readonly logger: Logger;
  readonly onPass?: NonNullable<ReconcileDeps["onPass"]>;
}

/** What would be paid for on AWS, since the start. */
export interface Usage {
  /** Function → invocations by queues and bus. */
  readonly invocations: Map<FunctionName, number>;
  /** Requests that send wake-ups, of up to ten each. */
  sends: number;
}

export interface LocalRuntime {
  readonly usage: Usage;
  readonly directory: Directory;
  /** What cluster events come in by: API servers call these over https. */
  readonly eventRoutes: readonly Route[];
  /** What the functions serve over HTTP to those who have the token. */
  readonly routes: readonly Route[];
  /** Takes no new work, lets invocations under way end, and closes the connections. */
  stop(): Promise<void>;
}

export function startRuntime({
  registry,
  deployment,
  resyncSeconds,
  wakeEverything,
  logger,
  onPass,
}: RuntimeOptions): LocalRuntime {
  const now = Date.now;
  const directory = createDirectory({ registry, now, connect: (access) => tellFaults(access, () => catchUp()) });
  const work = createWork();
  const usage: Usage = { invocations: new Map(), sends: 0 };
  const queues = { passes: createFifoQueue(QUEUES.passes), late: createFifoQueue(QUEUES.late) };
  const wakeUps: WakeUps = {
    async send(queue, outgoing) {
      usage.sends += Math.ceil(outgoing.length / BATCH_MAX);
      for (const entry of outgoing) queues[queue].send(entry, now());
      pump(queue);
      return [];
    },
  };
  const status = createStatus(() => ({ directory, wakeUps, now, logger }));
  const facts = createBus((event) => work.run(() => status(event, beginInvocation(usage, "status"))));
  const reconcile = createReconcile(() => ({
    directory,
    wakeUps,
    facts,
    deployment,
    stopped: false,
    now,
    sleep: (ms) => sleep(ms),
    nonce: randomUUID,
    logger,
    ...(onPass === undefined ? {} : { onPass }),
  }));
  const scale = createScale(() => ({ directory, wakeUps, now, sleep: (ms) => sleep(ms), logger }));
  const fleet = createFleet(() => ({ directory, now, logger }));
  const invoke = (queue: QueueName, batch: readonly Message[]) =>
    work.run(() => reconcile(batchEvent(queue, batch), beginInvocation(usage, "reconcile")));
  const deliver = (name: QueueName) => createDelivery({ name, queue: queues[name], invoke, now, logger });
  const pumps = {
    passes: createPump(queues.passes, deliver("passes")),
    late: createPump(queues.late, deliver("late")),
  };
  const pump = (queue: QueueName) => pumps[queue].wake();

  const tick = createTick(work, { directory, wakeUps, now, logger }, wakeEverything);
  const schedule = resyncSeconds > 0 ? setInterval(() => void tick(), resyncSeconds * 1_000) : undefined;
  const stopping = new AbortController();
  const lookAtAll = createTick(work, { directory, wakeUps, now, logger }, true);
  const catchUp = createCatchUp(async () => (await lookAtAll())?.unreachable === 0, stopping.signal);
  // Queues in memory are empty now, whatever was in them when an earlier run ended.
  catchUp();
  return {
    usage,
    directory,
    eventRoutes: createEventRoutes({
      webhooks: createSenderCache(registry, now),
      keys: createIssuerKeys(now, logger),
      wakeUps,
      now,
      logger,
    }),
    routes: [
      ...createScaleRoutes((event, context) => work.run(() => scale(event, context))),
      ...createFleetRoutes((event, context) => work.run(() => fleet(event, context))),
    ],
    async stop() {
      clearInterval(schedule);
      stopping.abort();
      pumps.passes.stop();
      pumps.late.stop();
      await work.end();
      await closeAll(directory);
    },
  };
}

async function closeAll(directory: Directory): Promise<void> {
  for (const name of await directory.names()) {
    // What cannot be read has no connection.
    const found = await directory.find(name).catch(() => undefined);
    await found?.connection.close();
  }
}

/** The context of one more invocation. */
function beginInvocation({ invocations }: Usage, name: FunctionName): Context {
  invocations.set(name, (invocations.get(name) ?? 0) + 1);
  return lambdaContext(name, TIMEOUT_MS[name]);
}

/** Invokes `resync`; undefined when it failed, or no longer may. */
function createTick(work: Work, deps: Omit<ResyncDeps, "rules">, everything: boolean) {
  const rules = { settledMinutes: SETTLED_MINUTES, everything };
  const resync = createResync(() => ({ ...deps, rules }));
  return () =>
    work
      .run(() => resync({ time: new Date().toISOString() }, lambdaContext("resync", TIMEOUT_MS.resync)))
      .catch((error: unknown) => void deps.logger.error("resync failed", describeError(error)));
}

/** A connection that says when a request was not answered. */
function tellFaults(access: ClusterAccess, onFault: () => void): Connection {
  const connection = openConnection(access);
  return {
    ...connection,
    async send(request) {
      try {
        return await connection.send(request);
      } catch (error) {
        onFault();
        throw error;
      }
    },
  };
}

/** Tries until it succeeds, one try at a time. On AWS queues and schedule outlive both sides; here nothing else would look again. */
function createCatchUp(attempt: () => Promise<boolean>, signal: AbortSignal): () => void {
  let busy = false;
  const untilDone = async () => {
    while (!signal.aborted && !(await attempt())) await sleep(CATCH_UP_MS, undefined, { signal, ref: false });
  };
  return () => {
    if (busy) return;
    busy = true;
    // Only the signal ends the pauses.
    void untilDone()
      .catch(() => {})
      .finally(() => {
        busy = false;
      });
  };
}

interface DeliveryDeps {
  readonly name: QueueName;
  readonly queue: FifoQueue;
  readonly invoke: (queue: QueueName, batch: readonly Message[]) => Promise<SQSBatchResponse | undefined>;
  readonly now: () => number;
  readonly logger: Logger;
}

/** One invocation with one batch; what fails or throws comes again. */
function createDelivery({ name, queue, invoke, now, logger }: DeliveryDeps) {
  return async (batch: readonly Message[]): Promise<void> => {
    const all = new Set(batch.map(({ id }) => id));
    const failed = await invoke(name, batch)
      .then((response) => new Set(response?.batchItemFailures.map(({ itemIdentifier }) => itemIdentifier) ?? all))
      .catch(() => all);
    const lettersBefore = queue.deadLetters.length;
    queue.settle(batch, failed, now());
    for (const { body } of queue.deadLetters.slice(lettersBefore)) logger.error("dead letter", { queue: name, body });
  };
}

function createEventRoutes(deps: AdmissionDeps & WebhookDeps): readonly Route[] {
  const webhook = createWebhook(() => deps);
  const admission = createAdmission(() => deps);
  return [
    ...routesOf("webhook").map((route) => ({ ...route, handle: webhook })),
    ...routesOf("admission").map((route) => ({ ...route, handle: admission })),
  ];
}

type Work = ReturnType<typeof createWork>;

/** Keeps count of invocations, so that a stop can wait for them. */
function createWork() {
  const running = new Set<Promise<unknown>>();
  let ended = false;
  return {
    async run<T>(invoke: () => Promise<T>): Promise<T | undefined> {
      if (ended) return undefined;
      const promise = invoke();
      running.add(promise);
      try {
        return await promise;
      } finally {
        running.delete(promise);
      }
    },
    /** Waits a few seconds at most: a pass that is cut off loses nothing. */
    async end(): Promise<void> {
      ended = true;
      await Promise.race([Promise.allSettled(running), sleep(5_000, undefined, { ref: false })]);
    },
  };
}

/** EventBridge with its one rule: a fact invokes `status`, once, and nobody waits for it. */
function createBus(invoke: (event: unknown) => Promise<unknown>): Facts {
  return {
    async publishReconciled(detail) {
      const event = {
        version: "0",
        id: randomUUID(),
        "detail-type": RECONCILED,
        source: FACT_SOURCE,
        account: "000000000000",
        time: new Date().toISOString(),
        region: "local",
        resources: [],
        detail,
      };
      // The stack has logged what went wrong; a lost status is found by the next pass.
      if (leadsTo("status", event)) void invoke(event).catch(() => {});
      return true;
    },
  };
}

/** The event that Lambda's poller makes of a batch. */
function batchEvent(queue: QueueName, batch: readonly Message[]) {
  return {
    Records: batch.map(({ id, body, groupId, sentAt, receipts }) => ({
      messageId: id,
      receiptHandle: id,
      body,
      attributes: {
        ApproximateReceiveCount: String(receipts),
        SentTimestamp: String(sentAt),
        SenderId: "local",
        ApproximateFirstReceiveTimestamp: String(Date.now()),
        MessageGroupId: groupId,
      },
      messageAttributes: {},
      md5OfBody: "",
      eventSource: "aws:sqs",
      eventSourceARN: `arn:aws:sqs:local:000000000000:${queue}.fifo`,
      awsRegion: "local",
    })),
  };
}

/** Receives from one queue whenever something is due, with bounded concurrency. */
function createPump(queue: FifoQueue, deliver: (batch: readonly Message[]) => Promise<void>) {
  let busy = 0;
  let stopped = false;
  let timer: NodeJS.Timeout | undefined;
  const wake = () => {
    clearTimeout(timer);
    while (!stopped && busy < CONCURRENCY) {
      const batch = queue.receive(Date.now());
      if (batch.length === 0) break;
      busy += 1;
      void deliver(batch).finally(() => {
        busy -= 1;
        wake();
      });
    }
    const next = queue.nextAt();
    if (stopped || next === undefined || busy >= CONCURRENCY) return;
    timer = setTimeout(wake, Math.max(1, next - Date.now()));
  };
  return {
    wake,
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}
