/** The Kubernetes verbs that a pass uses, with every answer as a value. The in-memory cluster of the tests has the same interface. */
import { isRecord, recordOf } from "../planning/json.ts";
import { OWN_MANAGER, POOL_GROUP } from "../planning/names.ts";
import { shorten } from "../planning/wording.ts";
import type { ApiRequest, ApiResponse, Transport } from "./connection.ts";
import { UnreachableError } from "./unreachable.ts";

export interface ResourceType {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly plural: string;
}

export const VIRTUAL_MACHINES: ResourceType = { group: "kubevirt.io", version: "v1", plural: "virtualmachines" };
export const CONTROLLER_REVISIONS: ResourceType = { group: "apps", version: "v1", plural: "controllerrevisions" };
export const INSTANCES: ResourceType = { group: "kubevirt.io", version: "v1", plural: "virtualmachineinstances" };
export const KUBEVIRTS: ResourceType = { group: "kubevirt.io", version: "v1", plural: "kubevirts" };
export const DATA_VOLUMES: ResourceType = { group: "cdi.kubevirt.io", version: "v1beta1", plural: "datavolumes" };
export const CLAIMS: ResourceType = { group: "", version: "v1", plural: "persistentvolumeclaims" };
export const NAMESPACES: ResourceType = { group: "", version: "v1", plural: "namespaces" };
/** Only read by people's commands: the functions have no right to it. */
export const DEPLOYMENTS: ResourceType = { group: "apps", version: "v1", plural: "deployments" };
export const EVENTS: ResourceType = { group: "", version: "v1", plural: "events" };

export function poolsOf(version: string): ResourceType {
  return { group: POOL_GROUP, version, plural: "virtualmachinepools" };
}

export type FailureKind =
  /** There is no such object: the API server itself says so. */
  | "notFound"
  /** Nobody answers at that path: the kind is not served, now or ever, or something else than the API server answered. */
  | "notServed"
  | "alreadyExists"
  | "conflict"
  | "invalid"
  /** It was done, and what came of it is not what was sent. */
  | "altered"
  | "unauthorized"
  | "forbidden"
  | "expired"
  | "throttled"
  | "unavailable"
  | "timeout"
  | "unreachable"
  | "garbled";

/** Why a call did not do what was asked. */
export interface ApiFailure {
  readonly kind: FailureKind;
  /** HTTP status; undefined when no answer came. */
  readonly status: number | undefined;
  /** False when the call may have taken effect, or still may. */
  readonly definite: boolean;
  readonly retryAfterMs: number | undefined;
  /** Safe to log and to show: the server's message, cut; no headers, no bodies. */
  readonly message: string;
}

export type Answer<T> =
  | { readonly ok: true; readonly value: T; readonly serverTimeMs: number | undefined }
  | { readonly ok: false; readonly failure: ApiFailure };

export interface Place {
  /** All namespaces when absent; lists only. */
  readonly namespace?: string | undefined;
}
export interface ObjectPlace {
  /** Absent for objects of the cluster, such as a namespace. */
  readonly namespace?: string | undefined;
  readonly name: string;
}
export interface ListOptions {
  /** The API's text form; everything when empty. */
  readonly labelSelector?: string;
  /** Only `metadata` of each object. */
  readonly metadataOnly?: boolean;
  /** The resourceVersion of what was read before: an older list would hide what has happened since, and is refused. */
  readonly notOlderThan?: string | undefined;
}
export interface CreateOptions {
  /** The server does all but store the object. */
  readonly dryRun: boolean;
}
export type Patch =
  | { readonly type: "json"; readonly operations: readonly JsonPatchOperation[] }
  | { readonly type: "merge"; readonly body: object };
export interface JsonPatchOperation {
  readonly op: "test" | "add" | "replace" | "remove";
  readonly path: string;
  readonly value?: unknown;
}
export interface Preconditions {
  readonly uid: string;
  readonly resourceVersion: string;
}

