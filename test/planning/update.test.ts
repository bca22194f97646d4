/** What becomes of machines that an older template made: moves, restarts, replacements, labels, and how many at once. */
import { describe, expect, it } from "vitest";
import type { Claim } from "../../shared/planning/claim.ts";
import type { Instance, Vm } from "../../shared/planning/model.ts";
import { REVISION_LABEL, UPDATED_ANNOTATION } from "../../shared/planning/names.ts";
import type { Plan } from "../../shared/planning/plan.ts";
import { resolveMaxUnavailable } from "../../shared/planning/update.ts";
import {
  aClaim,
  anInstance,
  anInstanceUid,
  anObservation,
  aPool,
  aRevision,
  aSpec,
  aVm,
  aVmSpec,
  aVmUid,
  type InstanceOverrides,
  type Json,
  LABELS,
  NOW,
  type VmOverrides,
} from "../support/builders.ts";
import {
  ANNOTATES,
  aChangedPool,
  aTemplate,
  type ChangedPool,
  DISKS,
  LIVES,
  MEMORY,
  REPLACES,
  RESTARTS,
} from "../support/changed-pools.ts";
import {
  ACTING,
  claimIn,
  createsOf,
  deletesOf,
  kindsOf,
  namesOf,
  planOf,
  planRead,
  restartsOf,
  updatesOf,
} from "./plans.ts";

const rollOut = (changes: ChangedPool) => planOf(aChangedPool(changes));

/** A machine that names the new revision, and its instance, which runs the old one. */
const moved = (ordinal: number, fields: VmOverrides = {}) => aVm(ordinal, { revision: "web-2", ...fields });
const stale = (ordinal: number, fields: InstanceOverrides = {}) => anInstance(ordinal, fields);

const labelsOf = ({ actions }: Plan) =>
  actions.flatMap((action) => (action.kind === "labelInstance" ? [action.instance.name] : []));
/** What is done about machines and instances, in order. */
const stepsOf = (plan: Plan) => kindsOf(plan).filter((kind) => kind !== "writeClaim" && kind !== "createRevision");

const CHANGES: readonly {
  readonly it: string;
  readonly from?: Json;
  readonly to: Json;
  /** Done to a machine of the old revision. */
  readonly machine: readonly string[];
  /** Done when the machine has the new revision and the instance has not. */
  readonly instance: readonly string[];
}[] = [
  { it: "an annotation", to: ANNOTATES, machine: ["updateVm"], instance: ["labelInstance"] },
  {
    it: "the run strategy",
    to: aTemplate({ runStrategy: "Manual" }),
    machine: ["updateVm"],
    instance: ["labelInstance"],
  },
  { it: "the guest", to: RESTARTS, machine: ["updateVm"], instance: ["restartInstance"] },
  {
    it: "memory that changes live elsewhere",
    from: aTemplate({ guest: MEMORY }),
    to: LIVES,
    machine: ["updateVm"],
    instance: ["restartInstance"],
  },
  { it: "the disks", to: REPLACES, machine: ["deleteVm"], instance: ["deleteVm"] },
  {
    it: "the disks and the guest",
    to: aTemplate({ ...DISKS, guest: MEMORY }),
    machine: ["deleteVm"],
    instance: ["deleteVm"],
  },
];

