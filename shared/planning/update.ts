/** Moves machines to the template in force, and restarts or replaces what cannot follow it running, within `maxUnavailable`. */
import { CLAIM_ITEMS_MAX, type Claim, isClaimed, type Rollout } from "./claim.ts";
import { recordOf } from "./json.ts";
import { byNameAndUid } from "./membership.ts";
import { moveVm } from "./merge.ts";
import {
  type Instance,
  isProtected,
  type Pool,
  type PoolSpec,
  revisionOf,
  specRevisionOf,
  type Vm,
  type VmSpec,
} from "./model.ts";
import { PROTECTED_LABEL, revisionName, UPDATED_ANNOTATION } from "./names.ts";
import type { Action, Limits, Need, Observation } from "./plan.ts";
import { namingOf, ownRevision } from "./revisions.ts";
import { filterBySelectors, rank } from "./selection.ts";
import { isSame } from "./semantic.ts";
import { indexVmSpec } from "./template.ts";
import { type Change, classifyChange, showsLiveFields, templateHash } from "./template-change.ts";

/** KubeVirt has seen a machine's new template by then: an instance that restarts earlier may boot the old one once more. */
const UPDATE_SEEN_AFTER_MS = 2_000;
/** A change that KubeVirt can make on the running guest shows by then, or never. */
const LIVE_UPDATE_WITHIN_MS = 60_000;
/** How old an instance that is not ready, or a machine without one, must be before it is restarted or replaced for free. */
const SPARE_AFTER_MS = 10_000;
/** A machine without an instance may still boot the template that it had so long ago: nobody would look at it later. */
const BOOT_SEEN_AFTER_MS = 10_000;
/** A time of our own may be so far ahead, as API servers' clocks differ; one further ahead is not ours. */
export const CLOCK_SLACK_MS = 60_000;
/** How many revisions of one template machines may name before they are gathered under one. The claim lists them. */
const REVISIONS_MAX = 20;

export interface UpdateInput {
  readonly seen: Observation;
  readonly spec: PoolSpec;
  readonly claim: Claim | undefined;
  /** Machines of the pool, terminating ones included. */
  readonly members: readonly Vm[];
  /** Still controlled by the pool, though its selector no longer matches them; as far as seen. */
  readonly relabelled: readonly Vm[];
  /** Of the members, the ones that go because there are too many. */
  readonly leaving: readonly Vm[];
  /** Deletes of the last claim that scale-in does not want. */
  readonly claimedDeletes: readonly Vm[];
  /** The revision of the template in force, which exists or is made in this loop; undefined when there can be none. */
  readonly target: string | undefined;
  readonly limits: Limits;
}

export type Restart = Extract<Action, { kind: "restartInstance" }>;

export interface Update {
  readonly needs: readonly Need[];
  /** Need no claim. */
  readonly actions: readonly Action[];
  /** To restart now, and all that the claim must name. */
  readonly restarts: readonly Restart[];
  readonly claimedRestarts: readonly { readonly vm: Vm; readonly instance: Instance }[];
  /** To delete now for a machine with other disks, and all that the claim must name. */
  readonly replacements: readonly Vm[];
  readonly claimedReplacements: readonly Vm[];
  readonly revoke: readonly Action[];
  /** What the claim is to say of the roll-out; undefined while it goes on. */
  readonly rollout: Rollout | undefined;
  readonly reasons: readonly string[];
}

const NOTHING: Update = {
  needs: [],
  actions: [],
  restarts: [],
  claimedRestarts: [],
  replacements: [],
  claimedReplacements: [],
  revoke: [],
  rollout: undefined,
  reasons: [],
};

type Strategy = "unmanaged" | "opportunistic" | "proactive";

export function updateStrategyOf({ updateStrategy }: PoolSpec): Strategy {
  if (updateStrategy?.unmanaged) return "unmanaged";
  return updateStrategy?.opportunistic ? "opportunistic" : "proactive";
}

