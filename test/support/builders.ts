/** Builders of what the planner reads, through the schemas of the API's JSON; every field can be overridden, none is hidden. */
import { type Claim, EMPTY_LEDGER, formatClaim, type Ledger, type Rollout } from "../../shared/planning/claim.ts";
import { fnv1a } from "../../shared/planning/hash.ts";
import {
  type Disk,
  type Instance,
  type Pool,
  parseDisk,
  parseInstance,
  parsePool,
  parseRevision,
  parseVm,
  poolSpecSchema,
  type Revision,
  type Vm,
} from "../../shared/planning/model.ts";
import { CLAIM_ANNOTATION, POOL_FINALIZER, REVISION_LABEL, revisionName, vmName } from "../../shared/planning/names.ts";
import type { Observation } from "../../shared/planning/plan.ts";
import type { LivingPool } from "../../shared/planning/strays.ts";
import { templateHash } from "../../shared/planning/template-change.ts";
import { judge } from "../../shared/planning/verdict.ts";

/** 2026-11-22T10:00:00.000Z, the server's clock of every observation that does not say otherwise. */
export const NOW = Date.UTC(2026, 10, 22, 10);
export const POOL_UID = "11111111-aaaa-4bbb-8ccc-000000000001";
/** Of a pool that was deleted before the one of its name was made. */
export const EARLIER_POOL_UID = "44444444-aaaa-4bbb-8ccc-000000000004";
/** Of the pool `other`. */
export const OTHER_POOL_UID = "22222222-aaaa-4bbb-8ccc-000000000002";
export const LABELS = { app: "web" } as const;
/** What KubeVirt's own controller puts on every machine. */
export const KUBEVIRT_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize";

export type Json = Readonly<Record<string, unknown>>;

/** The spec of a legal pool as a user writes it. */
export function aSpec(overrides: Json = {}): Json {
  return {
    replicas: 3,
    selector: { matchLabels: LABELS },
    virtualMachineTemplate: {
      metadata: { labels: LABELS },
      spec: { runStrategy: "Always", template: { metadata: {}, spec: { domain: {} } } },
    },
    ...overrides,
  };
}

