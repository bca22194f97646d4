/** Decides what one pool needs next; performs no I/O. The one entry to all other rules of this folder. */
import { adviseOwner, announceOverlap } from "./advice.ts";
import {
  CLAIM_ITEMS_MAX,
  type Claim,
  type ClaimItems,
  claimedObject,
  type Ledger,
  QUIET_AFTER_MS,
  type Rollout,
  readClaim,
  unfinishedCreates,
} from "./claim.ts";
import { planDiskCare, unfitDisks } from "./disks.ts";
import { describeProblems } from "./errors.ts";
import { type Healing, ordinalsInCare, planHealing } from "./healing.ts";
import { byNameAndUid, isBereft, isLeftBehind, type Membership, sortMembership } from "./membership.ts";
import {
  type Disk,
  type Instance,
  isOwnedBy,
  type Pool,
  type PoolSpec,
  type Revision,
  revisionOf,
  type Vm,
} from "./model.ts";
import { CLAIM_ANNOTATION, ordinalOf, POOL_FINALIZER, revisionName, vmName } from "./names.ts";
import { chooseRevision, type KnownRevisions, type RevisionChoice } from "./revisions.ts";
import { keepsDisks, planScaleIn, type ScaleIn, scaleInHold } from "./scale-in.ts";
import { planScaleOut, type ScaleOut } from "./scale-out.ts";
import { findSecondWriter } from "./second-writer.ts";
import { compareText } from "./selector.ts";
import type { Announcement } from "./status.ts";
import type { LivingPool } from "./strays.ts";
import { byMachine, isOfTemplate, isRolledOut, planUpdate, recordRollout, type Update } from "./update.ts";
import type { Verdict } from "./verdict.ts";

/** Everything that a decision depends on, read in the order pool, then VMs. */
export interface Observation {
  /** The API server's clock at the read of the pool, in epoch milliseconds: all passes of a cluster share it. */
  readonly now: number;
  readonly pool: Pool;
  readonly verdict: Verdict;
  /** VMs that the pool's selector matches, whoever owns them; empty for an illegal or deleting pool. */
  readonly selected: readonly Vm[];
  /** Metadata of every VM of the namespace; undefined when they were not read. */
  readonly namespaceVms: readonly Vm[] | undefined;
  /** ControllerRevisions that were asked for by name. */
  readonly revisions: KnownRevisions;
  /** Instances of the pool's machines, and the metadata of the revisions that the pool owns; undefined when they were not read. */
  readonly instances: readonly Instance[] | undefined;
  readonly ownRevisions: readonly Revision[] | undefined;
  /** The cluster changes running guests where it can (`vmRolloutStrategy: LiveUpdate`); undefined when it was not asked. */
  readonly liveUpdates: boolean | undefined;
  /** Metadata of the namespace's instances that no machine controls; undefined when they were not read. */
  readonly looseInstances: readonly Instance[] | undefined;
  /** Disks by the UID of the VM whose spec names them, as far as they were read. */
  readonly disks: ReadonlyMap<string, readonly Disk[]>;
  /** UIDs of VMs that were read on their own and whose spec is not what the API promises. */
  readonly specless: ReadonlySet<string>;
  /** Disks that were kept for the pool, in use or not; undefined when they were not read. */
  readonly keptDisks: readonly Disk[] | undefined;
  /** UID of the pool's namespace; empty when it may not be read, undefined when it was not. */
  readonly namespaceUid: string | undefined;
  /** All pools of the namespace, read after the machines; undefined when they were not read. */
  readonly livingPools: readonly LivingPool[] | undefined;
  readonly ledger: Ledger;
  /** The deployment that is to act on the plan; undefined when nobody is. */
  readonly by: string | undefined;
}

/** What observe must read in addition before a decision is possible. */
export type Need =
  | {
      readonly read:
        | "namespaceVms"
        | "instances"
        | "looseInstances"
        | "liveUpdates"
        | "keptDisks"
        | "namespace"
        | "livingPools";
    }
  | { readonly read: "revisions"; readonly names: readonly string[] }
  /** `specs` of machines of which only metadata are known. */
  | { readonly read: "specs" | "disks"; readonly vms: readonly Vm[] };

