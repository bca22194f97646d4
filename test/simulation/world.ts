/**
 * The functions as they run on AWS, on the cluster in memory, under a clock that only the scheduler moves. Every await of a handler
 * ends in a call or a sleep that waits here until the scheduler picks it, so that passes interleave at each API call.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import type { Context } from "aws-lambda";
import { createAdmission } from "../../functions/admission.ts";
import { createReconcile } from "../../functions/reconcile.ts";
import { createResync } from "../../functions/resync.ts";
import { createScale } from "../../functions/scale.ts";
import { createStatus } from "../../functions/status.ts";
import { createWebhook } from "../../functions/webhook.ts";
import { createFifoQueue, type FifoQueue, type Message } from "../../infra/local/runtime/fifo-queue.ts";
import { lambdaContext } from "../../infra/local/runtime/lambda-context.ts";
import type { ApiRequest, ApiResponse } from "../../shared/clusters/connection.ts";
import { createDirectory } from "../../shared/clusters/directory.ts";
import type { PassResult } from "../../shared/clusters/reconcile-pool.ts";
import { OWN_GROUP } from "../../shared/events/changes.ts";
import { FACT_SOURCE, RECONCILED, type Reconciled } from "../../shared/events/facts.ts";
import { QUEUE_DELAY_MS, type QueueName, type WakeUp, type WakeUps } from "../../shared/events/wake-ups.ts";
import type { Logger } from "../../shared/runtime/logger.ts";
import { createMemoryCluster, type MemoryCluster, type MemoryClusterOptions } from "./cluster.ts";
import type { Kind } from "./kinds.ts";
import { httpEvent, noticeOf, type Sender, WEBHOOK_ENTRY } from "./notices.ts";
import { createRandom } from "./random.ts";
import type { Change } from "./store.ts";

const EPOCH_MS = Date.parse("2026-11-22T10:00:00Z");
const FUNCTION_TIMEOUT_MS = {
  reconcile: 60_000,
  resync: 50_000,
  status: 30_000,
  scale: 25_000,
  webhook: 10_000,
  admission: 10_000,
} as const;
const QUEUE = { visibilityMs: 90_000, retentionMs: 10 * 60_000, receiptsMax: 3 } as const;
/** A call that was sent may still take effect this long after nobody waits for it any more: with the clocks below the most that a claim allows for. */
const LATE_MS = 55_000;
/** The API servers of the cluster do not agree on the time. */
const SERVER_CLOCKS_MS = [-15_000, 0, 15_000] as const;
/** What the functions log when a pool is not for them to act on. */
const HOLDS = new Set(["pool is illegal and held", "pool has a second writer and is held"]);
const WARM_INSTANCES = 3;
const CLUSTER = "local";
/** Who may look after the pools; two of them at once is a mistake that must do no harm. */
const DEPLOYMENTS = ["simulated", "rival"] as const;
export type Deployment = (typeof DEPLOYMENTS)[number];

export type FunctionName = keyof typeof FUNCTION_TIMEOUT_MS;

export interface Invocation {
  readonly id: number;
  readonly name: FunctionName;
  readonly endsAt: number;
  /** Path of a pool → how many changes there had been in the oldest picture, from its first read of the pool on, that it was shown. */
  readonly firstReads: Map<string, number>;
  readonly onKilled: () => void;
  isOver: boolean;
  nonces: number;
}

/** A warm instance of the functions: what it remembers is lost with it. */
interface Instance {
  readonly reconcile: ReturnType<typeof createReconcile>;
  readonly resync: ReturnType<typeof createResync>;
  readonly status: ReturnType<typeof createStatus>;
  readonly scale: ReturnType<typeof createScale>;
  readonly webhook: ReturnType<typeof createWebhook>;
  readonly admission: ReturnType<typeof createAdmission>;
}

/** A request that a handler awaits. */
export interface PendingCall {
  readonly invocation: Invocation;
  readonly request: ApiRequest;
  /** What the request is authorized by. */
  readonly token: string;
  readonly settle: PromiseWithResolvers<ApiResponse>;
  /** It took effect; the answer is on its way. */
  answer: ApiResponse | undefined;
}

interface Sleeper {
  readonly invocation: Invocation;
  readonly until: number;
  readonly wake: () => void;
}

