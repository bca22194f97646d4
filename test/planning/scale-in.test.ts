import { describe, expect, it } from "vitest";
import type { Claim } from "../../shared/planning/claim.ts";
import type { Vm } from "../../shared/planning/model.ts";
import { planPass } from "../../shared/planning/plan.ts";
import { keepsDisks, planScaleIn, rankForScaleIn } from "../../shared/planning/scale-in.ts";
import {
  aClaim,
  anObservation,
  aPool,
  aPoolWith,
  aSpec,
  aVm,
  type Json,
  KUBEVIRT_FINALIZER,
  NOW,
  someVms,
} from "../support/builders.ts";
import { ACTING, claimIn, deletesOf, kindsOf, namesOf, planOf } from "./plans.ts";

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
    it: "deletes nothing when more machines are shutting down than are too many (D02)",
    replicas: 2,
    vms: [...someVms(4, { terminating: true }), aVm(4)],
    deletes: 0,
  },
  {
    it: "deletes nothing when more machines are shutting down than one loop may delete (D02)",
    replicas: 2,
    vms: [...someVms(300, { terminating: true }), aVm(300), aVm(301)],
    deletes: 0,
  },
  {
    it: "deletes the surplus though more machines are shutting down than one loop may delete (D02)",
    replicas: 2,
    vms: [...someVms(300, { terminating: true }), aVm(300), aVm(301), aVm(302)],
    deletes: 1,
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

  it("needs no other words than the reason of each deletion", () => {
    expect(planOf({ pool: pool(1), vms: someVms(4) }).reasons).toEqual([]);
  });

  it("of a paused pool is held by the pause, whatever the strategy", () => {
    const plan = planOf({ pool: pool(1, { paused: true, scaleInStrategy: { unmanaged: {} } }), vms: someVms(4) });
    expect(plan.reasons).toEqual(["paused: 4 machines are left as they are, 1 are wanted"]);
  });

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
    it: "opportunistic scale in that keeps disks",
    strategy: { opportunistic: { statePreservation: "Offline" } },
    says: "opportunistic",
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

    // Were the size what the pass waits for, nothing that comes after scaling would ever be done.
    it(`is finished with the pool's new generation with ${name}, too many machines or not (D21)`, () => {
      const spec = { replicas: 1, scaleInStrategy: strategy, updateStrategy: { unmanaged: {} } };
      const changed = aPoolWith(spec, { generation: 2, claim: aClaim() });
      const plan = planOf({ pool: changed, vms: someVms(3) });
      expect(plan).toMatchObject({ needs: [], actions: [{ kind: "writeClaim", items: { delete: [] } }] });
      expect(planOf({ pool: aPoolWith(spec, { generation: 2 }), vms: someVms(3) })).toMatchObject({
        needs: [],
        actions: [],
      });
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
    { proactive: { selectionPolicy: { sortPolicy: null, selectors: null } } },
    { proactive: { selectionPolicy: { sortPolicy: "Newest", selectors: {} } } },
    { proactive: { statePreservation: "Offline" } },
    { proactive: { statePreservation: "Online" } },
    { unmanaged: null, opportunistic: null },
  ];
  for (const scaleInStrategy of MANAGED) {
    it(`deletes the surplus with ${JSON.stringify(scaleInStrategy)}`, () => {
      expect(deletesOf(planOf({ pool: pool(1, { scaleInStrategy }), vms: someVms(3) }))).toHaveLength(2);
    });
  }
});

const proactive = (selectionPolicy: Json) => ({ scaleInStrategy: { proactive: { selectionPolicy } } });
const TIER = { labelSelector: { matchLabels: { tier: "spare" } } };
/** Machines of which those of these ordinals are spare, by the labels of their instance template. */
const withSpares = (count: number, ...spares: readonly number[]) =>
  Array.from({ length: count }, (_, ordinal) => {
    const labels = spares.includes(ordinal) ? { tier: "spare" } : {};
    return aVm(ordinal, { spec: { template: { metadata: { labels } } } });
  });

const aged = [
  aVm(0, { created: "2026-11-22T09:03:00Z" }),
  aVm(1, { created: "2026-11-22T09:01:00Z" }),
  aVm(2, { created: "2026-11-22T09:04:00Z" }),
  aVm(3, { created: "2026-11-22T09:02:00Z" }),
];
const POLICIES: readonly { readonly sortPolicy: string; readonly deletes: readonly string[] }[] = [
  { sortPolicy: "AscendingOrder", deletes: ["web-0", "web-1"] },
  { sortPolicy: "DescendingOrder", deletes: ["web-3", "web-2"] },
  { sortPolicy: "Newest", deletes: ["web-2", "web-0"] },
  { sortPolicy: "Oldest", deletes: ["web-1", "web-3"] },
];

