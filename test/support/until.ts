/** Waits for the states of a pool that tests begin from or end in. */
import { expect } from "vitest";
import { eventually } from "./eventually.ts";
import { isTerminating, machineNames, namesOf } from "./objects.ts";
import type { Namespace, PoolPlace, World } from "./world.ts";

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
