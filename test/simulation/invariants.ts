/**
 * The invariants of the design, judged on the journal of the cluster: every write of ours against what was in force between the first
 * read of its pass and the write. Independent of the planner: what a pool means is read from its object here anew.
 */
import { isRecord } from "../../shared/planning/json.ts";
import {
  CLAIM_ANNOTATION,
  GUARDED_ANNOTATION,
  HEALING_ANNOTATION,
  POOL_FINALIZER,
  REVISION_LABEL,
  REVOKED_ANNOTATION,
} from "../../shared/planning/names.ts";
import type { MemoryCluster } from "./cluster.ts";
import { createKeeping, judgeDisk } from "./disks.ts";
import { claimOf, controllerOf, createHistory, type State } from "./history.ts";
import { isFinal, requestsOf } from "./kubevirt.ts";
import { finalizersOf, isTerminating, type KubeObject, ownersOf, recordAt } from "./objects.ts";
import { isSame } from "./patches.ts";
import type { Change } from "./store.ts";
import {
  type Case,
  isAllowed,
  judgeInstance,
  judgeMove,
  judgePrune,
  judgeReplacement,
  judgeRequests,
  judgeRollout,
  ownerIn,
  windowOf,
} from "./updates.ts";
import { NAMESPACE, objects, POOL_NAMES, selectorOf } from "./users.ts";
import type { Invocation, PendingCall } from "./world.ts";

export interface Judge {
  /** Looks at what the journal has since the last time; says what is wrong. */
  judge(): string | undefined;
}

/** `invocationOf` knows our functions by their name in the journal. */
export function createJudge(cluster: MemoryCluster, invocationOf: (actor: string) => Invocation | undefined): Judge {
  const history = createHistory();
  const keeping = createKeeping(history);
  const replaced = new Set<string>();
  const healed = new Map<string, { readonly pool: string; readonly sequence: number }>();
  let seen = 0;
  return {
    judge() {
      const { journal } = cluster.store;
      for (; seen < journal.length; seen += 1) {
        const change = journal[seen];
        if (change === undefined) break;
        const invocation = invocationOf(change.actor);
        const wrong =
          invocation === undefined
            ? undefined
            : judgeChange(change, { invocation, history, journal, replaced, healed });
        const lost = wrong ?? keeping.judge(change, invocation);
        if (lost !== undefined) return `${lost} (${describe(change)})`;
        history.apply(change);
      }
      return undefined;
    },
  };
}

function describe({ actor, kind, before, after, sequence }: Change): string {
  const verb = before === undefined ? "creates" : after === undefined ? "ends" : "changes";
  return `change ${sequence}: ${actor} ${verb} ${kind.kind} ${(after ?? before)?.metadata.name}`;
}

