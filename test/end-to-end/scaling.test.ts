/** Pools that grow, shrink, lose machines and are paused, with every state in between recorded. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { conditionOf, machineNames, namesOf } from "../support/objects.ts";
import { aPool } from "../support/pool-manifests.ts";
import { existingMax, liveMin, type Recording, recordMachines } from "../support/recording.ts";
import { untilMachines, untilPassed, untilReady, untilStatus } from "../support/until.ts";
import { type Finishing, type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";

let world: World;

beforeAll(async () => {
  world = await startWorld();
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

/** A namespace with a pool that is ready. */
async function aReadyPool(test: Finishing, replicas: number): Promise<Namespace> {
  const namespace = await world.aNamespace(test);
  await namespace.create(aPool(POOL, { replicas }));
  await untilReady(namespace, POOL, replicas);
  return namespace;
}

async function record(test: Finishing, namespace: Namespace): Promise<Recording> {
  const recording = await recordMachines({ connection: world.connection, namespace: namespace.name });
  test.onTestFinished(() => recording.stop());
  return recording;
}

async function eventsOf(namespace: Namespace): Promise<string> {
  return namespace.kubectl("get", "events", "-o", "custom-columns=:.reason,:.message");
}

describe.concurrent("spec.replicas", () => {
  it("is 1 when absent, from the beginning and when it is removed", async (test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool(POOL, { replicas: undefined }));
    await untilReady(namespace, POOL, 1);
    await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", '{"spec":{"replicas":3}}');
    await untilReady(namespace, POOL, 3);
    await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", '{"spec":{"replicas":null}}');
    await eventually(async () => expect(await namespace.machines()).toHaveLength(1));
  });

  it("is followed when kubectl edit changes it", async (test) => {
    const namespace = await aReadyPool(test, 2);
    const env = { KUBE_EDITOR: "sed -i s/replicas:.2$/replicas:\\ 4/" };
    const edited = await world.tryKubectl(["--namespace", namespace.name, "edit", "vmpool", POOL], { env });
    expect(edited).toMatchObject({ ok: true });
    await untilReady(namespace, POOL, 4);
  });

  it("may be 0, and is followed from there", async (test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool(POOL, { replicas: 0 }));
    await untilStatus(namespace, POOL, { replicas: 0, readyReplicas: 0 });
    expect(await namespace.machines()).toEqual([]);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=1");
    await untilReady(namespace, POOL, 1);
  });

  it("is never exceeded on the way up nor undercut on the way down, and gaps are filled again", async (test) => {
    const namespace = await world.aNamespace(test);
    const recording = await record(test, namespace);
    await namespace.create(aPool(POOL, { replicas: 8 }));
    await untilReady(namespace, POOL, 8);
    expect(existingMax(await recording.states())).toBe(8);
    await recording.restart();
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=3");
    await eventually(async () => expect(await namespace.machines()).toHaveLength(3));
    expect(liveMin(await recording.states())).toBe(3);
    await untilStatus(namespace, POOL, { replicas: 3, readyReplicas: 3 });
    await recording.restart();
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=8");
    await untilReady(namespace, POOL, 8);
    expect(existingMax(await recording.states())).toBe(8);
    expect(await eventsOf(namespace)).toMatch(/SuccessfulDelete +Deleted VM \S+\/pool-\d with uid \S+ from pool/);
  });
});

describe.concurrent("a machine", () => {
  it("that is deleted by hand comes back under its name as another", async (test) => {
    const namespace = await aReadyPool(test, 3);
    const before = await namespace.machine("pool-1");
    await namespace.kubectl("delete", "vm", "pool-1", "--timeout=100s");
    await untilReady(namespace, POOL, 3);
    const after = await namespace.machine("pool-1");
    expect(after?.metadata.uid).not.toBe(before?.metadata.uid);
  });

  it("whose instance is deleted stays and starts another", async (test) => {
    const namespace = await aReadyPool(test, 2);
    const instance = () => namespace.find("apis/kubevirt.io/v1", "virtualmachineinstances", "pool-0");
    const [machine, before] = await Promise.all([namespace.machine("pool-0"), instance()]);
    await namespace.kubectl("delete", "vmi", "pool-0", "--timeout=100s");
    await eventually(async () => {
      const after = await instance();
      expect(after?.status).toMatchObject({ phase: "Running" });
      expect(after?.metadata.uid).not.toBe(before?.metadata.uid);
    });
    await untilReady(namespace, POOL, 2);
    expect((await namespace.machine("pool-0"))?.metadata.uid).toBe(machine?.metadata.uid);
  });

  it("comes back with nineteen others of fifty, and there are never more than fifty", async (test) => {
    const namespace = await aReadyPool(test, 50);
    const recording = await record(test, namespace);
    const uidsBefore = new Set((await namespace.machines()).map(({ metadata }) => metadata.uid));
    await namespace.kubectl("delete", "vm", ...machineNames(POOL, 20), "--wait=false");
    await eventually(async () => {
      const machines = await namespace.machines();
      expect(machines.filter(({ metadata }) => uidsBefore.has(metadata.uid))).toHaveLength(30);
      expect(namesOf(machines)).toEqual(machineNames(POOL, 50));
    });
    await untilReady(namespace, POOL, 50);
    expect(existingMax(await recording.states())).toBe(50);
  });
});

describe.concurrent("a paused pool", () => {
  const setPaused = (namespace: Namespace, paused: boolean) =>
    namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", JSON.stringify({ spec: { paused } }));

  it("is not scaled, lets deleted machines go, and catches up when it is resumed", async (test) => {
    const namespace = await aReadyPool(test, 3);
    await setPaused(namespace, true);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=5");
    await namespace.kubectl("delete", "vm", "pool-1", "--timeout=100s");
    await eventually(async () => {
      const pool = await namespace.pool(POOL);
      expect(pool?.status).toMatchObject({ replicas: 2, readyReplicas: 2 });
      expect(pool && conditionOf(pool, "ReplicaPaused")).toMatchObject({ status: "True" });
    });
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    await untilMachines(namespace, ["pool-0", "pool-2"]);
    expect(await eventsOf(namespace)).toMatch(/SuccessfulPaused/);
    expect(await eventsOf(namespace)).not.toMatch(/SuccessfulResume/);

    await setPaused(namespace, false);
    await untilReady(namespace, POOL, 5);
    await eventually(async () => {
      const pool = await namespace.pool(POOL);
      expect(pool && conditionOf(pool, "ReplicaPaused")).toBeUndefined();
      expect(await eventsOf(namespace)).toMatch(/SuccessfulResume/);
    });
  });

  it("keeps machines that are too many", async (test) => {
    const namespace = await aReadyPool(test, 3);
    await setPaused(namespace, true);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=1");
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    await untilMachines(namespace, machineNames(POOL, 3));
  });
});