/** How much one loop of a pass may do of each; all 0 closes the pass without acting. */
export interface Limits {
  readonly createsMax: number;
  readonly deletesMax: number;
  readonly updatesMax: number;
  readonly restartsMax: number;
}

/** In the order in which they are done. Each carries the reason for it. */
export type Action =
  /** Removes our owner reference and finalizer from a machine whose labels left the pool. */
  | { readonly kind: "releaseVm"; readonly vm: Vm; readonly why: string }
  /** Changes who owns a disk of a machine, so that it outlives it, or does not. `metadata` is a merge patch. */
  | {
      readonly kind: "changeDisk";
      readonly vm: Vm;
      readonly disk: Disk;
      readonly metadata: object;
      /** The machine is no owner any more. */
      readonly released: boolean;
      readonly why: string;
    }
  /** Notes on a machine which of its disks outlive it; null for none. */
  | { readonly kind: "markVm"; readonly vm: Vm; readonly disks: string | null; readonly why: string }
  | { readonly kind: "dropVmFinalizer"; readonly vm: Vm; readonly why: string }
  | { readonly kind: "dropPoolFinalizer"; readonly why: string }
  /** Makes a delete miss that an earlier pass claimed and that may still be under way. */
  | { readonly kind: "revokeDelete"; readonly vm: Vm; readonly why: string }
  /** The same for a restart. `vm` is undefined when the instance's machine is not the pool's any more. */
  | { readonly kind: "revokeRestart"; readonly instance: Instance; readonly vm: Vm | undefined; readonly why: string }
  /** Writes the claim, and the pool's finalizer where it is missing; nothing after it is done unless it succeeds. */
  | {
      readonly kind: "writeClaim";
      readonly items: ClaimItems;
      readonly addFinalizer: boolean;
      /** What the annotation of healing is to say, null for nothing; undefined to leave it. */
      readonly healing: string | null | undefined;
      readonly why: string;
    }
  | { readonly kind: "createRevision"; readonly name: string; readonly why: string }
  | { readonly kind: "createVm"; readonly ordinal: number; readonly revision: string; readonly why: string }
  | {
      readonly kind: "deleteVm";
      readonly vm: Vm;
      /** The revision of the machine that is to take its place; undefined when none is. */
      readonly successor?: string;
      /** Why it could not start, where it is healed. */
      readonly complaint?: string;
      readonly why: string;
    }
  /** Gives a machine another template; `patch` is a JSON merge patch. */
  | {
      readonly kind: "updateVm";
      readonly vm: Vm;
      readonly revision: string;
      readonly patch: object;
      readonly why: string;
    }
  | { readonly kind: "restartInstance"; readonly vm: Vm; readonly instance: Instance; readonly why: string }
  | { readonly kind: "labelInstance"; readonly instance: Instance; readonly revision: string; readonly why: string }
  | { readonly kind: "pruneRevision"; readonly revision: Revision; readonly why: string };
export type ActionKind = Action["kind"];

export interface Plan {
  /** Not empty: read these too and plan again; there are no actions then. */
  readonly needs: readonly Need[];
  readonly actions: readonly Action[];
  /** What was decided and why, for people; also what was left undone. */
  readonly reasons: readonly string[];
  /** What the pool's owner must hear of when the plan is carried out. */
  readonly announcements: readonly Announcement[];
  /** Machines of the pool; undefined when they were not read, because the pool is illegal or deleting. */
  readonly members: readonly Vm[] | undefined;
}

/** What a part of the planner decides. */
type Part = Omit<Plan, "members">;

const NOTHING: Part = { needs: [], actions: [], reasons: [], announcements: [] };

/** Decides what one pool needs next; total over every observation. */
export function planPass(seen: Observation, limits: Limits): Plan {
  if (seen.pool.deleting) return { ...planDeletion(seen), members: undefined };
  const { verdict } = seen;
  if (!verdict.legal) {
    const parting = planParting(seen);
    const held = `held: ${describeProblems(verdict.problems)}`;
    return { ...parting, reasons: [held, ...parting.reasons], members: undefined };
  }
  const parts = sortMembership(seen.pool, verdict.selector, seen);
  const upkeep = planUpkeep(seen, parts);
  const growth = planGrowth(seen, { spec: verdict.spec, parts, limits });
  const needs = [...upkeep.needs, ...growth.needs];
  return {
    needs,
    actions: needs.length > 0 ? [] : [...upkeep.actions, ...growth.actions],
    reasons: [...upkeep.reasons, ...growth.reasons, ...adviseOwner(seen.pool, verdict)],
    announcements: [...growth.announcements, ...announceOverlap(seen.pool, verdict, seen.selected)],
    members: parts.members,
  };
}