/** Whether every machine is known to follow the template already, by what the last passes wrote down. */
export function isRolledOut(
  pool: Pool,
  spec: PoolSpec,
  { claim, live }: { readonly claim: Claim | undefined; readonly live: readonly Vm[] },
): boolean {
  if (live.length === 0) return true;
  const rollout = claim?.rollout;
  if (rollout === undefined || !isUpToDate(rollout, pool, spec)) return false;
  // Which revisions it finds there is of no interest: they were pruned when the template changed.
  if (updateStrategyOf(spec) === "unmanaged") return true;
  return live.every((vm) => !isAtOdds(vm) && rollout.revisions.includes(revisionOf(vm) ?? ""));
}

/** Whether a roll-out that is on record is that of the template in force, and went as far as the strategy asks. */
export function isUpToDate(rollout: Rollout | undefined, pool: Pool, spec: PoolSpec): boolean {
  if (rollout === undefined || !isOfTemplate(rollout, pool, spec)) return false;
  return rollout.instances || updateStrategyOf(spec) !== "proactive";
}

/**
 * Whether a record is of the template in force. That of the pool's generation is, whatever its hash: nobody has changed the
 * spec since, only its reading is another, by a new schema of KubeVirt's or new code of ours.
 */
export function isOfTemplate({ template, generation }: Rollout, pool: Pool, spec: PoolSpec): boolean {
  return generation === pool.generation || template === templateHash(spec);
}

/** The record of a roll-out of the template in force. */
export function recordRollout(
  { generation }: Pool,
  spec: PoolSpec,
  { revisions, instances }: Pick<Rollout, "revisions" | "instances">,
): Rollout {
  return { template: templateHash(spec), revisions, instances, generation };
}

/** What a claim that nothing is rolled out for says: of the template as it is read now, that it is; of an older one, what it said. */
function carryOn(rollout: Rollout | undefined, pool: Pool, spec: PoolSpec): Rollout | undefined {
  return rollout && isOfTemplate(rollout, pool, spec) ? recordRollout(pool, spec, rollout) : rollout;
}

/** Its spec is of another revision than its label says. */
function isAtOdds(vm: Vm): boolean {
  return specRevisionOf(vm) !== revisionOf(vm);
}

/** Decides what to do about machines that were made from another template than the one in force. */
export function planUpdate(input: UpdateInput): Update {
  const { seen, spec, claim, members, leaving, target } = input;
  const live = members.filter((vm) => !vm.terminating && !leaving.includes(vm));
  if (spec.paused === true || isRolledOut(seen.pool, spec, { claim, live }))
    return { ...withdraw(input), rollout: carryOn(claim?.rollout, seen.pool, spec) };
  if (target === undefined) return withdraw(input);
  const strategy = updateStrategyOf(spec);
  if (strategy === "unmanaged") return finish({ ...input, live, target, strategy }, withdraw(input));
  const hasClaims = (claim?.restart.length ?? 0) > 0;
  const instances = strategy === "proactive" || hasClaims ? seen.instances : [];
  if (instances === undefined) return { ...NOTHING, needs: [{ read: "instances" }] };
  const labels = [...live.flatMap(revisionsIn), ...instances.map(revisionOf)];
  const names = new Set(labels.filter((name) => name !== undefined));
  const unread = [...names].filter((name) => name !== target && !seen.revisions.has(name));
  if (unread.length > 0) return { ...NOTHING, needs: [{ read: "revisions", names: unread }] };
  const policy = spec.updateStrategy?.proactive?.selectionPolicy;
  const chosen = new Set(filterBySelectors(policy, live));
  const instanceOf = byMachine(instances);
  const gathered = new Set([...labelsOf(live, target).slice(REVISIONS_MAX), ...takenName(seen, target)]);
  const context: Context = { ...input, target, strategy, chosen, gathered, instanceOf, origins: new Map() };
  const judged = live.map((vm) => judgeMachine(vm, context));
  if (judged.some(({ step }) => step.kind === "live") && seen.liveUpdates === undefined) {
    return { ...NOTHING, needs: [{ read: "liveUpdates" }] };
  }
  return act(
    { ...input, live, instances, instanceOf, strategy, target },
    judged.map((entry) => settleLive(entry, seen)),
  );
}

