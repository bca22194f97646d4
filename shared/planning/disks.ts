/**
 * Disks that outlive their machine (state preservation). The garbage collector deletes what a deleted VM owns: at once when
 * the VM is deleted in the foreground. So a disk that is to stay gets a second owner, its namespace, while its machine
 * lives, and loses the machine as an owner before the machine's finalizer goes. See docs/storage.md.
 */
import * as z from "zod";
import { fnv1a } from "./hash.ts";
import { parseJson } from "./json.ts";
import {
  controllerOf,
  type Disk,
  type OwnerReference,
  type Pool,
  type PoolSpec,
  type Vm,
  type VmSpec,
} from "./model.ts";
import { GUARDED_ANNOTATION, KEPT_ANNOTATION, KEPT_FOR_LABEL, ordinalOf, POOL_FINALIZER } from "./names.ts";
import type { Action, Need, Observation } from "./plan.ts";
import { keepsDisks } from "./scale-in.ts";
import { canonicalText } from "./semantic.ts";

/** Machines whose disks are looked at in one loop of a pass. */
const LOOKED_AT_MAX = 50;

/** The disks that a VM's spec names. */
export interface DiskNames {
  /** Of DataVolume templates: made for this machine. */
  readonly templates: readonly string[];
  readonly dataVolumes: readonly string[];
  readonly claims: readonly string[];
}

export function diskNamesOf(spec: VmSpec): DiskNames {
  const volumes = spec.template.spec?.volumes ?? [];
  const templates = (spec.dataVolumeTemplates ?? []).map(({ metadata }) => metadata.name);
  const dataVolumes = volumes.flatMap(({ dataVolume }) => (dataVolume ? [dataVolume.name] : []));
  const claims = volumes.flatMap(({ persistentVolumeClaim }) =>
    persistentVolumeClaim ? [persistentVolumeClaim.claimName] : [],
  );
  return { templates, dataVolumes: unique([...templates, ...dataVolumes]), claims: unique([...templates, ...claims]) };
}

/** What the machines on their way out, and those that live, need done about their disks. */
export interface DiskCare {
  readonly needs: readonly Need[];
  readonly actions: readonly Action[];
  /** Machines whose finalizer may go, once the actions succeeded. */
  readonly free: readonly Vm[];
  readonly reasons: readonly string[];
}

export interface DiskCareInput {
  readonly seen: Observation;
  /** Machines of this pool with our finalizer that are on their way out. */
  readonly leaving: readonly Vm[];
  /** Machines of this pool that stay. */
  readonly live: readonly Vm[];
}

/** Finishes machines on their way out, disks first; sees to it that the disks of the others can outlive them, or not. */
export function planDiskCare({ seen, leaving, live }: DiskCareInput): DiskCare {
  const keeps = keepsDisks(seen.pool.spec);
  const concerned = leaving.filter((vm) => keeps || isGuarded(vm));
  const outdated = live.filter((vm) => vm.spec !== undefined && isOutdated(vm, keeps)).slice(0, LOOKED_AT_MAX);
  // Asked first: where it may not be read there can be no guard, and reading the disks would be in vain.
  const asksNamespace = outdated.length > 0 && keeps && seen.namespaceUid === undefined;
  const unguarded = keeps && (seen.namespaceUid ?? "") === "" ? [] : outdated;
  const free = leaving.filter((vm) => !concerned.includes(vm));
  const unread = concerned.filter(({ spec, uid }) => spec === undefined && !seen.specless.has(uid));
  if (unread.length > 0) return { needs: [{ read: "specs", vms: unread }], actions: [], free, reasons: [] };
  const all = [...concerned, ...unguarded].filter(({ spec }) => spec !== undefined);
  const needs: Need[] = [];
  if (all.some(({ uid }) => !seen.disks.has(uid)))
    needs.push({ read: "disks", vms: all.filter(({ uid }) => !seen.disks.has(uid)) });
  if (asksNamespace) needs.push({ read: "namespace" });
  if (needs.length > 0) return { needs, actions: [], free, reasons: [] };
  const lost = concerned.filter(({ spec }) => spec === undefined);
  return {
    needs,
    actions: [
      ...concerned.flatMap((vm) => finishDisks(seen, vm, keeps)),
      ...unguarded.flatMap((vm) => guardDisks(seen, vm, keeps)),
    ],
    free: [...free, ...concerned.filter(({ spec }) => spec !== undefined)],
    reasons: lost.map(({ name }) => `${name} is held: its spec cannot be read, so its disks cannot be kept`),
  };
}

