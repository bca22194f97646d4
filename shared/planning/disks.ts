/**
 * Disks that outlive their machine (state preservation). The garbage collector deletes what a deleted VM owns: at once when
 * the VM is deleted in the foreground. So a disk that is to stay gets a second owner, its namespace, while its machine
 * lives, and loses the machine as an owner before the machine's finalizer goes. A machine that is released leaves without
 * guards; one that its user detached, or that is orphaned with its pool, is not ours to change: its disks stay guarded,
 * so that they outlive it, too, until somebody removes the label and the owner. See docs/storage.md.
 */
import * as z from "zod";
import { fnv1a } from "./hash.ts";
import { isRecord, parseJson } from "./json.ts";
import { controllerOf, type Disk, type OwnerReference, type PoolSpec, type Vm, type VmSpec } from "./model.ts";
import { GUARDED_ANNOTATION, KEPT_ANNOTATION, KEPT_FOR_LABEL, ordinalOf } from "./names.ts";
import type { Action, Need, Observation } from "./plan.ts";
import { keepsDisks } from "./scale-in.ts";
import { canonicalText, isSame, type Path } from "./semantic.ts";
import { indexVmSpec } from "./template.ts";

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
  /** Machines that live on and are about to leave the pool. */
  readonly released: readonly Vm[];
}

/** Finishes machines on their way out, disks first; sees to it that the disks of the others can outlive them, or not. */
export function planDiskCare({ seen, leaving, live, released }: DiskCareInput): DiskCare {
  const keeps = keepsDisks(seen.pool.spec);
  const concerned = leaving.filter((vm) => keeps || isGuarded(vm));
  // Outside the pool a machine's disks go with it, as with any machine.
  const parting = released.filter(isGuarded);
  const outdated = live.filter((vm) => vm.spec !== undefined && isOutdated(vm, keeps)).slice(0, LOOKED_AT_MAX);
  const mayGuard = !keeps || (seen.namespaceUid ?? "") !== "";
  const unguarded = mayGuard ? outdated : [];
  const free = leaving.filter((vm) => !concerned.includes(vm));
  const unread = [...concerned, ...parting].filter(({ spec, uid }) => spec === undefined && !seen.specless.has(uid));
  if (unread.length > 0) return { needs: [{ read: "specs", vms: unread }], actions: [], free, reasons: [] };
  const all = [...concerned, ...parting, ...unguarded].filter(({ spec }) => spec !== undefined);
  const unseen = all.filter(({ uid }) => !seen.disks.has(uid));
  const needs: Need[] = unseen.length > 0 ? [{ read: "disks", vms: unseen }] : [];
  if (outdated.length > 0 && keeps && seen.namespaceUid === undefined) needs.push({ read: "namespace" });
  if (needs.length > 0) return { needs, actions: [], free, reasons: [] };
  const lost = concerned.filter(({ spec }) => spec === undefined);
  return {
    needs,
    actions: [
      ...concerned.flatMap((vm) => finishDisks(seen, vm, keeps)),
      ...unguarded.flatMap((vm) => [...changeGuards(seen, vm, keeps), ...mark(seen, vm, keeps)]),
      ...parting.flatMap((vm) => changeGuards(seen, vm, false)),
    ],
    free: [...free, ...concerned.filter(({ spec }) => spec !== undefined)],
    reasons: [
      ...lost.map(({ name }) => `${name} is held: its spec cannot be read, so its disks cannot be kept`),
      ...(keeps && outdated.length > 0 && !mayGuard ? [UNGUARDED] : []),
    ],
  };
}

const UNGUARDED =
  "the pool's namespace may not be read: disks of machines that are deleted in the foreground are not kept";

