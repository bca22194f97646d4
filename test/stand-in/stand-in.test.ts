import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as z from "zod";
import type { ApiRequest } from "../../shared/clusters/connection.ts";
import {
  at,
  CLUSTER_TIMEOUT_MS,
  conditionOf,
  eventually,
  type RunningStandIn,
  standInFor,
  startCluster,
  TEST_TIMEOUT_MS,
  type TestCluster,
} from "./cluster.ts";
import {
  aDataVolume,
  aMachine,
  type MachineOptions,
  pathsOf,
  untilField,
  untilGone,
  untilPrintable,
  untilReadyWithout,
} from "./machines.ts";

let cluster: TestCluster;
let standIn: RunningStandIn;
/** What the stand-in has written, in order. */
const writes: ApiRequest[] = [];
let namespaceCount = 0;

beforeAll(async () => {
  cluster = await startCluster();
  const { connection } = cluster;
  standIn = await standInFor({
    ...connection,
    send: (request) => {
      if (request.method !== "GET") writes.push(request);
      return connection.send(request);
    },
  });
}, CLUSTER_TIMEOUT_MS);

afterAll(async () => {
  await standIn.stop();
  await cluster.stop();
}, TEST_TIMEOUT_MS);

async function aNamespace(): Promise<string> {
  const name = `test-${namespaceCount++}`;
  await cluster.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: ${name}}}`);
  return name;
}

/** Creates a machine called `vm` in a namespace of its own. */
async function createMachine(options: Partial<MachineOptions> = {}) {
  const namespace = options.namespace ?? (await aNamespace());
  await cluster.apply(aMachine({ name: "vm", ...options, namespace }));
  return { namespace, ...pathsOf(namespace, options.name ?? "vm") };
}

/** Asks as virtctl does. */
function ask(path: string, requests: readonly object[]): Promise<void> {
  return cluster.mergePatch(`${path}/status`, { status: { stateChangeRequests: requests } });
}

const restartOf = (uid: string) => [{ action: "Stop", uid }, { action: "Start" }];

/** Asks with the very patch that KubeVirt's API server makes of a call of virtctl: it tests the list that it has seen. */
function askAsServer(namespace: string, seen: readonly object[] | null, requests: readonly object[]) {
  const path = "/status/stateChangeRequests";
  const patch = JSON.stringify([
    { op: "test", path, value: seen },
    { op: "add", path, value: requests },
  ]);
  return cluster.kubectl(["patch", "vm", "vm", "-n", namespace, "--subresource=status", "--type=json", "-p", patch]);
}

/** Returns when the stand-in has brought up a machine that was created after all that went before. */
async function untilCaughtUp(namespace: string): Promise<void> {
  const later = await createMachine({ namespace, name: "later" });
  await untilReadyWithout(cluster, later, "");
}

/** What makes the namespace an owner, so that the garbage collector never finds a disk without one. */
async function namespaceReference(name: string): Promise<object> {
  const namespace = await cluster.read(`/api/v1/namespaces/${name}`);
  return { apiVersion: "v1", kind: "Namespace", name, uid: at(namespace, "metadata.uid") };
}

async function instanceUid(path: string): Promise<string> {
  return String(at(await cluster.read(path), "metadata.uid"));
}

describe.concurrent("the stand-in", { timeout: TEST_TIMEOUT_MS }, () => {
  it("shows machines, instances, disks and pods as KubeVirt does", async () => {
    const machine = await createMachine({ disks: ["vm-disk"] });
    await untilReadyWithout(cluster, machine, "");

    const { text } = await cluster.kubectl(["get", "vm,vmi,dv,pvc,pods", "-n", machine.namespace]);

    expect(text).toMatch(/^NAME +AGE +STATUS +READY\nvirtualmachine\.kubevirt\.io\/vm +\S+ +Running +True$/m);
    expect(text).toMatch(
      /^NAME +AGE +PHASE +IP +NODENAME +READY\nvirtualmachineinstance\.kubevirt\.io\/vm +\S+ +Running +10\.244\.\d+\.\d+ +node0[12] +True$/m,
    );
    expect(text).toMatch(
      /^NAME +PHASE +PROGRESS +RESTARTS +AGE\ndatavolume\.cdi\.kubevirt\.io\/vm-disk +Succeeded +100\.0% +\S+$/m,
    );
    expect(text).toMatch(/^persistentvolumeclaim\/vm-disk +Bound +pvc-\S+ +1Gi +RWO /m);
    expect(text).toMatch(/^pod\/virt-launcher-vm-\w{5} +1\/1 +Running +0 /m);
  });

  it("gives the instance what the template says, and an owner", async () => {
    const machine = await createMachine({ labels: { app: "web" } });
    await untilReadyWithout(cluster, machine, "");

    const instance = await cluster.read(machine.instance);

    expect(instance).toMatchObject({
      metadata: {
        labels: { app: "web", "kubevirt.io/nodeName": at(instance, "status.nodeName") },
        finalizers: ["foregroundDeleteVirtualMachine"],
        ownerReferences: [{ kind: "VirtualMachine", name: "vm", controller: true, blockOwnerDeletion: true }],
      },
      spec: { domain: { devices: {} } },
    });
    expect(await cluster.read(machine.machine)).toMatchObject({
      metadata: { finalizers: ["kubevirt.io/virtualMachineControllerFinalize"] },
      status: {
        created: true,
        ready: true,
        runStrategy: "Always",
        observedGeneration: 1,
        desiredGeneration: 1,
        conditions: expect.arrayContaining([
          expect.objectContaining({ type: "Ready", status: "True", lastProbeTime: null }),
        ]),
      },
    });
    expect(at(await cluster.read(machine.pods), "items.0")).toMatchObject({
      metadata: {
        labels: {
          app: "web",
          "kubevirt.io": "virt-launcher",
          "kubevirt.io/created-by": at(instance, "metadata.uid"),
          "vm.kubevirt.io/name": "vm",
        },
      },
      spec: { containers: [{ resources: { requests: { cpu: "100m" } } }] },
    });
  });

  it("restarts an instance that is deleted, when it is to run always", async () => {
    const machine = await createMachine();
    const first = await untilReadyWithout(cluster, machine, "");

    await cluster.remove(machine.instance);

    await untilReadyWithout(cluster, machine, first);
  });

  it("restarts an instance whose pod is deleted", async () => {
    const machine = await createMachine();
    const first = await untilReadyWithout(cluster, machine, "");

    await cluster.remove(machine.pods);

    await untilReadyWithout(cluster, machine, first);
  });

  it("stops a machine that is halted, and starts it again on request", async () => {
    const machine = await createMachine();
    const first = await untilReadyWithout(cluster, machine, "");

    await cluster.mergePatch(machine.machine, { spec: { runStrategy: "Halted" } });
    const stopped = await untilPrintable(cluster, machine.machine, "Stopped");
    expect(stopped).toMatchObject({ status: { created: false, ready: false } });
    expect(conditionOf(stopped, "Ready")).toBe("False");
    expect(await cluster.read(machine.instance)).toBeUndefined();

    await ask(machine.machine, [{ action: "Start" }]);
    await untilReadyWithout(cluster, machine, first);
    expect(at(await cluster.read(machine.machine), "spec.runStrategy")).toBe("Always");
  });

  it("obeys running as it obeys runStrategy", async () => {
    const machine = await createMachine({ runStrategy: "Halted" });
    await untilPrintable(cluster, machine.machine, "Stopped");

    await cluster.mergePatch(machine.machine, { spec: { runStrategy: null, running: true } });
    await untilReadyWithout(cluster, machine, "");

    await cluster.mergePatch(machine.machine, { spec: { running: false } });
    await untilPrintable(cluster, machine.machine, "Stopped");
  });

  it("starts and stops a manual machine only on request", async () => {
    const machine = await createMachine({ runStrategy: "Manual" });
    await untilPrintable(cluster, machine.machine, "Stopped");

    await ask(machine.machine, [{ action: "Start" }]);
    const uid = await untilReadyWithout(cluster, machine, "");
    await untilField(cluster, machine.machine, "status.stateChangeRequests", undefined);

    await ask(machine.machine, [{ action: "Stop", uid }]);
    await untilPrintable(cluster, machine.machine, "Stopped");
    await untilField(cluster, machine.machine, "status.stateChangeRequests", undefined);
    expect(await cluster.read(machine.instance)).toBeUndefined();
  });

  it("leaves a manual machine off whose instance is deleted", async () => {
    const machine = await createMachine({ runStrategy: "Manual" });
    await ask(machine.machine, [{ action: "Start" }]);
    await untilReadyWithout(cluster, machine, "");

    await cluster.remove(machine.instance);

    await untilPrintable(cluster, machine.machine, "Stopped");
    await untilCaughtUp(machine.namespace);
    expect(await cluster.read(machine.instance)).toBeUndefined();
  });

  it("restarts a machine on request", async () => {
    const machine = await createMachine();
    const uid = await untilReadyWithout(cluster, machine, "");

    await ask(machine.machine, [{ action: "Stop", uid }, { action: "Start" }]);

    await untilReadyWithout(cluster, machine, uid);
    await untilField(cluster, machine.machine, "status.stateChangeRequests", undefined);
  });

  it.each(["Always", "Manual", "RerunOnFailure"])(
    "restarts a machine (%s) as virtctl asks for it",
    async (runStrategy) => {
      const machine = await createMachine({ runStrategy });
      if (runStrategy === "Manual") await ask(machine.machine, [{ action: "Start" }]);
      const uid = await untilReadyWithout(cluster, machine, "");
      await untilField(cluster, machine.machine, "status.stateChangeRequests", undefined);

      expect(await askAsServer(machine.namespace, null, restartOf(uid))).toMatchObject({ ok: true });

      await untilReadyWithout(cluster, machine, uid);
      await untilField(cluster, machine.machine, "status.stateChangeRequests", undefined);
      expect(await cluster.read(machine.machine)).toMatchObject({ spec: { runStrategy } });
    },
  );

  it("switches a halted machine on that is asked to restart", async () => {
    const machine = await createMachine();
    const uid = await untilReadyWithout(cluster, machine, "");
    await cluster.mergePatch(machine.machine, { spec: { runStrategy: "Halted" } });

    await askAsServer(machine.namespace, null, restartOf(uid));

    await untilReadyWithout(cluster, machine, uid);
    expect(at(await cluster.read(machine.machine), "spec.runStrategy")).toBe("Always");
  });

  it.each(["Always", "Manual", "RerunOnFailure", "Once"])(
    "drops a request (%s) to stop an instance that is not the present one",
    async (runStrategy) => {
      const machine = await createMachine({ runStrategy });
      if (runStrategy === "Manual") await ask(machine.machine, [{ action: "Start" }]);
      const uid = await untilReadyWithout(cluster, machine, "");
      await untilField(cluster, machine.machine, "status.stateChangeRequests", undefined);

      for (const requests of [restartOf("another"), [{ action: "Stop" }]]) {
        expect(await askAsServer(machine.namespace, null, requests)).toMatchObject({ ok: true });
        await untilField(cluster, machine.machine, "status.stateChangeRequests", undefined);
      }

      await untilCaughtUp(machine.namespace);
      expect(await cluster.read(machine.instance)).toMatchObject({ metadata: { uid }, status: { phase: "Running" } });
    },
  );

  it("refuses a request beside one that nobody knew of", async () => {
    const machine = await createMachine({ runStrategy: "Halted" });
    await untilPrintable(cluster, machine.machine, "Stopped");

    const { ok, text } = await askAsServer(machine.namespace, [{ action: "Stop", uid: "seen" }], restartOf("any"));

    expect(ok).toBe(false);
    expect(text).toContain("the server rejected our request");
  });

  it("reruns on failure, but not after success or deletion", async () => {
    const machine = await createMachine({ runStrategy: "RerunOnFailure" });
    const first = await untilReadyWithout(cluster, machine, "");

    await cluster.mergePatch(machine.instance, { status: { phase: "Failed" } });
    await untilReadyWithout(cluster, machine, first);

    await cluster.mergePatch(machine.instance, { status: { phase: "Succeeded" } });
    await untilPrintable(cluster, machine.machine, "Stopped");
    await untilGone(cluster, machine.instance);

    await ask(machine.machine, [{ action: "Start" }]);
    await untilReadyWithout(cluster, machine, first);
    await cluster.remove(machine.instance);
    await untilPrintable(cluster, machine.machine, "Stopped");
    await untilCaughtUp(machine.namespace);
    expect(await cluster.read(machine.instance)).toBeUndefined();
  });

  it("runs a machine once", async () => {
    const machine = await createMachine({ runStrategy: "Once" });
    const uid = await untilReadyWithout(cluster, machine, "");

    await cluster.mergePatch(machine.instance, { status: { phase: "Succeeded" } });

    await untilPrintable(cluster, machine.machine, "Stopped");
    await untilCaughtUp(machine.namespace);
    expect(await instanceUid(machine.instance)).toBe(uid);
    await eventually(async () => expect(at(await cluster.read(machine.pods), "items")).toHaveLength(1));
  });

  it("keeps an instance unready that is told so, and its address out of Services", async () => {
    const machine = await createMachine({ behaviour: "never-ready" });

    await untilField(cluster, machine.instance, "status.phase", "Running");

    const running = await untilPrintable(cluster, machine.machine, "Running");
    expect(at(running, "status.ready")).toBe(false);
    expect(conditionOf(await cluster.read(machine.instance), "Ready")).toBe("False");
    expect(conditionOf(at(await cluster.read(machine.pods), "items.0"), "Ready")).toBe("False");
  });

  it("follows the annotation on a running instance", async () => {
    const machine = await createMachine();
    await untilReadyWithout(cluster, machine, "");
    const annotate = (value: string | null) =>
      cluster.mergePatch(machine.instance, {
        metadata: { annotations: { "stand-in.vmpool-functions/behaviour": value } },
      });

    await annotate("never-ready");
    await untilField(cluster, machine.machine, "status.ready", false);

    await annotate(null);
    await untilField(cluster, machine.machine, "status.ready", true);
  });

  it("counts failures of an instance that crashes, and pauses longer each time", async () => {
    const machine = await createMachine({ behaviour: "crash-loop" });

    await untilField(cluster, machine.machine, "status.startFailure.consecutiveFailCount", 3);
    const crashing = await untilPrintable(cluster, machine.machine, "CrashLoopBackOff");

    expect(crashing).toMatchObject({
      status: { startFailure: { lastFailedVMIUID: expect.any(String), retryAfterTimestamp: expect.any(String) } },
    });
    expect(conditionOf(crashing, "Ready")).toBe("False");
  });

  it("forgets failures once a guest runs", async () => {
    const machine = await createMachine({ behaviour: "crash-loop" });
    await untilField(cluster, machine.machine, "status.startFailure.consecutiveFailCount", 1);

    await cluster.mergePatch(machine.machine, { spec: { template: { metadata: { annotations: null } } } });

    await untilReadyWithout(cluster, machine, "");
    await untilField(cluster, machine.machine, "status.startFailure", undefined);
  });

  it("finds no node for an instance that is told so", async () => {
    const machine = await createMachine({ behaviour: "unschedulable" });

    const stuck = await untilPrintable(cluster, machine.machine, "ErrorUnschedulable");

    expect(conditionOf(stuck, "Ready")).toBe("False");
    expect(conditionOf(stuck, "PodScheduled")).toBe("False");
    expect(at(await cluster.read(machine.instance), "status.phase")).toBe("Scheduling");
    await cluster.remove(machine.machine);
    await untilGone(cluster, machine.machine);
  });

  it("lets a slow instance run before it is ready", async () => {
    const machine = await createMachine({ behaviour: "slow:15, something-unknown" });

    const running = await untilField(cluster, machine.instance, "status.phase", "Running");
    expect(conditionOf(running, "Ready")).toBe("False");

    await untilReadyWithout(cluster, machine, "");
  });

  it("deletes the instance, the pod, the disk and the claim of a deleted machine", async () => {
    const machine = await createMachine({ disks: ["vm-disk"] });
    await untilReadyWithout(cluster, machine, "");

    await cluster.remove(machine.machine);

    await untilGone(cluster, machine.machine);
    expect(await cluster.read(machine.instance)).toBeUndefined();
    await untilGone(cluster, machine.dataVolume("vm-disk"));
    await untilGone(cluster, machine.claim("vm-disk"));
    expect(at(await cluster.read(machine.pods), "items")).toEqual([]);
  });

  it("leaves a deleted machine to the finalizers of others", async () => {
    const machine = await createMachine({ finalizers: ["pool.kubevirt.io/finalizer"] });
    await untilReadyWithout(cluster, machine, "");

    await cluster.remove(machine.machine);

    await untilGone(cluster, machine.instance);
    await eventually(async () =>
      expect(await cluster.read(machine.machine)).toMatchObject({
        metadata: { finalizers: ["pool.kubevirt.io/finalizer"] },
        status: { printableStatus: "Terminating" },
      }),
    );
  });

  it("leaves the instance of a machine that is deleted alone", async () => {
    const machine = await createMachine();
    const uid = await untilReadyWithout(cluster, machine, "");

    await cluster.kubectl(["delete", "vm", "vm", "-n", machine.namespace, "--cascade=orphan"]);

    await untilGone(cluster, machine.machine);
    expect(await cluster.read(machine.instance)).toMatchObject({ metadata: { uid }, status: { phase: "Running" } });
  });

  it("empties a namespace that is deleted", async () => {
    const machine = await createMachine({ disks: ["vm-disk"] });
    await untilReadyWithout(cluster, machine, "");

    await cluster.remove(`/api/v1/namespaces/${machine.namespace}`);

    await untilGone(cluster, `/api/v1/namespaces/${machine.namespace}`);
  });

  it("serves a Service with the addresses of ready instances", async () => {
    const namespace = await aNamespace();
    await cluster.apply(
      `{apiVersion: v1, kind: Service, metadata: {name: web, namespace: ${namespace}}, spec: {selector: {app: web}, ports: [{port: 80}]}}`,
    );
    for (const name of ["one", "two"]) await createMachine({ namespace, name, labels: { app: "web" } });
    for (const name of ["one", "two"]) await untilReadyWithout(cluster, pathsOf(namespace, name), "");

    await eventually(async () => {
      const addresses = await Promise.all(
        ["one", "two"].map(async (name) =>
          at(await cluster.read(pathsOf(namespace, name).instance), "status.interfaces.0.ipAddress"),
        ),
      );
      const slices = await cluster.read(`/apis/discovery.k8s.io/v1/namespaces/${namespace}/endpointslices`);
      const endpoints = [at(slices, "items.0.endpoints")].flat();
      const ready = endpoints.filter((endpoint) => at(endpoint, "conditions.ready") === true);
      expect(ready.map((endpoint) => at(endpoint, "addresses.0")).sort()).toEqual(addresses.sort());
      expect(new Set(addresses).size).toBe(2);
    });
  });

  it("says on a disk which machine made it, and not which has it now", async () => {
    const maker = await createMachine({ name: "maker", disks: ["vm-disk"] });
    const { namespace, dataVolume } = maker;
    await untilReadyWithout(cluster, maker, "");
    const made = {
      labels: { "kubevirt.io/created-by": at(await cluster.read(maker.machine), "metadata.uid") },
      annotations: { "cdi.kubevirt.io/allowClaimAdoption": "true" },
    };
    expect(await cluster.read(dataVolume("vm-disk"))).toMatchObject({ metadata: made });
    await cluster.kubectl(["delete", "vm", "maker", "-n", namespace, "--cascade=orphan"]);
    await untilGone(cluster, maker.machine);

    await createMachine({ namespace, disks: ["vm-disk"] });

    await untilField(cluster, dataVolume("vm-disk"), "metadata.ownerReferences.0.name", "vm");
    expect(await cluster.read(dataVolume("vm-disk"))).toMatchObject({ metadata: made });
  });

  it("takes over a disk that nobody owns", async () => {
    const namespace = await aNamespace();
    const { dataVolume } = pathsOf(namespace, "vm");
    await cluster.apply(JSON.stringify(aDataVolume({ name: "vm-disk", namespace })));
    const uid = at(await untilField(cluster, dataVolume("vm-disk"), "status.phase", "Succeeded"), "metadata.uid");

    const machine = await createMachine({ namespace, disks: ["vm-disk"] });

    await untilReadyWithout(cluster, machine, "");
    expect(await cluster.read(dataVolume("vm-disk"))).toMatchObject({
      metadata: { uid, ownerReferences: [{ kind: "VirtualMachine", name: "vm", controller: true }] },
    });
  });

  it("takes over a disk that owners without control have, and drops them as KubeVirt does", async () => {
    const namespace = await aNamespace();
    const { dataVolume } = pathsOf(namespace, "vm");
    const guard = await namespaceReference(namespace);
    await cluster.apply(JSON.stringify(aDataVolume({ name: "vm-disk", namespace, ownerReferences: [guard] })));
    const uid = at(await untilField(cluster, dataVolume("vm-disk"), "status.phase", "Succeeded"), "metadata.uid");

    const machine = await createMachine({ namespace, disks: ["vm-disk"] });

    await untilReadyWithout(cluster, machine, "");
    const { metadata } = z
      .object({
        metadata: z.object({ uid: z.string(), ownerReferences: z.array(z.looseObject({ kind: z.string() })) }),
      })
      .parse(await cluster.read(dataVolume("vm-disk")));
    expect(metadata.uid).toBe(uid);
    expect(metadata.ownerReferences.map(({ kind }) => kind)).toEqual(["VirtualMachine"]);
  });

  it("leaves a disk to the machine that controls it, and takes it over when that lets go", async () => {
    const other = await createMachine({ name: "other", disks: ["shared"] });
    const { namespace, dataVolume } = other;
    await untilReadyWithout(cluster, other, "");

    const machine = await createMachine({ namespace, disks: ["shared"] });
    await untilReadyWithout(cluster, machine, "");
    expect(await cluster.read(dataVolume("shared"))).toMatchObject({
      metadata: { ownerReferences: [{ kind: "VirtualMachine", name: "other", controller: true }] },
    });

    await cluster.mergePatch(other.machine, { spec: { dataVolumeTemplates: null } });
    await cluster.mergePatch(dataVolume("shared"), { metadata: { ownerReferences: null } });
    await untilField(cluster, dataVolume("shared"), "metadata.ownerReferences.0.name", "vm");
  });

  it("keeps a guarded disk through a deletion that deletes dependents first, for the next machine of the name", async () => {
    const machine = await createMachine({ disks: ["kept", "lost"] });
    const { namespace, dataVolume } = machine;
    await untilReadyWithout(cluster, machine, "");
    const kept = await cluster.read(dataVolume("kept"));
    const owners = [at(kept, "metadata.ownerReferences")].flat();
    const guard = await namespaceReference(namespace);
    await cluster.mergePatch(dataVolume("kept"), { metadata: { ownerReferences: [...owners, guard] } });

    await cluster.kubectl(["delete", "vm", "vm", "-n", namespace, "--cascade=foreground"]);

    await untilGone(cluster, machine.machine);
    await untilGone(cluster, dataVolume("lost"));
    expect(await cluster.read(dataVolume("kept"))).toMatchObject({
      metadata: { uid: at(kept, "metadata.uid"), ownerReferences: [{ kind: "Namespace" }] },
    });
    await untilReadyWithout(cluster, await createMachine({ namespace, disks: ["kept", "lost"] }), "");
    expect(at(await cluster.read(dataVolume("kept")), "metadata.uid")).toBe(at(kept, "metadata.uid"));
  });

  it("does not take a disk over for a machine on its way out", async () => {
    const machine = await createMachine({ disks: ["vm-disk"], finalizers: ["pool.kubevirt.io/finalizer"] });
    const { namespace, dataVolume } = machine;
    await untilReadyWithout(cluster, machine, "");
    await cluster.remove(machine.machine);
    await untilGone(cluster, machine.instance);

    await cluster.mergePatch(dataVolume("vm-disk"), { metadata: { ownerReferences: null } });
    await untilCaughtUp(namespace);

    expect(at(await cluster.read(dataVolume("vm-disk")), "metadata.ownerReferences")).toBeUndefined();
  });

  it("makes a DataVolume that went anew, over the claim that stayed", async () => {
    const machine = await createMachine({ disks: ["vm-disk"] });
    const { dataVolume, claim } = machine;
    await untilReadyWithout(cluster, machine, "");
    const uid = at(await cluster.read(claim("vm-disk")), "metadata.uid");

    // The garbage collector lets go of dependents that it has heard of: one that lags would delete the claim later.
    await cluster.mergePatch(claim("vm-disk"), { metadata: { ownerReferences: null } });
    await cluster.kubectl(["delete", "dv", "vm-disk", "-n", machine.namespace, "--cascade=orphan"]);

    await eventually(async () =>
      expect(await cluster.read(claim("vm-disk"))).toMatchObject({
        metadata: {
          uid,
          ownerReferences: [{ kind: "DataVolume", uid: at(await cluster.read(dataVolume("vm-disk")), "metadata.uid") }],
        },
      }),
    );
    await untilField(cluster, dataVolume("vm-disk"), "status.phase", "Succeeded");
  });

  it("lets a DataVolume that was not allowed to take over a claim wait", async () => {
    const namespace = await aNamespace();
    const { claim, dataVolume } = pathsOf(namespace, "vm");
    await cluster.apply(
      `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: taken, namespace: ${namespace}}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}}`,
    );

    await cluster.apply(JSON.stringify(aDataVolume({ name: "taken", namespace })));

    await untilField(cluster, dataVolume("taken"), "status.phase", "Pending");
    expect(at(await cluster.read(claim("taken")), "metadata.ownerReferences")).toBeUndefined();
  });

  it("takes over a claim that nobody owns", async () => {
    const namespace = await aNamespace();
    const { claim } = pathsOf(namespace, "vm");
    await cluster.apply(
      `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: vm-disk, namespace: ${namespace}}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}}`,
    );
    const uid = at(await cluster.read(claim("vm-disk")), "metadata.uid");

    const machine = await createMachine({ namespace, disks: ["vm-disk"] });

    await untilReadyWithout(cluster, machine, "");
    expect(await cluster.read(claim("vm-disk"))).toMatchObject({
      metadata: { uid, ownerReferences: [{ kind: "DataVolume", name: "vm-disk", controller: true }] },
      status: { phase: "Bound" },
    });
  });

  it("waits for a claim that is not there", async () => {
    const machine = await createMachine({ claim: "missing" });
    await untilPrintable(cluster, machine.machine, "ErrorPvcNotFound");

    await cluster.apply(
      `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: missing, namespace: ${machine.namespace}}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}`,
    );

    await untilReadyWithout(cluster, machine, "");
  });

  it("says that a restart is required, and does not restart", async () => {
    const machine = await createMachine();
    const uid = await untilReadyWithout(cluster, machine, "");

    await cluster.mergePatch(machine.machine, { spec: { template: { spec: { domain: { cpu: { cores: 2 } } } } } });

    await eventually(async () =>
      expect(conditionOf(await cluster.read(machine.machine), "RestartRequired")).toBe("True"),
    );
    expect(await instanceUid(machine.instance)).toBe(uid);

    await cluster.remove(machine.instance);
    await untilReadyWithout(cluster, machine, uid);
    await eventually(async () =>
      expect(conditionOf(await cluster.read(machine.machine), "RestartRequired")).toBeUndefined(),
    );
  });

  it("has nothing to write for a label of the template", async () => {
    const machine = await createMachine();
    const uid = await untilReadyWithout(cluster, machine, "");

    await cluster.mergePatch(machine.machine, { spec: { template: { metadata: { labels: { revision: "2" } } } } });

    const changed = await untilField(cluster, machine.machine, "status.desiredGeneration", 2);
    expect(conditionOf(changed, "RestartRequired")).toBeUndefined();
    expect(at(changed, "status.observedGeneration")).toBe(1);
    expect(await instanceUid(machine.instance)).toBe(uid);
  });

  it("writes nothing when nothing is to change", async () => {
    const machine = await createMachine();
    await untilReadyWithout(cluster, machine, "");
    const written = writes.length;

    await cluster.mergePatch(machine.machine, { metadata: { labels: { touched: "yes" } } });
    await cluster.mergePatch(machine.instance, { metadata: { labels: { touched: "yes" } } });
    await untilCaughtUp(machine.namespace);

    const paths = writes.slice(written).map((request) => request.path);
    expect(paths.filter((path) => path === machine.instance || path.startsWith(machine.machine))).toEqual([]);
  });
});

it("has had nothing to complain of", () => {
  // The service account of a new namespace, and namespaces on their way out, are refusals that pass.
  expect(standIn.warnings.filter((warning) => !warning.includes("403"))).toEqual([]);
});
