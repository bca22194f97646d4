/** Which machines are replaced because they cannot start, when, and how many at once. */
import { describe, expect, it } from "vitest";
import type { Claim } from "../../shared/planning/claim.ts";
import type { Instance, Vm } from "../../shared/planning/model.ts";
import { HEALING_ANNOTATION, UPDATED_ANNOTATION } from "../../shared/planning/names.ts";
import { type Action, type Plan, planPass } from "../../shared/planning/plan.ts";
import { resyncCause } from "../../shared/planning/schedule.ts";
import {
  aClaim,
  anInstance,
  anObservation,
  aPool,
  aPoolWith,
  aRevision,
  aRollout,
  aSpec,
  aVm,
  aVmSpec,
  aVmUid,
  type Json,
  LABELS,
  NOW,
  someVms,
  type VmOverrides,
} from "../support/builders.ts";
import { RESTARTS } from "../support/changed-pools.ts";
import { ACTING, CLOSING, claimIn, createsOf, deletesOf, kindsOf, namesOf } from "./plans.ts";

const MINUTE_MS = 60_000;
const at = (ms: number) => new Date(ms).toISOString();
/** Two more than the default threshold. */
const CRASHING: VmOverrides = { ready: false, failures: 5, shown: "CrashLoopBackOff" };

interface Sight {
  readonly vms?: readonly Vm[];
  readonly spec?: Json;
  /** What was done so far: ordinal to how often and how long ago. */
  readonly memory?: Readonly<Record<number, { count: number; agoMs: number; stuck?: boolean }>> | string;
  /** Of the machines that are not given one there is none. */
  readonly instances?: readonly Instance[];
  /** UIDs of machines whose deletion was claimed. */
  readonly claimed?: readonly string[];
  readonly isClosing?: boolean;
}

function sight({ vms = [aVm(0, CRASHING)], spec, memory, instances = [], claimed = [], isClosing = false }: Sight) {
  const text = typeof memory === "string" ? memory : memory && memoryText(memory);
  const annotations = text === undefined ? {} : { [HEALING_ANNOTATION]: text };
  const full = aSpec({ replicas: vms.length, autohealing: {}, ...spec });
  const deletes = claimed.map((uid) => ({ ordinal: undefined, uidPrefix: uid.slice(0, 8) }));
  const pool = aPool({ spec: full, annotations, claim: aClaim({ delete: deletes, rollout: aRollout(full, "web-1") }) });
  const limits = isClosing ? CLOSING : ACTING;
  return { pool, plan: planPass(anObservation({ pool, vms, instances, ownRevisions: [] }), limits) };
}

function memoryText(memory: Exclude<Sight["memory"], string | undefined>): string {
  const entries = Object.entries(memory).map(([ordinal, { count, agoMs, stuck }]) => {
    return [ordinal, { at: at(NOW - agoMs), count, ...(stuck ? { stuck } : {}) }] as const;
  });
  return JSON.stringify(Object.fromEntries(entries));
}

const planOf = (input: Sight): Plan => sight(input).plan;

/** What the pool remembers after the plan: null when nothing, undefined when as before. */
function memoryIn(plan: Plan): unknown {
  const claim = plan.actions.find(
    (action): action is Extract<Action, { kind: "writeClaim" }> => action.kind === "writeClaim",
  );
  return typeof claim?.healing === "string" ? JSON.parse(claim.healing) : claim?.healing;
}

const reasonsOf = ({ announcements }: Plan) => announcements.map(({ reason }) => reason);
const crashing = (count: number) => someVms(count, CRASHING);
/** The disks of machines outlive them. */
const KEEPING = {
  scaleInStrategy: { proactive: { statePreservation: "Offline" } },
  virtualMachineTemplate: {
    metadata: { labels: { app: "web" } },
    spec: {
      runStrategy: "Always",
      dataVolumeTemplates: [{ metadata: { name: "data" }, spec: {} }],
      template: { spec: {} },
    },
  },
} as const;

