/**
 * Senders, queues and consumers of wake-ups in virtual time around a cluster in which every pool is settled: the exported
 * handlers and the local queues do everything, this file only says what time it is and what goes wrong.
 */
import { createAdmission } from "../../functions/admission.ts";
import { createReconcile } from "../../functions/reconcile.ts";
import { createWebhook } from "../../functions/webhook.ts";
import { createFifoQueue, type FifoQueue, type Message } from "../../infra/local/runtime/fifo-queue.ts";
import type { ApiRequest, ApiResponse, Connection } from "../../shared/clusters/connection.ts";
import { createDirectory } from "../../shared/clusters/directory.ts";
import {
  groupIdOf,
  type Outgoing,
  QUEUE_DELAY_MS,
  type QueueName,
  type WakeUps,
} from "../../shared/events/wake-ups.ts";
import type { Logger } from "../../shared/runtime/logger.ts";
import { aContext } from "./handlers.ts";
import { aListener, anHttpEvent, BEARER_TOKEN, PATH_TOKEN } from "./http-events.ts";
import { ok } from "./transport.ts";
import { aList, aSettledPool, DATE, served } from "./transport-objects.ts";

/** Times count from here, so that buckets are those of an ordinary clock. */
const EPOCH = Date.UTC(2026, 4, 1, 12);
const CLUSTER = "west";
const POOL_NAME = "web";
const QUEUES = ["passes", "late"] as const;
const QUEUE = { visibilityMs: 90_000, retentionMs: 600_000, receiptsMax: 3 } as const;
/** Faults of one run; more could put a message aside for good, which is then resync's work. */
const CRASHES_MAX = 2;
const ERRORS_MAX = 3;
/** A run that does not come to an end by then never will. */
const STEPS_MAX = 1_000_000;
const SILENT: Logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** Causes and the resources that they come from. */
const RESOURCES = {
  pool: { group: "pool.kubevirt.io", resource: "virtualmachinepools", name: POOL_NAME },
  vm: { group: "kubevirt.io", resource: "virtualmachines", name: `${POOL_NAME}-1` },
  instance: { group: "kubevirt.io", resource: "virtualmachineinstances", name: `${POOL_NAME}-1` },
  disk: { group: "cdi.kubevirt.io", resource: "datavolumes", name: `${POOL_NAME}-1` },
} as const;
export type Cause = keyof typeof RESOURCES;

/** What reaches a sender's function at `atMs` of true time. */
export type Arrival = {
  readonly atMs: number;
  /** Which sender gets it; each has its own clock. */
  readonly sender: number;
  /** From the sender's reading of its clock to the queue's taking the message. */
  readonly publishMs: number;
} & (
  | {
      readonly kind: "audit";
      /** Changes that were stored so long ago. */
      readonly changes: readonly { readonly pool: number; readonly cause: Cause; readonly agoMs: number }[];
    }
  | {
      readonly kind: "admission";
      readonly pool: number;
      readonly cause: Cause;
      /** The change is stored only so much later. */
      readonly precedesMs: number;
    }
);

/** How one invocation of `reconcile` goes. */
export interface Invocation {
  readonly durationMs: number;
  /** Which warm instance serves it; each has its own clock and memory. */
  readonly instance: number;
  /**
   * `crashes`: nothing is done and everything comes again; `acknowledgementLost`: everything is done and comes again;
   * `fails`: the registry is out of reach, which no pass expects.
   */
  readonly fate: "succeeds" | "crashes" | "acknowledgementLost" | "fails";
}

/** The ingredients of the rule, each of which can be left out. */
export interface Wiring {
  readonly delayMs: Readonly<Record<QueueName, number>>;
  /** What the publisher takes for the time of receipt. */
  readonly seenAt: (seenAtMs: number) => number;
  readonly queues: readonly QueueName[];
  /** The queue that the consumer believes a message to be from. */
  readonly shownAs: (queue: QueueName) => QueueName;
}

export const INTACT: Wiring = {
  delayMs: QUEUE_DELAY_MS,
  seenAt: (seenAtMs) => seenAtMs,
  queues: QUEUES,
  shownAs: (queue) => queue,
};

export interface Scenario {
  readonly arrivals: readonly Arrival[];
  /** How much each clock is ahead of the queues', in milliseconds. */
  readonly senderSkewsMs: readonly number[];
  readonly instanceSkewsMs: readonly number[];
  /** The first ones, in order; all later ones are as `later`. */
  readonly invocations: readonly Invocation[];
  readonly later: Invocation;
  /** Invocations at once, a queue. */
  readonly concurrency: number;
  /** The shortest time between two looks into the queues. */
  readonly pollMs: number;
}