/** What one machine needs. */
type Step =
  | { readonly kind: "none" }
  | { readonly kind: "move"; readonly base: PoolSpec | undefined }
  | { readonly kind: "restart" | "label"; readonly instance: Instance; readonly why: string }
  /** KubeVirt is about to change the running instance. */
  | { readonly kind: "live"; readonly instance: Instance; readonly spec: VmSpec }
  | { readonly kind: "replace"; readonly why: string }
  /** Cannot be done now, or at all. `requested`: it is to stop, maybe because we asked for a restart. */
  | { readonly kind: "wait"; readonly why: string; readonly requested?: Instance };

interface Judged {
  readonly vm: Vm;
  readonly instance: Instance | undefined;
  readonly step: Step;
}

interface Context extends UpdateInput {
  readonly target: string;
  readonly strategy: Strategy;
  readonly chosen: ReadonlySet<Vm>;
  /** Revisions that give way to the target though their template is the same. */
  readonly gathered: ReadonlySet<string>;
  readonly instanceOf: ReadonlyMap<string, Instance>;
  /** What was found out about revisions so far, by name. */
  readonly origins: Map<string, Origin>;
}

function judgeMachine(vm: Vm, context: Context): Judged {
  const instance = context.instanceOf.get(vm.uid);
  const step = judgeStep(vm, instance, context);
  return { vm, instance, step: step.kind === "replace" && isProtected(vm) ? KEPT : step };
}

function judgeStep(vm: Vm, instance: Instance | undefined, context: Context): Step {
  const { spec, strategy, chosen } = context;
  const { base, change } = originOf(context, vm, specRevisionOf(vm));
  const isGathered = vm.spec !== undefined && context.gathered.has(revisionOf(vm) ?? "");
  const atOdds = isAtOdds(vm);
  if (change === "none" && !isGathered && !atOdds) {
    const step = strategy === "proactive" ? judgeInstance(vm, instance, context) : NONE;
    return step.kind === "none" || chosen.has(vm) ? step : LEFT_OUT;
  }
  if (!chosen.has(vm)) return LEFT_OUT;
  if (vm.ordinal === undefined) return { kind: "wait", why: "its name has no number of this pool" };
  if (vm.spec === undefined) return { kind: "wait", why: "its spec cannot be read" };
  if (base === undefined && !hasDisksOf(vm.spec, indexVmSpec(spec, vm.ordinal, ""))) {
    return { kind: "wait", why: "its revision is lost, and its disks are not the template's" };
  }
  if (change !== "replace") return { kind: "move", base };
  // Its disks may be restored ones, of which there are no others.
  if (atOdds) return { kind: "wait", why: "its spec is of another revision than its label says, with other disks" };
  if (strategy === "proactive") return { kind: "replace", why: DISKS_CHANGED };
  return { kind: "wait", why: `${DISKS_CHANGED}, and only a new machine gets new ones` };
}

const NONE: Step = { kind: "none" };
const LEFT_OUT: Step = { kind: "wait", why: "updateStrategy.proactive.selectionPolicy.selectors leave it out" };
const KEPT: Step = { kind: "wait", why: `its disks are not the template's, and its label ${PROTECTED_LABEL} keeps it` };
const DISKS_CHANGED = "the template's disks have changed";

/** Whether the machine has the DataVolume templates that the pool's template gives to one of its number. */
function hasDisksOf(own: VmSpec, wanted: VmSpec): boolean {
  return isSame(own.dataVolumeTemplates, wanted.dataVolumeTemplates, ["spec", "dataVolumeTemplates"]);
}