interface Case {
  readonly it: string;
  readonly vm: VmOverrides;
  readonly spec?: Json;
  readonly instance?: Instance;
  readonly heals: boolean;
}

const lasting = (shown: string, readyChanged: string | null): VmOverrides => ({ ready: false, shown, readyChanged });
const after = (duration: unknown, failures: unknown = 3) => ({
  autohealing: { startUpFailureThreshold: failures, minFailingToStartDuration: duration },
});
const FIVE_MINUTES_AGO = at(NOW - 5 * MINUTE_MS);
const CASES: readonly Case[] = [
  { it: "heals after three failures in a row, unless told otherwise", vm: { ready: false, failures: 3 }, heals: true },
  { it: "leaves one that failed twice", vm: { ready: false, failures: 2 }, heals: false },
  { it: "takes another threshold", vm: { ready: false, failures: 2 }, spec: after(null, 2), heals: true },
  { it: "waits for a higher threshold", vm: { ready: false, failures: 4 }, spec: after(null, 5), heals: false },
  ...[
    "CrashLoopBackOff",
    "ErrorUnschedulable",
    "DataVolumeError",
    "ErrorPvcNotFound",
    "ErrImagePull",
    "ImagePullBackOff",
  ].map((shown) => ({
    it: `heals what shows ${shown} for five minutes`,
    vm: lasting(shown, FIVE_MINUTES_AGO),
    heals: true,
  })),
  { it: "leaves what shows it for less", vm: lasting("ErrImagePull", at(NOW - 299_000)), heals: false },
  { it: "takes another duration", vm: lasting("ErrImagePull", at(NOW - 90_000)), spec: after("1m30s"), heals: true },
  {
    it: "leaves what is there for less, though KubeVirt's clock says otherwise",
    vm: { ...lasting("ErrorPvcNotFound", FIVE_MINUTES_AGO), created: at(NOW - 299_000) },
    heals: false,
  },
  {
    it: "heals what is there for five minutes and shows it since then",
    vm: { ...lasting("ErrorPvcNotFound", at(NOW - 10 * MINUTE_MS)), created: FIVE_MINUTES_AGO },
    heals: true,
  },
  { it: "leaves what shows another status", vm: lasting("Provisioning", at(NOW - 60 * MINUTE_MS)), heals: false },
  { it: "leaves one that does not say since when (D08)", vm: lasting("ErrorUnschedulable", null), heals: false },
  { it: "leaves one that is ready whatever it shows", vm: { ready: true, shown: "CrashLoopBackOff" }, heals: false },
  {
    it: "leaves one that its user has switched off",
    vm: { ...CRASHING, spec: aVmSpec("web-1", { runStrategy: "Halted" }) },
    heals: false,
  },
  {
    it: "leaves one that its user has switched off in the old way",
    vm: { ...CRASHING, spec: aVmSpec("web-1", { runStrategy: undefined, running: false }) },
    heals: false,
  },
  { it: "leaves one of unreadable spec", vm: { ...CRASHING, spec: null }, heals: false },
  { it: "leaves one whose name has no number of the pool", vm: { ...CRASHING, name: "renamed" }, heals: false },
  { it: "leaves one that its user has stopped", vm: { ...CRASHING, shown: "Stopped" }, heals: false },
  { it: "leaves one that is asked to stop or to start", vm: { ...CRASHING, requested: true }, heals: false },
  {
    it: "leaves one whose readiness is not known",
    vm: { ready: null, shown: "ErrorUnschedulable", readyChanged: at(NOW - 60 * MINUTE_MS) },
    heals: false,
  },
  {
    it: "leaves one that has only just got another template, which may be the cure",
    vm: { ...CRASHING, annotations: { [UPDATED_ANNOTATION]: at(NOW - 59_000) } },
    heals: false,
  },
  {
    it: "heals one that another template did not help",
    vm: { ...CRASHING, annotations: { [UPDATED_ANNOTATION]: at(NOW - 60_000) } },
    heals: true,
  },
  { it: "leaves one that is on its way out", vm: { ...CRASHING, terminating: true }, heals: false },
  { it: "leaves one whose guest runs again", vm: CRASHING, instance: anInstance(0), heals: false },
  {
    it: "leaves one whose guest begins to boot",
    vm: CRASHING,
    instance: anInstance(0, { ready: false, created: at(NOW - 9_000) }),
    heals: false,
  },
  {
    it: "heals one whose guest does not get further",
    vm: CRASHING,
    instance: anInstance(0, { ready: false, created: at(NOW - 10_000) }),
    heals: true,
  },
  { it: "heals nothing when it is not asked to", vm: CRASHING, spec: { autohealing: null }, heals: false },
  { it: "heals nothing while the pool is paused (D01)", vm: CRASHING, spec: { paused: true }, heals: false },
  ...(["unmanaged", "opportunistic"] as const).map((strategy) => ({
    it: `heals also when scale-in is ${strategy}`,
    vm: CRASHING,
    spec: { scaleInStrategy: { [strategy]: {} } },
    heals: true,
  })),
  {
    it: "heals also when updates are unmanaged",
    vm: CRASHING,
    spec: { updateStrategy: { unmanaged: {} } },
    heals: true,
  },
];