describe("scale in by a sort policy", () => {
  for (const { sortPolicy, deletes } of POLICIES) {
    it(`deletes the first of ${sortPolicy}`, () => {
      expect(deletesOf(planOf({ pool: pool(2, proactive({ sortPolicy })), vms: aged }))).toEqual(deletes);
    });

    it(`keeps to ${sortPolicy} though others are not ready`, () => {
      const vms = aged.map((vm) => ({ ...vm, ready: deletes.includes(vm.name) }));
      expect(deletesOf(planOf({ pool: pool(2, proactive({ sortPolicy })), vms }))).toEqual(deletes);
    });

    it(`chooses the same of ${sortPolicy} whatever the order of the list (D37)`, () => {
      const vms = someVms(9);
      const of = (list: readonly Vm[]) => deletesOf(planOf({ pool: pool(4, proactive({ sortPolicy })), vms: list }));
      expect(of(vms.toReversed())).toEqual(of(vms));
      expect(of([...vms.slice(5), ...vms.slice(0, 5)])).toEqual(of(vms));
    });
  }
});

interface SelectorCase {
  readonly it: string;
  readonly replicas: number;
  readonly vms: readonly Vm[];
  readonly deletes: readonly string[];
}

const SELECTOR_CASES: readonly SelectorCase[] = [
  {
    it: "deletes what matches, in the order of the policy",
    replicas: 3,
    vms: withSpares(5, 1, 3),
    deletes: ["web-3", "web-1"],
  },
  {
    it: "deletes no more than are too many, of those that match",
    replicas: 4,
    vms: withSpares(5, 1, 3),
    deletes: ["web-3"],
  },
  {
    it: "deletes nothing when none matches of three that are too many (D03)",
    replicas: 2,
    vms: withSpares(5),
    deletes: [],
  },
  {
    it: "deletes the one that matches of three that are too many (D03)",
    replicas: 2,
    vms: withSpares(5, 4),
    deletes: ["web-4"],
  },
  {
    it: "deletes nothing that was not read",
    replicas: 0,
    vms: [aVm(0, { spec: null }), ...withSpares(3, 1, 2).slice(1)],
    deletes: ["web-2", "web-1"],
  },
  {
    it: "deletes nothing when all that match are shutting down",
    replicas: 1,
    vms: withSpares(4, 2, 3).map((vm) => ({ ...vm, terminating: vm.ordinal === 2 || vm.ordinal === 3 })),
    deletes: [],
  },
];