/** The machine has the wanted template: what of its running instance? */
function judgeInstance(vm: Vm, instance: Instance | undefined, context: Context): Step {
  const { now } = context.seen;
  const isNew = now < updatedAt(vm, now) + BOOT_SEEN_AFTER_MS;
  // What boots next may be the template before, whatever ran until now.
  const next: Step = isNew ? { kind: "wait", why: "it has only just got the new template" } : NONE;
  if (instance === undefined || instance.final) return next;
  const running = revisionOf(instance);
  if (running === revisionOf(vm)) return instance.terminating ? next : NONE;
  if (instance.terminating) return { kind: "wait", why: "what runs an older template is on its way out" };
  const { change = "restart" } = originOf(context, vm, running);
  if (change === "none" || change === "metadata")
    return { kind: "label", instance, why: "only its revision has another name" };
  if (change === "replace") return { kind: "replace", why: DISKS_CHANGED };
  if (vm.requested) return { kind: "wait", why: "it is about to stop or to start", requested: instance };
  if (now < updatedAt(vm, now) + UPDATE_SEEN_AFTER_MS)
    return { kind: "wait", why: "it has only just got the new template" };
  if (change === "live" && vm.spec !== undefined) return { kind: "live", instance, spec: vm.spec };
  return { kind: "restart", instance, why: "it runs an older template" };
}

/** What becomes of a change that a running guest can take, now that the cluster's way with it is known. */
function settleLive(judged: Judged, { liveUpdates, now }: Observation): Judged {
  const { vm, step } = judged;
  if (step.kind !== "live") return judged;
  const { instance, spec } = step;
  const settle = (next: Step): Judged => ({ ...judged, step: next });
  if (liveUpdates !== true) return settle({ kind: "restart", instance, why: "it runs an older template" });
  if (vm.restartRequired) return settle({ kind: "restart", instance, why: "KubeVirt cannot change it while it runs" });
  if (showsLiveFields(instance.spec, spec))
    return settle({ kind: "label", instance, why: "it was updated while it ran" });
  const isLate = now >= updatedAt(vm, now) + LIVE_UPDATE_WITHIN_MS;
  return settle(
    isLate
      ? { kind: "restart", instance, why: "the change did not reach it while it ran" }
      : { kind: "wait", why: "KubeVirt is changing it while it runs" },
  );
}

/** The template that made a machine or its instance, and what the one in force means for it. */
interface Origin {
  /** Undefined when the revision is lost, or another's. */
  readonly base: PoolSpec | undefined;
  readonly change: Change | undefined;
}

/** Each revision is compared once: all machines of a pool differ in their numbers alone. */
function originOf(context: Context, vm: Vm, revision = ""): Origin {
  const { seen, spec, target, origins } = context;
  if (revision === target) return { base: spec, change: "none" };
  const known = origins.get(revision);
  if (known !== undefined) return known;
  const own = ownRevision(seen.pool, seen.revisions, revision);
  const lost = takenName(seen, target).includes(revision) ? { base: spec, change: "none" as const } : LOST;
  const origin = own?.spec ? compare(context, own.spec, { vm, generation: own.generation }) : lost;
  origins.set(revision, origin);
  return origin;
}

/**
 * The name that the reference gives to the revision of this generation, where an earlier pool's object has it. The reference
 * trusts that one, so its machines carry the name though they were made from the template in force: no other machine of this
 * pool can. They get the revision's new name; nothing restarts.
 */
function takenName({ pool, revisions }: Observation, target: string): readonly string[] {
  const name = revisionName(pool.name, pool.generation);
  const isTaken = name !== target && revisions.has(name) && ownRevision(pool, revisions, name) === undefined;
  return isTaken ? [name] : [];
}

const LOST: Origin = { base: undefined, change: undefined };

/**
 * Naming counts when it was changed since this deployment looks after the pool: taking over restarts nothing. A guest that
 * restarts for another reason takes the names along, as it does with the reference.
 */
function compare(
  { claim, spec }: Context,
  from: PoolSpec,
  { vm, generation = 0 }: { readonly vm: Vm; readonly generation: number | undefined },
): Origin {
  const since = claim?.since;
  const ordinal = vm.ordinal ?? 0;
  const counts = since !== undefined && (generation >= since.generation || namingOf(spec) !== since.naming);
  const change = classifyChange(from, spec, ordinal, { naming: counts });
  if (counts || change === "restart") return { base: from, change };
  return { base: { ...from, nameGeneration: spec.nameGeneration }, change };
}

