/** Which machines belong to a pool: illegal selectors, pools that overlap, machines that leave and strangers. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import {
  conditionOf,
  controllerUidOf,
  type KubeObject,
  machineNames,
  managersOf,
  namesOf,
} from "../support/objects.ts";
import { aMachine, aPool, POOL_LABEL } from "../support/pool-manifests.ts";
import { untilMachines, untilPassed, untilReady, untilStatus } from "../support/until.ts";
import { type Finishing, type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";
const POOL_FINALIZER = "pool.kubevirt.io/finalizer";
const OTHER_FINALIZER = "example.com/keep";
const DETACH = '{"metadata":{"ownerReferences":null}}';

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

/** Waits until the pool owns this many machines and all of them are ready. */
async function untilOwned(namespace: Namespace, pool: string, count: number): Promise<readonly KubeObject[]> {
  await untilStatus(namespace, pool, { replicas: count, readyReplicas: count });
  return eventually(async () => {
    const owner = await namespace.pool(pool);
    const owned = (await namespace.machines()).filter((machine) => controllerUidOf(machine) === owner?.metadata.uid);
    expect(owned).toHaveLength(count);
    return owned;
  });
}

/** What the functions said about a pool that they hold. */
function errorsAbout(namespace: Namespace, pool: string): string {
  const lines = world.logged.filter(
    ({ level, fields }) => level === "error" && fields["namespace"] === namespace.name && fields["pool"] === pool,
  );
  return lines.map(({ message, fields }) => `${message}: ${fields["decisions"]}`).join("\n");
}

describe.concurrent("an illegal pool", () => {
  it.for([
    {
      what: "whose selector does not match its template",
      labels: { app: "web" },
      shown: 'which are {"app":"web"}',
    },
    { what: "whose template has no labels", labels: {}, shown: "which are empty" },
  ])("$what is held, named in the log and deleted at once, and others go on (D19)", async ({ labels, shown }, test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool("bad", { replicas: 2, labels, matchLabels: { app: "db" } }), aPool("good"));
    await untilReady(namespace, "good", 1);
    await eventually(async () => {
      const bad = await namespace.pool("bad");
      expect(bad && conditionOf(bad, "ReplicaFailure")).toMatchObject({ status: "True", reason: "InvalidSpec" });
    });
    const errors = errorsAbout(namespace, "bad");
    expect(errors).toContain('selector "app=db"');
    expect(errors).toContain(shown);
    expect(errorsAbout(namespace, "good")).toBe("");
    expect(await namespace.kubectl("describe", "vmpool", "bad")).toMatch(/Warning +InvalidSpec .*selector "app=db"/);
    await namespace.kubectl("delete", "vmpool", "bad", "--timeout=100s");
    await untilMachines(namespace, ["good-0"]);
  });

  it("that was legal before keeps its machines, and takes them along when it is deleted", async (test) => {
    const namespace = await aReadyPool(test, 2);
    const labels = {
      spec: { replicas: 4, virtualMachineTemplate: { metadata: { labels: { [POOL_LABEL]: "other" } } } },
    };
    await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", JSON.stringify(labels));
    await eventually(async () => {
      const pool = await namespace.pool(POOL);
      expect(pool && conditionOf(pool, "ReplicaFailure")).toMatchObject({ status: "True" });
    });
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    await untilMachines(namespace, machineNames(POOL, 2));
    await namespace.kubectl("delete", "vmpool", POOL, "--timeout=100s");
    await untilMachines(namespace, []);
  });

  it("that is corrected is served, without its condition", async (test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool(POOL, { labels: { app: "web" }, matchLabels: { app: "db" } }));
    await eventually(async () => {
      const pool = await namespace.pool(POOL);
      expect(pool && conditionOf(pool, "ReplicaFailure")).toBeDefined();
    });
    const labels = { spec: { virtualMachineTemplate: { metadata: { labels: { app: "db" } } } } };
    await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", JSON.stringify(labels));
    await untilReady(namespace, POOL, 1);
    await eventually(async () => {
      const pool = await namespace.pool(POOL);
      expect(pool && conditionOf(pool, "ReplicaFailure")).toBeUndefined();
    });
  });
});

it.concurrent("leaves the machines of another pool with an overlapping selector alone", async (test) => {
  const namespace = await world.aNamespace(test);
  const shared = { labels: { app: "shared" }, matchLabels: { app: "shared" } };
  await namespace.create(aPool("a", { ...shared, replicas: 2 }), aPool("b", { ...shared, replicas: 3 }));
  await untilOwned(namespace, "a", 2);
  await untilOwned(namespace, "b", 3);
  await namespace.kubectl("scale", "vmpool", "a", "--replicas=4");
  await namespace.kubectl("scale", "vmpool", "b", "--replicas=1");
  const ofA = await untilOwned(namespace, "a", 4);
  await untilOwned(namespace, "b", 1);
  await namespace.kubectl("delete", "vmpool", "b", "--timeout=100s");
  await untilMachines(namespace, machineNames("a", 4));
  const uids = (machines: readonly KubeObject[]) => machines.map(({ metadata }) => metadata.uid).sort();
  expect(uids(await namespace.machines())).toEqual(uids(ofA));
});

