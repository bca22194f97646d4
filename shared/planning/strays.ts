/**
 * Machines that nobody looks after any more: they carry the pools' finalizer, and no pool that lives controls them. A pool that
 * lives looks after those that point to its name (`sortMembership`); for the others a pass is made of the pool that is gone.
 * See docs/decisions/0009-strays.md.
 */
import { byNameAndUid } from "./membership.ts";
import { controllerOf, isPoolOwner, revisionOf, type Vm } from "./model.ts";
import { POOL_FINALIZER, poolsOfRevision } from "./names.ts";
import type { Plan } from "./plan.ts";

/** A pool that is there, whatever its state. */
export interface LivingPool {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
}

/** What a pass sees that does not find its pool. */
export interface GoneObservation {
  readonly name: string;
  /** Machines of the namespace that name a revision. */
  readonly vms: readonly Vm[];
  /**
   * All pools of the namespace, read *after* the machines. The order matters: what controls a machine was there before the
   * machine was seen, so a UID that this later list lacks is gone, and a UID never comes back.
   */
  readonly living: readonly LivingPool[];
}

/** Lets go of what the pool has left behind; nothing more, for it is not known what the pool wanted. */
export function planGone({ name, vms, living }: GoneObservation): Pick<Plan, "actions" | "reasons"> {
  if (living.some((pool) => pool.name === name)) return { actions: [], reasons: [`there is a pool ${name} again`] };
  const strays = vms.filter((vm) => isStray(vm, living) && isOfPool(vm, name)).sort(byNameAndUid);
  const why = `its pool ${name} is gone`;
  return { actions: strays.map((vm) => ({ kind: "dropVmFinalizer", vm, why }) as const), reasons: [] };
}

/** A machine of a list that spans namespaces. */
export interface PlacedVm {
  readonly namespace: string;
  readonly vm: Vm;
}

/** The pools that are gone and have left machines behind, each once. Wrong only for a moment: a hint, not a judgement. */
export function abandonedPools(
  vms: readonly PlacedVm[],
  living: readonly LivingPool[],
): readonly Pick<LivingPool, "namespace" | "name">[] {
  const uids = new Set(living.map(({ uid }) => uid));
  const keys = new Set(living.map(({ namespace, name }) => `${namespace}/${name}`));
  const found = new Map<string, Pick<LivingPool, "namespace" | "name">>();
  for (const { namespace, vm } of vms) {
    if (!vm.finalizers.includes(POOL_FINALIZER) || uids.has(controllerOf(vm)?.uid ?? "")) continue;
    const names = poolNamesOf(vm);
    // A pool of that name looks after it by itself.
    if (names.some((name) => keys.has(`${namespace}/${name}`))) continue;
    const [name] = names;
    if (name !== undefined) found.set(`${namespace}/${name}`, { namespace, name });
  }
  return [...found.values()];
}

/** Whether the machine still has our finalizer and says that it is, or was, of the pool of that name. */
export function isOfPool(vm: Vm, name: string): boolean {
  return vm.finalizers.includes(POOL_FINALIZER) && poolNamesOf(vm).includes(name);
}

function isStray(vm: Vm, living: readonly LivingPool[]): boolean {
  const controller = controllerOf(vm);
  return !living.some(({ uid }) => uid === controller?.uid);
}

/** The names that its pool can have had: the controller's, else those that its revision tells. */
function poolNamesOf(vm: Vm): readonly string[] {
  const controller = controllerOf(vm);
  if (controller !== undefined && isPoolOwner(controller)) return [controller.name];
  return poolsOfRevision(revisionOf(vm) ?? "");
}
