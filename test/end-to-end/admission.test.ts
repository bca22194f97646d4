/** What a user sees of a pool with a mistake: with the webhook, without it, and when only the cluster can tell. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ADMISSION_LABEL } from "../../infra/kubernetes/webhooks.ts";
import { type EventsWorld, startEventsWorld } from "../support/events-world.ts";
import { eventually } from "../support/eventually.ts";
import { conditionOf, type KubeObject } from "../support/objects.ts";
import { aMachine, aPool, type PoolChanges } from "../support/pool-manifests.ts";
import { untilMachines, untilReady, untilStatus } from "../support/until.ts";
import { type Namespace, WORLD_TIMEOUT_MS } from "../support/world.ts";

const POOL = "pool";
const OFF = { [ADMISSION_LABEL]: "off" };

let world: EventsWorld;

beforeAll(async () => {
  world = await startEventsWorld();
  await world.startFunctions({ resyncSeconds: 0 });
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

interface Mistake {
  /** Also the pool's name. */
  readonly name: string;
  readonly changes: PoolChanges;
  /** What kubectl, condition and event say. */
  readonly says: string;
}

const both = { proactive: {}, unmanaged: {} };
const selecting = (operator: string) => ({
  proactive: { selectionPolicy: { selectors: { labelSelector: { matchExpressions: [{ key: "tier", operator }] } } } },
});
const healing = (minFailingToStartDuration: string): PoolChanges => ({
  spec: { autohealing: { minFailingToStartDuration } },
});

/** Those that the schema of the CRD lets through, with the numbers of the reference's rules. */
const MISTAKES: readonly Mistake[] = [
  {
    name: "rule-6-empty-template",
    changes: { spec: { virtualMachineTemplate: {} } },
    says: "spec.virtualMachineTemplate.spec.template: missing virtual machine template: write the template",
  },
  {
    name: "rule-8-selector-operator",
    changes: { spec: { selector: { matchExpressions: [{ key: "app", operator: "Foo" }] } } },
    says: 'spec.selector.matchExpressions[0].operator: "Foo" is not a valid label selector operator: write In, NotIn',
  },
  {
    name: "rule-9-selector-labels",
    changes: { matchLabels: { app: "db" } },
    says: 'spec.selector: selector "app=db" does not match spec.virtualMachineTemplate.metadata.labels, which are {',
  },
  {
    name: "rule-10-no-percent",
    changes: { spec: { maxUnavailable: "50" } },
    says: "spec.maxUnavailable: maxUnavailable percentage must end with %: write a percentage such as 25%",
  },
  {
    name: "rule-11-no-number",
    changes: { spec: { maxUnavailable: "half%" } },
    says: 'spec.maxUnavailable: maxUnavailable percentage value "half" is not an integer: write',
  },
  {
    name: "rule-12-too-much",
    changes: { spec: { maxUnavailable: "101%" } },
    says: "spec.maxUnavailable: maxUnavailable percentage value 101 must be between 1 and 100: write",
  },
  {
    name: "rule-13-none",
    changes: { spec: { maxUnavailable: 0 } },
    says: "spec.maxUnavailable: maxUnavailable must be greater than 0: write",
  },
  {
    name: "rule-14-update-strategies",
    changes: { spec: { updateStrategy: both } },
    says: "spec.updateStrategy: only one strategy can be configured at a time: but found unmanaged, proactive strategies; keep one",
  },
  {
    name: "rule-15-scale-in-strategies",
    changes: { spec: { scaleInStrategy: both } },
    says: "spec.scaleInStrategy: only one strategy can be configured at a time: but found unmanaged, proactive strategies; keep one",
  },
  {
    name: "d31-scale-in-selectors",
    changes: { spec: { scaleInStrategy: selecting("Is") } },
    says: 'spec.scaleInStrategy.proactive.selectionPolicy.selectors.labelSelector.matchExpressions[0].operator: "Is" is not',
  },
  {
    name: "d31-update-selectors",
    changes: { spec: { updateStrategy: selecting("In") } },
    says: "spec.updateStrategy.proactive.selectionPolicy.selectors.labelSelector.matchExpressions[0].values: must be specified",
  },
  {
    name: "rule-4-duration",
    changes: healing("banana"),
    says: 'spec.autohealing.minFailingToStartDuration: "banana" is not a duration: write numbers with units, such as 90s',
  },
  {
    name: "d08-zero-duration",
    changes: healing("0s"),
    says: 'spec.autohealing.minFailingToStartDuration: must be longer than 0, not "0s"',
  },
  {
    name: "d31-negative-duration",
    changes: healing("-1h"),
    says: 'spec.autohealing.minFailingToStartDuration: must be longer than 0, not "-1h"',
  },
  {
    name: `d22-${"n".repeat(58)}`,
    changes: {},
    says: "is 1 characters too long: <name>-<generation> must fit a label value of 63 characters; use a shorter name",
  },
];

