/**
 * The invariants of the design, judged on the journal of the cluster: every write of ours against what was in force between the first
 * read of its pass and the write. Independent of the planner: what a pool means is read from its object here anew.
 */
import { isRecord } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION, POOL_FINALIZER, REVOKED_ANNOTATION } from "../../shared/planning/names.ts";
import type { MemoryCluster } from "./cluster.ts";
import { finalizersOf, isTerminating, type KubeObject, ownersOf, recordAt } from "./objects.ts";
import { isSame } from "./patches.ts";
import type { Change } from "./store.ts";
import { NAMESPACE, objects, selectorOf } from "./users.ts";
import { actorOf, type Invocation } from "./world.ts";

/** What a pool was, and who was in it, after one change of the journal. */
interface State {
  /** The number of the change; it holds until the next state of the list. */
  readonly sequence: number;
  /** Undefined while the pool forbids to scale: paused, illegal, on its way out, gone. */
  readonly replicas: number | undefined;
  readonly scalesIn: boolean;
  /** UIDs of the machines that it controls. */
  readonly controlled: ReadonlySet<string>;
  /** Of those, the ones that its selector matches; `live` ones are not on their way out. */
  readonly members: number;
  readonly live: number;
}

export interface Judge {
  /** Looks at what the journal has since the last time; says what is wrong. */
  judge(invocations: Iterable<Invocation>): string | undefined;
}

export function createJudge(cluster: MemoryCluster): Judge {
  const history = new Map<string, State[]>();
  const names = new Map<string, string>();
  const known = new Map<string, Invocation>();
  let seen = 0;
  const note = (sequence: number, objectsNow: Snapshot) => {
    for (const pool of objectsNow.pools) names.set(pool.metadata.uid, pool.metadata.name);
    for (const [uid, name] of names) {
      const state = stateOf(sequence, { uid, name }, objectsNow);
      const states = history.get(uid) ?? [];
      const last = states.at(-1);
      if (
        last === undefined ||
        !isSame(
          { ...last, sequence: 0, controlled: [...last.controlled] },
          { ...state, sequence: 0, controlled: [...state.controlled] },
        )
      ) {
        history.set(uid, [...states, state]);
      }
    }
  };
  const past = createPast();
  return {
    judge(invocations) {
      for (const invocation of invocations) known.set(actorOf(invocation), invocation);
      const { journal } = cluster.store;
      for (; seen < journal.length; seen += 1) {
        const change = journal[seen];
        if (change === undefined) break;
        const invocation = known.get(change.actor);
        const wrong =
          invocation === undefined ? undefined : judgeChange(change, { invocation, history, names, journal });
        if (wrong !== undefined) return `${wrong} (${describe(change)})`;
        past.apply(change);
        if (MATTERS.has(change.kind.plural)) note(change.sequence, past);
      }
      return undefined;
    },
  };
}

const MATTERS = new Set(["virtualmachinepools", "virtualmachines"]);

interface Snapshot {
  readonly pools: Iterable<KubeObject>;
  readonly vms: Iterable<KubeObject>;
}

/** The cluster as it was, change by change. */
function createPast() {
  const tables: Record<string, Map<string, KubeObject>> = {
    virtualmachinepools: new Map(),
    virtualmachines: new Map(),
  };
  return {
    get pools() {
      return tables["virtualmachinepools"]?.values() ?? [];
    },
    get vms() {
      return tables["virtualmachines"]?.values() ?? [];
    },
    apply({ kind, before, after }: Change) {
      const table = tables[kind.plural];
      if (after !== undefined) table?.set(after.metadata.uid, after);
      else if (before !== undefined) table?.delete(before.metadata.uid);
    },
  };
}

function stateOf(sequence: number, { uid, name }: { uid: string; name: string }, { pools, vms }: Snapshot): State {
  const pool = [...pools].find(({ metadata }) => metadata.uid === uid);
  const controlled = [...vms].filter((vm) => controllerOf(vm) === uid);
  const members = controlled.filter((vm) => vm.metadata.labels?.["pool"] === selectorOf(name)["pool"]);
  const spec = pool === undefined ? {} : recordAt(pool, "spec");
  const scales =
    pool !== undefined && !isTerminating(pool) && spec["paused"] !== true && spec["maxUnavailable"] !== "0%";
  const { replicas } = spec;
  return {
    sequence,
    replicas: scales ? (typeof replicas === "number" ? replicas : 1) : undefined,
    scalesIn: spec["scaleInStrategy"] === undefined,
    controlled: new Set(controlled.map(({ metadata }) => metadata.uid)),
    members: members.length,
    live: members.filter((vm) => !isTerminating(vm)).length,
  };
}

function controllerOf(object: KubeObject): string | undefined {
  return ownersOf(object).find(({ controller }) => controller === true)?.uid;
}

