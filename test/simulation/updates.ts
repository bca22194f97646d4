/**
 * What a roll-out may do, judged on each write of ours from the states in force between the pass's first read and the write: invariant 4
 * and the rules for revisions. Independent of the planner.
 */
import { REVISION_LABEL, REVOKED_ANNOTATION } from "../../shared/planning/names.ts";
import { claimOf, controllerOf, type History, hasDisksOf, type Machine, type State } from "./history.ts";
import { requestsOf } from "./kubevirt.ts";
import { isTerminating, type KubeObject, recordAt } from "./objects.ts";
import { isSame } from "./patches.ts";
import type { Change } from "./store.ts";
import type { Invocation } from "./world.ts";

export interface Case {
  readonly invocation: Invocation;
  readonly history: History;
  readonly journal: readonly Change[];
  /** UIDs of machines that were deleted for others with other disks: they are no surplus. */
  readonly replaced: Set<string>;
  /** Machines that were deleted to be healed, by UID. */
  readonly healed: Map<string, { readonly pool: string; readonly sequence: number }>;
}

/** A machine's UID and the pool that controlled it in the window. */
export interface Owned {
  readonly owner: string;
  readonly machine: string;
}

/** The pool that controlled the machine at some time between the pass's first read and the change. */
export function ownerIn(change: Change, { history, invocation }: Case, machine: string): string | undefined {
  return [...history.names.keys()].find((uid) =>
    history.windowOf(change, invocation, uid).some(({ machines }) => machines.has(machine)),
  );
}

export function windowOf(change: Change, { history, invocation }: Case, uid: string): readonly State[] {
  return history.windowOf(change, invocation, uid);
}

/** Whether some state's membership allows it under a spec of that state or of an earlier one in the window. */
export function isAllowed(states: readonly State[], allows: (state: State, spec: State) => boolean): boolean {
  return states.some((state, index) => states.slice(0, index + 1).some((spec) => allows(state, spec)));
}

/** Everything that an update may change is left out; what it may change is judged here. */
export function judgeMove(change: Change, facts: Case, { owner, machine }: Owned): string | undefined {
  const { before, after } = change;
  if (before === undefined || after === undefined) return "invariant 1: a machine that is moved is gone";
  const states = windowOf(change, facts, owner);
  const updating = states.filter(({ updates }) => updates !== undefined);
  if (updating.length === 0) return "invariants 5, 7: a machine is updated though its pool forbids it";
  if (isTerminating(before)) return "invariant 4: a machine on its way out is updated";
  const wasMember = states.some(({ machines }) => machines.get(machine)?.isMember === true);
  if (!wasMember) return "invariant 1: a machine is updated whose labels left";
  const revision = after.metadata.labels?.[REVISION_LABEL];
  const inside = recordAt(recordAt(recordAt(recordAt(after, "spec"), "template"), "metadata"), "labels");
  const isNamed = revision !== undefined && inside[REVISION_LABEL] === revision;
  if (!isNamed) return "invariant 1: a machine is updated and does not say to what";
  const meaning = facts.history.meaningOf(owner, revision);
  const isWanted = updating.some(({ template, updatesTier, machines }) => {
    const tier = machines.get(machine)?.tier;
    return template === meaning && (updatesTier === undefined || updatesTier === tier);
  });
  if (!isWanted) return "invariant 4: a machine is moved to a template that was not in force";
  if (!hasDisksOf(after, meaning)) return "a machine is moved and has not the disks of the template";
  if (!hasDisksOf(before, meaning)) return "invariant 4: a machine is given other disks";
  if (states.every(({ hasRollout }) => hasRollout))
    return "decision 7: a machine moves while the claim says that all have";
  return undefined;
}

