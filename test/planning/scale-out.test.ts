import { describe, expect, it } from "vitest";
import type { Instance, Vm } from "../../shared/planning/model.ts";
import { planPass } from "../../shared/planning/plan.ts";
import { planScaleOut } from "../../shared/planning/scale-out.ts";
import {
  aClaim,
  anInstance,
  anObservation,
  aPoolWith,
  aVm,
  NOW,
  OTHER_POOL_UID,
  someVms,
} from "../support/builders.ts";
import { ACTING, CLOSING, claimedOrdinals, createsOf, kindsOf, planOf } from "./plans.ts";

interface Case {
  readonly it: string;
  readonly replicas: unknown;
  readonly vms: readonly Vm[];
  readonly creates: readonly number[];
}

const FOREIGN = { pool: null, labels: { app: "database" }, revision: null, finalizers: [] } as const;

const CASES: readonly Case[] = [
  { it: "creates the first machines from ordinal 0", replicas: 3, vms: [], creates: [0, 1, 2] },
  { it: "creates nothing when nothing is missing", replicas: 2, vms: someVms(2), creates: [] },
  { it: "creates one machine when replicas is absent", replicas: undefined, vms: [], creates: [0] },
  { it: "creates one machine when replicas is null", replicas: null, vms: [], creates: [0] },
  { it: "creates nothing when no machine is wanted", replicas: 0, vms: [], creates: [] },
  { it: "fills gaps with the lowest free ordinals", replicas: 4, vms: [aVm(1), aVm(3)], creates: [0, 2] },
  { it: "goes on after the last ordinal when there is no gap", replicas: 5, vms: someVms(3), creates: [3, 4] },
  {
    it: "skips a name that a foreign machine has",
    replicas: 2,
    vms: [aVm(0, FOREIGN), aVm(1)],
    creates: [2],
  },
  {
    it: "skips a name that another pool's machine has",
    replicas: 1,
    vms: [aVm(0, { pool: OTHER_POOL_UID, labels: { app: "database" } })],
    creates: [1],
  },
  {
    it: "skips the name of a detached machine",
    replicas: 1,
    vms: [aVm(0, { pool: null, finalizers: [] })],
    creates: [1],
  },
  {
    it: "does not replace a terminating machine before it is gone",
    replicas: 2,
    vms: [aVm(0, { terminating: true }), aVm(1)],
    creates: [],
  },
  {
    it: "creates only what is missing beside terminating machines",
    replicas: 3,
    vms: [aVm(0, { terminating: true }), aVm(1)],
    creates: [2],
  },
  {
    it: "uses a name again when its machine is gone",
    replicas: 2,
    vms: [aVm(1)],
    creates: [0],
  },
  {
    it: "does not take a name with leading zeros for an ordinal",
    replicas: 1,
    vms: [aVm(0, { ...FOREIGN, name: "web-00" })],
    creates: [0],
  },
  {
    it: "does not take the machine of a pool with a longer name for its own ordinal",
    replicas: 1,
    vms: [aVm(0, { ...FOREIGN, name: "web-blue-0" })],
    creates: [0],
  },
  {
    it: "counts a machine of a name that it would not give",
    replicas: 2,
    vms: [aVm(7, { name: "renamed" })],
    creates: [0],
  },
];

