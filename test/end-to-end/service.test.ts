/** A pool behind a Service, as the user guide has it: real EndpointSlices with the addresses of the pool's instances. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import * as z from "zod";
import { eventually } from "../support/eventually.ts";
import { machineNames } from "../support/objects.ts";
import { aPool } from "../support/pool-manifests.ts";
import { untilMachines, untilReady, untilStatus } from "../support/until.ts";
import { type Finishing, type Namespace, ROOT, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "vm-pool-cirros";
const SERVICE = "vm-pool-cirros-ssh";

const sliceSchema = z.object({
  metadata: z.object({ labels: z.record(z.string(), z.string()).default({}) }),
  ports: z.array(z.object({ port: z.int(), protocol: z.string() })).nullish(),
  endpoints: z
    .array(z.object({ addresses: z.array(z.string()), conditions: z.object({ ready: z.boolean().optional() }) }))
    .nullish(),
});
const instanceSchema = z.object({
  metadata: z.object({ name: z.string(), uid: z.string() }),
  status: z.object({ interfaces: z.array(z.object({ ipAddress: z.string() })).default([]) }),
});

let world: World;

beforeAll(async () => {
  world = await startWorld();
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

async function aServedPool(test: Finishing, pool: object): Promise<Namespace> {
  const namespace = await world.aNamespace(test);
  await namespace.create(pool, parse(await readFile(join(ROOT, "infra/examples/vm-pool-cirros-ssh.yaml"), "utf8")));
  return namespace;
}

/** What the Service's slices say: ready and unready addresses, and the ports they are served on. */
async function endpointsOf(namespace: Namespace) {
  const slices = (await namespace.list("apis/discovery.k8s.io/v1", "endpointslices"))
    .map((slice) => sliceSchema.parse(slice))
    .filter(({ metadata }) => metadata.labels["kubernetes.io/service-name"] === SERVICE);
  const endpoints = slices.flatMap((slice) => slice.endpoints ?? []);
  const addressesOf = (ready: boolean) =>
    endpoints.flatMap(({ addresses, conditions }) => (conditions.ready === ready ? addresses : [])).sort();
  return { ready: addressesOf(true), unready: addressesOf(false), ports: slices.flatMap(({ ports }) => ports ?? []) };
}

async function instancesOf(namespace: Namespace) {
  const instances = await namespace.list("apis/kubevirt.io/v1", "virtualmachineinstances");
  return instances.map((instance) => instanceSchema.parse(instance));
}

/** Waits until the Service leads to exactly the pool's instances, of which there are so many; their addresses. */
async function untilServed(namespace: Namespace, count: number): Promise<readonly string[]> {
  // Which machines are left after a scale in is not the Service's business.
  await untilStatus(namespace, POOL, { replicas: count, readyReplicas: count });
  return eventually(async () => {
    const addresses = (await instancesOf(namespace)).flatMap(({ status }) =>
      status.interfaces.map(({ ipAddress }) => ipAddress),
    );
    expect(addresses).toHaveLength(count);
    expect(new Set(addresses).size).toBe(count);
    const { ready, unready } = await endpointsOf(namespace);
    expect({ ready, unready }).toEqual({ ready: addresses.sort(), unready: [] });
    return ready;
  });
}

