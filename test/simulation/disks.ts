/**
 * Disks of machines, judged: what of a disk we may write, and that none is lost which its pool said to keep. Independent of the planner.
 */
import { KEPT_ANNOTATION, KEPT_FOR_LABEL, POOL_FINALIZER } from "../../shared/planning/names.ts";
import { controllerOf, type History, hasFinalizer, type State } from "./history.ts";
import { finalizersOf, isTerminating, type KubeObject, type Owner, ownersOf } from "./objects.ts";
import { isSame } from "./patches.ts";
import type { Change } from "./store.ts";
import { type Case, ownerIn, windowOf } from "./updates.ts";
import type { Invocation } from "./world.ts";

/** Owners and marks of a disk whose machine is the pool's, as the pool has it for its disks. */
export function judgeDisk(change: Change, facts: Case): string | undefined {
  const { before, after } = change;
  if (before === undefined || after === undefined || isTerminating(before) !== isTerminating(after))
    return "invariant 1: a disk is made or deleted by us";
  if (!isSame(withoutOwners(before), withoutOwners(after)))
    return "invariant 1: more of a disk is changed than its owners";
  const machine = controllerOf(before);
  const owner = machine === undefined ? undefined : ownerIn(change, facts, machine);
  if (machine === undefined || owner === undefined) return "invariant 1: a disk that is not of the pool's machines";
  // Of an illegal pool only the disks of machines that somebody deletes.
  const isServed = ({ phase }: State) =>
    phase === "legal" || phase === "leaving" || (phase === "illegal" && isLeaving(machine, facts));
  const served = windowOf(change, facts, owner).filter(isServed);
  if (served.length === 0) return "invariant 7: a disk of an illegal pool is touched";
  const may = (keeps: boolean) => served.some((state) => state.keeps === keeps);
  const [gone, added] = [without(before, after), without(after, before)];
  if (!added.every(isGuard) || (added.length > 0 && !may(true))) return "invariant 1: a disk is given an owner";
  // Outside the pool a machine's disks go with it, as with any machine.
  const leaves = served.some(({ machines }) => machines.get(machine)?.isMember === false);
  for (const entry of gone) {
    if (isGuard(entry) ? may(false) || leaves : entry.uid === machine && may(true) && isLeaving(machine, facts))
      continue;
    return "invariant 1: a disk loses an owner though nothing asks for it";
  }
  return undefined;
}

function isLeaving(machine: string, { history }: Case): boolean {
  const vm = history.find("virtualmachines", machine);
  return vm === undefined || isTerminating(vm);
}

/** The owners of the one that the other has not. */
function without(one: KubeObject, other: KubeObject): readonly Owner[] {
  return ownersOf(one).filter(({ uid }) => !ownersOf(other).some((entry) => entry.uid === uid));
}

function isGuard({ kind, controller }: Owner): boolean {
  return kind === "Namespace" && controller !== true;
}

function withoutOwners({ metadata, ...rest }: KubeObject): unknown {
  const { resourceVersion: _version, ownerReferences: _owners, labels = {}, annotations = {}, ...others } = metadata;
  const { [KEPT_FOR_LABEL]: _for, ...otherLabels } = labels;
  const { [KEPT_ANNOTATION]: _kept, ...otherAnnotations } = annotations;
  return { ...rest, ...others, labels: otherLabels, annotations: otherAnnotations };
}

/** A machine on its way out. */
interface Leaving {
  /** The number of the change that began its deletion. */
  readonly since: number;
  readonly inForeground: boolean;
  readonly pool: string | undefined;
  /** Of its disks, the ones that something else owned as well. */
  readonly guarded: ReadonlySet<string>;
  /** We let it go, and its pool had said to keep its disks ever since somebody could have deleted it. */
  isKept: boolean;
}

export interface Keeping {
  /** To be asked before the change is applied to the history. */
  judge(change: Change, invocation: Invocation | undefined): string | undefined;
}

/** Follows machines from their deletion on: a disk that was to outlive one of them must not be collected. */
export function createKeeping(history: History): Keeping {
  const leaving = new Map<string, Leaving>();
  const begin = ({ before, after, sequence }: Change): void => {
    if (before === undefined || isTerminating(before)) return;
    const owners = [...history.objects("datavolumes")].filter((disk) => controllerOf(disk) === before.metadata.uid);
    leaving.set(before.metadata.uid, {
      since: sequence,
      inForeground: after !== undefined && finalizersOf(after).includes("foregroundDeletion"),
      pool: controllerOf(before),
      guarded: new Set(owners.filter((disk) => ownersOf(disk).some(isGuard)).map(({ metadata }) => metadata.uid)),
      isKept: false,
    });
  };
  const finish = (change: Change, invocation: Invocation): void => {
    const entry = leaving.get(change.before?.metadata.uid ?? "");
    const isFreed = hasFinalizer(change.before, POOL_FINALIZER) && !hasFinalizer(change.after, POOL_FINALIZER);
    // Whoever detaches a machine on its way out has it for himself, with what nobody has guarded yet.
    const { before } = change;
    if (entry?.pool === undefined || before === undefined || !isFreed || controllerOf(before) !== entry.pool) return;
    const states: readonly State[] = [
      ...history.since(entry.pool, entry.since),
      ...history.windowOf(change, invocation, entry.pool),
    ];
    entry.isKept = states.length > 0 && states.every(({ keeps }) => keeps);
  };
  return {
    judge(change, invocation) {
      const { kind, before, after } = change;
      if (kind.plural === "virtualmachines" && before !== undefined) {
        if (after === undefined || isTerminating(after)) begin(change);
        if (invocation !== undefined) finish(change, invocation);
      }
      const isCollected = change.actor === "garbage-collector" && (after === undefined || isTerminating(after));
      if (kind.plural !== "datavolumes" || before === undefined || isTerminating(before) || !isCollected)
        return undefined;
      const entry = leaving.get(controllerOf(before) ?? "");
      if (entry === undefined) return undefined;
      const { uid } = before.metadata;
      // Deleted in the foreground it is only safe if it was guarded, and then the collector must leave it alone at any time.
      const isSafe = entry.inForeground ? entry.guarded.has(uid) && isKeptSince(history, entry) : entry.isKept;
      return isSafe ? "a disk is collected that was to outlive its machine" : undefined;
    },
  };
}

/** Whether the pool kept disks all the time since the machine's deletion began, and looks after its machines. */
function isKeptSince(history: History, { pool, since }: Leaving): boolean {
  if (pool === undefined) return false;
  const states = history.since(pool, since);
  return states.length > 0 && states.every(({ keeps, phase }) => keeps && phase !== "gone");
}