export interface StoredChange {
  readonly pool: number;
  readonly cause: Cause;
  readonly atMs: number;
}

export interface Outcome {
  readonly changes: readonly StoredChange[];
  /** When passes began to read, oldest first: of each pool all, and those that read the whole namespace. */
  readonly reads: ReadonlyMap<number, readonly number[]>;
  readonly wideReads: ReadonlyMap<number, readonly number[]>;
  /** Messages that the queues took from outside, by `<queue> <pool> <second of the sender's clock>`. */
  readonly taken: ReadonlyMap<string, number>;
  readonly passes: number;
  readonly messages: number;
  readonly deadLetters: number;
}

/** Runs until nothing is under way any more. */
export async function simulate(scenario: Scenario, wiring: Wiring = INTACT): Promise<Outcome> {
  const state = createState(scenario, wiring);
  const { clock, agenda, queues } = state;
  for (let step = 0; step < STEPS_MAX; step += 1) {
    while ((agenda.nextAt() ?? Number.POSITIVE_INFINITY) <= clock.nowMs) await agenda.runNext();
    for (const queue of QUEUES) await receiveAll(state, queue);
    const times = QUEUES.filter((queue) => state.busy[queue] < scenario.concurrency).map((q) => queues[q].nextAt());
    const next = Math.min(...[agenda.nextAt(), ...times].filter((at) => at !== undefined));
    if (next === Number.POSITIVE_INFINITY) return state.outcome();
    clock.nowMs = Math.max(next, clock.nowMs + scenario.pollMs);
  }
  throw new Error("the simulation does not end");
}

/** Changes after which no pass began to read, or none that looked as widely as the change needs. */
export function missedChanges({ changes, reads, wideReads }: Outcome): readonly StoredChange[] {
  return changes.filter(({ pool, cause, atMs }) => {
    const last = (cause === "vm" ? wideReads : reads).get(pool)?.at(-1);
    return last === undefined || last <= atMs;
  });
}

/** The longest time from a change to a pass that saw it. */
export function longestWaitMs({ changes, reads, wideReads }: Outcome): number {
  return changes.reduce((longest, { pool, cause, atMs }) => {
    const read = (cause === "vm" ? wideReads : reads).get(pool)?.find((at) => at > atMs);
    return Math.max(longest, (read ?? Number.POSITIVE_INFINITY) - atMs);
  }, 0);
}

interface State {
  readonly clock: { nowMs: number };
  readonly agenda: Agenda;
  readonly queues: Readonly<Record<QueueName, FifoQueue>>;
  readonly busy: Record<QueueName, number>;
  readonly scenario: Scenario;
  readonly invoke: (queue: QueueName, batch: readonly Message[], how: Invocation) => Promise<ReadonlySet<string>>;
  /** How the next invocation goes. */
  readonly nextInvocation: () => Invocation;
  readonly outcome: () => Outcome;
}

function createState(scenario: Scenario, wiring: Wiring): State {
  const clock = { nowMs: EPOCH };
  const agenda = createAgenda(clock);
  const queues = {
    passes: createFifoQueue({ ...QUEUE, name: "passes", delayMs: wiring.delayMs.passes }),
    late: createFifoQueue({ ...QUEUE, name: "late", delayMs: wiring.delayMs.late }),
  };
  const tally = { taken: new Map<string, number>(), messages: 0 };
  const put = (queue: QueueName, outgoing: Outgoing) => {
    const { size } = queues[queue];
    queues[queue].send(outgoing, clock.nowMs);
    if (queues[queue].size === size) return;
    tally.messages += 1;
    if (outgoing.seenAtMs === undefined) return;
    const key = `${queue} ${groupIdOf(outgoing.wakeUp)} ${Math.floor(outgoing.seenAtMs / 1_000)}`;
    tally.taken.set(key, (tally.taken.get(key) ?? 0) + 1);
  };
  const changes: StoredChange[] = [];
  const senders = scenario.senderSkewsMs.map((skewMs) => createSender({ clock, skewMs, wiring, agenda, put }));
  for (const arrival of scenario.arrivals) {
    changes.push(...changesOf(arrival));
    agenda.add(EPOCH + arrival.atMs, async () => senders[arrival.sender % senders.length]?.(arrival));
  }
  const cluster = createSettledCluster(clock);
  const fault = { registryDown: false };
  const own: WakeUps = {
    async send(queue, outgoing) {
      for (const entry of outgoing) put(queue, entry);
      return [];
    },
  };
  const instances = scenario.instanceSkewsMs.map((skewMs) =>
    createInstance({ now: () => clock.nowMs + skewMs, connection: cluster.connection, wakeUps: own, fault }),
  );
  const invoke: State["invoke"] = async (queue, batch, { instance, fate }) => {
    const all = new Set(batch.map(({ id }) => id));
    if (fate === "crashes") return all;
    fault.registryDown = fate === "fails";
    const handler = instances[instance % instances.length];
    const response = await handler?.(batchEvent(wiring.shownAs(queue), batch), aContext());
    const failed = new Set(response?.batchItemFailures.map(({ itemIdentifier }) => itemIdentifier) ?? all);
    return fate === "acknowledgementLost" ? all : failed;
  };
  return {
    clock,
    agenda,
    queues,
    busy: { passes: 0, late: 0 },
    scenario,
    invoke,
    nextInvocation: createInvocations(scenario),
    outcome: () => ({
      ...cluster.seen(),
      changes,
      taken: tally.taken,
      messages: tally.messages,
      deadLetters: QUEUES.reduce((sum, queue) => sum + queues[queue].deadLetters.length, 0),
    }),
  };
}

