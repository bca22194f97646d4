/**
 * What pools were, change by change, read from the journal anew and independent of the planner: their rules, who was in them, what
 * made each machine and its instance, and who was available. Judges nothing.
 */
import { canonicalJson, isRecord, parseJson } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION, REVISION_LABEL } from "../../shared/planning/names.ts";
import { diskTemplatesOf, isFinal, isReady } from "./kubevirt.ts";
import { finalizersOf, isTerminating, type KubeObject, ownersOf, recordAt } from "./objects.ts";
import { isSame } from "./patches.ts";
import type { Change } from "./store.ts";
import { hasSecondWriter, isBroken, NAMESPACE, selectorOf } from "./users.ts";
import type { Invocation } from "./world.ts";

/** A template as it makes machines: one value for each meaning, so that identity is equality. */
export interface Template {
  readonly text: string;
  /** The part that a guest runs on. */
  readonly guest: string;
  readonly disks: string;
}

/** A machine that a pool controls. */
export interface Machine {
  readonly uid: string;
  /** The pool's selector matches it. */
  readonly isMember: boolean;
  readonly isLive: boolean;
  /** It lives, and its instance runs, is ready and was not asked by us to stop. */
  readonly isAvailable: boolean;
  /** How often in a row it could not be started, what it shows, and since when it is not ready; the last two in its own words. */
  readonly trouble: { readonly failures: number; readonly shown: unknown; readonly since: unknown };
  /** The revision that it names. */
  readonly revision: string | undefined;
  /** What its revision says; undefined when that is lost or another's. */
  readonly made: Template | undefined;
  /** The names of revisions that it or its instance carries. */
  readonly revisions: readonly string[];
  /** Labels of its instance template. */
  readonly tier: string | undefined;
  /** Undefined when it has none, or one that is on its way out or has ended. */
  readonly instance: { readonly uid: string; readonly made: Template | undefined } | undefined;
}

/** What a pool was, and who was in it, after one change of the journal. */
export interface State {
  /** The number of the change; it holds until the next state of the list. */
  readonly sequence: number;
  readonly phase: "legal" | "illegal" | "leaving" | "gone";
  /** The spec is legal, whatever becomes of the pool: its selector says who is in it. */
  readonly hasSelector: boolean;
  /** Undefined while the pool forbids to scale: paused, illegal, beside another controller, on its way out, gone. */
  readonly replicas: number | undefined;
  readonly scalesIn: boolean;
  /** Only machines of this tier may be scaled in, or updated. */
  readonly scalesInTier: string | undefined;
  readonly updatesTier: string | undefined;
  /** Undefined while machines are not to be updated at all. */
  readonly updates: "proactive" | "opportunistic" | undefined;
  readonly maxUnavailable: number;
  /** Undefined while machines are not to be healed. */
  readonly healing: Readonly<Record<string, unknown>> | undefined;
  readonly template: Template | undefined;
  /** Disks outlive their machines. */
  readonly keeps: boolean;
  /** The claim says that the template was rolled out. */
  readonly hasRollout: boolean;
  /** By UID. */
  readonly machines: ReadonlyMap<string, Machine>;
  /** Members that are not on their way out. */
  readonly live: number;
  /** All of the above but the sequence. */
  readonly key: string;
}

export interface History {
  /** Takes a change of the journal, after it was judged. */
  apply(change: Change): void;
  /** Names of all pools there ever were, by UID. */
  readonly names: ReadonlyMap<string, string>;
  /** The states of the pool in force from the pass's first read of it to just before the change. */
  windowOf(change: Change, invocation: Invocation, uid: string): readonly State[];
  /** The states from just before that change of the journal on. */
  since(uid: string, sequence: number): readonly State[];
  /** What the revision of that name meant for this pool. */
  meaningOf(poolUid: string, revision: string | undefined): Template | undefined;
  objects(plural: Table): Iterable<KubeObject>;
  find(plural: Table, uid: string): KubeObject | undefined;
}