/**
 * Of an illegal pool nothing is changed but what somebody deletes, which would hang until its owner corrects the pool. What
 * becomes of disks stands in a part of the spec of its own: where that cannot be read they are kept.
 */
function planParting(seen: Observation): Part {
  const { pool, namespaceVms = [] } = seen;
  const vms = namespaceVms.filter((vm) => vm.terminating && vm.finalizers.includes(POOL_FINALIZER)).sort(byNameAndUid);
  const leaving = vms.filter((vm) => isOwnedBy(vm, pool));
  const care = planDiskCare({ seen, leaving, live: [], released: [] });
  const bereft = freeBereft(
    seen,
    vms.filter((vm) => isBereft(vm, pool)),
  );
  const needs = [...care.needs, ...bereft.needs];
  const drops = [...care.free, ...vms.filter((vm) => isLeftBehind(vm, pool, undefined))];
  const why = "it is being deleted";
  const actions = [...care.actions, ...drops.map((vm) => ({ kind: "dropVmFinalizer", vm, why }) as const)];
  return { ...NOTHING, needs, reasons: care.reasons, actions: needs.length > 0 ? [] : [...actions, ...bereft.actions] };
}

/** Another pool of the same name is gone for good once this one is seen to live after its machines were. */
function freeBereft({ pool, livingPools }: Observation, bereft: readonly Vm[]): Part {
  if (bereft.length > 0 && livingPools === undefined) return { ...NOTHING, needs: [{ read: "livingPools" }] };
  const lives = livingPools?.some(({ uid }) => uid === pool.uid) === true;
  const why = `an earlier pool ${pool.name} controlled it, which is gone`;
  return { ...NOTHING, actions: lives ? bereft.map((vm) => ({ kind: "dropVmFinalizer", vm, why }) as const) : [] };
}

const LABELS_LEFT = "its labels no longer match spec.selector";

/** Finishes machines on their way out and lets go of those that left; allowed in every state of the pool. */
function planUpkeep(seen: Observation, { members, relabelled, detached, bereft }: Membership): Part {
  const isLive = ({ terminating }: Vm) => !terminating;
  const leaving = [...members, ...relabelled].filter((vm) => vm.terminating && vm.finalizers.includes(POOL_FINALIZER));
  const care = planDiskCare({ seen, leaving, live: members.filter(isLive), released: relabelled.filter(isLive) });
  const held = leaving.filter((vm) => !care.free.includes(vm));
  const released = relabelled.filter((vm) => !held.includes(vm));
  const finished = care.free.filter((vm) => !relabelled.includes(vm));
  const others = freeBereft(seen, bereft);
  return {
    ...NOTHING,
    needs: [...care.needs, ...others.needs],
    reasons: care.reasons,
    actions: [
      ...care.actions,
      ...released.map((vm) => ({ kind: "releaseVm", vm, why: LABELS_LEFT }) as const),
      ...detached.map((vm) => ({ kind: "dropVmFinalizer", vm, why: "no pool controls it any more" }) as const),
      ...finished.map((vm) => ({ kind: "dropVmFinalizer", vm, why: "it is being deleted" }) as const),
      ...others.actions,
    ],
  };
}

interface GrowthInput {
  readonly spec: PoolSpec;
  readonly parts: Membership;
  readonly limits: Limits;
}

