/** What the planner knows of a pool and of its machines, and the schemas that read them from the API's JSON. */
import * as z from "zod";
import { flawOf } from "./json.ts";
import { ordinalOf, POOL_GROUP, POOL_KIND, PROTECTED_LABEL, REFERENCE_MANAGER, REVISION_LABEL } from "./names.ts";
import { type Labels, labelSelectorSchema, labelsSchema, requirementSchema } from "./selector.ts";

/** What can be walked and copied whole; the part of an object that is carried along must be. */
const soundSchema = z.unknown().superRefine((value, context) => {
  const flaw = flawOf(value);
  if (flaw !== undefined) context.addIssue({ code: "custom", path: [...flaw.path], message: flaw.message });
});

export const ownerReferenceSchema = z.looseObject({
  apiVersion: z.string(),
  kind: z.string(),
  name: z.string(),
  uid: z.string(),
  controller: z.boolean().nullish(),
});
/** An owner reference as the API has it; fields that we do not read are carried along. */
export type OwnerReference = z.infer<typeof ownerReferenceSchema>;

const metadataSchema = z.object({
  name: z.string().min(1),
  namespace: z.string().min(1),
  uid: z.string().min(1),
  resourceVersion: z.string().min(1),
  generation: z.int().nonnegative().optional(),
  creationTimestamp: z.string().optional(),
  deletionTimestamp: z.string().optional(),
  labels: labelsSchema.optional(),
  annotations: z.record(z.string(), z.string()).optional(),
  finalizers: z.array(z.string()).optional(),
  ownerReferences: z.array(ownerReferenceSchema).optional(),
});

const conditionSchema = z.looseObject({
  type: z.string(),
  status: z.string(),
  lastTransitionTime: z.string().nullish(),
  reason: z.string().nullish(),
  message: z.string().nullish(),
});
export type Condition = z.infer<typeof conditionSchema>;

const poolStatusSchema = z.looseObject({
  replicas: z.int().optional(),
  readyReplicas: z.int().optional(),
  labelSelector: z.string().optional(),
  conditions: z.array(conditionSchema).nullish(),
});
export type PoolStatus = z.infer<typeof poolStatusSchema>;

/** Who wrote to an object, and when last; what they wrote is not read. */
const managedFieldsSchema = z.array(z.object({ manager: z.string().nullish(), time: z.string().nullish() }));

const poolSchema = z.object({
  metadata: metadataSchema.extend({
    generation: z.int().nonnegative(),
    managedFields: managedFieldsSchema.nullish().catch(undefined),
  }),
  spec: z.unknown().optional(),
  status: poolStatusSchema.optional().catch(undefined),
});

/** A pool as read: its metadata are sound, its spec is not yet judged. */
export interface Pool {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation: number;
  readonly deleting: boolean;
  readonly finalizers: readonly string[];
  readonly annotations: Readonly<Record<string, string>> | undefined;
  /** When KubeVirt's own pool controller last changed the pool or its status, in epoch milliseconds; undefined for never. */
  readonly inTreeWroteAt: number | undefined;
  readonly spec: unknown;
  readonly status: PoolStatus | undefined;
}

/** Reads a pool; undefined when even its metadata are not what the API promises. */
export function parsePool(object: unknown): Pool | undefined {
  const parsed = poolSchema.safeParse(object);
  if (!parsed.success) return undefined;
  const { metadata, spec, status } = parsed.data;
  return {
    name: metadata.name,
    namespace: metadata.namespace,
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    generation: metadata.generation,
    deleting: metadata.deletionTimestamp !== undefined,
    finalizers: metadata.finalizers ?? [],
    annotations: metadata.annotations,
    inTreeWroteAt: lastWriteOf(REFERENCE_MANAGER, metadata.managedFields ?? []),
    spec,
    status,
  };
}

function lastWriteOf(manager: string, entries: z.infer<typeof managedFieldsSchema>): number | undefined {
  const times = entries.filter((entry) => entry.manager === manager).map(({ time }) => timeOf(time ?? undefined));
  return times.reduce<number | undefined>((last, time) => Math.max(last ?? time, time), undefined);
}

const statePreservationSchema = z.enum(["Disabled", "Offline", "Online"]);
const selectionPolicySchema = z.looseObject({
  sortPolicy: z.enum(["AscendingOrder", "DescendingOrder", "Newest", "Oldest", "Random"]).nullish(),
  selectors: z
    .looseObject({
      labelSelector: labelSelectorSchema.nullish(),
      nodeSelectorRequirementMatcher: z.array(requirementSchema).nullish(),
    })
    .nullish(),
});
/** Which machines come first, and which are left out. */
export type SelectionPolicy = z.infer<typeof selectionPolicySchema>;
const templateMetadataSchema = z.looseObject({
  labels: labelsSchema.nullish(),
  annotations: z.record(z.string(), z.string()).nullish(),
});
const namedSchema = z.looseObject({ name: z.string() });

