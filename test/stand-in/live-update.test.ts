import { afterAll, beforeAll, describe, expect, it } from "vitest";
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
import { aMachine, type MachineOptions, pathsOf, untilField, untilReadyWithout } from "./machines.ts";

const KUBEVIRT = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt";

let cluster: TestCluster;
let standIn: RunningStandIn;

beforeAll(async () => {
  cluster = await startCluster();
  standIn = await standInFor(cluster.connection);
}, CLUSTER_TIMEOUT_MS);

afterAll(async () => {
  await standIn.stop();
  await cluster.stop();
}, TEST_TIMEOUT_MS);

const SMALL = { cpu: { sockets: 2, cores: 1 }, memory: { guest: "2Gi" } };

async function createReady(name: string, options: Partial<MachineOptions> = {}) {
  await cluster.apply(aMachine({ namespace: "default", name, domain: SMALL, ...options }));
  const paths = pathsOf("default", name);
  return { ...paths, uid: await untilReadyWithout(cluster, paths, "") };
}

const change = (path: string, spec: object) => cluster.mergePatch(path, { spec: { template: { spec } } });

const setRollout = (value: string | null) =>
  cluster.mergePatch(KUBEVIRT, { spec: { configuration: { vmRolloutStrategy: value } } });

async function untilRestartRequired(path: string, status: "True" | undefined): Promise<unknown> {
  return eventually(async () => {
    const machine = await cluster.read(path);
    expect(conditionOf(machine, "RestartRequired")).toBe(status);
    return machine;
  });
}

it("installs itself with changes that wait for a restart", { timeout: TEST_TIMEOUT_MS }, async () => {
  const { text } = await cluster.kubectl(["get", "kv", "-n", "kubevirt"]);
  expect(text).toMatch(/^NAME +AGE +PHASE\nkubevirt +\S+ +Deployed$/m);

  const machine = await createReady("staged");
  expect(at(await cluster.read(machine.instance), "spec.domain.cpu.maxSockets")).toBeUndefined();
  await change(machine.machine, { domain: { cpu: { sockets: 3 } } });

  const waiting = await untilRestartRequired(machine.machine, "True");
  expect(waiting).toMatchObject({ status: { observedGeneration: 1, desiredGeneration: 2 } });
  expect(await cluster.read(machine.instance)).toMatchObject({
    metadata: { uid: machine.uid },
    spec: { domain: { cpu: { sockets: 2 } } },
  });

  await cluster.remove(machine.instance);
  await untilReadyWithout(cluster, machine, machine.uid);
  expect(await untilRestartRequired(machine.machine, undefined)).toMatchObject({ status: { observedGeneration: 2 } });
  expect(at(await cluster.read(machine.instance), "spec.domain.cpu.sockets")).toBe(3);
});

it("takes a change back that was not wanted after all", { timeout: TEST_TIMEOUT_MS }, async () => {
  const machine = await createReady("undone");
  await change(machine.machine, { domain: { memory: { guest: "3Gi" } } });
  await untilRestartRequired(machine.machine, "True");

  await change(machine.machine, { domain: { memory: { guest: "2Gi" } } });

  await untilRestartRequired(machine.machine, undefined);
});