/** A request whose sender is gone. */
export interface LateCall extends Pick<PendingCall, "invocation" | "request" | "token"> {
  readonly until: number;
}

interface Place {
  readonly namespace: string;
  readonly name: string;
}

export interface World {
  readonly cluster: MemoryCluster;
  readonly queues: Readonly<Record<QueueName, FifoQueue>>;
  readonly calls: PendingCall[];
  readonly late: LateCall[];
  readonly facts: Reconciled[];
  readonly invocations: Set<Invocation>;
  /** Every invocation there was, by its name in the journal. */
  readonly started: ReadonlyMap<string, Invocation>;
  /** What the functions logged as an error: a bug. */
  readonly errors: string[];
  /** What the API server does not serve for the moment, by plural. */
  readonly unserved: Set<string>;
  /** Nobody gets through to the API server. */
  isDown: boolean;
  /** What keeps the call from being served as things are. */
  outageFor(call: PendingCall): "down" | "token" | "not served" | undefined;
  /** The functions' clock; the cluster has its own. */
  now(): number;
  /** Moves the clock: sleepers wake, functions whose time is up are killed, late calls are lost at the latest. */
  advance(ms: number): void;
  /** When the next handler wakes from its sleep. */
  wakesAt(): number | undefined;
  /** Receives what is due in the queue and runs it, in so many warm instances at once; false when nothing is. */
  deliver(queue: QueueName, copies: number): boolean;
  /** Begins a pass that no queue orders behind the others: a second deployment, a message that comes twice. */
  intrude(pool: Place, cause: string, deployment?: Deployment): void;
  report(fact: Reconciled): void;
  resync(): void;
  /** The cluster tells of a change. */
  hear(change: Change, sender: Sender): void;
  /** A user scales the pool over HTTP. */
  scale(pool: Place, replicas: number): void;
  /** What the functions come with is no longer accepted; the registry has another. */
  rotateToken(): void;
  /** Lets the call take effect. */
  perform(call: PendingCall): void;
  /** Shows the handler the cluster as it was so many changes ago. */
  answerStale(call: PendingCall, behind: number): void;
  /** Hands the handler the answer; performs the call first where that is still to be done. */
  answer(call: PendingCall): void;
  /** The connection breaks; whether the call took effect is not said. */
  lose(call: PendingCall, error: Error): void;
  /** As `lose`; what was not done yet may still be done later, while the handler goes on. */
  abandon(call: PendingCall, error: Error): void;
  /** Answers in the server's place; what was not done yet may still be done later where it `outlives` its answer. */
  reply(call: PendingCall, response: ApiResponse, outlives: boolean): void;
  /** Ends the function where it stands; what it had sent may still take effect. */
  kill(invocation: Invocation): void;
  /** From now on other instances serve, which remember nothing. */
  restart(): void;
  /** The API servers' clocks agree from now on. */
  setClocks(): void;
  land(call: LateCall): void;
  /** Lets the handlers run until each waits for a call, sleeps or is over. */
  settle(): Promise<void>;
}

export interface WorldOptions {
  readonly seed: number;
  readonly kinds: readonly Kind[];
  readonly onPass: (key: WakeUp, result: PassResult) => void;
  /** Hears of every request that reached the API server. */
  readonly onAnswer: (answered: Answered) => void;
  readonly validate?: MemoryClusterOptions["validate"];
  /** How far the cluster's clock is ahead of the functions'. */
  readonly skewMs?: number;
}

export interface Answered {
  readonly invocation: Invocation;
  readonly request: ApiRequest;
  readonly response: ApiResponse;
  readonly isLate: boolean;
}