const TABLES = [
  "virtualmachinepools",
  "virtualmachines",
  "virtualmachineinstances",
  "controllerrevisions",
  "datavolumes",
] as const;
export type Table = (typeof TABLES)[number];

function isTable(plural: string): plural is Table {
  return TABLES.some((table) => table === plural);
}

export function createHistory(): History {
  const tables = new Map<Table, Map<string, KubeObject>>(TABLES.map((table) => [table, new Map()]));
  const states = new Map<string, State[]>();
  const names = new Map<string, string>();
  /** By UID of the pool and name of the revision; what was pruned is remembered. */
  const meanings = new Map<string, Template>();
  const templates = new Map<string, Template>();
  const read = new WeakMap<object, Template>();
  const tableOf = (plural: Table) => tables.get(plural) ?? new Map<string, KubeObject>();
  const intern = (template: Template): Template => {
    const known = templates.get(template.text) ?? template;
    templates.set(template.text, known);
    return known;
  };
  const templateOf = (spec: Readonly<Record<string, unknown>>): Template | undefined => {
    if (!isRecord(spec["virtualMachineTemplate"])) return undefined;
    const known = read.get(spec) ?? intern(readTemplate(spec));
    read.set(spec, known);
    return known;
  };
  const meaningOf = (uid: string, revision: string | undefined) => meanings.get(`${uid}/${revision}`);
  const note = (sequence: number) => {
    for (const pool of tableOf("virtualmachinepools").values()) names.set(pool.metadata.uid, pool.metadata.name);
    for (const [uid, name] of names) {
      const pool = tableOf("virtualmachinepools").get(uid);
      const known = states.get(uid) ?? [];
      const last = known.at(-1);
      // A machine that was being created may come after its pool went.
      const hasMachines = () => [...tableOf("virtualmachines").values()].some((vm) => controllerOf(vm) === uid);
      if (pool === undefined && last?.phase === "gone" && last.machines.size === 0 && !hasMachines()) continue;
      const state = stateOf({ uid, name, pool, tableOf, templateOf, meaningOf });
      if (last?.key !== state.key) states.set(uid, [...known, { ...state, sequence }]);
    }
  };
  return {
    names,
    meaningOf,
    objects: (plural) => tableOf(plural).values(),
    find: (plural, uid) => tableOf(plural).get(uid),
    apply(change) {
      const { kind, before, after } = change;
      if (!isTable(kind.plural)) return;
      if (after !== undefined) tableOf(kind.plural).set(after.metadata.uid, after);
      else if (before !== undefined) tableOf(kind.plural).delete(before.metadata.uid);
      if (kind.plural === "controllerrevisions" && after !== undefined) {
        const meaning = templateOf(recordAt(after, "data"));
        if (meaning !== undefined) meanings.set(`${controllerOf(after)}/${after.metadata.name}`, meaning);
      }
      if (kind.plural !== "controllerrevisions" && kind.plural !== "datavolumes") note(change.sequence);
    },
    windowOf({ sequence }, { firstReads }, uid) {
      const from = firstReads.get(`namespaces/${NAMESPACE}/virtualmachinepools/${names.get(uid)}`);
      if (from === undefined) return [];
      const all = states.get(uid) ?? [];
      // The last ones are looked for: from the end it is never far.
      let start = all.length;
      while (start > 0 && (all[start]?.sequence ?? sequence) > from) start -= 1;
      return all.slice(start).filter((state, index, rest) => {
        return state.sequence < sequence && (rest[index + 1]?.sequence ?? sequence) > from;
      });
    },
    since(uid, sequence) {
      const all = states.get(uid) ?? [];
      return all.filter((_, index) => (all[index + 1]?.sequence ?? Number.POSITIVE_INFINITY) >= sequence);
    },
  };
}

export function controllerOf(object: KubeObject): string | undefined {
  return ownersOf(object).find(({ controller }) => controller === true)?.uid;
}