/** Those that the API server itself refuses, wherever the webhook is. */
const OF_THE_SCHEMA: readonly Mistake[] = [
  {
    name: "no-sort-policy",
    changes: { spec: { scaleInStrategy: { proactive: { selectionPolicy: { sortPolicy: "Biggest" } } } } },
    says: 'spec.scaleInStrategy.proactive.selectionPolicy.sortPolicy: Unsupported value: "Biggest"',
  },
  {
    name: "no-state",
    changes: { spec: { scaleInStrategy: { opportunistic: { statePreservation: "Always" } } } },
    says: 'spec.scaleInStrategy.opportunistic.statePreservation: Unsupported value: "Always"',
  },
  { name: "negative", changes: { replicas: -1 }, says: "spec.replicas: Invalid value: -1" },
  {
    name: "no-threshold",
    changes: { spec: { autohealing: { startUpFailureThreshold: 0 } } },
    says: "spec.autohealing.startUpFailureThreshold: Invalid value: 0",
  },
];

/** Events about the pool, of this reason. */
async function eventsOf(namespace: Namespace, pool: string, reason: string): Promise<readonly KubeObject[]> {
  const events = await namespace.list("api/v1", "events");
  return events.filter((event) => {
    const about: unknown = event["involvedObject"];
    return event["reason"] === reason && JSON.stringify(about).includes(`"name":"${pool}"`);
  });
}

async function create(namespace: Namespace, object: object) {
  return world.tryKubectl(["--namespace", namespace.name, "create", "-f", "-"], { stdin: JSON.stringify(object) });
}

describe("a pool with a mistake", () => {
  it("is refused as kubectl shows it, and nothing is stored", async () => {
    const namespace = await world.aNamespace();
    for (const { name, changes, says } of [...MISTAKES, ...OF_THE_SCHEMA]) {
      const outcome = await create(namespace, aPool(name, changes));
      expect(outcome, name).toMatchObject({ ok: false, stdout: "" });
      expect(outcome.stderr, name).toContain(says);
    }
    expect(await namespace.kubectl("get", "vmpool", "--no-headers")).toBe("");
  });

  it("is held where there is no webhook, with condition and one event, and can be deleted", async () => {
    const namespace = await world.aNamespace(undefined, OFF);
    await namespace.create(...MISTAKES.map(({ name, changes }) => aPool(name, { replicas: 2, ...changes })));
    for (const { name, says } of MISTAKES) {
      await eventually(async () => {
        const pool = await namespace.pool(name);
        const condition = pool && conditionOf(pool, "ReplicaFailure");
        expect(condition, name).toMatchObject({ reason: "InvalidSpec", message: expect.stringContaining(says) });
        const told = await eventsOf(namespace, name, "InvalidSpec");
        expect(told, name).toMatchObject([{ type: "Warning", count: 1, message: expect.stringContaining(says) }]);
      });
    }
    expect(await namespace.machines()).toEqual([]);
    await namespace.kubectl("delete", "vmpool", "--all", "--timeout=100s");
  });

  it("can be labelled and lose its finalizers, and is judged again when its spec changes", async () => {
    const namespace = await world.aNamespace(undefined, OFF);
    await namespace.create(aPool(POOL, { spec: { maxUnavailable: 0 } }));
    await world.kubectl("label", "namespace", namespace.name, `${ADMISSION_LABEL}-`);
    const patch = (change: object) =>
      world.tryKubectl([
        "-n",
        namespace.name,
        "patch",
        "vmpool",
        POOL,
        "--type=merge",
        "--patch",
        JSON.stringify(change),
      ]);
    // The API server may go by the label that it knew for a moment.
    await eventually(async () => {
      const scaled = await patch({ spec: { replicas: Math.floor(Math.random() * 1_000) } });
      expect(scaled.stderr).toContain("spec.maxUnavailable: maxUnavailable must be greater than 0");
    });
    expect(await patch({ metadata: { labels: { a: "b" }, finalizers: ["example.com/keep"] } })).toMatchObject({
      ok: true,
    });
    await namespace.kubectl("delete", "vmpool", POOL, "--wait=false");
    expect((await patch({ spec: { paused: true } })).ok).toBe(false);
    expect(await patch({ metadata: { finalizers: null } })).toMatchObject({ ok: true });
    expect(await namespace.pool(POOL)).toBeUndefined();
  });
});

