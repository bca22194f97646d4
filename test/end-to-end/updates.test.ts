/** Pools whose template changes: what becomes of machines, guests, disks and revisions, as a user sees it. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { eventually } from "../support/eventually.ts";
import { machineNames, namesOf } from "../support/objects.ts";
import { aPool, POOL_LABEL, type PoolChanges } from "../support/pool-manifests.ts";
import { type GuestState, type Recording, recordGuests, restartsOf, unavailableMax } from "../support/recording.ts";
import {
  at,
  BEHAVIOUR,
  changeGuest,
  changeMachine,
  instanceOf,
  instancesOf,
  mergePatch,
  REVISION_LABEL,
  revisionNames,
  revisionOf,
  uidsOf,
  untilRolledOut,
} from "../support/rollouts.ts";
import { untilMachines, untilPassed, untilReady, untilSettled } from "../support/until.ts";
import { type Finishing, type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";
/** The second template: another image. */
const SECOND = { volumes: [{ name: "containerdisk", containerDisk: { image: "cirros:2" } }] };
const THIRD = { volumes: [{ name: "containerdisk", containerDisk: { image: "cirros:3" } }] };

/** A create whose answer was lost may still name a revision for two and a half minutes. */
const SETTLING = { timeout: 200_000, interval: 500 };
vi.setConfig({ testTimeout: 400_000 });

let world: World;
let functions: { stop(): Promise<void> };
let takenOver: TakenOver;

beforeAll(async () => {
  world = await startWorld({ functions: false });
  await setRollout("LiveUpdate");
  // Before there are functions: they wait for a while before they act on a pool that they take over.
  takenOver = await aPoolOfTheReference();
  functions = world.startFunctions("local");
}, WORLD_TIMEOUT_MS);

afterAll(async () => {
  await functions.stop();
  await world.stop();
});

function setRollout(vmRolloutStrategy: string): Promise<string> {
  const patch = JSON.stringify({ spec: { configuration: { vmRolloutStrategy } } });
  return eventually(() => world.kubectl("patch", "kv", "kubevirt", "-n", "kubevirt", "--type=merge", "-p", patch));
}

/** A namespace with a pool that is ready. */
async function aReadyPool(test: Finishing, changes: PoolChanges & { readonly replicas: number }): Promise<Namespace> {
  const namespace = await world.aNamespace(test);
  await namespace.create(aPool(POOL, changes));
  await untilReady(namespace, POOL, changes.replicas);
  return namespace;
}

async function record(test: Finishing, namespace: Namespace): Promise<Recording<GuestState>> {
  const recording = await recordGuests({ connection: world.connection, namespace: namespace.name });
  test.onTestFinished(() => recording.stop());
  return recording;
}

const placeOf = (namespace: Namespace) => ({ namespace: namespace.name, name: POOL });

/** What a pass would say now. */
async function decisionsOf(namespace: Namespace): Promise<readonly string[]> {
  const { result } = await world.runPass(placeOf(namespace), { wide: false, observe: true });
  return result.decisions;
}

/** Waits until nothing is left to do. */
function untilDone(namespace: Namespace, status: object): Promise<void> {
  return untilSettled(world, { namespace, name: POOL }, status);
}

/** Waits until these revisions are left. */
function untilRevisions(namespace: Namespace, names: readonly string[]): Promise<void> {
  return vi.waitFor(async () => expect(await revisionNames(namespace)).toEqual(names), SETTLING);
}

/** Nothing is left to do, and passes cost what they cost a pool that never changed. */
async function expectSettled(namespace: Namespace, status: object): Promise<void> {
  await untilDone(namespace, status);
  await vi.waitFor(async () => {
    const { meter } = await world.runPass(placeOf(namespace), { wide: false });
    expect(meter).toMatchObject({ requests: 2, writes: 0 });
  }, SETTLING);
  const before = world.passes.length;
  await untilPassed(world, placeOf(namespace));
  const passes = world.passes.slice(before).filter(({ pool }) => pool.namespace === namespace.name);
  // The first may have begun before.
  const later = passes.slice(1);
  expect(later.map(({ meter }) => meter.writes)).toEqual(later.map(() => 0));
}

/** What `virtctl start`, `stop` and `restart` do where the run strategy leaves it to requests. */
async function request(namespace: Namespace, machine: string, ...actions: readonly ("Stop" | "Start")[]) {
  const uid = (await instanceOf(namespace, machine))?.metadata.uid;
  const value = actions.map((action) => (action === "Stop" ? { action, uid } : { action }));
  const path = "/status/stateChangeRequests";
  const patch = JSON.stringify([
    { op: "test", path, value: null },
    { op: "add", path, value },
  ]);
  await eventually(() =>
    namespace.kubectl("patch", "vm", machine, "--subresource=status", "--type=json", "--patch", patch),
  );
}

