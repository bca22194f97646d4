/** Reads what a pass decides on: the pool first, its machines after it, and more only when the plan asks. Writes nothing. */

import * as z from "zod";
import type { Ledger } from "../planning/claim.ts";
import { diskNamesOf } from "../planning/disks.ts";
import { assertNever } from "../planning/errors.ts";
import {
  type Disk,
  type Instance,
  isOwnedBy,
  type Pool,
  parseDisk,
  parseInstance,
  parsePool,
  parseRevision,
  parseVm,
  type Revision,
  revisionOf,
  type Vm,
} from "../planning/model.ts";
import { KEPT_FOR_LABEL, REVISION_LABEL } from "../planning/names.ts";
import type { Limits, Need, Observation, Plan } from "../planning/plan.ts";
import { planPass } from "../planning/plan.ts";
import { judge, type Verdict } from "../planning/verdict.ts";
import type { ApiFailure, Cluster } from "./cluster.ts";
import {
  CLAIMS,
  CONTROLLER_REVISIONS,
  DATA_VOLUMES,
  INSTANCES,
  KUBEVIRTS,
  NAMESPACES,
  poolsOf,
  VIRTUAL_MACHINES,
} from "./cluster.ts";
import { inParallel } from "./parallel.ts";

/** One pool of one cluster. */
export interface PoolPlace {
  readonly namespace: string;
  readonly name: string;
}

export interface LookOptions {
  /** Read the metadata of all VMs of the namespace whether or not the plan needs them: finds what labels hide. */
  readonly wide: boolean;
  readonly ledger: Ledger;
  readonly limits: Limits;
  /** Used when the server sends no date. */
  readonly now: () => number;
}

export type Look =
  | { readonly kind: "planned"; readonly seen: Observation; readonly plan: Plan; readonly poolVersion: string }
  | { readonly kind: "gone" }
  /** Half a picture never leads to a write. */
  | {
      readonly kind: "unreadable";
      readonly what: string;
      readonly failure: ApiFailure;
      /** The pool, where that could be read: its owner is told. */
      readonly of?: Pick<Observation, "now" | "pool" | "verdict"> & { readonly poolVersion: string };
    };

/** Observes and plans; where the plan needs to know more, reads that and plans again. */
export async function lookAt(cluster: Cluster, place: PoolPlace, options: LookOptions): Promise<Look> {
  const version = await cluster.poolVersion();
  if (!version.ok) return { kind: "unreadable", what: "API discovery", failure: version.failure };
  const read = await cluster.get(poolsOf(version.value), place);
  if (!read.ok) {
    if (read.failure.kind === "notFound") return { kind: "gone" };
    return { kind: "unreadable", what: "the pool", failure: read.failure };
  }
  const pool = parsePool(read.value);
  if (pool === undefined) return unreadable("the pool", "its metadata are not what the API promises");
  const now = read.serverTimeMs ?? options.now();
  const verdict = judge(pool);
  const base = await observeMachines(cluster, { pool, verdict, wide: options.wide });
  const of = { now, pool, verdict, poolVersion: version.value };
  if (base.kind !== "read") return { ...base, of };
  const seen: Observation = { ...UNREAD, now, pool, verdict, ledger: options.ledger, ...base.value };
  const look = await planWithNeeds(cluster, { seen, limits: options.limits, poolVersion: version.value });
  return look.kind === "unreadable" ? { ...look, of } : look;
}

/** What is only read when the plan asks for it. */
const UNREAD = {
  revisions: new Map(),
  instances: undefined,
  ownRevisions: undefined,
  looseInstances: undefined,
  liveUpdates: undefined,
  disks: new Map(),
  specless: new Set<string>(),
  keptDisks: undefined,
  namespaceUid: undefined,
} as const;

type Read<T> = { readonly kind: "read"; readonly value: T } | Extract<Look, { kind: "unreadable" }>;

async function observeMachines(
  cluster: Cluster,
  { pool, verdict, wide }: { pool: Pool; verdict: Verdict; wide: boolean },
): Promise<Read<Pick<Observation, "selected" | "namespaceVms">>> {
  const selectable = verdict.legal && !pool.deleting;
  const [selected, namespaceVms] = await Promise.all([
    selectable ? listVms(cluster, pool, { labelSelector: verdict.selector.text }) : none(),
    pool.deleting || (selectable && wide) ? listVms(cluster, pool, { metadataOnly: true }) : none(),
  ]);
  if (selected.kind !== "read") return selected;
  if (namespaceVms.kind !== "read") return namespaceVms;
  return { kind: "read", value: { selected: selected.value ?? [], namespaceVms: namespaceVms.value } };
}