describe("a machine that cannot start", () => {
  it.each(CASES)("$it", ({ vm, spec = {}, instance, heals }) => {
    const plan = planOf({ vms: [aVm(0, vm)], spec, instances: instance === undefined ? [] : [instance] });
    expect(deletesOf(plan)).toEqual(heals ? ["web-0"] : []);
  });

  it("is left when its label forbids to delete it, and the pass says so", () => {
    const labels = { ...LABELS, "kubevirt.io/vm-delete-protection": "True" };
    const plan = planOf({ vms: [aVm(0, { ...CRASHING, labels })] });
    expect(kindsOf(plan)).toEqual([]);
    expect(plan.reasons).toEqual([
      "1 machines that cannot start are kept by their label kubevirt.io/vm-delete-protection",
    ]);
  });

  it("is deleted under the claim, which remembers it, and its successor is left to scale-out", () => {
    const plan = planOf({});
    expect(kindsOf(plan)).toEqual(["writeClaim", "deleteVm"]);
    expect(claimIn(plan)?.delete).toHaveLength(1);
    expect(memoryIn(plan)).toEqual({ "0": { at: at(NOW), count: 1 } });
    expect(plan.actions[1]).toMatchObject({ successor: "web-1", complaint: "it failed to start 5 times in a row" });
    expect(plan.reasons).toEqual([]);
  });

  it("says how often it failed, in a row or once", () => {
    const once = planOf({ vms: [aVm(0, { ready: false, failures: 1 })], spec: after(null, 1) });
    expect(once.actions[1]).toMatchObject({ complaint: "it failed to start" });
  });

  it("of another owner, or of nobody, is none of the pool's (D01)", () => {
    const free = { ...CRASHING, finalizers: [] };
    const strangers = [aVm(1, { ...free, pool: null }), aVm(2, { ...free, pool: "another-uid" })];
    const plan = planOf({ vms: [aVm(0), ...strangers], spec: { replicas: 1 } });
    expect([plan.needs, plan.actions]).toEqual([[], []]);
  });

  it("costs no look at instances before it is due", () => {
    const vms = [aVm(0, { ready: false, failures: 2 }), aVm(1)];
    const pool = aPoolWith({ replicas: 2, autohealing: {} });
    expect(planPass(anObservation({ pool, vms }), ACTING).needs).toEqual([]);
    const due = anObservation({ pool, vms: [aVm(0, CRASHING), aVm(1)] });
    expect(planPass(due, ACTING).needs).toEqual([{ read: "instances" }]);
  });

  it("is not healed when there are too many machines and it goes for that", () => {
    const plan = planOf({ vms: [aVm(0, CRASHING), aVm(1)], spec: { replicas: 1 } });
    expect(deletesOf(plan)).toEqual(["web-0"]);
    expect([memoryIn(plan), reasonsOf(plan)]).toEqual([undefined, []]);
  });

  it("is waited for without a word to its owner when the pass closes", () => {
    const vms = [aVm(0, { terminating: true, finalizers: [] }), aVm(1, CRASHING), aVm(2, CRASHING)];
    const plan = planOf({ vms, isClosing: true });
    expect([kindsOf(plan), reasonsOf(plan)]).toEqual([[], []]);
  });

  it("is not begun when the pass closes", () => {
    const plan = planOf({ isClosing: true });
    expect([deletesOf(plan), memoryIn(plan), reasonsOf(plan)]).toEqual([[], undefined, []]);
  });

  it.each([{ unmanaged: {} }, { opportunistic: {} }])(
    "is not healed while too many are left to %j",
    (scaleInStrategy) => {
      const plan = planOf({ vms: [aVm(0, CRASHING), ...someVms(5).slice(1)], spec: { replicas: 2, scaleInStrategy } });
      expect(deletesOf(plan)).toEqual([]);
      expect(plan.reasons).toContain("1 machines cannot start: none is healed while there are too many");
    },
  );

  const inOrder = { scaleInStrategy: { proactive: { selectionPolicy: { sortPolicy: "AscendingOrder" } } } } as const;
  const oneTooMany = { vms: [aVm(0), aVm(1), aVm(2, CRASHING)], spec: { replicas: 2, ...inOrder } };

  it("is healed beside another that goes because there are too many", () => {
    expect(deletesOf(planOf(oneTooMany))).toEqual(["web-0", "web-2"]);
  });

  it("waits when those that are too many use up what one loop may delete", () => {
    const { pool } = sight(oneTooMany);
    const seen = anObservation({ pool, vms: oneTooMany.vms, instances: [], ownRevisions: [] });
    expect(deletesOf(planPass(seen, { ...ACTING, deletesMax: 1 }))).toEqual(["web-0"]);
    expect(deletesOf(planPass(seen, { ...ACTING, deletesMax: 2 }))).toEqual(["web-0", "web-2"]);
  });

  it("has its place in a claim that holds no more than it may, however many go", () => {
    const vms = [...someVms(400), ...Array.from({ length: 600 }, (_, index) => aVm(400 + index, CRASHING))];
    const { pool } = sight({ vms, spec: { replicas: 600, ...inOrder } });
    const seen = anObservation({ pool, vms, instances: [], ownRevisions: [] });
    expect(claimIn(planPass(seen, { ...ACTING, deletesMax: 1_000 }))?.delete).toHaveLength(500);
  });

  it("is not healed when no machine can be made in its stead", () => {
    const name = "w".repeat(60);
    const spec = aSpec({ replicas: 1, autohealing: {} });
    const pool = aPool({ name, spec, claim: aClaim({ rollout: undefined }) });
    const plan = planPass(
      anObservation({
        pool,
        vms: [aVm(0, { ...CRASHING, poolName: name })],
        revision: aRevision({ name: `${name}-1`, owner: "earlier-uid" }),
        instances: [],
        ownRevisions: [],
      }),
      ACTING,
    );
    expect(deletesOf(plan)).toEqual([]);
    expect(plan.reasons).toContain("1 machines cannot start: none can be made in their stead");
  });

  it.each<[string, Partial<Claim>, string]>([
    ["the one that it names, of machines that all have the template", {}, "web-1"],
    ["the one in force, of a template that is rolled out", { rollout: undefined }, "web-3"],
  ])("has a successor of %s", (_what, claim, successor) => {
    const spec = aSpec({ replicas: 1, autohealing: {}, virtualMachineTemplate: RESTARTS });
    const rollout = aRollout(spec, "web-1");
    const pool = aPool({ generation: 3, spec, claim: aClaim({ generation: 3, rollout, ...claim }) });
    const seen = anObservation({ pool, vms: [aVm(0, CRASHING)], revisions: [aRevision()], instances: [] });
    expect(planPass(seen, ACTING).actions.find(({ kind }) => kind === "deleteVm")).toMatchObject({ successor });
  });

  it("has its number for its successor, and not the lowest one", () => {
    const vms = [3, 5].map((ordinal) => aVm(ordinal));
    const plan = planOf({ vms, spec: { replicas: 4 }, memory: { 7: { count: 1, agoMs: 1_000 } } });
    expect(createsOf(plan)).toEqual([0, 7]);
    const waiting = planOf({ vms, spec: { replicas: 4 }, memory: { 7: { count: 0, agoMs: 1_000 } } });
    expect(createsOf(waiting)).toEqual([0, 1]);
    const off = { replicas: 4, autohealing: null };
    expect(createsOf(planOf({ vms, spec: off, memory: { 7: { count: 1, agoMs: 1_000 } } }))).toEqual([0, 1]);
  });

  it("is looked after by the schedule as long as it is not ready, without any event (D23)", () => {
    const { pool } = sight({});
    const shown = { ...pool, status: { replicas: 1, readyReplicas: 0 } };
    const ticks = Array.from({ length: 10 }, (_, minute) =>
      resyncCause(shown, NOW + minute * MINUTE_MS, { settledMinutes: 10, everything: false }),
    );
    expect(ticks).not.toContain(undefined);
  });
});