describe.concurrent("a live update", () => {
  const domain = { cpu: { cores: 1, sockets: 1 }, memory: { guest: "2Gi" }, devices: {} };
  const live = (behaviour?: string) => ({ template: guestTemplate({ behaviour, domain }) });

  it("that does not arrive is a restart, after a minute", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 1, machine: live("ignore-live-update") });
    const guests = uidsOf(await instancesOf(namespace));
    await changeGuest(namespace, POOL, { domain: { cpu: { sockets: 3 } } });
    await eventually(async () => {
      expect(await decisionsOf(namespace)).toContain("pool-0 is not updated: KubeVirt is changing it while it runs");
    });
    expect(uidsOf(await instancesOf(namespace))).toEqual(guests);
    await untilRolledOut(namespace, { revision: "pool-2", machines: 1 });
    expect(uidsOf(await instancesOf(namespace))).not.toEqual(guests);
    expect(await namespace.kubectl("describe", "vmpool", POOL)).toContain("the change did not reach it while it ran");
  });

  it("reaches guests without a restart, and their revision follows", async (test) => {
    const tolerations = [{ key: "spot", operator: "Exists" }];
    const namespace = await aReadyPool(test, { replicas: 2, spec: { maxUnavailable: 1 }, machine: live() });
    const guests = uidsOf(await instancesOf(namespace));
    const changes = [{ domain: { cpu: { sockets: 3 } } }, { nodeSelector: { zone: "a" } }, { tolerations }];
    for (const [index, change] of changes.entries()) {
      await changeGuest(namespace, POOL, change);
      await untilRolledOut(namespace, { revision: `pool-${index + 2}`, machines: 2 });
      for (const { spec } of await instancesOf(namespace)) expect(spec).toMatchObject(change);
    }
    await untilDone(namespace, { replicas: 2, readyReplicas: 2 });
    expect(uidsOf(await instancesOf(namespace))).toEqual(guests);
    await untilRevisions(namespace, ["pool-4"]);
  });

  it("that KubeVirt cannot make on a running guest is a restart", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 2, spec: { maxUnavailable: 1 }, machine: live() });
    const recording = await record(test, namespace);
    await changeGuest(namespace, POOL, { domain: { memory: { guest: "1Gi" } } });
    await untilRolledOut(namespace, { revision: "pool-2", machines: 2 });
    for (const { spec } of await instancesOf(namespace)) expect(at(spec, "domain.memory.guest")).toBe("1Gi");
    const states = await recording.states();
    expect(restartsOf(states)).toEqual({ "pool-0": 1, "pool-1": 1 });
    expect(unavailableMax(states, 2)).toBe(1);
    expect(await namespace.kubectl("describe", "vmpool", POOL)).toContain("KubeVirt cannot change it while it runs");
  });
});

it.concurrent("keeps maxUnavailable of twenty while two deployments overlap and machines fail on their own", async (test) => {
  const [replicas, maxUnavailable] = [20, 3];
  const machine = { template: guestTemplate({ behaviour: "slow:4" }) };
  const namespace = await aReadyPool(test, { replicas, spec: { maxUnavailable }, machine });
  const second = world.startFunctions("local", [namespace.name]);
  test.onTestFinished(() => second.stop());
  const recording = await record(test, namespace);

  await changeGuest(namespace, POOL, SECOND);

  const countRolled = async () => (await instancesOf(namespace)).filter((one) => revisionOf(one) === "pool-2").length;
  await eventually(async () => expect(await countRolled()).toBeGreaterThanOrEqual(6));
  expect(unavailableMax(await recording.states(), replicas)).toBe(maxUnavailable);
  const failed = await failMachines(namespace, async () => (await countRolled()) > 17);
  await untilRolledOut(namespace, { revision: "pool-2", machines: replicas });
  const states = await recording.states();
  expect(failed.size).toBeGreaterThan(3);
  expect(takenDown(states, { replicas, failed }).filter(({ unavailable }) => unavailable >= maxUnavailable)).toEqual(
    [],
  );
  await expectSettled(namespace, { replicas, readyReplicas: replicas });
});