/** As it stands on the pool, whatever it says. */
export function claimOf(pool: KubeObject): Readonly<Record<string, unknown>> {
  const claim: unknown = parseJson(pool.metadata.annotations?.[CLAIM_ANNOTATION] ?? "{}");
  return isRecord(claim) ? claim : {};
}

/**
 * The disks come with the machine; how it is run and its own metadata do not matter to the guest. How names are made of numbers does:
 * every pool here that says it has volumes that go by it.
 */
function readTemplate(pool: Readonly<Record<string, unknown>>): Template {
  const source = recordAt(pool, "virtualMachineTemplate");
  const metadata = recordAt(source, "metadata");
  const spec = recordAt(source, "spec");
  const { template, dataVolumeTemplates } = spec;
  const { labels = {}, annotations = {} } = metadata;
  const naming = Object.entries(recordAt(pool, "nameGeneration")).filter(([, isOn]) => isOn === true);
  const numbered = Object.fromEntries(naming);
  const disks = dataVolumeTemplates ?? [];
  return {
    text: canonicalJson({ labels, annotations, spec: { ...spec, dataVolumeTemplates: disks }, numbered }),
    guest: canonicalJson({ template, numbered }),
    disks: canonicalJson(dataVolumeTemplates ?? []),
  };
}

interface Source {
  readonly uid: string;
  readonly name: string;
  readonly pool: KubeObject | undefined;
  readonly tableOf: (plural: Table) => ReadonlyMap<string, KubeObject>;
  readonly templateOf: (spec: Readonly<Record<string, unknown>>) => Template | undefined;
  readonly meaningOf: (poolUid: string, revision: string | undefined) => Template | undefined;
}

const STRATEGIES = ["unmanaged", "opportunistic", "proactive"] as const;

function strategyOf(spec: Readonly<Record<string, unknown>>, field: string) {
  const strategies = recordAt(spec, field);
  const name = STRATEGIES.find((one) => isRecord(strategies[one])) ?? "proactive";
  const policy = recordAt(recordAt(strategies, name), "selectionPolicy");
  const labels = recordAt(recordAt(recordAt(policy, "selectors"), "labelSelector"), "matchLabels");
  const tier = typeof labels["tier"] === "string" ? labels["tier"] : undefined;
  const keeps = STRATEGIES.some((one) =>
    ["Offline", "Online"].includes(String(recordAt(strategies, one)["statePreservation"])),
  );
  return { name, tier, keeps };
}

function stateOf(source: Source): State {
  const { uid, name, pool, tableOf, templateOf } = source;
  const spec = pool === undefined ? {} : recordAt(pool, "spec");
  const phase = pool === undefined ? "gone" : isTerminating(pool) ? "leaving" : isBroken(spec) ? "illegal" : "legal";
  // Beside another controller passes do as little as for a paused pool.
  const scales = phase === "legal" && spec["paused"] !== true && !(pool && hasSecondWriter(pool));
  const { replicas } = spec;
  const wanted = typeof replicas === "number" ? replicas : 1;
  const scaleIn = strategyOf(spec, "scaleInStrategy");
  const update = strategyOf(spec, "updateStrategy");
  const instances = new Map<string, KubeObject>();
  for (const instance of tableOf("virtualmachineinstances").values()) {
    const owner = controllerOf(instance);
    if (owner !== undefined) instances.set(owner, instance);
  }
  const machines = new Map<string, Machine>();
  for (const vm of tableOf("virtualmachines").values()) {
    if (controllerOf(vm) === uid) machines.set(vm.metadata.uid, machineOf(source, vm, instances.get(vm.metadata.uid)));
  }
  const state = {
    phase,
    hasSelector: pool !== undefined && !isBroken(spec),
    replicas: scales ? wanted : undefined,
    scalesIn: scaleIn.name === "proactive",
    scalesInTier: scaleIn.tier,
    updatesTier: update.tier,
    updates: scales && update.name !== "unmanaged" ? update.name : undefined,
    maxUnavailable: maxUnavailableOf(spec, wanted),
    healing: scales && isRecord(spec["autohealing"]) ? spec["autohealing"] : undefined,
    template: templateOf(spec),
    keeps: scaleIn.keeps,
    hasRollout: pool !== undefined && claimOf(pool)["rollout"] !== undefined,
    live: [...machines.values()].filter(({ isMember, isLive }) => isMember && isLive).length,
  } as const;
  const key = JSON.stringify([
    name,
    Object.values({ ...state, template: state.template?.text }),
    [...machines.values()],
  ]);
  return { ...state, machines, key, sequence: 0 };
}

