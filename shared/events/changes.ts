/** From a changed object to the pools that a pass should look at, without asking the cluster. What maps to nothing is left to resync. */
import * as z from "zod";
import { canonicalJson } from "../planning/json.ts";
import { isPoolOwner, parsePool, parseVm } from "../planning/model.ts";
import { OBJECT_NAME, POOL_GROUP, POOL_KIND, REVISION_LABEL } from "../planning/names.ts";
import type { Outgoing } from "./wake-ups.ts";

/** The kinds whose changes matter to pools, by API group and plural. */
const KINDS = {
  [`${POOL_GROUP}/virtualmachinepools`]: "pool",
  "kubevirt.io/virtualmachines": "vm",
  "kubevirt.io/virtualmachineinstances": "instance",
  "cdi.kubevirt.io/datavolumes": "disk",
} as const;
export type ChangedKind = (typeof KINDS)[keyof typeof KINDS];

/** The functions themselves come into a cluster as members of this group, and nobody else does. */
export const OWN_GROUP = "vmpool-functions";
/** A ServiceAccount is in no group but those of its namespace: the functions have one that holds nobody else. */
export const OWN_NAMESPACE = "vmpool-functions";
const OWN_GROUPS: readonly string[] = [OWN_GROUP, `system:serviceaccounts:${OWN_NAMESPACE}`];

/** Something has happened, or is about to, to an object of a cluster. */
export interface Change {
  readonly kind: ChangedKind;
  readonly namespace: string;
  /** Undefined where the source does not say, as for a collection. */
  readonly name: string | undefined;
  /** Nothing but the object's status has changed. */
  readonly statusOnly: boolean;
  /** The object after and before the change, as far as the source tells. */
  readonly object: unknown;
  readonly oldObject: unknown;
}

/** What a reader makes of one event: a change; `ignored` when it tells of none that matters; `bad` when it is not of the format. */
export type Reading = Change | "ignored" | "bad";

/** A pool that may need a look. */
export interface Hint {
  readonly namespace: string;
  readonly name: string;
  /** Says how wide the look must be. */
  readonly cause: ChangedKind;
}

/** Who wrote to what. */
export interface Write {
  readonly kind: ChangedKind;
  readonly subresource: string | undefined;
  readonly groups: readonly string[] | null | undefined;
}

/**
 * Our own write of which nobody need be told: to a machine, an instance, or a pool itself, which is a claim. A pass that acted
 * looks again by itself. Not to a pool's status or scale: these are other functions'.
 */
export function isOwnWrite({ kind, subresource, groups }: Write): boolean {
  if (groups?.some((group) => OWN_GROUPS.includes(group)) !== true) return false;
  return kind === "vm" || kind === "instance" || (kind === "pool" && (subresource ?? "") === "");
}

/** What kind of object the plural of a group is; undefined when it does not matter to pools. */
export function changedKind(group: string, plural: string): ChangedKind | undefined {
  const key = `${group}/${plural}`;
  return isKindKey(key) ? KINDS[key] : undefined;
}

function isKindKey(key: string): key is keyof typeof KINDS {
  return Object.hasOwn(KINDS, key);
}

/** The pools to look at: of the new object and of the old one. Nobody, when both say the same to a pass. */
export function hintsFor(change: Change): readonly Hint[] {
  // What is no name is no pool's, and would not fit a message.
  if (!OBJECT_NAME.test(change.namespace) || isUnchanged(change)) return [];
  const names = [poolNameOf(change, change.object), poolNameOf(change, change.oldObject)];
  const known = names.filter((name) => name !== undefined);
  const fallback = known.length === 0 && change.name !== undefined ? [poolNameFrom(change.kind, change.name)] : [];
  const pools = new Set([...known, ...fallback].filter((name) => name !== undefined));
  // A status hides no machine from the selector: it needs no wider look than its instance.
  const cause = change.kind === "vm" && change.statusOnly ? "instance" : change.kind;
  const named = [...pools].filter((name) => OBJECT_NAME.test(name));
  return named.map((name) => ({ namespace: change.namespace, name, cause }));
}

