/** Decides what one pool needs next; performs no I/O. The one entry to all other rules of this folder. */
import { adviseOwner } from "./advice.ts";
import {
  type Claim,
  type ClaimItems,
  claimedDelete,
  type Ledger,
  QUIET_AFTER_MS,
  readClaim,
  unfinishedCreates,
} from "./claim.ts";
import { describeProblems } from "./errors.ts";
import { byNameAndUid, isLeftBehind, type Membership, sortMembership } from "./membership.ts";
import { isOwnedBy, type Pool, type PoolSpec, type Revision, type Vm } from "./model.ts";
import { CLAIM_ANNOTATION, POOL_FINALIZER, vmName } from "./names.ts";
import { chooseRevision } from "./revisions.ts";
import { keepsDisks, planScaleIn, type ScaleIn, scaleInHold } from "./scale-in.ts";
import { planScaleOut, type ScaleOut } from "./scale-out.ts";
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
  /** The ControllerRevision named after the pool's generation; undefined when it was not read. */
  readonly revision: Revision | "absent" | undefined;
  readonly ledger: Ledger;
}

/** What observe must read in addition before a decision is possible. */
export type Need = "namespaceVms" | "revision";

export interface Limits {
  /** Creates and deletes of one loop of a pass; 0 closes the pass without acting. */
  readonly createsMax: number;
  readonly deletesMax: number;
}

/** In the order in which they are done. Each carries the reason for it. */
export type Action =
  /** Removes our owner reference and finalizer from a machine whose labels left the pool. */
  | { readonly kind: "releaseVm"; readonly vm: Vm; readonly why: string }
  | { readonly kind: "dropVmFinalizer"; readonly vm: Vm; readonly why: string }
  | { readonly kind: "dropPoolFinalizer"; readonly why: string }
  /** Makes a delete miss that an earlier pass claimed and that may still be under way. */
  | { readonly kind: "revokeDelete"; readonly vm: Vm; readonly why: string }
  /** Writes the claim, and the pool's finalizer where it is missing; nothing after it is done unless it succeeds. */
  | { readonly kind: "writeClaim"; readonly items: ClaimItems; readonly addFinalizer: boolean; readonly why: string }
  | { readonly kind: "createRevision"; readonly name: string; readonly why: string }
  | { readonly kind: "createVm"; readonly ordinal: number; readonly revision: string; readonly why: string }
  | { readonly kind: "deleteVm"; readonly vm: Vm; readonly why: string };
export type ActionKind = Action["kind"];

export interface Plan {
  /** Not empty: read these too and plan again; there are no actions then. */
  readonly needs: readonly Need[];
  readonly actions: readonly Action[];
  /** What was decided and why, for people; also what was left undone. */
  readonly reasons: readonly string[];
  /** Machines of the pool; undefined when they were not read, because the pool is illegal or deleting. */
  readonly members: readonly Vm[] | undefined;
}

/** Decides what one pool needs next; total over every observation. */
export function planPass(seen: Observation, limits: Limits): Plan {
  if (seen.pool.deleting) return planDeletion(seen);
  const { verdict } = seen;
  if (!verdict.legal) {
    return { needs: [], actions: [], reasons: [`held: ${describeProblems(verdict.problems)}`], members: undefined };
  }
  const parts = sortMembership(seen.pool, verdict.selector, seen);
  const upkeep = planUpkeep(verdict.spec, parts);
  const scale = planScale(seen, { spec: verdict.spec, parts, limits });
  return {
    needs: scale.needs,
    actions: scale.needs.length > 0 ? [] : [...upkeep.actions, ...scale.actions],
    reasons: [...upkeep.reasons, ...scale.reasons, ...adviseOwner(seen.pool, verdict)],
    members: parts.members,
  };
}

/** The ControllerRevision to read when `needs` asks for it is named by `revisionName(pool.name, pool.generation)`. */
type Step = Pick<Plan, "actions" | "reasons">;