describe("scale in by selectors", () => {
  const spares = proactive({ sortPolicy: "DescendingOrder", selectors: TIER });
  for (const { it: name, replicas, vms, deletes } of SELECTOR_CASES) {
    it(name, () => expect(deletesOf(planOf({ pool: pool(replicas, spares), vms }))).toEqual(deletes));
  }

  it("takes a machine that is not ready first, of those that match", () => {
    const vms = withSpares(6, 1, 2, 3).map((vm) => ({ ...vm, ready: vm.ordinal !== 2 && vm.ordinal !== 5 }));
    expect(deletesOf(planOf({ pool: pool(5, proactive({ selectors: TIER })), vms }))).toEqual(["web-2"]);
  });

  it("still scales out", () => {
    expect(kindsOf(planOf({ pool: pool(3, spares), vms: withSpares(1) }))).toContain("createVm");
  });

  it("stops no later step of the pass when it is blocked (D21)", () => {
    const spec = { replicas: 1, ...spares, updateStrategy: { unmanaged: {} } };
    const changed = aPoolWith(spec, { generation: 2, claim: aClaim() });
    const plan = planOf({ pool: changed, vms: withSpares(3) });
    expect(plan).toMatchObject({ needs: [], actions: [{ kind: "writeClaim", items: { delete: [] } }] });
  });

  const blockedOf = (surplus: number, live: readonly Vm[], policy: Json) =>
    planScaleIn({ pool: aPoolWith(proactive(policy)), surplus, live, claimed: [], deletesMax: ACTING.deletesMax });

  it("says how many are blocked, and by which field (D36)", () => {
    const { remove, reasons } = blockedOf(3, withSpares(5, 4), { selectors: TIER });
    expect(remove).toHaveLength(1);
    expect(reasons).toEqual([
      "3 machines too many: 2 of them are blocked by spec.scaleInStrategy.proactive.selectionPolicy.selectors (of 5 machines labelSelector leaves out 4)",
    ]);
  });

  it("says it of each field that leaves machines out (D36)", () => {
    const nodeSelectorRequirementMatcher = [{ key: "zone", operator: "Exists" }];
    const live = [...withSpares(3, 2), aVm(3, { spec: null })];
    const { reasons } = blockedOf(4, live, { selectors: { ...TIER, nodeSelectorRequirementMatcher } });
    expect(reasons.join()).toContain("4 of them are blocked");
    expect(reasons.join()).toContain(
      "(of 4 machines labelSelector leaves out 2, nodeSelectorRequirementMatcher leaves out 3, the spec of 1 cannot be read)",
    );
  });

  it("tells the pool's owner once for each generation, and not while nothing may be done yet (D36)", () => {
    const announced = (claim: Claim | null) =>
      planOf({ pool: aPoolWith({ replicas: 1, ...spares }, { generation: 2, claim }), vms: withSpares(3) })
        .announcements;
    const message = expect.stringContaining("2 machines too many: 2 of them are blocked");
    const told = [{ type: "Warning", reason: "ScaleInBlocked", key: "2", message }];
    expect(announced(aClaim({ generation: 1 }))).toEqual(told);
    expect(announced(aClaim({ generation: 2 }))).toEqual([]);
    expect(announced(aClaim({ generation: 2, waitUntil: NOW + 1 }))).toEqual([]);
    expect(announced(aClaim({ generation: 2, waitUntil: NOW }))).toEqual(told);
  });

  it("says nothing when enough machines match", () => {
    expect(blockedOf(2, withSpares(5, 1, 2, 3), { selectors: TIER }).reasons).toEqual([]);
    expect(blockedOf(0, withSpares(5), { selectors: TIER }).reasons).toEqual([]);
    expect(blockedOf(5, someVms(5), {}).reasons).toEqual([]);
  });

  it("says nothing of machines that only wait for the next loop", () => {
    const vms = someVms(600);
    const { remove, reasons } = planScaleIn({ pool: pool(0), surplus: 600, live: vms, claimed: [], deletesMax: 250 });
    expect(remove).toHaveLength(250);
    expect(reasons).toEqual([]);
  });
});

describe("machines that are not to be deleted", () => {
  const guard = (vm: Vm, value = "True"): Vm => ({
    ...vm,
    labels: { ...vm.labels, "kubevirt.io/vm-delete-protection": value },
  });
  const downwards = proactive({ sortPolicy: "DescendingOrder" });

  it.each(["True", "true"])("are passed over by scale in when KubeVirt's label says %s", (value) => {
    const vms = someVms(4).map((vm) => (vm.ordinal === 3 ? guard(vm, value) : vm));
    expect(deletesOf(planOf({ pool: pool(2, downwards), vms }))).toEqual(["web-2", "web-1"]);
  });

  it.each(["False", "untrue", "trues", ""])("are not those whose label says %j", (value) => {
    const vms = someVms(2).map((vm) => (vm.ordinal === 1 ? guard(vm, value) : vm));
    expect(deletesOf(planOf({ pool: pool(1, downwards), vms }))).toEqual(["web-1"]);
  });

  it("are told to the pool's owner when too many stay for them", () => {
    const vms = someVms(3).map((vm) => guard(vm));
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }, { generation: 2, claim: aClaim() }), vms });
    expect(deletesOf(plan)).toEqual([]);
    const message =
      "2 machines too many: 2 of them are blocked by the label kubevirt.io/vm-delete-protection of 3 machines";
    expect(plan.announcements).toMatchObject([{ reason: "ScaleInBlocked", message }]);
  });

  it("are told beside those that the selectors leave out", () => {
    const policy = proactive({ selectors: TIER });
    const vms = withSpares(3, 2).map((vm) => (vm.ordinal === 2 ? guard(vm) : vm));
    const { reasons } = planScaleIn({ pool: aPoolWith(policy), surplus: 1, live: vms, claimed: [], deletesMax: 250 });
    expect(reasons).toEqual([
      "1 machines too many: 1 of them are blocked by spec.scaleInStrategy.proactive.selectionPolicy.selectors (of 3 machines labelSelector leaves out 2) and the label kubevirt.io/vm-delete-protection of 1 machines",
    ]);
  });

  it("are not deleted though a pass has claimed it before they were forbidden", () => {
    const { uid } = aVm(1);
    const claim = aClaim({ delete: [{ ordinal: 1, uidPrefix: uid.slice(0, 8) }] });
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }, { claim }), vms: [aVm(0), guard(aVm(1))] });
    expect(namesOf(plan, "revokeDelete")).toEqual(["web-1"]);
    expect(deletesOf(plan)).toEqual(["web-0"]);
  });
});