/** On its way out: its disks let go of it, or go with it. */
function finishDisks({ pool, disks, namespaceUid }: Observation, vm: Vm, keeps: boolean): Action[] {
  const own = (disks.get(vm.uid) ?? []).filter((disk) => controllerOf(disk)?.uid === vm.uid && !disk.terminating);
  if (keeps) {
    return own.map((disk) => {
      const owners = disk.owners.filter(({ uid }) => uid !== vm.uid);
      return changeDisk(disk, { vm, owners, kept: keptMark(pool, vm, disk), why: "it outlives the machine" });
    });
  }
  const guarded = own.filter((disk) => disk.owners.some(isGuard) && namespaceUid !== "");
  return guarded.map((disk) =>
    changeDisk(disk, {
      vm,
      owners: disk.owners.filter((owner) => !isGuard(owner)),
      kept: null,
      why: "it goes with the machine",
    }),
  );
}

/** While it lives: the namespace is a second owner of its disks, if they are to outlive it. */
function guardDisks(seen: Observation, vm: Vm, keeps: boolean): Action[] {
  const { pool, namespaceUid = "" } = seen;
  const disks = seen.disks.get(vm.uid) ?? [];
  const own = disks.filter((disk) => controllerOf(disk)?.uid === vm.uid && !disk.terminating);
  // KubeVirt writes the owners anew when a machine takes over a kept disk: only then is the guard there to stay.
  const isGuardedFor = (name: string) => own.some((disk) => disk.name === name && disk.owners.some(isGuard));
  const changes = own
    .filter((disk) => disk.owners.some(isGuard) !== keeps)
    .map((disk) => {
      const others = disk.owners.filter((owner) => !isGuard(owner));
      const owners = keeps ? [...others, guardOf(pool.namespace, namespaceUid)] : others;
      const why = keeps ? "it is to outlive the machine" : "it is to go with the machine";
      return changeDisk(disk, { vm, owners, kept: keeps ? keptMark(pool, vm, disk) : null, why });
    });
  const isComplete = vm.spec !== undefined && diskNamesOf(vm.spec).templates.every(isGuardedFor);
  if (keeps && (changes.length > 0 || !isComplete)) return changes;
  const names = keeps ? guardText(vm) : null;
  return [
    ...changes,
    { kind: "markVm", vm, disks: names, why: keeps ? "its disks outlive it" : "its disks go with it" },
  ];
}

/** The guards of its disks are not the ones that the pool asks for now. */
function isOutdated(vm: Vm, keeps: boolean): boolean {
  if (!keeps) return isGuarded(vm);
  const text = guardText(vm);
  return text !== "" && vm.annotations[GUARDED_ANNOTATION] !== text;
}

function isGuarded(vm: Vm): boolean {
  return vm.annotations[GUARDED_ANNOTATION] !== undefined;
}

function guardText({ spec }: Vm): string {
  if (spec === undefined) return "";
  const { dataVolumes, claims } = diskNamesOf(spec);
  return unique([...dataVolumes, ...claims])
    .sort()
    .join(" ");
}

function isGuard({ apiVersion, kind, controller }: OwnerReference): boolean {
  return apiVersion === "v1" && kind === "Namespace" && controller !== true;
}

function guardOf(namespace: string, uid: string): OwnerReference {
  return { apiVersion: "v1", kind: "Namespace", name: namespace, uid };
}

interface DiskChange {
  readonly vm: Vm;
  readonly owners: readonly OwnerReference[];
  /** What the disk says of where it comes from; null for nothing. */
  readonly kept: KeptMark | null;
  readonly why: string;
}