export interface Cluster {
  get(type: ResourceType, at: ObjectPlace, subresource?: "scale"): Promise<Answer<unknown>>;
  /** A consistent list of all pages; never from a cache. */
  list(type: ResourceType, at: Place, options?: ListOptions): Promise<Answer<readonly unknown[]>>;
  create(
    type: ResourceType,
    at: { readonly namespace: string },
    object: object,
    options?: CreateOptions,
  ): Promise<Answer<unknown>>;
  patch(type: ResourceType, at: ObjectPlace, patch: Patch, subresource?: "status" | "scale"): Promise<Answer<unknown>>;
  delete(type: ResourceType, at: ObjectPlace, preconditions: Preconditions): Promise<Answer<unknown>>;
  /** The newest pool API version that is served, such as `v1beta1`. */
  poolVersion(): Promise<Answer<string>>;
}

/** With what no pass does: only the scale is ever put as a whole. */
export interface ScalableCluster extends Cluster {
  replace(type: ResourceType, at: ObjectPlace, object: object, subresource: "scale"): Promise<Answer<unknown>>;
}

/** What a pass has cost. */
export interface Meter {
  requests: number;
  writes: number;
  bytes: number;
}

export interface ClusterOptions {
  readonly transport: Transport;
  /** Counts every request that is sent. */
  readonly meter: Meter;
  /** Fires when the time is up: calls under way end, and their sockets with them. */
  readonly deadline: AbortSignal;
  /** Survives the pass; its loss costs one request. */
  readonly cache: ClusterCache;
}

/** What a warm instance remembers of a cluster. */
export interface ClusterCache {
  poolVersion: string | undefined;
}

/** The longest that one call may take, and that the server is allowed to work on a write. */
const CALL_TIMEOUT_MS = 15_000;
const SERVER_TIMEOUT = "10s";
/** Of what the server says of a refusal. */
const MESSAGE_LENGTH_MAX = 500;
const PAGE_SIZE = 1_000;
const PAGES_MAX = 100;
const METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/** Newest first; KubeVirt before 1.8 has only v1alpha1. */
export const POOL_VERSIONS = ["v1beta1", "v1alpha1"] as const;

/** The verbs over one transport. */
export function createCluster(options: ClusterOptions): ScalableCluster {
  const call = (request: Omit<ApiRequest, "signal">) => exchange(request, options);
  return {
    async get(type, at, subresource) {
      const answer = await call({ method: "GET", path: pathOf(type, at, at.name, subresource) });
      // The object may be gone, or the API version that was discovered: the next pass finds out which.
      if (!answer.ok && isMissing(answer.failure) && type.group === POOL_GROUP) options.cache.poolVersion = undefined;
      return answer;
    },
    list: (type, at, listOptions) => listAll(call, pathOf(type, at), listOptions ?? {}),
    create(type, at, object, { dryRun } = { dryRun: false }) {
      const path = `${pathOf(type, at)}?${dryRun ? "dryRun=All&" : ""}${writeQuery()}`;
      return call({ method: "POST", path, body: object });
    },
    patch: (type, at, patch, subresource) =>
      call({
        method: "PATCH",
        path: `${pathOf(type, at, at.name, subresource)}?${writeQuery()}`,
        body: patch.type === "json" ? patch.operations : patch.body,
        contentType: patch.type === "json" ? "application/json-patch+json" : "application/merge-patch+json",
      }),
    replace: (type, at, object, subresource) =>
      call({
        method: "PUT",
        path: `${pathOf(type, at, at.name, subresource)}?${writeQuery()}`,
        body: object,
      }),
    delete: (type, at, { uid, resourceVersion }) =>
      call({
        method: "DELETE",
        path: `${pathOf(type, at, at.name)}?timeout=${SERVER_TIMEOUT}`,
        body: { apiVersion: "v1", kind: "DeleteOptions", preconditions: { uid, resourceVersion } },
      }),
    poolVersion: () => discoverPoolVersion(call, options.cache),
  };
}

function writeQuery(): string {
  return `fieldManager=${OWN_MANAGER}&timeout=${SERVER_TIMEOUT}`;
}

function pathOf(
  { group, version, plural }: ResourceType,
  { namespace }: Place,
  ...rest: (string | undefined)[]
): string {
  const root = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
  const scope = namespace === undefined ? "" : `/namespaces/${pathPart(namespace)}`;
  const tail = rest.filter((part) => part !== undefined).map((part) => `/${pathPart(part)}`);
  return `${root}${scope}/${plural}${tail.join("")}`;
}

