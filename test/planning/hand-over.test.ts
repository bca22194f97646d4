/** Pools as KubeVirt's own controller leaves them, and what the first passes plan for them. */
import { describe, expect, it } from "vitest";
import { recordOf } from "../../shared/planning/json.ts";
import type { Revision, Vm } from "../../shared/planning/model.ts";
import { POOL_FINALIZER } from "../../shared/planning/names.ts";
import {
  aClaim,
  anInstance,
  aPool,
  aRevision,
  aSpec,
  aVm,
  aVmSpec,
  type Json,
  KUBEVIRT_FINALIZER,
  LABELS,
  NOW,
  OTHER_POOL_UID,
  type PoolOverrides,
  someVms,
} from "../support/builders.ts";
import { aTemplate } from "../support/changed-pools.ts";
import { claimIn, createsOf, kindsOf, namesOf, planOf } from "./plans.ts";

/** The first claim, whose time to wait is over. */
const TAKEN_OVER = aClaim({ at: NOW - 200_000, since: { at: NOW - 200_000, generation: 9 }, rollout: undefined });

/** Whose zero Go prints, as far as they stand in these templates. */
const POINTERS: ReadonlySet<string> = new Set(["autoattachGraphicsDevice", "storageClassName"]);

/** As Go prints it: with what nobody wrote, without the zeros of fields that are no pointers. */
const printed = (spec: Json): Json => {
  const guest = recordOf(at(spec, "virtualMachineTemplate", "spec", "template", "spec"));
  const domain = recordOf(guest["domain"]);
  const features = domain["features"] === undefined ? {} : { features: { acpi: {}, ...recordOf(domain["features"]) } };
  const template = {
    metadata: { creationTimestamp: null, labels: LABELS },
    spec: {
      ...recordOf(at(spec, "virtualMachineTemplate", "spec")),
      template: {
        metadata: { creationTimestamp: null },
        spec: { ...guest, domain: { devices: {}, resources: {}, ...domain, ...features } },
      },
    },
  };
  return { ...spec, virtualMachineTemplate: withoutZeros(template) };
};
const at = (value: unknown, ...path: readonly string[]): unknown =>
  path.reduce((holder, field) => recordOf(holder)[field], value);
const withoutZeros = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (field, entry) => (isDropped(field, entry) ? undefined : entry)));
const isDropped = (field: string, value: unknown) =>
  (value === "" || value === false || value === 0) && !POINTERS.has(field);

const theirs = (name: string, generation: number) => aRevision({ name, generation, data: printed(aSpec()) });
const instancesFor = (vms: readonly Vm[], revision: string) =>
  vms.map(({ ordinal = 0 }) => anInstance(ordinal, { revision }));

interface Left {
  readonly pool: PoolOverrides;
  readonly vms: readonly Vm[];
  readonly revisions: readonly Revision[];
}

const planAfterWait = ({ pool, vms, revisions }: Left, revision = "web-4") =>
  planOf({
    pool: aPool({ generation: 9, claim: TAKEN_OVER, ...pool }),
    vms,
    revisions,
    ownRevisions: revisions.filter(({ ownerUid }) => ownerUid !== OTHER_POOL_UID),
    instances: instancesFor(vms, revision),
  });

describe("the first pass", () => {
  it.each([
    ["as many machines as wanted", 3],
    ["too few", 1],
    ["too many", 5],
  ])("of a pool with %s writes a claim and waits", (_, count) => {
    const plan = planOf({ pool: aPool({ claim: null }), vms: someVms(count) });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)).toMatchObject({ waitUntil: NOW + 150_000, delete: [], restart: [] });
  });

  it("of a pool that the reference was to fill from nothing waits, too: its creates may be under way", () => {
    const plan = planOf({ pool: aPool({ claim: null, finalizers: [POOL_FINALIZER] }), vms: [] });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
  });

  it("lets go of what the reference never lets go of, whatever the pool's strategy", () => {
    const vms = [aVm(0, { terminating: true, finalizers: [POOL_FINALIZER] }), aVm(1), aVm(2)];
    for (const spec of [
      { paused: true },
      { scaleInStrategy: { unmanaged: {} } },
      { scaleInStrategy: { opportunistic: {} } },
    ]) {
      const plan = planOf({ pool: aPool({ claim: null, spec: aSpec({ replicas: 2, ...spec }) }), vms });
      expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
    }
  });

  it("releases the machine on which the reference's patch failed, and frees a detached one", () => {
    const vms = [
      aVm(0, { labels: { app: "db" }, finalizers: [KUBEVIRT_FINALIZER, POOL_FINALIZER] }),
      aVm(1, { pool: null }),
    ];
    const plan = planOf({ pool: aPool({ claim: null }), vms });
    expect([namesOf(plan, "releaseVm"), namesOf(plan, "dropVmFinalizer")]).toEqual([["web-0"], ["web-1"]]);
  });
});

