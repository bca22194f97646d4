/**
 * A kube-apiserver in memory, at the level of `Transport`: the real client and the functions run on it unchanged. One request is one
 * atomic step. It serves the requests that our code and its tests send and refuses to guess at others. Held to the real API server by
 * the contract suite and the differential run; of field managers only one is kept.
 */
import type { ApiRequest, ApiResponse, Transport } from "../../shared/clusters/connection.ts";
import { isRecord } from "../../shared/planning/json.ts";
import type { Kind } from "./kinds.ts";
import { createPages, listObjects, type Pages } from "./lists.ts";
import { finalizersOf, formatTime, isTerminating, type KubeObject } from "./objects.ts";
import { applyJsonPatch, applyMergePatch } from "./patches.ts";
import { createRandom, type Random } from "./random.ts";
import {
  alreadyExists,
  badRequest,
  conflict,
  endingNamespace,
  failedUid,
  missingNamespace,
  notFound,
  Refusal,
  refusedPatch,
  statusBody,
} from "./refusal.ts";
import { decodeScale, scaledObject, scaleOf, showScale } from "./scale.ts";
import { createStore, type Store } from "./store.ts";
import {
  apiVersionOf,
  checkVersion,
  decodeBody,
  decodeDeleteOptions,
  decodePatched,
  deletedObject,
  newObject,
  type Target,
  updatedObject,
  updatedStatus,
} from "./writes.ts";

export interface MemoryClusterOptions {
  readonly seed: number;
  readonly kinds: readonly Kind[];
  /** Epoch milliseconds. */
  readonly now: () => number;
  /** What a validating webhook says against an object that is about to be stored; undefined when nothing. */
  readonly validate?: (kind: Kind, object: KubeObject, existing: KubeObject | undefined) => string | undefined;
}

/** A request without what only a network needs. */
export type Call = Pick<ApiRequest, "method" | "path" | "body" | "contentType" | "accept">;

export interface MemoryCluster {
  /**
   * Does it now; `actor` stands in the journal. Throws when it is asked for what it does not know. What is read is as old as so
   * many changes.
   */
  answer(call: Call, actor: string, behind?: number): ApiResponse;
  /** `answer` for one actor, as the client wants it. */
  transport(actor: string): Transport;
  addNamespace(name: string): void;
  /** From now on nothing can be made in it; `takeNamespace` takes it away once it is empty. */
  endNamespace(name: string): void;
  takeNamespace(name: string): void;
  /** Namespaces that are there, and whether they are on their way out. */
  readonly namespaces: ReadonlyMap<string, "active" | "ending">;
  /** The server's clock, in epoch milliseconds. */
  now(): number;
  /** From now on every page token that was handed out is too old. */
  expirePages(): void;
  readonly store: Store;
  readonly kinds: readonly Kind[];
}

interface World extends MemoryClusterOptions {
  readonly store: Store;
  readonly pages: Pages;
  readonly namespaces: Map<string, "active" | "ending">;
  readonly random: Random;
}

/** What a path names. */
interface Place {
  readonly kind: Kind;
  readonly version: string;
  /** Undefined for lists over all namespaces. */
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly subresource: string | undefined;
}

export function createMemoryCluster(options: MemoryClusterOptions): MemoryCluster {
  const { now, kinds, seed } = options;
  const store = createStore();
  const world: World = {
    ...options,
    store,
    pages: createPages(now),
    namespaces: new Map(),
    random: createRandom(seed),
  };
  const namespaceKind = kinds.find(({ plural }) => plural === "namespaces");
  const answer = (call: Call, actor: string, behind = 0): ApiResponse => {
    const date = new Date(now()).toUTCString();
    const view = behind === 0 || call.method !== "GET" ? world : { ...world, store: store.past(behind) };
    try {
      const { status, body } = route(view, call, actor);
      return { status, headers: { date }, body, bytes: 0 };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { status: error.status, headers: { date }, body: statusBody(error), bytes: 0 };
    }
  };
  return {
    answer,
    now,
    transport: (actor) => async (request) => answer(request, actor),
    namespaces: world.namespaces,
    endNamespace: (name) => void world.namespaces.set(name, "ending"),
    takeNamespace(name) {
      world.namespaces.delete(name);
      const object = namespaceKind && store.get(namespaceKind, "", name);
      if (namespaceKind !== undefined && object !== undefined) store.remove(namespaceKind, object, "server");
    },
    addNamespace(name) {
      world.namespaces.set(name, "active");
      const kind = namespaceKind;
      if (kind === undefined) return;
      const metadata = { name, namespace: "", uid: world.random.uuid(), resourceVersion: "" };
      const creationTimestamp = new Date(now()).toISOString();
      store.put(kind, { apiVersion: "v1", kind: "Namespace", metadata: { ...metadata, creationTimestamp } }, "server");
    },
    expirePages: () => world.pages.expire(),
    store,
    kinds,
  };
}

