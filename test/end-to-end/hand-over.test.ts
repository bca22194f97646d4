/** Pools that come from KubeVirt's own controller, laid out exactly as it leaves them: what the first passes write, and what it would find on getting them back. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isRecord } from "../../shared/planning/json.ts";
import { run } from "../support/command.ts";
import { type Driven, driveFunctions } from "../support/driven.ts";
import { eventually } from "../support/eventually.ts";
import { conditionOf, type KubeObject, machineNames, namesOf } from "../support/objects.ts";
import { aMachine, aPool as aManifest, aVirtController } from "../support/pool-manifests.ts";
import { actsOfReference, ownerReference, POOL_FINALIZER, type Reference, referenceIn } from "../support/reference.ts";
import { instancesOf, mergePatch, REVISION_LABEL, revisionNames, uidsOf } from "../support/rollouts.ts";
import { type Finishing, type Namespace, ROOT, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "web";
const KUBEVIRT_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize";
/** How long a pass waits that finds machines and no claim. */
const QUIET_MS = 151_000;
const CLAIM = `PATCH virtualmachinepools/${POOL}`;
const STATUS = `PATCH virtualmachinepools/${POOL}/status`;

let world: World;

beforeAll(async () => {
  world = await startWorld({ functions: false });
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

type Json = Readonly<Record<string, unknown>>;

/** A pool's spec as the user guide has it. */
function aSpec(
  replicas: number,
  { guest = {}, spec = {} }: { readonly guest?: Json; readonly spec?: Json } = {},
): Json {
  const manifest: unknown = aManifest(POOL, { replicas, spec });
  const built = isRecord(manifest) && isRecord(manifest["spec"]) ? manifest["spec"] : {};
  const template: unknown = built["virtualMachineTemplate"];
  const vm = isRecord(template) && isRecord(template["spec"]) ? template["spec"] : {};
  const inner = isRecord(vm["template"]) ? vm["template"] : {};
  const guestSpec = isRecord(inner["spec"]) ? inner["spec"] : {};
  return {
    ...built,
    virtualMachineTemplate: {
      ...(isRecord(template) ? template : {}),
      spec: { ...vm, template: { ...inner, spec: { ...guestSpec, ...guest } } },
    },
  };
}

interface Scene {
  readonly namespace: Namespace;
  readonly reference: Reference;
  readonly functions: Driven;
  readonly place: { readonly namespace: string; readonly name: string };
}

async function aScene(test: Finishing): Promise<Scene> {
  const namespace = await world.aNamespace(test);
  const functions = driveFunctions({ access: world.functionsAccess, logger: silent });
  test.onTestFinished(() => functions.close());
  const reference = referenceIn(world.connection, namespace);
  return { namespace, reference, functions, place: { namespace: namespace.name, name: POOL } };
}

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** As the reference leaves a pool that it has brought to `count` machines of one generation. */
async function aSettledPool(
  { reference }: Scene,
  {
    count,
    specs,
    generation,
  }: { readonly count: number; readonly specs: readonly Json[]; readonly generation: number },
): Promise<KubeObject> {
  const pool = await reference.aPool(POOL, specs);
  const spec = specs[generation - 1] ?? {};
  await reference.revision(pool, generation, spec);
  for (let ordinal = 0; ordinal < count; ordinal += 1) await reference.machine(pool, { ordinal, generation, spec });
  await reference.untilRunning(machineNames(POOL, count));
  await reference.status(pool);
  return pool;
}

/** The passes of a hand-over: before and after the wait for calls of whoever was there before. */
async function takeOver({ functions, place }: Scene) {
  const first = await functions.settle(place);
  functions.waitMs(QUIET_MS);
  return { first, later: await functions.settle(place) };
}

async function guestsOf({ namespace }: Scene): Promise<Readonly<Record<string, string>>> {
  return uidsOf(await instancesOf(namespace));
}

async function versionsOf({ namespace }: Scene): Promise<Readonly<Record<string, string>>> {
  const machines = await namespace.machines();
  return Object.fromEntries(machines.map(({ metadata }) => [metadata.name, metadata.resourceVersion]));
}

/** Every object that the reference reads has the form that it expects, and it would leave all as it is. */
async function expectReferencesForm({ namespace }: Scene): Promise<void> {
  const pool = await namespace.pool(POOL);
  if (pool === undefined) throw new Error("the pool is gone");
  const owner = ownerReference(pool);
  expect(pool.metadata.finalizers).toContain(POOL_FINALIZER);
  for (const machine of await namespace.machines()) {
    const { name, labels, finalizers, ownerReferences } = machine.metadata;
    expect(name).toMatch(/^web-\d+$/);
    expect([...finalizers].sort()).toEqual([KUBEVIRT_FINALIZER, POOL_FINALIZER]);
    expect(ownerReferences).toEqual([owner]);
    expect(labels).toEqual({ "kubevirt.io/vmpool": POOL, [REVISION_LABEL]: expect.stringMatching(/^web-\d+$/) });
    const template = isRecord(machine.spec) ? machine.spec["template"] : undefined;
    expect(template).toMatchObject({ metadata: { labels } });
  }
  for (const revision of await namespace.list("apis/apps/v1", "controllerrevisions")) {
    expect(revision.metadata.ownerReferences).toEqual([owner]);
    expect(revision.metadata.labels).toEqual({});
    expect(revision.metadata.name).toBe(`${POOL}-${revision["revision"]}`);
  }
  expect(await actsOfReference(namespace, POOL)).toEqual([]);
}

describe.concurrent("a pool that is taken over", () => {
  it("gets two claims and nothing else when it is settled", async (test) => {
    const scene = await aScene(test);
    // Scaled three times since its template was made.
    const specs = [aSpec(1), aSpec(4), aSpec(2), aSpec(3)];
    await aSettledPool(scene, { count: 3, specs, generation: 1 });
    const [guests, versions] = [await guestsOf(scene), await versionsOf(scene)];

    expect(await takeOver(scene)).toEqual({ first: [CLAIM], later: [CLAIM] });

    expect(await guestsOf(scene)).toEqual(guests);
    expect(await versionsOf(scene)).toEqual(versions);
    await expectReferencesForm(scene);
  });

  it("gets the machines that are missing, in the reference's form, under the revision that is there", async (test) => {
    const scene = await aScene(test);
    await aSettledPool(scene, { count: 3, specs: [aSpec(3), aSpec(5)], generation: 1 });
    const [guests, before] = [await guestsOf(scene), await scene.namespace.machine("web-0")];

    const { first, later } = await takeOver(scene);

    expect(first).toEqual([CLAIM]);
    const creates = ["POST virtualmachines", "POST virtualmachines"];
    expect(later.filter((line) => line !== STATUS)).toEqual([CLAIM, ...creates, CLAIM]);
    await scene.reference.untilRunning(machineNames(POOL, 5));
    await scene.functions.settle(scene.place);
    expect(await guestsOf(scene)).toMatchObject(guests);
    await expectReferencesForm(scene);
    const made = await scene.namespace.machine("web-4");
    const [own, references] = [made, before].map((machine) => machine?.metadata);
    expect(own?.labels).toEqual(references?.labels);
    expect(own?.ownerReferences).toEqual(references?.ownerReferences);
  });

  it("loses the machines that are too many, and one that the reference left behind on its way out (D10)", async (test) => {
    const scene = await aScene(test);
    const { namespace, functions, place } = scene;
    await aSettledPool(scene, { count: 4, specs: [aSpec(4), aSpec(2)], generation: 1 });
    await stuck(scene, "web-1");
    const guests = await guestsOf(scene);

    // Letting go of a machine needs no claim and does not wait.
    expect(await functions.settle(place)).toEqual(["PATCH virtualmachines/web-1", CLAIM, STATUS]);
    await eventually(async () => expect(await namespace.machine("web-1")).toBeUndefined());
    functions.waitMs(QUIET_MS);
    await eventually(async () => {
      await functions.settle(place);
      expect(await namespace.machines()).toHaveLength(2);
    });

    const left = namesOf(await namespace.machines());
    const kept = Object.entries(guests).filter(([name]) => left.includes(name));
    expect(await guestsOf(scene)).toEqual(Object.fromEntries(kept));
    await expectReferencesForm(scene);
  });

  it("goes on with a roll-out where it stands: what has restarted does not again", async (test) => {
    const scene = await aScene(test);
    const { namespace, functions, place, reference } = scene;
    const specs = [aSpec(3, { spec: { maxUnavailable: 1 } })];
    const pool = await aSettledPool(scene, { count: 3, specs, generation: 1 });
    const next = aSpec(3, { spec: { maxUnavailable: 1 }, guest: { terminationGracePeriodSeconds: 1 } });
    await mergePatch(namespace, "vmpool", POOL, { spec: next });
    await reference.revision(pool, 2, next);
    // The reference rewrites all machines at once and then restarts one by one: it has come to the first.
    for (const ordinal of [0, 1, 2]) await reference.machine(pool, { ordinal, generation: 2, spec: next });
    const before = await guestsOf(scene);
    await namespace.kubectl("delete", "vmi", "web-0", "--wait=true");
    await eventually(async () => {
      const guests = await guestsOf(scene);
      expect(guests["web-0"]).toBeDefined();
      expect(guests["web-0"]).not.toBe(before["web-0"]);
    });
    await reference.untilRunning(machineNames(POOL, 3));
    const guests = await guestsOf(scene);

    expect(await functions.settle(place)).toEqual([CLAIM]);
    functions.waitMs(QUIET_MS);
    const writes: string[] = [];
    await eventually(async () => {
      writes.push(...(await functions.settle(place)));
      functions.waitMs(5_000);
      expect(await revisionNames(namespace)).toEqual(["web-2"]);
      expect(await actsOfReference(namespace, POOL)).toEqual([]);
    });

    expect(writes.filter((line) => line !== CLAIM && line !== STATUS)).toEqual([
      expect.stringMatching(/^DELETE virtualmachineinstances\/web-[12]$/),
      expect.stringMatching(/^DELETE virtualmachineinstances\/web-[12]$/),
      "DELETE controllerrevisions/web-1",
    ]);
    const after = await guestsOf(scene);
    expect(after["web-0"]).toBe(guests["web-0"]);
    await reference.untilRunning(machineNames(POOL, 3));
    await expectReferencesForm(scene);
  });

  it("loses the revisions that nothing names (D21), and keeps those that it shares a name with (D18)", async (test) => {
    const scene = await aScene(test);
    const { namespace, reference } = scene;
    const old = aSpec(2, { guest: { terminationGracePeriodSeconds: 9 } });
    const specs = [old, aSpec(2), aSpec(3), aSpec(2)];
    const pool = await aSettledPool(scene, { count: 2, specs, generation: 2 });
    await reference.revision(pool, 1, old);
    await reference.revision(pool, 3, aSpec(3));
    // Of an earlier pool of the name, which was deleted without its dependents.
    await namespace.create({
      apiVersion: "apps/v1",
      kind: "ControllerRevision",
      metadata: { name: "web-5" },
      revision: 5,
      data: old,
    });
    const [guests, versions] = [await guestsOf(scene), await versionsOf(scene)];

    const { first, later } = await takeOver(scene);

    expect(first).toEqual([CLAIM]);
    // Those of one kind go side by side.
    expect([later[0], ...later.slice(1, -1).sort(), later.at(-1)]).toEqual([
      CLAIM,
      "DELETE controllerrevisions/web-1",
      "DELETE controllerrevisions/web-3",
      CLAIM,
    ]);
    expect(await guestsOf(scene)).toEqual(guests);
    expect(await versionsOf(scene)).toEqual(versions);
    expect(await revisionNames(namespace)).toEqual(["web-2", "web-5"]);
  });

  it("is not rolled out again for a revision of an earlier pool that the reference trusted (D18)", async (test) => {
    const scene = await aScene(test);
    const { namespace, reference, functions, place } = scene;
    const spec = aSpec(2);
    const pool = await reference.aPool(POOL, [spec]);
    const data = aSpec(2, { guest: { terminationGracePeriodSeconds: 9 } });
    const [apiVersion, kind] = ["apps/v1", "ControllerRevision"];
    await namespace.create({ apiVersion, kind, metadata: { name: "web-1" }, revision: 1, data });
    for (const ordinal of [0, 1]) await reference.machine(pool, { ordinal, generation: 1, spec });
    await reference.untilRunning(machineNames(POOL, 2));
    await reference.status(pool);
    const guests = await guestsOf(scene);
    expect(await actsOfReference(namespace, POOL)).toEqual(["rewrites web-0", "rewrites web-1"]);

    expect(await functions.settle(place)).toEqual([CLAIM]);
    functions.waitMs(QUIET_MS);
    const writes = await functions.settle(place);

    const [machine, instance] = ["PATCH virtualmachines/web-", "PATCH virtualmachineinstances/web-"];
    expect(writes.filter((line) => line !== CLAIM).sort()).toEqual(
      ["POST controllerrevisions", `${machine}0`, `${machine}1`, `${instance}0`, `${instance}1`].sort(),
    );
    expect(await guestsOf(scene)).toEqual(guests);
    expect(await revisionNames(namespace)).toEqual(["web-1", expect.stringMatching(/^web-1-[0-9a-f]{8}$/)]);
    expect(await actsOfReference(namespace, POOL)).toEqual([]);
  });

  it.for([
    ["paused (D12)", { paused: true }],
    ["with unmanaged scale-in (D11)", { scaleInStrategy: { unmanaged: {} } }],
    ["with opportunistic scale-in (D10)", { scaleInStrategy: { opportunistic: {} } }],
  ] as const)("and is %s lets go of a machine that hangs on its way out", async ([, spec], test) => {
    const scene = await aScene(test);
    await aSettledPool(scene, { count: 3, specs: [aSpec(2, { spec })], generation: 1 });
    await stuck(scene, "web-1");
    const guests = await guestsOf(scene);

    expect((await scene.functions.settle(scene.place))[0]).toBe("PATCH virtualmachines/web-1");

    await eventually(async () => expect(await scene.namespace.machine("web-1")).toBeUndefined());
    scene.functions.waitMs(QUIET_MS);
    await scene.functions.settle(scene.place);
    expect(await guestsOf(scene)).toEqual(guests);
    expect(namesOf(await scene.namespace.machines())).toEqual(["web-0", "web-2"]);
  });

  it("releases a relabelled machine (D13) and frees a detached one (D14), and touches neither again", async (test) => {
    const scene = await aScene(test);
    const { namespace, functions, place } = scene;
    await aSettledPool(scene, { count: 3, specs: [aSpec(1)], generation: 1 });
    await mergePatch(namespace, "vm", "web-1", { metadata: { labels: { "kubevirt.io/vmpool": null } } });
    await mergePatch(namespace, "vm", "web-2", { metadata: { ownerReferences: null } });
    await namespace.create(aMachine("stranger"));
    const guests = await guestsOf(scene);

    const writes = await functions.settle(place);

    expect(writes.slice(0, 2).sort()).toEqual(["PATCH virtualmachines/web-1", "PATCH virtualmachines/web-2"]);
    for (const name of ["web-1", "web-2"]) {
      expect(await namespace.machine(name)).toMatchObject({
        metadata: { finalizers: [KUBEVIRT_FINALIZER], ownerReferences: [] },
      });
    }
    const versions = await versionsOf(scene);
    functions.waitMs(QUIET_MS);
    await functions.settle(place);
    expect(await guestsOf(scene)).toEqual(guests);
    const { "web-1": one, "web-2": two } = await versionsOf(scene);
    expect([one, two]).toEqual([versions["web-1"], versions["web-2"]]);
  });
});

/** A user deletes a machine, and the reference never lets it go. */
async function stuck({ namespace }: Scene, name: string): Promise<void> {
  await namespace.kubectl("delete", "vm", name, "--wait=false");
  await eventually(async () => {
    expect((await namespace.machine(name))?.metadata).toMatchObject({ finalizers: [POOL_FINALIZER] });
    expect(namesOf(await instancesOf(namespace))).not.toContain(name);
  });
}

describe.concurrent("a second writer", () => {
  it("has passes hold from its first write on, until the pool is taken over anew", async (test) => {
    const scene = await aScene(test);
    const { namespace, functions, place, reference } = scene;
    const { kubectl } = namespace;
    const pool = await aSettledPool(scene, { count: 2, specs: [aSpec(2)], generation: 1 });
    // By the API server's own clock, which is the one of managed fields: the wait is cut short by hand.
    await functions.settle(place);
    await shortenWait(namespace);
    await functions.settle(place);
    await sleep(4_000);
    await reference.status(pool, { conditions: [{ type: "Example", status: "True" }] });
    await kubectl("scale", "vmpool", POOL, "--replicas=4");
    await kubectl("delete", "vm", "web-0", "--wait=false");

    const held = await eventually(async () => {
      const one = await functions.pass(place);
      expect(one.result.decisions.join()).toContain("held: ");
      return one;
    });

    expect(held.result).toMatchObject({ secondWriter: { kind: "inTree" }, complete: true, failures: [] });
    const condition = conditionOf((await namespace.pool(POOL)) ?? pool, "SecondWriter");
    expect(condition).toMatchObject({ status: "True", reason: "InTreeController" });
    expect(condition?.message).toContain(`kubectl annotate vmpool -n ${namespace.name} ${POOL} vmpool-functions/pass-`);
    expect(await kubectl("get", "events", "--field-selector=reason=InTreeController")).toContain("virt-controller");
    // Upkeep goes on: the deleted machine goes. No other comes in its place.
    await eventually(async () => {
      await functions.settle(place);
      expect(namesOf(await namespace.machines())).toEqual(["web-1"]);
    });

    await kubectl("annotate", "vmpool", POOL, "vmpool-functions/pass-");
    expect(await functions.settle(place)).toContain(CLAIM);
    expect(conditionOf((await namespace.pool(POOL)) ?? pool, "SecondWriter")).toBeUndefined();
    expect(namesOf(await namespace.machines())).toEqual(["web-1"]);
    functions.waitMs(QUIET_MS);
    await eventually(async () => {
      await functions.settle(place);
      expect(namesOf(await namespace.machines())).toEqual(machineNames(POOL, 4));
    });
  });

  it("that is another deployment has it to itself until it is silent", async (test) => {
    const scene = await aScene(test);
    const { namespace, functions, place } = scene;
    const other = driveFunctions({ access: world.functionsAccess, logger: silent, deployment: "other" });
    test.onTestFinished(() => other.close());
    await namespace.create(aManifest(POOL, { replicas: 1 }));
    await functions.settle(place);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=2");

    const held = await other.pass(place);
    expect(held).toMatchObject({ result: { secondWriter: { kind: "deployment" } }, writes: [STATUS] });
    expect(held.events).toEqual(["OtherDeployment"]);
    expect(namesOf(await namespace.machines())).toEqual(["web-0"]);
    // The one that acts leaves the condition alone, and the one that holds writes it once.
    await scene.reference.untilRunning(["web-0"]);
    await functions.settle(place);
    expect(namesOf(await namespace.machines())).toEqual(["web-0", "web-1"]);
    await scene.reference.untilRunning(["web-1"]);
    await functions.settle(place);
    expect((await other.pass(place)).writes).toEqual([]);
    expect((await functions.pass(place)).writes).toEqual([]);

    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=3");
    other.waitMs(600_000);
    await other.settle(place);
    expect(namesOf(await namespace.machines())).toEqual(machineNames(POOL, 3));
    expect((await namespace.pool(POOL))?.status?.conditions ?? []).toEqual([]);
  });
});

/** What the KubeVirt resource of the cluster says of its own pool controller. */
async function setThreads(threads: string | null): Promise<void> {
  const flags = { controller: { "pool-controller-threads": threads } };
  const spec = { customizeComponents: { flags } };
  await mergePatch(world.namespace("kubevirt"), "kubevirt", "kubevirt", { spec });
}

/** As if the time to wait were over. */
async function shortenWait(namespace: Namespace): Promise<void> {
  const text = (await namespace.pool(POOL))?.metadata.annotations["vmpool-functions/pass"] ?? "{}";
  const { waitUntil: _, ...claim } = JSON.parse(text);
  await namespace.kubectl("annotate", "--overwrite", "vmpool", POOL, `vmpool-functions/pass=${JSON.stringify(claim)}`);
}

describe("npm run cluster", () => {
  const cluster = (...args: readonly string[]) =>
    run(process.execPath, [join(ROOT, "infra/cli/cluster.ts"), ...args], {
      env: { ...process.env, INIT_CWD: world.dir },
    });

  it("refuses to act until KubeVirt's controller is off, and never refuses to observe", async (test) => {
    const { name } = await world.aNamespace(test);
    const entry = { access: { ...world.functionsAccess, mode: "observe", namespaces: [name] } };
    await writeFile(join(world.dir, "clusters.json"), JSON.stringify({ clusters: { west: entry } }));
    const file = ["--registry", "clusters.json"];
    const admin = [...file, "--kubeconfig", world.kubeconfigPath];
    const namespace = world.namespace(name);

    const green = await cluster("mode", "west", "act", ...file);
    expect(green.stdout).not.toContain("  NO  ");
    expect(green).toMatchObject({ code: 0, stderr: "" });
    expect(await cluster("mode", "west", "observe", ...file)).toMatchObject({ code: 0 });

    await setThreads(null);
    const refused = await cluster("mode", "west", "act", ...file);
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining("west stays in mode observe") });
    expect(refused.stdout).toContain("  NO  KubeVirt kubevirt/kubevirt runs its own pool controller");
    expect(refused.stdout).toContain("  ??  the Deployments of virt-controller cannot be seen");
    expect(await cluster("mode", "west", "observe", ...file)).toMatchObject({ code: 0 });

    await setThreads("0");
    await namespace.create(aVirtController());
    expect(await cluster("check", "west", ...file)).toMatchObject({ code: 0 });
    const seen = await cluster("mode", "west", "act", ...admin);
    expect(seen).toMatchObject({ code: 1, stdout: expect.stringContaining("it has not taken the flag up yet") });

    await namespace.kubectl("delete", "deployment", "virt-controller");
    expect(await cluster("mode", "west", "act", ...admin)).toMatchObject({ code: 0 });
    const written = JSON.parse(await readFile(join(world.dir, "clusters.json"), "utf8"));
    expect(written).toEqual({ clusters: { west: { access: { ...entry.access, mode: "act" } } } });
    expect(await cluster("mode", "east", "act", ...file)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("west"),
    });
    expect(await cluster("check", "west")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("cannot be read"),
    });
  });
});