/** The parts of a volume that indexing by ordinal rewrites; all else is carried through untouched. */
const volumeSchema = z.looseObject({
  name: z.string().optional(),
  persistentVolumeClaim: z.looseObject({ claimName: z.string() }).nullish(),
  dataVolume: namedSchema.nullish(),
  configMap: z.looseObject({ name: z.string().optional() }).nullish(),
  secret: z.looseObject({ secretName: z.string().optional() }).nullish(),
  cloudInitNoCloud: z
    .looseObject({ secretRef: namedSchema.nullish(), networkDataSecretRef: namedSchema.nullish() })
    .nullish(),
  cloudInitConfigDrive: z
    .looseObject({ secretRef: namedSchema.nullish(), networkDataSecretRef: namedSchema.nullish() })
    .nullish(),
});
export type Volume = z.infer<typeof volumeSchema>;

const vmSpecSchema = z.looseObject({
  template: z.looseObject({
    metadata: templateMetadataSchema.nullish(),
    spec: z.looseObject({ volumes: z.array(volumeSchema).nullish() }).nullish(),
  }),
  dataVolumeTemplates: z.array(z.looseObject({ metadata: z.looseObject({ name: z.string().min(1) }) })).nullish(),
});
export type VmSpec = z.infer<typeof vmSpecSchema>;

/** The fields of a pool's spec, one by one. */
export const poolFieldsSchema = z.looseObject({
  replicas: z.int().min(0).max(2_147_483_647).nullish(),
  selector: labelSelectorSchema,
  virtualMachineTemplate: z.looseObject({ metadata: templateMetadataSchema.nullish(), spec: vmSpecSchema }),
  paused: z.boolean().nullish(),
  nameGeneration: z
    .looseObject({
      appendIndexToConfigMapRefs: z.boolean().nullish(),
      appendIndexToSecretRefs: z.boolean().nullish(),
    })
    .nullish(),
  maxUnavailable: z.union([z.int(), z.string()]).nullish(),
  scaleInStrategy: z
    .looseObject({
      unmanaged: z.looseObject({}).nullish(),
      opportunistic: z.looseObject({ statePreservation: statePreservationSchema.nullish() }).nullish(),
      proactive: z
        .looseObject({
          selectionPolicy: selectionPolicySchema.nullish(),
          statePreservation: statePreservationSchema.nullish(),
        })
        .nullish(),
    })
    .nullish(),
  updateStrategy: z
    .looseObject({
      unmanaged: z.looseObject({}).nullish(),
      opportunistic: z.looseObject({}).nullish(),
      proactive: z.looseObject({ selectionPolicy: selectionPolicySchema.nullish() }).nullish(),
    })
    .nullish(),
  autohealing: z
    .looseObject({
      startUpFailureThreshold: z.int().min(1).nullish(),
      minFailingToStartDuration: z.string().nullish(),
    })
    .nullish(),
});
/** The pool's spec as far as it is read; an unknown enum value makes it illegal. Source: pool.kubevirt.io/v1beta1. */
export const poolSpecSchema = soundSchema.pipe(poolFieldsSchema);
/** A pool's spec whose shape is legal; `judge` in `verdict.ts` says whether its meaning is. */
export type PoolSpec = z.infer<typeof poolSpecSchema>;

/** A VirtualMachine as the planner sees it, whoever owns it. */
export interface Vm {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** The number in the name; undefined when the pool would not have given that name. */
  readonly ordinal: number | undefined;
  /** In epoch milliseconds; the API has whole seconds. 0 when it does not say. */
  readonly createdAt: number;
  readonly owners: readonly OwnerReference[];
  readonly labels: Labels;
  readonly annotations: Readonly<Record<string, string>>;
  readonly finalizers: readonly string[];
  readonly terminating: boolean;
  /** Its condition `Ready` is True; always false where only metadata were read. */
  readonly ready: boolean;
  /** Since when its condition `Ready` is True, or False, in epoch milliseconds; undefined when it is not, or the API does not say. */
  readonly readySince: number | undefined;
  readonly notReadySince: number | undefined;
  /** How often in a row its guest could not be started. */
  readonly startFailures: number;
  /** Its `printableStatus` where that says that its guest does not come up, or is not to. */
  readonly shown: string | undefined;
  /** A request to stop or to start it is under way. */
  readonly requested: boolean;
  /** Its status says that there is an instance. */
  readonly running: boolean;
  /** KubeVirt says that its instance must restart for the spec to take effect. */
  readonly restartRequired: boolean;
  /** Undefined where only metadata were read, or when it is not what the API promises: such a VM is not updated. */
  readonly spec: VmSpec | undefined;
}

