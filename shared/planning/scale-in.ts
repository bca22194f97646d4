/** Which machines go when there are too many, and whether the pool's strategy lets us choose at all. */
import { type ClaimedDelete, isClaimed } from "./claim.ts";
import { fnv1a } from "./hash.ts";
import { byNameAndUid } from "./membership.ts";
import type { Pool, PoolSpec, Vm } from "./model.ts";
import { compareText } from "./selector.ts";

export interface ScaleIn {
  /** To delete now: those already claimed first, then by rank. */
  readonly remove: readonly Vm[];
  /** What the claim must name: `remove`, and what stays claimed without being deleted now. */
  readonly claimed: readonly Vm[];
  /** Claimed by an earlier pass but no longer wanted: the late delete must be made to miss. */
  readonly revoke: readonly Vm[];
}

export interface ScaleInInput {
  readonly pool: Pool;
  /** How many live machines are too many. */
  readonly surplus: number;
  /** Machines of the pool that are not on their way out. */
  readonly live: readonly Vm[];
  /** Deletes of the last claim. */
  readonly claimed: readonly ClaimedDelete[];
  readonly deletesMax: number;
}

/** Takes exactly the surplus; a claimed delete counts against it once, whether or not it has landed. */
export function planScaleIn({ pool, surplus, live, claimed, deletesMax }: ScaleInInput): ScaleIn {
  const ranked = rankForScaleIn(pool, live);
  const inherited = ranked.filter((vm) => isClaimed(vm, claimed));
  const kept = inherited.slice(0, surplus);
  const others = ranked.filter((vm) => !isClaimed(vm, claimed));
  const fresh = others.slice(0, Math.max(0, Math.min(surplus, deletesMax) - kept.length));
  const named = [...kept, ...fresh];
  return { remove: named.slice(0, deletesMax), claimed: named, revoke: inherited.slice(surplus) };
}

/** The order in which machines go under `Random`: those that are not ready first, then by a hash that is stable over passes. */
export function rankForScaleIn(pool: Pool, live: readonly Vm[]): readonly Vm[] {
  const keyed = live.map((vm) => ({ vm, key: fnv1a(`${pool.uid}/${vm.uid}`) }));
  keyed.sort(
    (a, b) => Number(a.vm.ready) - Number(b.vm.ready) || compareText(a.key, b.key) || byNameAndUid(a.vm, b.vm),
  );
  return keyed.map(({ vm }) => vm);
}

/** Why no machine may be chosen for deletion; undefined when one may. What this version cannot honour, it leaves alone. */
export function scaleInHold({ scaleInStrategy }: PoolSpec): string | undefined {
  if (scaleInStrategy?.unmanaged) return "scale-in is unmanaged: surplus machines are left to their users";
  if (scaleInStrategy?.opportunistic)
    return "scale-in is opportunistic: surplus machines go when somebody deletes them";
  const policy = scaleInStrategy?.proactive?.selectionPolicy;
  if (keepsDisks({ scaleInStrategy })) return notYet("statePreservation");
  if (policy?.selectors) return notYet("selectionPolicy.selectors");
  if (policy?.sortPolicy && policy.sortPolicy !== "Random") return notYet(`sortPolicy ${policy.sortPolicy}`);
  return undefined;
}

/** Whether any strategy asks for disks to outlive their machine. */
export function keepsDisks({ scaleInStrategy }: Pick<PoolSpec, "scaleInStrategy">): boolean {
  return [scaleInStrategy?.proactive, scaleInStrategy?.opportunistic].some(
    (strategy) => (strategy?.statePreservation ?? "Disabled") !== "Disabled",
  );
}

function notYet(field: string): string {
  return `spec.scaleInStrategy ${field} is not supported by this version: no machine is deleted`;
}