describe("a proactive update", () => {
  for (const { it: name, to, from = aTemplate(), machine, instance } of CHANGES) {
    it(`does ${machine.join()} to a machine when the template changes ${name}`, () => {
      expect(stepsOf(rollOut({ to, from, vms: [aVm(0)], instances: [stale(0)] }))).toEqual(machine);
    });

    it(`does ${instance.join()} when only its instance is older and the template changes ${name}`, () => {
      expect(stepsOf(rollOut({ to, from, vms: [moved(0)], instances: [stale(0)] }))).toEqual(instance);
    });
  }

  it("replaces a stopped machine, too, when the disks change (D29)", () => {
    expect(deletesOf(rollOut({ to: REPLACES, vms: [aVm(0, { ready: false })] }))).toEqual(["web-0"]);
  });

  it("never rewrites a machine that it replaces (D29)", () => {
    const plan = rollOut({ to: REPLACES, vms: [aVm(0), aVm(1)], instances: [stale(0), stale(1)] });
    expect(updatesOf(plan)).toEqual([]);
  });

  it("keeps what users did to a machine and gives it the new template (D28)", () => {
    const spec = aVmSpec("web-1", { runStrategy: "Halted" });
    const vm = aVm(0, { labels: { ...LABELS, mine: "yes" }, annotations: { note: "kept" }, spec });
    const [update] = updatesOf(rollOut({ vms: [vm] }));
    expect(update?.patch).toEqual({
      metadata: {
        labels: { [REVISION_LABEL]: "web-2" },
        annotations: { [UPDATED_ANNOTATION]: new Date(NOW).toISOString() },
      },
      spec: {
        template: { metadata: { labels: { [REVISION_LABEL]: "web-2" } }, spec: { domain: { cpu: { cores: 2 } } } },
      },
    });
  });

  it("does not rewrite a terminating machine (D28)", () => {
    const plan = rollOut({ vms: [aVm(0, { terminating: true }), aVm(1)] });
    expect(updatesOf(plan).map(({ vm }) => vm.name)).toEqual(["web-1"]);
  });

  it("updates the machine before it restarts the guest, never in one look", () => {
    const plan = rollOut({ vms: [aVm(0), aVm(1)], instances: [stale(0), stale(1)] });
    expect(stepsOf(plan)).toEqual(["updateVm", "updateVm"]);
  });

  it("waits until KubeVirt has seen the machine's new template", () => {
    const restartsAfter = (ms: number) => {
      const annotations = { [UPDATED_ANNOTATION]: new Date(NOW - ms).toISOString() };
      return restartsOf(rollOut({ vms: [moved(0, { annotations })], instances: [stale(0)] }));
    };
    expect([restartsAfter(1_999), restartsAfter(2_000)]).toEqual([[], ["web-0"]]);
  });

  it("does not wait for a time that no pass can have written", () => {
    const annotations = { [UPDATED_ANNOTATION]: "2999-01-01T00:00:00Z" };
    expect(restartsOf(rollOut({ vms: [moved(0, { annotations })], instances: [stale(0)] }))).toEqual(["web-0"]);
  });

  it("waits as long for a time that the clocks of a cluster's servers may be ahead", () => {
    const restartsAhead = (ms: number) => {
      const annotations = { [UPDATED_ANNOTATION]: new Date(NOW + ms).toISOString() };
      return restartsOf(rollOut({ vms: [moved(0, { annotations })], instances: [stale(0)] }));
    };
    expect([restartsAhead(60_000), restartsAhead(60_001)]).toEqual([[], ["web-0"]]);
  });

  const NOW_MOVED = { annotations: { [UPDATED_ANNOTATION]: new Date(NOW).toISOString() } };
  it.each<[string, ChangedPool]>([
    ["it has only just got the new template", { vms: [moved(0, NOW_MOVED)] }],
    ["it has only just got the new template", { vms: [moved(0, NOW_MOVED)], instances: [stale(0)] }],
    ["its name has no number of this pool", { vms: [{ ...aVm(0), ordinal: undefined }] }],
    [
      "KubeVirt is changing it while it runs",
      {
        from: aTemplate({ guest: MEMORY }),
        to: LIVES,
        liveUpdates: true,
        vms: [
          moved(0, {
            annotations: { [UPDATED_ANNOTATION]: new Date(NOW - 5_000).toISOString() },
            spec: aVmSpec("web-2", {
              template: { metadata: {}, spec: { domain: { memory: { guest: "2Gi" } } } },
            }),
          }),
        ],
        instances: [stale(0, { spec: MEMORY })],
      },
    ],
  ])("says why it waits: %s", (why, setting) => {
    const plan = rollOut(setting);
    expect(plan.reasons).toEqual(["roll-out of web-2: 1 of 1 machines to go", `web-0 is not updated: ${why}`]);
  });

  it("asks no more of an opportunistic update than what it moves", () => {
    const {
      instances: _,
      ownRevisions: __,
      ...seen
    } = aChangedPool({
      spec: { updateStrategy: { opportunistic: {} } },
      vms: [aVm(0)],
    });
    const plan = planOf(seen);
    expect([plan.needs, stepsOf(plan)]).toEqual([[], ["updateVm"]]);
  });

  it("keeps the record of a paused pool, however its template changed", () => {
    const before = { template: "another", revisions: ["web-1"], instances: true };
    const plan = rollOut({ spec: { paused: true }, vms: [aVm(0)], claim: { rollout: before } });
    expect(plan).toMatchObject({ needs: [], actions: [] });
  });

  it("moves nothing to a revision that there cannot be", () => {
    const name = "w".repeat(60);
    const spec = aSpec({ replicas: 1, virtualMachineTemplate: RESTARTS });
    const plan = planOf({
      pool: aPool({ name, spec, claim: aClaim({ rollout: undefined }) }),
      vms: [aVm(0, { poolName: name, revision: `${name}-0` })],
      revision: aRevision({ name: `${name}-1`, owner: "earlier-uid" }),
      revisions: [aRevision({ name: `${name}-0` })],
      instances: [],
      ownRevisions: [],
    });
    expect(plan).toMatchObject({ needs: [], actions: [] });
  });

  it("moves no machine whose revision has the template in force under another name", () => {
    const plan = rollOut({
      to: aTemplate(),
      vms: [aVm(0), aVm(1), moved(2)],
      instances: [stale(0), stale(1), anInstance(2, { revision: "web-2" })],
    });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.rollout?.revisions).toEqual(["web-1", "web-2"]);
  });

  it("takes disks of the same size for the same when a machine's revision is lost", () => {
    const disks = (storage: string) => [
      { metadata: { name: "data" }, spec: { storage: { resources: { requests: { storage } } } } },
    ];
    const own = aVmSpec(null, {
      dataVolumeTemplates: disks("1024Mi").map((disk) => ({ ...disk, metadata: { name: "data-0" } })),
    });
    const to = aTemplate({ dataVolumeTemplates: disks("1Gi") });
    expect(stepsOf(rollOut({ to, vms: [aVm(0, { revision: null, spec: own })] }))).toEqual(["updateVm"]);
  });

  it("names all machines that wait when they are five", () => {
    const vms = Array.from({ length: 5 }, (_, ordinal) => ({ ...aVm(ordinal), spec: undefined }));
    expect(rollOut({ vms }).reasons).toContain(
      "web-0, web-1, web-2, web-3, web-4 are not updated: its spec cannot be read",
    );
  });

  it("names five of many machines that wait", () => {
    const vms = Array.from({ length: 7 }, (_, ordinal) => ({ ...aVm(ordinal), spec: undefined }));
    expect(rollOut({ vms }).reasons).toContain(
      "web-0, web-1, web-2, web-3, web-4 and 2 more are not updated: its spec cannot be read",
    );
  });

  it("leaves a guest alone that has shut down: the next one has the template", () => {
    const final = { ...stale(0, { ready: false }), final: true };
    expect(stepsOf(rollOut({ vms: [moved(0)], instances: [final], ownRevisions: [] }))).toEqual([]);
  });

  it("restarts a guest of a machine of unreadable spec, whatever the cluster could change while it runs", () => {
    const vm = { ...moved(0), spec: undefined };
    const change = { from: aTemplate({ guest: MEMORY }), to: LIVES, liveUpdates: true };
    expect(restartsOf(rollOut({ ...change, vms: [vm], instances: [stale(0)] }))).toEqual(["web-0"]);
  });

  it("claims nothing to label instances", () => {
    expect(kindsOf(rollOut({ to: ANNOTATES, vms: [moved(0)], instances: [stale(0)] }))).toEqual(["labelInstance"]);
  });

  it("makes no revision to label instances", () => {
    const { revisions: _, ...unmade } = aChangedPool({ to: ANNOTATES, vms: [moved(0)], instances: [stale(0)] });
    expect(kindsOf(planOf({ ...unmade, revisions: [aRevision()] }))).toEqual(["labelInstance"]);
  });

  it("asks for the revisions that instances name", () => {
    const plan = rollOut({ vms: [moved(0)], instances: [stale(0, { revision: "web-7" })] });
    expect(plan).toMatchObject({ needs: [{ read: "revisions", names: ["web-7"] }], actions: [] });
  });

  it("does nothing, and says nothing, about a machine that is not ready and needs nothing (D26)", () => {
    const instances = [anInstance(0, { revision: "web-2", ready: false })];
    const plan = rollOut({ vms: [moved(0, { ready: false })], instances, ownRevisions: [] });
    expect(stepsOf(plan)).toEqual([]);
    expect(plan.announcements).toEqual([]);
  });

  it("is at rest with a pool of stopped machines (D25)", () => {
    const plan = rollOut({ vms: [moved(0, { ready: false }), moved(1, { ready: false })], ownRevisions: [] });
    expect(claimIn(plan)?.rollout).toMatchObject({ instances: true });
    expect(stepsOf(plan)).toEqual([]);
  });

  it("moves a machine whose revision is lost, and restarts its guest", () => {
    const lost = rollOut({ vms: [aVm(0, { revision: null })] });
    expect(stepsOf(lost)).toEqual(["updateVm"]);
    expect(updatesOf(lost)[0]?.why).toBe("its revision is lost");
    expect(updatesOf(rollOut({ vms: [aVm(0)] }))[0]?.why).toBe("it was made from an older template");
    expect(restartsOf(rollOut({ vms: [moved(0)], instances: [stale(0, { revision: null })] }))).toEqual(["web-0"]);
  });

  it("takes a revision without a template for a lost one (D48)", () => {
    const revisions = [aRevision({ data: { replicas: 1 } })];
    expect(stepsOf(rollOut({ to: ANNOTATES, vms: [aVm(0)], revisions }))).toEqual(["updateVm"]);
    const next = rollOut({ to: ANNOTATES, vms: [moved(0)], instances: [stale(0)], revisions });
    expect(restartsOf(next)).toEqual(["web-0"]);
  });

  it("does not move a machine whose revision is lost and whose disks are others, and says so", () => {
    const plan = rollOut({ to: REPLACES, vms: [aVm(0, { revision: null })] });
    expect(stepsOf(plan)).not.toContain("updateVm");
    expect(plan.reasons.join()).toContain("its revision is lost, and its disks are not the template's");
  });

  it("leaves a machine of unreadable spec alone, and says so", () => {
    const vm = { ...aVm(0), spec: undefined };
    expect(rollOut({ vms: [vm] }).reasons.join()).toContain("web-0 is not updated: its spec cannot be read");
  });

  it("asks for what it does not know, and does nothing until then", () => {
    const pool = aPool({ generation: 2, claim: aClaim({ generation: 2, rollout: undefined }) });
    const plan = planOf({ pool, vms: [aVm(0)] });
    expect(plan.actions).toEqual([]);
    expect(plan.needs.map(({ read }) => read)).toEqual(["instances"]);
  });
});