describe("with live update", { timeout: TEST_TIMEOUT_MS }, () => {
  beforeAll(() => setRollout("LiveUpdate"));

  describe.concurrent("a running instance", () => {
    it("takes sockets, memory, node selector, affinity and tolerations", async () => {
      const affinity = { nodeAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } };
      const tolerations = [{ key: "spot", operator: "Exists" }];
      const machine = await createReady("live", { spec: { nodeSelector: { old: "yes" } } });
      await change(machine.machine, {
        domain: { cpu: { sockets: 4 }, memory: { guest: "4Gi" } },
        nodeSelector: { old: null, new: "yes" },
        affinity,
        tolerations,
      });

      const grown = await untilField(cluster, machine.instance, "status.currentCPUTopology.sockets", 4);
      expect(grown).toMatchObject({
        metadata: { uid: machine.uid },
        spec: { nodeSelector: { new: "yes" }, affinity, tolerations },
        status: { memory: { guestAtBoot: "2Gi", guestCurrent: "4Gi" } },
      });
      expect(at(grown, "spec.nodeSelector.old")).toBeUndefined();
      expect(at(grown, "spec.domain.cpu")).toEqual({ cores: 1, sockets: 4, maxSockets: 8 });
      expect(at(grown, "spec.domain.memory")).toEqual({ guest: "4Gi", maxGuest: "8Gi" });
      const after = await cluster.read(machine.machine);
      expect(conditionOf(after, "RestartRequired")).toBeUndefined();
      expect(after).toMatchObject({ status: { ready: true, observedGeneration: 1, desiredGeneration: 2 } });
    });

    it("gives memory back down to what it started with", async () => {
      const machine = await createReady("shrunk");
      for (const guest of ["6Gi", "2Gi"]) {
        await change(machine.machine, { domain: { memory: { guest } } });
        await untilField(cluster, machine.instance, "status.memory.guestCurrent", guest);
      }
      expect(await cluster.read(machine.instance)).toMatchObject({ metadata: { uid: machine.uid } });
    });

    it.each([
      ["more-cores", { domain: { cpu: { cores: 2 } } }],
      ["fewer-sockets", { domain: { cpu: { sockets: 1 } } }],
      ["too-many-sockets", { domain: { cpu: { sockets: 9 } } }],
      ["less-memory", { domain: { memory: { guest: "1Gi" } } }],
      ["too-much-memory", { domain: { memory: { guest: "9Gi" } } }],
      ["odd-memory", { domain: { memory: { guest: "2049Mi" } } }],
    ])("waits for a restart with %s", async (name, spec) => {
      const machine = await createReady(name);

      await change(machine.machine, spec);

      await untilRestartRequired(machine.machine, "True");
      expect(at(await cluster.read(machine.instance), "spec.domain")).toMatchObject(SMALL);
      await cluster.remove(machine.instance);
      await untilReadyWithout(cluster, machine, machine.uid);
      await untilRestartRequired(machine.machine, undefined);
      expect(at(await cluster.read(machine.instance), "spec")).toMatchObject(spec);
    });

    it("has no room to grow when it is small, or has no CPU section", async () => {
      const tiny = await createReady("tiny", { domain: { memory: { guest: "128Mi" } } });
      await change(tiny.machine, { domain: { memory: { guest: "256Mi" } } });
      const bare = await createReady("bare", { domain: {} });
      await change(bare.machine, { domain: { cpu: { sockets: 2 } } });

      for (const { machine } of [tiny, bare]) await untilRestartRequired(machine, "True");
    });

    it("takes nothing of a change that it cannot take all of", async () => {
      const machine = await createReady("mixed");

      await change(machine.machine, { hostname: "other", domain: { cpu: { sockets: 3 } } });

      await untilRestartRequired(machine.machine, "True");
      expect(at(await cluster.read(machine.instance), "spec.domain.cpu.sockets")).toBe(2);
    });

    it("does not care for labels and annotations of the template", async () => {
      const machine = await createReady("labelled");

      await cluster.mergePatch(machine.machine, {
        spec: {
          template: {
            metadata: { labels: { "kubevirt.io/vm-pool-revision-name": "pool-2" }, annotations: { any: "thing" } },
            spec: { domain: { cpu: { sockets: 3 } } },
          },
        },
      });

      const grown = await untilField(cluster, machine.instance, "spec.domain.cpu.sockets", 3);
      expect(JSON.stringify(at(grown, "metadata.labels"))).not.toContain("pool-2");
      await untilRestartRequired(machine.machine, undefined);
    });

    it("shows nothing of it, and asks for nothing, when it was told to ignore live updates", async () => {
      const deaf = await createReady("deaf", { behaviour: "ignore-live-update" });
      const hearing = await createReady("hearing");

      for (const { machine } of [deaf, hearing]) await change(machine, { domain: { cpu: { sockets: 3 } } });

      await untilField(cluster, hearing.instance, "status.currentCPUTopology.sockets", 3);
      expect(await cluster.read(deaf.instance)).toMatchObject({ spec: { domain: { cpu: { sockets: 2 } } } });
      const machine = await untilField(cluster, deaf.machine, "status.desiredGeneration", 2);
      expect(conditionOf(machine, "RestartRequired")).toBeUndefined();

      await cluster.remove(deaf.instance);
      await untilReadyWithout(cluster, deaf, deaf.uid);
      expect(at(await cluster.read(deaf.instance), "spec.domain.cpu.sockets")).toBe(3);
    });
  });

  it("brings staged changes in when it is switched on, as far as there is room", async () => {
    await setRollout("Stage");
    const selected = await createReady("selected");
    const grown = await createReady("grown");
    await change(selected.machine, { nodeSelector: { zone: "a" } });
    await change(grown.machine, { domain: { cpu: { sockets: 3 } } });
    for (const { machine } of [selected, grown]) await untilRestartRequired(machine, "True");

    await setRollout(null);

    await untilField(cluster, selected.instance, "spec.nodeSelector.zone", "a");
    await untilRestartRequired(selected.machine, undefined);
    await untilRestartRequired(grown.machine, "True");
  });
});

it("has had nothing to complain of", () => {
  expect(standIn.warnings.filter((warning) => !warning.includes("403"))).toEqual([]);
});
