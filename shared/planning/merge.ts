/** Moves a VM from one template to another and keeps what the machine, KubeVirt and its users made of it; plain JSON in and out. */
import { canonicalJson, isAbsent, isRecord, recordOf } from "./json.ts";
import type { PoolSpec, Vm } from "./model.ts";
import { REVISION_LABEL } from "./names.ts";
import { isNothing, isNothingWhenEmpty, isSame, type Path } from "./semantic.ts";
import { indexVmSpec, metadataOf } from "./template.ts";

type Json = Readonly<Record<string, unknown>>;

/** A JSON merge patch (RFC 7386) of an object: null removes, lists are whole. */
export type MergePatch = Json;

/** What of a VM a move changes; its finalizers and owners are never part of it. */
export interface VmPatch {
  readonly metadata?: MergePatch;
  readonly spec?: MergePatch;
}

export interface Move {
  /** The pool's spec that made the VM; undefined when its revision is lost or another pool's. */
  readonly base: PoolSpec | undefined;
  readonly target: PoolSpec;
  readonly ordinal: number;
  /** The name of the target's revision. */
  readonly revision: string;
}

/** What the old template made, what the new one makes, and what there is. */
interface Sides<T = unknown> {
  readonly base: T;
  readonly target: T;
  readonly vm: T;
}

/** What identifies a machine to its guest: what the VM has stays. */
const IDENTITY: ReadonlySet<string> = new Set(["firmware/uuid", "firmware/serial"]);

const VOLUME_SOURCES = [
  ...["cloudInitConfigDrive", "cloudInitNoCloud", "configMap", "containerDisk", "containerPath", "dataVolume"],
  ...["downwardAPI", "downwardMetrics", "emptyDisk", "ephemeral", "hostDisk", "memoryDump", "persistentVolumeClaim"],
  ...["secret", "serviceAccount", "sysprep"],
];
const CLOUD_INIT_SOURCES = [
  ["secretRef", "userData", "userDataBase64"],
  ["networkDataSecretRef", "networkData", "networkDataBase64"],
];
/** Fields of which KubeVirt takes one, by the field that holds them: if a merge leaves several, the target's goes before. */
const ALTERNATIVES: Readonly<Record<string, readonly (readonly string[])[]>> = {
  volumes: [VOLUME_SOURCES],
  cloudInitNoCloud: CLOUD_INIT_SOURCES,
  cloudInitConfigDrive: CLOUD_INIT_SOURCES,
  disks: [["disk", "lun", "cdrom"]],
  interfaces: [["binding", "bridge", "macvtap", "masquerade", "passt", "passtBinding", "slirp", "sriov"]],
  networks: [["multus", "pod"]],
  bootloader: [["bios", "efi"]],
};

const RUN_FIELDS = ["running", "runStrategy"] as const;

/** The kind of an instancetype or preference that names none. Source: KubeVirt's defaults. */
const DEFAULT_KINDS = {
  instancetype: "virtualmachineclusterinstancetype",
  preference: "virtualmachineclusterpreference",
} as const;

/**
 * The merge patch that moves a VM's labels, annotations and spec from what `base` made to what `target` makes; what belongs
 * to the machine or its user stays. Empty when nothing changes, and for a VM whose spec was not read.
 */
export function moveVm(vm: Vm, { base, target, ordinal, revision }: Move): VmPatch {
  if (vm.spec === undefined) return {};
  const metadata = {
    base: base && metadataOf(base),
    target: metadataOf(target),
    vm: { labels: vm.labels, annotations: vm.annotations },
  };
  const spec = mergeSpec({
    base: base === undefined ? {} : indexVmSpec(base, ordinal, revision),
    target: indexVmSpec(target, ordinal, revision),
    vm: vm.spec,
  });
  const patch = mergePatchOf(
    { metadata: metadata.vm, spec: vm.spec },
    { metadata: labelled(mergeMetadata(metadata), revision), spec: labelledTemplate(spec, revision) },
  );
  return { ...part("metadata", patch), ...part("spec", patch) };
}

