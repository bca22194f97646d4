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
import { KEPT_FOR_LABEL, LABEL_VALUE_LENGTH_MAX, REVISION_LABEL } from "../planning/names.ts";
import type { Limits, Need, Observation, Plan } from "../planning/plan.ts";
import { planPass } from "../planning/plan.ts";
import { isOfPool, type LivingPool, planGone } from "../planning/strays.ts";
import { judge, type Verdict } from "../planning/verdict.ts";
import { shorten } from "../planning/wording.ts";
import type { ApiFailure, Cluster, ListOptions, ObjectPlace, ResourceType } from "./cluster.ts";
import {
  CLAIMS,
  CONTROLLER_REVISIONS,
  DATA_VOLUMES,
  INSTANCES,
  isMissing,
  KUBEVIRTS,
  NAMESPACES,
  poolsOf,
  VIRTUAL_MACHINES,
  youngestOf,
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
  /** The deployment that is to act on the plan; undefined when nobody is. */
  readonly by?: string | undefined;
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
  if (pool === undefined) return unreadable("the pool", `its ${NOT_PROMISED}`);
  const now = read.serverTimeMs ?? options.now();
  const verdict = judge(pool);
  const base = await observeMachines(cluster, { pool, verdict, wide: options.wide });
  const of = { now, pool, verdict, poolVersion: version.value };
  if (base.kind !== "read") return { ...base, of };
  const seen: Observation = { ...UNREAD, now, pool, verdict, ledger: options.ledger, by: options.by, ...base.value };
  const look = await planWithNeeds(cluster, { seen, limits: options.limits, poolVersion: version.value });
  return look.kind === "unreadable" ? { ...look, of } : look;
}

/** What a pass looks at whose pool is not there: the machines first, the pools after them. */
export async function lookForStrays(
  cluster: Cluster,
  place: PoolPlace,
): Promise<
  { readonly kind: "looked"; readonly plan: Pick<Plan, "actions" | "reasons"> } | Extract<Look, { kind: "unreadable" }>
> {
  const version = await cluster.poolVersion();
  if (!version.ok) return { kind: "unreadable", what: "API discovery", failure: version.failure };
  const vms = await listVms(cluster, place, { labelSelector: REVISION_LABEL, metadataOnly: true });
  if (vms.kind !== "read") return vms;
  if (!vms.value.some((vm) => isOfPool(vm, place.name))) return { kind: "looked", plan: { actions: [], reasons: [] } };
  const living = await listLivingPools(cluster, version.value, { ...place, vms: vms.value });
  if (living.kind !== "read") return living;
  return { kind: "looked", plan: planGone({ name: place.name, vms: vms.value, living: living.value }) };
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
  livingPools: undefined,
} as const;

type Read<T> = { readonly kind: "read"; readonly value: T } | Extract<Look, { kind: "unreadable" }>;

async function observeMachines(
  cluster: Cluster,
  { pool, verdict, wide }: { pool: Pool; verdict: Verdict; wide: boolean },
): Promise<Read<Pick<Observation, "selected" | "namespaceVms">>> {
  const selectable = verdict.legal && !pool.deleting;
  const [selected, namespaceVms] = await Promise.all([
    selectable ? listVms(cluster, pool, { labelSelector: verdict.selector.text }) : none(),
    pool.deleting || wide ? listVms(cluster, pool, { metadataOnly: true }) : none(),
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
      const more = await observeNeed({ cluster, poolVersion }, known, need);
      if (more.kind !== "read") return more;
      known = { ...known, ...more.value };
    }
  }
  return unreadable("the pool", "the plan goes on asking for more");
}

/** Each kind of need is asked for once, revisions in a few steps. */
const ROUNDS_MAX = 20;

