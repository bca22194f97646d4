/** A few steps of the walks through a pool's spec, on a real control plane: each property to another value and back, and illegal ones. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { conditionOf, type KubeObject, machineNames } from "../support/objects.ts";
import { aPool } from "../support/pool-manifests.ts";
import { untilMachines, untilSettled } from "../support/until.ts";
import { type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";
const SIZE = 2;

let world: World;
let namespace: Namespace;

beforeAll(async () => {
  world = await startWorld();
  namespace = await world.aNamespace();
  await namespace.create(aPool(POOL, { replicas: SIZE }));
  await untilMachines(namespace, machineNames(POOL, SIZE));
  await untilAtRest(SIZE);
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

const untilAtRest = (count: number, ready = count) =>
  untilSettled(world, { namespace, name: POOL }, { replicas: count, readyReplicas: ready });

/** A merge patch of the pool's spec. */
async function change(spec: object): Promise<void> {
  await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", `--patch=${JSON.stringify({ spec })}`);
}

/** Who they are and how often they were written. */
async function identities(): Promise<readonly string[]> {
  const guests = await namespace.list("apis/kubevirt.io/v1", "virtualmachineinstances");
  const told = ({ metadata }: KubeObject) => `${metadata.name} ${metadata.uid}`;
  return [...(await namespace.machines()), ...guests].map(told).sort();
}

const template = (spec: object, metadata: object = {}) => ({ virtualMachineTemplate: { metadata, spec } });
const guest = (spec: object) => template({ template: { spec } });

describe("a pool at rest goes to another value and back", () => {
  it.each([
    { what: "paused", there: { paused: true }, back: { paused: null } },
    { what: "maxUnavailable", there: { maxUnavailable: "50%" }, back: { maxUnavailable: null } },
    { what: "autohealing", there: { autohealing: { startUpFailureThreshold: 2 } }, back: { autohealing: null } },
    {
      what: "scaleInStrategy",
      there: { scaleInStrategy: { proactive: { selectionPolicy: { sortPolicy: "Oldest" } } } },
      back: { scaleInStrategy: null },
    },
    { what: "updateStrategy", there: { updateStrategy: { opportunistic: {} } }, back: { updateStrategy: null } },
    {
      what: "annotations of the machines",
      there: template({}, { annotations: { edited: "1" } }),
      back: template({}, { annotations: null }),
    },
  ])("with the machines and guests that it had: $what", async ({ there, back }) => {
    const before = await identities();
    await change(there);
    await untilAtRest(SIZE);
    await change(back);
    await untilAtRest(SIZE);
    expect(await identities()).toEqual(before);
  });

  it.each([
    { what: "replicas", there: { replicas: 3 }, back: { replicas: SIZE }, count: 3, ready: 3 },
    {
      what: "the guest",
      there: guest({ terminationGracePeriodSeconds: 1 }),
      back: guest({ terminationGracePeriodSeconds: 0 }),
      count: SIZE,
      ready: SIZE,
    },
    { what: "running", there: template({ running: false }), back: template({ running: true }), count: SIZE, ready: 0 },
  ])("and is ready again: $what", async ({ there, back, count, ready }) => {
    await change(there);
    await untilAtRest(count, ready);
    await change(back);
    await untilAtRest(SIZE);
    await eventually(async () => expect(await namespace.machines()).toHaveLength(SIZE));
  });
});

describe("a pool at rest becomes illegal and is repaired", () => {
  it.each([
    { what: "maxUnavailable", wrong: { maxUnavailable: "0%" }, right: { maxUnavailable: null } },
    {
      what: "two strategies",
      wrong: { scaleInStrategy: { unmanaged: {}, opportunistic: {} } },
      right: { scaleInStrategy: null },
    },
    {
      what: "a duration",
      wrong: { autohealing: { minFailingToStartDuration: "soon" } },
      right: { autohealing: null },
    },
  ])("with the machines and guests that it had: $what", async ({ wrong, right }) => {
    const before = await identities();
    await change(wrong);
    await eventually(async () => {
      const pool = await namespace.pool(POOL);
      expect(pool && conditionOf(pool, "ReplicaFailure")?.status).toBe("True");
    });
    expect(await identities()).toEqual(before);
    await change(right);
    await untilAtRest(SIZE);
    expect(await identities()).toEqual(before);
    expect((await namespace.pool(POOL))?.status?.conditions ?? []).toEqual([]);
  });

  it("is not even stored with what the schema refuses", async () => {
    await expect(change({ replicas: -1 })).rejects.toThrow(/should be greater than or equal to 0/);
    await expect(change({ paused: "yes" })).rejects.toThrow(/boolean/);
    await untilAtRest(SIZE);
  });
});