describe("a machine that was healed and fails again", () => {
  it.each([
    [1, 9_000, false],
    [1, 10_000, true],
    [2, 19_000, false],
    [2, 20_000, true],
    [5, 159_000, false],
    [5, 160_000, true],
    [7, 599_000, false],
    [7, 600_000, true],
    [1_000, 599_000, false],
    [1_000, 600_000, true],
  ])("after %d times and %d ms is healed again: %s (D24)", (count, agoMs, heals) => {
    const plan = planOf({ memory: { 0: { count, agoMs } } });
    expect(deletesOf(plan)).toEqual(heals ? ["web-0"] : []);
    expect(memoryIn(plan)).toEqual(heals ? { "0": { at: at(NOW), count: count + 1 } } : undefined);
  });

  it("says so while it waits", () => {
    const { reasons } = planOf({ memory: { 0: { count: 3, agoMs: 1_000 } } });
    expect(reasons).toEqual(["1 machines that cannot start are healed again after a pause"]);
  });

  it("is not deleted for a claim that was made for something else", () => {
    const young = aVm(0, { ...CRASHING, created: at(NOW - 1_000) });
    const plan = planOf({ vms: [young], memory: { 0: { count: 6, agoMs: 5_000 } }, claimed: [aVmUid(0)] });
    expect([deletesOf(plan), namesOf(plan, "revokeDelete")]).toEqual([[], ["web-0"]]);
  });

  it("is not counted twice when its deletion was claimed and did not get through", () => {
    const plan = planOf({ memory: { 0: { count: 1, agoMs: 1_000 } }, claimed: [aVmUid(0)] });
    expect([deletesOf(plan), namesOf(plan, "revokeDelete")]).toEqual([["web-0"], []]);
    expect([memoryIn(plan), reasonsOf(plan)]).toEqual([undefined, []]);
  });

  it("has its claimed deletion repeated first, however often others were healed", () => {
    const memory = { 2: { count: 6, agoMs: 1_000 } };
    expect(deletesOf(planOf({ vms: crashing(3), memory, claimed: [aVmUid(2)] }))).toEqual(["web-2"]);
  });

  it("has its claimed deletion repeated when it was decided as the machine was made", () => {
    const vms = [aVm(0, { ...CRASHING, created: at(NOW - 1_000) })];
    const plan = planOf({ vms, memory: { 0: { count: 1, agoMs: 1_000 } }, claimed: [aVmUid(0)] });
    expect([deletesOf(plan), memoryIn(plan)]).toEqual([["web-0"], undefined]);
  });

  it("is not deleted when the pass closes, though it was claimed", () => {
    const plan = planOf({ memory: { 0: { count: 1, agoMs: 1_000 } }, claimed: [aVmUid(0)], isClosing: true });
    expect([kindsOf(plan), namesOf(plan, "revokeDelete")]).toEqual([[], []]);
  });

  it.each([[undefined], [{ 0: { count: 0, agoMs: 1_000 } }]])(
    "is counted when its deletion was claimed for another reason (remembered: %j)",
    (memory) => {
      const plan = planOf({ ...(memory === undefined ? {} : { memory }), claimed: [aVmUid(0)] });
      expect([deletesOf(plan), memoryIn(plan)]).toEqual([["web-0"], { "0": { at: at(NOW), count: 1 } }]);
    },
  );

  it("has its claimed deletion revoked when it starts after all", () => {
    const plan = planOf({ vms: [aVm(0)], instances: [anInstance(0)], claimed: [aVmUid(0)] });
    expect([namesOf(plan, "revokeDelete"), deletesOf(plan)]).toEqual([["web-0"], []]);
  });

  it("has its claimed deletion revoked when the pool is paused", () => {
    const plan = planOf({ spec: { paused: true }, claimed: [aVmUid(0)] });
    expect([namesOf(plan, "revokeDelete"), deletesOf(plan)]).toEqual([["web-0"], []]);
  });
});

