/** Waits for the states of a pool that tests begin from or end in. */
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { QUEUE_DELAY_MS } from "../../shared/events/wake-ups.ts";
import { eventually } from "./eventually.ts";
import { isTerminating, machineNames, namesOf } from "./objects.ts";
import type { Namespace, PoolPlace, World } from "./world.ts";

/** Longer than any queue holds anything back: after it, nothing of what was done before is still under way. */
const QUIET_MS = QUEUE_DELAY_MS.late + 5_000;
const POLL_MS = 100;

/** Waits until exactly the machines `<pool>-0` … exist in the namespace and the pool says that they are ready. */
export async function untilReady(namespace: Namespace, pool: string, count: number): Promise<void> {
  await untilMachines(namespace, machineNames(pool, count));
  await untilStatus(namespace, pool, { replicas: count, readyReplicas: count });
}

/** Waits until exactly these machines exist in the namespace, none of them on its way out. */
export async function untilMachines(namespace: Namespace, names: readonly string[]): Promise<void> {
  await eventually(async () => {
    const machines = await namespace.machines();
    expect(namesOf(machines)).toEqual(names);
    expect(namesOf(machines.filter(isTerminating))).toEqual([]);
  });
}

/** Waits until the pool's status has these values. */
export async function untilStatus(namespace: Namespace, pool: string, status: object): Promise<void> {
  await eventually(async () => expect(await namespace.pool(pool)).toMatchObject({ status }));
}

/** Waits until the schedule has driven some more whole passes of the pool: whatever it is going to do now, it has done. */
export async function untilPassed(world: World, { namespace, name }: PoolPlace): Promise<void> {
  const count = () => world.passes.filter(({ pool }) => pool.namespace === namespace && pool.name === name).length;
  const before = count();
  // The first may have read before now.
  await eventually(() => expect(count()).toBeGreaterThan(before + 2));
}

/** Waits until others have brought the pool there and neither a narrow nor a wide look finds anything left to do. */
export async function untilSettled(
  world: World,
  { namespace, name }: { readonly namespace: Namespace; readonly name: string },
  status: object,
): Promise<void> {
  await eventually(async () => {
    expect(await namespace.pool(name)).toMatchObject({ status });
    for (const wide of [false, true]) {
      const { result } = await world.runPass({ namespace: namespace.name, name }, { wide, observe: true });
      expect(result).toMatchObject({ outcome: "reconciled", statusChanged: false, decisions: [] });
    }
  });
}

/** Waits until no pass has run for longer than any queue holds a message back. */
export async function untilQuiet({ passes }: { readonly passes: readonly unknown[] }): Promise<void> {
  let count = passes.length;
  let countedAt = performance.now();
  while (performance.now() - countedAt < QUIET_MS) {
    await sleep(POLL_MS);
    if (count === passes.length) continue;
    count = passes.length;
    countedAt = performance.now();
  }
}