describe("other update strategies", () => {
  const OPPORTUNISTIC = { updateStrategy: { opportunistic: {} } };

  for (const { it: name, to, from = aTemplate(), machine } of CHANGES) {
    const expected = machine.filter((kind) => kind === "updateVm");
    it(`opportunistic: does ${expected.join() || "nothing"} when the template changes ${name}`, () => {
      expect(stepsOf(rollOut({ to, from, spec: OPPORTUNISTIC, vms: [aVm(0)], instances: [stale(0)] }))).toEqual(
        expected,
      );
      expect(stepsOf(rollOut({ to, from, spec: OPPORTUNISTIC, vms: [moved(0)], instances: [stale(0)] }))).toEqual([]);
    });

    it.each<[string, Json]>([
      ["unmanaged", { updateStrategy: { unmanaged: {} } }],
      ["paused", { paused: true }],
    ])(`%s: does nothing when the template changes ${name}`, (_what, spec) => {
      const vms = [aVm(0), moved(1)];
      expect(stepsOf(rollOut({ to, from, spec, vms, instances: [stale(0), stale(1)] }))).toEqual([]);
    });
  }

  it("opportunistic: says that only a new machine gets new disks (D29)", () => {
    const plan = rollOut({ to: REPLACES, spec: OPPORTUNISTIC, vms: [aVm(0)] });
    expect(plan.reasons.join()).toContain("the template's disks have changed, and only a new machine gets new ones");
  });

  it("leave out what the selectors do not match, and say so (D36)", () => {
    const selectors = { labelSelector: { matchLabels: { tier: "canary" } } };
    const spec = { updateStrategy: { proactive: { selectionPolicy: { selectors } } } };
    const canary = aVmSpec("web-1", { template: { metadata: { labels: { tier: "canary" } }, spec: { domain: {} } } });
    const plan = rollOut({ spec, vms: [aVm(0, { spec: canary }), aVm(1)] });
    expect(updatesOf(plan).map(({ vm }) => vm.name)).toEqual(["web-0"]);
    expect(plan.reasons.join()).toContain("web-1 is not updated: updateStrategy.proactive.selectionPolicy.selectors");
  });

  it("restart no guest of a machine that the selectors leave out, and say so (D36)", () => {
    const selectors = { labelSelector: { matchLabels: { tier: "canary" } } };
    const spec = { updateStrategy: { proactive: { selectionPolicy: { selectors } } } };
    const plan = rollOut({ spec, vms: [moved(0)], instances: [stale(0)] });
    expect(stepsOf(plan)).not.toContain("restartInstance");
    expect(plan.reasons.join()).toContain("web-0 is not updated: updateStrategy.proactive.selectionPolicy.selectors");
    const done = rollOut({
      spec,
      vms: [moved(0)],
      instances: [anInstance(0, { revision: "web-2" })],
      ownRevisions: [],
    });
    expect([done.reasons, claimIn(done)?.rollout?.revisions]).toEqual([[], ["web-2"]]);
  });

  it("restart in the order of the policy (D37)", () => {
    const first = (sortPolicy: string) => {
      const updateStrategy = { proactive: { selectionPolicy: { sortPolicy } } };
      const vms = [moved(1), moved(10), moved(2)];
      const instances = [1, 10, 2].map((ordinal) => stale(ordinal));
      return restartsOf(rollOut({ spec: { updateStrategy, maxUnavailable: 1 }, vms, instances }));
    };
    expect([first("AscendingOrder"), first("DescendingOrder")]).toEqual([["web-1"], ["web-10"]]);
  });
});

