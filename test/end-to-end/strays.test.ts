/** Machines whose pool went without them, machines of illegal pools, and pools that are made again under their old name. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { controllerUidOf, isTerminating, machineNames, namesOf } from "../support/objects.ts";
import { aMachine, aPool, POOL_LABEL } from "../support/pool-manifests.ts";
import { untilMachines, untilPassed, untilReady, untilSettled, untilStatus } from "../support/until.ts";
import { type Finishing, type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";
const POOL_FINALIZER = "pool.kubevirt.io/finalizer";
const OTHER_FINALIZER = "example.com/keep";
const REVISION_LABEL = "kubevirt.io/vm-pool-revision-name";
const OFFLINE = { scaleInStrategy: { proactive: { statePreservation: "Offline" } } };
const STORAGE = { resources: { requests: { storage: "1Gi" } } };
const DISK = {
  machine: { dataVolumeTemplates: [{ metadata: { name: "disk" }, spec: { source: { blank: {} }, storage: STORAGE } }] },
  volumes: [{ name: "root", dataVolume: { name: "disk" } }],
};

let world: World;

beforeAll(async () => {
  world = await startWorld();
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

async function aReadyPool(test: Finishing, replicas: number, changes: Parameters<typeof aPool>[1] = {}) {
  const namespace = await world.aNamespace(test);
  await namespace.create(aPool(POOL, { replicas, ...changes }));
  await untilReady(namespace, POOL, replicas);
  return namespace;
}

function patch(namespace: Namespace, kind: string, name: string, body: object): Promise<string> {
  return namespace.kubectl("patch", kind, name, "--type", "merge", "--patch", JSON.stringify(body));
}

/** As somebody does whose pool would not go: it is gone at once, and nothing was let go. */
async function stripPool(namespace: Namespace): Promise<void> {
  await namespace.kubectl("delete", "vmpool", POOL, "--wait=false");
  await patch(namespace, "vmpool", POOL, { metadata: { finalizers: null } }).catch((error: unknown) => {
    // The functions were quicker.
    if (!String(error).includes("not found")) throw error;
  });
  await eventually(async () => expect(await namespace.pool(POOL)).toBeUndefined());
}

async function hold(namespace: Namespace, test: Finishing, machine: string): Promise<() => Promise<string>> {
  const finalizers = (await namespace.machine(machine))?.metadata.finalizers ?? [];
  await patch(namespace, "vm", machine, { metadata: { finalizers: [...finalizers, OTHER_FINALIZER] } });
  const letGo = () => patch(namespace, "vm", machine, { metadata: { finalizers: null } });
  test.onTestFinished(async () => {
    await letGo().catch(() => undefined);
  });
  return letGo;
}

describe.concurrent("a pool whose finalizer somebody stripped", () => {
  it("leaves no machine that hangs", async (test) => {
    const namespace = await aReadyPool(test, 3);
    await stripPool(namespace);
    await untilMachines(namespace, []);
  });

  it("leaves its machines' kept disks", async (test) => {
    const namespace = await aReadyPool(test, 2, { spec: OFFLINE, ...DISK });
    const disks = () => namespace.list("apis/cdi.kubevirt.io/v1beta1", "datavolumes");
    const guarded = await eventually(async () => {
      const found = await disks();
      const owners = found.map(({ metadata }) => metadata.ownerReferences.map(({ kind }) => kind).sort());
      expect(owners).toEqual([
        ["Namespace", "VirtualMachine"],
        ["Namespace", "VirtualMachine"],
      ]);
      return found.map(({ metadata }) => metadata.uid);
    });
    await stripPool(namespace);
    await untilMachines(namespace, []);
    await eventually(async () => {
      const found = await disks();
      expect(found.map(({ metadata }) => metadata.uid)).toEqual(guarded);
      for (const { metadata } of found) expect(metadata.ownerReferences.map(({ kind }) => kind)).toEqual(["Namespace"]);
    });
  });
});

/** A machine as a pool left it that no pass could see to, for there was none. */
function aStray(name: string, metadata: object): object {
  const machine = aMachine(name);
  return { ...machine, metadata: { name, finalizers: [POOL_FINALIZER], ...metadata } };
}

describe.concurrent("a machine that nobody looks after", () => {
  it("is let go and lives on when it has no owner, and goes when it is deleted", async (test) => {
    const namespace = await world.aNamespace(test);
    const labels = { [REVISION_LABEL]: "pool-7", [POOL_LABEL]: POOL };
    await namespace.create(aStray("pool-0", { labels }), aStray("pool-1", { labels }));
    await namespace.kubectl("delete", "vm", "pool-1", "--timeout=100s");
    await eventually(async () => {
      expect((await namespace.machine("pool-0"))?.metadata.finalizers ?? []).not.toContain(POOL_FINALIZER);
    });
    await untilMachines(namespace, ["pool-0"]);
  });

  it("is left alone when it names no revision", async (test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(
      aStray("pool-0", { labels: { [POOL_LABEL]: POOL } }),
      aStray("pool-1", { labels: { [REVISION_LABEL]: "pool-1" } }),
    );
    test.onTestFinished(async () => {
      await patch(namespace, "vm", "pool-0", { metadata: { finalizers: null } });
    });
    await eventually(async () => {
      expect((await namespace.machine("pool-1"))?.metadata.finalizers).not.toContain(POOL_FINALIZER);
    });
    expect((await namespace.machine("pool-0"))?.metadata.finalizers).toContain(POOL_FINALIZER);
  });
});

