/** Which ordinals to create. A create cannot be taken back once sent, so those that may still land count as existing. */
import { CLAIM_ITEMS_MAX } from "./claim.ts";
import type { Vm } from "./model.ts";

export interface ScaleOut {
  /** Ordinals to create now, in order. */
  readonly create: readonly number[];
  /** Creates of earlier claims that stay on record: they are not sent now and may still land. */
  readonly carried: ReadonlyMap<number, number>;
  /** More creates are under way than are wanted: nothing is created until those have landed or expired. */
  readonly waits: boolean;
}

export interface ScaleOutInput {
  readonly replicas: number;
  /** Machines of the pool, terminating ones included: a replacement comes when the name is free. */
  readonly owned: readonly Vm[];
  /** Ordinals whose name exists, whoever owns the object. */
  readonly taken: ReadonlySet<number>;
  /** Ordinal → time, see `unfinishedCreates`. */
  readonly unfinished: ReadonlyMap<number, number>;
  /** Ordinals that go first among those that are free. */
  readonly preferred: readonly number[];
  readonly createsMax: number;
}

/**
 * Repeats the creates that are unfinished, then takes the lowest free ordinals. One whose machine is there is counted by
 * it; one whose name another's object has keeps its place, for that object may go before the create lands.
 */
export function planScaleOut({ replicas, owned, taken, unfinished, preferred, createsMax }: ScaleOutInput): ScaleOut {
  const wanted = Math.max(0, replicas - owned.length);
  const present = new Set(owned.map(({ ordinal }) => ordinal));
  const mayLand = [...unfinished.keys()].filter((ordinal) => !present.has(ordinal)).sort((a, b) => a - b);
  if (mayLand.length > wanted) return { create: [], carried: unfinished, waits: true };
  const isTaken = (ordinal: number) => taken.has(ordinal) || unfinished.has(ordinal);
  const room = CLAIM_ITEMS_MAX - unfinished.size;
  const missing = Math.max(0, Math.min(Math.min(wanted, createsMax) - mayLand.length, room));
  const first = preferred.filter((ordinal) => !isTaken(ordinal)).slice(0, missing);
  const others = lowestFree(missing - first.length, (ordinal) => isTaken(ordinal) || first.includes(ordinal));
  const fresh = [...first, ...others];
  const again = mayLand.filter((ordinal) => !taken.has(ordinal));
  const create = [...again, ...fresh].slice(0, createsMax).sort((a, b) => a - b);
  const issued = new Set(create);
  return { create, carried: new Map([...unfinished].filter(([ordinal]) => !issued.has(ordinal))), waits: false };
}

/** The `count` lowest ordinals that `isTaken` does not rule out; it may rule out any finite number of them. */
function lowestFree(count: number, isTaken: (ordinal: number) => boolean): number[] {
  const free: number[] = [];
  for (let ordinal = 0; free.length < count; ordinal += 1) if (!isTaken(ordinal)) free.push(ordinal);
  return free;
}