/** Brings the number of machines to `replicas` and their template to the one in force, under the protocol of the claim. */
function planGrowth(seen: Observation, { spec, parts, limits }: GrowthInput): Part {
  const { pool, now } = seen;
  const second = findSecondWriter(seen);
  if (second !== undefined) return { ...NOTHING, reasons: [`held: ${second.message}`] };
  const claim = readClaim(pool.annotations?.[CLAIM_ANNOTATION], now);
  // The finalizer comes with the first claim: where it is, there was one.
  const isKnown = parts.members.length > 0 || pool.finalizers.includes(POOL_FINALIZER);
  if (claim === undefined && isKnown) return planFirstContact(seen);
  const { waitUntil = now } = claim ?? {};
  if (now < waitUntil) return { ...NOTHING, reasons: [describeWait(waitUntil)] };
  return grow(seen, { spec, parts, limits, claim });
}

function grow(seen: Observation, { spec, parts, limits, claim }: GrowthInput & { claim: Claim | undefined }): Part {
  const { pool, now, ledger } = seen;
  const replicas = spec.replicas ?? 1;
  const paused = spec.paused === true;
  // One that is still to be released counts until it is: its release may fail.
  const owned = [...parts.members, ...parts.relabelled];
  const existing = owned.length;
  const unfinished = unfinishedCreates(claim, { ledger, now });
  const live = parts.members.filter(({ terminating }) => !terminating);
  const mayCreate = !paused && existing < replicas && limits.createsMax > 0;
  const isBehind = !paused && !isRolledOut(pool, spec, { claim, live });
  const choice = mayCreate || isBehind ? choose(seen, { spec, claim, live }) : undefined;
  const needs = growthNeeds(seen, { spec, mayCreate, unfinished: unfinished.size, choice });
  if (needs.length > 0) return { ...NOTHING, needs };
  const blocked = choice?.kind === "blocked" ? choice.why : undefined;
  const leftOut = [...unfitOrdinals(seen, spec), ...haunted(seen)];
  const hold = scaleInHold(spec);
  const surplus = paused || hold !== undefined ? 0 : Math.max(0, countNames(live) - replicas);
  const out = planScaleOut({
    replicas: paused || blocked !== undefined ? 0 : replicas,
    owned,
    taken: new Set([...parts.taken, ...leftOut.map(({ ordinal }) => ordinal)]),
    unfinished,
    preferred: ordinalsInCare(pool, spec),
    createsMax: limits.createsMax,
  });
  const claimed = claim?.delete ?? [];
  const down = planScaleIn({ pool, surplus, live, claimed, deletesMax: limits.deletesMax });
  const healing = heal(seen, { spec, limits, down, members: parts.members, canGrow: blocked === undefined });
  if (healing.needsInstances) return { ...NOTHING, needs: [{ read: "instances" }] };
  const target = choice?.kind === "existing" || choice?.kind === "missing" ? choice.name : undefined;
  const update = planUpdate({
    seen,
    spec,
    claim,
    members: parts.members,
    relabelled: parts.relabelled,
    leaving: [...down.claimed, ...healing.claimed],
    claimedDeletes: down.revoke.filter((vm) => !healing.claimed.includes(vm)),
    target,
    limits,
  });
  const decision: Decision = {
    claim,
    choice,
    out,
    down,
    healing,
    update,
    target,
    spec,
    shortage: replicas - existing,
    isEmpty: existing === 0,
  };
  return {
    needs: update.needs,
    actions: claimAndAct(seen, decision),
    reasons: [
      ...(blocked === undefined ? [] : [`held: ${blocked}`]),
      ...explain({ replicas, existing, live: live.length, paused, hold, out, unfinished: unfinished.size }),
      ...down.reasons,
      ...healing.reasons,
      ...update.reasons,
    ],
    announcements: [...announceGrowth(pool, { claim, out, down, leftOut }), ...healing.announcements],
  };
}

/** Lists of different instants may show a machine and the one that was made in its stead: only one of them is there. */
function countNames(vms: readonly Vm[]): number {
  return new Set(vms.map(({ name }) => name)).size;
}

interface HealInput {
  readonly spec: PoolSpec;
  readonly limits: Limits;
  readonly down: ScaleIn;
  readonly members: readonly Vm[];
  readonly canGrow: boolean;
}

/** Which of the machines that stay are replaced because they cannot start. */
function heal({ pool, now, instances }: Observation, { spec, limits, down, members, canGrow }: HealInput): Healing {
  return planHealing({
    ...{ pool, spec, now, canGrow },
    staying: members.filter((vm) => !down.claimed.includes(vm)),
    instanceOf: instances && byMachine(instances),
    claimedDeletes: down.revoke,
    claimsMax: CLAIM_ITEMS_MAX - down.claimed.length,
    deletesMax: Math.max(0, limits.deletesMax - down.remove.length),
  });
}