describe("two lists of different instants", () => {
  it("make nothing too many of a machine and the one that was made in its stead", () => {
    const seen = anObservation({ pool: pool(2), vms: someVms(2) });
    const anew = aVm(1, { uid: "0ddba11f-0000-4000-8000-000000000000", ready: false });
    const plan = planPass({ ...seen, namespaceVms: [aVm(0), anew] }, ACTING);
    expect(kindsOf(plan)).toEqual([]);
  });
});

const NUMBERS = [-3, -1, 0, 1, 4, 5, 6, 1_000, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, Number.NaN];

describe("whatever the numbers", () => {
  const live = withSpares(5, 1, 3);
  const claimed = live.slice(0, 3).map(({ ordinal, uid }) => ({ ordinal, uidPrefix: uid.slice(0, 8) }));
  for (const surplus of NUMBERS) {
    it(`takes no more machines than there are, match and may go when ${surplus} are too many (D02, D03)`, () => {
      const policies = [
        { policy: {}, eligible: 5 },
        { policy: { selectors: TIER }, eligible: 2 },
        { policy: { sortPolicy: "Oldest", selectors: { labelSelector: {} } }, eligible: 5 },
      ];
      for (const { policy, eligible } of policies) {
        for (const deletesMax of [-1, 0, 2, 250]) {
          for (const items of [[], claimed]) {
            const input = { pool: aPoolWith(proactive(policy)), surplus, live, claimed: items, deletesMax };
            const { remove, claimed: named } = planScaleIn(input);
            expect(remove.length).toBeLessThanOrEqual(Math.max(0, deletesMax));
            expect(named.length).toBeLessThanOrEqual(Math.min(eligible, Math.max(0, surplus || 0)));
            for (const vm of remove) expect(named).toContain(vm);
          }
        }
      }
    });
  }

  it("takes nothing from a pool whose strategy cannot be read", () => {
    for (const spec of [undefined, "spec", aSpec({ scaleInStrategy: { proactive: { selectionPolicy: "any" } } })]) {
      const { remove, revoke } = planScaleIn({ pool: aPool({ spec }), surplus: 5, live, claimed, deletesMax: 250 });
      expect(remove).toEqual([]);
      expect(revoke).toHaveLength(3);
    }
  });
});

describe("a claimed delete", () => {
  const items = (...ordinals: readonly number[]) =>
    ordinals.map((ordinal) => ({ ordinal, uidPrefix: aVm(ordinal).uid.slice(0, 8) }));
  const claiming = (replicas: number, policy: Json, ...ordinals: readonly number[]) =>
    aPoolWith({ replicas, ...proactive(policy) }, { claim: aClaim({ delete: items(...ordinals) }) });

  it("comes before what the policy would take, and counts once", () => {
    const plan = planOf({ pool: claiming(2, { sortPolicy: "DescendingOrder" }, 0), vms: someVms(4) });
    expect(deletesOf(plan)).toEqual(["web-0", "web-3"]);
    expect(namesOf(plan, "revokeDelete")).toEqual([]);
  });

  it("is revoked when the selectors leave its machine out, and another goes for it", () => {
    const plan = planOf({ pool: claiming(3, { selectors: TIER }, 0), vms: withSpares(4, 2) });
    expect(kindsOf(plan)).toEqual(["revokeDelete", "writeClaim", "deleteVm"]);
    expect(namesOf(plan, "revokeDelete")).toEqual(["web-0"]);
    expect(deletesOf(plan)).toEqual(["web-2"]);
    expect(claimIn(plan)?.delete).toEqual(items(2));
  });

  it("is revoked when the selectors leave its machine out and nothing is too many", () => {
    const plan = planOf({ pool: claiming(4, { selectors: TIER }, 0, 2), vms: withSpares(4, 2) });
    expect(kindsOf(plan)).toEqual(["revokeDelete", "revokeDelete", "writeClaim"]);
    expect(claimIn(plan)?.delete).toEqual([]);
  });

  it("is kept when the selectors match its machine", () => {
    const plan = planOf({ pool: claiming(3, { selectors: TIER }, 2), vms: withSpares(4, 1, 2) });
    expect(deletesOf(plan)).toEqual(["web-2"]);
    expect(namesOf(plan, "revokeDelete")).toEqual([]);
  });

  it("is revoked when its machine's spec cannot be read any more", () => {
    const vms = [aVm(0, { spec: null }), ...withSpares(3).slice(1)];
    const plan = planOf({ pool: claiming(1, { selectors: TIER }, 0), vms });
    expect(kindsOf(plan)).toEqual(["revokeDelete", "writeClaim"]);
  });
});

