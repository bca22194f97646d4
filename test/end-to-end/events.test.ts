/** The API server itself tells the functions of changes: over webhooks alone, over audit alone, with the schedule, through restarts. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ADMISSION_LABEL } from "../../infra/kubernetes/webhooks.ts";
import { QUEUE_DELAY_MS } from "../../shared/events/wake-ups.ts";
import { type EventsWorld, startEventsWorld } from "../support/events-world.ts";
import { eventually } from "../support/eventually.ts";
import { conditionOf, controllerUidOf, machineNames } from "../support/objects.ts";
import { aPool, POOL_LABEL, type PoolChanges } from "../support/pool-manifests.ts";
import { isAvailable } from "../support/recording.ts";
import { at, changeGuest, instancesOf, mergePatch, uidsOf } from "../support/rollouts.ts";
import { untilMachines, untilReady, untilStatus } from "../support/until.ts";
import { type Namespace, ROOT, WORLD_TIMEOUT_MS } from "../support/world.ts";

const EXAMPLE = join(ROOT, "infra/examples/vm-pool-cirros.yaml");
const EXAMPLE_POOL = "vm-pool-cirros";
const POOL = "pool";

let world: EventsWorld;
/** Of the tests that share one pool. */
let home: Namespace;

beforeAll(async () => {
  world = await startEventsWorld();
  await world.startFunctions({ resyncSeconds: 0 });
  home = world.namespace("default");
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

/** A namespace with a pool that is ready. */
async function aReadyPool(replicas: number): Promise<Namespace> {
  const namespace = await world.aNamespace();
  await namespace.create(aPool(POOL, { replicas }));
  await untilReady(namespace, POOL, replicas);
  return namespace;
}

function detach(namespace: Namespace, machine: string): Promise<string> {
  return namespace.kubectl("patch", "vm", machine, "--type=merge", "--patch", '{"metadata":{"ownerReferences":null}}');
}

/** Waits until no pool holds the machine. */
async function untilFree(namespace: Namespace, name: string): Promise<void> {
  await eventually(async () => {
    const machine = await namespace.machine(name);
    expect(machine && controllerUidOf(machine)).toBeUndefined();
    expect(machine?.metadata.finalizers).not.toContain("pool.kubevirt.io/finalizer");
  });
}

/** New queues, whose first look is over: what earlier notices left in the old ones would see the next change too. */
async function restartAndLook(namespace: Namespace): Promise<void> {
  const before = passesOf(namespace, POOL);
  await world.startFunctions({ resyncSeconds: 0 });
  await eventually(() => expect(passesOf(namespace, POOL)).toBeGreaterThan(before));
}

function passesOf(namespace: Namespace, pool: string): number {
  return world.passes.filter((pass) => pass.pool.namespace === namespace.name && pass.pool.name === pool).length;
}

function callsOf(functionName: string): number {
  return world.calls.get(functionName) ?? 0;
}

/** The values of a metric of the API server, over all its labels. */
async function metric(name: string): Promise<number> {
  const text = await world.kubectl("get", "--raw", "/metrics");
  const values = text.split("\n").filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return values.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

describe("over webhooks alone", () => {
  it("makes the example's three machines", async () => {
    await world.kubectl("create", "-f", EXAMPLE);
    await untilReady(home, EXAMPLE_POOL, 3);
  });

  it.each([5, 0, 3])("follows kubectl scale to %i", async (replicas) => {
    await home.kubectl("scale", "vmpool", EXAMPLE_POOL, `--replicas=${replicas}`);
    await untilReady(home, EXAMPLE_POOL, replicas);
  });

  it("brings a machine back that somebody deletes", async () => {
    const before = await home.machine(`${EXAMPLE_POOL}-1`);
    await home.kubectl("delete", "vm", `${EXAMPLE_POOL}-1`, "--timeout=100s");
    await untilReady(home, EXAMPLE_POOL, 3);
    expect((await home.machine(`${EXAMPLE_POOL}-1`))?.metadata.uid).not.toBe(before?.metadata.uid);
  });

  it("replaces a machine that is detached, and frees it", async () => {
    await detach(home, `${EXAMPLE_POOL}-0`);
    await untilMachines(home, machineNames(EXAMPLE_POOL, 4));
    await untilFree(home, `${EXAMPLE_POOL}-0`);
    await home.kubectl("delete", "vm", `${EXAMPLE_POOL}-0`, "--timeout=100s");
  });

  it("rolls a new template out, guest by guest", async () => {
    const guests = await instancesOf(home);
    await mergePatch(home, "vmpool", EXAMPLE_POOL, { spec: { maxUnavailable: 1 } });
    await changeGuest(home, EXAMPLE_POOL, { terminationGracePeriodSeconds: 1 });
    await eventually(async () => {
      const instances = await instancesOf(home);
      expect(instances.map(({ spec }) => at(spec, "terminationGracePeriodSeconds"))).toEqual([1, 1, 1]);
      expect(instances.every(isAvailable)).toBe(true);
    });
    expect(Object.values(uidsOf(await instancesOf(home)))).not.toEqual(Object.values(uidsOf(guests)));
  });

  it("lets a deleted pool and its machines go", async () => {
    await home.kubectl("delete", "vmpool", EXAMPLE_POOL, "--timeout=100s");
    await untilMachines(home, []);
  });

  it("wakes nobody for a dry run", async () => {
    const namespace = await world.aNamespace();
    const stdin = JSON.stringify(aPool("dry"));
    const reviewed = callsOf("admission");
    const args = ["--namespace", namespace.name, "create", "--dry-run=server", "-f", "-"];
    expect(await world.tryKubectl(args, { stdin })).toMatchObject({ ok: true });
    expect(callsOf("admission")).toBeGreaterThan(reviewed);
    await namespace.create(aPool(POOL));
    await untilReady(namespace, POOL, 1);
    expect(passesOf(namespace, "dry")).toBe(0);
  });
});

describe("an illegal pool", () => {
  const both = { proactive: {}, unmanaged: {} };
  const cases: readonly (readonly [string, PoolChanges, RegExp])[] = [
    [
      "8: an unknown operator",
      { spec: { selector: { matchExpressions: [{ key: "app", operator: "Foo" }] } } },
      /spec\.selector\.matchExpressions\[0\]\.operator: .*"Foo" is not a valid label selector operator/,
    ],
    [
      "9: a selector that does not match",
      { matchLabels: { app: "db" } },
      /spec\.selector: selector "app=db" does not match/,
    ],
    [
      "10: maxUnavailable without %",
      { spec: { maxUnavailable: "50" } },
      /spec\.maxUnavailable: maxUnavailable percentage must end with %/,
    ],
    [
      "11: no number before %",
      { spec: { maxUnavailable: "half%" } },
      /spec\.maxUnavailable: .*"half" is not an integer/,
    ],
    [
      "12: more than all",
      { spec: { maxUnavailable: "101%" } },
      /spec\.maxUnavailable: .*101 must be between 1 and 100/,
    ],
    ["13: none", { spec: { maxUnavailable: 0 } }, /spec\.maxUnavailable: maxUnavailable must be greater than 0/],
    [
      "14: two update strategies",
      { spec: { updateStrategy: both } },
      /spec\.updateStrategy: only one strategy .* unmanaged, proactive/,
    ],
    [
      "15: two scale-in strategies",
      { spec: { scaleInStrategy: both } },
      /spec\.scaleInStrategy: only one strategy .* unmanaged, proactive/,
    ],
  ];
  it.each(cases)("is refused as kubectl shows it: rule %s", async (_rule, changes, message) => {
    const namespace = await world.aNamespace();
    const args = ["--namespace", namespace.name, "create", "-f", "-"];
    const outcome = await world.tryKubectl(args, { stdin: JSON.stringify(aPool(POOL, changes)) });
    expect(outcome).toMatchObject({ ok: false, stdout: "" });
    expect(outcome.stderr).toMatch(message);
    expect(await namespace.pool(POOL)).toBeUndefined();
  });

  it("is refused as kubectl shows it: rule 17: another selector", async () => {
    const namespace = await world.aNamespace();
    const labels = { app: "web", tier: "front" };
    await namespace.create(aPool(POOL, { replicas: 0, labels, matchLabels: { app: "web" } }));
    const patch = '{"spec":{"selector":{"matchLabels":{"tier":"front"}}}}';
    const args = ["--namespace", namespace.name, "patch", "vmpool", POOL, "--type=merge", "--patch", patch];
    const outcome = await world.tryKubectl(args);
    expect(outcome.ok).toBe(false);
    expect(outcome.stderr).toMatch(/spec\.selector: selector is immutable after creation/);
    expect(await namespace.pool(POOL)).toMatchObject({ spec: { selector: { matchLabels: { app: "web" } } } });
  });

  it("is named with all that is wrong with it at once", async () => {
    const namespace = await world.aNamespace();
    const stdin = JSON.stringify(aPool(POOL, { spec: { maxUnavailable: 0, updateStrategy: both } }));
    const { stderr } = await world.tryKubectl(["--namespace", namespace.name, "create", "-f", "-"], { stdin });
    expect(stderr).toContain("spec.maxUnavailable");
    expect(stderr).toContain("spec.updateStrategy");
  });

  it("is let into a namespace without validation, and held there with what is wrong", async () => {
    const namespace = await world.aNamespace(undefined, { [ADMISSION_LABEL]: "off" });
    await namespace.create(aPool(POOL, { replicas: 2, matchLabels: { app: "db" } }));
    await eventually(async () => {
      const pool = await namespace.pool(POOL);
      expect(pool && conditionOf(pool, "ReplicaFailure")).toMatchObject({ status: "True", reason: "InvalidSpec" });
    });
    expect(await namespace.machines()).toEqual([]);
    await namespace.kubectl("delete", "vmpool", POOL, "--timeout=100s");
  });
});

/** What leaves no trace but in the cluster, and what the pool makes of it. */
const WHILE_AWAY: readonly {
  readonly change: (namespace: Namespace) => Promise<unknown>;
  readonly comes: (namespace: Namespace) => Promise<void>;
}[] = [
  {
    change: (namespace) => namespace.kubectl("scale", "vmpool", POOL, "--replicas=3"),
    comes: (namespace) => untilReady(namespace, POOL, 3),
  },
  {
    change: (namespace) => namespace.kubectl("scale", "vmpool", POOL, "--replicas=0"),
    comes: (namespace) => untilReady(namespace, POOL, 0),
  },
  {
    change: async (namespace) => {
      const machine = await namespace.machine("pool-0");
      await namespace.kubectl("annotate", "vm", "pool-0", `example.com/first=${machine?.metadata.uid}`);
      await namespace.kubectl("delete", "vm", "pool-0", "--wait=false");
    },
    comes: async (namespace) => {
      await eventually(async () => {
        const machine = await namespace.machine("pool-0");
        expect(machine?.metadata).toMatchObject({ annotations: {} });
        expect(machine?.metadata.annotations["example.com/first"]).toBeUndefined();
      });
      await untilReady(namespace, POOL, 2);
    },
  },
  {
    // Its labels no longer lead to it: a narrow look would not find it.
    change: async (namespace) => {
      await detach(namespace, "pool-0");
      await namespace.kubectl("label", "vm", "pool-0", `${POOL_LABEL}=mine`, "--overwrite");
    },
    comes: async (namespace) => {
      await untilMachines(namespace, machineNames(POOL, 3));
      await untilFree(namespace, "pool-0");
    },
  },
  {
    change: (namespace) => namespace.create(aPool("new", { replicas: 1 })),
    comes: (namespace) => untilStatus(namespace, "new", { replicas: 1, readyReplicas: 1 }),
  },
  {
    change: (namespace) => namespace.kubectl("delete", "vmpool", POOL, "--wait=false"),
    comes: (namespace) => untilMachines(namespace, []),
  },
];

/** Longer than audit events are held back, and than machines take to go. */
const AWAY_MS = 8_000;

const DRIVES = [
  { drive: "webhooks alone", options: { resyncSeconds: 0 } },
  { drive: "the schedule alone", options: { resyncSeconds: 1, webhooks: false } },
  { drive: "both", options: { resyncSeconds: 1 } },
];

describe.each(DRIVES)("over $drive", ({ options }) => {
  beforeAll(() => world.startFunctions(options));

  it("a pool follows its owner, and replaces what is deleted and what is detached", async () => {
    const namespace = await aReadyPool(2);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=4");
    await untilReady(namespace, POOL, 4);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=1");
    await eventually(async () => expect(await namespace.machines()).toHaveLength(1));
    await namespace.kubectl("delete", "vm", "--all", "--timeout=100s");
    await untilReady(namespace, POOL, 1);
    await detach(namespace, "pool-0");
    await untilMachines(namespace, machineNames(POOL, 2));
    await untilFree(namespace, "pool-0");
    await namespace.kubectl("delete", "vmpool", POOL, "--timeout=100s");
    await untilMachines(namespace, ["pool-0"]);
  });

  it("goes on when the API server is killed in the middle of a scale out", async () => {
    const namespace = await aReadyPool(1);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=4");
    await world.restartApiServer();
    await untilReady(namespace, POOL, 4);
    await namespace.kubectl("delete", "vm", "pool-2", "--timeout=100s");
    await untilReady(namespace, POOL, 4);
  });

  it("sees what happened while the functions were away", async () => {
    const stages = await Promise.all(WHILE_AWAY.map(async (away) => ({ ...away, namespace: await aReadyPool(2) })));
    await world.stopFunctions();
    await Promise.all(stages.map(({ change, namespace }) => change(namespace)));
    // Until the API server has told what it had to tell, to nobody.
    await sleep(AWAY_MS);
    await world.startFunctions(options);
    await Promise.all(stages.map(({ comes, namespace }) => comes(namespace)));
  });
});

it("over webhooks alone, sees what it missed when the API server was away for longer than any queue holds a hint", async () => {
  await world.startFunctions({ resyncSeconds: 0 });
  const namespace = await aReadyPool(1);
  await namespace.kubectl("scale", "vmpool", POOL, "--replicas=3");
  await world.restartApiServer(QUEUE_DELAY_MS.late + 5_000);
  await untilReady(namespace, POOL, 3);
});

describe("the API server", () => {
  beforeAll(() => world.startFunctions({ resyncSeconds: 0 }));

  it("has called the webhooks, and none of their conditions ever failed", async () => {
    await aReadyPool(1);
    expect(await metric("apiserver_admission_webhook_request_total")).toBeGreaterThan(0);
    expect(await metric("apiserver_admission_match_condition_evaluation_errors_total")).toBe(0);
  });

  it("drives the passes by its audit events when it has no admission webhook", async () => {
    const namespace = await aReadyPool(1);
    await world.setAdmission(false);
    // The server forgets the configurations a moment later.
    await eventually(async () => {
      const before = callsOf("admission");
      await namespace.kubectl("annotate", "vm", "pool-0", `example.com/at=${before}`, "--overwrite");
      expect(callsOf("admission")).toBe(before);
    });
    const [reviewed, audited] = [callsOf("admission"), callsOf("webhook")];
    await restartAndLook(namespace);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=3");
    await untilReady(namespace, POOL, 3);
    await restartAndLook(namespace);
    await namespace.kubectl("delete", "vm", "pool-1", "--timeout=100s");
    await untilReady(namespace, POOL, 3);
    expect(callsOf("admission")).toBe(reviewed);
    expect(callsOf("webhook")).toBeGreaterThan(audited);
    await world.setAdmission(true);
  });
});
