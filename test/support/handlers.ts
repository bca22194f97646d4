/** What the tests of the functions share: the events that AWS sends, a directory over scripted wires, recorders in the place of queues, bus and log. */
import { createHash } from "node:crypto";
import type { Context } from "aws-lambda";
import { createReconcile, type ReconcileDeps } from "../../functions/reconcile.ts";
import { lambdaContext } from "../../infra/local/runtime/lambda-context.ts";
import type { ClusterAccess, ServerAccess } from "../../shared/clusters/access.ts";
import { createDirectory, type Directory } from "../../shared/clusters/directory.ts";
import type { Facts, Reconciled } from "../../shared/events/facts.ts";
import { groupIdOf, type Outgoing, type QueueName, type WakeUp, type WakeUps } from "../../shared/events/wake-ups.ts";
import type { Fields, Logger } from "../../shared/runtime/logger.ts";
import type { Wire } from "./transport.ts";
import { NAMESPACE, NOW } from "./transport-objects.ts";

/** The context of an invocation with so much time left. */
export function aContext(remainingMs = 60_000): Context {
  return { ...lambdaContext("test", 0), getRemainingTimeInMillis: () => remainingMs };
}

export function aWakeUp(fields: Partial<WakeUp> = {}): WakeUp {
  return { version: 1, cluster: "west", namespace: NAMESPACE, name: "web", cause: "pool", attempt: 0, ...fields };
}

export interface MessageFields {
  readonly id?: string;
  readonly queue?: QueueName;
  readonly sentAt?: number;
  /** In the place of a wake-up's JSON. */
  readonly body?: string;
}

/** One record of a batch of a FIFO queue, as Lambda's poller sends it. */
export function aMessage(fields: Partial<WakeUp> & MessageFields = {}) {
  const { id = "message-1", queue = "passes", sentAt = NOW - 3_000, body: text, ...wakeUpFields } = fields;
  const wakeUp = aWakeUp(wakeUpFields);
  const body = text ?? JSON.stringify(wakeUp);
  return {
    messageId: id,
    receiptHandle: `handle of ${id}`,
    body,
    attributes: {
      ApproximateReceiveCount: "1",
      SentTimestamp: String(sentAt),
      SequenceNumber: "18893546734521123328",
      MessageGroupId: groupIdOf(wakeUp),
      SenderId: "AROAEXAMPLE:vmpool-functions",
      MessageDeduplicationId: `${groupIdOf(wakeUp)}.1.other`,
      ApproximateFirstReceiveTimestamp: String(sentAt + 2_000),
    },
    messageAttributes: {},
    md5OfBody: createHash("md5").update(body).digest("hex"),
    eventSource: "aws:sqs",
    eventSourceARN: `arn:aws:sqs:eu-central-1:123456789012:vmpool-functions-${queue}.fifo`,
    awsRegion: "eu-central-1",
  };
}

export function aBatch(...Records: readonly ReturnType<typeof aMessage>[]) {
  return { Records };
}

/** What EventBridge Scheduler sends when the schedule names no input of its own. */
export const TICK = {
  version: "0",
  id: "6f1c7a52-0000-4000-8000-000000000001",
  "detail-type": "Scheduled Event",
  source: "aws.scheduler",
  account: "123456789012",
  time: "2026-05-01T12:00:00Z",
  region: "eu-central-1",
  resources: ["arn:aws:scheduler:eu-central-1:123456789012:schedule/default/resync"],
  detail: "{}",
} as const;

/** A fact as EventBridge delivers it to a rule's target. */
export function aBusEvent(detail: unknown) {
  return {
    version: "0",
    id: "6f1c7a52-0000-4000-8000-000000000002",
    "detail-type": "Virtual Machine Pool Reconciled",
    source: "vmpool-functions",
    account: "123456789012",
    time: "2026-05-01T12:00:00Z",
    region: "eu-central-1",
    resources: [],
    detail,
  };
}

export interface Registered {
  readonly wire: Wire;
  readonly access?: Partial<ServerAccess>;
}

export interface Registrations {
  readonly directory: Directory;
  /** Names of the entries that were read, in order. */
  readonly reads: readonly string[];
  /** Accesses that were connected with, in order. */
  readonly connected: readonly ClusterAccess[];
}