/** The revision that new and updated machines are to name. */
function choose(
  { pool, revisions }: Observation,
  { spec, claim, live }: { readonly spec: PoolSpec; readonly claim: Claim | undefined; readonly live: readonly Vm[] },
): RevisionChoice {
  const { rollout } = claim ?? {};
  const [recorded] = rollout && isOfTemplate(rollout, pool, spec) ? rollout.revisions : [];
  // It is recorded before it is made, and an unmanaged pool may never have come to make it.
  const isKept = recorded !== undefined && revisions.get(recorded) !== "absent";
  const preferred = isKept ? [recorded] : labelsByUse(live);
  return chooseRevision(pool, spec, { known: revisions, preferred, recorded });
}

/** How many of the revisions that machines name are looked at for one with the template in force. */
const PREFERRED_MAX = 20;

function labelsByUse(live: readonly Vm[]): readonly string[] {
  const uses = new Map<string, number>();
  for (const name of live.map(revisionOf)) if (name !== undefined) uses.set(name, (uses.get(name) ?? 0) + 1);
  return [...uses]
    .sort(([a, m], [b, n]) => n - m || compareText(a, b))
    .slice(0, PREFERRED_MAX)
    .map(([name]) => name);
}

interface NeedsInput {
  readonly spec: PoolSpec;
  readonly mayCreate: boolean;
  readonly unfinished: number;
  readonly choice: RevisionChoice | undefined;
}

function growthNeeds(seen: Observation, { spec, mayCreate, unfinished, choice }: NeedsInput): readonly Need[] {
  const needs: Need[] = [];
  if ((mayCreate || unfinished > 0) && seen.namespaceVms === undefined) needs.push({ read: "namespaceVms" });
  if (choice?.kind === "unread") needs.push({ read: "revisions", names: choice.names });
  const hasDisks = (spec.virtualMachineTemplate.spec.dataVolumeTemplates ?? []).length > 0;
  if (mayCreate && hasDisks && seen.keptDisks === undefined) needs.push({ read: "keptDisks" });
  if (mayCreate && seen.looseInstances === undefined) needs.push({ read: "looseInstances" });
  return needs;
}

/** An ordinal that gets no machine though none is there, and the event that says why. */
interface LeftOut {
  readonly ordinal: number;
  readonly reason: string;
  readonly why: string;
}

function unfitOrdinals({ pool, keptDisks = [] }: Observation, spec: PoolSpec): readonly LeftOut[] {
  return unfitDisks(pool, spec, keptDisks).map(({ ordinal, disk, why }) => {
    return { ordinal, reason: "KeptDiskUnfit", why: `disk ${disk} ${why}; delete the disk` };
  });
}

/**
 * Guests that outlive their machine, by `kubectl delete vm --cascade=orphan`, or that never had one. KubeVirt gives each to the
 * next machine of its name: it would be the pool's, to restart and delete, and run what the pool never gave it.
 */
function haunted({ pool, looseInstances = [] }: Observation): readonly LeftOut[] {
  return looseInstances
    .filter(({ terminating }) => !terminating)
    .flatMap(({ name }) => {
      const ordinal = ordinalOf(pool.name, name);
      const why = `instance ${name} has no machine, and a new one would take it over; delete the instance`;
      return ordinal === undefined ? [] : [{ ordinal, reason: "InstanceLeftBehind", why }];
    })
    .sort((a, b) => a.ordinal - b.ordinal);
}

interface Announced {
  readonly claim: Claim | undefined;
  readonly out: ScaleOut;
  readonly down: ScaleIn;
  readonly leftOut: readonly LeftOut[];
}