interface Acting extends Finishing {
  readonly instances: readonly Instance[];
  readonly instanceOf: ReadonlyMap<string, Instance>;
}

function act(input: Acting, judged: readonly Judged[]): Update {
  const { seen, spec, limits, target, leaving } = input;
  const moves = judged.flatMap(({ vm, step }) =>
    step.kind === "move" ? [moveAction(seen.now, { vm, base: step.base, spec, target })] : [],
  );
  const labels = judged.flatMap(({ vm, step }) =>
    step.kind === "label"
      ? [{ kind: "labelInstance", instance: step.instance, revision: revisionOf(vm) ?? target, why: step.why } as const]
      : [],
  );
  const { waiting, ...guarded } = chooseGuarded(input, judged);
  const reasons = explain(input, judged, waiting);
  const update: Update = {
    ...NOTHING,
    ...guarded,
    actions: [...moves.slice(0, limits.updatesMax), ...labels.slice(0, limits.updatesMax)],
    reasons,
  };
  // One that is to go may yet stay, and was not looked at.
  if (leaving.length > 0) return update;
  if (judged.every(({ step }) => step.kind === "none")) return finish(input, update);
  // What holds some of them back may last: revisions that nothing names go all the same.
  const isIdle = judged.every(({ step }) => step.kind === "none" || step.kind === "wait");
  return isIdle ? (prune(input, update) ?? update) : update;
}

interface Move {
  readonly vm: Vm;
  readonly base: PoolSpec | undefined;
  readonly spec: PoolSpec;
  readonly target: string;
}

function moveAction(now: number, { vm, base, spec, target }: Move): Action {
  const patch = moveVm(vm, { base, target: spec, ordinal: vm.ordinal ?? 0, revision: target });
  const at = new Date(now).toISOString();
  const annotations = { ...recordOf(patch.metadata?.["annotations"]), [UPDATED_ANNOTATION]: at };
  const why = base === undefined ? "its revision is lost" : "it was made from an older template";
  return {
    kind: "updateVm",
    vm,
    revision: target,
    patch: { ...patch, metadata: { ...patch.metadata, annotations } },
    why,
  };
}

/** Restarts and replacements: first those that are claimed already, then by the policy's order, as far as the budget goes. */
function chooseGuarded(input: Acting, judged: readonly Judged[]) {
  const { seen, spec, claim, claimedDeletes, leaving, limits } = input;
  const due = judged.filter(({ step }) => step.kind === "restart" || step.kind === "replace");
  const dueOf = new Map(due.map((entry) => [entry.vm, entry]));
  const wasClaimed = ({ vm, step }: Judged) =>
    step.kind === "restart" ? isClaimed(step.instance, claim?.restart ?? []) : claimedDeletes.includes(vm);
  const policy = spec.updateStrategy?.proactive?.selectionPolicy?.sortPolicy;
  const order = rank(seen.pool, [...dueOf.keys()], policy, { notReadyFirst: true });
  const ranked = order.flatMap((vm) => dueOf.get(vm) ?? []);
  let budget = budgetOf(input);
  const taken: Judged[] = [];
  const waiting: Judged[] = [];
  for (const entry of [...ranked.filter(wasClaimed), ...ranked.filter((one) => !wasClaimed(one))]) {
    const available = isAvailable(entry.vm, entry.instance);
    const isFull = taken.length >= limits.restartsMax || taken.length + leaving.length >= CLAIM_ITEMS_MAX;
    const isFresh = !wasClaimed(entry) && isFull;
    const isYoung =
      !available && !wasClaimed(entry) && seen.now < (entry.instance ?? entry.vm).createdAt + SPARE_AFTER_MS;
    if (isFresh || isYoung || (available && budget <= 0)) waiting.push(entry);
    else {
      taken.push(entry);
      if (available) budget -= 1;
    }
  }
  const restarts = taken.flatMap(({ vm, step }): Restart[] =>
    step.kind === "restart" ? [{ kind: "restartInstance", vm, instance: step.instance, why: step.why }] : [],
  );
  const replacements = taken.flatMap(({ vm, step }) => (step.kind === "replace" ? [vm] : []));
  // Asked for and not yet begun: claimed until the instance goes.
  const requested = judged.flatMap(({ vm, step }) =>
    step.kind === "wait" && step.requested !== undefined && isClaimed(step.requested, claim?.restart ?? [])
      ? [{ vm, instance: step.requested }]
      : [],
  );
  const claimedRestarts = [...restarts.map(({ vm, instance }) => ({ vm, instance })), ...requested];
  return {
    restarts: restarts.slice(0, limits.restartsMax),
    claimedRestarts,
    replacements: replacements.slice(0, limits.restartsMax),
    claimedReplacements: replacements,
    revoke: revocations(input, { restarts: claimedRestarts, replacements }),
    waiting,
  };
}

