/** The real horizontal pod autoscaler on pools, as the user guide has it. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { parse } from "yaml";
import { CPU_ANNOTATION } from "../../infra/local/stand-in/metrics.ts";
import { aPool } from "../support/pool-manifests.ts";
import { untilReady } from "../support/until.ts";
import { type Namespace, ROOT, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "vm-pool-cirros";
/** Bounds for a test that hangs; on a quiet machine a minute is enough. */
const SCALE_TIMEOUT_MS = 8 * 60_000;
const TEST_TIMEOUT_MS = 20 * 60_000;

let world: World;

beforeAll(async () => {
  world = await startWorld();
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

async function useCpu(namespace: Namespace, percentage: string): Promise<void> {
  await namespace.kubectl("annotate", "--overwrite", "vmpool", POOL, `${CPU_ANNOTATION}=${percentage}`);
}

/** Waits until the pool asks for that many machines and has them. */
async function untilScaled(namespace: Namespace, replicas: number): Promise<void> {
  await vi.waitFor(
    async () =>
      expect(await namespace.pool(POOL)).toMatchObject({
        spec: { replicas },
        status: { replicas, readyReplicas: replicas },
      }),
    { timeout: SCALE_TIMEOUT_MS, interval: 500 },
  );
}

describe.concurrent("a pool with an autoscaler", { timeout: TEST_TIMEOUT_MS }, () => {
  it.for([
    {
      by: "the guide's manifest",
      autoscale: async (namespace: Namespace) =>
        namespace.create(parse(await readFile(join(ROOT, "infra/examples/vm-pool-cirros-hpa.yaml"), "utf8"))),
    },
    {
      by: "kubectl autoscale",
      autoscale: async (namespace: Namespace) =>
        namespace.kubectl("autoscale", "vmpool", POOL, "--min=3", "--max=10", "--cpu-percent=50"),
    },
  ])("goes to the maximum under load and back to the minimum without: $by", async ({ autoscale }, test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool(POOL, { replicas: 3 }));
    await untilReady(namespace, POOL, 3);
    await autoscale(namespace);
    await useCpu(namespace, "90%");
    await untilScaled(namespace, 10);
    expect(await namespace.kubectl("get", "hpa", POOL)).toMatch(/VirtualMachinePool\/vm-pool-cirros +cpu: 90%\/50%/);
    await useCpu(namespace, "5%");
    await untilScaled(namespace, 3);
  });
});

describe.concurrent("pod metrics", () => {
  it("are there for each machine, with the labels of its pod, and go with it", async (test) => {
    const namespace = await world.aNamespace(test);
    await namespace.create(aPool(POOL, { replicas: 2 }));
    await untilReady(namespace, POOL, 2);
    const metrics = () => namespace.list("apis/metrics.k8s.io/v1beta1", "pods");
    await vi.waitFor(async () => {
      const pods = await namespace.list("api/v1", "pods");
      const read = await metrics();
      expect(read.map(({ metadata }) => metadata.name)).toEqual(pods.map(({ metadata }) => metadata.name));
      expect(read.map(({ metadata }) => metadata.labels)).toEqual(pods.map(({ metadata }) => metadata.labels));
      expect(read).toMatchObject(
        read.map(() => ({ containers: [{ name: "compute", usage: { cpu: "5m", memory: "128Mi" } }] })),
      );
    }, 120_000);
    expect(await namespace.kubectl("top", "pods")).toMatch(/virt-launcher-vm-pool-cirros-0-\w+ +5m +128Mi/);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas", "0");
    await vi.waitFor(async () => expect(await metrics()).toEqual([]), 120_000);
  });
});