const statusWithConditionsSchema = z.looseObject({ conditions: z.array(conditionSchema).nullish() });

const vmSchema = z.object({
  metadata: metadataSchema,
  spec: soundSchema.pipe(vmSpecSchema).optional().catch(undefined),
  status: statusWithConditionsSchema
    .extend({
      created: z.boolean().nullish().catch(undefined),
      stateChangeRequests: z.array(z.unknown()).nullish().catch(undefined),
      printableStatus: z.string().nullish().catch(undefined),
      startFailure: z
        .looseObject({ consecutiveFailCount: z.int().nonnegative().optional() })
        .nullish()
        .catch(undefined),
    })
    .nullish(),
});

/** The printable statuses of a machine whose guest does not come up. Source: KubeVirt's pool controller. */
const FAILING: readonly string[] = [
  "CrashLoopBackOff",
  "ErrorUnschedulable",
  "DataVolumeError",
  "ErrorPvcNotFound",
  "ErrImagePull",
  "ImagePullBackOff",
];
/** Those of one that nobody tries to start now, whatever its failures were. */
const AT_REST: readonly string[] = ["Stopped", "Stopping", "Paused", "Migrating"];

/** Whether nobody tries to start the machine: its user has stopped it, or is about to. */
export function isAtRest({ shown, requested }: Pick<Vm, "shown" | "requested">): boolean {
  return requested || AT_REST.includes(shown ?? "");
}

/** Reads a VM, or its metadata alone; undefined when it is not what the API promises. */
export function parseVm(object: unknown, poolName: string): Vm | undefined {
  const parsed = vmSchema.safeParse(object);
  if (!parsed.success) return undefined;
  const { metadata, spec, status } = parsed.data;
  return {
    name: metadata.name,
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    ordinal: ordinalOf(poolName, metadata.name),
    createdAt: timeOf(metadata.creationTimestamp),
    owners: metadata.ownerReferences ?? [],
    labels: metadata.labels ?? {},
    annotations: metadata.annotations ?? {},
    finalizers: metadata.finalizers ?? [],
    terminating: metadata.deletionTimestamp !== undefined,
    ready: isTrue(status, "Ready"),
    readySince: changeOf(status, "Ready", "True"),
    notReadySince: changeOf(status, "Ready", "False"),
    startFailures: status?.startFailure?.consecutiveFailCount ?? 0,
    shown: [...FAILING, ...AT_REST].find((name) => name === status?.printableStatus),
    requested: (status?.stateChangeRequests ?? []).length > 0,
    running: status?.created === true,
    restartRequired: isTrue(status, "RestartRequired"),
    spec,
  };
}

/** The running guest of a VM: a VirtualMachineInstance. */
export interface Instance {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  /** UID of the VM that controls it. */
  readonly vmUid: string | undefined;
  /** In epoch milliseconds; 0 when the API does not say. */
  readonly createdAt: number;
  readonly labels: Labels;
  readonly terminating: boolean;
  /** Its condition `Ready` is True and its phase Running. */
  readonly ready: boolean;
  /** The guest has shut down or failed: what comes next is a new instance, if any. */
  readonly final: boolean;
  /** The spec as it runs; what is updated live shows here. */
  readonly spec: unknown;
}

const instanceSchema = z.object({
  metadata: metadataSchema,
  spec: soundSchema.optional().catch(undefined),
  status: statusWithConditionsSchema.extend({ phase: z.string().nullish() }).nullish(),
});

/** Reads an instance; undefined when it is not what the API promises. */
export function parseInstance(object: unknown): Instance | undefined {
  const parsed = instanceSchema.safeParse(object);
  if (!parsed.success) return undefined;
  const { metadata, spec, status } = parsed.data;
  const controller = controllerOf({ owners: metadata.ownerReferences ?? [] });
  return {
    name: metadata.name,
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    vmUid: controller?.kind === "VirtualMachine" ? controller.uid : undefined,
    createdAt: timeOf(metadata.creationTimestamp),
    labels: metadata.labels ?? {},
    terminating: metadata.deletionTimestamp !== undefined,
    ready: status?.phase === "Running" && isTrue(status, "Ready"),
    final: status?.phase === "Succeeded" || status?.phase === "Failed",
    spec,
  };
}