/** A directory of clusters, each behind its wire. The record may be changed while the test goes on. */
export function aDirectory(clusters: Readonly<Record<string, Registered>>, now: () => number): Registrations {
  const reads: string[] = [];
  const connected: ClusterAccess[] = [];
  const serverOf = (name: string) => `https://${name}.example:6443`;
  const registry = {
    names: async () => Object.keys(clusters),
    async access(name: string): Promise<ServerAccess | undefined> {
      reads.push(name);
      const found = Object.hasOwn(clusters, name) ? clusters[name] : undefined;
      if (found === undefined) return undefined;
      return { server: serverOf(name), auth: { kind: "token", token: "s3cr3t" }, mode: "act", ...found.access };
    },
    webhook: async () => undefined,
  };
  const connect = (access: ClusterAccess) => {
    connected.push(access);
    const [, found] = Object.entries(clusters).find(([name]) => serverOf(name) === access.server) ?? [];
    if (found === undefined) throw new Error(`the test registers no cluster at ${access.server}`);
    return found.wire;
  };
  return { directory: createDirectory({ registry, now, connect }), reads, connected };
}

export interface Mailbox extends WakeUps {
  readonly sent: readonly (Outgoing & { readonly queue: QueueName })[];
  /** Queues that take nothing. */
  readonly down: Set<QueueName>;
}

export function aMailbox(): Mailbox {
  const sent: (Outgoing & { readonly queue: QueueName })[] = [];
  const down = new Set<QueueName>();
  return {
    sent,
    down,
    async send(queue, outgoing) {
      if (down.has(queue)) return outgoing;
      sent.push(...outgoing.map((entry) => ({ ...entry, queue })));
      return [];
    },
  };
}

export interface Bus extends Facts {
  readonly published: readonly Reconciled[];
  /** False: the bus takes nothing. */
  works: boolean;
}

export function aBus(): Bus {
  const published: Reconciled[] = [];
  return {
    published,
    works: true,
    async publishReconciled(fact) {
      if (this.works) published.push(fact);
      return this.works;
    },
  };
}

export interface LogLine {
  readonly level: keyof Logger;
  readonly message: string;
  readonly fields: Fields;
}

export interface Log extends Logger {
  readonly lines: readonly LogLine[];
  /** Messages of one level. */
  at(level: keyof Logger): readonly string[];
}

export function aLog(): Log {
  const lines: LogLine[] = [];
  const write = (level: keyof Logger) => (message: string, fields: Fields) => {
    lines.push({ level, message, fields });
  };
  return {
    lines,
    at: (wanted) => lines.filter(({ level }) => level === wanted).map(({ message }) => message),
    debug: write("debug"),
    info: write("info"),
    warn: write("warn"),
    error: write("error"),
  };
}

/** The function `reconcile` with everything around it recorded. */
export function aReconcile(clusters: Readonly<Record<string, Registered>>, given: Partial<ReconcileDeps> = {}) {
  const clock = { now: NOW };
  const now = () => clock.now;
  const registrations = aDirectory(clusters, now);
  const mailbox = aMailbox();
  const bus = aBus();
  const log = aLog();
  let nonces = 0;
  const deps: ReconcileDeps = {
    directory: registrations.directory,
    wakeUps: mailbox,
    facts: bus,
    deployment: "here",
    stopped: false,
    now,
    sleep: async (ms) => {
      clock.now += ms;
    },
    nonce: () => {
      nonces += 1;
      return `nonce-${nonces}`;
    },
    logger: log,
    ...given,
  };
  const handler = createReconcile(() => deps);
  return {
    clock,
    mailbox,
    bus,
    log,
    ...registrations,
    run: (...messages: readonly ReturnType<typeof aMessage>[]) => handler(aBatch(...messages), aContext()),
    handler,
  };
}

/** What a pass of the pool `web` reports. */
export function aFact(fields: Partial<Reconciled> = {}): Reconciled {
  return {
    version: 1,
    cluster: "west",
    namespace: "ci",
    name: "web",
    uid: "uid-web",
    resourceVersion: "102",
    generation: 3,
    startedAt: "2026-05-01T12:00:00.000Z",
    durationMs: 431,
    requests: 7,
    actions: { createVm: 2 },
    status: { replicas: 2, readyReplicas: 0, labelSelector: "app=web", conditions: [] },
    failures: [],
    complete: true,
    ...fields,
  };
}
