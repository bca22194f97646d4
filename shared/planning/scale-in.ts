/** Which machines go when there are too many, and whether the pool's strategy lets us choose at all. */
import { type ClaimedObject, isClaimed } from "./claim.ts";
import { isRecord } from "./json.ts";
import { byNameAndUid } from "./membership.ts";
import { isProtected, type Pool, type PoolSpec, poolFieldsSchema, type SelectionPolicy, type Vm } from "./model.ts";
import { PROTECTED_LABEL } from "./names.ts";
import { describeLeftOut, filterBySelectors, rank } from "./selection.ts";

const SELECTORS_FIELD = "spec.scaleInStrategy.proactive.selectionPolicy.selectors";

export interface ScaleIn {
  /** To delete now: those already claimed first, then by rank. */
  readonly remove: readonly Vm[];
  /** What the claim must name: `remove`, and what stays claimed without being deleted now. */
  readonly claimed: readonly Vm[];
  /** Claimed by an earlier pass but no longer wanted: the late delete must be made to miss. */
  readonly revoke: readonly Vm[];
  /** Why machines that are too many stay, for people; empty when none does. */
  readonly reasons: readonly string[];
}

export interface ScaleInInput {
  /** A pool that was found legal. */
  readonly pool: Pool;
  /** How many live machines are too many. */
  readonly surplus: number;
  /** Machines of the pool that are not on their way out. */
  readonly live: readonly Vm[];
  /** Deletes of the last claim. */
  readonly claimed: readonly ClaimedObject[];
  readonly deletesMax: number;
}

/**
 * Takes the surplus as far as the selectors allow; a claimed delete counts against it once, whether or not it has landed.
 * One of a machine that the selectors leave out is no longer wanted.
 */
export function planScaleIn({ pool, surplus, live, claimed, deletesMax }: ScaleInInput): ScaleIn {
  const eligible = rankForScaleIn(pool, live).filter((vm) => !isProtected(vm));
  const wanted = Math.max(0, Math.min(surplus, eligible.length));
  const allowed = Math.max(0, deletesMax);
  const inherited = eligible.filter((vm) => isClaimed(vm, claimed));
  const kept = inherited.slice(0, wanted);
  const others = eligible.filter((vm) => !isClaimed(vm, claimed));
  const fresh = others.slice(0, Math.max(0, Math.min(wanted, allowed) - kept.length));
  const named = [...kept, ...fresh];
  const unwanted = live.filter((vm) => isClaimed(vm, claimed) && !kept.includes(vm));
  return {
    remove: named.slice(0, allowed),
    claimed: named,
    revoke: unwanted.toSorted(byNameAndUid),
    reasons: surplus > wanted ? [describeBlocked({ pool, live, surplus, wanted })] : [],
  };
}

/** The machines that scale-in may take, in the order in which it takes them. */
export function rankForScaleIn(pool: Pool, live: readonly Vm[]): readonly Vm[] {
  const policy = scaleInPolicy(pool);
  return rank(pool, filterBySelectors(policy, live), policy?.sortPolicy, { notReadyFirst: true });
}

/** Why no machine may be chosen for deletion; undefined when one may. */
export function scaleInHold({ scaleInStrategy }: PoolSpec): string | undefined {
  if (scaleInStrategy?.unmanaged) return "scale-in is unmanaged: surplus machines are left to their users";
  if (scaleInStrategy?.opportunistic)
    return "scale-in is opportunistic: surplus machines go when somebody deletes them";
  return undefined;
}

/**
 * Whether either strategy asks for disks to outlive their machine, whoever deletes it. Takes any spec, sound or not: what
 * it does not know keeps the disks.
 */
export function keepsDisks(spec: unknown): boolean {
  const strategies = isRecord(spec) ? spec["scaleInStrategy"] : undefined;
  if (!isRecord(strategies)) return false;
  return [strategies["proactive"], strategies["opportunistic"]].some(
    (strategy) => isRecord(strategy) && (strategy["statePreservation"] ?? "Disabled") !== "Disabled",
  );
}

const strategySchema = poolFieldsSchema.pick({ scaleInStrategy: true });
/** Selects nothing; a legal pool never gets it. */
const UNREADABLE: SelectionPolicy = { selectors: { unreadable: true } };

function scaleInPolicy({ spec }: Pool): SelectionPolicy | null | undefined {
  const read = strategySchema.safeParse(spec);
  return read.success ? read.data.scaleInStrategy?.proactive?.selectionPolicy : UNREADABLE;
}

interface Blocked extends Pick<ScaleInInput, "pool" | "live" | "surplus"> {
  readonly wanted: number;
}

function describeBlocked({ pool, live, surplus, wanted }: Blocked): string {
  const leftOut = describeLeftOut(scaleInPolicy(pool), live);
  const guarded = live.filter(isProtected).length;
  const causes = [
    ...(leftOut === "" ? [] : [`${SELECTORS_FIELD} (of ${live.length} machines ${leftOut})`]),
    ...(guarded === 0 ? [] : [`the label ${PROTECTED_LABEL} of ${guarded} machines`]),
  ];
  return `${surplus} machines too many: ${surplus - wanted} of them are blocked by ${causes.join(" and ")}`;
}
