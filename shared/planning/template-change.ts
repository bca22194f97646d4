/** What a new template means for a machine that an older one made. */
import { fnv1a } from "./hash.ts";
import { isAbsent, isRecord, recordOf } from "./json.ts";
import type { PoolSpec, VmSpec } from "./model.ts";
import { REVISION_LABEL } from "./names.ts";
import { canonicalText, isNothing, isSame, type Path } from "./semantic.ts";
import { indexVmSpec, metadataOf, type Ordinal } from "./template.ts";

/** What a new template means for one machine. */
export type Change =
  /** The same machine, maybe under another revision name. */
  | "none"
  /** Only what no running guest depends on: the VM's own labels and annotations, its run strategy and the like. */
  | "metadata"
  /** Only fields that KubeVirt can change on a running guest, and maybe what is `metadata`. */
  | "live"
  /** The template of the instance, the instancetype or the preference differ. */
  | "restart"
  /** The DataVolume templates differ. */
  | "replace";

type Json = Readonly<Record<string, unknown>>;

/** Fields of an instance's spec that KubeVirt can change while the guest runs. Source: syncRestartRequired in vm.go. */
const LIVE_FIELDS: readonly Path[] = [
  ["domain", "cpu", "sockets"],
  ["domain", "memory", "guest"],
  ["nodeSelector"],
  ["affinity"],
  ["tolerations"],
];

/**
 * Compares two pool specs as they make the machine of `ordinal`. Without `naming`, a difference of `nameGeneration` does not
 * count. The revision's name never does.
 */
export function classifyChange(
  from: PoolSpec,
  to: PoolSpec,
  ordinal: number,
  { naming }: { readonly naming: boolean },
): Change {
  const before = machineOf(naming ? from : { ...from, nameGeneration: to.nameGeneration }, ordinal);
  const after = machineOf(to, ordinal);
  if (!isSame(before.dataVolumeTemplates, after.dataVolumeTemplates, ["dataVolumeTemplates"])) return "replace";
  if (!isSame(withLiveFields(before.guest, after.guest), after.guest, [])) return "restart";
  if (!isSame(before.guest, after.guest, [])) return "live";
  return isSame(before.own, after.own, []) ? "none" : "metadata";
}

/** A short stable text that two templates share when they make the same machines. */
export function templateHash(spec: PoolSpec): string {
  const hash = HASHES.get(spec) ?? fnv1a(canonicalText(machineOf(spec, "*"), []));
  HASHES.set(spec, hash);
  return hash;
}

/** Of each spec, for as long as somebody has it: no spec is changed once it is read, and one pass asks several times. */
const HASHES = new WeakMap<PoolSpec, string>();

/** Whether a running instance already has what the wanted VM sets of the live fields; KubeVirt fills in what it does not set. */
export function showsLiveFields(instanceSpec: unknown, wanted: VmSpec): boolean {
  return LIVE_FIELDS.every((path) => {
    const value = valueAt(wanted.template.spec, path);
    return isNothing(value, path) || isSame(valueAt(instanceSpec, path), value, path);
  });
}

/** The machine of an ordinal by what a difference costs. Both sides of a comparison have the same revision label: none counts. */
function machineOf(pool: PoolSpec, ordinal: Ordinal) {
  const { labels, annotations } = metadataOf(pool);
  const { dataVolumeTemplates, running, runStrategy, updateVolumesStrategy, ...guest } = indexVmSpec(pool, ordinal, "");
  return {
    dataVolumeTemplates,
    guest,
    own: {
      labels: { ...labels, [REVISION_LABEL]: "" },
      annotations,
      running,
      runStrategy,
      updateVolumesStrategy,
    },
  };
}

/** `from` with the live fields of `to`, where KubeVirt brings them to a guest that runs `from`. */
function withLiveFields(from: Json, to: Json): Json {
  const [before, after] = [objectAt(from, ["template", "spec"]), objectAt(to, ["template", "spec"])];
  const [domain, wanted] = [objectAt(before, ["domain"]), objectAt(after, ["domain"])];
  const spec = {
    ...before,
    nodeSelector: after["nodeSelector"],
    affinity: after["affinity"],
    tolerations: after["tolerations"],
    domain: {
      ...domain,
      cpu: withSockets(domain["cpu"], wanted["cpu"]),
      memory: withGuest(domain["memory"], wanted["memory"]),
    },
  };
  return { ...from, template: { ...objectAt(from, ["template"]), spec } };
}

/** Sockets need a topology to be plugged into, and a number: a guest whose template drops them starts anew. */
function withSockets(from: unknown, to: unknown): unknown {
  if (!isRecord(from) || !isRecord(to) || isNothing(to["sockets"], ["cpu", "sockets"])) return from;
  return { ...from, sockets: to["sockets"] };
}

/** Memory is resized from one size to another: a guest that had none, or gets none, starts anew. */
function withGuest(from: unknown, to: unknown): unknown {
  if (!isRecord(from) || !isRecord(to) || isAbsent(from["guest"]) || isAbsent(to["guest"])) return from;
  return { ...from, guest: to["guest"] };
}

function objectAt(value: unknown, path: Path): Json {
  return recordOf(valueAt(value, path));
}

function valueAt(value: unknown, path: Path): unknown {
  return path.reduce<unknown>((holder, field) => recordOf(holder)[field], value);
}
