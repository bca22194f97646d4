/** Machines that cannot start, as a user sees them healed: not too soon, not too many, and none of others. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BEHAVIOUR_ANNOTATION } from "../../infra/local/stand-in/pace.ts";
import { eventually } from "../support/eventually.ts";
import { type KubeObject, machineNames } from "../support/objects.ts";
import { aPool, POOL_LABEL } from "../support/pool-manifests.ts";
import { untilMachines, untilPassed, untilReady, untilStatus } from "../support/until.ts";
import { type Finishing, type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";
const HEALING = "vmpool-functions/healing";

let world: World;

beforeAll(async () => {
  world = await startWorld();
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

interface Plan {
  readonly replicas: number;
  /** Of every guest. */
  readonly behaviour?: string;
  readonly spec?: object;
  readonly machine?: object;
}

/** A pool that heals after the first failure. */
function aHealingPool({ replicas, behaviour = "none", spec = {}, machine = {} }: Plan): object {
  const annotations = { [BEHAVIOUR_ANNOTATION]: behaviour };
  const domain = { devices: {}, resources: { requests: { memory: "128Mi" } } };
  const template = { metadata: { labels: { [POOL_LABEL]: POOL }, annotations }, spec: { domain } };
  const autohealing = { startUpFailureThreshold: 1 };
  return aPool(POOL, { replicas, spec: { autohealing, ...spec }, machine: { template, ...machine } });
}

async function memoryOf(namespace: Namespace): Promise<Readonly<Record<string, { count: number; at: string }>>> {
  const text = (await namespace.pool(POOL))?.metadata.annotations?.[HEALING];
  return text === undefined ? {} : JSON.parse(text);
}

function eventsOf(namespace: Namespace): Promise<string> {
  return namespace.kubectl("get", "events", "-o", "custom-columns=:.reason,:.message");
}

/** What the guests of the pool, or of one machine, do from their next start on. */
function behave(namespace: Namespace, what: readonly [kind: string, name: string], behaviour: string): Promise<string> {
  const template = { metadata: { annotations: { [BEHAVIOUR_ANNOTATION]: behaviour } } };
  const spec = what[0] === "vmpool" ? { virtualMachineTemplate: { spec: { template } } } : { template };
  return namespace.kubectl("patch", ...what, "--type=merge", "--patch", JSON.stringify({ spec }));
}

async function aReadyPool(test: Finishing, plan: Plan): Promise<Namespace> {
  const namespace = await world.aNamespace(test);
  await namespace.create(aHealingPool(plan));
  await untilReady(namespace, POOL, plan.replicas);
  return namespace;
}

const uidOf = async (namespace: Namespace, name: string) => (await namespace.machine(name))?.metadata.uid;
const failuresOf = (machine: KubeObject | undefined) =>
  Number(Object(Object(machine?.["status"])["startFailure"])["consecutiveFailCount"] ?? 0);

describe.concurrent("a pool that heals", () => {
  it("replaces the one machine that cannot start, and forgets about it when it is well", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 3 });
    const before = await Promise.all(machineNames(POOL, 3).map((name) => uidOf(namespace, name)));
    await behave(namespace, ["vm", "pool-1"], "crash-loop");
    await namespace.kubectl("delete", "vmi", "pool-1", "--wait=false");
    await eventually(async () =>
      expect(await eventsOf(namespace)).toMatch(/Healing +pool-1 is replaced: it failed to start/),
    );
    await untilReady(namespace, POOL, 3);
    const after = await Promise.all(machineNames(POOL, 3).map((name) => uidOf(namespace, name)));
    expect(after.map((uid, index) => uid === before[index])).toEqual([true, false, true]);
    await eventually(async () => expect(await memoryOf(namespace)).toEqual({}));
  });

  it("replaces no more than 40 % of the machines of a bad template, waits longer each time, and is cured by a good one", async (test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aHealingPool({ replicas: 5, behaviour: "crash-loop" }));
    await eventually(async () => {
      expect(await eventsOf(namespace)).toMatch(/HealingHeld +no more than 2 of 5 machines are healed at once/);
    });
    await eventually(async () => {
      const counts = Object.values(await memoryOf(namespace)).map(({ count }) => count);
      const healed = counts.filter((count) => count > 0);
      expect([counts.length, healed.length]).toEqual([5, 2]);
      expect(Math.min(...healed)).toBeGreaterThanOrEqual(2);
    });
    await behave(namespace, ["vmpool", POOL], "none");
    await untilReady(namespace, POOL, 5);
    await eventually(async () => expect(await memoryOf(namespace)).toEqual({}));
  });

  it("leaves a machine of nobody, and all of its own while it is paused (D01)", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 1 });
    const template = {
      metadata: { annotations: { [BEHAVIOUR_ANNOTATION]: "crash-loop" } },
      spec: { domain: { devices: {} } },
    };
    const labels = { [POOL_LABEL]: POOL };
    const spec = { runStrategy: "Always", template };
    await namespace.create({
      apiVersion: "kubevirt.io/v1",
      kind: "VirtualMachine",
      metadata: { name: "database", labels },
      spec,
    });
    await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", '{"spec":{"paused":true}}');
    await behave(namespace, ["vm", "pool-0"], "crash-loop");
    await namespace.kubectl("delete", "vmi", "pool-0", "--wait=false");
    const [own, stranger] = await Promise.all([uidOf(namespace, "pool-0"), uidOf(namespace, "database")]);
    await eventually(async () => {
      for (const name of ["database", "pool-0"]) expect(failuresOf(await namespace.machine(name))).toBeGreaterThan(0);
    });
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    expect(await uidOf(namespace, "pool-0")).toBe(own);
    await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", '{"spec":{"paused":false}}');
    await eventually(async () => expect(await uidOf(namespace, "pool-0")).not.toBe(own));
    await untilStatus(namespace, POOL, { replicas: 1, readyReplicas: 1 });
    expect(await uidOf(namespace, "database")).toBe(stranger);
  });

  it("does not try again on a disk that was kept, and says so", async (test) => {
    const disk = {
      metadata: { name: "data" },
      spec: { storage: { resources: { requests: { storage: "1Gi" } } }, source: { blank: {} } },
    };
    const namespace = await world.aNamespace(test);
    await namespace.create(
      aHealingPool({
        replicas: 1,
        behaviour: "crash-loop",
        spec: { scaleInStrategy: { proactive: { statePreservation: "Offline" } } },
        machine: { dataVolumeTemplates: [disk] },
      }),
    );
    await eventually(async () => {
      expect(await eventsOf(namespace)).toMatch(/HealingFailed +pool-0 fails on its kept disk, too/);
    });
    const uid = await uidOf(namespace, "pool-0");
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    await untilMachines(namespace, ["pool-0"]);
    expect(await uidOf(namespace, "pool-0")).toBe(uid);
    expect(await memoryOf(namespace)).toMatchObject({ "0": { count: 1, stuck: true } });
  });
});