type StatusWithConditions = z.infer<typeof statusWithConditionsSchema>;

function changeOf(
  status: StatusWithConditions | null | undefined,
  wanted: string,
  value: "True" | "False",
): number | undefined {
  const condition = (status?.conditions ?? []).find((one) => one.type === wanted && one.status === value);
  const time = Date.parse(condition?.lastTransitionTime ?? "");
  return Number.isNaN(time) ? undefined : time;
}

function isTrue(status: StatusWithConditions | null | undefined, wanted: string): boolean {
  return (status?.conditions ?? []).some(({ type, status: value }) => type === wanted && value === "True");
}

/** Epoch milliseconds of a `metav1.Time`; 0 when there is none. */
function timeOf(timestamp: string | undefined): number {
  const time = Date.parse(timestamp ?? "");
  return Number.isNaN(time) ? 0 : time;
}

/** The owner that controls an object, if any. */
export function controllerOf({ owners }: { readonly owners: readonly OwnerReference[] }): OwnerReference | undefined {
  return owners.find(({ controller }) => controller === true);
}

/** Whether an owner is a VirtualMachinePool, of whatever version. */
export function isPoolOwner(owner: OwnerReference): boolean {
  return owner.kind === POOL_KIND && owner.apiVersion.startsWith(`${POOL_GROUP}/`);
}

/** Whether this pool, and not an earlier one of its name, controls the VM. */
export function isOwnedBy(vm: Pick<Vm, "owners">, pool: Pool): boolean {
  const controller = controllerOf(vm);
  return controller !== undefined && isPoolOwner(controller) && controller.uid === pool.uid;
}

/** The revision that a VM or an instance says it was made from. A label may be empty, which no revision's name is. */
export function revisionOf({ labels }: { readonly labels: Labels }): string | undefined {
  return labels[REVISION_LABEL] || undefined;
}

/**
 * The revision that a VM's spec says it was made from, which its next instance names: another than the VM's own where somebody
 * put an older spec back under the labels of today, as KubeVirt's VirtualMachineRestore does. Where it says none, the VM's.
 */
export function specRevisionOf(vm: Vm): string | undefined {
  return revisionOf({ labels: vm.spec?.template.metadata?.labels ?? {} }) ?? revisionOf(vm);
}

/** Whether its user has forbidden to delete it. The cluster refuses that only where the policy for it is installed. */
export function isProtected(vm: Vm): boolean {
  return /^true$/i.test(vm.labels[PROTECTED_LABEL] ?? "");
}

const revisionSchema = z.object({
  metadata: metadataSchema,
  revision: z.int().nonnegative().optional().catch(undefined),
  data: poolSpecSchema.optional().catch(undefined),
});

/** A ControllerRevision (apps/v1) whose data are a complete pool spec. */
export interface Revision {
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly ownerUid: string | undefined;
  /** Generation of the pool that it was made for; undefined where only metadata were read. */
  readonly generation: number | undefined;
  /** Undefined where only metadata were read, or when it is not a pool spec. */
  readonly spec: PoolSpec | undefined;
}

export function parseRevision(object: unknown): Revision | undefined {
  const parsed = revisionSchema.safeParse(object);
  if (!parsed.success) return undefined;
  const { metadata, revision, data } = parsed.data;
  const owner = controllerOf({ owners: metadata.ownerReferences ?? [] });
  const { name, uid, resourceVersion } = metadata;
  return { name, uid, resourceVersion, ownerUid: owner?.uid, generation: revision, spec: data };
}

/** A DataVolume or PersistentVolumeClaim that a machine may own. */
export interface Disk {
  readonly kind: "dataVolume" | "claim";
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly owners: readonly OwnerReference[];
  readonly labels: Labels;
  readonly annotations: Readonly<Record<string, string>>;
  readonly terminating: boolean;
}

const diskSchema = z.object({ metadata: metadataSchema });

/** Reads a disk, or its metadata alone; undefined when it is not what the API promises. */
export function parseDisk(object: unknown, kind: Disk["kind"]): Disk | undefined {
  const parsed = diskSchema.safeParse(object);
  if (!parsed.success) return undefined;
  const { metadata } = parsed.data;
  return {
    kind,
    name: metadata.name,
    uid: metadata.uid,
    resourceVersion: metadata.resourceVersion,
    owners: metadata.ownerReferences ?? [],
    labels: metadata.labels ?? {},
    annotations: metadata.annotations ?? {},
    terminating: metadata.deletionTimestamp !== undefined,
  };
}