/** A name is what the server or a user says it is: one that no address can have finds nothing. */
function pathPart(name: string): string {
  return encodeURIComponent(name.toWellFormed());
}

type Call = (request: Omit<ApiRequest, "signal">) => Promise<Answer<unknown>>;

/** Reads page after page; a page token that expired starts the list over, once. */
async function listAll(call: Call, path: string, options: ListOptions): Promise<Answer<readonly unknown[]>> {
  const first = await listPages(call, path, options);
  return first.ok || first.failure.kind !== "expired" ? first : listPages(call, path, options);
}

async function listPages(call: Call, path: string, options: ListOptions): Promise<Answer<readonly unknown[]>> {
  const items: unknown[] = [];
  let token: string | undefined;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const query = new URLSearchParams({ limit: String(PAGE_SIZE) });
    if (options.labelSelector) query.set("labelSelector", options.labelSelector);
    if (token !== undefined) query.set("continue", token);
    const answer = await call({
      method: "GET",
      path: `${path}?${query}`,
      ...(options.metadataOnly === true ? { accept: METADATA_LIST } : {}),
    });
    if (!answer.ok) return answer;
    const list = answer.value;
    const page = isRecord(list) ? itemsOf(list) : undefined;
    if (!isRecord(list) || page === undefined) return garbled("the answer is not a list");
    for (const item of page) items.push(item);
    const metadata = recordOf(list["metadata"]);
    if (token === undefined && isOlder(metadata["resourceVersion"], options.notOlderThan)) return STALE;
    const next = metadata["continue"];
    if (typeof next !== "string" || next === "") return { ...answer, value: items };
    token = next;
  }
  return garbled(`the list has more than ${PAGES_MAX * PAGE_SIZE} objects`);
}

/** Reads are consistent (no `resourceVersion` is asked for); this is for the day when a proxy or a restored etcd breaks that. */
const STALE: Answer<never> = {
  ok: false,
  failure: {
    kind: "unavailable",
    status: undefined,
    definite: true,
    retryAfterMs: undefined,
    message: "the list is older than what was read before it",
  },
};

/** Versions count upwards within an etcd; custom resources are all kept in one. */
function isOlder(version: unknown, than: string | undefined): boolean {
  if (than === undefined || typeof version !== "string" || !COUNTS.test(version) || !COUNTS.test(than)) return false;
  return BigInt(version) < BigInt(than);
}

const COUNTS = /^\d{1,20}$/;

/** The youngest of these versions; one that does not count is passed over. */
export function youngestOf(versions: readonly string[]): string | undefined {
  return versions
    .filter((version) => COUNTS.test(version))
    .reduce<string | undefined>((youngest, version) => {
      return youngest === undefined || isOlder(youngest, version) ? version : youngest;
    }, undefined);
}

/** An empty PartialObjectMetadataList has no `items` at all. */
function itemsOf(list: Readonly<Record<string, unknown>>): readonly unknown[] | undefined {
  const { kind, items } = list;
  if (Array.isArray(items)) return items;
  const isEmpty = items === undefined || items === null;
  return isEmpty && typeof kind === "string" && kind.endsWith("List") ? [] : undefined;
}

async function discoverPoolVersion(call: Call, cache: ClusterCache): Promise<Answer<string>> {
  if (cache.poolVersion !== undefined) return { ok: true, value: cache.poolVersion, serverTimeMs: undefined };
  const answer = await call({ method: "GET", path: "/apis/pool.kubevirt.io" });
  if (!answer.ok && !isMissing(answer.failure)) return answer;
  const versions = answer.ok && isRecord(answer.value) ? answer.value["versions"] : [];
  const served = Array.isArray(versions)
    ? versions.map((entry) => (isRecord(entry) ? entry["version"] : undefined))
    : [];
  const chosen = POOL_VERSIONS.find((version) => served.includes(version));
  if (chosen === undefined) {
    const message = "the cluster does not serve pool.kubevirt.io (v1beta1 or v1alpha1): is KubeVirt installed there?";
    return { ok: false, failure: { kind: "notFound", status: 404, definite: true, retryAfterMs: undefined, message } };
  }
  cache.poolVersion = chosen;
  return { ok: true, value: chosen, serverTimeMs: undefined };
}