describe.concurrent("a proactive pool", () => {
  it("gives every machine the new template, restarts each guest once and one at a time, and settles", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 3, spec: { maxUnavailable: 1 } });
    const [machines, guests] = [uidsOf(await namespace.machines()), uidsOf(await instancesOf(namespace))];
    const recording = await record(test, namespace);

    await changeGuest(namespace, POOL, SECOND);

    await untilRolledOut(namespace, { revision: "pool-2", machines: 3 });
    const states = await recording.states();
    expect(unavailableMax(states, 3)).toBe(1);
    expect(restartsOf(states)).toEqual({ "pool-0": 1, "pool-1": 1, "pool-2": 1 });
    expect(uidsOf(await namespace.machines())).toEqual(machines);
    for (const instance of await instancesOf(namespace)) {
      expect(at(instance.spec, "volumes.0.containerDisk.image")).toBe("cirros:2");
      expect(instance.metadata.uid).not.toBe(guests[instance.metadata.name]);
    }
    await expectSettled(namespace, { replicas: 3, readyReplicas: 3 });

    await untilRevisions(namespace, ["pool-2"]);
    const pool = await namespace.pool(POOL);
    const revision = await namespace.find("apis/apps/v1", "controllerrevisions", "pool-2");
    expect(revision).toMatchObject({ revision: 2, data: pool?.spec });
    expect(revision?.metadata.ownerReferences).toMatchObject([
      { kind: "VirtualMachinePool", name: POOL, uid: pool?.metadata.uid, controller: true, blockOwnerDeletion: true },
    ]);
    const described = await namespace.kubectl("describe", "vmpool", POOL);
    for (const name of machineNames(POOL, 3)) {
      expect(described).toMatch(new RegExp(`Normal +SuccessfulUpdate .*Updated VM ${namespace.name}/${name}\n`));
      expect(described).toMatch(
        new RegExp(`Normal +SuccessfulUpdate .*Restarted VM ${namespace.name}/${name}: it runs`),
      );
    }
    expect(described).not.toContain("Warning");
  });

  it.for([
    { maxUnavailable: "59%", replicas: 4, atOnce: 2 },
    { maxUnavailable: "1%", replicas: 3, atOnce: 1 },
    { maxUnavailable: undefined, replicas: 3, atOnce: 3 },
  ])("restarts $atOnce of $replicas at once when maxUnavailable is $maxUnavailable", async (given, test) => {
    const { maxUnavailable, replicas, atOnce } = given;
    const namespace = await aReadyPool(test, {
      replicas,
      spec: maxUnavailable === undefined ? {} : { maxUnavailable },
    });
    const recording = await record(test, namespace);
    await changeGuest(namespace, POOL, SECOND);
    await untilRolledOut(namespace, { revision: "pool-2", machines: replicas });
    const states = await recording.states();
    expect(unavailableMax(states, replicas)).toBe(atOnce);
    expect(Object.values(restartsOf(states))).toEqual(Array.from({ length: replicas }, () => 1));
  });

  it("restarts no guest for labels and annotations of the machines, whose revision follows", async (test) => {
    const metadata = { labels: { tier: "gold" }, annotations: { note: "gold" } };
    const namespace = await aReadyPool(test, { replicas: 2, spec: { maxUnavailable: 1 } });
    const guests = uidsOf(await instancesOf(namespace));
    await mergePatch(namespace, "vmpool", POOL, { spec: { virtualMachineTemplate: { metadata } } });
    await untilRolledOut(namespace, { revision: "pool-2", machines: 2 });
    await untilDone(namespace, { replicas: 2, readyReplicas: 2 });
    expect(uidsOf(await instancesOf(namespace))).toEqual(guests);
    for (const machine of await namespace.machines()) expect(machine.metadata).toMatchObject(metadata);
    await untilRevisions(namespace, ["pool-2"]);
  });

  it("makes no revision when it is scaled, and new machines take the one that is there", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 2 });
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=4");
    await untilReady(namespace, POOL, 4);
    await mergePatch(namespace, "vmpool", POOL, { spec: { maxUnavailable: "50%", replicas: 3 } });
    await eventually(async () => expect(await namespace.machines()).toHaveLength(3));
    await untilDone(namespace, { replicas: 3, readyReplicas: 3 });
    await untilRevisions(namespace, ["pool-1"]);
    expect((await namespace.machines()).map(revisionOf)).toEqual(["pool-1", "pool-1", "pool-1"]);
  });

  it("does nothing while it is paused, and rolls out when it is resumed", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 2 });
    const guests = uidsOf(await instancesOf(namespace));
    await mergePatch(namespace, "vmpool", POOL, { spec: { paused: true } });
    await changeGuest(namespace, POOL, SECOND);
    await untilPassed(world, placeOf(namespace));
    expect((await namespace.machines()).map(revisionOf)).toEqual(["pool-1", "pool-1"]);
    expect(uidsOf(await instancesOf(namespace))).toEqual(guests);
    await mergePatch(namespace, "vmpool", POOL, { spec: { paused: false } });
    await untilRolledOut(namespace, { revision: "pool-4", machines: 2 });
  });

  it("leaves guests that were not restarted yet alone when the change is taken back", async (test) => {
    const machine = { template: guestTemplate({ behaviour: "slow:3" }) };
    const namespace = await aReadyPool(test, { replicas: 4, spec: { maxUnavailable: 1 }, machine });
    const guests = uidsOf(await instancesOf(namespace));
    const recording = await record(test, namespace);
    await changeGuest(namespace, POOL, SECOND);
    await eventually(async () => {
      expect(Object.values(restartsOf(await recording.states())).filter((restarts) => restarts > 0)).not.toEqual([]);
    });
    await changeGuest(namespace, POOL, { volumes: guestTemplate().spec.volumes });
    await untilRolledOut(namespace, { revision: "pool-3", machines: 4 });
    const states = await recording.states();
    expect(unavailableMax(states, 4)).toBe(1);
    const after = uidsOf(await instancesOf(namespace));
    const same = Object.keys(guests).filter((name) => guests[name] === after[name]);
    expect(same.length).toBeGreaterThanOrEqual(2);
    for (const { spec } of await instancesOf(namespace)) {
      expect(at(spec, "volumes.0.containerDisk.image")).toBe("cirros");
    }
    await untilDone(namespace, { replicas: 4, readyReplicas: 4 });
    await untilRevisions(namespace, ["pool-3"]);
  });

  it("goes straight to the last of several changes", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 3, spec: { maxUnavailable: 1 } });
    const recording = await record(test, namespace);
    await changeGuest(namespace, POOL, SECOND);
    await changeGuest(namespace, POOL, THIRD);
    await untilRolledOut(namespace, { revision: "pool-3", machines: 3 });
    const states = await recording.states();
    expect(unavailableMax(states, 3)).toBe(1);
    expect(Math.max(...Object.values(restartsOf(states)))).toBeLessThanOrEqual(2);
    for (const { spec } of await instancesOf(namespace)) {
      expect(at(spec, "volumes.0.containerDisk.image")).toBe("cirros:3");
    }
    await untilDone(namespace, { replicas: 3, readyReplicas: 3 });
    await untilRevisions(namespace, ["pool-3"]);
  });

  it("loses one machine to a template that cannot run, and that one does not hold up its cure", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 3, spec: { maxUnavailable: 1 } });
    const recording = await record(test, namespace);
    await changeMachine(namespace, POOL, { template: { metadata: { annotations: { [BEHAVIOUR]: "crash-loop" } } } });
    await eventually(async () => {
      const { stdout } = await world.tryKubectl([
        "-n",
        namespace.name,
        "get",
        "vm",
        "-o",
        "jsonpath={..printableStatus}",
      ]);
      expect(stdout).toContain("CrashLoopBackOff");
    });
    await untilPassed(world, placeOf(namespace));
    await eventually(async () => {
      const waiting = /^roll-out of pool-2: . of 3 machines to go; 2 wait for others .* \(maxUnavailable 1\)$/;
      expect(await decisionsOf(namespace)).toContainEqual(expect.stringMatching(waiting));
    });
    expect(unavailableMax(await recording.states(), 3)).toBe(1);

    const cure = { [BEHAVIOUR]: null, cured: "yes" };
    await changeMachine(namespace, POOL, { template: { metadata: { annotations: cure } } });

    await untilRolledOut(namespace, { revision: "pool-3", machines: 3 });
    expect(unavailableMax(await recording.states(), 3)).toBe(1);
    await untilDone(namespace, { replicas: 3, readyReplicas: 3 });
  });

  it("does not trust a revision that an earlier pool of its name has left behind", async (test) => {
    const namespace = await world.aNamespace(test);
    const left = { apiVersion: "apps/v1", kind: "ControllerRevision", revision: 1, data: poolSpec({ replicas: 7 }) };
    await namespace.create({ ...left, metadata: { name: "pool-1" } });
    await namespace.create(aPool(POOL, { replicas: 2, volumes: THIRD.volumes }));
    await untilReady(namespace, POOL, 2);
    const [revision = ""] = (await namespace.machines()).map(revisionOf);
    expect(revision).toMatch(/^pool-1-[0-9a-f]{8}$/);
    await expectSettled(namespace, { replicas: 2, readyReplicas: 2 });
    await untilRevisions(namespace, ["pool-1", revision]);

    await changeGuest(namespace, POOL, SECOND);
    await untilRolledOut(namespace, { revision: "pool-2", machines: 2 });
    await expectSettled(namespace, { replicas: 2, readyReplicas: 2 });
    await untilRevisions(namespace, ["pool-1", "pool-2"]);
  });

  it("rolls out a change of nameGeneration", async (test) => {
    const volumes = [{ name: "settings", configMap: { name: "settings" } }];
    const namespace = await aReadyPool(test, { replicas: 2, volumes });
    const guests = uidsOf(await instancesOf(namespace));
    await mergePatch(namespace, "vmpool", POOL, { spec: { nameGeneration: { appendIndexToConfigMapRefs: true } } });
    await untilRolledOut(namespace, { revision: "pool-2", machines: 2 });
    for (const { metadata, spec } of await instancesOf(namespace)) {
      expect(at(spec, "volumes.0.configMap.name")).toBe(metadata.name.replace("pool", "settings"));
      expect(metadata.uid).not.toBe(guests[metadata.name]);
    }
    await untilDone(namespace, { replicas: 2, readyReplicas: 2 });
  });
});