export function createWorld({ seed, kinds, onPass, onAnswer, validate, skewMs = 0 }: WorldOptions): World {
  const random = createRandom(seed);
  let clocks: readonly number[] = SERVER_CLOCKS_MS;
  let clock = EPOCH_MS;
  let invoked = 0;
  const now = () => clock;
  const clusterNow = () => clock + skewMs;
  const cluster = createMemoryCluster({
    seed,
    kinds,
    now: clusterNow,
    ...(validate === undefined ? {} : { validate }),
  });
  const unserved = new Set<string>();
  const network = { isDown: false };
  let tokens = 0;
  const tokenInForce = () => `token-${tokens}`;
  const current = new AsyncLocalStorage<Invocation>();
  const calls: PendingCall[] = [];
  const late: LateCall[] = [];
  const sleepers: Sleeper[] = [];
  const facts: Reconciled[] = [];
  const errors: string[] = [];
  const invocations = new Set<Invocation>();
  const started = new Map<string, Invocation>();
  const queues = {
    passes: createFifoQueue({ ...QUEUE, name: "passes", delayMs: QUEUE_DELAY_MS.passes }),
    late: createFifoQueue({ ...QUEUE, name: "late", delayMs: QUEUE_DELAY_MS.late }),
  };
  const running = (): Invocation => {
    const invocation = current.getStore();
    if (invocation === undefined) throw new Error("a call outside of any invocation");
    return invocation;
  };
  const send = (request: ApiRequest, token: string): Promise<ApiResponse> => {
    const settle = Promise.withResolvers<ApiResponse>();
    calls.push({ invocation: running(), request, token, settle, answer: undefined });
    return settle.promise;
  };
  const registry = {
    names: async () => [CLUSTER],
    access: async () =>
      ({ server: "https://simulated", auth: { kind: "token", token: tokenInForce() }, mode: "act" }) as const,
  };
  const sleep = (ms: number): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    sleepers.push({ invocation: running(), until: clock + ms, wake: resolve });
    return promise;
  };
  const wakeUps: WakeUps = {
    async send(queue, outgoing) {
      if (!running().isOver) for (const entry of outgoing) queues[queue].send(entry, clock);
      return [];
    },
  };
  const logger: Logger = {
    debug: () => undefined,
    info: () => undefined,
    warn: () => undefined,
    error(message, fields) {
      // The functions' own deadlines are real timers, which only a very slow machine reaches.
      const isRealTime = fields?.["error"] === "TimeoutError";
      if (!HOLDS.has(message) && !isRealTime) errors.push(`${message} ${JSON.stringify(fields)}`);
    },
  };
  const createInstance = (deployment: Deployment): Instance => {
    const directory = createDirectory({
      registry,
      now,
      connect: ({ auth }) => ({
        send: (request) => send(request, auth.kind === "token" ? auth.token : ""),
        watch() {
          throw new Error("nobody watches here");
        },
        close: async () => undefined,
      }),
    });
    const shared = { directory, wakeUps, now, logger };
    const publish = { publishReconciled: async (fact: Reconciled) => !running().isOver && facts.push(fact) > 0 };
    // Each function counts its own, so that what it writes does not tell what others did before.
    const nonce = () => {
      const invocation = running();
      invocation.nonces += 1;
      return `nonce-${invocation.id}-${invocation.nonces}`;
    };
    const reconcile = createReconcile(() => ({
      ...shared,
      facts: publish,
      deployment,
      stopped: false,
      sleep,
      nonce,
      onPass,
    }));
    const resync = createResync(() => ({ ...shared, rules: { settledMinutes: 10, everything: false } }));
    const webhooks = { find: async () => WEBHOOK_ENTRY, refuse: () => undefined };
    const keys = { find: async () => undefined, refuse: () => undefined };
    const listening = () => ({ ...shared, webhooks, keys });
    return {
      reconcile,
      resync,
      status: createStatus(() => shared),
      scale: createScale(() => ({ ...shared, sleep })),
      webhook: createWebhook(listening),
      admission: createAdmission(listening),
    };
  };
  const instances = new Map<Deployment, readonly Instance[]>();
  const restart = () => {
    for (const deployment of DEPLOYMENTS)
      instances.set(
        deployment,
        Array.from({ length: WARM_INSTANCES }, () => createInstance(deployment)),
      );
  };
  restart();
  /** Each in its turn, so that one may remember what another has overtaken. */
  const nextInstances = (count: number, deployment: Deployment = "simulated"): readonly Instance[] => {
    const warm = instances.get(deployment) ?? [];
    return Array.from({ length: count }, (_, index) => warm[(invoked + index) % warm.length]).filter(
      (instance) => instance !== undefined,
    );
  };

  const begin = (name: FunctionName, onKilled: () => void = () => undefined): Invocation => {
    invoked += 1;
    const endsAt = clock + FUNCTION_TIMEOUT_MS[name];
    const invocation = {
      id: invoked,
      name,
      endsAt,
      firstReads: new Map<string, number>(),
      onKilled,
      isOver: false,
      nonces: 0,
    };
    invocations.add(invocation);
    started.set(actorOf(invocation), invocation);
    return invocation;
  };
  /** What a function throws has been logged by its stack. */
  const run = <T>(
    invocation: Invocation,
    handle: (context: Context) => Promise<T>,
    done: (value: T | undefined) => void,
  ) => {
    const context: Context = {
      ...lambdaContext(invocation.name, 0),
      getRemainingTimeInMillis: () => Math.max(0, invocation.endsAt - clock),
    };
    const end = (value: T | undefined) => {
      if (invocation.isOver) return;
      invocation.isOver = true;
      invocations.delete(invocation);
      done(value);
    };
    void current.run(invocation, () => handle(context)).then(end, () => end(undefined));
  };
  const forget = <T>(list: T[], gone: (entry: T) => boolean): T[] => {
    const removed = list.filter(gone);
    list.splice(0, list.length, ...list.filter((entry) => !gone(entry)));
    return removed;
  };
  const isUnserved = ({ path }: ApiRequest) => [...unserved].some((plural) => isOf(plural, path));
  /** The server's answer, and what it does on the way. */
  const perform = (
    { invocation, request, token }: Pick<PendingCall, "invocation" | "request" | "token">,
    { isLate, behind }: { readonly isLate: boolean; readonly behind: number } = { isLate: false, behind: 0 },
  ): ApiResponse => {
    const date = new Date(clusterNow() + (random.pick(clocks) ?? 0)).toUTCString();
    if (token !== tokenInForce()) return { status: 401, headers: { date }, body: UNAUTHORIZED, bytes: 0 };
    if (isUnserved(request)) return { status: 404, headers: { date }, body: "404 page not found\n", bytes: 0 };
    if (request.method === "GET") notePicture(invocation, request.path, cluster.store.journal.length - behind);
    const { headers, ...answer } = cluster.answer(request, actorOf(invocation), behind);
    const response = { ...answer, headers: { ...headers, date } };
    onAnswer({ invocation, request, response, isLate });
    return response;
  };
  const outlive = ({ invocation, request, token, answer }: PendingCall, at = clock) => {
    if (answer === undefined && request.method !== "GET")
      late.push({ invocation, request, token, until: at + LATE_MS });
  };
  const kill = (invocation: Invocation, at = clock) => {
    invocation.isOver = true;
    invocations.delete(invocation);
    for (const call of forget(calls, (other) => other.invocation === invocation)) outlive(call, at);
    forget(sleepers, (sleeper) => sleeper.invocation === invocation);
    invocation.onKilled();
  };
  const finish = (call: PendingCall) => void forget(calls, (other) => other === call);
  return {
    cluster,
    queues,
    calls,
    late,
    facts,
    invocations,
    started,
    errors,
    unserved,
    get isDown() {
      return network.isDown;
    },
    set isDown(value) {
      network.isDown = value;
    },
    outageFor({ token, request }) {
      if (network.isDown) return "down";
      if (token !== tokenInForce()) return "token";
      return isUnserved(request) ? "not served" : undefined;
    },
    now,
    advance(ms) {
      clock += ms;
      for (const invocation of [...invocations]) if (invocation.endsAt <= clock) kill(invocation, invocation.endsAt);
      for (const { wake } of forget(sleepers, ({ until }) => until <= clock)) wake();
      forget(late, ({ until }) => until <= clock);
    },
    wakesAt: () => (sleepers.length === 0 ? undefined : Math.min(...sleepers.map(({ until }) => until))),
    deliver(queue, copies) {
      const batch = queues[queue].receive(clock);
      if (batch.length === 0) return false;
      const all = new Set(batch.map(({ id }) => id));
      let left = copies;
      // The queue hears once: of the copy that ends last.
      const settle = (failed: ReadonlySet<string>) => {
        left -= 1;
        if (left === 0) queues[queue].settle(batch, failed, clock);
      };
      for (const { reconcile } of nextInstances(copies)) {
        const invocation = begin("reconcile", () => settle(all));
        run(
          invocation,
          async (context) => reconcile(batchEvent(queue, batch), context),
          (response) => settle(new Set(response?.batchItemFailures.map(({ itemIdentifier }) => itemIdentifier) ?? all)),
        );
      }
      return true;
    },
    intrude(pool, cause, deployment) {
      const [instance] = nextInstances(1, deployment);
      const message = { id: "0", body: JSON.stringify(wakeUpOf(pool, cause)), sentAt: clock };
      run(
        begin("reconcile"),
        async (context) => instance?.reconcile(batchEvent("passes", [message]), context),
        () => undefined,
      );
    },
    report(detail) {
      const [instance] = nextInstances(1);
      const event = { source: FACT_SOURCE, "detail-type": RECONCILED, detail };
      run(
        begin("status"),
        async (context) => instance?.status(event, context),
        () => undefined,
      );
    },
    resync() {
      const [instance] = nextInstances(1);
      run(
        begin("resync"),
        async (context) => instance?.resync({}, context),
        () => undefined,
      );
    },
    hear(change, sender) {
      const [instance] = nextInstances(1);
      const groups = started.has(change.actor) ? [OWN_GROUP] : [];
      const event = noticeOf(change, sender, { cluster: CLUSTER, groups });
      const name = sender === "admission" ? "admission" : "webhook";
      run(
        begin(name),
        async (context) => instance?.[name](event, context),
        () => undefined,
      );
    },
    scale({ namespace, name }, replicas) {
      const [instance] = nextInstances(1);
      const event = httpEvent({
        method: "PATCH",
        parameters: { cluster: CLUSTER, version: "v1beta1", namespace, name },
        headers: { "content-type": "application/merge-patch+json" },
        body: { spec: { replicas } },
      });
      run(
        begin("scale"),
        async (context) => instance?.scale(event, context),
        () => undefined,
      );
    },
    rotateToken() {
      tokens += 1;
    },
    perform(call) {
      if (!network.isDown) call.answer = perform(call);
    },
    answer(call) {
      finish(call);
      if (call.answer !== undefined) call.settle.resolve(call.answer);
      else if (network.isDown) call.settle.reject(REFUSED);
      else call.settle.resolve(perform(call));
    },
    answerStale(call, behind) {
      finish(call);
      call.settle.resolve(perform(call, { isLate: false, behind }));
    },
    lose(call, error) {
      finish(call);
      call.settle.reject(error);
    },
    abandon(call, error) {
      finish(call);
      outlive(call);
      call.settle.reject(error);
    },
    reply(call, response, outlives) {
      finish(call);
      if (outlives) outlive(call);
      call.settle.resolve(response);
    },
    kill,
    restart,
    setClocks() {
      clocks = [0];
    },
    land(call) {
      forget(late, (other) => other === call);
      perform(call, { isLate: true, behind: 0 });
    },
    // A turn of the event loop runs every promise that can run.
    settle: () => new Promise((resolve) => setImmediate(resolve)),
  };
}