describe("scale out", () => {
  for (const { it: name, replicas, vms, creates } of CASES) {
    it(name, () => {
      const plan = planOf({ pool: aPoolWith({ replicas }), vms });
      expect(createsOf(plan)).toEqual(creates);
    });
  }

  describe("beside an instance that no machine controls", () => {
    const loose = (ordinal: number, fields: Partial<Instance> = {}): Instance => {
      return { ...anInstance(ordinal), vmUid: undefined, ...fields };
    };
    const beside = (...looseInstances: readonly Instance[]) =>
      planOf({ pool: aPoolWith({ replicas: 2 }), looseInstances });

    it("leaves its ordinal out, for a new machine would take the guest over, and says so", () => {
      const plan = beside(loose(0), loose(7));
      expect(createsOf(plan)).toEqual([1, 2]);
      expect(plan.announcements).toMatchObject([
        {
          type: "Warning",
          reason: "InstanceLeftBehind",
          message: expect.stringMatching(/^ordinal 0 .*instance web-0/),
        },
      ]);
    });

    it("says so in the order of the ordinals, of those below the last machine that is made", () => {
      const others = [loose(3), loose(0, { name: "web-blue-0" }), loose(9), loose(1)];
      const { announcements } = planOf({ pool: aPoolWith({ replicas: 3 }), looseInstances: others });
      expect(announcements.map(({ message }) => message.slice(0, 9))).toEqual(["ordinal 1", "ordinal 3"]);
    });

    it("uses the ordinal when the instance is on its way out", () => {
      const plan = beside(loose(0, { terminating: true }));
      expect([createsOf(plan), plan.announcements]).toEqual([[0, 1], []]);
    });

    it("uses the ordinal when the instance has another name than the pool would give", () => {
      expect(createsOf(beside(loose(0, { name: "web-blue-0" })))).toEqual([0, 1]);
    });

    it("asks for those before a machine is made, and only then", () => {
      const unread = { looseInstances: undefined } as const;
      expect(planOf({ pool: aPoolWith({ replicas: 1 }), ...unread }).needs).toEqual([{ read: "looseInstances" }]);
      expect(planOf({ pool: aPoolWith({ replicas: 1 }), vms: someVms(1), ...unread }).needs).toEqual([]);
    });
  });

  it("creates no more machines than are missing, however many ordinals go first", () => {
    const input = { owned: someVms(2), taken: new Set([0, 1]), unfinished: new Map<number, number>(), createsMax: 250 };
    expect(planScaleOut({ ...input, replicas: 3, preferred: [5, 7, 9] }).create).toEqual([5]);
    expect(planScaleOut({ ...input, replicas: 2, preferred: [5, 7, 9] }).create).toEqual([]);
    expect(planScaleOut({ ...input, replicas: 3, preferred: [1, 7] }).create).toEqual([7]);
  });

  it("creates at most 250 machines in one loop, the lowest first", () => {
    const creates = createsOf(planOf({ pool: aPoolWith({ replicas: 1_000 }), vms: [aVm(3)] }));
    expect(creates).toHaveLength(250);
    expect(creates.slice(0, 5)).toEqual([0, 1, 2, 4, 5]);
    expect(creates.at(-1)).toBe(250);
  });

  it("claims exactly what it creates, at the time of the read, before it creates", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 2 }) });
    expect(kindsOf(plan)).toEqual(["writeClaim", "createRevision", "createVm", "createVm"]);
    expect(claimedOrdinals(plan)).toEqual([0, 1]);
    expect(plan.actions[0]).toMatchObject({
      items: {
        create: new Map([
          [0, NOW],
          [1, NOW],
        ]),
        delete: [],
      },
    });
  });

  it("says how many machines are missing", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 2 }), vms: [aVm(0)] });
    expect(plan.actions.at(-1)).toMatchObject({ kind: "createVm", ordinal: 1, why: "1 machine is missing" });
    const more = planOf({ pool: aPoolWith({ replicas: 3 }), vms: [aVm(0)] });
    expect(more.actions.at(-1)).toMatchObject({ kind: "createVm", ordinal: 2, why: "2 machines are missing" });
  });

  it("asks for the names of the namespace and the revision before it creates", () => {
    const seen = anObservation({ pool: aPoolWith({ replicas: 1 }), narrow: true, revision: undefined });
    expect(planPass(seen, ACTING)).toMatchObject({
      needs: [{ read: "namespaceVms" }, { read: "revisions", names: ["web-1"] }],
      actions: [],
    });
  });

  it("asks only for the revision when the names are known", () => {
    const seen = anObservation({ pool: aPoolWith({ replicas: 1 }), revision: undefined });
    expect(planPass(seen, ACTING)).toMatchObject({ needs: [{ read: "revisions" }], actions: [] });
  });

  it("asks for nothing when nothing is missing", () => {
    const pool = aPoolWith({ replicas: 2 });
    const plan = planOf({ pool, vms: someVms(2), narrow: true, revision: undefined });
    expect(plan).toMatchObject({ needs: [], actions: [] });
  });

  it("counts a machine that only the second list has seen", () => {
    const seen = anObservation({ pool: aPoolWith({ replicas: 2 }), vms: someVms(2) });
    const plan = planPass({ ...seen, selected: seen.selected.slice(0, 1) }, ACTING);
    expect(createsOf(plan)).toEqual([]);
  });

  it("replaces nothing while a relabelled machine is still bound to the pool", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 2 }), vms: [aVm(0), aVm(1, { labels: { app: "gone" } })] });
    expect(kindsOf(plan)).toEqual(["releaseVm"]);
  });

  it("puts its finalizer on the pool with the first claim", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }, { finalizers: [], claim: null }) });
    expect(plan.actions[0]).toMatchObject({ kind: "writeClaim", addFinalizer: true });
  });

  it("creates and deletes nothing when the limits are 0, and closes the claim", () => {
    const claim = aClaim({ generation: 4 });
    const pool = aPoolWith({ replicas: 5 }, { claim, generation: 5 });
    const plan = planOf({ pool, vms: someVms(2), narrow: true, revision: undefined }, CLOSING);
    expect(plan.needs).toEqual([]);
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
  });
});