function maxUnavailableOf({ maxUnavailable }: Readonly<Record<string, unknown>>, replicas: number): number {
  if (typeof maxUnavailable === "number") return maxUnavailable;
  const percent = typeof maxUnavailable === "string" ? Number.parseInt(maxUnavailable, 10) : 100;
  return Math.max(1, Math.floor((percent * replicas) / 100));
}

function machineOf({ uid: pool, name, meaningOf }: Source, vm: KubeObject, instance: KubeObject | undefined): Machine {
  const { uid, labels = {} } = vm.metadata;
  const template = recordAt(recordAt(vm, "spec"), "template");
  const given = recordAt(recordAt(template, "metadata"), "labels");
  const isOn = instance !== undefined && !isTerminating(instance) && !isFinal(instance);
  const isLive = !isTerminating(vm);
  const running = isOn ? instance.metadata.labels?.[REVISION_LABEL] : undefined;
  const revisions = [labels[REVISION_LABEL], given[REVISION_LABEL], running].filter((one) => typeof one === "string");
  const { tier } = given;
  return {
    uid,
    isMember: labels["pool"] === selectorOf(name)["pool"],
    isLive,
    isAvailable: isLive && isOn && isReady(instance) && !isStopAsked(vm, instance),
    trouble: troubleOf(vm),
    revision: labels[REVISION_LABEL],
    made: meaningOf(pool, labels[REVISION_LABEL]),
    revisions,
    tier: typeof tier === "string" ? tier : undefined,
    instance: isOn ? { uid: instance.metadata.uid, made: meaningOf(pool, running) } : undefined,
  };
}

function troubleOf(vm: KubeObject): Machine["trouble"] {
  const status = recordAt(vm, "status");
  const { consecutiveFailCount: count } = recordAt(status, "startFailure");
  const conditions: readonly unknown[] = Array.isArray(status["conditions"]) ? status["conditions"] : [];
  const down = conditions.find((one) => isRecord(one) && one["type"] === "Ready" && one["status"] === "False");
  return {
    failures: typeof count === "number" ? count : 0,
    shown: status["printableStatus"],
    since: isRecord(down) ? down["lastTransitionTime"] : undefined,
  };
}

/** A stop is as good as done once it was asked for. */
function isStopAsked(vm: KubeObject, instance: KubeObject): boolean {
  const requests: unknown = recordAt(vm, "status")["stateChangeRequests"];
  if (!Array.isArray(requests)) return false;
  return requests.some((entry) => isRecord(entry) && entry["uid"] === instance.metadata.uid);
}

/** The disk templates are those that the template gives to a machine, whatever its number. */
export function hasDisksOf(vm: KubeObject, template: Template | undefined): boolean {
  const number = /-\d+$/.exec(vm.metadata.name)?.[0] ?? "";
  const own = diskTemplatesOf(vm).map(({ name, spec }) => ({
    metadata: { name: name.slice(0, -number.length) },
    spec,
  }));
  const wanted: unknown = parseJson(template?.disks ?? "null");
  return isSame(own, wanted);
}

/** Alive, and with that finalizer. */
export function hasFinalizer(object: KubeObject | undefined, finalizer: string): boolean {
  return object !== undefined && finalizersOf(object).includes(finalizer);
}