function changesOf(arrival: Arrival): readonly StoredChange[] {
  const at = EPOCH + arrival.atMs;
  if (arrival.kind === "admission") {
    const { pool, cause, precedesMs } = arrival;
    return [{ pool, cause, atMs: at + precedesMs }];
  }
  return arrival.changes.map(({ pool, cause, agoMs }) => ({ pool, cause, atMs: at - agoMs }));
}

/** As scripted, but with no more faults than the queues are to bear. */
function createInvocations({ invocations, later }: Scenario): () => Invocation {
  const left = { crashes: CRASHES_MAX, fails: ERRORS_MAX };
  let count = 0;
  return () => {
    const next = invocations[count] ?? later;
    count += 1;
    if (next.fate !== "crashes" && next.fate !== "fails") return next;
    left[next.fate] -= 1;
    return left[next.fate] < 0 ? { ...next, fate: "succeeds" } : next;
  };
}

/** Receives until nothing is due or all invocations are busy. */
async function receiveAll(state: State, queue: QueueName): Promise<void> {
  const { clock, agenda, queues, busy, scenario } = state;
  while (busy[queue] < scenario.concurrency) {
    const batch = queues[queue].receive(clock.nowMs);
    if (batch.length === 0) return;
    const how = state.nextInvocation();
    busy[queue] += 1;
    // Everything is read at the beginning of the invocation, the worst moment that there is.
    const failed = await state.invoke(queue, batch, how);
    agenda.add(clock.nowMs + how.durationMs, async () => {
      queues[queue].settle(batch, failed, clock.nowMs);
      busy[queue] -= 1;
    });
  }
}

interface Agenda {
  add(at: number, run: () => Promise<void>): void;
  nextAt(): number | undefined;
  /** Runs the earliest entry; meanwhile it is its time. */
  runNext(): Promise<void>;
}

/** What is going to happen, in the order of time and, within one moment, of adding. */
function createAgenda(clock: { nowMs: number }): Agenda {
  const entries: { readonly at: number; readonly run: () => Promise<void> }[] = [];
  return {
    add(at, run) {
      let index = entries.length;
      while (index > 0 && (entries[index - 1]?.at ?? at) < at) index -= 1;
      while (index > 0 && entries[index - 1]?.at === at) index -= 1;
      entries.splice(index, 0, { at, run });
    },
    nextAt: () => entries.at(-1)?.at,
    async runNext() {
      const entry = entries.pop();
      if (entry === undefined) return;
      const { nowMs } = clock;
      clock.nowMs = entry.at;
      await entry.run();
      clock.nowMs = Math.max(nowMs, entry.at);
    },
  };
}

interface SenderParts {
  readonly clock: { readonly nowMs: number };
  readonly skewMs: number;
  readonly wiring: Wiring;
  readonly agenda: Agenda;
  readonly put: (queue: QueueName, outgoing: Outgoing) => void;
}

/** The two functions that hear of changes, on a machine with its own clock. */
function createSender({ clock, skewMs, wiring, agenda, put }: SenderParts) {
  let publishMs = 0;
  const wakeUps: WakeUps = {
    async send(queue, outgoing) {
      if (!wiring.queues.includes(queue)) return [];
      const entries = outgoing.map((entry) =>
        entry.seenAtMs === undefined ? entry : { ...entry, seenAtMs: wiring.seenAt(entry.seenAtMs) },
      );
      const putAll = async () => {
        for (const entry of entries) put(queue, entry);
      };
      if (publishMs === 0) await putAll();
      else agenda.add(clock.nowMs + publishMs, putAll);
      return [];
    },
  };
  const now = () => clock.nowMs + skewMs;
  const { webhooks, keys } = aListener().deps();
  const deps = () => ({ webhooks, keys, wakeUps, now, logger: SILENT });
  const [webhook, admission] = [createWebhook(deps), createAdmission(deps)];
  return async (arrival: Arrival): Promise<void> => {
    ({ publishMs } = arrival);
    const answer =
      arrival.kind === "audit"
        ? await webhook(auditRequest(arrival.changes), aContext())
        : await admission(admissionRequest(arrival), aContext());
    if (answer.statusCode > 202) throw new Error(`the request was answered ${answer.statusCode}: ${answer.body}`);
  };
}

