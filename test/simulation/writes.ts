/** The API server's rules for create, update and delete: from what a client sent and what is stored to what is stored next. */
import { isRecord } from "../../shared/planning/json.ts";
import type { Kind } from "./kinds.ts";
import {
  checkMetadata,
  checkName,
  decodeMetadata,
  finalizersOf,
  formatTime,
  isTerminating,
  type KubeObject,
  type Metadata,
  type SentMetadata,
  settable,
} from "./objects.ts";
import { isSame } from "./patches.ts";
import { badRequest, conflict, failedPrecondition, invalid, Refusal, unreadablePatch, unversioned } from "./refusal.ts";
import type { Cause } from "./schema.ts";

export interface Target {
  readonly kind: Kind;
  /** As in the request's path. */
  readonly version: string;
  readonly namespace: string;
  /** Undefined on create. */
  readonly name: string | undefined;
}

/** A body that could be read. */
interface Decoded {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly metadata: SentMetadata;
}

export function apiVersionOf({ kind: { group }, version }: Pick<Target, "kind" | "version">): string {
  return group === "" ? version : `${group}/${version}`;
}

/** Reads the body of a POST or PUT. */
export function decodeBody(target: Target, body: unknown): Decoded {
  const { kind } = target;
  const said = isRecord(body) ? body : {};
  if (typeof said["kind"] !== "string" || typeof said["apiVersion"] !== "string") {
    throw badRequest(`the object provided is unrecognized (must be of type ${kind.kind})`);
  }
  if (said["apiVersion"] !== apiVersionOf(target)) throw badRequest("the API version in the data does not match");
  const metadata = decodeMetadata(said["metadata"]);
  if (metadata === undefined) throw badRequest(`${kind.kind} cannot be handled as a ${kind.kind}`);
  checkPlace(target, metadata);
  return { fields: said, metadata };
}

/** Reads what a patch made of an object: what was a bad request of a body is invalid here. */
export function decodePatched(target: Target, patched: unknown): Decoded {
  const metadata = isRecord(patched) ? decodeMetadata(patched["metadata"]) : undefined;
  if (metadata === undefined || !isRecord(patched) || typeof patched["kind"] !== "string") throw unreadablePatch();
  checkPlace(target, metadata);
  return { fields: patched, metadata };
}

function checkPlace({ name, namespace }: Target, metadata: SentMetadata): void {
  if (name !== undefined && metadata.name !== name) {
    throw badRequest(`the name of the object (${metadata.name}) does not match the name on the URL (${name})`);
  }
  if (metadata.namespace !== "" && metadata.namespace !== namespace) {
    throw badRequest("the namespace of the provided object does not match the namespace sent on the request");
  }
}

/** A new object, not yet versioned. Throws `Refusal`. */
export function newObject(
  target: Target,
  { fields, metadata: sent }: Decoded,
  made: { uid: string; now: number },
): KubeObject {
  const { kind, namespace } = target;
  const { status: _status, ...withoutStatus } = fields;
  const metadata: Metadata = {
    name: sent.name,
    namespace,
    uid: made.uid,
    resourceVersion: "",
    creationTimestamp: formatTime(made.now),
    ...(kind.isCustom ? { generation: 1 } : {}),
    ...settable(sent),
  };
  const object = stored(kind, kind.hasStatus ? withoutStatus : fields, metadata);
  refuseIf(object, kind, [
    ...checkKind(kind, fields),
    ...checkName(sent.name, kind.freeNames),
    ...checkMetadata(sent),
    ...kind.check(object, undefined),
  ]);
  if (sent.resourceVersion !== "") {
    throw new Refusal(500, undefined, "resourceVersion should not be set on objects to be created");
  }
  return object;
}

function stored(kind: Kind, fields: Readonly<Record<string, unknown>>, metadata: Metadata): KubeObject {
  const said = typeof fields["kind"] === "string" ? fields["kind"] : kind.kind;
  return {
    ...kind.prune(fields),
    apiVersion: apiVersionOf({ kind, version: kind.versions[0] ?? "" }),
    kind: said,
    metadata,
  };
}

function checkKind({ kind }: Kind, fields: Readonly<Record<string, unknown>>): Cause[] {
  if (fields["kind"] === kind) return [];
  return [{ reason: "FieldValueInvalid", field: "kind", message: `must be ${kind}` }];
}

function refuseIf(object: KubeObject, { group }: Kind, causes: readonly Cause[]): void {
  if (causes.length > 0) throw invalid({ group, kind: object.kind }, object.metadata.name, causes);
}

/** What an update of the object itself makes of it; the same object when nothing changes. Throws `Refusal`. */
export function updatedObject(kind: Kind, existing: KubeObject, sent: Decoded): KubeObject {
  checkVersion(kind, existing, sent.metadata);
  const { metadata } = existing;
  const kept = kind.hasStatus ? { ...sent.fields, status: existing["status"] } : sent.fields;
  const next = stored(kind, withoutUndefined(kept), {
    ...identity(metadata),
    ...settable(sent.metadata),
  });
  const changes = !isSame(specOf(kind, existing), specOf(kind, next));
  const { generation } = metadata;
  const object =
    changes && generation !== undefined
      ? { ...next, metadata: { ...next.metadata, generation: generation + 1 } }
      : next;
  refuseIf(object, kind, [
    ...checkKind(kind, sent.fields),
    ...checkImmutable(metadata, sent.metadata),
    ...checkMetadata(sent.metadata),
    ...kind.check(object, existing),
  ]);
  return isSame(existing, object) ? existing : object;
}

