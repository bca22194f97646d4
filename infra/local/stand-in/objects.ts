/** The objects that the stand-in reads, parsed once from the API server's JSON, and the kinds they belong to. */
import * as z from "zod";

const textMap = z
  .record(z.string(), z.string())
  .nullish()
  .catch({})
  .transform((map) => map ?? {});

const ownerSchema = z.object({
  apiVersion: z.string(),
  kind: z.string(),
  name: z.string(),
  uid: z.string(),
  controller: z.boolean().optional(),
  blockOwnerDeletion: z.boolean().optional(),
});

const metadataSchema = z.object({
  name: z.string(),
  namespace: z.string(),
  uid: z.string(),
  resourceVersion: z.string(),
  generation: z.number().default(0),
  creationTimestamp: z.string().nullish(),
  deletionTimestamp: z.string().nullish(),
  labels: textMap,
  annotations: textMap,
  finalizers: z.array(z.string()).default([]),
  ownerReferences: z.array(ownerSchema).default([]),
});

const conditionSchema = z.looseObject({
  type: z.string(),
  status: z.string(),
  reason: z.string().optional(),
  message: z.string().optional(),
  lastProbeTime: z.string().nullish(),
  lastTransitionTime: z.string().nullish(),
});

const templateMetadataSchema = z
  .object({ name: z.string().optional(), labels: textMap, annotations: textMap })
  .nullish()
  .transform((metadata) => metadata ?? { labels: {}, annotations: {} });

const volumeSchema = z.object({
  dataVolume: z.object({ name: z.string() }).nullish(),
  persistentVolumeClaim: z.object({ claimName: z.string() }).nullish(),
});

const machineSchema = z.object({
  metadata: metadataSchema,
  spec: z.object({
    running: z.boolean().nullish(),
    runStrategy: z.string().nullish(),
    template: z.object({ metadata: templateMetadataSchema, spec: z.unknown().optional() }),
    dataVolumeTemplates: z
      .array(z.object({ metadata: templateMetadataSchema, spec: z.unknown().optional() }))
      .nullish()
      .transform((templates) => templates ?? []),
  }),
  status: z
    .looseObject({
      runStrategy: z.string().optional(),
      conditions: z.array(conditionSchema).optional(),
      stateChangeRequests: z.array(z.looseObject({ action: z.string(), uid: z.string().nullish() })).nullish(),
      startFailure: z
        .object({
          consecutiveFailCount: z.number().default(0),
          lastFailedVMIUID: z.string().optional(),
          retryAfterTimestamp: z.string().nullish(),
        })
        .nullish(),
    })
    .prefault({}),
});

const instanceSchema = z.object({
  metadata: metadataSchema,
  spec: z.unknown().optional(),
  status: z
    .looseObject({
      phase: z.string().default("Pending"),
      /** The stand-in's own: of the template that the instance was started from. */
      templateDigest: z.string().optional(),
      conditions: z.array(conditionSchema).default([]),
      phaseTransitionTimestamps: z
        .array(z.looseObject({ phase: z.string(), phaseTransitionTimestamp: z.string().nullish() }))
        .default([]),
    })
    .prefault({}),
});

const dataVolumeSchema = z.object({
  metadata: metadataSchema,
  spec: z.unknown().optional(),
  status: z.looseObject({ phase: z.string().default(""), progress: z.string().optional() }).prefault({}),
});

const claimSchema = z.object({
  metadata: metadataSchema,
  spec: z.looseObject({ volumeName: z.string().default("") }),
  status: z.object({ phase: z.string().default("Pending") }).prefault({}),
});

const podSchema = z.object({
  metadata: metadataSchema,
  spec: z.object({ nodeName: z.string().default("") }),
  status: z
    .object({
      phase: z.string().default("Pending"),
      podIP: z.string().default(""),
      conditions: z.array(conditionSchema).default([]),
    })
    .prefault({}),
});

/** What a launcher pod needs to know of an instance's spec; anything unexpected in there counts as absent. */
const sizeSchema = z
  .object({
    domain: z
      .object({
        cpu: z.object({ cores: z.number(), sockets: z.number(), threads: z.number() }).partial().optional().catch({}),
        memory: z.object({ guest: z.string() }).partial().optional().catch({}),
        resources: z
          .object({ requests: z.record(z.string(), z.union([z.string(), z.number()])) })
          .partial()
          .optional()
          .catch({}),
      })
      .optional(),
  })
  .catch({});

const volumesSchema = z.object({ volumes: z.array(volumeSchema).nullish() }).catch({});

const poolSchema = z.object({ metadata: metadataSchema });

const kubeVirtSchema = z.object({
  metadata: metadataSchema,
  spec: z
    .object({
      configuration: z
        .object({ vmRolloutStrategy: z.enum(["LiveUpdate", "Stage"]).nullish() })
        .nullish()
        .transform((configuration) => configuration ?? {}),
    })
    .prefault({}),
});

export type Metadata = z.infer<typeof metadataSchema>;
export type OwnerReference = z.infer<typeof ownerSchema>;
export type Condition = z.infer<typeof conditionSchema>;
export type Machine = z.infer<typeof machineSchema>;
export type Instance = z.infer<typeof instanceSchema>;
export type DataVolume = z.infer<typeof dataVolumeSchema>;
export type Claim = z.infer<typeof claimSchema>;
export type Pod = z.infer<typeof podSchema>;
export type Pool = z.infer<typeof poolSchema>;
export type KubeVirt = z.infer<typeof kubeVirtSchema>;