it.concurrent("leaves a guest alone whose machine was deleted without it", async (test) => {
  const namespace = await aReadyPool(test, 2);
  const instance = () => namespace.find("apis/kubevirt.io/v1", "virtualmachineinstances", "pool-0");
  const before = await instance();
  await namespace.kubectl("delete", "vm", "pool-0", "--cascade=orphan", "--timeout=100s");
  await untilMachines(namespace, ["pool-1", "pool-2"]);
  await untilOwned(namespace, POOL, 2);
  await eventually(async () => {
    expect(await namespace.kubectl("get", "events", "-o", "custom-columns=:.reason,:.message")).toMatch(
      /InstanceLeftBehind +ordinal 0 is left out: instance pool-0/,
    );
  });
  const after = await instance();
  expect(after?.metadata.uid).toBe(before?.metadata.uid);
  expect(after?.metadata.ownerReferences ?? []).toEqual([]);

  await namespace.kubectl("delete", "vmi", "pool-0", "--timeout=100s");
  await namespace.kubectl("scale", "vmpool", POOL, "--replicas=3");
  await untilMachines(namespace, machineNames(POOL, 3));
});

describe.concurrent("a detached machine", () => {
  it.for([
    { how: "with its labels", relabel: false },
    { how: "with other labels", relabel: true },
  ])("$how is replaced, lives on untouched and is deleted freely", async ({ relabel }, test) => {
    const namespace = await aReadyPool(test, 2);
    const before = await namespace.machine("pool-0");
    await namespace.kubectl("patch", "vm", "pool-0", "--type", "merge", "--patch", DETACH);
    if (relabel) await namespace.kubectl("label", "vm", "pool-0", `${POOL_LABEL}=mine`, "--overwrite");
    const free = await eventually(async () => {
      expect(namesOf(await namespace.machines())).toEqual(machineNames(POOL, 3));
      const machine = await namespace.machine("pool-0");
      expect(machine?.metadata.finalizers).not.toContain(POOL_FINALIZER);
      return machine;
    });
    await untilStatus(namespace, POOL, { replicas: 2, readyReplicas: 2 });
    expect(free?.metadata).toMatchObject({ uid: before?.metadata.uid, ownerReferences: [] });

    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=4");
    await untilOwned(namespace, POOL, 4);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=0");
    await untilOwned(namespace, POOL, 0);
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    const after = await namespace.machine("pool-0");
    expect(after).toMatchObject({ status: { printableStatus: "Running" } });
    expect(after?.metadata).toEqual(free?.metadata);

    await namespace.kubectl("delete", "vm", "pool-0", "--timeout=100s");
    await untilMachines(namespace, []);
  });

  it("is not taken back when its pool is deleted and made again", async (test) => {
    const namespace = await aReadyPool(test, 1);
    await namespace.kubectl("patch", "vm", "pool-0", "--type", "merge", "--patch", DETACH);
    await eventually(async () => {
      expect((await namespace.machine("pool-0"))?.metadata.finalizers).not.toContain(POOL_FINALIZER);
    });
    await namespace.kubectl("delete", "vmpool", POOL, "--timeout=100s");
    await untilMachines(namespace, ["pool-0"]);
    const free = await namespace.machine("pool-0");
    await namespace.create(aPool(POOL, { replicas: 1 }));
    await untilMachines(namespace, ["pool-0", "pool-1"]);
    await untilOwned(namespace, POOL, 1);
    expect((await namespace.machine("pool-0"))?.metadata).toEqual(free?.metadata);
  });
});

it.concurrent("releases a relabelled machine with its other finalizers and owners, and replaces it (D13)", async (test) => {
  const namespace = await aReadyPool(test, 2);
  await namespace.kubectl("create", "configmap", "keeper");
  const keeper = await namespace.find("api/v1", "configmaps", "keeper");
  const owner = { apiVersion: "v1", kind: "ConfigMap", name: "keeper", uid: keeper?.metadata.uid };
  const additions = [
    { op: "add", path: "/metadata/ownerReferences/-", value: owner },
    { op: "add", path: "/metadata/finalizers/-", value: OTHER_FINALIZER },
  ];
  const before = await namespace.machine("pool-1");
  await namespace.kubectl("patch", "vm", "pool-1", "--type", "json", "--patch", JSON.stringify(additions));
  await namespace.kubectl("label", "vm", "pool-1", `${POOL_LABEL}-`);
  const released = await eventually(async () => {
    const machine = await namespace.machine("pool-1");
    expect(machine?.metadata.finalizers).not.toContain(POOL_FINALIZER);
    return machine;
  });
  test.onTestFinished(async () => {
    const patch = '{"metadata":{"finalizers":null}}';
    await namespace.kubectl("patch", "vm", "pool-1", "--type", "merge", "--patch", patch);
  });
  expect(released?.metadata.uid).toBe(before?.metadata.uid);
  expect(released?.metadata.ownerReferences).toEqual([owner]);
  expect(released?.metadata.finalizers).toContain(OTHER_FINALIZER);
  await untilMachines(namespace, machineNames(POOL, 3));
  await untilStatus(namespace, POOL, { replicas: 2, readyReplicas: 2 });
  expect((await namespace.machine("pool-1"))?.metadata.uid).toBe(before?.metadata.uid);
});

it.concurrent("steps over a stranger's machine that has a name of the pool, and never adopts or deletes it", async (test) => {
  const namespace = await world.aNamespace(test);
  await namespace.create(aMachine("pool-1", { [POOL_LABEL]: POOL }));
  await namespace.create(aPool(POOL, { replicas: 2 }));
  await untilMachines(namespace, machineNames(POOL, 3));
  await untilOwned(namespace, POOL, 2);
  await namespace.kubectl("scale", "vmpool", POOL, "--replicas=0");
  await untilMachines(namespace, ["pool-1"]);
  const stranger = await namespace.machine("pool-1");
  expect(stranger && managersOf(stranger)).not.toContain("vmpool-functions");
  expect(stranger?.metadata.ownerReferences).toEqual([]);
});