/** The smallest merge patch that makes `to` of `from`; null and absent are the same, as null cannot be written. */
export function mergePatchOf(from: Json, to: Json): MergePatch {
  const changed = [...new Set([...Object.keys(from), ...Object.keys(to)])].filter(
    (key) => canonicalJson(ownField(from, key)) !== canonicalJson(ownField(to, key)),
  );
  return Object.fromEntries(changed.map((key) => [key, valuePatch(ownField(from, key), ownField(to, key))]));
}

function valuePatch(from: unknown, to: unknown): unknown {
  return isRecord(to) ? mergePatchOf(recordOf(from), to) : (to ?? null);
}

function part<K extends keyof VmPatch>(name: K, patch: MergePatch): VmPatch {
  const value = patch[name];
  return isRecord(value) ? { [name]: value } : {};
}

/** Removes key by key: what others add meanwhile is not ours to take away. */
function mergeMetadata(sides: Sides<Json | undefined>): Json {
  const mergeMap = (field: string) => mergeRecords(fieldOf(sides, field), [field]);
  return { labels: mergeMap("labels"), annotations: mergeMap("annotations") };
}

function mergeSpec(sides: Sides<Json>): Json {
  const merged = mergeRecords(sides, []);
  return { ...merged, ...runStateOf(sides), ...matcherOf(sides, "instancetype"), ...matcherOf(sides, "preference") };
}

function labelled(metadata: unknown, revision: string): Json {
  const labels = { ...recordOf(recordOf(metadata)["labels"]), [REVISION_LABEL]: revision };
  return { ...recordOf(metadata), labels };
}

function labelledTemplate(spec: Json, revision: string): Json {
  const template = recordOf(spec["template"]);
  return { ...spec, template: { ...template, metadata: labelled(template["metadata"], revision) } };
}

/**
 * `running` and `runStrategy` are one: what the user set with start and stop stays, even when the template changes it.
 * The absent one of the two is undefined, so that it goes.
 */
function runStateOf({ base, target, vm }: Sides<Json>): Json {
  const touched = runStrategyOf(vm) !== runStrategyOf(base);
  const unchanged = RUN_FIELDS.every((field) => isSame(base[field], target[field], [field]));
  const { running, runStrategy } = touched || unchanged ? vm : target;
  return { running, runStrategy };
}

/** `running` in the words of `runStrategy`. */
function runStrategyOf({ running, runStrategy }: Json): unknown {
  if (running === true) return "Always";
  return running === false ? "Halted" : (runStrategy ?? undefined);
}

/**
 * An instancetype or preference is one unit, as its revision belongs to its name: what the template makes of it is the
 * template's alone. One that the template did not have before keeps the revision that KubeVirt wrote to the VM's of the same
 * name and kind.
 */
function matcherOf(sides: Sides<Json>, field: keyof typeof DEFAULT_KINDS): Json {
  const { base, target, vm } = fieldOf(sides, field);
  if (isSame(base, target, [field])) return {};
  if (isAbsent(base) && isRecord(target) && isRecord(vm) && isSameMatcher(target, vm, DEFAULT_KINDS[field])) return {};
  return { [field]: target ?? undefined };
}

function isSameMatcher(a: Json, b: Json, defaultKind: string): boolean {
  const kindOf = ({ kind }: Json) => (typeof kind === "string" && kind !== "" ? kind.toLowerCase() : defaultKind);
  return a["name"] !== undefined && a["name"] === b["name"] && kindOf(a) === kindOf(b);
}

/** The three-way merge of one value: undefined where nothing is left of it. */
function merge(sides: Sides, path: Path): unknown {
  const { base, target, vm } = sides;
  if (isIdentity(path) && !isNothing(vm, path)) return vm;
  if (isSame(base, target, path)) return vm;
  const merged = mergeChanged(sides, path);
  return isSame(merged, vm, path) ? vm : merged;
}

