/** Pools and machines on their way out: nothing hangs, nothing is left behind, and what is orphaned lives on. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { machineNames, namesOf } from "../support/objects.ts";
import { aPool } from "../support/pool-manifests.ts";
import { untilMachines, untilPassed, untilReady, untilStatus } from "../support/until.ts";
import { type Finishing, type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";
const POOL_FINALIZER = "pool.kubevirt.io/finalizer";
const REPLICAS = 3;

let world: World;

beforeAll(async () => {
  world = await startWorld();
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

async function aReadyPool(test: Finishing): Promise<Namespace> {
  const namespace = await world.aNamespace(test);
  await namespace.create(aPool(POOL, { replicas: REPLICAS }));
  await untilReady(namespace, POOL, REPLICAS);
  return namespace;
}

/** Waits until nothing of the pool is left. */
async function untilGone(namespace: Namespace): Promise<void> {
  await untilMachines(namespace, []);
  await eventually(async () => {
    expect(await namespace.pool(POOL)).toBeUndefined();
    expect(await namespace.list("apis/apps/v1", "controllerrevisions")).toEqual([]);
    expect(await namespace.list("apis/kubevirt.io/v1", "virtualmachineinstances")).toEqual([]);
    expect(await namespace.list("api/v1", "pods")).toEqual([]);
  });
}

describe.concurrent("deleting a pool", () => {
  it.for(["background", "foreground"])(
    "in the %s takes all machines along, and its name is free again",
    async (cascade, test) => {
      const namespace = await aReadyPool(test);
      await namespace.kubectl("delete", "vmpool", POOL, `--cascade=${cascade}`, "--timeout=100s");
      await untilGone(namespace);
      await namespace.create(aPool(POOL, { replicas: REPLICAS }));
      await untilReady(namespace, POOL, REPLICAS);
    },
  );

  it("and orphaning its machines leaves them running, without owner and finalizer, for ever", async (test) => {
    const namespace = await aReadyPool(test);
    const uids = new Map((await namespace.machines()).map(({ metadata }) => [metadata.name, metadata.uid]));
    await namespace.kubectl("delete", "vmpool", POOL, "--cascade=orphan", "--timeout=100s");
    const orphans = await eventually(async () => {
      const machines = await namespace.machines();
      for (const { metadata } of machines) {
        expect(metadata.ownerReferences).toEqual([]);
        expect(metadata.finalizers).not.toContain(POOL_FINALIZER);
      }
      return machines;
    });
    expect(namesOf(orphans)).toEqual(machineNames(POOL, REPLICAS));

    await namespace.create(aPool(POOL, { replicas: 2 }));
    await untilMachines(namespace, machineNames(POOL, REPLICAS + 2));
    await untilStatus(namespace, POOL, { replicas: 2, readyReplicas: 2 });
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=0");
    await untilMachines(namespace, machineNames(POOL, REPLICAS));
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    for (const { metadata } of await namespace.machines()) {
      expect(metadata.uid).toBe(uids.get(metadata.name));
      expect(metadata.ownerReferences).toEqual([]);
    }
    await namespace.kubectl("delete", "vm", ...machineNames(POOL, REPLICAS), "--timeout=100s");
    await untilMachines(namespace, []);
  });

  it("that is paused takes all machines along", async (test) => {
    const namespace = await aReadyPool(test);
    await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", '{"spec":{"paused":true}}');
    await namespace.kubectl("delete", "vmpool", POOL, "--timeout=100s");
    await untilGone(namespace);
  });

  it("while its machines boot, some leave and others are deleted leaves nothing of it", async (test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool(POOL, { replicas: 6 }));
    await untilMachines(namespace, machineNames(POOL, 6));
    // The claim is closed: what was still being created would hold the pool for minutes.
    await untilStatus(namespace, POOL, { replicas: 6 });
    const detach = '{"metadata":{"ownerReferences":null}}';
    await namespace.kubectl("patch", "vm", "pool-0", "--type", "merge", "--patch", detach);
    await namespace.kubectl("delete", "vm", "pool-4", "--wait=false");
    await namespace.kubectl("delete", "vmpool", POOL, "--timeout=100s");
    await untilMachines(namespace, ["pool-0"]);
    await namespace.kubectl("delete", "vm", "pool-0", "--timeout=100s");
    await untilGone(namespace);
  });

  it("with its namespace comes to an end", async (test) => {
    const namespace = await aReadyPool(test);
    await world.kubectl("delete", "namespace", namespace.name, "--timeout=100s");
    expect(await world.kubectl("get", "namespace", namespace.name, "--ignore-not-found")).toBe("");
  });
});

describe.concurrent("deleting machines", () => {
  it("by kubectl in the foreground does not hang, and they are replaced", async (test) => {
    const namespace = await aReadyPool(test);
    const before = (await namespace.machines()).map(({ metadata }) => metadata.uid);
    await namespace.kubectl("delete", "vm", "--all", "--cascade=foreground", "--timeout=100s");
    await eventually(async () => {
      const machines = await namespace.machines();
      expect(machines.filter(({ metadata }) => before.includes(metadata.uid))).toEqual([]);
    });
    await untilReady(namespace, POOL, REPLICAS);
  });
});