/** Finishes machines on their way out and lets go of those that left; allowed in every state of the pool. */
function planUpkeep(spec: PoolSpec, { members, relabelled, detached }: Membership): Step {
  const leaving = members.filter((vm) => vm.terminating && vm.finalizers.includes(POOL_FINALIZER));
  const held = leaving.length > 0 && keepsDisks(spec);
  const actions: Action[] = [
    ...relabelled.map((vm) => ({ kind: "releaseVm", vm, why: "its labels no longer match spec.selector" }) as const),
    ...detached.map((vm) => ({ kind: "dropVmFinalizer", vm, why: "no pool controls it any more" }) as const),
    ...(held ? [] : leaving).map((vm) => ({ kind: "dropVmFinalizer", vm, why: "it is being deleted" }) as const),
  ];
  const reasons = held
    ? [`${leaving.length} deleted machines are held: statePreservation is not supported by this version`]
    : [];
  return { actions, reasons };
}

interface ScaleInput {
  readonly spec: PoolSpec;
  readonly parts: Membership;
  readonly limits: Limits;
}

/** Brings the number of machines to `replicas` under the protocol of the claim. */
function planScale(seen: Observation, { spec, parts, limits }: ScaleInput): Step & Pick<Plan, "needs"> {
  const { pool, now, ledger } = seen;
  const claim = readClaim(pool.annotations?.[CLAIM_ANNOTATION], now);
  // The finalizer comes with the first claim: where it is, there was one.
  const isKnown = parts.members.length > 0 || pool.finalizers.includes(POOL_FINALIZER);
  if (claim === undefined && isKnown) return planFirstContact(seen);
  if (claim?.waitUntil !== undefined && now < claim.waitUntil) {
    return {
      needs: [],
      actions: [],
      reasons: [describeWait(claim.waitUntil)],
    };
  }
  const replicas = spec.replicas ?? 1;
  const paused = spec.paused === true;
  // One that is still to be released counts until it is: its release may fail.
  const owned = [...parts.members, ...parts.relabelled];
  const existing = owned.length;
  const unfinished = unfinishedCreates(claim, { ledger, now });
  const mayCreate = !paused && existing < replicas && limits.createsMax > 0;
  if ((mayCreate || unfinished.size > 0) && seen.namespaceVms === undefined) {
    return { needs: mayCreate ? ["namespaceVms", "revision"] : ["namespaceVms"], actions: [], reasons: [] };
  }
  if (mayCreate && seen.revision === undefined) return { needs: ["revision"], actions: [], reasons: [] };
  const live = parts.members.filter(({ terminating }) => !terminating);
  const hold = scaleInHold(spec);
  const surplus = paused || hold !== undefined ? 0 : Math.max(0, live.length - replicas);
  const out = planScaleOut({
    replicas: paused ? 0 : replicas,
    owned,
    taken: parts.taken,
    unfinished,
    createsMax: limits.createsMax,
  });
  const down = planScaleIn({ pool, surplus, live, claimed: claim?.delete ?? [], deletesMax: limits.deletesMax });
  const reasons = explain({ replicas, existing, live: live.length, paused, hold, out, unfinished: unfinished.size });
  return { needs: [], actions: claimAndAct(seen, { claim, out, down, shortage: replicas - existing }), reasons };
}

/** Nobody knows what is under way: say so on the pool, and act when it can no longer take effect. */
function planFirstContact({ pool, now }: Observation): Step & Pick<Plan, "needs"> {
  const items: ClaimItems = { create: new Map(), delete: [], waitUntil: now + QUIET_AFTER_MS };
  const why = "the pool was looked after before, but has no readable claim";
  return { needs: [], actions: [writeClaim(pool, items, why)], reasons: [`${why}: waiting before acting`] };
}

function describeWait(until: number): string {
  return `waiting until ${new Date(until).toISOString()}: calls of an unknown earlier pass may still land`;
}

interface Decision {
  readonly claim: Claim | undefined;
  readonly out: ScaleOut;
  readonly down: ScaleIn;
  /** Machines missing. */
  readonly shortage: number;
}