/** The template of an instance that the pool selects; fields of its spec can be replaced. */
function guestTemplate({ behaviour, ...spec }: { behaviour?: string | undefined; [field: string]: unknown } = {}) {
  return {
    metadata: {
      labels: { [POOL_LABEL]: POOL },
      ...(behaviour === undefined ? {} : { annotations: { [BEHAVIOUR]: behaviour } }),
    },
    spec: {
      domain: { devices: {} },
      terminationGracePeriodSeconds: 0,
      volumes: [{ name: "containerdisk", containerDisk: { image: "cirros" } }],
      ...spec,
    },
  };
}

function poolSpec(changes: PoolChanges): object {
  const pool = aPool(POOL, changes);
  return "spec" in pool && typeof pool.spec === "object" && pool.spec !== null ? pool.spec : {};
}

describe.concurrent("a guest under run strategy", () => {
  const halt = (namespace: Namespace) => mergePatch(namespace, "vm", "pool-0", { spec: { runStrategy: "Halted" } });
  it.for([
    { strategy: { runStrategy: "Always" }, first: 2, stop: halt, runs: ["pool-1"] },
    {
      strategy: { running: true },
      first: 2,
      stop: (namespace: Namespace) => mergePatch(namespace, "vm", "pool-0", { spec: { running: false } }),
      runs: ["pool-1"],
    },
    {
      strategy: { runStrategy: "RerunOnFailure" },
      first: 2,
      stop: (namespace: Namespace) => request(namespace, "pool-0", "Stop"),
      runs: ["pool-1"],
    },
    {
      strategy: { runStrategy: "Manual" },
      first: 0,
      stop: (namespace: Namespace) => request(namespace, "pool-1", "Start"),
      runs: ["pool-1"],
    },
    { strategy: { runStrategy: "Once" }, first: 2, stop: async () => undefined, runs: ["pool-0", "pool-1"] },
    {
      strategy: { runStrategy: "Halted" },
      first: 0,
      stop: (namespace: Namespace) => request(namespace, "pool-1", "Start"),
      runs: ["pool-1"],
    },
  ])("$strategy runs again when it ran, and stays off when it was off", async (given, test) => {
    const { strategy, first, stop, runs } = given;
    const machine = { running: null, ...strategy, template: guestTemplate() };
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool(POOL, { replicas: 2, machine }));
    await untilMachines(namespace, machineNames(POOL, 2));
    await eventually(async () =>
      expect(await namespace.pool(POOL)).toMatchObject({ status: { readyReplicas: first } }),
    );
    await stop(namespace);
    await eventually(async () => {
      expect(namesOf(await instancesOf(namespace))).toEqual(runs);
      expect(await namespace.pool(POOL)).toMatchObject({ status: { readyReplicas: runs.length } });
    });
    const guests = uidsOf(await instancesOf(namespace));
    const runStates = async () =>
      (await namespace.machines()).map(({ spec }) => [at(spec, "running"), at(spec, "runStrategy")]);
    const before = await runStates();

    await changeGuest(namespace, POOL, SECOND);

    await untilRolledOut(namespace, { revision: "pool-2", machines: 2, guests: runs.length });
    const instances = await instancesOf(namespace);
    expect(namesOf(instances)).toEqual(runs);
    for (const { metadata, spec } of instances) {
      expect(metadata.uid).not.toBe(guests[metadata.name]);
      expect(at(spec, "volumes.0.containerDisk.image")).toBe("cirros:2");
    }
    for (const { spec } of await namespace.machines()) {
      expect(at(spec, "template.spec.volumes.0.containerDisk.image")).toBe("cirros:2");
    }
    expect(await runStates()).toEqual(before);
    await untilDone(namespace, { replicas: 2, readyReplicas: runs.length });
  });

  it("Manual that has ended by itself is not started for a new template, and has it when it is", async (test) => {
    const machine = { running: null, runStrategy: "Manual", template: guestTemplate() };
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool(POOL, { machine }));
    await untilMachines(namespace, ["pool-0"]);
    await request(namespace, "pool-0", "Start");
    await untilReady(namespace, POOL, 1);
    await namespace.kubectl("delete", "pods", "--all", "--wait=false");
    await eventually(async () => {
      expect((await instanceOf(namespace, "pool-0"))?.status).toMatchObject({ phase: "Failed" });
    });
    const ended = await instanceOf(namespace, "pool-0");

    await changeGuest(namespace, POOL, SECOND);

    await eventually(async () => expect((await namespace.machines()).map(revisionOf)).toEqual(["pool-2"]));
    await untilDone(namespace, { replicas: 1, readyReplicas: 0 });
    expect((await instanceOf(namespace, "pool-0"))?.metadata.uid).toBe(ended?.metadata.uid);
    await request(namespace, "pool-0", "Stop", "Start");
    await untilRolledOut(namespace, { revision: "pool-2", machines: 1 });
  });

  it("Manual is restarted one at a time, too", async (test) => {
    const machine = { running: null, runStrategy: "Manual", template: guestTemplate() };
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool(POOL, { replicas: 3, spec: { maxUnavailable: 1 }, machine }));
    await untilMachines(namespace, machineNames(POOL, 3));
    for (const name of machineNames(POOL, 3)) await request(namespace, name, "Start");
    await untilReady(namespace, POOL, 3);
    const recording = await record(test, namespace);
    await changeGuest(namespace, POOL, SECOND);
    await untilRolledOut(namespace, { revision: "pool-2", machines: 3 });
    const states = await recording.states();
    expect(unavailableMax(states, 3)).toBe(1);
    expect(restartsOf(states)).toEqual({ "pool-0": 1, "pool-1": 1, "pool-2": 1 });
  });
});