describe("changes that KubeVirt can make on a running guest", () => {
  const from = aTemplate({ guest: MEMORY });
  const spec = aVmSpec("web-2", { template: { metadata: {}, spec: { domain: { memory: { guest: "2Gi" } } } } });
  const wanted = (fields: VmOverrides = {}, ageMs = 30_000) =>
    moved(0, { spec, annotations: { [UPDATED_ANNOTATION]: new Date(NOW - ageMs).toISOString() }, ...fields });
  const running = (guest: string) => stale(0, { spec: { domain: { memory: { guest } } } });

  const CASES: readonly (readonly [string, Vm, Instance, boolean, readonly string[]])[] = [
    ["is left to KubeVirt for a minute", wanted(), running("1Gi"), true, []],
    ["is done when the guest shows it", wanted(), running("2Gi"), true, ["labelInstance"]],
    ["is done when the guest shows it in other words", wanted(), running("2048Mi"), true, ["labelInstance"]],
    [
      "restarts what KubeVirt says must restart",
      wanted({ restartRequired: true }),
      running("1Gi"),
      true,
      ["restartInstance"],
    ],
    ["is left to KubeVirt at 59.999 s", wanted({}, 59_999), running("1Gi"), true, []],
    ["restarts what shows the old value after 60 s", wanted({}, 60_000), running("1Gi"), true, ["restartInstance"]],
    ["restarts at once where the cluster does not update live", wanted(), running("1Gi"), false, ["restartInstance"]],
  ];
  for (const [name, vm, instance, liveUpdates, steps] of CASES) {
    it(name, () => {
      expect(stepsOf(rollOut({ from, to: LIVES, vms: [vm], instances: [instance], liveUpdates }))).toEqual(steps);
    });
  }

  it("asks how the cluster does it", () => {
    const plan = rollOut({ from, to: LIVES, vms: [wanted()], instances: [running("1Gi")], liveUpdates: undefined });
    expect(plan.needs).toEqual([{ read: "liveUpdates" }]);
  });

  it("asks also when only one of the machines could take it", () => {
    const { liveUpdates: _, ...unread } = aChangedPool({
      from,
      to: LIVES,
      vms: [moved(0), moved(1)],
      instances: [stale(0), anInstance(1, { revision: "web-2" })],
    });
    expect(planOf(unread).needs).toEqual([{ read: "liveUpdates" }]);
  });

  it("does not ask about a change that always needs a restart", () => {
    expect(stepsOf(rollOut({ vms: [moved(0)], instances: [stale(0)], liveUpdates: undefined }))).toEqual([
      "restartInstance",
    ]);
  });
});

