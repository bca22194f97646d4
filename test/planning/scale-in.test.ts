import { describe, expect, it } from "vitest";
import type { Vm } from "../../shared/planning/model.ts";
import { rankForScaleIn } from "../../shared/planning/scale-in.ts";
import { aPool, aPoolWith, aVm, type Json, someVms } from "../support/builders.ts";
import { claimIn, deletesOf, kindsOf, planOf } from "./plans.ts";

const pool = (replicas: number, spec: Json = {}) => aPoolWith({ replicas, ...spec });

interface Case {
  readonly it: string;
  readonly replicas: number;
  readonly vms: readonly Vm[];
  readonly deletes: number;
}

const CASES: readonly Case[] = [
  { it: "deletes the surplus", replicas: 1, vms: someVms(4), deletes: 3 },
  { it: "deletes all machines when none is wanted", replicas: 0, vms: someVms(3), deletes: 3 },
  { it: "deletes nothing when the count is right", replicas: 3, vms: someVms(3), deletes: 0 },
  {
    it: "deletes nothing when only terminating machines are too many",
    replicas: 2,
    vms: [aVm(0, { terminating: true }), aVm(1, { terminating: true }), aVm(2), aVm(3)],
    deletes: 0,
  },
  {
    it: "counts only live machines against the size",
    replicas: 2,
    vms: [aVm(0, { terminating: true }), aVm(1), aVm(2), aVm(3)],
    deletes: 1,
  },
  {
    it: "deletes nothing when four of five machines are terminating and two are wanted",
    replicas: 2,
    vms: [...someVms(4, { terminating: true }), aVm(4)],
    deletes: 0,
  },
  {
    it: "does not count machines of another pool that the selector matches",
    replicas: 2,
    vms: [aVm(0), aVm(1), aVm(0, { name: "other-0", uid: "other", pool: "other-uid" })],
    deletes: 0,
  },
];

describe("scale in", () => {
  for (const { it: name, replicas, vms, deletes } of CASES) {
    it(name, () => expect(deletesOf(planOf({ pool: pool(replicas), vms }))).toHaveLength(deletes));
  }

  it("deletes at most 250 machines in one loop", () => {
    const plan = planOf({ pool: pool(0), vms: someVms(600) });
    expect(deletesOf(plan)).toHaveLength(250);
    expect(claimIn(plan)?.delete).toHaveLength(250);
  });

  it("keeps a ready machine when an unready one can go", () => {
    for (const unready of [0, 1, 2, 3]) {
      const vms = someVms(4).map((vm) => ({ ...vm, ready: vm.ordinal !== unready }));
      expect(deletesOf(planOf({ pool: pool(3), vms }))).toEqual([`web-${unready}`]);
    }
  });

  it("says that a machine goes because it is not ready", () => {
    const plan = planOf({ pool: pool(1), vms: [aVm(0), aVm(1, { ready: false })] });
    expect(plan.actions.at(-1)).toMatchObject({ why: expect.stringContaining("not ready") });
  });

  it("names the UID and the version that it read, so that a successor of the name is safe", () => {
    const [target] = planOf({ pool: pool(0), vms: [aVm(5)] }).actions.filter(({ kind }) => kind === "deleteVm");
    expect(target).toMatchObject({ vm: { uid: aVm(5).uid, resourceVersion: "1005" } });
  });

  it("chooses the same machines whatever the order of the list", () => {
    const vms = someVms(9);
    const chosen = deletesOf(planOf({ pool: pool(4), vms }));
    expect(deletesOf(planOf({ pool: pool(4), vms: vms.toReversed() }))).toEqual(chosen);
    expect(deletesOf(planOf({ pool: pool(4), vms: [...vms.slice(5), ...vms.slice(0, 5)] }))).toEqual(chosen);
  });

  it("goes on with the same choice in the next pass when the first delete has landed", () => {
    const vms = someVms(9);
    const [first, ...rest] = deletesOf(planOf({ pool: pool(4), vms }));
    const later = vms.map((vm) => ({ ...vm, terminating: vm.name === first }));
    expect(deletesOf(planOf({ pool: pool(4), vms: later }))).toEqual(rest);
  });

  it("chooses among many pools every machine about as often", () => {
    const vms = someVms(4);
    const counts = new Map(vms.map(({ name }) => [name, 0]));
    for (let index = 0; index < 2_000; index += 1) {
      const [victim] = rankForScaleIn(aPool({ uid: `pool-${index}` }), vms);
      if (victim !== undefined) counts.set(victim.name, (counts.get(victim.name) ?? 0) + 1);
    }
    for (const count of counts.values()) expect(count).toBeGreaterThan(400);
  });

  it("chooses among machines of every generation about as often", () => {
    const firsts = Array.from({ length: 1_000 }, (_, index) =>
      rankForScaleIn(
        aPool(),
        someVms(2).map((vm) => ({ ...vm, uid: `${vm.uid}-${index}` })),
      ),
    ).filter(([first]) => first?.ordinal === 0);
    expect(firsts.length).toBeGreaterThan(400);
    expect(firsts.length).toBeLessThan(600);
  });

  it("breaks ties of the hash by name and then UID", () => {
    const twins = [aVm(1, { uid: "same" }), aVm(0, { uid: "same" })];
    expect(rankForScaleIn(aPool(), twins).map(({ name }) => name)).toEqual(["web-0", "web-1"]);
  });
});

const HOLDS: readonly { readonly it: string; readonly strategy: Json; readonly says: string }[] = [
  { it: "unmanaged scale in", strategy: { unmanaged: {} }, says: "unmanaged" },
  { it: "opportunistic scale in", strategy: { opportunistic: {} }, says: "opportunistic" },
  {
    it: "a sort policy that is not supported",
    strategy: { proactive: { selectionPolicy: { sortPolicy: "Oldest" } } },
    says: "sortPolicy Oldest",
  },
  {
    it: "selectors that are not supported",
    strategy: { proactive: { selectionPolicy: { selectors: { labelSelector: { matchLabels: { a: "b" } } } } } },
    says: "selectionPolicy.selectors",
  },
];

describe("scale in that is not ours to do", () => {
  for (const { it: name, strategy, says } of HOLDS) {
    it(`deletes nothing with ${name}, and says why`, () => {
      const plan = planOf({ pool: pool(1, { scaleInStrategy: strategy }), vms: someVms(3) });
      expect(plan.actions).toEqual([]);
      expect(plan.reasons.join()).toContain("2 machines too many");
      expect(plan.reasons.join()).toContain(says);
    });

    it(`still scales out with ${name}`, () => {
      const plan = planOf({ pool: pool(2, { scaleInStrategy: strategy }), vms: someVms(1) });
      expect(kindsOf(plan)).toContain("createVm");
    });
  }

  const MANAGED: readonly Json[] = [
    {},
    { proactive: {} },
    { proactive: { selectionPolicy: {} } },
    { proactive: { selectionPolicy: { sortPolicy: "Random" }, statePreservation: "Disabled" } },
    { unmanaged: null, opportunistic: null },
  ];
  for (const scaleInStrategy of MANAGED) {
    it(`deletes the surplus with ${JSON.stringify(scaleInStrategy)}`, () => {
      expect(deletesOf(planOf({ pool: pool(1, { scaleInStrategy }), vms: someVms(3) }))).toHaveLength(2);
    });
  }
});