/** How many available machines may become unavailable now. */
function budgetOf({ spec, members, leaving, instanceOf }: Acting): number {
  const replicas = spec.replicas ?? 1;
  const staying = members.filter((vm) => !leaving.includes(vm));
  // One that was asked to stop is as good as stopped: by its request a restart of ours goes on after its claim is done.
  const unavailable = staying.filter((vm) => vm.requested || !isAvailable(vm, instanceOf.get(vm.uid))).length;
  const missing = Math.max(0, replicas - staying.length);
  return resolveMaxUnavailable(spec.maxUnavailable, replicas) - unavailable - missing;
}

/** A percentage of `replicas` is rounded down, to 1 at least. */
export function resolveMaxUnavailable(value: PoolSpec["maxUnavailable"], replicas: number): number {
  if (typeof value === "number") return value;
  const percent = Number((value ?? "100%").slice(0, -1));
  return Math.max(1, Math.floor((percent * replicas) / 100));
}

/** By the UID of their machine. */
export function byMachine(instances: readonly Instance[]): ReadonlyMap<string, Instance> {
  const ordered = instances.toSorted(byNameAndUid);
  return new Map(ordered.flatMap((instance) => (instance.vmUid === undefined ? [] : [[instance.vmUid, instance]])));
}

/** Its guest runs and is ready, maybe not for long: replacing one that was asked to stop costs budget, too. */
function isAvailable(vm: Vm, instance: Instance | undefined): boolean {
  return !vm.terminating && instance !== undefined && !instance.terminating && instance.ready;
}

/** Nothing is to be restarted or replaced: what an earlier pass claimed must not land late. */
function withdraw(input: UpdateInput): Update {
  const { seen, claim } = input;
  if ((claim?.restart.length ?? 0) > 0 && seen.instances === undefined)
    return { ...NOTHING, needs: [{ read: "instances" }] };
  const revoke = revocations({ ...input, instances: seen.instances ?? [] }, { restarts: [], replacements: [] });
  return { ...NOTHING, revoke };
}

function revocations(
  { claim, members, claimedDeletes, instances }: UpdateInput & { readonly instances: readonly Instance[] },
  wanted: { readonly restarts: readonly { readonly instance: Instance }[]; readonly replacements: readonly Vm[] },
): Action[] {
  const unfinished = instances.filter((instance) => !instance.terminating && isClaimed(instance, claim?.restart ?? []));
  const isWanted = (instance: Instance) => wanted.restarts.some((restart) => restart.instance === instance);
  const dropped = unfinished.filter((instance) => !isWanted(instance)).sort(byNameAndUid);
  const why = "an earlier pass claimed it, and it is no longer wanted";
  return [
    ...dropped.map(
      (instance) =>
        ({ kind: "revokeRestart", instance, vm: members.find(({ uid }) => uid === instance.vmUid), why }) as const,
    ),
    ...claimedDeletes
      .filter((vm) => !wanted.replacements.includes(vm))
      .map((vm) => ({ kind: "revokeDelete", vm, why }) as const),
  ];
}