describe.concurrent("a pool behind the guide's Service", () => {
  it("has an address for each machine, on the target's port", async (test) => {
    const namespace = await aServedPool(test, aPool(POOL, { replicas: 3 }));
    await untilServed(namespace, 3);
    expect((await endpointsOf(namespace)).ports).toMatchObject([{ port: 22, protocol: "TCP" }]);
    expect(await namespace.kubectl("get", "service", SERVICE)).toMatch(
      /ClusterIP +10\.96\.\d+\.\d+ +<none> +2222\/TCP/,
    );
  });

  it("follows scale, up, down and to nothing", async (test) => {
    const namespace = await aServedPool(test, aPool(POOL, { replicas: 2 }));
    const before = await untilServed(namespace, 2);
    for (const count of [5, 1, 0, 2]) {
      await namespace.kubectl("scale", "vmpool", POOL, "--replicas", String(count));
      const served = await untilServed(namespace, count);
      if (count === 5) expect(served).toEqual(expect.arrayContaining([...before]));
    }
  });

  it("follows the replacement of a machine", async (test) => {
    const namespace = await aServedPool(test, aPool(POOL, { replicas: 3 }));
    await untilServed(namespace, 3);
    const uidOf = async () =>
      (await instancesOf(namespace)).find(({ metadata }) => metadata.name === `${POOL}-1`)?.metadata.uid;
    const before = await uidOf();
    await namespace.kubectl("delete", "vm", `${POOL}-1`);
    await eventually(async () => expect([undefined, before]).not.toContain(await uidOf()));
    await untilServed(namespace, 3);
  });

  it("leads to a machine taken out with kubectl edit until an instance with other labels runs in it", async (test) => {
    const namespace = await aServedPool(test, aPool(POOL, { replicas: 2 }));
    await untilServed(namespace, 2);
    const env = { KUBE_EDITOR: "sed -i /^..ownerReferences:/,/uid:/d" };
    const edited = await world.tryKubectl(["--namespace", namespace.name, "edit", "vm", `${POOL}-0`], { env });
    expect(edited).toMatchObject({ ok: true });
    await untilMachines(namespace, machineNames(POOL, 3));
    await eventually(async () => expect((await endpointsOf(namespace)).ready).toHaveLength(3));
    const labels = { "kubevirt.io/vmpool": "mine" };
    const patch = { metadata: { labels }, spec: { template: { metadata: { labels } } } };
    await namespace.kubectl("patch", "vm", `${POOL}-0`, "--type=merge", "--patch", JSON.stringify(patch));
    await namespace.kubectl("delete", "vmi", `${POOL}-0`);
    await eventually(async () => {
      const instances = await instancesOf(namespace);
      const ofPool = instances.filter(({ metadata }) => metadata.name !== `${POOL}-0`);
      const addresses = ofPool.flatMap(({ status }) => status.interfaces.map(({ ipAddress }) => ipAddress));
      expect(instances).toHaveLength(3);
      expect((await endpointsOf(namespace)).ready).toEqual(addresses.sort());
    });
  });

  it("leads to no machine that is not ready", async (test) => {
    const pool = aPool(POOL, {
      replicas: 2,
      machine: {
        template: {
          metadata: {
            labels: { "kubevirt.io/vmpool": POOL },
            annotations: { "stand-in.vmpool-functions/behaviour": "never-ready" },
          },
          spec: { domain: { devices: {} } },
        },
      },
    });
    const namespace = await aServedPool(test, pool);
    await eventually(async () => {
      const { ready, unready } = await endpointsOf(namespace);
      expect({ ready, unready: unready.length }).toEqual({ ready: [], unready: 2 });
    });
  });

  it("leads to no machine whose instance lacks the label, and the pool's owner is told, once", async (test) => {
    const machine = { template: { metadata: {}, spec: { domain: { devices: {} } } } };
    const namespace = await aServedPool(test, aPool(POOL, { replicas: 2, machine }));
    await untilReady(namespace, POOL, 2);
    const eventsOf = async () => {
      const events = await namespace.list("api/v1", "events");
      return events.filter((event) => event["reason"] === "LabelsMissing");
    };
    await eventually(async () => expect(await eventsOf()).toMatchObject([{ type: "Warning", count: 1 }]));
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas", "3");
    await untilReady(namespace, POOL, 3);
    // Another generation: told anew, and still once.
    await eventually(async () => expect(await eventsOf()).toMatchObject([{ count: 1 }, { count: 1 }]));
    expect(await endpointsOf(namespace)).toMatchObject({ ready: [], unready: [] });
  });
});