async function observeNeed(
  { cluster, poolVersion }: { readonly cluster: Cluster; readonly poolVersion: string },
  seen: Observation,
  need: Need,
): Promise<Read<Partial<Observation>>> {
  switch (need.read) {
    case "namespaceVms":
      // Pools are judged by a list that is younger than the machines.
      return map(await listVms(cluster, seen.pool, { metadataOnly: true }), (namespaceVms) => {
        return { namespaceVms, livingPools: undefined };
      });
    case "revisions":
      return observeRevisions(cluster, seen, need.names);
    case "instances":
      return observeInstances(cluster, seen);
    case "looseInstances":
      return observeLooseInstances(cluster, seen.pool);
    case "liveUpdates":
      return map(await readLiveUpdates(cluster), (liveUpdates) => ({ liveUpdates }));
    case "specs":
      return observeSpecs(cluster, seen, need.vms);
    case "disks":
      return observeDisks(cluster, seen, need.vms);
    case "keptDisks":
      return observeKeptDisks(cluster, seen.pool);
    case "namespace":
      return observeNamespace(cluster, seen.pool);
    case "livingPools":
      return observeLivingPools({ cluster, poolVersion }, seen);
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

const ALL_REVISIONS = { type: CONTROLLER_REVISIONS, what: "the list of revisions", parse: parseRevision, whose: "its" };
const SOME_INSTANCES = { type: INSTANCES, what: "the list of instances", parse: parseInstance, whose: "an instance's" };

/** The instances that carry a revision of the pool, and one by one those whose machine says that it has one. */
async function observeInstances(cluster: Cluster, seen: Observation): Promise<Read<Partial<Observation>>> {
  const { pool, selected } = seen;
  const listed = await readAll(cluster, pool, { ...ALL_REVISIONS, metadataOnly: true });
  if (listed.kind !== "read") return listed;
  const ownRevisions = listed.value.filter(({ ownerUid }) => ownerUid === pool.uid);
  const own = selected.filter((vm) => isOwnedBy(vm, pool));
  // KubeVirt's controller names revisions of long pools as no label can be: nothing carries those, and no selector may ask.
  const names = [...new Set([...ownRevisions.map(({ name }) => name), ...own.map(revisionOf)])].filter(
    (name) => name !== undefined && name.length <= LABEL_VALUE_LENGTH_MAX,
  );
  const labelSelector =
    names.length > REVISIONS_SELECTED_MAX ? REVISION_LABEL : `${REVISION_LABEL} in (${names.sort().join(",")})`;
  const labelled = names.length === 0 ? none() : await readAll(cluster, pool, { ...SOME_INSTANCES, labelSelector });
  if (labelled.kind !== "read") return labelled;
  const instances = [...(labelled.value ?? [])];
  const found = new Set(instances.map(({ vmUid }) => vmUid));
  const hidden = own.filter((vm) => vm.running && !found.has(vm.uid));
  for (const read of await inParallel(hidden, (vm) => readInstance(cluster, pool, vm))) {
    if (read.kind !== "read") return read;
    if (read.value !== undefined) instances.push(read.value);
  }
  const owners = new Set(own.map(({ uid }) => uid));
  const ours = instances.filter(({ vmUid }) => vmUid !== undefined && owners.has(vmUid));
  return { kind: "read", value: { instances: ours, ownRevisions } };
}

/** Those that no machine controls. */
async function observeLooseInstances(cluster: Cluster, pool: Pool): Promise<Read<Partial<Observation>>> {
  const read = await readAll(cluster, pool, { ...SOME_INSTANCES, metadataOnly: true });
  return map(read, (instances) => ({ looseInstances: instances.filter(({ vmUid }) => vmUid === undefined) }));
}

function readInstance(cluster: Cluster, { namespace }: Pool, { name }: Vm): Promise<Read<Instance | undefined>> {
  return readOne(cluster, { namespace, name }, { type: INSTANCES, what: `instance ${name}`, parse: parseInstance });
}

const kubevirtSchema = z.object({
  spec: z.object({ configuration: z.object({ vmRolloutStrategy: z.string().nullish() }).nullish() }).nullish(),
  status: z.object({ observedKubeVirtVersion: z.string().nullish() }).nullish(),
});

/**
 * Whether KubeVirt changes running guests where it can: when it is told to, and since version 1.5 also when it is told
 * nothing. Where the functions have no right to read that: no, and guests are restarted.
 */
async function readLiveUpdates(cluster: Cluster): Promise<Read<boolean>> {
  const what = "the list of KubeVirt installations";
  const answer = await cluster.list(KUBEVIRTS, {});
  if (!answer.ok && answer.failure.kind === "forbidden") return { kind: "read", value: false };
  if (!answer.ok) return { kind: "unreadable", what, failure: answer.failure };
  const [installation = {}] = answer.value;
  const { data } = kubevirtSchema.safeParse(installation);
  return data === undefined
    ? unreadable(what, "an installation is not what the API promises")
    : { kind: "read", value: isLive(data) };
}

function isLive({ spec, status }: z.infer<typeof kubevirtSchema>): boolean {
  const strategy = spec?.configuration?.vmRolloutStrategy;
  if (strategy !== undefined && strategy !== null) return strategy === "LiveUpdate";
  const [, major, minor] = /^v?(\d+)\.(\d+)\./.exec(status?.observedKubeVirtVersion ?? "") ?? [];
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
  for (const [{ uid }, answer] of await inParallel(vms, async (vm) => [vm, await readVm(cluster, pool, vm)] as const)) {
    if (answer.kind !== "read") return answer;
    read.set(uid, answer.value?.uid === uid ? answer.value : "gone");
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

function readVm(cluster: Cluster, pool: Pool, { name }: Vm): Promise<Read<Vm | undefined>> {
  const parse = (object: unknown) => parseVm(object, pool.name);
  const at = { namespace: pool.namespace, name };
  return readOne(cluster, at, { type: VIRTUAL_MACHINES, what: `VM ${name}`, parse });
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
      const parse = (object: unknown) => parseDisk(object, kind);
      const read = await readOne(
        cluster,
        { namespace: pool.namespace, name },
        { type, what: `disk ${shorten(name, 253)}`, parse },
      );
      if (read.kind !== "read") return read;
      if (read.value !== undefined) found.push(read.value);
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
    const parse = (item: unknown) => parseDisk(item, kind);
    const source = { type, what: "the list of kept disks", parse, whose: "a disk's" };
    const read = await readAll(cluster, pool, { ...source, labelSelector: KEPT_FOR_LABEL, metadataOnly: true });
    // A cluster without CDI has no DataVolumes. Claims are in every cluster: nobody but a proxy says that they are not.
    if (kind === "dataVolume" && read.kind !== "read" && isMissing(read.failure)) continue;
    if (read.kind !== "read") return read;
    for (const disk of read.value) keptDisks.push(disk);
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

function listVms(cluster: Cluster, pool: Listed, options: ListOptions): Promise<Read<readonly Vm[]>> {
  const parse = (item: unknown) => parseVm(item, pool.name);
  const source = { type: VIRTUAL_MACHINES, what: "the list of VMs", parse, whose: "a VM's" };
  return readAll(cluster, pool, { ...source, ...options });
}

async function readRevision(cluster: Cluster, { namespace }: Pool, name: string): Promise<Read<Revision | "absent">> {
  const source = { type: CONTROLLER_REVISIONS, what: `revision ${name}`, parse: parseRevision };
  return map(await readOne(cluster, { namespace, name }, source), (revision) => revision ?? "absent");
}

async function observeLivingPools(
  { cluster, poolVersion }: { readonly cluster: Cluster; readonly poolVersion: string },
  { pool, selected, namespaceVms = [] }: Observation,
): Promise<Read<Partial<Observation>>> {
  const { namespace, name } = pool;
  const living = await listLivingPools(cluster, poolVersion, { namespace, name, vms: [...selected, ...namespaceVms] });
  return map(living, (livingPools) => ({ livingPools }));
}

/** A pool is older than its machines: a list as young as the youngest of these machines shows the pools of them all. */
function listLivingPools(
  cluster: Cluster,
  poolVersion: string,
  { vms, ...place }: PoolPlace & { readonly vms: readonly Vm[] },
): Promise<Read<readonly LivingPool[]>> {
  const source = { type: poolsOf(poolVersion), what: "the list of pools", parse: parseLivingPool, whose: "a pool's" };
  const resourceVersion = youngestOf(vms.map((vm) => vm.resourceVersion));
  return readAll(cluster, { ...place, resourceVersion }, { ...source, metadataOnly: true });
}

const livingPoolSchema = z.object({
  metadata: z.object({ namespace: z.string().min(1), name: z.string().min(1), uid: z.string().min(1) }),
});

function parseLivingPool(object: unknown): LivingPool | undefined {
  return livingPoolSchema.safeParse(object).data?.metadata;
}

interface Source<T> {
  readonly type: ResourceType;
  /** In words, for when it cannot be read. */
  readonly what: string;
  readonly parse: (object: unknown) => T | undefined;
}

/** One object; undefined when there is none. */
async function readOne<T>(
  cluster: Cluster,
  at: ObjectPlace,
  { type, what, parse }: Source<T>,
): Promise<Read<T | undefined>> {
  const answer = await cluster.get(type, at);
  if (!answer.ok)
    return answer.failure.kind === "notFound" ? none() : { kind: "unreadable", what, failure: answer.failure };
  const value = parse(answer.value);
  return value === undefined ? unreadable(what, `its ${NOT_PROMISED}`) : { kind: "read", value };
}

interface ListSource<T> extends Source<T>, ListOptions {
  /** Whose metadata it is that cannot be read, in words. */
  readonly whose: string;
}

/** Whose objects are listed, and what was read of it before. */
interface Listed extends PoolPlace {
  readonly resourceVersion?: string | undefined;
}

/** The objects of the pool's namespace, none as they were before the pool; one that cannot be read makes the list unreadable. */
async function readAll<T>(
  cluster: Cluster,
  { namespace, resourceVersion: notOlderThan }: Listed,
  { type, what, parse, whose, ...options }: ListSource<T>,
): Promise<Read<readonly T[]>> {
  // Other kinds may be kept in an etcd of their own, which counts for itself.
  const isCustom = type.group.endsWith("kubevirt.io");
  const answer = await cluster.list(type, { namespace }, isCustom ? { ...options, notOlderThan } : options);
  if (!answer.ok) return { kind: "unreadable", what, failure: answer.failure };
  const parsed = answer.value.map(parse);
  const sound = parsed.filter((item) => item !== undefined);
  if (sound.length < parsed.length) return unreadable(what, `${whose} ${NOT_PROMISED}`);
  return { kind: "read", value: sound };
}

const NOT_PROMISED = "metadata are not what the API promises";

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