function namespaceOf(pool: number): string {
  return `ns-${pool}`;
}

function auditRequest(changes: readonly { readonly pool: number; readonly cause: Cause }[]): object {
  const items = changes.map(({ pool, cause }) => {
    const { group, resource, name } = RESOURCES[cause];
    const objectRef = { apiGroup: group, resource, name, namespace: namespaceOf(pool) };
    return { stage: "ResponseComplete", verb: "patch", requestURI: "/", objectRef, responseStatus: { code: 200 } };
  });
  return anHttpEvent({
    parameters: { cluster: CLUSTER },
    headers: { authorization: `Bearer ${BEARER_TOKEN}` },
    body: { apiVersion: "audit.k8s.io/v1", kind: "EventList", items },
  });
}

/** A deletion, which is judged by no rule. */
function admissionRequest({ pool, cause }: Extract<Arrival, { kind: "admission" }>): object {
  const { group, resource, name } = RESOURCES[cause];
  const request = {
    uid: "review",
    resource: { group, version: "v1", resource },
    name,
    namespace: namespaceOf(pool),
    operation: "DELETE",
  };
  return anHttpEvent({
    parameters: { cluster: CLUSTER, token: PATH_TOKEN },
    body: { apiVersion: "admission.k8s.io/v1", kind: "AdmissionReview", request },
  });
}

interface InstanceParts {
  readonly now: () => number;
  readonly connection: Connection;
  readonly wakeUps: WakeUps;
  readonly fault: { readonly registryDown: boolean };
}

/** One warm instance of `reconcile`. */
function createInstance({ now, connection, wakeUps, fault }: InstanceParts) {
  const registry = {
    names: async () => [CLUSTER],
    access: async () => ({ server: "https://west.example", auth: { kind: "token", token: "t" }, mode: "act" }) as const,
  };
  const directory = createDirectory({ registry, now, connect: () => connection });
  return createReconcile(() => ({
    directory: {
      ...directory,
      async find(name) {
        if (fault.registryDown) throw new Error("the registry is out of reach");
        return directory.find(name);
      },
    },
    wakeUps,
    facts: { publishReconciled: async () => true },
    deployment: "here",
    stopped: false,
    now,
    sleep: async () => undefined,
    nonce: () => "nonce",
    logger: SILENT,
  }));
}

function batchEvent(queue: QueueName, batch: readonly Message[]): object {
  return {
    Records: batch.map(({ id, body, sentAt }) => ({
      messageId: id,
      body,
      attributes: { SentTimestamp: String(sentAt) },
      eventSourceARN: `arn:aws:sqs:eu-central-1:123456789012:vmpool-functions-${queue}.fifo`,
    })),
  };
}

/** Every pool is as it should be; what remains is when it was looked at, and how widely. */
function createSettledCluster(clock: { readonly nowMs: number }) {
  const reads = new Map<number, number[]>();
  const wideReads = new Map<number, number[]>();
  let passes = 0;
  const note = (list: Map<number, number[]>, pool: number) => {
    const times = list.get(pool) ?? [];
    times.push(clock.nowMs);
    list.set(pool, times);
  };
  const discovery = served("v1beta1");
  const answer = ({ method, path }: ApiRequest): ApiResponse => {
    if (path.startsWith("/apis/pool.kubevirt.io") && !path.includes("/namespaces/")) return discovery;
    const [, namespace = "", plural = ""] = /\/namespaces\/(ns-\d+)\/([a-z]+)/.exec(path) ?? [];
    const pool = Number(namespace.slice("ns-".length));
    if (method === "GET" && plural === "virtualmachinepools") {
      passes += 1;
      note(reads, pool);
      return ok(aSettledPool({ namespace, replicas: 0 }), DATE);
    }
    if (method !== "GET" || plural !== "virtualmachines") throw new Error(`nobody should ask for ${method} ${path}`);
    if (!path.includes("labelSelector=")) note(wideReads, pool);
    return aList([]);
  };
  const connection: Connection = {
    send: async (request) => answer(request),
    watch() {
      throw new Error("functions do not watch");
    },
    close: async () => undefined,
  };
  return { connection, seen: () => ({ reads, wideReads, passes }) };
}