it.concurrent("keeps what belongs to the machine or its user", async (test) => {
  const template = guestTemplate({
    domain: { devices: { interfaces: [{ name: "default", masquerade: {} }] } },
    networks: [{ name: "default", pod: {} }],
  });
  const machine = { instancetype: { name: "small", kind: "VirtualMachineInstancetype" }, template };
  const namespace = await aReadyPool(test, { replicas: 2, machine });
  const own = {
    metadata: { labels: { mine: "yes" }, annotations: { note: "mine" } },
    spec: {
      instancetype: { revisionName: "small-revision" },
      template: {
        spec: {
          domain: {
            firmware: { uuid: "5d307ca9-b3ef-428c-8861-06e72d69f223", serial: "mine" },
            devices: {
              interfaces: [{ name: "default", masquerade: {}, macAddress: "02:00:00:00:00:01" }],
              disks: [{ name: "extra", disk: {} }],
            },
          },
          volumes: [
            { name: "containerdisk", containerDisk: { image: "cirros" } },
            { name: "extra", dataVolume: { name: "extra", hotpluggable: true } },
          ],
        },
      },
    },
  };
  const extra = { storage: { resources: { requests: { storage: "1Gi" } } }, source: { blank: {} } };
  await namespace.create({
    apiVersion: "cdi.kubevirt.io/v1beta1",
    kind: "DataVolume",
    metadata: { name: "extra" },
    spec: extra,
  });
  await mergePatch(namespace, "vm", "pool-0", own);

  await changeGuest(namespace, POOL, { ...SECOND, terminationGracePeriodSeconds: 1 });

  await untilRolledOut(namespace, { revision: "pool-2", machines: 2 });
  const [kept, other] = await namespace.machines();
  expect(kept?.metadata).toMatchObject(own.metadata);
  expect(at(kept?.spec, "instancetype")).toEqual({ ...machine.instancetype, ...own.spec.instancetype });
  expect(at(kept?.spec, "template.spec.domain.firmware")).toEqual(own.spec.template.spec.domain.firmware);
  for (const spec of [at(kept?.spec, "template.spec"), (await instanceOf(namespace, "pool-0"))?.spec]) {
    expect(spec).toMatchObject({
      domain: { ...own.spec.template.spec.domain },
      terminationGracePeriodSeconds: 1,
      volumes: [{ name: "containerdisk", containerDisk: { image: "cirros:2" } }, { name: "extra" }],
    });
  }
  expect(at(other?.spec, "template.spec.volumes")).toEqual(SECOND.volumes);
});