interface Answered {
  readonly status: number;
  readonly body: unknown;
}

/** What the server says to a path that it does not know. */
const NO_SUCH_PATH: Answered = { status: 404, body: "404 page not found\n" };

function route(world: World, call: Call, actor: string): Answered {
  const [path = "", query = ""] = call.path.split("?");
  const group = /^\/apis\/([^/]+)$/.exec(path)?.[1];
  if (group !== undefined) return discover(world, group);
  const place = placeOf(world, path);
  if (place === undefined) return NO_SUCH_PATH;
  const parameters = new URLSearchParams(query);
  // As on the wire: what a client holds on to is not what the server stores.
  const body: unknown = call.body === undefined ? undefined : JSON.parse(JSON.stringify(call.body));
  const { name, namespace } = place;
  if (call.method === "GET" && name === undefined)
    return { status: 200, body: list(world, place, { call, parameters }) };
  if (place.kind.isClusterScoped && name !== undefined && call.method === "GET") {
    const object = world.store.get(place.kind, "", name);
    if (object === undefined) throw notFound(place.kind, name);
    const { namespace: _none, ...metadata } = object.metadata;
    return { status: 200, body: { ...object, metadata } };
  }
  if (namespace === undefined) throw new Error(`not known here: ${call.method} ${call.path}`);
  const target = { ...place, namespace };
  if (call.method === "POST") return create(world, target, { body, actor, parameters });
  if (name === undefined) throw badRequest("name must be provided");
  return serveObject(world, { ...target, name }, { ...call, body, actor });
}

function discover({ kinds }: World, group: string): Answered {
  const kind = kinds.find((known) => known.group === group);
  if (kind === undefined) return NO_SUCH_PATH;
  const versions = kind.versions.map((version) => ({ groupVersion: `${group}/${version}`, version }));
  return {
    status: 200,
    body: { kind: "APIGroup", apiVersion: "v1", name: group, versions, preferredVersion: versions[0] },
  };
}

function placeOf({ kinds }: World, path: string): Place | undefined {
  const parts = path.split("/").slice(1).map(decodeURIComponent);
  const [root, ...rest] = parts;
  const [group = "", version = "", ...inside] = root === "api" ? ["", ...rest] : rest;
  const isNamespaced = inside[0] === "namespaces" && inside.length > 2;
  const [plural, name, subresource] = isNamespaced ? inside.slice(2) : inside;
  const kind = kinds.find((known) => known.group === group && known.plural === plural);
  if (kind?.versions.includes(version) !== true) return undefined;
  return { kind, version, namespace: isNamespaced ? inside[1] : undefined, name, subresource };
}

/** The object as the version in the path shows it. */
function shown(object: KubeObject, target: Pick<Target, "kind" | "version">): KubeObject {
  return { ...object, apiVersion: apiVersionOf(target) };
}

function list(world: World, place: Place, { call, parameters }: { call: Call; parameters: URLSearchParams }): unknown {
  const { kind, namespace } = place;
  return listObjects({
    kind,
    apiVersion: apiVersionOf(place),
    objects: () => world.store.list(kind, namespace),
    version: world.store.version,
    pages: world.pages,
    metadataOnly: call.accept?.includes("as=PartialObjectMetadataList") === true,
    parameters,
  });
}

interface Sent {
  readonly body: unknown;
  readonly actor: string;
}

function create(
  world: World,
  target: Target,
  { body, actor, parameters }: Sent & { readonly parameters: URLSearchParams },
): Answered {
  const { kind, namespace } = target;
  const decoded = decodeBody({ ...target, name: undefined }, body);
  const phase = world.namespaces.get(namespace);
  if (phase === undefined) throw missingNamespace(namespace);
  const object = newObject(target, decoded, { uid: world.random.uuid(), now: world.now() });
  const existing = world.store.get(kind, namespace, object.metadata.name);
  if (phase === "ending") throw endingNamespace(kind, object.metadata.name, namespace);
  if (existing !== undefined) throw alreadyExists(kind, object.metadata.name, isTerminating(existing));
  admit(world, { kind, object, existing });
  const isDry = parameters.get("dryRun") === "All";
  return { status: 201, body: shown(isDry ? object : world.store.put(kind, object, actor), target) };
}

type Named = Target & { readonly name: string; readonly subresource: string | undefined };