function describe({ actor, kind, before, after, sequence }: Change): string {
  const verb = before === undefined ? "creates" : after === undefined ? "ends" : "changes";
  return `change ${sequence}: ${actor} ${verb} ${kind.kind} ${(after ?? before)?.metadata.name}`;
}

interface Case {
  readonly invocation: Invocation;
  readonly history: ReadonlyMap<string, readonly State[]>;
  /** Name of a pool by its UID. */
  readonly names: ReadonlyMap<string, string>;
  readonly journal: readonly Change[];
}

/** Undefined when the change is allowed. */
function judgeChange(change: Change, facts: Case): string | undefined {
  const { kind, before, after } = change;
  const { name } = facts.invocation;
  if (name === "resync") return "invariant 1: resync writes";
  if (name === "status") return judgeStatus(change);
  switch (kind.plural) {
    case "events":
      return undefined;
    case "controllerrevisions":
      return (before === undefined || after === undefined) &&
        facts.names.has(controllerOf(after ?? before ?? NOBODY) ?? "")
        ? undefined
        : "invariant 1: a revision that is not the pool's";
    case "virtualmachinepools":
      return judgePool(before, after);
    case "virtualmachines":
      return judgeVm(change, facts);
    default:
      return "invariant 1: an object that is none of ours";
  }
}

const NOBODY: KubeObject = {
  apiVersion: "",
  kind: "",
  metadata: { name: "", namespace: NAMESPACE, uid: "", resourceVersion: "", creationTimestamp: "" },
};

function judgeStatus({ kind, before, after }: Change): string | undefined {
  if (kind.plural !== "virtualmachinepools" || before === undefined || after === undefined)
    return "invariant 1: status writes something else";
  const isStatus = isSame(withoutVersion({ ...before, status: 0 }), withoutVersion({ ...after, status: 0 }));
  return isStatus ? undefined : "invariant 1: status changes more than the status";
}

function withoutVersion(object: KubeObject): unknown {
  return { ...object, metadata: { ...object.metadata, resourceVersion: "" } };
}

/** Of a pool only the claim and our finalizer. */
function judgePool(before: KubeObject | undefined, after: KubeObject | undefined): string | undefined {
  if (before === undefined) return "invariant 1: a pool is created";
  if (after === undefined) return isTerminating(before) ? undefined : "invariant 1: a pool is deleted";
  return isSame(freeParts(before), freeParts(after))
    ? undefined
    : "invariant 1: more of the pool is changed than claim and finalizer";
}

function freeParts({ metadata, ...rest }: KubeObject): unknown {
  const { annotations = {}, resourceVersion: _version, finalizers = [], ...others } = metadata;
  const kept = Object.entries(annotations).filter(([key]) => key !== CLAIM_ANNOTATION && key !== REVOKED_ANNOTATION);
  return {
    ...rest,
    ...others,
    annotations: Object.fromEntries(kept),
    finalizers: finalizers.filter((name) => name !== POOL_FINALIZER),
  };
}

function judgeVm(change: Change, facts: Case): string | undefined {
  const { before, after } = change;
  if (before === undefined) return judgeCreate(change, facts, controllerOf(after ?? NOBODY) ?? "");
  const owner = [...facts.names.keys()].find((uid) =>
    windowOf(change, facts, uid).some(({ controlled }) => controlled.has(before.metadata.uid)),
  );
  const isDelete = !isTerminating(before) && (after === undefined || isTerminating(after));
  if (isDelete)
    return owner === undefined
      ? "invariant 1: a machine is deleted that is not the pool's"
      : judgeDelete(change, facts, owner);
  if (after === undefined)
    return finalizersOf(before).includes(POOL_FINALIZER)
      ? undefined
      : "invariant 6: a machine without our finalizer is ended";
  if (owner !== undefined) return judgeUpkeep(before, after, owner);
  const freed = {
    ...before,
    metadata: { ...before.metadata, finalizers: finalizersOf(before).filter((name) => name !== POOL_FINALIZER) },
  };
  const kept = { ...after, metadata: { ...after.metadata, finalizers: finalizersOf(after) } };
  if (!finalizersOf(before).includes(POOL_FINALIZER)) return "invariant 6: a machine that is not ours is touched";
  return isSame(withoutVersion(freed), withoutVersion(kept))
    ? undefined
    : "invariant 6: a detached machine loses more than our finalizer";
}

function judgeUpkeep(before: KubeObject, after: KubeObject, owner: string): string | undefined {
  const withoutOwner = (object: KubeObject): KubeObject => ({
    ...object,
    metadata: { ...object.metadata, ownerReferences: ownersOf(object).filter(({ uid }) => uid !== owner) },
  });
  if (ownersOf(after).length > ownersOf(before).length) return "invariant 6: a machine is adopted";
  return isSame(freeParts(withoutOwner(before)), freeParts(withoutOwner(after)))
    ? undefined
    : "invariant 1: more of a machine is changed than upkeep asks for";
}