describe.concurrent("an opportunistic pool", () => {
  const spec = { updateStrategy: { opportunistic: {} } };

  it("changes machines and leaves guests, which take the template with their next start or another strategy", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 3, spec });
    const guests = uidsOf(await instancesOf(namespace));
    await changeGuest(namespace, POOL, SECOND);
    await eventually(async () => {
      expect((await namespace.machines()).map(revisionOf)).toEqual(["pool-2", "pool-2", "pool-2"]);
    });
    await expectSettled(namespace, { replicas: 3, readyReplicas: 3 });
    expect(uidsOf(await instancesOf(namespace))).toEqual(guests);
    await untilRevisions(namespace, ["pool-1", "pool-2"]);

    await namespace.kubectl("delete", "vmi", "pool-0", "--timeout=100s");
    await eventually(async () => {
      const instance = await instanceOf(namespace, "pool-0");
      expect(at(instance?.spec, "volumes.0.containerDisk.image")).toBe("cirros:2");
      expect(instance?.status?.phase).toBe("Running");
    });
    const restarted = uidsOf(await instancesOf(namespace));
    expect(restarted).toEqual({ ...guests, "pool-0": restarted["pool-0"] });

    await mergePatch(namespace, "vmpool", POOL, { spec: { updateStrategy: null } });
    await untilRolledOut(namespace, { revision: "pool-2", machines: 3 });
    const after = uidsOf(await instancesOf(namespace));
    expect(after["pool-0"]).toBe(restarted["pool-0"]);
    expect([after["pool-1"], after["pool-2"]]).not.toContain(guests["pool-1"]);
    await expectSettled(namespace, { replicas: 3, readyReplicas: 3 });
    await untilRevisions(namespace, ["pool-2"]);
  });

  it("leaves a machine whose disks are others now, and says so", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 2, spec, ...withDisk("1Gi") });
    const machines = uidsOf(await namespace.machines());
    await changeMachine(namespace, POOL, withDisk("2Gi").machine);
    await eventually(async () => {
      expect(await decisionsOf(namespace)).toContain(
        "pool-0, pool-1 are not updated: the template's disks have changed, and only a new machine gets new ones",
      );
    });
    await untilPassed(world, placeOf(namespace));
    expect(uidsOf(await namespace.machines())).toEqual(machines);
    expect((await namespace.machines()).map(revisionOf)).toEqual(["pool-1", "pool-1"]);

    await namespace.kubectl("delete", "vm", "pool-1", "--timeout=100s");
    await untilReady(namespace, POOL, 2);
    expect((await namespace.machines()).map(revisionOf)).toEqual(["pool-1", "pool-2"]);
  });
});

it.concurrent("an unmanaged pool changes nothing but new machines, until it is managed again", async (test) => {
  const namespace = await aReadyPool(test, { replicas: 2, spec: { updateStrategy: { unmanaged: {} } } });
  const before = await namespace.machines();
  await changeGuest(namespace, POOL, SECOND);
  await namespace.kubectl("scale", "vmpool", POOL, "--replicas=3");
  await untilReady(namespace, POOL, 3);
  await untilDone(namespace, { replicas: 3, readyReplicas: 3 });
  const machines = await namespace.machines();
  expect(machines.map(revisionOf)).toEqual(["pool-1", "pool-1", "pool-3"]);
  expect(machines.slice(0, 2).map(({ spec }) => spec)).toEqual(before.map(({ spec }) => spec));

  const guests = uidsOf(await instancesOf(namespace));
  await mergePatch(namespace, "vmpool", POOL, { spec: { updateStrategy: { unmanaged: null, proactive: {} } } });
  await untilRolledOut(namespace, { revision: "pool-3", machines: 3 });
  expect(uidsOf(await instancesOf(namespace))["pool-2"]).toBe(guests["pool-2"]);
});

