/** What a pass costs once there is nothing to do, and what two deployments do to one pool at once. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { controllerUidOf, machineNames, namesOf } from "../support/objects.ts";
import { aMachine, aPool } from "../support/pool-manifests.ts";
import { existingMax, liveMin, recordMachines } from "../support/recording.ts";
import { untilMachines, untilSettled, untilStatus } from "../support/until.ts";
import { type Finishing, type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";
const STRANGERS = 500;
const CREATES_AT_ONCE = 16;
/** What a list's resourceVersion may grow by. */
const BYTES_OF_CHANCE = 100;

let world: World;

beforeAll(async () => {
  world = await startWorld({ standIn: false, functions: false });
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

/** A namespace with a pool to which the functions have nothing left to do; they are stopped again. */
async function aSettledPool(test: Finishing, replicas: number): Promise<Namespace> {
  const namespace = await world.aNamespace(test);
  const functions = world.startFunctions("local");
  try {
    await namespace.create(aPool(POOL, { replicas }));
    await untilMachines(namespace, machineNames(POOL, replicas));
    await untilSettled(world, { namespace, name: POOL }, { replicas, readyReplicas: 0 });
  } finally {
    await functions.stop();
  }
  freeAtEnd(test, namespace);
  return namespace;
}

/** Nobody serves the pool at the end of the test: without this its namespace would never go. */
function freeAtEnd(test: Finishing, namespace: Namespace): void {
  test.onTestFinished(async () => {
    const functions = world.startFunctions("local");
    try {
      await namespace.kubectl("delete", "vmpool", "--all", "--cascade=orphan", "--timeout=100s");
    } finally {
      await functions.stop();
    }
  });
}

async function createStrangers({ name }: Namespace): Promise<void> {
  const path = `/apis/kubevirt.io/v1/namespaces/${name}/virtualmachines`;
  const bodies = Array.from({ length: STRANGERS }, (_, number) => aMachine(`stranger-${number}`, { app: "other" }));
  const worker = async () => {
    for (let body = bodies.pop(); body !== undefined; body = bodies.pop()) {
      const signal = AbortSignal.timeout(30_000);
      expect(await world.connection.send({ method: "POST", path, body, signal })).toMatchObject({ status: 201 });
    }
  };
  await Promise.all(Array.from({ length: CREATES_AT_ONCE }, worker));
}

describe("a settled pass", () => {
  it.for([0, 1, 500])("of a pool of %i writes nothing and asks at most three times", async (replicas, test) => {
    const namespace = await aSettledPool(test, replicas);
    for (const wide of [false, true]) {
      const { result, meter } = await world.runPass({ namespace: namespace.name, name: POOL }, { wide });
      expect(result).toMatchObject({ outcome: "reconciled", complete: true, again: false, statusChanged: false });
      expect(meter.writes).toBe(0);
      expect(meter.requests).toBeLessThanOrEqual(3);
    }
  });

  it("costs the same among five hundred strangers' machines", async (test) => {
    const namespace = await aSettledPool(test, 3);
    const place = { namespace: namespace.name, name: POOL };
    const alone = await world.runPass(place, { wide: false });
    await createStrangers(namespace);
    const narrow = await world.runPass(place, { wide: false });
    const wide = await world.runPass(place, { wide: true });
    expect(await namespace.machines()).toHaveLength(STRANGERS + 3);
    for (const { meter, result } of [narrow, wide]) {
      expect(meter.requests).toBeLessThanOrEqual(3);
      expect(meter.writes).toBe(0);
      expect(result.decisions).toEqual([]);
    }
    expect(narrow.meter.bytes).toBeLessThan(alone.meter.bytes + BYTES_OF_CHANCE);
  });
});

it("is exact while two runtimes of one deployment serve a pool that grows to twenty and shrinks to five", async (test) => {
  const namespace = await world.aNamespace(test);
  const recording = await recordMachines({
    connection: world.connection,
    namespace: namespace.name,
    counts: (machine) => controllerUidOf(machine) !== undefined,
  });
  test.onTestFinished(() => recording.stop());
  await namespace.create(aPool(POOL, { replicas: 0 }));
  const runtimes = [world.startFunctions("blue"), world.startFunctions("blue")];
  test.onTestFinished(async () => {
    await Promise.all(runtimes.map((runtime) => runtime.stop()));
  });
  await untilStatus(namespace, POOL, { replicas: 0 });

  await namespace.kubectl("scale", "vmpool", POOL, "--replicas=20");
  await untilMachines(namespace, machineNames(POOL, 20));
  await untilStatus(namespace, POOL, { replicas: 20 });
  expect(existingMax(await recording.states())).toBe(20);
  await recording.restart();

  await namespace.kubectl("scale", "vmpool", POOL, "--replicas=5");
  await untilStatus(namespace, POOL, { replicas: 5 });
  const left = await eventually(async () => {
    const machines = await namespace.machines();
    expect(machines).toHaveLength(5);
    return machines;
  });
  const before = world.passes.length;
  await eventually(() => expect(world.passes.length).toBeGreaterThan(before + 8));
  expect(namesOf(await namespace.machines())).toEqual(namesOf(left));
  const states = await recording.states();
  expect(liveMin(states)).toBe(5);
  expect(existingMax(states)).toBe(20);
});