/** Revocations, then the claim, then what it allows. */
function claimAndAct(seen: Observation, { claim, out, down, shortage }: Decision): Action[] {
  const { pool, now } = seen;
  const create = new Map([...out.carried, ...out.create.map((ordinal) => [ordinal, now] as const)]);
  const items: ClaimItems = { create, delete: down.claimed.map(claimedDelete), waitUntil: undefined };
  const acting = out.create.length + down.remove.length > 0;
  const revokes = down.revoke.map(
    (vm) =>
      ({ kind: "revokeDelete", vm, why: "an earlier pass claimed its deletion, which is no longer wanted" }) as const,
  );
  if (!acting && isSettled(pool, claim, items)) return revokes;
  const why = acting ? "before machines are created or deleted" : `generation ${pool.generation} is seen to`;
  return [
    ...revokes,
    writeClaim(pool, items, why),
    ...planCreates(seen, out, shortage),
    ...down.remove.map((vm) => ({ kind: "deleteVm", vm, why: describeSurplus(vm) }) as const),
  ];
}

function planCreates({ pool, revision }: Observation, { create }: ScaleOut, shortage: number): Action[] {
  if (create.length === 0 || revision === undefined) return [];
  const choice = chooseRevision(pool, revision === "absent" ? undefined : revision);
  const why = `${shortage} ${shortage === 1 ? "machine is" : "machines are"} missing`;
  return [
    ...(choice.create ? [{ kind: "createRevision", name: choice.name, why: "new machines name it" } as const] : []),
    ...create.map((ordinal) => ({ kind: "createVm", ordinal, revision: choice.name, why }) as const),
  ];
}

function describeSurplus(vm: Vm): string {
  return vm.ready
    ? "the pool has more machines than spec.replicas"
    : "the pool has too many machines, and it is not ready";
}

/** The claim already says what it should; the pool carries its finalizer. */
function isSettled(pool: Pool, claim: Claim | undefined, items: ClaimItems): boolean {
  if (claim === undefined || claim.generation !== pool.generation || claim.waitUntil !== undefined) return false;
  if (!pool.finalizers.includes(POOL_FINALIZER)) return false;
  const sameCreates =
    claim.create.size === items.create.size &&
    [...items.create].every(([ordinal, at]) => claim.create.get(ordinal) === at);
  return sameCreates && claim.delete.length === items.delete.length;
}

function writeClaim(pool: Pool, items: ClaimItems, why: string): Action {
  return { kind: "writeClaim", items, addFinalizer: !pool.finalizers.includes(POOL_FINALIZER), why };
}

/** A pool on its way out frees its machines; deleting or orphaning them is the garbage collector's work. */
function planDeletion(seen: Observation): Plan {
  const { pool, namespaceVms, verdict, now, ledger } = seen;
  if (!pool.finalizers.includes(POOL_FINALIZER)) {
    return { needs: [], actions: [], reasons: ["the pool is being deleted"], members: undefined };
  }
  if (namespaceVms === undefined) return { needs: ["namespaceVms"], actions: [], reasons: [], members: undefined };
  const selector = verdict.legal ? verdict.selector : undefined;
  const bound = namespaceVms
    .filter((vm) => (isOwnedBy(vm, pool) && vm.finalizers.includes(POOL_FINALIZER)) || isLeftBehind(vm, pool, selector))
    .sort(byNameAndUid);
  const why = "the pool is being deleted";
  if (bound.length > 0) {
    const actions = bound.map((vm) => ({ kind: "dropVmFinalizer", vm, why }) as const);
    return { needs: [], actions, reasons: [why], members: undefined };
  }
  const claim = readClaim(pool.annotations?.[CLAIM_ANNOTATION], now);
  // The finalizer came with a claim: where that is gone, somebody took it.
  if (claim === undefined) return { ...planFirstContact(seen), members: undefined };
  if (claim?.waitUntil !== undefined && now < claim.waitUntil) {
    return { needs: [], actions: [], reasons: [`${why}: ${describeWait(claim.waitUntil)}`], members: undefined };
  }
  const late = unfinishedCreates(claim, { ledger, now }).size;
  if (late > 0) {
    const reasons = [`${why}: waiting because ${late} machines that were being created may still appear`];
    return { needs: [], actions: [], reasons, members: undefined };
  }
  return { needs: [], actions: [{ kind: "dropPoolFinalizer", why }], reasons: [why], members: undefined };
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
    case "writeClaim":
      return `write the claim: ${action.why}`;
    case "createRevision":
      return `create revision ${action.name}: ${action.why}`;
  }
}
