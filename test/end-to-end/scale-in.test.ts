/** Which machines leave, as a user sees it; and every example of the page on scale-in. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import * as z from "zod";
import { eventually } from "../support/eventually.ts";
import { isTerminating, type KubeObject, machineNames, namesOf } from "../support/objects.ts";
import { aPool, type PoolChanges } from "../support/pool-manifests.ts";
import { liveMin, recordMachines } from "../support/recording.ts";
import { untilMachines, untilPassed, untilReady, untilStatus } from "../support/until.ts";
import { type Finishing, type Namespace, ROOT, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "pool";
const POOL_FINALIZER = "pool.kubevirt.io/finalizer";
/** Keeps a machine on its way out there until the test lets go. */
const HOLD = "example.com/hold";

const page = await readFile(join(ROOT, "docs/scale-in.md"), "utf8");

let world: World;

beforeAll(async () => {
  world = await startWorld();
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

const sortedBy = (sortPolicy: string) => ({ scaleInStrategy: { proactive: { selectionPolicy: { sortPolicy } } } });
const selectedBy = (selectors: object) => ({
  scaleInStrategy: { proactive: { selectionPolicy: { sortPolicy: "AscendingOrder", selectors } } },
});
const SPARES = selectedBy({ labelSelector: { matchLabels: { tier: "spare" } } });

async function aReadyPool(test: Finishing, changes: PoolChanges & { readonly replicas: number }): Promise<Namespace> {
  const namespace = await world.aNamespace(test);
  await namespace.create(aPool(POOL, changes));
  await untilReady(namespace, POOL, changes.replicas);
  return namespace;
}

function scale(namespace: Namespace, replicas: number): Promise<string> {
  return namespace.kubectl("scale", "vmpool", POOL, `--replicas=${replicas}`);
}

/** Marks machines as spare by a label of their instance template. */
async function markSpare(namespace: Namespace, ...names: readonly string[]): Promise<void> {
  const patch = JSON.stringify({ spec: { template: { metadata: { labels: { tier: "spare" } } } } });
  for (const name of names) await namespace.kubectl("patch", "vm", name, "--type=merge", "--patch", patch);
}

async function eventsOf(namespace: Namespace): Promise<string> {
  return namespace.kubectl("get", "events", "-o", "custom-columns=:.reason,:.message");
}

/** Waits until the pool has exactly these machines and says so, and goes on having them. */
async function untilLeft(namespace: Namespace, names: readonly string[]): Promise<void> {
  await untilMachines(namespace, names);
  await untilStatus(namespace, POOL, { replicas: names.length });
  await untilPassed(world, { namespace: namespace.name, name: POOL });
  await untilMachines(namespace, names);
}

describe.concurrent("a pool that shrinks", () => {
  it.for([
    { policy: "AscendingOrder", left: ["pool-9", "pool-10"] },
    { policy: "DescendingOrder", left: ["pool-0", "pool-1"] },
  ])("by $policy goes by the number in the name", async ({ policy, left }, test) => {
    const namespace = await aReadyPool(test, { replicas: 11, spec: sortedBy(policy) });
    await scale(namespace, 2);
    await untilLeft(namespace, left);
  });

  it.for([
    { policy: "Newest", left: ["pool-0", "pool-1"] },
    { policy: "Oldest", left: ["pool-2", "pool-3"] },
  ])("by $policy goes by age", async ({ policy, left }, test) => {
    const namespace = await aReadyPool(test, { replicas: 2, spec: sortedBy(policy) });
    // Ages are whole seconds.
    await sleep(1_100);
    await scale(namespace, 4);
    await untilReady(namespace, POOL, 4);
    await scale(namespace, 2);
    await untilLeft(namespace, left);
  });

  it.for([
    { how: "by Random", spec: sortedBy("Random") },
    { how: "by no policy", spec: {} },
  ])("$how takes a machine that is not ready", async ({ spec }, test) => {
    const namespace = await aReadyPool(test, { replicas: 4, spec });
    await namespace.kubectl("patch", "vm", "pool-2", "--type=merge", "--patch", '{"spec":{"running":false}}');
    await untilStatus(namespace, POOL, { replicas: 4, readyReplicas: 3 });
    await scale(namespace, 3);
    await untilLeft(namespace, ["pool-0", "pool-1", "pool-3"]);
  });

  it("takes only machines whose instances have the label, and says once on the pool that too few have it", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 4, spec: SPARES });
    await markSpare(namespace, "pool-2");
    await scale(namespace, 1);
    await untilLeft(namespace, ["pool-0", "pool-1", "pool-3"]);
    const message =
      "3 machines too many: 2 of them are blocked by spec.scaleInStrategy.proactive.selectionPolicy.selectors (of 4 machines labelSelector leaves out 3)";
    const described = await namespace.kubectl("describe", "vmpool", POOL);
    expect(described).toContain(message);
    expect(described.match(/ScaleInBlocked/g)).toHaveLength(1);
    expect(described).not.toContain("Conditions:");
    expect((await namespace.kubectl("get", "vmpool", POOL, "--no-headers")).split(/ +/).slice(0, 3)).toEqual([
      POOL,
      "1",
      "3",
    ]);

    await markSpare(namespace, "pool-1", "pool-3");
    await untilLeft(namespace, ["pool-0"]);
    const events = await namespace.list("api/v1", "events");
    expect(events.filter((event) => event["reason"] === "ScaleInBlocked")).toMatchObject([{ count: 1 }]);
  });

  it("takes only machines that ask for the nodes that the selector names", async (test) => {
    const selector = { nodeSelectorRequirementMatcher: [{ key: "cores", operator: "Lt", values: ["16"] }] };
    const namespace = await aReadyPool(test, { replicas: 3, spec: selectedBy(selector) });
    const patch = JSON.stringify({ spec: { template: { spec: { nodeSelector: { cores: "8" } } } } });
    await namespace.kubectl("patch", "vm", "pool-1", "--type=merge", "--patch", patch);
    await scale(namespace, 1);
    await untilLeft(namespace, ["pool-0", "pool-2"]);
  });

  it("counts machines on their way out once, and takes none beyond the number", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 5 });
    const recording = await recordMachines({ connection: world.connection, namespace: namespace.name });
    test.onTestFinished(() => recording.stop());
    const held = ["pool-1", "pool-2", "pool-3", "pool-4"];
    const hold = JSON.stringify([{ op: "add", path: "/metadata/finalizers/-", value: HOLD }]);
    for (const name of held) await namespace.kubectl("patch", "vm", name, "--type=json", "--patch", hold);
    await namespace.kubectl("delete", "vm", ...held.slice(0, 3), "--wait=false");
    await scale(namespace, 2);
    await untilStatus(namespace, POOL, { replicas: 2, readyReplicas: 2 });
    await untilPassed(world, { namespace: namespace.name, name: POOL });
    const machines = await namespace.machines();
    expect(namesOf(machines.filter((machine) => !isTerminating(machine)))).toEqual(["pool-0", "pool-4"]);
    for (const { metadata } of machines.filter(isTerminating))
      expect(metadata.finalizers).not.toContain(POOL_FINALIZER);
    for (const name of held) await release(namespace, name);
    await untilLeft(namespace, ["pool-0", "pool-4"]);
    expect(liveMin(await recording.states())).toBe(2);
  });
});