/** As it stands in the journal. */
export function actorOf({ name, id }: Pick<Invocation, "name" | "id">): string {
  return `${name} ${id}`;
}

function wakeUpOf({ namespace, name }: Place, cause: string): WakeUp {
  return { version: 1, cluster: CLUSTER, namespace, name, cause, attempt: 0 };
}

const UNAUTHORIZED = { kind: "Status", status: "Failure", reason: "Unauthorized", message: "Unauthorized", code: 401 };
const REFUSED = Object.assign(new Error("connection refused"), { code: "ECONNREFUSED" });

/** Whether the path is one of that kind, or asks what there is of the pools' group. */
function isOf(plural: string, path: string): boolean {
  return path.includes(`/${plural}`) || (plural === "virtualmachinepools" && path === "/apis/pool.kubevirt.io");
}

/** A pass is judged against everything from the oldest picture on that it was shown. */
function notePicture({ firstReads }: Invocation, path: string, changes: number): void {
  const pool = /^\/apis\/pool\.kubevirt\.io\/[^/]+\/(namespaces\/[^/]+\/virtualmachinepools\/[^/?]+)$/.exec(path)?.[1];
  if (pool !== undefined && !firstReads.has(pool)) firstReads.set(pool, changes);
  for (const [known, from] of firstReads) if (changes < from) firstReads.set(known, changes);
}

function batchEvent(queue: QueueName, batch: readonly Pick<Message, "id" | "body" | "sentAt">[]) {
  return {
    Records: batch.map(({ id, body, sentAt }) => ({
      messageId: id,
      body,
      attributes: { SentTimestamp: String(sentAt) },
      eventSourceARN: `arn:aws:sqs:local:000000000000:${queue}.fifo`,
    })),
  };
}