describe("maxUnavailable", () => {
  it.each([
    ["25%", 4, 1],
    ["33%", 10, 3],
    ["1%", 3, 1],
    ["100%", 7, 7],
    ["50%", 0, 1],
    [undefined, 5, 5],
    [2, 5, 2],
    [9, 5, 9],
  ])("%s of %i is %i", (value, replicas, count) => {
    expect(resolveMaxUnavailable(value, replicas)).toBe(count);
  });

  const vms = [0, 1, 2, 3].map((ordinal) => moved(ordinal));
  const instances = [0, 1, 2, 3].map((ordinal) => stale(ordinal));
  const ready = (ordinal: number) => anInstance(ordinal, { revision: "web-2" });
  const count = (max: unknown, setting: Partial<ChangedPool> = {}) => {
    const { spec, ...rest } = setting;
    const plan = rollOut({ vms, instances, ...rest, spec: { maxUnavailable: max, ...spec } });
    return restartsOf(plan).length;
  };

  it.each([
    ["1", 1, 1],
    ["half", "50%", 2],
    ["all", "100%", 4],
    ["more than there are", 9, 4],
  ])("lets %s go at once (D27)", (_what, max, restarts) => expect(count(max)).toBe(restarts));

  it.each<[string, Partial<ChangedPool>]>([
    ["has no instance", { instances: instances.slice(1) }],
    ["has one that goes", { instances: [{ ...ready(0), terminating: true }, ...instances.slice(1)] }],
    ["boots the new template", { instances: [{ ...ready(0), ready: false }, ...instances.slice(1)] }],
    ["goes itself", { vms: [aVm(0, { terminating: true }), ...vms.slice(1)] }],
    [
      "has only just begun to boot the old template",
      { instances: [stale(0, { ready: false, created: "2026-11-22T09:59:55Z" }), ...instances.slice(1)] },
    ],
    ["is missing", { vms: vms.slice(1), instances: instances.slice(1), spec: { replicas: 4 }, keptDisks: [] }],
    ["is being released", { vms: [aVm(0, { labels: { app: "gone" } }), ...vms.slice(1)], spec: { replicas: 4 } }],
    ["was asked to stop", { vms: [{ ...moved(0), requested: true }, ...vms.slice(1)] }],
  ])("counts a machine that %s (D27)", (_what, setting) => {
    expect([count(1, setting), count(2, setting)]).toEqual([0, 1]);
  });

  it("counts a machine whose labels left, and that one is released (D27)", () => {
    const three = [aVm(0, { revision: "web-2", labels: { app: "other" } }), moved(1), moved(2)];
    const plan = rollOut({ vms: three, instances: instances.slice(0, 3), spec: { maxUnavailable: 1 } });
    expect(namesOf(plan, "releaseVm")).toEqual(["web-0"]);
    expect(restartsOf(plan)).toEqual([]);
  });

  it("is not spent on what is not ready anyway: a crash-looping machine gets its cure at once (D27)", () => {
    const crashing = [stale(0, { ready: false }), stale(1, { ready: false }), ...instances.slice(2)];
    expect(restartsOf(rollOut({ vms, instances: crashing, spec: { maxUnavailable: 1 } })).toSorted()).toEqual([
      "web-0",
      "web-1",
    ]);
  });

  it("is spent on what is available only, however young", () => {
    const young = { created: new Date(NOW - 5_000).toISOString() };
    const spec = { maxUnavailable: 1 };
    expect(restartsOf(rollOut({ spec, vms: [moved(0)], instances: [stale(0, young)] }))).toEqual(["web-0"]);
    const vms = [moved(0, { ready: false }), moved(1), moved(2)];
    const instances = [stale(0, { ready: false }), stale(1), anInstance(2, { revision: "web-2" })];
    expect(restartsOf(rollOut({ spec: { maxUnavailable: 2 }, vms, instances }))).toEqual(["web-0", "web-1"]);
  });

  it("is spent on what needs a restart only, whatever the order", () => {
    const updateStrategy = { proactive: { selectionPolicy: { sortPolicy: "AscendingOrder" } } };
    const current = [0, 1].map((ordinal) => anInstance(ordinal, { revision: "web-2" }));
    const vms = [moved(0), moved(1), moved(2)];
    const plan = rollOut({ spec: { updateStrategy, maxUnavailable: 1 }, vms, instances: [...current, stale(2)] });
    expect(restartsOf(plan)).toEqual(["web-2"]);
    expect(plan.reasons).toEqual(["roll-out of web-2: 1 of 3 machines to go"]);
  });

  it("is spent first on a machine that is not ready", () => {
    for (const unready of [0, 1, 2, 3]) {
      const vms = [0, 1, 2, 3].map((ordinal) => moved(ordinal, { ready: ordinal !== unready }));
      const seen = aChangedPool({
        spec: { maxUnavailable: 1 },
        vms,
        instances: vms.map((_, ordinal) => stale(ordinal)),
      });
      expect(restartsOf(planOf(seen))).toEqual([`web-${unready}`]);
    }
  });

  it("is not spent on a machine that goes because there are too many", () => {
    const vms = [moved(0), moved(1), moved(2, { ready: false })];
    const instances = [stale(0), anInstance(1, { revision: "web-2" }), stale(2, { ready: false })];
    const plan = rollOut({ spec: { replicas: 2, maxUnavailable: 1 }, vms, instances });
    expect([deletesOf(plan), restartsOf(plan)]).toEqual([["web-2"], ["web-0"]]);
  });

  it("lets a restart that was claimed be repeated, however young the instance is", () => {
    const instance = stale(0, { ready: false, created: new Date(NOW - 5_000).toISOString() });
    const restart = [{ ordinal: 0, uidPrefix: instance.uid.slice(0, 8) }];
    expect(restartsOf(rollOut({ vms: [moved(0)], instances: [instance], claim: { restart } }))).toEqual(["web-0"]);
  });

  it("lets an instance that is not ready boot for ten seconds before it is restarted", () => {
    const restartsAt = (created: string) =>
      restartsOf(rollOut({ vms: [moved(0)], instances: [stale(0, { ready: false, created })] }));
    expect([restartsAt("2026-11-22T09:59:51Z"), restartsAt("2026-11-22T09:59:50Z")]).toEqual([[], ["web-0"]]);
  });

  it("is not spent on labels, nor on instances that are on their way out (D27)", () => {
    const older = { ...stale(1), terminating: true };
    const plan = rollOut({
      to: ANNOTATES,
      vms,
      instances: [stale(0), older, stale(2), stale(3)],
      spec: { maxUnavailable: 1 },
    });
    expect([labelsOf(plan).length, restartsOf(plan)]).toEqual([3, []]);
  });

  it("bounds replacements with restarts", () => {
    const old = [0, 1, 2, 3].map((ordinal) => aVm(ordinal));
    expect(deletesOf(rollOut({ to: REPLACES, vms: old, instances, spec: { maxUnavailable: 3 } }))).toHaveLength(3);
  });

  it("names what waits", () => {
    const plan = rollOut({ vms, instances, spec: { maxUnavailable: 1 } });
    expect(plan.reasons).toContain(
      "roll-out of web-2: 4 of 4 machines to go; 3 wait for others to be ready (maxUnavailable 1)",
    );
  });

  it.each<[string, Json]>([
    ["unmanaged", { scaleInStrategy: { unmanaged: {} } }],
    ["opportunistic", { scaleInStrategy: { opportunistic: {} } }],
  ])("lets updates run in a pool that is too large for ever, as scale in is %s (D21)", (_what, spec) => {
    expect(count(1, { spec: { replicas: 2, ...spec } })).toBe(1);
    const old = rollOut({ vms: [aVm(0), aVm(1), aVm(2)], spec: { replicas: 1, ...spec } });
    expect(updatesOf(old)).toHaveLength(3);
  });

  it("lets updates run in a pool whose selectors block scale in", () => {
    const selectors = { labelSelector: { matchLabels: { tier: "spare" } } };
    const spec = { replicas: 1, scaleInStrategy: { proactive: { selectionPolicy: { selectors } } } };
    expect(updatesOf(rollOut({ vms: [aVm(0), aVm(1)], spec }))).toHaveLength(2);
  });

  it("restarts no machine that scale in takes", () => {
    const plan = rollOut({ vms, instances, spec: { replicas: 2 } });
    expect(deletesOf(plan)).toHaveLength(2);
    expect(restartsOf(plan).filter((name) => deletesOf(plan).includes(name))).toEqual([]);
  });

  it("goes no further than the limits of a look with what it changes, either", () => {
    const limits = { ...ACTING, updatesMax: 1 };
    expect(stepsOf(planOf(aChangedPool({ vms: [aVm(0), aVm(1)] }), limits))).toEqual(["updateVm"]);
    const labels = aChangedPool({ to: ANNOTATES, vms: [moved(0), moved(1)], instances: [stale(0), stale(1)] });
    expect(stepsOf(planOf(labels, limits))).toEqual(["labelInstance"]);
  });

  it("goes no further than the limits of a look, and nothing is restarted to close", () => {
    const plan = planOf(aChangedPool({ vms, instances }), { ...ACTING, restartsMax: 1 });
    expect(restartsOf(plan)).toHaveLength(1);
    expect(claimIn(plan)?.restart).toHaveLength(1);
  });
});