/** What an update of the status subresource makes of it. A surprise: of the metadata only resourceVersion is heeded. */
export function updatedStatus(kind: Kind, existing: KubeObject, sent: Decoded): KubeObject {
  checkVersion(kind, existing, sent.metadata);
  const fields = withoutUndefined({ ...existing, kind: sent.fields["kind"], status: sent.fields["status"] });
  const object = stored(kind, fields, existing.metadata);
  refuseIf(object, kind, [...checkKind(kind, sent.fields), ...kind.check(object, existing)]);
  return isSame(existing, object) ? existing : object;
}

function withoutUndefined(fields: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** What no client can change. */
function identity({ labels: _l, annotations: _a, finalizers: _f, ownerReferences: _o, ...fixed }: Metadata): Metadata {
  return fixed;
}

/** Everything whose change counts as a new generation. */
function specOf({ hasStatus }: Kind, { metadata: _metadata, status, ...rest }: KubeObject): unknown {
  return hasStatus ? rest : { ...rest, status };
}

/** Optimistic concurrency. */
export function checkVersion(kind: Kind, { metadata }: KubeObject, { resourceVersion }: SentMetadata): void {
  if (resourceVersion === "") {
    if (kind.unconditionalUpdate) return;
    throw unversioned(kind, metadata.name);
  }
  if (!/^\d+$/.test(resourceVersion)) throw new Refusal(500, undefined, "strconv.ParseUint: invalid syntax");
  if (resourceVersion !== metadata.resourceVersion) throw conflict(kind, metadata.name);
}

function checkImmutable(old: Metadata, sent: SentMetadata): Cause[] {
  const causes: Cause[] = [];
  const refuse = (field: string) =>
    void causes.push({ reason: "FieldValueInvalid", field: `metadata.${field}`, message: "field is immutable" });
  if (sent.uid !== "" && sent.uid !== old.uid) refuse("uid");
  if (old.deletionTimestamp === undefined && sent.deletionTimestamp !== "") refuse("deletionTimestamp");
  const grace = sent.deletionGracePeriodSeconds ?? undefined;
  if (grace !== undefined && grace !== old.deletionGracePeriodSeconds) refuse("deletionGracePeriodSeconds");
  const added = sent.finalizers.filter((finalizer) => old.finalizers?.includes(finalizer) !== true);
  if (old.deletionTimestamp !== undefined && added.length > 0) {
    causes.push({
      reason: "FieldValueForbidden",
      field: "metadata.finalizers",
      message: "no new finalizers can be added",
    });
  }
  return causes;
}

export interface DeleteOptions {
  readonly propagationPolicy: "Foreground" | "Background" | "Orphan" | undefined;
  readonly uid: string | undefined;
  readonly resourceVersion: string | undefined;
}

const POLICIES = ["Foreground", "Background", "Orphan"] as const;

/** Reads the body of a DELETE, which may be absent. */
export function decodeDeleteOptions(body: unknown): DeleteOptions {
  const said = isRecord(body) ? body : {};
  const policy = said["propagationPolicy"];
  const propagationPolicy = POLICIES.find((known) => known === policy);
  if (propagationPolicy === undefined && policy !== undefined && policy !== null) {
    const cause = { reason: "FieldValueNotSupported", field: "propagationPolicy", message: "Unsupported value" };
    throw invalid({ group: "meta.k8s.io", kind: "DeleteOptions" }, "", [cause]);
  }
  const preconditions = isRecord(said["preconditions"]) ? said["preconditions"] : {};
  const text = (value: unknown) => (typeof value === "string" ? value : undefined);
  return {
    propagationPolicy,
    uid: text(preconditions["uid"]),
    resourceVersion: text(preconditions["resourceVersion"]),
  };
}

/** The object as a delete leaves it, or undefined when it goes at once; the same object when nothing changes. Throws `Refusal`. */
export function deletedObject(
  kind: Kind,
  existing: KubeObject,
  options: DeleteOptions,
  now: number,
): KubeObject | undefined {
  const { metadata } = existing;
  if (options.uid !== undefined && options.uid !== metadata.uid) throw failedPrecondition(kind, metadata.name, "UID");
  if (options.resourceVersion !== undefined && options.resourceVersion !== metadata.resourceVersion) {
    throw failedPrecondition(kind, metadata.name, "ResourceVersion");
  }
  const policy = kind.isCollected ? options.propagationPolicy : "Background";
  const finalizers = finalizersAfterDelete(existing, policy);
  if (finalizers.length === 0) return undefined;
  const { finalizers: _old, ...rest } = metadata;
  const marked: Metadata = isTerminating(existing)
    ? { ...rest, finalizers }
    : {
        ...rest,
        finalizers,
        deletionTimestamp: formatTime(now),
        deletionGracePeriodSeconds: 0,
        ...(metadata.generation === undefined ? {} : { generation: metadata.generation + 1 }),
      };
  return isSame(metadata, marked) ? existing : { ...existing, metadata: marked };
}

/** The collector's finalizers follow the policy; without one, those that are there stay. */
function finalizersAfterDelete(object: KubeObject, policy: DeleteOptions["propagationPolicy"]): readonly string[] {
  const finalizers = finalizersOf(object);
  const orphans = policy === undefined ? finalizers.includes("orphan") : policy === "Orphan";
  const foreground =
    policy === undefined ? finalizers.includes("foregroundDeletion") && !orphans : policy === "Foreground";
  const others = finalizers.filter((finalizer) => finalizer !== "orphan" && finalizer !== "foregroundDeletion");
  const wanted = [...others, ...(orphans ? ["orphan"] : []), ...(foreground ? ["foregroundDeletion"] : [])];
  return isSame([...finalizers].sort(), [...wanted].sort()) ? finalizers : wanted;
}