/** An instance that ends by our hand, or a label or mark on it. */
export function judgeInstance(change: Change, facts: Case): string | undefined {
  const { before, after } = change;
  const machine = before === undefined ? undefined : controllerOf(before);
  const owner = machine === undefined ? undefined : ownerIn(change, facts, machine);
  if (before === undefined || machine === undefined || owner === undefined)
    return "invariant 1: an instance that is not the pool's";
  if (!isTerminating(before) && (after === undefined || isTerminating(after)))
    return judgeRestart(change, facts, { owner, machine, instance: before.metadata.uid });
  if (after === undefined) return "invariant 1: an instance is ended";
  if (!isSame(withoutMarks(before), withoutMarks(after)))
    return "invariant 1: more of an instance is changed than asked for";
  const states = windowOf(change, facts, owner);
  if (states.every(({ phase }) => phase !== "legal")) return "invariant 7: an instance of an illegal pool is touched";
  const [from, to] = [before, after].map(({ metadata }) => metadata.labels?.[REVISION_LABEL]);
  if (from === to) return undefined;
  const [old, meaning] = [from, to].map((name) => facts.history.meaningOf(owner, name));
  const isWanted = states.some(({ updates, template }) => updates === "proactive" && template === meaning);
  if (!isWanted || meaning === undefined) return "invariant 5: an instance is labelled though nothing asks for it";
  const isTrue = old !== undefined && old.guest === meaning.guest && old.disks === meaning.disks;
  return isTrue ? undefined : "invariant 4: an instance is said to run what it does not run";
}

function withoutMarks({ metadata, ...rest }: KubeObject): unknown {
  const { resourceVersion: _version, generation: _generation, labels = {}, annotations = {}, ...others } = metadata;
  const { [REVISION_LABEL]: _revision, ...otherLabels } = labels;
  const { [REVOKED_ANNOTATION]: _revoked, ...otherAnnotations } = annotations;
  return { ...rest, ...others, labels: otherLabels, annotations: otherAnnotations };
}

/** The requests of a machine that a restart writes; undefined when they are as they were. */
export function judgeRequests(change: Change, facts: Case, { owner, machine }: Owned): string | undefined {
  const { before, after } = change;
  if (before === undefined || after === undefined) return undefined;
  const [stop, start, ...more] = requestsOf(after);
  const isRestart = stop?.action === "Stop" && start?.action === "Start" && more.length === 0;
  if (!isRestart) return "invariant 1: a machine is asked for something else than a restart";
  return judgeRestart(change, facts, { owner, machine, instance: String(stop.uid) });
}

function judgeRestart(change: Change, facts: Case, { owner, machine, instance }: Owned & { instance: string }) {
  const states = windowOf(change, facts, owner);
  const proactive = states.filter(({ updates }) => updates === "proactive");
  if (proactive.length === 0) return "invariants 4, 5: an instance is restarted though its pool forbids it";
  const isOutdated = proactive.some(({ machines, template, updatesTier }) => {
    const found = machines.get(machine);
    const isChosen = updatesTier === undefined || found?.tier === updatesTier;
    const isBehind = found?.instance?.uid === instance && found.instance.made !== template;
    return isChosen && isBehind && found.isMember && found.made === template;
  });
  if (!isOutdated) return "invariant 4: an instance is restarted that runs, or would not run, the template";
  return judgeBudget(change, facts, { owner, machine });
}

/** A delete for a machine with other disks; undefined when it is one that the rules allow. */
export function judgeReplacement(change: Change, facts: Case, { owner, machine }: Owned): string | undefined {
  const states = windowOf(change, facts, owner);
  const isDue = states.some((state) => {
    const found = state.machines.get(machine);
    const isChosen = state.updatesTier === undefined || found?.tier === state.updatesTier;
    return state.updates === "proactive" && isChosen && found?.isMember === true && hasOtherDisks(found, state);
  });
  return isDue ? judgeBudget(change, facts, { owner, machine }) : "it is not to be replaced";
}

function hasOtherDisks({ made, instance }: Machine, { template }: State): boolean {
  const differs = (disks: string | undefined) => disks !== undefined && disks !== template?.disks;
  return differs(made?.disks) || differs(instance?.made?.disks);
}