export interface PoolOverrides {
  readonly name?: string;
  readonly uid?: string;
  readonly generation?: number;
  readonly deleting?: boolean;
  readonly finalizers?: readonly string[];
  readonly spec?: unknown;
  readonly status?: Json;
  /** When KubeVirt's own pool controller last wrote, as `managedFields` have it. */
  readonly inTreeWroteAt?: string;
  /** The annotation of the last pass: `aClaim()` unless given; null for a pool that no pass has seen. */
  readonly claim?: Claim | string | null;
  /** Beside that of the claim. */
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A pool whose last pass left everything finished. */
export function aPool(overrides: PoolOverrides = {}): Pool {
  const { name = "web", uid = POOL_UID, generation = 1, deleting = false } = overrides;
  const spec = "spec" in overrides ? overrides.spec : aSpec();
  const { claim = aClaim({ generation, rollout: aRollout(spec, `${name}-1`, generation) }) } = overrides;
  const text = claim === null || typeof claim === "string" ? claim : formatClaim(claim);
  const pool = parsePool({
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: {
      name,
      namespace: "default",
      uid,
      resourceVersion: "100",
      generation,
      ...(deleting ? { deletionTimestamp: "2026-11-22T09:59:00Z" } : {}),
      finalizers: overrides.finalizers ?? [POOL_FINALIZER],
      ...(text === null ? {} : { annotations: { ...overrides.annotations, [CLAIM_ANNOTATION]: text } }),
      ...(overrides.inTreeWroteAt === undefined ? {} : { managedFields: managedFieldsAt(overrides.inTreeWroteAt) }),
    },
    spec,
    ...(overrides.status === undefined ? {} : { status: overrides.status }),
  });
  if (pool === undefined) throw new Error("the builder's pool is not what the API promises");
  return pool;
}

/** A user made the pool and writes it still; KubeVirt's controller wrote its finalizer long ago, and its status then. */
function managedFieldsAt(time: string): readonly Json[] {
  const entry = { apiVersion: "pool.kubevirt.io/v1beta1", fieldsType: "FieldsV1", fieldsV1: {} };
  return [
    { ...entry, manager: "virt-controller", operation: "Update", time: "2026-01-01T00:00:00Z" },
    { ...entry, manager: "kubectl", operation: "Apply", time: "2026-11-22T09:59:59Z" },
    { ...entry, manager: "virt-controller", operation: "Update", subresource: "status", time },
  ];
}

/** A pool with one field of its legal spec changed. */
export function aPoolWith(spec: Json, overrides: PoolOverrides = {}): Pool {
  return aPool({ spec: aSpec(spec), ...overrides });
}

export interface VmOverrides {
  readonly poolName?: string;
  /** Given by the ordinal unless named. */
  readonly name?: string;
  readonly uid?: string;
  /** UID of the pool that controls it; null when none does. */
  readonly pool?: string | null;
  readonly owners?: readonly Json[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly revision?: string | null;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly finalizers?: readonly string[];
  readonly terminating?: boolean;
  /** Null: not known. */
  readonly ready?: boolean | null;
  /** A request to stop or to start it is under way. */
  readonly requested?: boolean;
  readonly restartRequired?: boolean;
  /** When its condition `Ready` last changed; null for no time. An hour before `NOW` unless given. */
  readonly readyChanged?: string | null;
  /** Start failures in a row. */
  readonly failures?: number;
  /** As `printableStatus`. */
  readonly shown?: string;
  /** As `creationTimestamp`; an hour before `NOW` unless given. */
  readonly created?: string;
  /** Its spec as stored; null where only metadata are read. The template of `aSpec()` unless given. */
  readonly spec?: Json | null;
}

/** A ready machine of the pool. */
export function aVm(ordinal: number, overrides: VmOverrides = {}): Vm {
  const { readyChanged = "2026-11-22T09:00:00Z" } = overrides;
  const { poolName = "web", pool = POOL_UID, revision = `${poolName}-1`, ready = true } = overrides;
  const vm = parseVm(
    {
      apiVersion: "kubevirt.io/v1",
      kind: "VirtualMachine",
      metadata: {
        name: overrides.name ?? vmName(poolName, ordinal),
        namespace: "default",
        uid: overrides.uid ?? aVmUid(ordinal),
        resourceVersion: String(1_000 + ordinal),
        labels: { ...(overrides.labels ?? LABELS), ...(revision === null ? {} : { [REVISION_LABEL]: revision }) },
        annotations: overrides.annotations ?? {},
        creationTimestamp: overrides.created ?? "2026-11-22T09:00:00Z",
        finalizers: overrides.finalizers ?? [POOL_FINALIZER, KUBEVIRT_FINALIZER],
        ownerReferences: overrides.owners ?? (pool === null ? [] : [anOwner(pool)]),
        ...(overrides.terminating === true ? { deletionTimestamp: "2026-11-22T09:59:30Z" } : {}),
      },
      ...(overrides.spec === null ? {} : { spec: overrides.spec ?? aVmSpec(revision) }),
      status: {
        conditions: [
          {
            type: "Ready",
            status: ready === null ? "Unknown" : ready ? "True" : "False",
            lastTransitionTime: readyChanged,
          },
          ...(overrides.restartRequired === true ? [{ type: "RestartRequired", status: "True" }] : []),
        ],
        ...(overrides.requested === true ? { stateChangeRequests: [{ action: "Stop" }] } : {}),
        ...(overrides.failures === undefined ? {} : { startFailure: { consecutiveFailCount: overrides.failures } }),
        ...(overrides.shown === undefined ? {} : { printableStatus: overrides.shown }),
      },
    },
    poolName,
  );
  if (vm === undefined) throw new Error("the builder's VM is not what the API promises");
  return vm;
}

/** The spec of a machine made from the template of `aSpec()`. */
export function aVmSpec(revision: string | null, overrides: Json = {}): Json {
  const labels = revision === null ? {} : { [REVISION_LABEL]: revision };
  return { runStrategy: "Always", template: { metadata: { labels }, spec: { domain: {} } }, ...overrides };
}

export interface InstanceOverrides {
  readonly poolName?: string;
  readonly uid?: string;
  readonly vmUid?: string;
  readonly revision?: string | null;
  readonly labels?: Readonly<Record<string, string>>;
  readonly terminating?: boolean;
  readonly ready?: boolean;
  readonly created?: string;
  readonly spec?: Json;
}

/** The ready instance of the machine of an ordinal. */
export function anInstance(ordinal: number, overrides: InstanceOverrides = {}): Instance {
  const { poolName = "web", revision = `${poolName}-1`, ready = true } = overrides;
  const instance = parseInstance({
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachineInstance",
    metadata: {
      name: vmName(poolName, ordinal),
      namespace: "default",
      uid: overrides.uid ?? anInstanceUid(ordinal),
      resourceVersion: String(2_000 + ordinal),
      creationTimestamp: overrides.created ?? "2026-11-22T09:00:00Z",
      labels: { ...overrides.labels, ...(revision === null ? {} : { [REVISION_LABEL]: revision }) },
      ownerReferences: [
        anOwner(overrides.vmUid ?? aVmUid(ordinal), {
          apiVersion: "kubevirt.io/v1",
          kind: "VirtualMachine",
          name: vmName(poolName, ordinal),
        }),
      ],
      ...(overrides.terminating === true ? { deletionTimestamp: "2026-11-22T09:59:30Z" } : {}),
    },
    spec: overrides.spec ?? { domain: {} },
    status: {
      phase: ready ? "Running" : "Scheduling",
      conditions: [{ type: "Ready", status: ready ? "True" : "False" }],
    },
  });
  if (instance === undefined) throw new Error("the builder's instance is not what the API promises");
  return instance;
}

export interface DiskOverrides {
  readonly kind?: Disk["kind"];
  /** UID of the machine that controls it; null when none does. */
  readonly vmUid?: string | null;
  /** The namespace is an owner, too. */
  readonly guarded?: boolean;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly terminating?: boolean;
}

/** UID of the namespace of every observation that has read it. */
export const NAMESPACE_UID = "33333333-aaaa-4bbb-8ccc-000000000003";

/** The DataVolume `data-<ordinal>` of the machine of that ordinal. */
export function aDisk(ordinal: number, overrides: DiskOverrides = {}): Disk {
  const { kind = "dataVolume", vmUid = aVmUid(ordinal), guarded = false } = overrides;
  const machine = { apiVersion: "kubevirt.io/v1", kind: "VirtualMachine", name: vmName("web", ordinal) };
  const namespace = { apiVersion: "v1", kind: "Namespace", name: "default", uid: NAMESPACE_UID };
  const disk = parseDisk(
    {
      metadata: {
        name: `data-${ordinal}`,
        namespace: "default",
        uid: `uid-of-data-${ordinal}`,
        resourceVersion: String(3_000 + ordinal),
        labels: overrides.labels ?? {},
        annotations: overrides.annotations ?? {},
        ownerReferences: [...(vmUid === null ? [] : [anOwner(vmUid, machine)]), ...(guarded ? [namespace] : [])],
        ...(overrides.terminating === true ? { deletionTimestamp: "2026-11-22T09:59:30Z" } : {}),
      },
    },
    kind,
  );
  if (disk === undefined) throw new Error("the builder's disk is not what the API promises");
  return disk;
}

export function anInstanceUid(ordinal: number): string {
  return `${(0xcafe0000 + ordinal).toString(16)}-0000-4000-8000-000000000000`;
}

export function aVmUid(ordinal: number): string {
  return `${(0xbeef0000 + ordinal).toString(16)}-0000-4000-8000-000000000000`;
}

/** The machines of ordinals 0, 1, … */
export function someVms(count: number, overrides: VmOverrides = {}): readonly Vm[] {
  return Array.from({ length: count }, (_, ordinal) => aVm(ordinal, overrides));
}

export function anOwner(uid: string, overrides: Json = {}): Json {
  return {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    name: uid === OTHER_POOL_UID ? "other" : "web",
    uid,
    controller: true,
    blockOwnerDeletion: true,
    ...overrides,
  };
}

/** A claim in which nothing is unfinished. */
export function aClaim(overrides: Partial<Claim> = {}): Claim {
  const { generation = 1 } = overrides;
  return {
    by: "test",
    at: NOW - 60_000,
    nonce: "nonce-1",
    generation,
    since: { at: NOW - 3_600_000, generation: 1 },
    create: new Map(),
    delete: [],
    restart: [],
    rollout: aRollout(aSpec(), "web-1", generation),
    waitUntil: undefined,
    ...overrides,
  };
}

/** Every machine and instance was seen to follow the template of that generation; undefined for a spec that cannot be read. */
export function aRollout(spec: unknown, revision: string, generation = 1): Rollout | undefined {
  const { data } = poolSpecSchema.safeParse(spec);
  return data && { template: templateHash(data), revisions: [revision], instances: true, generation };
}

export interface RevisionOverrides {
  readonly name?: string;
  readonly uid?: string;
  /** UID of the pool that made it. */
  readonly owner?: string;
  readonly generation?: number;
  readonly data?: unknown;
}

/** The ControllerRevision of the pool's first generation. */
export function aRevision(overrides: RevisionOverrides = {}): Revision {
  const { name = "web-1", uid = `uid-of-${name}`, owner = POOL_UID, generation = 1 } = overrides;
  const revision = parseRevision({
    apiVersion: "apps/v1",
    kind: "ControllerRevision",
    metadata: { name, namespace: "default", uid, resourceVersion: "300", ownerReferences: [anOwner(owner)] },
    revision: generation,
    data: "data" in overrides ? overrides.data : aSpec(),
  });
  if (revision === undefined) throw new Error("the builder's revision is not what the API promises");
  return revision;
}

export interface ObservationOverrides {
  readonly now?: number;
  readonly pool?: Pool;
  /** Every VM of the namespace. */
  readonly vms?: readonly Vm[];
  /** The metadata of the namespace's VMs were not read. */
  readonly narrow?: boolean;
  /** The revision of the pool's generation; undefined when it was not read. */
  readonly revision?: Revision | "absent" | undefined;
  /** More of them, by name. */
  readonly revisions?: readonly Revision[];
  readonly instances?: readonly Instance[];
  readonly ownRevisions?: readonly Revision[];
  /** Instances that no machine controls. */
  readonly looseInstances?: readonly Instance[] | undefined;
  /** Undefined when the cluster's way with changes to running guests was not read. */
  readonly liveUpdates?: boolean | undefined;
  /** Disks by the UID of their machine. */
  readonly disks?: ReadonlyMap<string, readonly Disk[]>;
  readonly keptDisks?: readonly Disk[];
  readonly namespaceUid?: string;
  readonly livingPools?: readonly LivingPool[];
  readonly ledger?: Ledger;
  /** The deployment that acts; the one of `aClaim()` unless given. */
  readonly by?: string | undefined;
}

/** What a pass sees: the machines that the selector matches and, unless narrow, the metadata of all of the namespace. */
export function anObservation(overrides: ObservationOverrides = {}): Observation {
  const { now = NOW, pool = aPool(), vms = [], narrow = false, ledger = EMPTY_LEDGER } = overrides;
  const verdict = judge(pool);
  const selects = verdict.legal && !pool.deleting;
  return {
    now,
    pool,
    verdict,
    selected: selects ? vms.filter(({ labels }) => verdict.selector.matches(labels)) : [],
    namespaceVms: narrow ? undefined : vms.map((vm) => ({ ...vm, ready: false })),
    revisions: knownRevisions(pool, overrides),
    instances: overrides.instances,
    ownRevisions: overrides.ownRevisions,
    looseInstances: "looseInstances" in overrides ? overrides.looseInstances : [],
    liveUpdates: overrides.liveUpdates,
    disks: overrides.disks ?? new Map(),
    specless: new Set(),
    keptDisks: overrides.keptDisks,
    namespaceUid: overrides.namespaceUid,
    livingPools: overrides.livingPools,
    ledger,
    by: "by" in overrides ? overrides.by : "test",
  };
}

/** Revisions that no override names are known to be absent; that of the generation may be unread. */
function knownRevisions(pool: Pool, overrides: ObservationOverrides): Observation["revisions"] {
  const own = revisionName(pool.name, pool.generation);
  const absent = [`${pool.name}-1`, own, `${own}-${fnv1a(pool.uid).slice(0, 8)}`];
  const known = new Map<string, Revision | "absent">(absent.map((name) => [name, "absent"]));
  if ("revision" in overrides) {
    if (overrides.revision === undefined) known.delete(own);
    else known.set(own, overrides.revision);
  }
  for (const revision of overrides.revisions ?? []) known.set(revision.name, revision);
  return known;
}

/** Freezes a value and all that it holds, so that a mutation throws. */
export function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const entry of Object.values(value)) deepFreeze(entry);
  }
  return value;
}