describe("a restart by requests, as Manual and RerunOnFailure machines need (D40)", () => {
  const asked = { ...moved(0, { spec: aVmSpec("web-2", { runStrategy: "Manual" }) }), requested: true };
  const restart = [{ ordinal: 0, uidPrefix: anInstanceUid(0).slice(0, 8) }];

  it("is not asked for twice", () => {
    expect(restartsOf(rollOut({ vms: [asked], instances: [stale(0)] }))).toEqual([]);
  });

  it("stays claimed, unrevoked and counted until the instance goes", () => {
    const spec = { maxUnavailable: 1 };
    const plan = rollOut({ spec, vms: [asked, moved(1)], instances: [stale(0), stale(1)], claim: { restart } });
    expect(stepsOf(plan)).toEqual([]);
    expect(kindsOf(plan)).toEqual([]);
  });

  it("is over when another instance is there", () => {
    const next = anInstance(0, { revision: "web-2", uid: "0ddba11f-0000" });
    const plan = rollOut({ vms: [moved(0)], instances: [next], claim: { restart } });
    expect(claimIn(plan)?.restart).toEqual([]);
  });
});

describe("names made of ordinals (D35)", () => {
  const volumes = (name: string) => [{ name: "s", secret: { secretName: name } }];
  const template = (guest: Json = {}) => aTemplate({ guest: { volumes: volumes("s"), ...guest } });
  const naming = { nameGeneration: { appendIndexToSecretRefs: true } };
  const own = aVmSpec("web-1", { template: { metadata: {}, spec: { domain: {}, volumes: volumes("s") } } });
  const planWith = (since: Claim["since"], to = template(), ordinal = 0) =>
    rollOut({
      from: template(),
      to,
      spec: naming,
      claim: { since },
      vms: [aVm(ordinal, { spec: own })],
      instances: [stale(ordinal)],
    });
  const patchIn = (plan: Plan) => JSON.stringify(updatesOf(plan)[0]?.patch);

  it("count when they changed since this deployment looks after the pool", () => {
    expect(patchIn(planWith({ at: NOW, generation: 1, naming: "+" }))).toContain('"secretName":"s-0"');
  });

  it("count for machines of generations since then, though they are as at the take-over", () => {
    expect(patchIn(planWith({ at: NOW, generation: 1, naming: "+secrets" }))).toContain('"secretName":"s-0"');
  });

  it("are those of the machine's own number", () => {
    expect(patchIn(planWith({ at: NOW, generation: 1, naming: "+" }, template(), 7))).toContain('"secretName":"s-7"');
  });

  it("count when they are others than at the take-over", () => {
    expect(patchIn(planWith({ at: NOW, generation: 2, naming: "+" }))).toContain('"secretName":"s-0"');
  });

  it("do not count when they changed before the take-over: taking over restarts nothing", () => {
    const plan = planWith({ at: NOW, generation: 2, naming: "+secrets" });
    expect(stepsOf(plan)).toEqual([]);
    expect(claimIn(plan)?.rollout?.revisions).toContain("web-1");
  });

  it("go along when the guest restarts for another reason, as with the reference", () => {
    const to = template({ domain: { cpu: { cores: 2 } } });
    expect(patchIn(planWith({ at: NOW, generation: 2, naming: "+secrets" }, to))).toContain('"secretName":"s-0"');
  });

  it("do not make a restart of a change that is none", () => {
    const to = { ...template(), metadata: ANNOTATES.metadata };
    expect(patchIn(planWith({ at: NOW, generation: 2, naming: "+secrets" }, to))).not.toContain("secretName");
  });
});