describe("what was done", () => {
  const healthy = (agoMs: number) => aVm(0, { readyChanged: at(NOW - agoMs) });

  it("is forgotten when the machine has run for as long as its pause", () => {
    const memory = { 0: { count: 3, agoMs: 10 * MINUTE_MS } };
    expect(memoryIn(planOf({ vms: [healthy(40_000)], memory }))).toBeNull();
    expect(memoryIn(planOf({ vms: [healthy(39_000)], memory }))).toBeUndefined();
  });

  it("is remembered while the machine is away", () => {
    const memory = { 1: { count: 1, agoMs: 60 * MINUTE_MS } };
    expect(memoryIn(planOf({ vms: [aVm(0)], spec: { replicas: 2 }, memory }))).toBeUndefined();
    const leaving = [aVm(0), aVm(1, { terminating: true })];
    expect(memoryIn(planOf({ vms: leaving, memory }))).toBeUndefined();
  });

  it("is forgotten when the pool has shrunk below it", () => {
    expect(memoryIn(planOf({ vms: [aVm(0)], memory: { 7: { count: 1, agoMs: 1_000 } } }))).toBeNull();
  });

  it("is forgotten when the pool does not heal any more", () => {
    const memory = { 0: { count: 1, agoMs: 1_000 } };
    expect(memoryIn(planOf({ memory, spec: { autohealing: null } }))).toBeNull();
  });

  it.each([
    "{",
    "[]",
    '{"0":{"count":-1,"at":"2026-11-22T09:00:00Z"}}',
    '{"x":{"count":1,"at":"2026-11-22T09:00:00Z"}}',
  ])("is begun anew when it cannot be read, with a pause for each (%s)", (memory) => {
    const plan = planOf({ memory });
    expect([deletesOf(plan), memoryIn(plan)]).toEqual([[], { "0": { at: at(NOW), count: 1 } }]);
    expect(plan.reasons).toContain(`annotation ${HEALING_ANNOTATION} is begun anew`);
  });

  it("counts for nothing where it is from the future, and goes", () => {
    const memory = { 0: { count: 2, agoMs: -60 * MINUTE_MS } };
    expect(deletesOf(planOf({ memory }))).toEqual(["web-0"]);
    expect(memoryIn(planOf({ vms: [aVm(0)], memory }))).toBeNull();
  });

  it("counts as long as it is no further ahead than servers' clocks may be apart", () => {
    expect(deletesOf(planOf({ memory: { 0: { count: 2, agoMs: -60_000 } } }))).toEqual([]);
    expect(deletesOf(planOf({ memory: { 0: { count: 2, agoMs: -60_001 } } }))).toEqual(["web-0"]);
  });

  it("is remembered of no more than 500 machines, and what is not remembered is not done", () => {
    expect(Object.keys(Object(memoryIn(planOf({ vms: crashing(600), memory: "{" }))))).toHaveLength(500);
    const stuck = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, n) => [n, { count: 1, agoMs: 1_000, stuck: true }]));
    expect(deletesOf(planOf({ vms: crashing(600), memory: stuck(499) }))).toEqual(["web-499"]);
    expect(deletesOf(planOf({ vms: crashing(600), memory: stuck(500) }))).toEqual([]);
  });

  it("keeps the pool on the schedule", () => {
    const { pool } = sight({ vms: [aVm(0)], memory: { 0: { count: 1, agoMs: 1_000 } } });
    const settled = { ...pool, status: { replicas: 1, readyReplicas: 1 } };
    const ticks = Array.from({ length: 10 }, (_, minute) =>
      resyncCause(settled, NOW + minute * MINUTE_MS, { settledMinutes: 10, everything: false }),
    );
    expect(ticks).not.toContain(undefined);
  });
});