/** Undefined when the change is allowed. */
function judgeChange(change: Change, facts: Case): string | undefined {
  const { kind } = change;
  const { name } = facts.invocation;
  if (name === "scale") return judgeScale(change);
  if (name !== "reconcile" && name !== "status") return `invariant 1: ${name} writes`;
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
    case "virtualmachineinstances":
      return judgeInstance(change, facts);
    case "datavolumes":
      return judgeDisk(change, facts);
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

/** Only the number, of a pool whose user asked for it. */
function judgeScale({ kind, before, after }: Change): string | undefined {
  const scaled = (object: KubeObject | undefined) => {
    const { generation: _generation, ...metadata } = object?.metadata ?? NOBODY.metadata;
    const { replicas: _replicas, ...spec } = object === undefined ? {} : recordAt(object, "spec");
    return { ...object, spec, metadata: { ...metadata, resourceVersion: "" } };
  };
  if (kind.plural !== "virtualmachinepools" || before === undefined || after === undefined)
    return "invariant 1: scale writes something else";
  return isSame(scaled(before), scaled(after)) ? undefined : "invariant 1: scale changes more than the number";
}

function withoutVersion(object: KubeObject): unknown {
  return { ...object, metadata: { ...object.metadata, resourceVersion: "" } };
}

function judgeRevision(change: Change, facts: Case): string | undefined {
  const uid = controllerOf(change.after ?? change.before ?? NOBODY);
  if (uid === undefined || !facts.history.names.has(uid)) return "invariant 1: a revision that is not the pool's";
  if (change.after === undefined) return judgePrune(change, facts, uid);
  if (change.before !== undefined) return "invariant 1: a revision is changed";
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
    ? judgeRollout(change, facts)
    : "invariant 1: more of the pool is changed than claim and finalizer";
}

const MARKS: readonly string[] = [CLAIM_ANNOTATION, HEALING_ANNOTATION, REVOKED_ANNOTATION, GUARDED_ANNOTATION];

function freeParts({ metadata, ...rest }: KubeObject): unknown {
  const { annotations = {}, resourceVersion: _version, finalizers = [], ...others } = metadata;
  const kept = Object.entries(annotations).filter(([key]) => !MARKS.includes(key));
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
  const machine = before.metadata.uid;
  const owner = ownerIn(change, facts, machine);
  if (!isTerminating(before) && (after === undefined || isTerminating(after)))
    return owner === undefined
      ? "invariant 1: a machine is deleted that is not the pool's"
      : judgeDelete(change, facts, owner);
  if (owner !== undefined && after !== undefined) {
    if (!isSame(requestsOf(before), requestsOf(after)) && isSame(withoutRequests(before), withoutRequests(after)))
      return judgeRequests(change, facts, { owner, machine });
    const isMoved = !isSame(withoutTemplate(before, false), withoutTemplate(after, false));
    if (isMoved && isSame(withoutTemplate(before, true), withoutTemplate(after, true)))
      return judgeMove(change, facts, { owner, machine });
  }
  return judgeUpkeep(change, facts, owner);
}

function withoutRequests(object: KubeObject): unknown {
  const { stateChangeRequests: _requests, ...status } = recordAt(object, "status");
  return withoutVersion({ ...object, status });
}

/** With `bare` also without what a move may change. */
function withoutTemplate({ metadata, spec, ...rest }: KubeObject, bare: boolean): unknown {
  const { labels, annotations, resourceVersion: _version, generation: _generation, ...others } = metadata;
  const own = Object.entries(annotations ?? {}).filter(([key]) => !MARKS.includes(key));
  return { ...rest, ...others, ...(bare ? {} : { spec, labels, annotations: Object.fromEntries(own) }) };
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
  const isOut = (state: State) => isTakenOut(state, uid);
  if (isReleased && !states.some(isOut)) return "invariant 1: a machine is released whose labels match";
  const wasOut = states.length > 0 && states.every(isOut);
  if (wasOut && !isReleased && !isTerminating(before))
    return "invariant 6: a machine that was taken out by its labels is left to the garbage collector";
  if (has(before) && !has(left)) {
    // A pool that is gone does not come back: what still says that it controls the machine is nobody.
    const isDue = states.some(({ phase }) => isTerminating(before) || phase === "leaving" || phase === "gone");
    const isFree = isReleased || isDue || isDetached(change, facts);
    return isFree ? undefined : "invariants 1, 6, 7: a machine loses its finalizer though nothing asks for it";
  }
  if (isReleased) return undefined;
  if (owner === undefined) return "invariant 6: a machine that is not ours is touched";
  return isLegal ? undefined : "invariant 7: a machine of an illegal pool is touched";
}

/** Whether the pool still controls the machine, and its labels say that somebody took it out. */
function isTakenOut({ hasSelector, machines }: State, machine: string): boolean {
  return hasSelector && machines.get(machine)?.isMember === false;
}

/** Whether no pool controls the machine, and it points to one that the pass has read, and be it to find it gone. */
function isDetached(change: Change, facts: Case): boolean {
  const { names } = facts.history;
  const { before = NOBODY } = change;
  if (names.has(controllerOf(before) ?? "")) return false;
  return [...names].some(([uid, name]) => {
    // Of an illegal pool only those go that somebody deletes.
    const mayGo = ({ phase }: State) => phase !== "illegal" || isTerminating(before);
    return windowOf(change, facts, uid).some(mayGo) && pointsTo(before, name);
  });
}

/** Whether the machine says, by its revision label or else by name and labels, that it was one of the pool of that name. */
function pointsTo({ metadata }: KubeObject, poolName: string): boolean {
  const revision = metadata.labels?.[REVISION_LABEL];
  const isNamedLike = (text: string) => new RegExp(`^${poolName}-\\d+(-[0-9a-f]{8})?$`).test(text);
  if (revision !== undefined) return isNamedLike(revision);
  return isNamedLike(metadata.name) && metadata.labels?.["pool"] === selectorOf(poolName)["pool"];
}

/** Our own creates and deletes after a state always count, by whichever pass, but for replacements. */
function ownSince(
  { journal, replaced, history: { names } }: Case,
  uid: string,
  { from, to }: { from: number; to: number },
) {
  let created = 0;
  let deleted = 0;
  for (const { actor, kind, before, after, sequence } of journal.slice(from, to - 1)) {
    if (sequence <= from || kind.plural !== "virtualmachines" || !actor.startsWith("reconcile ") || !names.has(uid))
      continue;
    if (before === undefined && after !== undefined && controllerOf(after) === uid) created += 1;
    const ends = before !== undefined && !isTerminating(before) && (after === undefined || isTerminating(after));
    if (ends && controllerOf(before) === uid && !replaced.has(before.metadata.uid)) deleted += 1;
  }
  return { created, deleted };
}

function judgeCreate(change: Change, facts: Case, uid: string): string | undefined {
  const states = windowOf(change, facts, uid);
  if (states.every(({ replicas }) => replicas === undefined))
    return "invariants 3, 5, 7: a machine is created for a pool that is paused, illegal, leaving or unread";
  const shape = judgeShape(change.after ?? NOBODY, facts.history.names.get(uid) ?? "");
  if (shape !== undefined) return shape;
  const allowed = isAllowed(states, ({ sequence, machines }, { replicas }) => {
    const { created } = ownSince(facts, uid, { from: Math.max(sequence, 0), to: change.sequence });
    return replicas !== undefined && machines.size + created < replicas;
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
  // A pool on its way out takes along the machines whose disks it keeps: the collector would come too late for them.
  const goesAlong = (state: State) =>
    state.phase === "leaving" && state.keeps && state.machines.has(machine) && !isTakenOut(state, machine);
  if (states.some(goesAlong)) return undefined;
  if (!states.some(({ machines }) => machines.get(machine)?.isMember === true))
    return "invariant 1: a machine is deleted whose labels left";
  const replacement = judgeReplacement(change, facts, { owner: uid, machine });
  if (replacement === undefined) {
    facts.replaced.add(machine);
    return undefined;
  }
  if (isHealing(change, states, machine)) {
    facts.replaced.add(machine);
    return judgeHealingLimit(change, facts, { uid, states, machine });
  }
  const scaling = states.filter(({ replicas, scalesIn }) => replicas !== undefined && scalesIn);
  if (scaling.length === 0)
    return `invariants 2, 5, 7: a machine is deleted though its pool forbids it; ${replacement}`;
  const allowed = isAllowed(states, ({ sequence, live, machines }, { replicas, scalesIn, scalesInTier }) => {
    const { created, deleted } = ownSince(facts, uid, { from: sequence, to: change.sequence });
    const isChosen = scalesInTier === undefined || machines.get(machine)?.tier === scalesInTier;
    return replicas !== undefined && scalesIn && isChosen && live + created - deleted > replicas;
  });
  return allowed ? undefined : `invariant 2: a machine is deleted beyond the surplus; ${replacement}`;
}

const FAILING: readonly unknown[] = ["CrashLoopBackOff", "ErrorUnschedulable"];
const SECONDS: Readonly<Record<string, number>> = { "1m": 60 };
const HEALING_DEFAULTS = { failures: 3, seconds: 300 } as const;
/** How far the clocks of the API servers are apart, and their time is told in whole seconds. */
const SKEW_MS = 31_000;

/** Whether the machine was down and had failed to start for as often or as long as its pool says. */
function isHealing({ after }: Change, states: readonly State[], machine: string): boolean {
  const at = Date.parse(after?.metadata.deletionTimestamp ?? "");
  return isAllowed(states, ({ machines }, { healing }) => {
    const found = machines.get(machine);
    if (healing === undefined || found === undefined || !found.isMember || found.isAvailable) return false;
    const { failures, shown, since } = found.trouble;
    const { startUpFailureThreshold: threshold, minFailingToStartDuration: duration } = healing;
    if (failures >= (typeof threshold === "number" ? threshold : HEALING_DEFAULTS.failures)) return true;
    const seconds = SECONDS[String(duration)] ?? HEALING_DEFAULTS.seconds;
    return FAILING.includes(shown) && typeof since === "string" && at + SKEW_MS >= Date.parse(since) + seconds * 1_000;
  });
}

/** Of the pool, rounded down, at least one machine. */
const HEALED_AT_ONCE = 0.4;

/** Machines that are missing, this one too, are no more than may be healed at once. */
function judgeHealingLimit(
  change: Change,
  facts: Case,
  { uid, states, machine }: { readonly uid: string; readonly states: readonly State[]; readonly machine: string },
): string | undefined {
  const { healed } = facts;
  const isFew = isAllowed(states, ({ sequence, live }, { replicas }) => {
    if (replicas === undefined) return false;
    const { created } = ownSince(facts, uid, { from: sequence, to: change.sequence });
    const gone = [...healed.values()].filter((one) => one.pool === uid && one.sequence > sequence).length;
    const limit = Math.max(1, Math.floor(HEALED_AT_ONCE * replicas));
    return replicas - (live + created - gone) + 1 <= limit;
  });
  healed.set(machine, { pool: uid, sequence: change.sequence });
  return isFew ? undefined : "invariant 4: more machines are healed at once than may be";
}

/** What is not as it should be when everything has come to rest; empty when the cluster matches. */
export function mismatches(cluster: MemoryCluster): readonly string[] {
  const pools = objects(cluster, "virtualmachinepools");
  // What somebody detached and took every trace of its pool from is nobody's any more; a name and labels are a trace for a
  // pool that lives, whose selector says so.
  const isTraced = (vm: KubeObject) =>
    vm.metadata.labels?.[REVISION_LABEL] !== undefined || pools.some(({ metadata }) => pointsTo(vm, metadata.name));
  const vms = objects(cluster, "virtualmachines").filter(
    (vm) => controllerOf(vm) !== undefined || (POOL_NAMES.some((name) => pointsTo(vm, name)) && isTraced(vm)),
  );
  const leaving = [...pools, ...vms]
    .filter(isTerminating)
    .map(({ metadata }) => `${metadata.name} is still being deleted`);
  const left = vms
    .filter((vm) => !pools.some(({ metadata }) => metadata.uid === controllerOf(vm)))
    .filter((vm) => finalizersOf(vm).includes(POOL_FINALIZER))
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
  return [...leaving, ...left, ...unmade, ...pools.flatMap((pool) => poolMismatches(pool, { vms, cluster }))];
}

const UNSETTLED = ["create", "delete", "restart", "waitUntil"] as const;

interface Everything {
  readonly vms: readonly KubeObject[];
  readonly cluster: MemoryCluster;
}

function poolMismatches(pool: KubeObject, { vms, cluster }: Everything): string[] {
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
  if (spec["paused"] !== true)
    expect("what is remembered of healing", pool.metadata.annotations?.[HEALING_ANNOTATION], undefined);
  expect("the claim's generation", claim["generation"], pool.metadata.generation);
  expect(
    "what is claimed",
    UNSETTLED.filter((field) => claim[field] !== undefined),
    [],
  );
  wrong.push(...rolloutMismatches(pool, { members, cluster }));
  expect("conditions", shown, spec["paused"] === true ? ["ReplicaPaused"] : []);
  return wrong;
}

/** What of the machines and instances is not what the template makes; nothing where nobody is to see to it. */
function rolloutMismatches(
  pool: KubeObject,
  { members, cluster }: { readonly members: readonly KubeObject[]; readonly cluster: MemoryCluster },
): string[] {
  const spec = recordAt(pool, "spec");
  const strategies = recordAt(spec, "updateStrategy");
  if (spec["paused"] === true || isRecord(strategies["unmanaged"]) || members.length === 0) return [];
  const isProactive = !isRecord(strategies["opportunistic"]);
  const template = recordAt(spec, "virtualMachineTemplate");
  const made = recordAt(recordAt(template, "spec"), "template");
  const disks = (vm: KubeObject) => sizesOf(recordAt(vm, "spec"));
  const held = members.filter((vm) => !isProactive && !isSame(disks(vm), sizesOf(recordAt(template, "spec"))));
  const wrong: string[] = [];
  for (const vm of members.filter((one) => !held.includes(one))) {
    const { name, uid } = vm.metadata;
    const own = recordAt(recordAt(vm, "spec"), "template");
    if (!isSame(disks(vm), sizesOf(recordAt(template, "spec")))) wrong.push(`${name} has other disks`);
    if (!isGuestOf(own, made)) wrong.push(`${name} has another template`);
    const { edited } = vm.metadata.annotations ?? {};
    if (edited !== recordAt(recordAt(template, "metadata"), "annotations")["edited"])
      wrong.push(`${name} is of an older edit`);
    const instance = objects(cluster, "virtualmachineinstances").find((one) => controllerOf(one) === uid);
    if (!isProactive || instance === undefined || isFinal(instance)) continue;
    const { labels } = instance.metadata;
    if (!isGuestOf({ metadata: { labels }, spec: instance["spec"] }, made)) wrong.push(`${name} runs another template`);
    if (labels?.[REVISION_LABEL] !== vm.metadata.labels?.[REVISION_LABEL]) wrong.push(`${name} runs another revision`);
  }
  const rollout = recordAt(claimOf(pool), "rollout");
  const isRecorded = isProactive ? rollout["instances"] === true : rollout["template"] !== undefined;
  if (held.length === 0 && !isRecorded)
    wrong.push(`${pool.metadata.name}: the claim does not say that it is rolled out`);
  return wrong;
}

/** What tells the templates of the users' edits apart. */
function isGuestOf(own: Readonly<Record<string, unknown>>, template: Readonly<Record<string, unknown>>): boolean {
  const [one, other] = [own, template].map((entry) => [
    recordAt(entry, "spec")["terminationGracePeriodSeconds"],
    recordAt(recordAt(entry, "metadata"), "labels")["tier"],
  ]);
  return isSame(one, other);
}

function sizesOf(spec: Readonly<Record<string, unknown>>): readonly unknown[] {
  const { dataVolumeTemplates } = spec;
  return Array.isArray(dataVolumeTemplates) ? dataVolumeTemplates.filter(isRecord).map((entry) => entry["spec"]) : [];
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
    const uncovered = path.includes("/virtualmachineinstances")
      ? method === "DELETE" && isUncoveredRestart(cluster, { path, body }, now)
      : path.includes("/virtualmachines") && isUncovered(cluster, request, now);
    if (uncovered) return `claim: ${method} ${path} may still take effect but is not claimed any more`;
  }
  return undefined;
}

function isUncovered(cluster: MemoryCluster, { method, path, body }: UnderWay["request"], now: number): boolean {
  if (method === "POST") return !path.includes("dryRun=All") && isUncoveredCreate(cluster, body, now);
  if (method === "DELETE") return isUncoveredDelete(cluster, { path, body }, now);
  return method === "PATCH" && path.includes("/status") && isUncoveredRequest(cluster, { path, body }, now);
}

function isUncoveredCreate(cluster: MemoryCluster, body: unknown, now: number): boolean {
  const metadata = isRecord(body) ? recordAt(body, "metadata") : {};
  const [owner] = Array.isArray(metadata["ownerReferences"]) ? metadata["ownerReferences"].filter(isRecord) : [];
  const pool = objects(cluster, "virtualmachinepools").find((entry) => entry.metadata.uid === owner?.["uid"]);
  // Once its pool is let go the machine would be nobody's. That of a pool which its user took away is a stray.
  if (pool === undefined) return !wasTaken(cluster, String(owner?.["uid"]));
  const ordinal = Number(/\d+$/.exec(String(metadata["name"]))?.[0]);
  const claim = claimOf(pool);
  if (coversAll(claim, now)) return false;
  const ranges = Object.values(recordAt(claim, "create")).join(",").split(",");
  return !ranges.some((range) => {
    const [first = "", last = first] = range.split("-");
    return first !== "" && Number(first) <= ordinal && ordinal <= Number(last);
  });
}

/** Somebody else ended the pool while it still had our finalizer. */
function wasTaken({ store: { journal } }: MemoryCluster, uid: string): boolean {
  const last = journal.findLast(({ before, after }) => before?.metadata.uid === uid && after === undefined);
  return last?.actor.startsWith("reconcile ") === false && finalizersOf(last.before ?? NOBODY).includes(POOL_FINALIZER);
}

interface Guarded {
  readonly path: string;
  readonly body: unknown;
}

/** Whether the call would still find what it was decided on. */
function hits(object: KubeObject | undefined, said: Readonly<Record<string, unknown>>): object is KubeObject {
  const misses = (given: unknown, is: string | undefined) => given !== undefined && given !== is;
  if (object === undefined || isTerminating(object)) return false;
  return !misses(said["uid"], object.metadata.uid) && !misses(said["resourceVersion"], object.metadata.resourceVersion);
}

function isClaimed(
  cluster: MemoryCluster,
  vm: KubeObject | undefined,
  item: { field: string; uid: string; now: number },
) {
  const pool = objects(cluster, "virtualmachinepools").find(({ metadata }) => vm && metadata.uid === controllerOf(vm));
  // What a pool on its way out does to its machines needs no claim.
  if (pool === undefined || isTerminating(pool) || coversAll(claimOf(pool), item.now)) return true;
  const items = String(claimOf(pool)[item.field] ?? "").split(" ");
  return items.some((text) => text.split(":")[1] === item.uid.slice(0, 8));
}

function isUncoveredRestart(cluster: MemoryCluster, { path, body }: Guarded, now: number): boolean {
  const name = /\/virtualmachineinstances\/([^/?]+)/.exec(path)?.[1];
  const instance = objects(cluster, "virtualmachineinstances").find(({ metadata }) => metadata.name === name);
  if (!hits(instance, isRecord(body) ? recordAt(body, "preconditions") : {})) return false;
  const vm = objects(cluster, "virtualmachines").find(({ metadata }) => metadata.uid === controllerOf(instance));
  return !isClaimed(cluster, vm, { field: "restart", uid: instance.metadata.uid, now });
}

/** A stop that is meant for an instance that is gone does nothing. */
function isUncoveredRequest(cluster: MemoryCluster, { path, body }: Guarded, now: number): boolean {
  const name = /\/virtualmachines\/([^/?]+)/.exec(path)?.[1];
  const vm = objects(cluster, "virtualmachines").find(({ metadata }) => metadata.name === name);
  if (!isRecord(body) || !hits(vm, recordAt(body, "metadata"))) return false;
  const [stop] = requestsOf({ ...vm, status: body["status"] });
  const instance = objects(cluster, "virtualmachineinstances").find(({ metadata }) => metadata.uid === stop?.uid);
  if (instance === undefined || isTerminating(instance)) return false;
  return !isClaimed(cluster, vm, { field: "restart", uid: instance.metadata.uid, now });
}

function isUncoveredDelete(cluster: MemoryCluster, { path, body }: Guarded, now: number): boolean {
  const name = /\/virtualmachines\/([^/?]+)/.exec(path)?.[1];
  const vm = objects(cluster, "virtualmachines").find((entry) => entry.metadata.name === name);
  if (!hits(vm, isRecord(body) ? recordAt(body, "preconditions") : {})) return false;
  return !isClaimed(cluster, vm, { field: "delete", uid: vm.metadata.uid, now });
}

function coversAll(claim: Readonly<Record<string, unknown>>, now: number): boolean {
  const { v, waitUntil } = claim;
  return v !== 1 || (typeof waitUntil === "string" && Date.parse(waitUntil) > now);
}