/** Every machine follows the template: revisions that nothing names any more go, then the claim says so. */
function finish(input: Finishing, update: Update): Update {
  const { seen, spec, live, relabelled, target, strategy } = input;
  const pruned = prune(input, update);
  if (pruned !== undefined) return pruned;
  const record = (revisions: readonly string[], instances: boolean): Update => {
    return { ...update, rollout: recordRollout(seen.pool, spec, { revisions, instances }) };
  };
  if (strategy === "unmanaged") return record([target], false);
  const revisions = [target, ...labelsOf(live, target)];
  if (strategy === "opportunistic") return record(revisions, false);
  // One whose labels left names the template that it was moved to, may come back before it is let go, and would be believed.
  if (seen.namespaceVms === undefined) return { ...update, needs: [{ read: "namespaceVms" }] };
  const mayReturn = relabelled.some(({ terminating }) => !terminating);
  return mayReturn ? update : record(revisions, true);
}

/** Takes away revisions that nothing names any more; undefined when there is none. */
function prune({ seen, claim, members, target, limits }: Finishing, update: Update): Update | undefined {
  if (seen.ownRevisions === undefined || seen.instances === undefined) {
    return { ...update, needs: [{ read: "instances" }] };
  }
  const named = new Set([
    target,
    ...members.filter(({ terminating }) => !terminating).flatMap(revisionsIn),
    // One on its way out is compared with nothing any more.
    ...seen.instances.filter(({ terminating }) => !terminating).map(revisionOf),
  ]);
  const unused = seen.ownRevisions.filter(({ name }) => !named.has(name)).sort(byNameAndUid);
  // While the one in force is not made yet, another may hold its template.
  const isMade = seen.ownRevisions.some(({ name }) => name === target);
  if (unused.length === 0 || !isMade) return undefined;
  // A machine that is still to appear may name one of them.
  if ((claim?.create.size ?? 0) > 0) return update;
  const prunes = unused.map((revision) => ({ kind: "pruneRevision", revision, why: "no machine names it" }) as const);
  return { ...update, actions: prunes.slice(0, limits.updatesMax) };
}

interface Finishing extends UpdateInput {
  readonly target: string;
  readonly strategy: Strategy;
  readonly live: readonly Vm[];
}

/** The revisions that machines name besides the target. */
function labelsOf(live: readonly Vm[], target: string): readonly string[] {
  const names = live.map(revisionOf).filter((name) => name !== undefined);
  return [...new Set(names)].filter((name) => name !== target).sort();
}

function revisionsIn(vm: Vm): readonly (string | undefined)[] {
  return [revisionOf(vm), specRevisionOf(vm)];
}

/** When a roll-out last gave the machine another template, in epoch milliseconds; 0 when none did, or nobody knows. */
export function updatedAt(vm: Vm, now: number): number {
  const time = Date.parse(vm.annotations[UPDATED_ANNOTATION] ?? "");
  return Number.isNaN(time) || time > now + CLOCK_SLACK_MS ? 0 : time;
}

function explain({ target, spec, live }: Acting, judged: readonly Judged[], waiting: readonly Judged[]): string[] {
  const toGo = judged.filter(({ step }) => step.kind !== "none");
  if (toGo.length === 0) return [];
  const limit =
    waiting.length === 0
      ? ""
      : `; ${waiting.length} wait for others to be ready (maxUnavailable ${spec.maxUnavailable ?? "100%"})`;
  const held = new Map<string, string[]>();
  for (const { vm, step } of toGo)
    if (step.kind === "wait") held.set(step.why, [...(held.get(step.why) ?? []), vm.name]);
  return [
    `roll-out of ${target}: ${toGo.length} of ${live.length} machines to go${limit}`,
    ...[...held].map(([why, names]) => `${namesShown(names)} not updated: ${why}`),
  ];
}

const NAMES_MAX = 5;

function namesShown(names: readonly string[]): string {
  const more = names.length - NAMES_MAX;
  return `${names.slice(0, NAMES_MAX).join(", ")}${more > 0 ? ` and ${more} more` : ""} ${names.length === 1 ? "is" : "are"}`;
}