describe("at the same time", () => {
  it("machines that are away count, whatever is remembered", () => {
    const vms = [...someVms(4, { terminating: true }), ...crashing(10).slice(4)];
    expect(deletesOf(planOf({ vms }))).toEqual([]);
  });

  it("the pool says once that others wait, and remembers to whom it has said so", () => {
    const plan = planOf({ vms: crashing(3), memory: { 0: { count: 1, agoMs: 1_000 } } });
    expect([deletesOf(plan), reasonsOf(plan)]).toEqual([[], ["HealingHeld"]]);
    const told = { count: 0, at: at(NOW) };
    expect(memoryIn(plan)).toEqual({ "0": { count: 1, at: at(NOW - 1_000) }, "1": told, "2": told });
    const waiting = { 0: { count: 1, agoMs: 2_000 }, 1: { count: 0, agoMs: 1_000 }, 2: { count: 0, agoMs: 1_000 } };
    const later = planOf({ vms: crashing(3), memory: waiting });
    expect([kindsOf(later), reasonsOf(later)]).toEqual([[], []]);
  });

  it("one that never comes up leaves its turn to others after a while", () => {
    const memory = { 0: { count: 5, agoMs: 100_000 }, 1: { count: 0, agoMs: 1_000 }, 2: { count: 0, agoMs: 1_000 } };
    expect(deletesOf(planOf({ vms: crashing(3), memory }))).toEqual(["web-1"]);
    const rested = { ...memory, 0: { count: 5, agoMs: 10 * MINUTE_MS } };
    expect(deletesOf(planOf({ vms: crashing(3), memory: rested }))).toEqual(["web-1"]);
  });

  it("those of one turn go in the order of their numbers", () => {
    expect(deletesOf(planOf({ vms: [aVm(10, CRASHING), aVm(2, CRASHING)] }))).toEqual(["web-2"]);
  });

  it.each([
    [4, 60 * MINUTE_MS, []],
    [5, 59_999, []],
    [5, 60_000, ["web-1"]],
  ])("one that was healed %d times and is not well %d ms later keeps others waiting or not", (count, agoMs, healed) => {
    const vms = [aVm(0, { ready: false }), aVm(1, CRASHING), aVm(2)];
    expect(deletesOf(planOf({ vms, memory: { 0: { count, agoMs } } }))).toEqual(healed);
  });

  it("one that only waits for its turn keeps nobody waiting", () => {
    const vms = [aVm(0, { ready: false }), aVm(1, CRASHING), aVm(2)];
    expect(deletesOf(planOf({ vms, memory: { 0: { count: 0, agoMs: 1_000 } } }))).toEqual(["web-1"]);
  });

  it("nothing is said of healing while there are too many machines and all are well", () => {
    const { reasons } = planOf({ vms: someVms(3), spec: { replicas: 1, scaleInStrategy: { unmanaged: {} } } });
    expect(reasons).toEqual(["2 machines too many: scale-in is unmanaged: surplus machines are left to their users"]);
  });

  it("one that its user has switched off holds nobody up", () => {
    const off = aVm(0, { ready: false, spec: aVmSpec("web-1", { runStrategy: "Halted" }) });
    const vms = [off, aVm(1, CRASHING), aVm(2)];
    expect(deletesOf(planOf({ vms, memory: { 0: { count: 1, agoMs: 60 * MINUTE_MS } } }))).toEqual(["web-1"]);
  });

  it.each([
    [1, 1],
    [2, 1],
    [4, 1],
    [5, 2],
    [10, 4],
    [100, 40],
  ])("of %d machines that cannot start %d are healed", (replicas, healed) => {
    const plan = planOf({ vms: crashing(replicas) });
    expect(deletesOf(plan)).toHaveLength(healed);
    const counts = Object.values(Object(memoryIn(plan))).map((entry) => Object(entry).count);
    expect([counts.length, counts.filter((count) => count === 1).length]).toEqual([replicas, healed]);
    expect(reasonsOf(plan)).toEqual(healed < replicas ? ["HealingHeld"] : []);
  });

  it("those that are not well yet count, wherever they are", () => {
    const vms = [
      ...[aVm(0, { terminating: true }), aVm(1, { ready: false }), aVm(2, CRASHING)],
      ...Array.from({ length: 6 }, (_, index) => aVm(index + 4, CRASHING)),
    ];
    const memory = Object.fromEntries([0, 1, 2, 3].map((ordinal) => [ordinal, { count: 1, agoMs: 1_000 }]));
    const plan = planOf({ vms, spec: { replicas: 10 }, memory });
    expect(deletesOf(plan)).toEqual([]);
    expect(plan.reasons.join()).toContain("no more than 4 of 10 machines are healed at once, and 6 more cannot start");
  });

  it("one that is in care may be healed again before others are", () => {
    const memory = Object.fromEntries([5, 6, 7, 8].map((ordinal) => [ordinal, { count: 1, agoMs: 11_000 }]));
    expect(deletesOf(planOf({ vms: crashing(10), memory }))).toEqual(["web-5", "web-6", "web-7", "web-8"]);
  });
});