function changeDisk(disk: Disk, { vm, owners, kept, why }: DiskChange): Action {
  const metadata = {
    ownerReferences: owners,
    labels: { [KEPT_FOR_LABEL]: kept?.pool ?? null },
    annotations: { [KEPT_ANNOTATION]: kept === null ? null : JSON.stringify(kept) },
  };
  const released = !owners.some(({ uid }) => uid === vm.uid);
  return { kind: "changeDisk", vm, disk, metadata, released, why };
}

const keptSchema = z.object({
  pool: z.string(),
  machine: z.string(),
  /** A hash of what the disk was made from, and the storage class apart. */
  template: z.string().optional(),
  storageClass: z.string().optional(),
});
type KeptMark = z.infer<typeof keptSchema>;

function keptMark(pool: Pool, vm: Vm, disk: Disk): KeptMark {
  const template = vm.spec?.dataVolumeTemplates?.find(({ metadata }) => metadata.name === disk.name);
  return { pool: pool.name, machine: vm.name, ...(template === undefined ? {} : makeOf(template)) };
}

type DiskTemplate = NonNullable<VmSpec["dataVolumeTemplates"]>[number];
const sourceSchema = z.record(z.string(), z.unknown()).catch({});
const classSchema = z.looseObject({ storageClassName: z.string().nullish() }).nullish().catch(undefined);

/** What a disk is made from; its name does not count. The storage class stands apart because KubeVirt fills it in. */
function makeOf(diskTemplate: DiskTemplate): Pick<KeptMark, "template" | "storageClass"> {
  const { storage, pvc, ...source } = sourceSchema.parse(diskTemplate["spec"]);
  const { storageClassName, ...claim } = classSchema.parse(storage) ?? classSchema.parse(pvc) ?? {};
  const claims = storage === undefined ? { pvc: claim } : { storage: claim };
  const template = fnv1a(canonicalText({ ...source, ...claims }, ["spec"]));
  return storageClassName ? { template, storageClass: storageClassName } : { template };
}

/** A template without a storage class takes what the machine's preference, or the cluster, has for it. */
function isMadeFrom(kept: KeptMark, diskTemplate: DiskTemplate): boolean {
  if (kept.template === undefined) return true;
  const { template, storageClass } = makeOf(diskTemplate);
  return kept.template === template && (storageClass === undefined || kept.storageClass === storageClass);
}

/** A disk that waits for a machine and does not fit the one that the template makes now. */
export interface UnfitDisk {
  readonly ordinal: number;
  readonly disk: string;
  readonly why: string;
}

/** Kept disks that stand in the way of a new machine of their ordinal. Those without our record are taken to fit, as the reference does. */
export function unfitDisks(pool: Pool, spec: PoolSpec, kept: readonly Disk[]): readonly UnfitDisk[] {
  const templates = spec.virtualMachineTemplate.spec.dataVolumeTemplates ?? [];
  return templates.flatMap((template) =>
    kept.flatMap((disk) => {
      const ordinal = ordinalOf(template.metadata.name, disk.name);
      const mark = keptSchema.safeParse(parseJson(disk.annotations[KEPT_ANNOTATION] ?? "")).data;
      const waits = controllerOf(disk) === undefined && !disk.terminating;
      if (ordinal === undefined || !waits || mark === undefined) return [];
      if (mark.pool !== pool.name) return [{ ordinal, disk: disk.name, why: `was kept for pool ${mark.pool}` }];
      return isMadeFrom(mark, template)
        ? []
        : [
            {
              ordinal,
              disk: disk.name,
              why: `was kept from ${mark.machine} and is not what spec.virtualMachineTemplate.spec.dataVolumeTemplates makes now`,
            },
          ];
    }),
  );
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)];
}

/** Whether the pool's finalizer holds the machine. */
export function isHeldByPool(vm: Vm): boolean {
  return vm.finalizers.includes(POOL_FINALIZER);
}