/** What stands in the way of a machine that is made now; and once for each generation, for a surplus comes with one, what blocks scale-in. */
function announceGrowth(pool: Pool, { claim, out, down, leftOut }: Announced): readonly Announcement[] {
  const inTheWay = leftOut.filter(({ ordinal }) => ordinal < Math.max(...out.create));
  const blocked = isSeenTo(pool, claim) ? [] : down.reasons;
  const warn = (reason: string, message: string): Announcement => {
    return { type: "Warning", reason, message, key: String(pool.generation) };
  };
  return [
    ...inTheWay.map(({ ordinal, reason, why }) =>
      warn(reason, `ordinal ${ordinal} is left out: ${why} to use the ordinal again`),
    ),
    ...blocked.map((message) => warn("ScaleInBlocked", message)),
  ];
}

/** Nobody knows what is under way: say so on the pool, and act when it can no longer take effect. */
function planFirstContact({ pool, now }: Observation): Part {
  const items: ClaimItems = {
    create: new Map(),
    delete: [],
    restart: [],
    rollout: undefined,
    waitUntil: now + QUIET_AFTER_MS,
  };
  const why = "the pool was looked after before, but has no readable claim";
  return { ...NOTHING, actions: [writeClaim(pool, items, why)], reasons: [`${why}: waiting before acting`] };
}

function describeWait(until: number): string {
  return `waiting until ${new Date(until).toISOString()}: calls of an unknown earlier pass may still land`;
}

interface Decision {
  readonly claim: Claim | undefined;
  readonly choice: RevisionChoice | undefined;
  readonly out: ScaleOut;
  readonly down: ScaleIn;
  readonly healing: Healing;
  readonly update: Update;
  readonly target: string | undefined;
  readonly spec: PoolSpec;
  /** Machines missing. */
  readonly shortage: number;
  /** The pool has no machine at all. */
  readonly isEmpty: boolean;
}

/** Revocations, then the claim, then what it allows, then what needs none. */
function claimAndAct(seen: Observation, decision: Decision): Action[] {
  const { claim, out, down, healing, update } = decision;
  const { pool, now } = seen;
  const create = new Map([...out.carried, ...out.create.map((ordinal) => [ordinal, now] as const)]);
  const items: ClaimItems = {
    create,
    delete: [...down.claimed, ...healing.claimed, ...update.claimedReplacements].map((vm) =>
      claimedObject(vm, vm.ordinal),
    ),
    restart: update.claimedRestarts.map(({ vm, instance }) => claimedObject(instance, vm.ordinal)),
    rollout: rolloutAfter(pool, decision),
    waitUntil: undefined,
  };
  const successorOf = (vm: Vm) => decision.target ?? revisionOf(vm) ?? revisionName(pool.name, pool.generation);
  const guarded = [out.create, down.remove, healing.remove, update.replacements, update.restarts];
  const isGuarded = guarded.some(({ length }) => length > 0);
  // A pass that was overtaken must not prune the revision of a newer template, which nothing names yet, nor move a machine
  // that another pass has by now put on record as rolled out: what it runs would not be looked at again.
  const acting =
    isGuarded ||
    healing.memory !== undefined ||
    update.actions.some(({ kind }) => kind === "pruneRevision" || kind === "updateVm");
  const why = isGuarded
    ? "before machines are created, deleted or restarted"
    : `generation ${pool.generation} is seen to`;
  return [
    ...update.revoke,
    ...(acting || !isSettled(pool, claim, items) ? [{ ...writeClaim(pool, items, why), healing: healing.memory }] : []),
    ...planRevision(decision),
    ...planCreates(decision),
    ...down.remove.map((vm) => ({ kind: "deleteVm", vm, why: describeSurplus(vm) }) as const),
    ...healing.remove.map(
      ({ vm, why }) =>
        ({ kind: "deleteVm", vm, successor: successorOf(vm), complaint: why, why: `it is healed: ${why}` }) as const,
    ),
    ...update.replacements.map(
      (vm) =>
        ({
          kind: "deleteVm",
          vm,
          successor: successorOf(vm),
          why: "a new machine with the template's disks replaces it",
        }) as const,
    ),
    ...update.restarts,
    ...update.actions,
  ];
}

/** The first machines of a new pool follow the template because nothing else can be there; an older pool may have revisions left. */
function rolloutAfter(pool: Pool, { claim, update, choice, spec, isEmpty }: Decision): Rollout | undefined {
  const isFirst = claim === undefined && isEmpty;
  if (!isFirst || choice === undefined || !("name" in choice)) return update.rollout;
  return recordRollout(pool, spec, { revisions: [choice.name], instances: true });
}