/** The wake-ups for changes seen from outside: one of each pool and cause, however often it is told of. The cluster is the sender's, whatever the events say. */
export function wakeUpsFor(cluster: string, changes: readonly Change[], seenAtMs: number): readonly Outgoing[] {
  const hints = new Map(
    changes.flatMap(hintsFor).map((hint) => [`${hint.namespace}/${hint.name}/${hint.cause}`, hint]),
  );
  return [...hints.values()].map((hint) => ({ wakeUp: { version: 1, cluster, ...hint, attempt: 0 }, seenAtMs }));
}

const objectSchema = z.object({
  metadata: z.object({
    name: z.string().optional(),
    labels: z.record(z.string(), z.string()).nullish(),
    ownerReferences: z
      .array(
        z.object({
          apiVersion: z.string(),
          kind: z.string(),
          name: z.string(),
          uid: z.string(),
          controller: z.boolean().nullish(),
        }),
      )
      .nullish(),
  }),
});

/** The pool itself; else the controller; else the revision label; else the name less its ordinal. */
function poolNameOf({ kind, name }: Change, object: unknown): string | undefined {
  const parsed = objectSchema.safeParse(object);
  if (!parsed.success) return undefined;
  const { metadata } = parsed.data;
  const ownName = metadata.name ?? name;
  if (kind === "pool") return ownName;
  const controller = metadata.ownerReferences?.find((owner) => owner.controller === true);
  if (controller !== undefined && isPoolOwner(controller)) return controller.name;
  if (controller?.kind === "VirtualMachine") return withoutNumber(controller.name);
  const revision = metadata.labels?.[REVISION_LABEL];
  if (revision !== undefined) return withoutNumber(revision.replace(/(-\d+)-[0-9a-f]{8}$/, "$1"));
  return ownName === undefined ? undefined : poolNameFrom(kind, ownName);
}

function poolNameFrom(kind: ChangedKind, name: string): string | undefined {
  return kind === "pool" ? name : withoutNumber(name);
}

/** `<pool>-<number>` → `<pool>`. */
function withoutNumber(name: string): string | undefined {
  return /^(.+)-\d+$/.exec(name)?.[1];
}

/** Both objects are there and agree in everything that a pass reads: status heartbeats wake nobody. */
function isUnchanged({ kind, object, oldObject }: Change): boolean {
  const [after, before] = [projection(kind, object), projection(kind, oldObject)];
  return after !== undefined && before !== undefined && canonicalJson(after) === canonicalJson(before);
}

const instanceSchema = z.object({
  metadata: z.object({
    uid: z.string(),
    deletionTimestamp: z.string().optional(),
    labels: z.record(z.string(), z.string()).nullish(),
    ownerReferences: z.array(z.unknown()).nullish(),
  }),
  // Where a live update arrives.
  spec: z.unknown().optional(),
  status: z
    .object({
      phase: z.string().optional(),
      conditions: z.array(z.object({ type: z.string(), status: z.string() })).nullish(),
    })
    .nullish(),
});

/** What a pass reads of an object; undefined when it cannot be read. */
function projection(kind: ChangedKind, object: unknown): unknown {
  switch (kind) {
    case "pool": {
      const pool = parsePool(object);
      return pool === undefined ? undefined : { ...pool, resourceVersion: "" };
    }
    case "vm": {
      const vm = parseVm(object, POOL_KIND);
      return vm === undefined ? undefined : { ...vm, resourceVersion: "" };
    }
    case "instance":
    case "disk": {
      const parsed = instanceSchema.safeParse(object);
      return parsed.success ? parsed.data : undefined;
    }
  }
}

/** `npm run cluster -- check --events` makes a pool with such a name, and looks for the notice of it in the functions' log. */
export const CHECK_POOL_PREFIX = "vmpool-functions-check-";
/** The message of that line; its fields are `cluster`, `source`, `pool`. */
export const CHECK_NOTICE = "notice of a check";
export const NOTICE_SOURCES = ["admission", "audit", "cloudEvent", "pubSub", "eksAudit"] as const;
export type NoticeSource = (typeof NOTICE_SOURCES)[number];

/** The pools of a check that these wake-ups are for; nobody else gives such a name. */
export function checkPoolsIn(outgoing: readonly { readonly wakeUp: { readonly name: string } }[]): readonly string[] {
  const names = new Set(outgoing.map(({ wakeUp }) => wakeUp.name));
  return [...names].filter((name) => name.startsWith(CHECK_POOL_PREFIX));
}
