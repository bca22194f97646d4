/** Names, labels and finalizers of the pool API, and the ordinal in a machine's name. Source: KubeVirt's pool API. */

export const POOL_GROUP = "pool.kubevirt.io";
export const POOL_KIND = "VirtualMachinePool";
export const POOL_FINALIZER = "pool.kubevirt.io/finalizer";
/** The field manager of KubeVirt's own pool controller. */
export const REFERENCE_MANAGER = "virt-controller";
/** The field manager of every write of ours. */
export const OWN_MANAGER = "vmpool-functions";
/** On a VM and on its instance template: the name of the ControllerRevision that it was made from. */
export const REVISION_LABEL = "kubevirt.io/vm-pool-revision-name";
/** What our own annotations begin with: no template gives or takes them. */
export const OWN_ANNOTATIONS = "vmpool-functions/";
/** On a pool: the last claim of a pass, see `claim.ts`. */
export const CLAIM_ANNOTATION = "vmpool-functions/pass";
/** On a pool: which machines were healed, and how often, see `healing.ts`. */
export const HEALING_ANNOTATION = "vmpool-functions/healing";
/** On a VM: changed to make a late delete of ours miss, see `claim.ts`. */
export const REVOKED_ANNOTATION = "vmpool-functions/revoked";
/** On a VM: when we last gave it another template. */
export const UPDATED_ANNOTATION = "vmpool-functions/updated-at";
/** On a VM: the disks of it that outlive it, see `disks.ts`. */
export const GUARDED_ANNOTATION = "vmpool-functions/kept-disks";
/** On a VM: `True` where the cluster is to refuse its deletion. Source: the admission policy of KubeVirt's SSP operator. */
export const PROTECTED_LABEL = "kubevirt.io/vm-delete-protection";
/** On a disk that outlives its machine: the pool's name. */
export const KEPT_FOR_LABEL = "vmpool-functions/kept-for";
/** On the same: the machine that it was filled for, and a hash of its template, as JSON. */
export const KEPT_ANNOTATION = "vmpool-functions/kept";
/** A DNS subdomain, the form of names of objects and namespaces; 253 characters at most. */
export const OBJECT_NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
/** The name of a registered cluster: a DNS label. */
export const CLUSTER_NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
/** Length limit of a Kubernetes label value. */
export const LABEL_VALUE_LENGTH_MAX = 63;
/** Ordinals beyond this are not ours to parse; a JavaScript number holds them exactly. */
const ORDINAL_DIGITS_MAX = 9;

/** `<pool>-<ordinal>`, the name of a machine. */
export function vmName(poolName: string, ordinal: number): string {
  return `${poolName}-${ordinal}`;
}

/** The ordinal in a machine's name; undefined when the name is not one that this pool would give. */
export function ordinalOf(poolName: string, name: string): number | undefined {
  if (!name.startsWith(`${poolName}-`)) return undefined;
  const digits = name.slice(poolName.length + 1);
  if (!/^(0|[1-9]\d*)$/.test(digits) || digits.length > ORDINAL_DIGITS_MAX) return undefined;
  return Number(digits);
}

/** `<pool>-<generation>`, the name of the ControllerRevision of a generation. */
export function revisionName(poolName: string, generation: number): string {
  return `${poolName}-${generation}`;
}

/** The pools that a revision of this name can be of, the likelier one first: the hash at its end may be a number, too. */
export function poolsOfRevision(label: string): readonly string[] {
  return [/^(.+)-\d+-[0-9a-f]{8}$/, /^(.+)-\d+$/].flatMap((form) => form.exec(label)?.slice(1) ?? []);
}

/** Whether a revision label could have been written for the pool of this name. */
export function isRevisionOf(poolName: string, label: string | undefined): boolean {
  if (label === undefined || !label.startsWith(`${poolName}-`)) return false;
  return /^\d+(-[0-9a-f]{8})?$/.test(label.slice(poolName.length + 1));
}