interface PlanningStep {
  readonly seen: Observation;
  readonly limits: Limits;
  readonly poolVersion: string;
}

async function planWithNeeds(cluster: Cluster, { seen, limits, poolVersion }: PlanningStep): Promise<Look> {
  let known = seen;
  for (let round = 0; round < ROUNDS_MAX; round += 1) {
    const plan = planPass(known, limits);
    if (plan.needs.length === 0) return { kind: "planned", seen: known, plan, poolVersion };
    for (const need of plan.needs) {
      const more = await observeNeed(cluster, known, need);
      if (more.kind !== "read") return more;
      known = { ...known, ...more.value };
    }
  }
  return unreadable("the pool", "the plan goes on asking for more");
}

/** Each kind of need is asked for once, revisions in a few steps. */
const ROUNDS_MAX = 20;

async function observeNeed(cluster: Cluster, seen: Observation, need: Need): Promise<Read<Partial<Observation>>> {
  switch (need.read) {
    case "namespaceVms":
      return map(await listVms(cluster, seen.pool, { metadataOnly: true }), (namespaceVms) => ({ namespaceVms }));
    case "revisions":
      return observeRevisions(cluster, seen, need.names);
    case "instances":
      return observeInstances(cluster, seen);
    case "looseInstances":
      return observeLooseInstances(cluster, seen.pool);
    case "liveUpdates":
      return { kind: "read", value: { liveUpdates: await readLiveUpdates(cluster) } };
    case "specs":
      return observeSpecs(cluster, seen, need.vms);
    case "disks":
      return observeDisks(cluster, seen, need.vms);
    case "keptDisks":
      return observeKeptDisks(cluster, seen.pool);
    case "namespace":
      return observeNamespace(cluster, seen.pool);
    default:
      return assertNever(need);
  }
}

async function observeRevisions(
  cluster: Cluster,
  { pool, revisions }: Observation,
  names: readonly string[],
): Promise<Read<Partial<Observation>>> {
  const known = new Map(revisions);
  for (const [name, read] of await inParallel(
    names,
    async (name) => [name, await readRevision(cluster, pool, name)] as const,
  )) {
    if (read.kind !== "read") return read;
    known.set(name, read.value);
  }
  return { kind: "read", value: { revisions: known } };
}

/** A selector of more revisions than this would make too long an address: then all pools' instances are read. */
const REVISIONS_SELECTED_MAX = 40;

/** The instances that carry a revision of the pool, and one by one those whose machine says that it has one. */
async function observeInstances(cluster: Cluster, seen: Observation): Promise<Read<Partial<Observation>>> {
  const { pool, selected } = seen;
  const listed = await cluster.list(CONTROLLER_REVISIONS, pool, { metadataOnly: true });
  if (!listed.ok) return { kind: "unreadable", what: "the list of revisions", failure: listed.failure };
  const parsed = parseAll(listed.value, parseRevision);
  if (parsed === undefined) return unreadable("the list of revisions", "its metadata are not what the API promises");
  const ownRevisions = parsed.filter(({ ownerUid }) => ownerUid === pool.uid);
  const own = selected.filter((vm) => isOwnedBy(vm, pool));
  const names = [...new Set([...ownRevisions.map(({ name }) => name), ...own.map(revisionOf)])].filter(
    (name) => name !== undefined,
  );
  const labelSelector =
    names.length > REVISIONS_SELECTED_MAX ? REVISION_LABEL : `${REVISION_LABEL} in (${names.sort().join(",")})`;
  const answer = names.length === 0 ? undefined : await cluster.list(INSTANCES, pool, { labelSelector });
  if (answer !== undefined && !answer.ok)
    return { kind: "unreadable", what: "the list of instances", failure: answer.failure };
  const instances = parseAll(answer?.value ?? [], parseInstance);
  if (instances === undefined)
    return unreadable("the list of instances", "an instance's metadata are not what the API promises");
  const found = new Set(instances.map(({ vmUid }) => vmUid));
  const hidden = own.filter((vm) => vm.running && !found.has(vm.uid));
  const extra: Instance[] = [];
  for (const read of await inParallel(hidden, (vm) => readInstance(cluster, pool, vm))) {
    if (read.kind !== "read") return read;
    if (read.value !== undefined) extra.push(read.value);
  }
  const owners = new Set(own.map(({ uid }) => uid));
  const ours = [...instances, ...extra].filter(({ vmUid }) => vmUid !== undefined && owners.has(vmUid));
  return { kind: "read", value: { instances: ours, ownRevisions } };
}