function planRevision({ choice, out, update }: Decision): Action[] {
  const isNamed = out.create.length > 0 || update.actions.some(({ kind }) => kind === "updateVm");
  if (choice?.kind !== "missing" || !isNamed) return [];
  return [{ kind: "createRevision", name: choice.name, why: "machines are to name it" }];
}

function planCreates({ out, choice, shortage }: Decision): Action[] {
  if (choice === undefined || !("name" in choice)) return [];
  const why = `${shortage} ${shortage === 1 ? "machine is" : "machines are"} missing`;
  return out.create.map((ordinal) => ({ kind: "createVm", ordinal, revision: choice.name, why }) as const);
}

function describeSurplus(vm: Vm): string {
  return vm.ready
    ? "the pool has more machines than spec.replicas"
    : "the pool has too many machines, and it is not ready";
}

/** A pass has claimed for this generation, and was free to act. */
function isSeenTo({ generation }: Pool, claim: Claim | undefined): claim is Claim {
  return claim !== undefined && claim.generation === generation && claim.waitUntil === undefined;
}

/**
 * The claim already says what it should; the pool carries its finalizer. Where nothing new is done, all that `items` names is
 * carried on from the claim: it is the same when it is as much.
 */
function isSettled(pool: Pool, claim: Claim | undefined, items: ClaimItems): boolean {
  return (
    isSeenTo(pool, claim) &&
    pool.finalizers.includes(POOL_FINALIZER) &&
    claim.create.size === items.create.size &&
    claim.delete.length === items.delete.length &&
    claim.restart.length === items.restart.length &&
    JSON.stringify(claim.rollout) === JSON.stringify(items.rollout)
  );
}

function writeClaim(pool: Pool, items: ClaimItems, why: string): Extract<Action, { kind: "writeClaim" }> {
  const addFinalizer = !pool.finalizers.includes(POOL_FINALIZER);
  return { kind: "writeClaim", items, addFinalizer, healing: undefined, why };
}

const DELETING = "the pool is being deleted";

/** A pool on its way out frees its machines; deleting or orphaning them is the garbage collector's work, unless disks are kept. */
function planDeletion(seen: Observation): Part {
  const { pool, namespaceVms, verdict, now, ledger } = seen;
  if (!pool.finalizers.includes(POOL_FINALIZER)) return { ...NOTHING, reasons: [DELETING] };
  if (namespaceVms === undefined) return { ...NOTHING, needs: [{ read: "namespaceVms" }] };
  const selector = verdict.legal ? verdict.selector : undefined;
  const vms = [...namespaceVms].sort(byNameAndUid);
  // Whoever took a machine's labels away has it for himself, though no pass had let go of it when its pool was deleted.
  const isTaken = (vm: Vm) => !vm.terminating && isOwnedBy(vm, pool) && selector?.matches(vm.labels) === false;
  const taken = vms.filter(isTaken);
  const owned = vms.filter((vm) => isOwnedBy(vm, pool) && vm.finalizers.includes(POOL_FINALIZER) && !isTaken(vm));
  const left = vms.filter((vm) => isLeftBehind(vm, pool, selector));
  if (taken.length + owned.length + left.length > 0) return freeMachines(seen, { taken, owned, left });
  const claim = readClaim(pool.annotations?.[CLAIM_ANNOTATION], now);
  // The finalizer came with a claim: where that is gone, somebody took it.
  if (claim === undefined) return planFirstContact(seen);
  const { waitUntil = now } = claim;
  if (now < waitUntil) return { ...NOTHING, reasons: [`${DELETING}: ${describeWait(waitUntil)}`] };
  const late = unfinishedCreates(claim, { ledger, now }).size;
  if (late > 0) {
    const reasons = [`${DELETING}: waiting because ${late} machines that were being created may still appear`];
    return { ...NOTHING, reasons };
  }
  return { ...NOTHING, actions: [{ kind: "dropPoolFinalizer", why: DELETING }], reasons: [DELETING] };
}

/** Finalizers of the garbage collector that say how the pool's machines are to be treated. */
const ORPHAN_FINALIZER = "orphan";
const FOREGROUND_FINALIZER = "foregroundDeletion";