/** On its way out: its disks let go of it, or go with it. */
function finishDisks(seen: Observation, vm: Vm, keeps: boolean): Action[] {
  const own = ownDisks(seen, vm);
  if (keeps) {
    return own.map((disk) => {
      const owners = disk.owners.filter(({ uid }) => uid !== vm.uid);
      return changeDisk(disk, { vm, owners, kept: keptMark(seen, vm, disk), why: "it outlives the machine" });
    });
  }
  const guarded = own.filter((disk) => disk.owners.some(isGuard));
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
function changeGuards(seen: Observation, vm: Vm, keeps: boolean): Action[] {
  const { pool, namespaceUid = "" } = seen;
  const changed = ownDisks(seen, vm).filter((disk) => disk.owners.some(isGuard) !== keeps);
  return changed.map((disk) => {
    const others = disk.owners.filter((owner) => !isGuard(owner));
    const owners = keeps ? [...others, guardOf(pool.namespace, namespaceUid)] : others;
    const why = keeps ? "it is to outlive the machine" : "it is to go with the machine";
    return changeDisk(disk, { vm, owners, kept: keeps ? keptMark(seen, vm, disk) : null, why });
  });
}

/** Notes on the machine that its disks are guarded; as an empty text while some of them are not there yet. */
function mark(seen: Observation, vm: Vm, keeps: boolean): Action[] {
  if (!keeps) return [{ kind: "markVm", vm, disks: null, why: "its disks go with it" }];
  const own = ownDisks(seen, vm);
  // KubeVirt writes the owners anew when a machine takes over a kept disk: only then is the guard there to stay.
  const isComplete =
    vm.spec !== undefined && diskNamesOf(vm.spec).templates.every((name) => own.some((disk) => disk.name === name));
  if (isComplete) return [{ kind: "markVm", vm, disks: guardText(vm), why: "its disks outlive it" }];
  if (own.length === 0 || isGuarded(vm)) return [];
  return [{ kind: "markVm", vm, disks: "", why: "the first of its disks outlive it" }];
}

function ownDisks({ disks }: Observation, vm: Vm): readonly Disk[] {
  return (disks.get(vm.uid) ?? []).filter((disk) => controllerOf(disk)?.uid === vm.uid && !disk.terminating);
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
  pool: z.string().max(253),
  machine: z.string().max(253),
  template: z.string().max(64).optional(),
});
type KeptMark = z.infer<typeof keptSchema>;

function keptMark({ pool, verdict }: Observation, vm: Vm, disk: Disk): KeptMark {
  const isOf = ({ metadata }: DiskTemplate) => metadata.name === disk.name;
  const own = vm.spec?.dataVolumeTemplates?.find(isOf);
  const wanted = verdict.legal ? indexVmSpec(verdict.spec, vm.ordinal ?? 0, "").dataVolumeTemplates?.find(isOf) : null;
  // The cluster fills in what a template leaves open, such as the storage class: it fits all the same.
  const template = own && wanted && isWithin(wanted["spec"], own["spec"], ["spec"]) ? wanted : own;
  return { pool: pool.name, machine: vm.name, ...(template === undefined ? {} : { template: diskHash(template) }) };
}

/** Whether all that `wanted` says is said by `actual`, too. */
function isWithin(wanted: unknown, actual: unknown, path: Path): boolean {
  if (!isRecord(wanted) || !isRecord(actual)) return isSame(wanted, actual, path);
  return Object.entries(wanted).every(([key, value]) => isWithin(value, actual[key], [...path, key]));
}

type DiskTemplate = NonNullable<VmSpec["dataVolumeTemplates"]>[number];

/** What a disk is made from; its name does not count. */
function diskHash(template: DiskTemplate): string {
  return fnv1a(canonicalText(template["spec"], ["spec"]));
}

/** A disk that waits for a machine and does not fit the one that the template makes now. */
export interface UnfitDisk {
  readonly ordinal: number;
  readonly disk: string;
  readonly why: string;
}

const NOT_MADE_NOW = "is not what spec.virtualMachineTemplate.spec.dataVolumeTemplates makes now";

const NOT_KEPT_NOW = "would go with the next machine, for spec.scaleInStrategy keeps none now";

/** Kept disks that stand in the way of a new machine of their ordinal. Those without our record are taken to fit, as the reference does. */
export function unfitDisks(
  pool: { readonly name: string },
  spec: PoolSpec,
  kept: readonly Disk[],
): readonly UnfitDisk[] {
  const templates = spec.virtualMachineTemplate.spec.dataVolumeTemplates ?? [];
  return templates.flatMap((template) =>
    kept.flatMap((disk) => {
      const ordinal = ordinalOf(template.metadata.name, disk.name);
      const mark = keptSchema.safeParse(parseJson(disk.annotations[KEPT_ANNOTATION] ?? "")).data;
      const waits = controllerOf(disk) === undefined && !disk.terminating;
      if (ordinal === undefined || !waits || mark === undefined) return [];
      if (mark.pool !== pool.name) return [{ ordinal, disk: disk.name, why: `was kept for pool ${mark.pool}` }];
      if (!keepsDisks(spec))
        return [{ ordinal, disk: disk.name, why: `was kept from ${mark.machine} and ${NOT_KEPT_NOW}` }];
      if (mark.template === undefined || mark.template === diskHash(template)) return [];
      return [{ ordinal, disk: disk.name, why: `was kept from ${mark.machine} and ${NOT_MADE_NOW}` }];
    }),
  );
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)];
}