async function observeLooseInstances(cluster: Cluster, pool: Pool): Promise<Read<Partial<Observation>>> {
  const answer = await cluster.list(INSTANCES, pool, { metadataOnly: true });
  if (!answer.ok) return { kind: "unreadable", what: "the list of instances", failure: answer.failure };
  const instances = parseAll(answer.value, parseInstance);
  return instances === undefined
    ? unreadable("the list of instances", "an instance's metadata are not what the API promises")
    : { kind: "read", value: { looseInstances: instances.filter(({ vmUid }) => vmUid === undefined) } };
}

async function readInstance(cluster: Cluster, pool: Pool, { name }: Vm): Promise<Read<Instance | undefined>> {
  const answer = await cluster.get(INSTANCES, { namespace: pool.namespace, name });
  if (!answer.ok) {
    if (answer.failure.kind === "notFound") return { kind: "read", value: undefined };
    return { kind: "unreadable", what: `instance ${name}`, failure: answer.failure };
  }
  const instance = parseInstance(answer.value);
  return instance === undefined
    ? unreadable(`instance ${name}`, "its metadata are not what the API promises")
    : { kind: "read", value: instance };
}

const kubevirtSchema = z.object({
  spec: z.object({ configuration: z.object({ vmRolloutStrategy: z.string().nullish() }).nullish() }).nullish(),
  status: z.object({ observedKubeVirtVersion: z.string().nullish() }).nullish(),
});

/**
 * Whether KubeVirt changes running guests where it can: when it is told to, and since version 1.5 also when it is told
 * nothing. Where that may not be read: no, and guests are restarted.
 */
async function readLiveUpdates(cluster: Cluster): Promise<boolean> {
  const answer = await cluster.list(KUBEVIRTS, {});
  const [installation] = answer.ok ? answer.value : [];
  const { data } = kubevirtSchema.safeParse(installation);
  const strategy = data?.spec?.configuration?.vmRolloutStrategy;
  if (strategy !== undefined && strategy !== null) return strategy === "LiveUpdate";
  const [, major, minor] = /^v?(\d+)\.(\d+)\./.exec(data?.status?.observedKubeVirtVersion ?? "") ?? [];
  return Number(major) > 1 || (Number(major) === 1 && Number(minor) >= 5);
}

/** Reads machines whole of which only metadata are known; those that are gone are left out from then on. */
async function observeSpecs(
  cluster: Cluster,
  seen: Observation,
  vms: readonly Vm[],
): Promise<Read<Partial<Observation>>> {
  const { pool } = seen;
  const read = new Map<string, Vm | "gone">();
  for (const [{ uid, name }, answer] of await inParallel(
    vms,
    async (vm) => [vm, await cluster.get(VIRTUAL_MACHINES, { namespace: pool.namespace, name: vm.name })] as const,
  )) {
    if (!answer.ok && answer.failure.kind !== "notFound")
      return { kind: "unreadable", what: `VM ${name}`, failure: answer.failure };
    const vm = answer.ok ? parseVm(answer.value, pool.name) : undefined;
    if (answer.ok && vm === undefined) return unreadable(`VM ${name}`, "its metadata are not what the API promises");
    read.set(uid, vm === undefined || vm.uid !== uid ? "gone" : vm);
  }
  const refresh = (list: readonly Vm[]) => list.map((vm) => read.get(vm.uid) ?? vm).filter((vm) => vm !== "gone");
  const specless = [...read].flatMap(([uid, vm]) => (vm !== "gone" && vm.spec === undefined ? [uid] : []));
  return {
    kind: "read",
    value: {
      selected: refresh(seen.selected),
      namespaceVms: seen.namespaceVms && refresh(seen.namespaceVms),
      specless: new Set([...seen.specless, ...specless]),
    },
  };
}

/** The disks that the machines' specs name: a DataVolume, or the claim of that name where there is none. */
async function observeDisks(
  cluster: Cluster,
  { pool, disks }: Observation,
  vms: readonly Vm[],
): Promise<Read<Partial<Observation>>> {
  const known = new Map(disks);
  for (const [vm, read] of await inParallel(vms, async (vm) => [vm, await readDisks(cluster, pool, vm)] as const)) {
    if (read.kind !== "read") return read;
    known.set(vm.uid, read.value);
  }
  return { kind: "read", value: { disks: known } };
}

