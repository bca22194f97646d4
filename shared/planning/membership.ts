/** Sorts the VMs that a pass has seen by what they are to the pool. */

import { controllerOf, isOwnedBy, isPoolOwner, type Pool, revisionOf, type Vm } from "./model.ts";
import { isRevisionOf, POOL_FINALIZER } from "./names.ts";
import type { ParsedSelector } from "./selector.ts";
import { compareText } from "./selector.ts";

export interface Membership {
  /** Controlled by this pool and matched by its selector, terminating ones included; in name order. */
  readonly members: readonly Vm[];
  /** Controlled by this pool, but relabelled so that the selector no longer matches. */
  readonly relabelled: readonly Vm[];
  /** Controlled by no pool, still with the pool's finalizer, and pointing to this pool. */
  readonly detached: readonly Vm[];
  /** Still with the finalizer, and controlled by an earlier pool of this name; or by a later one, if this pool is gone by now. */
  readonly bereft: readonly Vm[];
  /** Ordinals whose name exists in the namespace as far as seen, whoever owns the object. */
  readonly taken: ReadonlySet<number>;
}

/**
 * `selected` were read by selector; `namespaceVms` are the metadata of all VMs of the namespace, where those were read.
 * Two lists are never of the same instant, so a VM of either counts.
 */
export function sortMembership(
  pool: Pool,
  selector: ParsedSelector,
  { selected, namespaceVms }: { selected: readonly Vm[]; namespaceVms: readonly Vm[] | undefined },
): Membership {
  const seen = new Map<string, Vm>();
  for (const vm of [...selected, ...(namespaceVms ?? [])]) if (!seen.has(vm.uid)) seen.set(vm.uid, vm);
  const vms = [...seen.values()].sort(byNameAndUid);
  const owned = vms.filter((vm) => isOwnedBy(vm, pool));
  return {
    members: owned.filter((vm) => selector.matches(vm.labels)),
    relabelled: owned.filter((vm) => !selector.matches(vm.labels)),
    detached: vms.filter((vm) => isLeftBehind(vm, pool, selector)),
    bereft: vms.filter((vm) => isBereft(vm, pool)),
    taken: new Set(vms.map(({ ordinal }) => ordinal).filter((ordinal) => ordinal !== undefined)),
  };
}

/** A VM that no pool controls, which still carries our finalizer and whose revision label, or name and selector, points to `pool`. */
export function isLeftBehind(vm: Vm, pool: Pool, selector: ParsedSelector | undefined): boolean {
  if (!vm.finalizers.includes(POOL_FINALIZER)) return false;
  const controller = controllerOf(vm);
  if (controller !== undefined && isPoolOwner(controller)) return false;
  const revision = revisionOf(vm);
  if (revision !== undefined) return isRevisionOf(pool.name, revision);
  const isNamedLikeOurs = vm.ordinal !== undefined;
  return isNamedLikeOurs && selector?.matches(vm.labels) === true;
}

/** Another pool of the same name controls it, or did: two of them never live at the same time. */
export function isBereft(vm: Vm, pool: Pool): boolean {
  const controller = controllerOf(vm);
  if (controller === undefined || !isPoolOwner(controller) || !vm.finalizers.includes(POOL_FINALIZER)) return false;
  return controller.name === pool.name && controller.uid !== pool.uid;
}

type Named = Pick<Vm, "name" | "uid">;

export function byNameAndUid(a: Named, b: Named): number {
  return compareText(a.name, b.name) || compareText(a.uid, b.uid);
}