/** KubeVirt's VirtualMachineRestore puts the spec of a snapshot back and leaves the machine's own labels. */
describe("a machine whose spec was put back from an older revision", () => {
  const restored = (fields: Json = {}) => aVm(0, { revision: "web-2", spec: aVmSpec("web-1", fields) });
  const RESTORED = [{ metadata: { name: "restore-1234-data" }, spec: { storage: {} } }];

  it("is moved to the template in force, whose revision its next guest then names, and is not restarted before", () => {
    const plan = rollOut({ vms: [restored({ updateVolumesStrategy: "Migration" })], instances: [stale(0)] });
    expect(kindsOf(plan)).toEqual(["writeClaim", "updateVm"]);
    expect(updatesOf(plan)[0]?.patch).toEqual({
      metadata: { annotations: { [UPDATED_ANNOTATION]: new Date(NOW).toISOString() } },
      spec: {
        template: { metadata: { labels: { [REVISION_LABEL]: "web-2" } }, spec: { domain: { cpu: { cores: 2 } } } },
      },
    });
  });

  it("gives up what only the older revision's template had", () => {
    const from = aTemplate({ guest: { hostname: "old" } });
    const template = { metadata: { labels: { [REVISION_LABEL]: "web-1" } }, spec: { domain: {}, hostname: "old" } };
    const [update] = updatesOf(rollOut({ from, vms: [restored({ template })] }));
    expect(update?.patch).toMatchObject({ spec: { template: { spec: { hostname: null } } } });
  });

  it("keeps its restored disks when it is moved", () => {
    const [from, to] = [aTemplate(DISKS), aTemplate({ ...DISKS, guest: MEMORY })];
    const [update] = updatesOf(rollOut({ from, to, vms: [restored({ dataVolumeTemplates: RESTORED })] }));
    expect(Object.keys(Object(update?.patch).spec)).toEqual(["template"]);
  });

  it.each<Json>([{}, { updateStrategy: { opportunistic: {} } }])(
    "is left as it is, with its restored disks, where that revision had others (%j)",
    (spec) => {
      const setting = { to: REPLACES, vms: [restored({ dataVolumeTemplates: RESTORED })], instances: [stale(0)] };
      const plan = rollOut({ ...setting, spec });
      expect(kindsOf(plan)).toEqual([]);
      expect(plan.reasons).toContain(
        "web-0 is not updated: its spec is of another revision than its label says, with other disks",
      );
    },
  );

  it("is left as it is, with its restored disks, where that revision is lost", () => {
    const to = aTemplate(DISKS);
    const spec = aVmSpec("web-0", { dataVolumeTemplates: RESTORED });
    const [vms, revisions] = [[moved(0, { spec })], [aRevision({ name: "web-2", data: aSpec() })]];
    const seen = aChangedPool({ to, vms, instances: [stale(0, { revision: "web-0" })], ownRevisions: revisions });
    expect(planOf(seen).needs).toEqual([{ read: "revisions", names: ["web-0"] }]);
    const plan = planRead(anObservation(seen), ACTING);
    expect(kindsOf(plan)).toEqual([]);
    expect(plan.reasons.join()).toContain("its revision is lost, and its disks are not the template's");
  });

  it("is told what its next guest names, and nothing else, where that revision has the template in force", () => {
    const plan = rollOut({ to: aTemplate(), vms: [restored()], instances: [stale(0)] });
    expect(updatesOf(plan)[0]?.patch).toMatchObject({
      spec: { template: { metadata: { labels: { [REVISION_LABEL]: updatesOf(plan)[0]?.revision } } } },
    });
    expect(Object(updatesOf(plan)[0]?.patch).spec.template.spec).toBeUndefined();
  });

  it("stays as it is where the selectors leave it out", () => {
    const updateStrategy = {
      proactive: { selectionPolicy: { selectors: { labelSelector: { matchLabels: { ring: "canary" } } } } },
    };
    const plan = rollOut({ vms: [restored()], instances: [stale(0)], spec: { updateStrategy } });
    expect(stepsOf(plan)).toEqual([]);
  });

  it("keeps the revision that its spec names from being pruned", () => {
    const plan = rollOut({ to: REPLACES, vms: [restored()], instances: [] });
    expect(stepsOf(plan)).toEqual([]);
    expect(stepsOf(rollOut({ to: REPLACES, vms: [moved(0)], instances: [] }))).toEqual(["pruneRevision"]);
  });

  it("is known for what its spec says, too, when its own label was taken away or emptied", () => {
    for (const revision of [null, ""]) {
      const plan = rollOut({ to: REPLACES, vms: [aVm(0, { revision, spec: aVmSpec("web-2", DISKS_OF_0) })] });
      expect(updatesOf(plan)[0]?.patch).toEqual({
        metadata: {
          labels: { [REVISION_LABEL]: "web-2" },
          annotations: { [UPDATED_ANNOTATION]: new Date(NOW).toISOString() },
        },
      });
    }
  });
});