async function exchange(
  request: Omit<ApiRequest, "signal">,
  { transport, meter, deadline }: ClusterOptions,
): Promise<Answer<unknown>> {
  if (deadline.aborted) return unsent("the time for this pass is used up");
  meter.requests += 1;
  if (request.method !== "GET") meter.writes += 1;
  const signal = AbortSignal.any([deadline, AbortSignal.timeout(CALL_TIMEOUT_MS)]);
  try {
    const response = await transport({ ...request, signal });
    meter.bytes += response.bytes;
    return readAnswer(response);
  } catch (error) {
    return { ok: false, failure: transportFailure(error, signal.aborted) };
  }
}

function readAnswer(response: ApiResponse): Answer<unknown> {
  const { status, headers, body } = response;
  if (status >= 200 && status < 300) {
    if (!isRecord(body)) return garbled("the answer is not a JSON object");
    const date = headers["date"];
    const serverTimeMs = typeof date === "string" ? Date.parse(date) : Number.NaN;
    return { ok: true, value: body, serverTimeMs: Number.isNaN(serverTimeMs) ? undefined : serverTimeMs };
  }
  const text = isRecord(body) && typeof body["message"] === "string" ? body["message"] : `HTTP ${status}`;
  const reason = isRecord(body) ? body["reason"] : undefined;
  const failure: ApiFailure = {
    kind: kindOf(status, reason),
    status,
    definite: status < 500 && status !== 408,
    retryAfterMs: parseRetryAfter(headers["retry-after"]),
    message: shorten(text, MESSAGE_LENGTH_MAX),
  };
  return { ok: false, failure };
}

function kindOf(status: number, reason: unknown): FailureKind {
  switch (status) {
    case 401:
      return "unauthorized";
    case 403:
      return "forbidden";
    case 404:
      // A path that is not served is answered with a page, by the API server as by a proxy before it.
      return reason === "NotFound" ? "notFound" : "notServed";
    case 408:
      return "timeout";
    case 409:
      return reason === "AlreadyExists" ? "alreadyExists" : "conflict";
    case 410:
      return "expired";
    case 429:
      return "throttled";
    default:
      return status >= 500 ? "unavailable" : "invalid";
  }
}

/** There is no such object, or no such path. */
export function isMissing({ kind }: Pick<ApiFailure, "kind">): boolean {
  return kind === "notFound" || kind === "notServed";
}

/** Only whole seconds; the API server sends nothing else. */
function parseRetryAfter(value: string | string[] | undefined): number | undefined {
  return typeof value === "string" && /^\d{1,4}$/.test(value) ? Number(value) * 1_000 : undefined;
}

/** Errors before anything was sent. */
const NOT_SENT = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
]);

function transportFailure(error: unknown, aborted: boolean): ApiFailure {
  if (error instanceof UnreachableError) {
    return { kind: "unreachable", status: undefined, definite: true, retryAfterMs: undefined, message: error.message };
  }
  const code = errorCode(error);
  const definite = code !== undefined && (NOT_SENT.has(code) || isCertificateError(code));
  const shown = code ?? (error instanceof Error ? error.name : "unknown error");
  return {
    kind: aborted ? "timeout" : "unreachable",
    status: undefined,
    definite,
    retryAfterMs: undefined,
    message: aborted ? "the API server did not answer in time" : `the API server cannot be reached (${shown})`,
  };
}

function errorCode(error: unknown): string | undefined {
  if (!isRecord(error)) return undefined;
  const { code, cause } = error;
  return typeof code === "string" ? code : errorCode(cause);
}

function isCertificateError(code: string): boolean {
  return code.startsWith("ERR_TLS") || code.includes("CERT") || code.startsWith("UNABLE_TO_");
}

function unsent(message: string): Answer<never> {
  return {
    ok: false,
    failure: { kind: "timeout", status: undefined, definite: true, retryAfterMs: undefined, message },
  };
}

function garbled(message: string): Answer<never> {
  return {
    ok: false,
    failure: { kind: "garbled", status: undefined, definite: false, retryAfterMs: undefined, message },
  };
}