/** Invariant 4: an available machine goes down only while fewer than `maxUnavailable` of those wanted are. */
function judgeBudget(change: Change, facts: Case, { owner, machine }: Owned): string | undefined {
  const states = windowOf(change, facts, owner);
  const allowed = isAllowed(states, (state, { replicas, maxUnavailable, updates }) => {
    if (replicas === undefined || updates !== "proactive") return false;
    const available = availableAfter(state, downSince(facts, { from: state.sequence, to: change.sequence }));
    if (!available.has(machine)) return true;
    return replicas - available.size < maxUnavailable;
  });
  return allowed ? undefined : "invariant 4: an available machine is made unavailable beyond maxUnavailable";
}

function availableAfter({ machines }: State, down: ReadonlySet<string>): ReadonlySet<string> {
  const available = [...machines.values()].filter((one) => one.isMember && one.isAvailable && !down.has(one.uid));
  return new Set(available.map(({ uid }) => uid));
}

/** Machines that we deleted or restarted in between, by whichever pass: they always count. */
function downSince({ journal }: Case, { from, to }: { from: number; to: number }): ReadonlySet<string> {
  const down = new Set<string>();
  for (const { actor, kind, before, after } of journal.slice(from, to - 1)) {
    if (!actor.startsWith("reconcile ") || before === undefined || isTerminating(before)) continue;
    const ends = after === undefined || isTerminating(after);
    if (kind.plural === "virtualmachines" && (ends || isAskedToStop(before, after))) down.add(before.metadata.uid);
    if (kind.plural === "virtualmachineinstances" && ends) down.add(controllerOf(before) ?? "");
  }
  return down;
}

function isAskedToStop(before: KubeObject, after: KubeObject | undefined): boolean {
  return after !== undefined && !isSame(requestsOf(before), requestsOf(after));
}

/** A revision that goes by our hand: nothing that lives names it. */
export function judgePrune(change: Change, facts: Case, owner: string): string | undefined {
  const { name } = (change.before ?? { metadata: { name: "" } }).metadata;
  const states = windowOf(change, facts, owner);
  // An unmanaged pool's machines stay as they are; what none of them names goes all the same.
  if (states.every(({ replicas }) => replicas === undefined))
    return "invariants 5, 7: a revision is pruned though its pool forbids it";
  const last = states.at(-1);
  // One whose labels left is not seen by every pass, and not updated either.
  const members = [...(last?.machines.values() ?? [])].filter(({ isLive, isMember }) => isLive && isMember);
  const namesIt = members.some(({ revisions }) => revisions.includes(name));
  if (namesIt) return "a revision is pruned that a machine names";
  const meaning = facts.history.meaningOf(owner, name);
  const others = [...facts.history.objects("controllerrevisions")].filter(
    (other) => controllerOf(other) === owner && other.metadata.name !== name,
  );
  const isInForce = states.every(({ template }) => template === meaning);
  const hasTwin = others.some((other) => facts.history.meaningOf(owner, other.metadata.name) === meaning);
  return isInForce && !hasTwin ? "the revision in force is pruned" : undefined;
}

/** A claim that says for the first time that the machines of some revisions follow the template: each of those was seen to. */
export function judgeRollout(change: Change, facts: Case): string | undefined {
  const { before, after } = change;
  if (before === undefined || after === undefined) return undefined;
  const rollout = recordAt(claimOf(after), "rollout");
  if (Object.keys(rollout).length === 0 || isSame(rollout, recordAt(claimOf(before), "rollout"))) return undefined;
  const revisions: readonly unknown[] = Array.isArray(rollout["revisions"]) ? rollout["revisions"] : [];
  const states = windowOf(change, facts, after.metadata.uid);
  const isTrueOf = ({ template }: State) =>
    [...(states.at(-1)?.machines.keys() ?? [])].every((uid) =>
      states.some(({ machines }) => {
        const found = machines.get(uid);
        // One that names another revision is looked at whatever the claim says.
        if (found === undefined || !found.isLive || !revisions.includes(found.revision)) return true;
        const isFollowing = rollout["instances"] !== true || (found.instance?.made ?? template) === template;
        return found.made === template && (isFollowing || found.instance === undefined);
      }),
    );
  return states.some(isTrueOf)
    ? undefined
    : "decision 7: the claim says that all machines follow the template, and one does not";
}
