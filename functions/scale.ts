/** The scale of a pool, for clients that only speak HTTP and for alarms and clocks: changes `spec.replicas` through the cluster's own subresource and wakes the pool. */
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import {
  type ApiFailure,
  createCluster,
  type Meter,
  poolsOf,
  type ScalableCluster,
} from "../shared/clusters/cluster.ts";
import { createDirectory, type Directory, type ReachableCluster } from "../shared/clusters/directory.ts";
import { type KubernetesStatus, statusObject, statusOfFailure } from "../shared/clusters/kubernetes-status.ts";
import { openRegistry, RegistryError } from "../shared/clusters/registry.ts";
import {
  applyScale,
  fetchScale,
  formatScale,
  type ReadChange,
  readJsonPatch,
  readMergePatch,
  readReplacement,
  type ScaleChange,
  type ScaleTarget,
} from "../shared/clusters/scale.ts";
import { SCALE_REQUESTED, type ScaleRequested, scaleRequestedSchema } from "../shared/events/facts.ts";
import { createSqsWakeUps, type PoolKey, type WakeUps } from "../shared/events/wake-ups.ts";
import { OBJECT_NAME } from "../shared/planning/names.ts";
import { boundedReplicas, judgeCurrent, judgeRequest, type RefusalReason } from "../shared/planning/scale-request.ts";
import { shorten } from "../shared/planning/wording.ts";
import { readConfig, scaleConfigSchema } from "../shared/runtime/config.ts";
import { type HttpAnswer, type HttpEvent, httpEventSchema, json, readBody } from "../shared/runtime/http.ts";
import { createLogger, describeError, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { createStack } from "../shared/runtime/stack.ts";

/** A Scale has a few hundred bytes. */
const BODY_BYTES_MAX = 16 * 1024;
const TIME_RESERVE_MS = 3_000;
/** Of what is wrong with an event: its keys are its sender's. */
const MESSAGE_LENGTH_MAX = 500;
/** How often a request that came as an event is tried: it is too old for another delivery. */
const ATTEMPTS_MAX = 3;
const RETRY_PAUSE_MS = 500;
const RETRY_PAUSE_MAX_MS = 5_000;

export interface ScaleDeps {
  readonly directory: Directory;
  readonly wakeUps: WakeUps;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly sleep: (ms: number) => Promise<void>;
  readonly logger: Logger;
}

/** What became of a request that came as an event. */
export type ScaleResult =
  | { readonly outcome: "scaled"; readonly replicas: number }
  | {
      readonly outcome: "refused";
      readonly reason: RefusalReason | "invalid" | "unknownCluster" | "notServed" | "observing";
      readonly message: string;
    }
  | { readonly outcome: "failed"; readonly reason: ApiFailure["kind"]; readonly message: string };

/** `replay-name` stands in what EventBridge takes from an archive. */
const requestEventSchema = z.object({
  "detail-type": z.literal(SCALE_REQUESTED),
  "replay-name": z.string().optional(),
  detail: z.unknown(),
});
const eventSchema = z.union([httpEventSchema, requestEventSchema]);

/** Makes the handler. `deps` is called at the first event, so that importing a function reads no environment. */
export function createScale(deps: () => ScaleDeps) {
  return createStack(
    { name: "scale", event: eventSchema, logger: () => deps().logger },
    async (event, context): Promise<HttpAnswer | ScaleResult> => {
      const deadline = AbortSignal.timeout(Math.max(1, context.getRemainingTimeInMillis() - TIME_RESERVE_MS));
      const call: Call = { deps: deps(), deadline };
      if ("detail-type" in event) return serveRequest(event, call);
      return answer(event, call).catch((error: unknown) => refuseUnusable(error, event, call));
    },
  );
}

/** One invocation. */
interface Call {
  readonly deps: ScaleDeps;
  readonly deadline: AbortSignal;
}

/** Where a scale is to be found or changed. */
interface Found {
  readonly key: PoolKey;
  readonly cluster: ScalableCluster;
  readonly target: ScaleTarget;
}

async function answer(event: HttpEvent, call: Call): Promise<HttpAnswer> {
  const { cluster: name = "", version = "", namespace = "", name: pool = "" } = event.pathParameters ?? {};
  const key: PoolKey = { cluster: name, namespace, name: pool };
  const reachable = await call.deps.directory.find(name);
  if (reachable === undefined)
    return refuse(statusObject("NotFound", `no cluster "${name.slice(0, 63)}" is registered`));
  if (!OBJECT_NAME.test(namespace) || !OBJECT_NAME.test(pool) || !/^v\d[a-z0-9]{0,30}$/.test(version)) {
    return refuse(statusObject("NotFound", "the server could not find the requested resource"));
  }
  const { method } = event.requestContext.http;
  const isRead = method === "GET";
  const refusal = refusalOf(reachable, namespace, isRead);
  if (refusal !== undefined) return refuse(statusObject("Forbidden", refusal.message));
  const found: Found = { key, cluster: open(reachable, call), target: { pools: poolsOf(version), place: key } };
  if (isRead) return respond(found, await fetchScale(found.cluster, found.target), call);
  const read = readChange(event, found.target.place);
  return read.ok ? change(found, read.change, call) : refuse(read.status);
}

/** A registration that is of no use now is not the client's to mend. */
function refuseUnusable(error: unknown, { pathParameters }: HttpEvent, { deps }: Call): HttpAnswer {
  if (!(error instanceof RegistryError)) throw error;
  const { kind, message } = error;
  deps.logger.error("cluster cannot be read", { cluster: pathParameters?.["cluster"], kind, message });
  const shown = "the registration of the cluster cannot be used: the function's log says why";
  return refuse(statusObject("ServiceUnavailable", shown));
}

/** What the client wants done; refused before anything is sent where it cannot be meant. */
function readChange(event: HttpEvent, place: ScaleTarget["place"]): ReadChange {
  const { method } = event.requestContext.http;
  if (new URLSearchParams(event.rawQueryString).has("dryRun")) {
    return { ok: false, status: statusObject("BadRequest", "dryRun is not supported here") };
  }
  const [type = ""] = (event.headers["content-type"] ?? "").toLowerCase().split(";");
  const reader = READERS.get(method)?.get(type.trim());
  if (reader === undefined) return { ok: false, status: unreadable(method) };
  const body = readBody(event, BODY_BYTES_MAX);
  if (body !== undefined) return reader(body, place);
  return { ok: false, status: statusObject("RequestEntityTooLarge", `the body exceeds ${BODY_BYTES_MAX} bytes`) };
}

type Reader = (body: Buffer, place: ScaleTarget["place"]) => ReadChange;

const READERS: ReadonlyMap<string, ReadonlyMap<string, Reader>> = new Map([
  ["PUT", new Map([["application/json", readReplacement]])],
  [
    "PATCH",
    new Map([
      ["application/merge-patch+json", readMergePatch],
      ["application/json-patch+json", readJsonPatch],
    ]),
  ],
]);

function unreadable(method: string): KubernetesStatus {
  const types = READERS.get(method);
  if (types === undefined) {
    return statusObject("MethodNotAllowed", "the scale is read with GET and changed with PUT or PATCH");
  }
  const accepted = [...types.keys()].join(" or ");
  return statusObject("UnsupportedMediaType", `the content type of a ${method} has to be ${accepted}`);
}

async function change(found: Found, wanted: ScaleChange, call: Call): Promise<HttpAnswer> {
  const answered = await applyScale(found.cluster, found.target, wanted);
  // Where it is not known whether the change was made, looking costs little.
  if (answered.ok || !answered.failure.definite) await wake(found.key, call.deps);
  if (answered.ok)
    call.deps.logger.info("pool scaled", { ...shown(found.key), replicas: answered.value.spec.replicas, by: "http" });
  return respond(found, answered, call);
}

function respond({ key }: Found, answered: Awaited<ReturnType<typeof fetchScale>>, { deps }: Call): HttpAnswer {
  if (answered.ok) return json(200, formatScale(answered.value));
  const { failure } = answered;
  if (failure.kind === "unauthorized") deps.directory.refuse(key.cluster);
  deps.logger.warn("scale was refused by the cluster", { ...shown(key), kind: failure.kind, message: failure.message });
  return refuse(statusOfFailure(failure), failure.retryAfterMs);
}

function refuse(status: KubernetesStatus, retryAfterMs?: number): HttpAnswer {
  const seconds = retryAfterMs === undefined ? undefined : Math.ceil(retryAfterMs / 1_000);
  const isBusy = status.code === 429 || status.code === 503;
  return json(status.code, status, isBusy ? { "retry-after": String(seconds ?? 1) } : {});
}

/** Serves one event; every outcome is logged, because nobody waits for it. */
async function serveRequest(event: z.output<typeof requestEventSchema>, call: Call): Promise<ScaleResult> {
  const parsed = scaleRequestedSchema.safeParse(event.detail);
  if (!parsed.success) {
    const fields = parsed.error.issues.slice(0, 5).map(({ path, message }) => `${path.join(".")}: ${message}`);
    return note(
      {},
      { outcome: "refused", reason: "invalid", message: shorten(fields.join("; "), MESSAGE_LENGTH_MAX) },
      call,
    );
  }
  const request = parsed.data;
  const isReplay = event["replay-name"] !== undefined;
  const refusal = judgeRequest(request, { now: call.deps.now(), isReplay });
  const result: ScaleResult =
    refusal === undefined ? await serveJudged(request, call) : { outcome: "refused", ...refusal };
  return note(shown(request), result, call);
}

function note(fields: object, result: ScaleResult, { deps }: Call): ScaleResult {
  switch (result.outcome) {
    case "scaled":
      deps.logger.info("pool scaled", { ...fields, replicas: result.replicas, by: "event" });
      break;
    case "refused":
      deps.logger.warn("scale request refused", { ...fields, reason: result.reason, detail: result.message });
      break;
    case "failed":
      deps.logger.error("scale request failed", { ...fields, reason: result.reason, detail: result.message });
      break;
  }
  return result;
}

async function serveJudged(request: ScaleRequested, call: Call): Promise<ScaleResult> {
  const { directory } = call.deps;
  const reachable = await directory.find(request.cluster);
  if (reachable === undefined) {
    return { outcome: "refused", reason: "unknownCluster", message: `no cluster "${request.cluster}" is registered` };
  }
  const refusal = refusalOf(reachable, request.namespace, false);
  if (refusal !== undefined) return { outcome: "refused", ...refusal };
  return scaleWithRetries(request, open(reachable, call), call);
}

/** Tries again what may go better in a moment: a conflict with another write, a cluster that is busy or away. */
async function scaleWithRetries(request: ScaleRequested, cluster: ScalableCluster, call: Call): Promise<ScaleResult> {
  for (let attempt = 1; ; attempt += 1) {
    const result = await scaleOnce(request, cluster, call);
    if (!("failure" in result)) return result;
    const { failure } = result;
    if (attempt >= ATTEMPTS_MAX || !RETRYABLE.has(failure.kind) || call.deadline.aborted) {
      return failed(request, failure, call);
    }
    await call.deps.sleep(Math.min(failure.retryAfterMs ?? RETRY_PAUSE_MS * attempt, RETRY_PAUSE_MAX_MS));
  }
}

const RETRYABLE = new Set<ApiFailure["kind"]>(["conflict", "throttled", "unavailable", "unreachable", "timeout"]);

/** Without an expectation the last request wins; with one, the write carries the version that the expectation was tested on. */
async function scaleOnce(
  request: ScaleRequested,
  cluster: ScalableCluster,
  { deps }: Call,
): Promise<ScaleResult | { readonly failure: ApiFailure }> {
  const version = await cluster.poolVersion();
  if (!version.ok) return { failure: version.failure };
  const target: ScaleTarget = { pools: poolsOf(version.value), place: request };
  const replicas = boundedReplicas(request);
  const read = request.expectedReplicas === undefined ? undefined : await fetchScale(cluster, target);
  if (read?.ok === false) return { failure: read.failure };
  const refusal = read === undefined ? undefined : judgeCurrent(request, read.value.spec.replicas);
  if (refusal !== undefined) return { outcome: "refused", ...refusal };
  const metadata = read === undefined ? {} : { metadata: { resourceVersion: read.value.metadata.resourceVersion } };
  const patch = { type: "merge", body: { ...metadata, spec: { replicas } } } as const;
  const written = await applyScale(cluster, target, { kind: "patch", patch });
  if (written.ok || !written.failure.definite) await wake(request, deps);
  return written.ok ? { outcome: "scaled", replicas } : { failure: written.failure };
}

function failed({ cluster }: PoolKey, failure: ApiFailure, { deps }: Call): ScaleResult {
  if (failure.kind === "unauthorized") deps.directory.refuse(cluster);
  return { outcome: "failed", reason: failure.kind, message: failure.message };
}

/** Why this cluster's entry does not allow it; undefined when it does. */
function refusalOf({ name, access }: ReachableCluster, namespace: string, isRead: boolean) {
  if (access.namespaces !== undefined && !access.namespaces.includes(namespace)) {
    return { reason: "notServed", message: `namespace "${namespace}" of cluster "${name}" is not served` } as const;
  }
  if (isRead || access.mode === "act") return undefined;
  return { reason: "observing", message: `cluster "${name}" is only observed: nothing is written there` } as const;
}

function open({ connection, cache }: ReachableCluster, { deadline }: Call): ScalableCluster {
  const meter: Meter = { requests: 0, writes: 0, bytes: 0 };
  return createCluster({ transport: connection.send, meter, deadline, cache });
}

/** The change is made whether or not the hint arrives; resync is its bound. */
async function wake({ cluster, namespace, name }: PoolKey, { wakeUps, now, logger }: ScaleDeps): Promise<void> {
  const wakeUp = { version: 1, cluster, namespace, name, cause: "scale", attempt: 0 } as const;
  try {
    // Sent after the write, so that several of one second may merge as changes seen from outside do.
    const unsent = await wakeUps.send("passes", [{ wakeUp, seenAtMs: now() }]);
    if (unsent.length > 0) logger.error("wake-up could not be sent", shown(wakeUp));
  } catch (error) {
    logger.error("wake-up could not be sent", { ...shown(wakeUp), ...describeError(error) });
  }
}

function shown({ cluster, namespace, name }: PoolKey) {
  return { cluster, namespace, pool: name };
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): ScaleDeps {
  const config = readConfig(scaleConfigSchema);
  return {
    directory: createDirectory({ registry: openRegistry(config), now: Date.now }),
    wakeUps: createSqsWakeUps({ passes: config.PASSES_QUEUE_URL, late: config.LATE_QUEUE_URL }),
    now: Date.now,
    sleep: (ms) => sleep(ms),
    logger: createLogger("scale"),
  };
}

export const handler = createScale(once(productionDeps));