it.concurrent.for([
  {
    field: "labelSelector",
    selectors: { labelSelector: { matchLabels: { ring: "canary" } } },
    mark: { metadata: { labels: { ring: "canary" } } },
  },
  {
    field: "nodeSelectorRequirementMatcher",
    selectors: { nodeSelectorRequirementMatcher: [{ key: "ring", operator: "In", values: ["canary"] }] },
    mark: { spec: { nodeSelector: { ring: "canary" } } },
  },
])("updates only what $field matches, and says what it leaves out", async ({ selectors, mark }, test) => {
  const spec = { updateStrategy: { proactive: { selectionPolicy: { selectors } } } };
  const namespace = await aReadyPool(test, { replicas: 3, spec });
  await mergePatch(namespace, "vm", "pool-1", { spec: { template: mark } });
  const guests = uidsOf(await instancesOf(namespace));

  await changeGuest(namespace, POOL, SECOND);

  await eventually(async () => {
    expect((await namespace.machines()).map(revisionOf)).toEqual(["pool-1", "pool-2", "pool-1"]);
    expect((await instancesOf(namespace)).map(revisionOf)).toEqual(["pool-1", "pool-2", "pool-1"]);
    expect(await namespace.pool(POOL)).toMatchObject({ status: { readyReplicas: 3 } });
  });
  await untilPassed(world, placeOf(namespace));
  const after = uidsOf(await instancesOf(namespace));
  expect(after).toEqual({ ...guests, "pool-1": after["pool-1"] });
  expect(after["pool-1"]).not.toBe(guests["pool-1"]);
  expect(await decisionsOf(namespace)).toEqual([
    "roll-out of pool-2: 2 of 3 machines to go",
    "pool-0, pool-2 are not updated: updateStrategy.proactive.selectionPolicy.selectors leave it out",
  ]);
});

function withDisk(size: string) {
  const storage = { resources: { requests: { storage: size } } };
  const dataVolumeTemplates = [{ metadata: { name: "root" }, spec: { source: { blank: {} }, storage } }];
  return { machine: { dataVolumeTemplates }, volumes: [{ name: "root", dataVolume: { name: "root" } }] };
}

it.concurrent("replaces machines one by one when their disks are others now, stopped ones too", async (test) => {
  const namespace = await aReadyPool(test, { replicas: 3, spec: { maxUnavailable: 1 }, ...withDisk("1Gi") });
  await mergePatch(namespace, "vm", "pool-2", { spec: { running: false } });
  await eventually(async () => expect(await instancesOf(namespace)).toHaveLength(2));
  const machines = uidsOf(await namespace.machines());
  const recording = await record(test, namespace);

  await changeMachine(namespace, POOL, withDisk("2Gi").machine);

  await untilRolledOut(namespace, { revision: "pool-2", machines: 3 });
  expect(unavailableMax(await recording.states(), 3)).toBe(1);
  const after = uidsOf(await namespace.machines());
  for (const [name, uid] of Object.entries(machines)) expect(after[name]).not.toBe(uid);
  for (const disk of await namespace.list("apis/cdi.kubevirt.io/v1beta1", "datavolumes")) {
    expect(at(disk.spec, "storage.resources.requests.storage")).toBe("2Gi");
  }
  await untilDone(namespace, { replicas: 3, readyReplicas: 3 });
  await untilRevisions(namespace, ["pool-2"]);
});

/** A pass that read the cluster before a machine failed may act until then. */
const PASS_MS = 3_000;
const BETWEEN_FAILURES_MS = 1_500;
const FAILURES_MAX = 40;

/** Deletes instances and launcher pods in turn until it is done; the UIDs of the instances. */
async function failMachines(namespace: Namespace, isDone: () => Promise<boolean>): Promise<ReadonlySet<string>> {
  const failed = new Set<string>();
  for (let count = 0; count < FAILURES_MAX && !(await isDone()); count += 1) {
    const machine = `pool-${(count * 7) % 20}`;
    const instance = await instanceOf(namespace, machine);
    if (instance !== undefined) {
      failed.add(instance.metadata.uid);
      if (count % 2 === 0) await namespace.kubectl("delete", "vmi", machine, "--ignore-not-found", "--wait=false");
      else
        await namespace.kubectl(
          "delete",
          "pod",
          "-l",
          `kubevirt.io/created-by=${instance.metadata.uid}`,
          "--wait=false",
        );
    }
    await sleep(BETWEEN_FAILURES_MS);
  }
  return failed;
}

interface TakenDown {
  readonly machine: string;
  /** Machines that were unavailable just before, those left out that a pass cannot have seen. */
  readonly unavailable: number;
}