describe.concurrent("a pool that is made again under its name", () => {
  it("lets the old one's machines go and makes its own, when the old one's finalizer was stripped", async (test) => {
    const namespace = await aReadyPool(test, 2);
    const before = (await namespace.machines()).map(({ metadata }) => metadata.uid);
    await namespace.kubectl("delete", "vmpool", POOL, "--wait=false");
    await patch(namespace, "vmpool", POOL, { metadata: { finalizers: null } }).catch(() => undefined);
    await namespace.create(aPool(POOL, { replicas: 2 }));
    await eventually(async () => {
      const machines = await namespace.machines();
      expect(machines.filter(({ metadata }) => before.includes(metadata.uid))).toEqual([]);
      expect(machines).toHaveLength(2);
    });
    await untilStatus(namespace, POOL, { replicas: 2, readyReplicas: 2 });
  });

  it("takes other numbers while an old machine goes, and keeps to them", async (test) => {
    const namespace = await aReadyPool(test, 1);
    const letGo = await hold(namespace, test, "pool-0");
    await namespace.kubectl("delete", "vmpool", POOL, "--timeout=100s");
    await eventually(async () => {
      const machine = await namespace.machine("pool-0");
      expect(machine && isTerminating(machine)).toBe(true);
    });
    await namespace.create(aPool(POOL, { replicas: 2 }));
    await untilStatus(namespace, POOL, { replicas: 2, readyReplicas: 2 });
    expect(namesOf(await namespace.machines())).toEqual(machineNames(POOL, 3));
    await letGo();
    await untilMachines(namespace, ["pool-1", "pool-2"]);
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    await untilMachines(namespace, ["pool-1", "pool-2"]);
  });

  it("does not take the old one's revision of the same name for its own (D18)", async (test) => {
    const namespace = await aReadyPool(test, 1);
    await namespace.kubectl("delete", "vmpool", POOL, "--cascade=orphan", "--timeout=100s");
    await eventually(async () => {
      const revisions = await namespace.list("apis/apps/v1", "controllerrevisions");
      expect(revisions.map(({ metadata }) => [metadata.name, metadata.ownerReferences])).toEqual([["pool-1", []]]);
    });
    await namespace.create(aPool(POOL, { replicas: 1, annotations: { edition: "second" } }));
    await untilMachines(namespace, ["pool-0", "pool-1"]);
    // Nothing is left to do: no machine is taken for an outdated one again and again.
    await untilSettled(world, { namespace, name: POOL }, { replicas: 1, readyReplicas: 1 });
    const [orphan, machine] = await namespace.machines();
    expect(orphan?.metadata).toMatchObject({ name: "pool-0", ownerReferences: [] });
    expect(machine && controllerUidOf(machine)).toBe((await namespace.pool(POOL))?.metadata.uid);
    expect(machine?.metadata.labels[REVISION_LABEL]).toMatch(/^pool-1-[0-9a-f]{8}$/);
  });
});

describe.concurrent("an illegal pool", () => {
  const BROKEN = { spec: { maxUnavailable: "0%" } };

  it.for(["background", "foreground"])("lets a machine go that is deleted in the %s", async (cascade, test) => {
    const namespace = await aReadyPool(test, 2);
    await patch(namespace, "vmpool", POOL, BROKEN);
    await namespace.kubectl("delete", "vm", "pool-0", `--cascade=${cascade}`, "--timeout=100s");
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    await untilMachines(namespace, ["pool-1"]);
    // Nothing else: a relabelled machine stays bound until the pool is corrected.
    await namespace.kubectl("label", "vm", "pool-1", `${POOL_LABEL}-`);
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    expect((await namespace.machine("pool-1"))?.metadata.finalizers).toContain(POOL_FINALIZER);
    await patch(namespace, "vmpool", POOL, { spec: { maxUnavailable: null } });
    await eventually(async () => {
      expect((await namespace.machine("pool-1"))?.metadata.ownerReferences).toEqual([]);
    });
    await untilStatus(namespace, POOL, { replicas: 2, readyReplicas: 2 });
  });

  it("keeps the disk of a machine that is deleted, when that is what its strategy says", async (test) => {
    const namespace = await aReadyPool(test, 1, { spec: OFFLINE, ...DISK });
    const disk = () => namespace.find("apis/cdi.kubevirt.io/v1beta1", "datavolumes", "disk-0");
    const before = await disk();
    await patch(namespace, "vmpool", POOL, BROKEN);
    await namespace.kubectl("delete", "vm", "pool-0", "--timeout=100s");
    await untilMachines(namespace, []);
    const after = await disk();
    expect(after?.metadata.uid).toBe(before?.metadata.uid);
    expect(after?.metadata.deletionTimestamp).toBeUndefined();
  });
});