export interface Stored {
  readonly metadata: Metadata;
}

/** One kind of object: where it is served and how it is read. */
export interface Kind<T extends Stored> {
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
  readonly schema: z.ZodType<T>;
  /** Only objects that match are listed and watched. */
  readonly labelSelector?: string;
}

export const MACHINES: Kind<Machine> = {
  apiVersion: "kubevirt.io/v1",
  kind: "VirtualMachine",
  plural: "virtualmachines",
  schema: machineSchema,
};
export const INSTANCES: Kind<Instance> = {
  apiVersion: "kubevirt.io/v1",
  kind: "VirtualMachineInstance",
  plural: "virtualmachineinstances",
  schema: instanceSchema,
};
export const DATA_VOLUMES: Kind<DataVolume> = {
  apiVersion: "cdi.kubevirt.io/v1beta1",
  kind: "DataVolume",
  plural: "datavolumes",
  schema: dataVolumeSchema,
};
export const CLAIMS: Kind<Claim> = {
  apiVersion: "v1",
  kind: "PersistentVolumeClaim",
  plural: "persistentvolumeclaims",
  schema: claimSchema,
};
export const PODS: Kind<Pod> = {
  apiVersion: "v1",
  kind: "Pod",
  plural: "pods",
  schema: podSchema,
  labelSelector: "kubevirt.io=virt-launcher",
};

export const POOLS: Kind<Pool> = {
  apiVersion: "pool.kubevirt.io/v1beta1",
  kind: "VirtualMachinePool",
  plural: "virtualmachinepools",
  schema: poolSchema,
};

export const KUBEVIRTS: Kind<KubeVirt> = {
  apiVersion: "kubevirt.io/v1",
  kind: "KubeVirt",
  plural: "kubevirts",
  schema: kubeVirtSchema,
};

/** `namespace/name`. */
export function keyOf(object: Stored): string {
  return `${object.metadata.namespace}/${object.metadata.name}`;
}

export function controllerOf(object: Stored): OwnerReference | undefined {
  return object.metadata.ownerReferences.find((owner) => owner.controller === true);
}

/** The reference that makes `owner` the controller of what carries it. */
export function controllerReference<T extends Stored>(kind: Kind<T>, owner: T): OwnerReference {
  const { name, uid } = owner.metadata;
  return { apiVersion: kind.apiVersion, kind: kind.kind, name, uid, controller: true, blockOwnerDeletion: true };
}

export function isDeleting(object: Stored): boolean {
  return typeof object.metadata.deletionTimestamp === "string";
}

/** Names of the DataVolumes and claims that the volumes of an instance spec use. */
export function disksUsed(spec: unknown): { readonly dataVolumes: string[]; readonly claims: string[] } {
  const volumes = volumesSchema.parse(spec).volumes ?? [];
  return {
    dataVolumes: volumes.flatMap((volume) => volume.dataVolume?.name ?? []),
    claims: volumes.flatMap((volume) => volume.persistentVolumeClaim?.claimName ?? []),
  };
}

/** Keys of the disks, DataVolumes and claims alike, that the volumes of an instance spec use. */
export function diskKeysOf(namespace: string, spec: unknown): string[] {
  const { dataVolumes, claims } = disksUsed(spec);
  return [...dataVolumes, ...claims].map((name) => `${namespace}/${name}`);
}

/** Keys of the disks that a machine waits for. */
export function machineDiskKeys({ metadata: { namespace }, spec }: Machine): string[] {
  const templated = spec.dataVolumeTemplates.flatMap((template) => template.metadata.name ?? []);
  return [...diskKeysOf(namespace, spec.template.spec), ...templated.map((name) => `${namespace}/${name}`)];
}

/** CPU and memory that the launcher pod of an instance spec requests; CPU as KubeVirt does, a tenth of each virtual one. */
export function requestsOf(spec: unknown): { readonly cpu: string; readonly memory: string } {
  const { cpu = {}, memory = {}, resources = {} } = sizeSchema.parse(spec).domain ?? {};
  const virtualCount = (cpu.cores ?? 1) * (cpu.sockets ?? 1) * (cpu.threads ?? 1);
  return {
    cpu: String(resources.requests?.["cpu"] ?? `${100 * virtualCount}m`),
    memory: String(resources.requests?.["memory"] ?? memory.guest ?? "128Mi"),
  };
}

/** Kubernetes' textual time: whole seconds, UTC. */
export function timestamp(nowMs: number): string {
  return `${new Date(nowMs).toISOString().slice(0, 19)}Z`;
}

/** The condition, with the transition time of the present one when nothing but time differs. */
export function refreshed(present: readonly Condition[], wanted: Condition, nowMs: number): Condition {
  const old = present.find((condition) => condition.type === wanted.type);
  const same =
    old !== undefined && old.status === wanted.status && old.reason === wanted.reason && old.message === wanted.message;
  return same ? old : { lastTransitionTime: timestamp(nowMs), ...wanted };
}

export function isTrue(conditions: readonly Condition[], type: string): boolean {
  return conditions.some((condition) => condition.type === type && condition.status === "True");
}