describe("a pool that is legal and probably not meant so", () => {
  it("is created with warnings, which its events repeat once", async () => {
    const namespace = await world.aNamespace();
    const scaleInStrategy = { proactive: { statePreservation: "Online" } };
    const outcome = await create(namespace, aPool(POOL, { spec: { maxUnavailable: "100%", scaleInStrategy } }));
    expect(outcome.ok).toBe(true);
    expect(outcome.stderr).toContain("Warning: spec.scaleInStrategy.proactive.statePreservation: Online keeps disks");
    expect(outcome.stderr).toContain(
      "Warning: spec.maxUnavailable: 100% lets a roll-out take all machines down at once",
    );
    await untilReady(namespace, POOL, 1);
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=2");
    await untilReady(namespace, POOL, 2);
    for (const reason of ["MemoryNotKept", "AvailabilityNotKept"]) {
      expect(await eventsOf(namespace, POOL, reason), reason).not.toEqual([]);
    }
  });

  it("is told that its selector matches machines of another pool, and both go on", async () => {
    const namespace = await world.aNamespace();
    const shared = { labels: { app: "shared" }, matchLabels: { app: "shared" } };
    await namespace.create(aPool("first", { ...shared, replicas: 2 }));
    await untilReady(namespace, "first", 2);
    await namespace.create(aPool("second", { ...shared, replicas: 1 }));
    await untilStatus(namespace, "second", { replicas: 1, readyReplicas: 1 });
    const told = await eventsOf(namespace, "second", "SelectorOverlap");
    const message = expect.stringContaining('selector "app=shared" also matches machines of first: each pool keeps');
    expect(told).toMatchObject([{ type: "Warning", count: 1, message }]);
    expect(await eventsOf(namespace, "first", "SelectorOverlap")).toEqual([]);
  });
});

it("a template that the cluster refuses is told once, and costs nothing but the trial", async () => {
  const label = { trial: "refused" };
  const namespace = await world.aNamespace(undefined, label);
  const group = "admissionregistration.k8s.io/v1";
  const spec = {
    matchConstraints: {
      namespaceSelector: { matchLabels: label },
      resourceRules: [
        { apiGroups: ["kubevirt.io"], apiVersions: ["*"], operations: ["CREATE"], resources: ["virtualmachines"] },
      ],
    },
    validations: [{ expression: "!has(object.spec.template.spec.hostname)", message: "no host names here" }],
  };
  const policy = { apiVersion: group, kind: "ValidatingAdmissionPolicy", metadata: { name: "trial" }, spec };
  const binding = {
    apiVersion: group,
    kind: "ValidatingAdmissionPolicyBinding",
    metadata: { name: "trial" },
    spec: { policyName: "trial", validationActions: ["Deny"] },
  };
  await namespace.create(policy, binding);
  const refused = {
    ...aMachine("probe"),
    spec: { runStrategy: "Halted", template: { spec: { hostname: "a", domain: {} } } },
  };
  await eventually(async () => {
    const args = ["-n", namespace.name, "create", "--dry-run=server", "-f", "-"];
    expect((await world.tryKubectl(args, { stdin: JSON.stringify(refused) })).stderr).toContain("no host names here");
  });

  const template = { metadata: { labels: { "kubevirt.io/vmpool": POOL } }, spec: { hostname: "a", domain: {} } };
  await namespace.create(aPool(POOL, { replicas: 5, machine: { template } }));
  await eventually(async () => {
    const pool = await namespace.pool(POOL);
    const condition = pool && conditionOf(pool, "ReplicaFailure");
    expect(condition).toMatchObject({
      reason: "FailedScaleOut",
      message: expect.stringContaining("no host names here"),
    });
    const message = expect.stringMatching(/^Error creating VM: .*no host names here/);
    expect(await eventsOf(namespace, POOL, "FailedCreate")).toMatchObject([{ message }]);
    expect(await eventsOf(namespace, POOL, "FailedScaleOut")).toHaveLength(1);
  });
  const revisions = await namespace.list("apis/apps/v1", "controllerrevisions");
  expect([revisions, await namespace.machines()]).toEqual([[], []]);

  const mended = { spec: { virtualMachineTemplate: { spec: { template: { spec: { hostname: null } } } } } };
  await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", JSON.stringify(mended));
  await untilReady(namespace, POOL, 5);
  await eventually(async () => {
    const pool = await namespace.pool(POOL);
    expect(pool && conditionOf(pool, "ReplicaFailure")).toBeUndefined();
  });

  // Other disks mean other machines: none goes for one that cannot come.
  const uidsOf = async () => (await namespace.machines()).map(({ metadata }) => metadata.uid);
  const before = await uidsOf();
  const disk = { metadata: { name: "data" }, spec: { source: { blank: {} }, storage: {} } };
  const broken = { template: { spec: { hostname: "a" } }, dataVolumeTemplates: [disk] };
  const patch = JSON.stringify({ spec: { virtualMachineTemplate: { spec: broken } } });
  await namespace.kubectl("patch", "vmpool", POOL, "--type=merge", "--patch", patch);
  await eventually(async () => {
    const pool = await namespace.pool(POOL);
    expect(pool && conditionOf(pool, "ReplicaFailure")).toMatchObject({
      message: expect.stringContaining("no host names here"),
    });
  });
  expect(await uidsOf()).toEqual(before);
  // Fewer machines lean on no template.
  await namespace.kubectl("scale", "vmpool", POOL, "--replicas=3");
  await eventually(async () => expect(await uidsOf()).toHaveLength(3));
  expect(before).toEqual(expect.arrayContaining(await uidsOf()));

  await namespace.kubectl("delete", "vmpool", POOL, "--timeout=100s");
  await untilMachines(namespace, []);
});