async function release(namespace: Namespace, name: string): Promise<void> {
  const machine: KubeObject | undefined = await namespace.machine(name);
  const finalizers = machine?.metadata.finalizers.filter((finalizer) => finalizer !== HOLD);
  const patch = JSON.stringify({ metadata: { finalizers } });
  await namespace.kubectl("patch", "vm", name, "--type=merge", "--patch", patch);
}

describe.concurrent("a pool whose scale-in is left to others", () => {
  it.for([
    { strategy: "opportunistic", spec: { scaleInStrategy: { opportunistic: {} } } },
    { strategy: "unmanaged", spec: { scaleInStrategy: { unmanaged: {} } } },
  ])(
    "($strategy) takes none; those that a user deletes go and stay away until the size is right",
    async ({ spec }, test) => {
      const namespace = await aReadyPool(test, { replicas: 4, spec });
      await scale(namespace, 2);
      await untilPassed(world, { namespace: namespace.name, name: POOL });
      await untilMachines(namespace, machineNames(POOL, 4));
      await namespace.kubectl("delete", "vm", "pool-1", "--timeout=100s");
      await untilLeft(namespace, ["pool-0", "pool-2", "pool-3"]);
      await namespace.kubectl("delete", "vm", "pool-0", "--timeout=100s");
      await untilLeft(namespace, ["pool-2", "pool-3"]);
      expect(await eventsOf(namespace)).not.toMatch(/SuccessfulDelete|ScaleInBlocked/);
      // Of the right size, it replaces what is deleted.
      await namespace.kubectl("delete", "vm", "pool-3", "--timeout=100s");
      await untilLeft(namespace, ["pool-0", "pool-2"]);
    },
  );

  it("still grows, and takes to its new template what is too many", async (test) => {
    const namespace = await aReadyPool(test, { replicas: 2, spec: { scaleInStrategy: { unmanaged: {} } } });
    await scale(namespace, 1);
    const labels = { spec: { virtualMachineTemplate: { metadata: { annotations: { version: "two" } } } } };
    await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", JSON.stringify(labels));
    await eventually(async () => {
      for (const { metadata } of await namespace.machines())
        expect(metadata.annotations).toMatchObject({ version: "two" });
    });
    await scale(namespace, 3);
    await untilReady(namespace, POOL, 3);
  });
});

