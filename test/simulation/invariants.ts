/**
 * The invariants of the design, judged on the journal of the cluster: every write of ours against what was in force between the first
 * read of its pass and the write. Independent of the planner: what a pool means is read from its object here anew.
 */
import { isRecord, parseJson } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION, POOL_FINALIZER, REVISION_LABEL, REVOKED_ANNOTATION } from "../../shared/planning/names.ts";
import type { MemoryCluster } from "./cluster.ts";
import { finalizersOf, isTerminating, type KubeObject, ownersOf, recordAt } from "./objects.ts";
import { isSame } from "./patches.ts";
import type { Change } from "./store.ts";
import { isBroken, NAMESPACE, objects, POOL_NAMES, selectorOf } from "./users.ts";
import type { Invocation, PendingCall } from "./world.ts";

/** What a pool was, and who was in it, after one change of the journal. */
interface State {
  /** The number of the change; it holds until the next state of the list. */
  readonly sequence: number;
  readonly phase: "legal" | "illegal" | "leaving" | "gone";
  /** Undefined while the pool forbids to scale: paused, illegal, on its way out, gone. */
  readonly replicas: number | undefined;
  readonly scalesIn: boolean;
  /** UIDs of the machines that it controls. */
  readonly controlled: ReadonlySet<string>;
  /** Of those, the ones that its selector matches. */
  readonly members: ReadonlySet<string>;
  /** Members that are not on their way out. */
  readonly live: number;
}

export interface Judge {
  /** Looks at what the journal has since the last time; says what is wrong. */
  judge(): string | undefined;
}