function serveObject(world: World, target: Named, sent: Call & Sent): Answered {
  const { kind, namespace, name, subresource } = target;
  const serves = { status: kind.hasStatus, scale: kind.hasScale };
  if (subresource !== undefined && subresource !== "status" && subresource !== "scale") return NO_SUCH_PATH;
  const existing = world.store.get(kind, namespace, name);
  const isServed = subresource === undefined || serves[subresource];
  if (sent.method === "DELETE") return remove(world, target, { existing, ...sent });
  if (existing === undefined || !isServed) {
    // A body that cannot be read is told of first.
    if (sent.method === "PUT" && isServed) {
      if (subresource === "scale") decodeScale(target, sent.body, false);
      else decodeBody(target, sent.body);
    }
    throw notFound(kind, name);
  }
  if (subresource === "scale") return scale(world, target, { existing, ...sent });
  if (sent.method === "GET") return { status: 200, body: shown(existing, target) };
  const decoded =
    sent.method === "PUT"
      ? decodeBody(target, sent.body)
      : decodePatched(target, patched(shown(existing, target), sent));
  if (sent.method === "PUT") checkUid(kind, existing, decoded.metadata.uid);
  const update = subresource === "status" ? updatedStatus : updatedObject;
  const next = update(kind, existing, decoded);
  if (subresource === undefined) admit(world, { kind, object: next, existing });
  return { status: 200, body: shown(save(world, { kind, existing, next }, sent.actor), target) };
}

interface Reviewed {
  readonly kind: Kind;
  readonly object: KubeObject;
  readonly existing: KubeObject | undefined;
}

function admit({ validate }: World, { kind, object, existing }: Reviewed): void {
  const problem = object === existing ? undefined : validate?.(kind, object, existing);
  if (problem !== undefined) throw new Refusal(422, "Invalid", problem);
}

/** A body with a UID is meant for that object only. A surprise: a patch is not, see `updatedObject` and `updatedStatus`. */
function checkUid(kind: Kind, { metadata }: KubeObject, uid: string): void {
  if (uid !== "" && uid !== metadata.uid) throw failedUid(kind, metadata.name);
}

function patched(object: unknown, { contentType, body }: Call): unknown {
  const result =
    contentType === "application/json-patch+json" ? applyJsonPatch(object, body) : applyMergePatch(object, body);
  if (result.ok) return result.value;
  throw result.why === "malformed" ? badRequest("error decoding patch") : refusedPatch();
}

interface Update {
  readonly kind: Kind;
  readonly existing: KubeObject;
  readonly next: KubeObject;
}

/** The field manager of KubeVirt's own pool controller: the one whose writes are kept in `managedFields`. */
export const IN_TREE = "virt-controller";

function managedBy({ now }: World, object: KubeObject, actor: string): KubeObject {
  if (actor !== IN_TREE) return object;
  const managedFields = [{ manager: actor, operation: "Update", time: formatTime(now()) }] as const;
  return { ...object, metadata: { ...object.metadata, managedFields } };
}

/** A write that changes nothing makes no version. One that takes a deleted object's last finalizer ends it, and answers with its old version. */
function save(world: World, { kind, existing, next }: Update, actor: string): KubeObject {
  const { store } = world;
  if (!isTerminating(next) || finalizersOf(next).length > 0) {
    return next === existing ? existing : store.put(kind, managedBy(world, next, actor), actor);
  }
  store.remove(kind, existing, actor);
  return next;
}

interface OnObject extends Call, Sent {
  readonly existing: KubeObject;
  readonly body: unknown;
}

function scale(world: World, target: Named, { existing, method, actor, ...sent }: OnObject): Answered {
  const { kind } = target;
  if (method === "GET") return { status: 200, body: scaleOf(existing) };
  const isPatched = method !== "PUT";
  const body = isPatched ? patched(showScale(existing), { method, ...sent }) : sent.body;
  const next = decodeScale(target, body, isPatched);
  if (!isPatched) checkUid(kind, existing, next.metadata.uid);
  const scaled = scaledObject(target, existing, next);
  if (next.metadata.resourceVersion !== "") checkVersion(kind, existing, next.metadata);
  const object = updatedObject(kind, existing, scaled);
  return { status: 200, body: showScale(save(world, { kind, existing, next: object }, actor)) };
}

function remove(
  world: World,
  target: Named,
  { existing, body, actor }: Omit<OnObject, "existing"> & { existing: KubeObject | undefined },
): Answered {
  const { kind, name } = target;
  const options = decodeDeleteOptions(body);
  if (existing === undefined) throw notFound(kind, name);
  const next = deletedObject(kind, existing, options, world.now());
  if (next !== undefined) {
    const object = next === existing ? existing : world.store.put(kind, next, actor);
    return { status: 200, body: shown(object, target) };
  }
  if (options.resourceVersion !== undefined && finalizersOf(existing).length > 0) {
    // A surprise: a delete that would take the collector's last finalizer away fails its own precondition.
    throw conflict(kind, name);
  }
  world.store.remove(kind, existing, actor);
  const details = {
    name,
    ...(kind.group === "" ? {} : { group: kind.group }),
    kind: kind.plural,
    uid: existing.metadata.uid,
  };
  return { status: 200, body: { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success", details } };
}

/** For tests that look into answers. */
export function isList(body: unknown): body is { readonly items: readonly unknown[] } {
  return isRecord(body) && Array.isArray(body["items"]);
}