const STRATEGIES: readonly { readonly it: string; readonly spec: Json }[] = [
  { it: "no strategy", spec: {} },
  { it: "proactive scale in", spec: { scaleInStrategy: { proactive: {} } } },
  { it: "selectors that match nothing", spec: proactive({ selectors: TIER }) },
  { it: "opportunistic scale in (D10)", spec: { scaleInStrategy: { opportunistic: {} } } },
  { it: "unmanaged scale in (D11)", spec: { scaleInStrategy: { unmanaged: {} } } },
];

describe("a machine that somebody deletes", () => {
  for (const { it: name, spec } of STRATEGIES) {
    for (const replicas of [0, 1, 2, 3, 4]) {
      it(`is let go with ${name}, of three machines where ${replicas} are wanted`, () => {
        const vms = [aVm(0), aVm(1, { terminating: true }), aVm(2)];
        expect(namesOf(planOf({ pool: pool(replicas, spec), vms }), "dropVmFinalizer")).toEqual(["web-1"]);
      });
    }
  }

  it("counts for one that is too many with opportunistic scale in: the size is reached, and nothing more is done (D10)", () => {
    const lowered = pool(2, { scaleInStrategy: { opportunistic: {} } });
    const leaving = aVm(2, { terminating: true, finalizers: [KUBEVIRT_FINALIZER] });
    expect(planOf({ pool: lowered, vms: [aVm(0), aVm(1), leaving] })).toMatchObject({ actions: [], reasons: [] });
    expect(planOf({ pool: lowered, vms: [aVm(0), aVm(1)] })).toMatchObject({ actions: [], reasons: [] });
  });

  it("is let go in a later pass when the first could not (D10)", () => {
    const vms = [aVm(0), aVm(1), aVm(2, { terminating: true })];
    const first = planOf({ pool: pool(2), vms });
    expect(planOf({ pool: pool(2), vms })).toEqual(first);
    expect(kindsOf(first)).toEqual(["dropVmFinalizer"]);
  });
});

const KEEPING: readonly unknown[] = [
  { proactive: { statePreservation: "Offline" } },
  { proactive: { statePreservation: "Online" } },
  { opportunistic: { statePreservation: "Offline" } },
  { opportunistic: { statePreservation: "Online" } },
  { opportunistic: null, proactive: { statePreservation: "Offline" } },
  { opportunistic: { statePreservation: "Disabled" }, proactive: { statePreservation: "Offline" } },
  { proactive: { statePreservation: "disabled" } },
  { proactive: { statePreservation: "Whatever comes next" } },
  { proactive: { statePreservation: "" } },
  { proactive: { statePreservation: false } },
  { proactive: { statePreservation: {} } },
];
const LETTING_GO: readonly unknown[] = [
  undefined,
  null,
  {},
  { proactive: {} },
  { opportunistic: {}, proactive: null },
  { proactive: { statePreservation: null } },
  { proactive: { statePreservation: "Disabled" }, opportunistic: { statePreservation: "Disabled" } },
  { unmanaged: { statePreservation: "Offline" } },
  "Offline",
  ["Offline"],
];

describe("disks", () => {
  // Whoever deletes the machine: the strategy that is set counts, not the one that would fit the way of deletion.
  for (const scaleInStrategy of KEEPING) {
    it(`are kept with ${JSON.stringify(scaleInStrategy)} (D06, D07)`, () => {
      expect(keepsDisks({ scaleInStrategy })).toBe(true);
    });
  }

  for (const scaleInStrategy of LETTING_GO) {
    it(`go with their machine with ${JSON.stringify(scaleInStrategy)}`, () => {
      expect(keepsDisks({ scaleInStrategy })).toBe(false);
    });
  }

  for (const spec of [undefined, null, "spec", 7, [], {}]) {
    it(`go with their machine when the spec is ${JSON.stringify(spec)}`, () => expect(keepsDisks(spec)).toBe(false));
  }
});