/** The states of the pool in force from the pass's first read of it to just before the change. */
function windowOf({ sequence }: Change, { invocation, history, names }: Case, uid: string): readonly State[] {
  const from = invocation.firstReads.get(`namespaces/${NAMESPACE}/virtualmachinepools/${names.get(uid)}`);
  if (from === undefined) return [];
  const states = history.get(uid) ?? [];
  return states.filter((state, index) => state.sequence < sequence && (states[index + 1]?.sequence ?? sequence) > from);
}

/** Our own creates and deletes after a state always count, by whichever pass. */
function ownSince({ journal, names }: Case, uid: string, { from, to }: { from: number; to: number }) {
  let created = 0;
  let deleted = 0;
  for (const { actor, kind, before, after, sequence } of journal.slice(from, to - 1)) {
    if (sequence <= from || kind.plural !== "virtualmachines" || !actor.startsWith("reconcile ") || !names.has(uid))
      continue;
    if (before === undefined && after !== undefined && controllerOf(after) === uid) created += 1;
    const ends = before !== undefined && !isTerminating(before) && (after === undefined || isTerminating(after));
    if (ends && controllerOf(before) === uid) deleted += 1;
  }
  return { created, deleted };
}

/** Whether some state's membership allows it under a spec of that state or of an earlier one in the window. */
function isAllowed(states: readonly State[], allows: (state: State, spec: State) => boolean): boolean {
  return states.some((state, index) => states.slice(0, index + 1).some((spec) => allows(state, spec)));
}

function judgeCreate(change: Change, facts: Case, uid: string): string | undefined {
  const states = windowOf(change, facts, uid);
  if (states.every(({ replicas }) => replicas === undefined))
    return "invariants 3, 5, 7: a machine is created for a pool that is paused, illegal, leaving or unread";
  const allowed = isAllowed(states, ({ sequence, members }, { replicas }) => {
    const { created } = ownSince(facts, uid, { from: Math.max(sequence, 0), to: change.sequence });
    return replicas !== undefined && members + created < replicas;
  });
  return allowed ? undefined : "invariant 3: a machine is created beyond the shortage";
}

function judgeDelete(change: Change, facts: Case, uid: string): string | undefined {
  const states = windowOf(change, facts, uid);
  const scaling = states.filter(({ replicas, scalesIn }) => replicas !== undefined && scalesIn);
  if (scaling.length === 0) return "invariants 2, 5, 7: a machine is deleted though its pool forbids it";
  const allowed = isAllowed(states, ({ sequence, live }, { replicas, scalesIn }) => {
    const { created, deleted } = ownSince(facts, uid, { from: sequence, to: change.sequence });
    return replicas !== undefined && scalesIn && live + created - deleted > replicas;
  });
  return allowed ? undefined : "invariant 2: a machine is deleted beyond the surplus";
}

/** What is not as it should be when everything has come to rest; empty when the cluster matches. */
export function mismatches(cluster: MemoryCluster): readonly string[] {
  const pools = objects(cluster, "virtualmachinepools");
  const vms = objects(cluster, "virtualmachines");
  const leaving = [...pools, ...vms]
    .filter(isTerminating)
    .map(({ metadata }) => `${metadata.name} is still being deleted`);
  const left = vms
    .filter((vm) => controllerOf(vm) === undefined && finalizersOf(vm).includes(POOL_FINALIZER))
    .map(({ metadata }) => `${metadata.name} belongs to no pool and still has its finalizer`);
  return [...leaving, ...left, ...pools.flatMap((pool) => poolMismatches(pool, vms))];
}

function poolMismatches(pool: KubeObject, vms: readonly KubeObject[]): string[] {
  const { name, uid } = pool.metadata;
  const spec = recordAt(pool, "spec");
  const status = recordAt(pool, "status");
  const owned = vms.filter((vm) => controllerOf(vm) === uid);
  const wrong: string[] = [];
  const expect = (what: string, is: unknown, should: unknown) => {
    if (!isSame(is, should)) wrong.push(`${name}: ${what} is ${JSON.stringify(is)}, not ${JSON.stringify(should)}`);
  };
  if (spec["paused"] !== true) expect("number of machines", owned.length, spec["replicas"] ?? 1);
  const members = owned.filter((vm) => vm.metadata.labels?.["pool"] === selectorOf(name)["pool"]);
  expect("number of relabelled machines", owned.length - members.length, 0);
  expect("status.replicas", status["replicas"], members.length);
  const ready = (vm: KubeObject) => recordAt(vm, "status")["ready"] === true;
  expect("status.readyReplicas", status["readyReplicas"], members.filter(ready).length);
  const conditions: unknown = status["conditions"] ?? [];
  const shown = Array.isArray(conditions) ? conditions.map((entry) => (isRecord(entry) ? entry["type"] : entry)) : [];
  expect("conditions", shown, spec["paused"] === true ? ["ReplicaPaused"] : []);
  return wrong;
}