async function readDisks(cluster: Cluster, pool: Pool, { spec }: Vm): Promise<Read<readonly Disk[]>> {
  const names = spec === undefined ? undefined : diskNamesOf(spec);
  const found: Disk[] = [];
  for (const [type, kind, wanted] of [
    [DATA_VOLUMES, "dataVolume", names?.dataVolumes ?? []],
    [CLAIMS, "claim", names?.claims ?? []],
  ] as const) {
    for (const name of wanted) {
      // The claim of a DataVolume is the DataVolume's.
      if (found.some((disk) => disk.name === name)) continue;
      const answer = await cluster.get(type, { namespace: pool.namespace, name });
      if (!answer.ok && answer.failure.kind === "notFound") continue;
      if (!answer.ok) return { kind: "unreadable", what: `disk ${name}`, failure: answer.failure };
      const disk = parseDisk(answer.value, kind);
      if (disk === undefined) return unreadable(`disk ${name}`, "its metadata are not what the API promises");
      found.push(disk);
    }
  }
  return { kind: "read", value: found };
}

async function observeKeptDisks(cluster: Cluster, pool: Pool): Promise<Read<Partial<Observation>>> {
  const keptDisks: Disk[] = [];
  for (const [type, kind] of [
    [DATA_VOLUMES, "dataVolume"],
    [CLAIMS, "claim"],
  ] as const) {
    const answer = await cluster.list(type, pool, {
      labelSelector: KEPT_FOR_LABEL,
      metadataOnly: true,
    });
    // A cluster without CDI has no DataVolumes.
    if (!answer.ok && answer.failure.kind === "notFound") continue;
    if (!answer.ok) return { kind: "unreadable", what: "the list of kept disks", failure: answer.failure };
    const parsed = parseAll(answer.value, (item) => parseDisk(item, kind));
    if (parsed === undefined)
      return unreadable("the list of kept disks", "a disk's metadata are not what the API promises");
    keptDisks.push(...parsed);
  }
  return { kind: "read", value: { keptDisks } };
}

async function observeNamespace(cluster: Cluster, { namespace }: Pool): Promise<Read<Partial<Observation>>> {
  const answer = await cluster.get(NAMESPACES, { name: namespace });
  if (!answer.ok && answer.failure.kind === "forbidden") return { kind: "read", value: { namespaceUid: "" } };
  if (!answer.ok) return { kind: "unreadable", what: `namespace ${namespace}`, failure: answer.failure };
  const uid = z.object({ metadata: z.object({ uid: z.string().min(1) }) }).safeParse(answer.value).data?.metadata.uid;
  return uid === undefined
    ? unreadable(`namespace ${namespace}`, "it has no UID")
    : { kind: "read", value: { namespaceUid: uid } };
}

function parseAll<T>(items: readonly unknown[], parse: (item: unknown) => T | undefined): readonly T[] | undefined {
  const parsed = items.map(parse);
  const sound = parsed.filter((item) => item !== undefined);
  return sound.length === parsed.length ? sound : undefined;
}

async function listVms(
  cluster: Cluster,
  pool: Pool,
  options: { labelSelector?: string; metadataOnly?: boolean },
): Promise<Read<readonly Vm[]>> {
  const answer = await cluster.list(VIRTUAL_MACHINES, { namespace: pool.namespace }, options);
  if (!answer.ok) return { kind: "unreadable", what: "the list of VMs", failure: answer.failure };
  const vms = parseAll(answer.value, (item) => parseVm(item, pool.name));
  if (vms === undefined) return unreadable("the list of VMs", "a VM's metadata are not what the API promises");
  return { kind: "read", value: vms };
}

async function readRevision(cluster: Cluster, pool: Pool, name: string): Promise<Read<Revision | "absent">> {
  const answer = await cluster.get(CONTROLLER_REVISIONS, { namespace: pool.namespace, name });
  if (!answer.ok) {
    if (answer.failure.kind === "notFound") return { kind: "read", value: "absent" };
    return { kind: "unreadable", what: `revision ${name}`, failure: answer.failure };
  }
  const revision = parseRevision(answer.value);
  if (revision === undefined) return unreadable(`revision ${name}`, "its metadata are not what the API promises");
  return { kind: "read", value: revision };
}

function map<T, U>(read: Read<T>, change: (value: T) => U): Read<U> {
  return read.kind === "read" ? { kind: "read", value: change(read.value) } : read;
}

function none(): Read<undefined> {
  return { kind: "read", value: undefined };
}

function unreadable(what: string, message: string): Extract<Look, { kind: "unreadable" }> {
  const failure = { kind: "garbled", status: undefined, definite: true, retryAfterMs: undefined, message } as const;
  return { kind: "unreadable", what, failure };
}