/** The template changed the value. A whole that the user removed comes back whole; a map is merged key by key all the same. */
function mergeChanged({ base, target, vm }: Sides, path: Path): unknown {
  if (isNamedList(base) && isNamedList(target) && isNamedList(vm)) {
    const list = mergeLists({ base: base ?? [], target: target ?? [], vm: vm ?? [] }, path);
    return isAbsent(target) && list.length === 0 ? undefined : list;
  }
  const isMergeable = isRecord(vm) || (isAbsent(vm) && isNothingWhenEmpty(path));
  if (isMergeable && isRecordOrAbsent(base) && isRecordOrAbsent(target)) {
    const record = mergeRecords({ base, target, vm }, path);
    return isAbsent(target) && isSame(record, {}, path) ? undefined : record;
  }
  return target ?? undefined;
}

function mergeRecords(sides: Sides, path: Path): Json {
  const keys = new Set([...Object.keys(recordOf(sides.vm)), ...Object.keys(recordOf(sides.target))]);
  const entries = [...keys].map((key) => [key, merge(fieldOf(sides, key), [...path, key])] as const);
  const record = Object.fromEntries(entries.filter(([, value]) => value !== undefined));
  return withoutRivals(record, recordOf(sides.target), path);
}

/** Without what the target's choice among alternatives excludes. */
function withoutRivals(record: Json, target: Json, path: Path): Json {
  const holder = path.at(-1) ?? "";
  const groups = Object.hasOwn(ALTERNATIVES, holder) ? (ALTERNATIVES[holder] ?? []) : [];
  const rivals = groups
    .filter((group) => group.some((field) => !isAbsent(target[field]) && !isAbsent(record[field])))
    .flatMap((group) => group.filter((field) => isAbsent(target[field])));
  return Object.fromEntries(Object.entries(record).filter(([key]) => !rivals.includes(key)));
}

/** The target's elements in its order, then those that others added; an element that the template dropped goes whole. */
function mergeLists({ base, target, vm }: Sides<readonly unknown[]>, path: Path): readonly unknown[] {
  const [old, wanted, actual] = [byName(base), byName(target), byName(vm)];
  const kept = [...wanted].map(([name, element]) =>
    merge({ base: old.get(name), target: element, vm: actual.get(name) }, path),
  );
  const added = [...actual].filter(([name]) => !wanted.has(name) && !old.has(name)).map(([, element]) => element);
  return [...kept.filter((element) => !isAbsent(element)), ...added];
}

function byName(list: readonly unknown[]): ReadonlyMap<string | undefined, unknown> {
  return new Map(list.map((element) => [nameOf(element), element]));
}

/** Whether each element is an object with a name of its own; a list that is not there can be merged with any. */
function isNamedList(value: unknown): value is readonly unknown[] | null | undefined {
  if (isAbsent(value)) return true;
  return (
    Array.isArray(value) &&
    !value.some((element) => nameOf(element) === undefined) &&
    byName(value).size === value.length
  );
}

function nameOf(element: unknown): string | undefined {
  if (!isRecord(element)) return undefined;
  const { name = recordOf(element["metadata"])["name"] } = element;
  return typeof name === "string" ? name : undefined;
}

function fieldOf({ base, target, vm }: Sides, field: string): Sides {
  return { base: ownField(base, field), target: ownField(target, field), vm: ownField(vm, field) };
}

/** Users name labels and the like as they please: a name that every object inherits is not there for that. */
function ownField(value: unknown, field: string): unknown {
  return isRecord(value) && Object.hasOwn(value, field) ? value[field] : undefined;
}

function isIdentity(path: Path): boolean {
  return IDENTITY.has(path.slice(-2).join("/"));
}

function isRecordOrAbsent(value: unknown): boolean {
  return isRecord(value) || isAbsent(value);
}
