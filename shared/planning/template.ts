/** Makes the VirtualMachine of an ordinal out of a pool's template. Source: pool.go of the reference, indexing rules. */
import type { OwnerReference, Pool, PoolSpec, VmSpec, Volume } from "./model.ts";
import { OWN_ANNOTATIONS, POOL_FINALIZER, POOL_KIND, REVISION_LABEL, vmName } from "./names.ts";

export interface VmOrigin {
  readonly pool: Pool;
  readonly spec: PoolSpec;
  /** The pool API version that the cluster serves, such as `pool.kubevirt.io/v1beta1`. */
  readonly poolApiVersion: string;
  readonly ordinal: number;
  readonly revision: string;
}

/** The owner reference that makes an object part of this pool. */
export function ownerReferenceTo(pool: Pool, poolApiVersion: string): OwnerReference {
  return {
    apiVersion: poolApiVersion,
    kind: POOL_KIND,
    name: pool.name,
    uid: pool.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
}

/** The labels and annotations that the template gives to a VM: our own annotations are not its to give. */
export function metadataOf({ virtualMachineTemplate: { metadata } }: PoolSpec) {
  const annotations = Object.entries(metadata?.annotations ?? {}).filter(([key]) => !key.startsWith(OWN_ANNOTATIONS));
  return { labels: metadata?.labels, annotations: Object.fromEntries(annotations) };
}

/** The VM as it is created: the template with names indexed, the revision label, one owner, the pool's finalizer. */
export function buildVm({ pool, spec, poolApiVersion, ordinal, revision }: VmOrigin) {
  const { labels, annotations } = metadataOf(spec);
  return {
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachine",
    metadata: {
      name: vmName(pool.name, ordinal),
      namespace: pool.namespace,
      labels: { ...labels, [REVISION_LABEL]: revision },
      ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
      finalizers: [POOL_FINALIZER],
      ownerReferences: [ownerReferenceTo(pool, poolApiVersion)],
    },
    spec: indexVmSpec(spec, ordinal, revision),
  };
}

/** The number of a machine, or a sign that no name may hold and that stands for each of them. */
export type Ordinal = number | "*";

/** The VM spec of an ordinal: DataVolume templates and the references to them indexed, ConfigMaps and Secrets when asked for. */
export function indexVmSpec(pool: PoolSpec, ordinal: Ordinal, revision: string): VmSpec {
  const { spec } = pool.virtualMachineTemplate;
  const suffix = `-${ordinal}`;
  const naming: Naming = {
    suffix,
    dataVolumes: new Set((spec.dataVolumeTemplates ?? []).map(({ metadata }) => metadata.name)),
    configMaps: pool.nameGeneration?.appendIndexToConfigMapRefs === true,
    secrets: pool.nameGeneration?.appendIndexToSecretRefs === true,
  };
  const { template } = spec;
  const volumes = template.spec?.volumes;
  const dataVolumeTemplates = spec.dataVolumeTemplates?.map((entry) => ({
    ...entry,
    metadata: { ...entry.metadata, name: `${entry.metadata.name}${suffix}` },
  }));
  return {
    ...spec,
    ...(dataVolumeTemplates === undefined ? {} : { dataVolumeTemplates }),
    template: {
      ...template,
      metadata: { ...template.metadata, labels: { ...template.metadata?.labels, [REVISION_LABEL]: revision } },
      ...(volumes === undefined || volumes === null
        ? {}
        : { spec: { ...template.spec, volumes: volumes.map((volume) => indexVolume(volume, naming)) } }),
    },
  };
}

interface Naming {
  readonly suffix: string;
  readonly dataVolumes: ReadonlySet<string>;
  readonly configMaps: boolean;
  readonly secrets: boolean;
}

/** One branch a volume, in the reference's order of precedence. */
function indexVolume(volume: Volume, naming: Naming): Volume {
  const { persistentVolumeClaim, dataVolume, configMap, secret, cloudInitNoCloud, cloudInitConfigDrive } = volume;
  const { suffix } = naming;
  if (persistentVolumeClaim) {
    if (!naming.dataVolumes.has(persistentVolumeClaim.claimName)) return volume;
    const claimName = `${persistentVolumeClaim.claimName}${suffix}`;
    return { ...volume, persistentVolumeClaim: { ...persistentVolumeClaim, claimName } };
  }
  if (dataVolume) {
    if (!naming.dataVolumes.has(dataVolume.name)) return volume;
    return { ...volume, dataVolume: { ...dataVolume, name: `${dataVolume.name}${suffix}` } };
  }
  if (configMap && naming.configMaps && configMap.name !== undefined) {
    return { ...volume, configMap: { ...configMap, name: `${configMap.name}${suffix}` } };
  }
  if (secret && naming.secrets && secret.secretName !== undefined) {
    return { ...volume, secret: { ...secret, secretName: `${secret.secretName}${suffix}` } };
  }
  if (cloudInitNoCloud && naming.secrets) {
    return { ...volume, cloudInitNoCloud: indexCloudInit(cloudInitNoCloud, suffix) };
  }
  if (cloudInitConfigDrive && naming.secrets) {
    return { ...volume, cloudInitConfigDrive: indexCloudInit(cloudInitConfigDrive, suffix) };
  }
  return volume;
}

type CloudInit = NonNullable<Volume["cloudInitNoCloud"]>;

function indexCloudInit(source: CloudInit, suffix: string): CloudInit {
  const { secretRef, networkDataSecretRef } = source;
  return {
    ...source,
    ...(secretRef ? { secretRef: { ...secretRef, name: `${secretRef.name}${suffix}` } } : {}),
    ...(networkDataSecretRef
      ? { networkDataSecretRef: { ...networkDataSecretRef, name: `${networkDataSecretRef.name}${suffix}` } }
      : {}),
  };
}