describe("with disks that outlive their machines", () => {
  const vms = [aVm(0, CRASHING), aVm(1)];

  it("a machine is healed once", () => {
    expect(deletesOf(planOf({ vms, spec: KEEPING }))).toEqual(["web-0"]);
  });

  it("one that fails again on its kept disk is told of and left alone", () => {
    const plan = planOf({ vms, spec: KEEPING, memory: { 0: { count: 1, agoMs: 60 * MINUTE_MS } } });
    expect(deletesOf(plan)).toEqual([]);
    expect(memoryIn(plan)).toMatchObject({ "0": { count: 1, stuck: true } });
    expect(plan.announcements).toMatchObject([{ reason: "HealingFailed", message: expect.stringContaining("web-0") }]);
    const later = planOf({ vms, spec: KEEPING, memory: { 0: { count: 1, agoMs: 59 * MINUTE_MS, stuck: true } } });
    expect([deletesOf(later), memoryIn(later), reasonsOf(later)]).toEqual([[], undefined, []]);
    expect(later.reasons).toEqual(["the machine of ordinal 0 fails on its kept disk and is not healed again"]);
  });

  it.each<[string, Json]>([
    ["it has none", { scaleInStrategy: KEEPING.scaleInStrategy }],
    ["they go with it", { virtualMachineTemplate: KEEPING.virtualMachineTemplate }],
  ])("a machine is healed again and again where %s", (_what, spec) => {
    expect(deletesOf(planOf({ vms, spec, memory: { 0: { count: 1, agoMs: 60 * MINUTE_MS } } }))).toEqual(["web-0"]);
  });

  it("another machine of the number is not given up for the one before it", () => {
    const other = aVm(0, { ...CRASHING, created: at(NOW - MINUTE_MS) });
    const memory = { 0: { count: 1, agoMs: 60 * MINUTE_MS, stuck: true } };
    expect(deletesOf(planOf({ vms: [other, aVm(1)], spec: KEEPING, memory }))).toEqual(["web-0"]);
  });

  it("those that are given up do not keep others from being healed", () => {
    const memory = { 0: { count: 1, agoMs: 60 * MINUTE_MS, stuck: true } };
    expect(deletesOf(planOf({ vms: crashing(2), spec: KEEPING, memory }))).toEqual(["web-1"]);
  });
});