/** `invocationOf` knows our functions by their name in the journal. */
export function createJudge(cluster: MemoryCluster, invocationOf: (actor: string) => Invocation | undefined): Judge {
  const history = new Map<string, State[]>();
  const names = new Map<string, string>();
  let seen = 0;
  const note = (sequence: number, objectsNow: Snapshot) => {
    for (const pool of objectsNow.pools) names.set(pool.metadata.uid, pool.metadata.name);
    for (const [uid, name] of names) {
      const state = stateOf(sequence, { uid, name }, objectsNow);
      const states = history.get(uid) ?? [];
      const last = states.at(-1);
      if (last === undefined || !isSameState(last, state)) history.set(uid, [...states, state]);
    }
  };
  const past = createPast();
  return {
    judge() {
      const { journal } = cluster.store;
      for (; seen < journal.length; seen += 1) {
        const change = journal[seen];
        if (change === undefined) break;
        const invocation = invocationOf(change.actor);
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

function isSameState(a: State, b: State): boolean {
  const isSameSet = (one: ReadonlySet<string>, other: ReadonlySet<string>) =>
    one.size === other.size && [...one].every((uid) => other.has(uid));
  return (
    a.phase === b.phase &&
    a.replicas === b.replicas &&
    a.scalesIn === b.scalesIn &&
    a.live === b.live &&
    isSameSet(a.controlled, b.controlled) &&
    isSameSet(a.members, b.members)
  );
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
  const phase = pool === undefined ? "gone" : isTerminating(pool) ? "leaving" : isBroken(spec) ? "illegal" : "legal";
  const scales = phase === "legal" && spec["paused"] !== true;
  const { replicas } = spec;
  return {
    sequence,
    phase,
    replicas: scales ? (typeof replicas === "number" ? replicas : 1) : undefined,
    scalesIn: spec["scaleInStrategy"] === undefined,
    controlled: new Set(controlled.map(({ metadata }) => metadata.uid)),
    members: new Set(members.map(({ metadata }) => metadata.uid)),
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
  const { kind } = change;
  const { name } = facts.invocation;
  if (name === "resync") return "invariant 1: resync writes";
  if (name === "status") return judgeStatus(change);
  switch (kind.plural) {
    case "events":
      return undefined;
    case "controllerrevisions":
      return judgeRevision(change, facts);
    case "virtualmachinepools":
      return judgePool(change, facts);
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

function judgeRevision(change: Change, facts: Case): string | undefined {
  const uid = controllerOf(change.after ?? change.before ?? NOBODY);
  const isChanged = change.before !== undefined && change.after !== undefined;
  if (isChanged || uid === undefined || !facts.names.has(uid)) return "invariant 1: a revision that is not the pool's";
  const isWanted = windowOf(change, facts, uid).some(({ replicas }) => replicas !== undefined);
  return isWanted ? undefined : "invariants 5, 7: a revision for a pool that is paused, illegal, leaving or unread";
}

/** Of a pool only the claim and our finalizer. */
function judgePool(change: Change, facts: Case): string | undefined {
  const { before, after } = change;
  if (before === undefined) return "invariant 1: a pool is created";
  const states = windowOf(change, facts, before.metadata.uid);
  const hasPhase = (...phases: readonly State["phase"][]) => states.some(({ phase }) => phases.includes(phase));
  const frees =
    finalizersOf(before).includes(POOL_FINALIZER) && !finalizersOf(after ?? NOBODY).includes(POOL_FINALIZER);
  if (frees && !hasPhase("leaving")) return "invariant 1: a pool that nobody deletes loses its finalizer";
  if (after === undefined) return isTerminating(before) ? undefined : "invariant 1: a pool is deleted";
  if (!frees && !hasPhase("legal", "leaving")) return "invariant 7: an illegal pool is written";
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
  if (!isTerminating(before) && (after === undefined || isTerminating(after)))
    return owner === undefined
      ? "invariant 1: a machine is deleted that is not the pool's"
      : judgeDelete(change, facts, owner);
  return judgeUpkeep(change, facts, owner);
}

/** What a machine may lose but by deletion: our finalizer, our owner reference; and what a revocation changes. */
function judgeUpkeep(change: Change, facts: Case, owner: string | undefined): string | undefined {
  const { before = NOBODY, after } = change;
  // The machine is gone when the last finalizer is: then that is what was taken.
  const left = after ?? { ...before, metadata: { ...before.metadata, finalizers: [] } };
  const { uid } = before.metadata;
  const states = owner === undefined ? [] : windowOf(change, facts, owner);
  const owners = (object: KubeObject) => ownersOf(object).filter((entry) => entry.uid !== owner);
  const withOwners = (object: KubeObject) => ({
    ...object,
    metadata: { ...object.metadata, ownerReferences: owners(object) },
  });
  if (ownersOf(left).length > ownersOf(before).length) return "invariant 6: a machine is adopted";
  if (!isSame(freeParts(withOwners(before)), freeParts(withOwners(left))))
    return "invariant 1: more of a machine is changed than upkeep asks for";
  const has = (object: KubeObject) => finalizersOf(object).includes(POOL_FINALIZER);
  const isReleased = ownersOf(left).length < ownersOf(before).length;
  const isLegal = states.some(({ phase }) => phase === "legal");
  const wasRelabelled = isLegal && states.some(({ controlled, members }) => controlled.has(uid) && !members.has(uid));
  if (isReleased && !wasRelabelled) return "invariant 1: a machine is released whose labels match";
  if (has(before) && !has(left)) {
    const isDue = isTerminating(before) ? states.some(isServed) : states.some(({ phase }) => phase === "leaving");
    const isFree = isReleased || isDue || isDetached(change, facts);
    return isFree ? undefined : "invariants 1, 6, 7: a machine loses its finalizer though nothing asks for it";
  }
  if (isReleased) return undefined;
  if (owner === undefined) return "invariant 6: a machine that is not ours is touched";
  return isLegal ? undefined : "invariant 7: a machine of an illegal pool is touched";
}

/** Neither illegal nor gone. */
function isServed({ phase }: State): boolean {
  return phase === "legal" || phase === "leaving";
}

/** Whether no pool controls the machine, and it points to one that the pass has read. */
function isDetached(change: Change, facts: Case): boolean {
  if (facts.names.has(controllerOf(change.before ?? NOBODY) ?? "")) return false;
  return [...facts.names].some(([uid, name]) => {
    if (!windowOf(change, facts, uid).some(isServed)) return false;
    return pointsTo(change.before ?? NOBODY, name);
  });
}

/** Whether the machine says, by its revision label or else by name and labels, that it was one of the pool of that name. */
function pointsTo({ metadata }: KubeObject, poolName: string): boolean {
  const revision = metadata.labels?.[REVISION_LABEL];
  const isNamedLike = (text: string) => new RegExp(`^${poolName}-\\d+(-[0-9a-f]{8})?$`).test(text);
  if (revision !== undefined) return isNamedLike(revision);
  return isNamedLike(metadata.name) && metadata.labels?.["pool"] === selectorOf(poolName)["pool"];
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
  const shape = judgeShape(change.after ?? NOBODY, facts.names.get(uid) ?? "");
  if (shape !== undefined) return shape;
  const allowed = isAllowed(states, ({ sequence, controlled }, { replicas }) => {
    const { created } = ownSince(facts, uid, { from: Math.max(sequence, 0), to: change.sequence });
    return replicas !== undefined && controlled.size + created < replicas;
  });
  return allowed ? undefined : "invariant 3: a machine is created beyond the shortage";
}

/** What a pool's machine must be, or nobody would know it for one. */
function judgeShape(vm: KubeObject, poolName: string): string | undefined {
  const { name, labels = {} } = vm.metadata;
  const isOurs =
    new RegExp(`^${poolName}-\\d+$`).test(name) &&
    labels["pool"] === selectorOf(poolName)["pool"] &&
    finalizersOf(vm).includes(POOL_FINALIZER) &&
    new RegExp(`^${poolName}-\\d+(-[0-9a-f]{8})?$`).test(labels[REVISION_LABEL] ?? "");
  return isOurs ? undefined : "invariant 1: a machine is created that no pool would know for its own";
}

function judgeDelete(change: Change, facts: Case, uid: string): string | undefined {
  const states = windowOf(change, facts, uid);
  const { uid: machine } = (change.before ?? NOBODY).metadata;
  if (!states.some(({ members }) => members.has(machine))) return "invariant 1: a machine is deleted whose labels left";
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
  // What somebody detached and took every trace of its pool from is nobody's any more.
  const vms = objects(cluster, "virtualmachines").filter(
    (vm) => controllerOf(vm) !== undefined || POOL_NAMES.some((name) => pointsTo(vm, name)),
  );
  const leaving = [...pools, ...vms]
    .filter(isTerminating)
    .map(({ metadata }) => `${metadata.name} is still being deleted`);
  const left = vms
    .filter((vm) => controllerOf(vm) === undefined && finalizersOf(vm).includes(POOL_FINALIZER))
    .map(({ metadata }) => `${metadata.name} belongs to no pool and still has its finalizer`);
  const revisions = objects(cluster, "controllerrevisions");
  const hasRevision = (vm: KubeObject) =>
    revisions.some(
      (revision) =>
        revision.metadata.name === vm.metadata.labels?.[REVISION_LABEL] && controllerOf(revision) === controllerOf(vm),
    );
  const unmade = vms
    .filter((vm) => pools.some((pool) => pool.metadata.uid === controllerOf(vm)) && !hasRevision(vm))
    .map(({ metadata }) => `${metadata.name} names a revision that its pool does not have`);
  return [...leaving, ...left, ...unmade, ...pools.flatMap((pool) => poolMismatches(pool, vms))];
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
  expect("status.labelSelector", status["labelSelector"], `pool=${selectorOf(name)["pool"]}`);
  const claim = claimOf(pool);
  expect("the claim's generation", claim["generation"], pool.metadata.generation);
  expect("what is claimed", [claim["create"], claim["delete"], claim["waitUntil"]], [undefined, undefined, undefined]);
  expect("conditions", shown, spec["paused"] === true ? ["ReplicaPaused"] : []);
  return wrong;
}

/** As it stands on the pool, whatever it says. */
function claimOf(pool: KubeObject): Readonly<Record<string, unknown>> {
  const claim: unknown = parseJson(pool.metadata.annotations?.[CLAIM_ANNOTATION] ?? "{}");
  return isRecord(claim) ? claim : {};
}

/** A call that may still take effect, whether or not anybody waits for its answer. */
type UnderWay = Pick<PendingCall, "request">;

/**
 * What the invariants 2 and 3 rest on, and what breaks long before them: a create or delete that may still take effect stands in its
 * pool's claim, until it would miss. An unreadable claim, and one that makes everybody wait, covers them all.
 */
export function judgeClaims(cluster: MemoryCluster, calls: readonly UnderWay[], now: number): string | undefined {
  for (const { request } of calls) {
    const { method, path, body } = request;
    if (!path.includes("/virtualmachines")) continue;
    const uncovered =
      method === "POST"
        ? isUncoveredCreate(cluster, body, now)
        : method === "DELETE" && isUncoveredDelete(cluster, { path, body }, now);
    if (uncovered) return `claim: ${method} ${path} may still take effect but is not claimed any more`;
  }
  return undefined;
}

function isUncoveredCreate(cluster: MemoryCluster, body: unknown, now: number): boolean {
  const metadata = isRecord(body) ? recordAt(body, "metadata") : {};
  const [owner] = Array.isArray(metadata["ownerReferences"]) ? metadata["ownerReferences"].filter(isRecord) : [];
  const pool = objects(cluster, "virtualmachinepools").find((entry) => entry.metadata.uid === owner?.["uid"]);
  // Once its pool is let go the machine would be nobody's.
  if (pool === undefined) return true;
  const ordinal = Number(/\d+$/.exec(String(metadata["name"]))?.[0]);
  const claim = claimOf(pool);
  if (coversAll(claim, now)) return false;
  const ranges = Object.values(recordAt(claim, "create")).join(",").split(",");
  return !ranges.some((range) => {
    const [first = "", last = first] = range.split("-");
    return first !== "" && Number(first) <= ordinal && ordinal <= Number(last);
  });
}

function isUncoveredDelete(
  cluster: MemoryCluster,
  { path, body }: { path: string; body: unknown },
  now: number,
): boolean {
  const name = /\/virtualmachines\/([^/?]+)/.exec(path)?.[1];
  const vm = objects(cluster, "virtualmachines").find((entry) => entry.metadata.name === name);
  const { uid, resourceVersion } = isRecord(body) ? recordAt(body, "preconditions") : {};
  const misses = (given: unknown, is: string | undefined) => given !== undefined && given !== is;
  if (vm === undefined || isTerminating(vm)) return false;
  if (misses(uid, vm.metadata.uid) || misses(resourceVersion, vm.metadata.resourceVersion)) return false;
  const pool = objects(cluster, "virtualmachinepools").find((entry) => entry.metadata.uid === controllerOf(vm));
  if (pool === undefined || coversAll(claimOf(pool), now)) return false;
  const items = String(claimOf(pool)["delete"] ?? "").split(" ");
  return !items.some((item) => item.split(":")[1] === vm.metadata.uid.slice(0, 8));
}

function coversAll(claim: Readonly<Record<string, unknown>>, now: number): boolean {
  const { v, waitUntil } = claim;
  return v !== 1 || (typeof waitUntil === "string" && Date.parse(waitUntil) > now);
}