describe("the page on scale-in", () => {
  const manifestSchema = z.looseObject({
    kind: z.literal("VirtualMachinePool"),
    metadata: z.object({ name: z.string() }),
    spec: z.looseObject({ replicas: z.int() }),
  });
  const manifests = [...page.matchAll(/^```yaml\n([\s\S]*?)^```$/gm)].map(([, text]) =>
    manifestSchema.parse(parse(text ?? "")),
  );
  const commands = [...page.matchAll(/^```\n(kubectl [\s\S]*?)^```$/gm)].map(([, text = ""]) => text.trim());
  let namespace: Namespace;

  beforeAll(async () => {
    namespace = await world.aNamespace();
    await namespace.create(...manifests);
    for (const { metadata, spec } of manifests)
      await untilStatus(namespace, metadata.name, { replicas: spec.replicas, readyReplicas: spec.replicas });
  });

  const runBlock = async (about: string) => {
    const [block = ""] = commands.filter((text) => text.includes(about));
    for (const line of block.split("\n")) {
      const args = line.slice("kubectl ".length).match(/'[^']*'|\S+/g) ?? [];
      await namespace.kubectl(...args.map((arg) => arg.replaceAll("'", "")));
    }
  };

  it("has pools and commands, each of which is tried here", () => {
    expect(manifests.map(({ metadata }) => metadata.name)).toEqual([
      "scale-in-newest",
      "scale-in-spares",
      "scale-in-old-zone",
      "scale-in-opportunistic",
    ]);
    expect(commands).toHaveLength(2);
  });

  it("lets only the machine go that was marked as spare", async () => {
    await runBlock("scale-in-spares");
    await untilStatus(namespace, "scale-in-spares", { replicas: 2 });
    expect(await ofPool("scale-in-spares")).toEqual(["scale-in-spares-0", "scale-in-spares-2"]);
  });

  it("lets the machines go that the user deletes", async () => {
    await runBlock("scale-in-opportunistic");
    await untilStatus(namespace, "scale-in-opportunistic", { replicas: 2 });
    expect(await ofPool("scale-in-opportunistic")).toEqual(["scale-in-opportunistic-1", "scale-in-opportunistic-2"]);
  });

  it("shows filters and orders by which the pools shrink", async () => {
    for (const name of ["scale-in-newest", "scale-in-old-zone"]) {
      await namespace.kubectl("scale", "vmpool", name, "--replicas=1");
      await untilStatus(namespace, name, { replicas: 1 });
    }
  });

  const ofPool = (pool: string) =>
    eventually(async () => {
      const machines = (await namespace.machines()).filter(({ metadata }) => metadata.name.startsWith(`${pool}-`));
      expect(machines).toHaveLength(2);
      return namesOf(machines);
    });
});