/**
 * When the pool's disks outlive its machines, their finalizer may go only after the disks are released, and those may be
 * released only when the machine is on its way out, for KubeVirt takes them back while it lives. In the background the
 * collector would delete the machines after the pool is gone, which is too late: then we do, as the user asked.
 */
function freeMachines(
  seen: Observation,
  {
    taken,
    owned,
    left,
  }: { readonly taken: readonly Vm[]; readonly owned: readonly Vm[]; readonly left: readonly Vm[] },
): Part {
  const { pool } = seen;
  const leaving = owned.filter(({ terminating }) => terminating);
  const live = owned.filter(({ terminating }) => !terminating);
  const care = planDiskCare({ seen, leaving, live: [], released: taken });
  if (care.needs.length > 0) return { ...NOTHING, needs: care.needs, reasons: [DELETING] };
  const stays = !keepsDisks(pool.spec) || pool.finalizers.includes(ORPHAN_FINALIZER);
  const isCollected = pool.finalizers.includes(FOREGROUND_FINALIZER);
  const drops = [...left, ...care.free, ...(stays ? live : [])].sort(byNameAndUid);
  const why = `${DELETING}, and its disks are kept`;
  return {
    ...NOTHING,
    actions: [
      ...care.actions,
      ...taken.map((vm) => ({ kind: "releaseVm", vm, why: LABELS_LEFT }) as const),
      ...drops.map((vm) => ({ kind: "dropVmFinalizer", vm, why: DELETING }) as const),
      ...(stays || isCollected ? [] : live).map((vm) => ({ kind: "deleteVm", vm, why }) as const),
    ],
    reasons: [DELETING, ...care.reasons],
  };
}

interface Explained {
  readonly replicas: number;
  readonly existing: number;
  readonly live: number;
  readonly paused: boolean;
  readonly hold: string | undefined;
  readonly out: ScaleOut;
  readonly unfinished: number;
}

function explain({ replicas, existing, live, paused, hold, out, unfinished }: Explained): string[] {
  const reasons: string[] = [];
  const differs = existing < replicas || live > replicas;
  if (paused && differs) reasons.push(`paused: ${live} machines are left as they are, ${replicas} are wanted`);
  if (!paused && hold !== undefined && live > replicas) reasons.push(`${live - replicas} machines too many: ${hold}`);
  if (out.waits) {
    reasons.push(
      `waiting: ${unfinished} machines that were being created may still appear, ${Math.max(0, replicas - existing)} are missing`,
    );
  }
  return reasons;
}

/** The reason of an action in one line, for logs and the live view. */
export function describeAction(poolName: string, action: Action): string {
  switch (action.kind) {
    case "createVm":
      return `create ${vmName(poolName, action.ordinal)}: ${action.why}`;
    case "deleteVm":
      return `delete ${action.vm.name}: ${action.why}`;
    case "releaseVm":
      return `release ${action.vm.name}: ${action.why}`;
    case "dropVmFinalizer":
      return `drop the finalizer of ${action.vm.name}: ${action.why}`;
    case "dropPoolFinalizer":
      return `drop the pool's finalizer: ${action.why}`;
    case "revokeDelete":
      return `revoke the deletion of ${action.vm.name}: ${action.why}`;
    case "changeDisk":
      return `${action.released ? "release" : "change the owners of"} disk ${action.disk.name} of ${action.vm.name}: ${action.why}`;
    case "markVm":
      return `note the kept disks on ${action.vm.name}: ${action.why}`;
    case "revokeRestart":
      return `revoke the restart of ${action.instance.name}: ${action.why}`;
    case "updateVm":
      return `update ${action.vm.name} to ${action.revision}: ${action.why}`;
    case "restartInstance":
      return `restart ${action.vm.name}: ${action.why}`;
    case "labelInstance":
      return `label the instance ${action.instance.name} with ${action.revision}: ${action.why}`;
    case "pruneRevision":
      return `delete revision ${action.revision.name}: ${action.why}`;
    case "writeClaim":
      return `write the claim: ${action.why}`;
    case "createRevision":
      return `create revision ${action.name}: ${action.why}`;
  }
}