/** The available guests that went although nobody but the functions took them down. */
function takenDown(
  states: readonly GuestState[],
  { replicas, failed }: { readonly replicas: number; readonly failed: ReadonlySet<string> },
): readonly TakenDown[] {
  const failedAt = new Map<string, number>();
  const found: TakenDown[] = [];
  for (const [index, { atMs, available }] of states.entries()) {
    const before = states[index - 1]?.available ?? available;
    for (const [machine, uid] of before) {
      if (available.get(machine) === uid) continue;
      if (failed.has(uid)) {
        failedAt.set(machine, atMs);
        continue;
      }
      const unseen = [...failedAt].filter(([name, at]) => !before.has(name) && atMs - at < PASS_MS);
      found.push({ machine, unavailable: replicas - before.size - unseen.length });
    }
  }
  return found;
}

interface TakenOver {
  readonly namespace: Namespace;
  readonly guests: Readonly<Record<string, string>>;
}

/** What KubeVirt's own controller leaves behind, two machines with a later change that it does not follow. */
async function aPoolOfTheReference(): Promise<TakenOver> {
  const namespace = await world.aNamespace();
  const volumes = [{ name: "settings", configMap: { name: "settings" } }];
  await namespace.create(aPool(POOL, { replicas: 2, volumes }));
  await mergePatch(namespace, "vmpool", POOL, { metadata: { finalizers: ["pool.kubevirt.io/finalizer"] } });
  const pool = await namespace.pool(POOL);
  const owner = { kind: "VirtualMachinePool", name: POOL, uid: pool?.metadata.uid };
  const ownerReferences = [
    { apiVersion: "pool.kubevirt.io/v1beta1", ...owner, controller: true, blockOwnerDeletion: true },
  ];
  await namespace.create({
    apiVersion: "apps/v1",
    kind: "ControllerRevision",
    metadata: { name: "pool-1", ownerReferences },
    revision: 1,
    data: pool?.spec,
  });
  const labels = { [POOL_LABEL]: POOL, [REVISION_LABEL]: "pool-1" };
  for (const name of machineNames(POOL, 2)) {
    const metadata = { name, labels, finalizers: ["pool.kubevirt.io/finalizer"], ownerReferences };
    const spec = {
      running: true,
      template: {
        metadata: { labels },
        spec: guestTemplate({ domain: { devices: {}, resources: { requests: { memory: "128Mi" } } }, volumes }).spec,
      },
    };
    await namespace.create({ apiVersion: "kubevirt.io/v1", kind: "VirtualMachine", metadata, spec });
  }
  await mergePatch(namespace, "vmpool", POOL, { spec: { nameGeneration: { appendIndexToConfigMapRefs: true } } });
  await eventually(async () => {
    const instances = await instancesOf(namespace);
    expect(instances.map(({ status }) => status?.phase)).toEqual(["Running", "Running"]);
  });
  return { namespace, guests: uidsOf(await instancesOf(namespace)) };
}

describe("a pool that is taken over from KubeVirt's own controller", () => {
  it("is left as it is, and follows what changes from then on", async () => {
    const { namespace, guests } = takenOver;
    const machines = uidsOf(await namespace.machines());
    await expect.poll(() => decisionsOf(namespace), { timeout: 200_000 }).toEqual([]);
    await expectSettled(namespace, { replicas: 2, readyReplicas: 2 });
    expect(uidsOf(await instancesOf(namespace))).toEqual(guests);
    expect(uidsOf(await namespace.machines())).toEqual(machines);
    expect((await namespace.machines()).map(({ metadata }) => metadata.generation)).toEqual([1, 1]);
    await untilRevisions(namespace, ["pool-1"]);

    await mergePatch(namespace, "vmpool", POOL, { spec: { nameGeneration: { appendIndexToConfigMapRefs: false } } });
    await untilPassed(world, placeOf(namespace));
    await expectSettled(namespace, { replicas: 2, readyReplicas: 2 });
    expect(uidsOf(await instancesOf(namespace))).toEqual(guests);
    await changeGuest(namespace, POOL, { terminationGracePeriodSeconds: 1 });
    await eventually(async () => expect((await namespace.machines()).map(revisionOf)).toEqual(["pool-4", "pool-4"]));
    await untilRolledOut(namespace, { revision: "pool-4", machines: 2 });
    for (const { metadata, spec } of await instancesOf(namespace)) {
      expect(metadata.uid).not.toBe(guests[metadata.name]);
      expect(at(spec, "volumes")).toEqual([{ name: "settings", configMap: { name: "settings" } }]);
    }
  });
});

describe("without live updates", () => {
  beforeAll(() => setRollout("Stage"));

  it("more CPU sockets are a restart", async (test) => {
    const domain = { cpu: { cores: 1, sockets: 1 }, devices: {} };
    const machine = { template: guestTemplate({ domain }) };
    const namespace = await aReadyPool(test, { replicas: 2, spec: { maxUnavailable: 1 }, machine });
    const recording = await record(test, namespace);
    await changeGuest(namespace, POOL, { domain: { cpu: { sockets: 2 } } });
    await untilRolledOut(namespace, { revision: "pool-2", machines: 2 });
    expect(restartsOf(await recording.states())).toEqual({ "pool-0": 1, "pool-1": 1 });
  });
});