const DISKS_OF_0 = { dataVolumeTemplates: [{ metadata: { name: "data-0" }, spec: { storage: {} } }] };

describe("an empty revision label", () => {
  it("of a machine is as good as none", () => {
    const plan = rollOut({ vms: [aVm(0, { revision: "" })] });
    expect([stepsOf(plan), updatesOf(plan)[0]?.why]).toEqual([["updateVm"], "its revision is lost"]);
  });

  it("of an instance is as good as none", () => {
    const plan = rollOut({ vms: [moved(0)], instances: [stale(0, { revision: "" })] });
    expect([plan.needs, restartsOf(plan)]).toEqual([[], ["web-0"]]);
  });

  it("of a machine's instance template is as good as none", () => {
    const plan = rollOut({ vms: [moved(0, { spec: aVmSpec("") })], ownRevisions: [] });
    expect(claimIn(plan)?.rollout?.revisions).toEqual(["web-2"]);
  });
});

describe("a pool that machines of many revisions come to, with one template", () => {
  const vms = Array.from({ length: 150 }, (_, ordinal) => aVm(ordinal, { revision: `web-${ordinal + 2}` }));
  const revisions = vms.map((vm, index) => aRevision({ name: vm.labels[REVISION_LABEL] ?? "", generation: index + 2 }));
  const pool = aPool({
    generation: 200,
    spec: aSpec({ replicas: 150 }),
    claim: aClaim({ generation: 200, rollout: undefined }),
  });
  const plan = planOf({ pool, vms, revisions, ownRevisions: revisions, instances: [], keptDisks: [] });

  it("gathers them under a few, for the claim lists them and has an end", () => {
    expect(updatesOf(plan).length).toBeGreaterThan(100);
    expect(updatesOf(plan).length).toBeLessThan(150);
    expect(createsOf(plan)).toEqual([]);
  });

  it("leaves one whose spec cannot be read under its own: that makes the machine that is wanted", () => {
    const broken = vms.map((vm) => (vm.name === "web-97" ? { ...vm, spec: undefined } : vm));
    const next = planOf({ pool, vms: broken, revisions, ownRevisions: revisions, instances: [], keptDisks: [] });
    expect(updatesOf(plan).map(({ vm }) => vm.name)).toContain("web-97");
    expect(updatesOf(next)).toEqual(updatesOf(plan).filter(({ vm }) => vm.name !== "web-97"));
    expect(next.reasons.join()).not.toContain("cannot be read");
  });

  it("restarts nothing for it", () => {
    const target = updatesOf(plan)[0]?.revision ?? "";
    const gathered = vms.map((_, ordinal) => aVm(ordinal, { revision: target }));
    const instances = vms.map((vm, ordinal) =>
      anInstance(ordinal, { revision: vm.labels[REVISION_LABEL] ?? null, vmUid: aVmUid(ordinal) }),
    );
    const next = planOf({ pool, vms: gathered, revisions, ownRevisions: revisions, instances });
    expect(new Set(stepsOf(next))).toEqual(new Set(["labelInstance"]));
  });
});