describe("the pass after the wait", () => {
  const vms = someVms(3, { revision: "web-4" });

  it("notes that a settled pool is as it should be, and nothing else", () => {
    const plan = planAfterWait({ pool: {}, vms, revisions: [theirs("web-4", 4)] });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.rollout).toMatchObject({ revisions: ["web-4"], instances: true });
  });

  it("makes missing machines under the revision that the others name", () => {
    const plan = planAfterWait({ pool: {}, vms: vms.slice(0, 1), revisions: [theirs("web-4", 4)] });
    expect(kindsOf(plan)).toEqual(["writeClaim", "createVm", "createVm"]);
    expect([createsOf(plan), plan.actions.at(-1)]).toEqual([[1, 2], expect.objectContaining({ revision: "web-4" })]);
  });

  it("prunes generations that nothing names, and no other pool's", () => {
    const revisions = [theirs("web-4", 4), theirs("web-2", 2), aRevision({ name: "web-7", owner: OTHER_POOL_UID })];
    const plan = planAfterWait({ pool: {}, vms, revisions });
    expect(kindsOf(plan)).toEqual(["writeClaim", "pruneRevision"]);
    expect(plan.actions.at(-1)).toMatchObject({ revision: { name: "web-2" } });
  });

  it("restarts and replaces nothing for zeros that the reference did not print", () => {
    const http = { url: "https://example.com/a.img", secretRef: "", certConfigMap: "" };
    const virtualMachineTemplate = aTemplate({
      guest: {
        hostname: "",
        domain: {
          cpu: { cores: 2, dedicatedCpuPlacement: false, isolateEmulatorThread: false },
          devices: {
            autoattachGraphicsDevice: false,
            disks: [{ name: "data", disk: { bus: "virtio", readonly: false } }],
          },
          features: { smm: {} },
        },
      },
      dataVolumeTemplates: [
        { metadata: { name: "data" }, spec: { source: { http }, storage: { storageClassName: "" } } },
      ],
    });
    const spec = aSpec({ virtualMachineTemplate });
    const revisions = [aRevision({ name: "web-4", generation: 4, data: printed(spec) })];
    const plan = planAfterWait({ pool: { spec }, vms, revisions });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.rollout).toMatchObject({ revisions: ["web-4"] });
  });

  it("restarts nothing for names that the reference did not index (D35)", () => {
    const volumes = [{ name: "keys", secret: { secretName: "keys" } }];
    const virtualMachineTemplate = {
      metadata: { labels: LABELS },
      spec: { runStrategy: "Always", template: { metadata: {}, spec: { domain: {}, volumes } } },
    };
    const data = aSpec({ virtualMachineTemplate });
    const spec = aSpec({ virtualMachineTemplate, nameGeneration: { appendIndexToSecretRefs: true } });
    const left = { vms, revisions: [aRevision({ name: "web-4", generation: 4, data })] };
    const since = { ...TAKEN_OVER.since, naming: "+secrets" };
    expect(kindsOf(planAfterWait({ ...left, pool: { spec, claim: { ...TAKEN_OVER, since } } }))).toEqual([
      "writeClaim",
    ]);
    // Switched on since then.
    expect(kindsOf(planAfterWait({ ...left, pool: { spec } }))).toContain("updateVm");
  });

  it("gives machines of a trusted foreign revision (D18) one of their own, and restarts nothing", () => {
    const foreign = aRevision({
      name: "web-9",
      owner: OTHER_POOL_UID,
      data: aSpec({ virtualMachineTemplate: other() }),
    });
    const theirVms = someVms(3, { revision: "web-9" });
    const first = planAfterWait({ pool: {}, vms: theirVms, revisions: [foreign] }, "web-9");
    expect(kindsOf(first)).toEqual(["writeClaim", "createRevision", "updateVm", "updateVm", "updateVm"]);
    const [name = ""] = first.actions.flatMap((action) => (action.kind === "createRevision" ? [action.name] : []));
    for (const action of first.actions)
      if (action.kind === "updateVm")
        expect(action.patch).toEqual({ metadata: expect.anything(), spec: labelled(name) });

    const revisions = [foreign, aRevision({ name, generation: 9 })];
    const moved = someVms(3, { revision: name, spec: aVmSpec(name) });
    const second = planAfterWait({ pool: {}, vms: moved, revisions }, "web-9");
    expect(kindsOf(second).filter((kind) => kind !== "writeClaim")).toEqual(Array(3).fill("labelInstance"));
  });

  it("restarts what a foreign revision of an older generation made: nobody knows what it runs", () => {
    const foreign = aRevision({ name: "web-8", owner: OTHER_POOL_UID });
    const plan = planAfterWait({ pool: {}, vms: someVms(3, { revision: "web-8" }), revisions: [foreign] }, "web-8");
    expect(kindsOf(plan)).toContain("updateVm");
  });
});

const other = (): Json => ({
  metadata: { labels: LABELS },
  spec: { runStrategy: "Always", template: { metadata: {}, spec: { domain: {}, hostname: "old" } } },
});

const labelled = (name: string) => ({
  template: { metadata: { labels: { "kubevirt.io/vm-pool-revision-name": name } } },
});
