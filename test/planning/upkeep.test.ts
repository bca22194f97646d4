import { describe, expect, it } from "vitest";
import { claimedObject } from "../../shared/planning/claim.ts";
import type { Vm } from "../../shared/planning/model.ts";
import { GUARDED_ANNOTATION, POOL_FINALIZER } from "../../shared/planning/names.ts";
import { planPass } from "../../shared/planning/plan.ts";
import { ownerReferenceTo } from "../../shared/planning/template.ts";
import {
  aClaim,
  aDisk,
  anObservation,
  anOwner,
  aPool,
  aPoolWith,
  aVm,
  EARLIER_POOL_UID,
  type Json,
  KUBEVIRT_FINALIZER,
  LABELS,
  OTHER_POOL_UID,
  POOL_UID,
  someVms,
} from "../support/builders.ts";
import { ACTING, claimIn, createsOf, deletesOf, kindsOf, namesOf, planOf, targetsOf } from "./plans.ts";

const gone = { app: "gone" } as const;

describe("a machine whose labels left the pool", () => {
  it("is released, and counts until it is: a release that fails neither adds a machine nor stops the pool (D13)", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 3 }), vms: [aVm(0), aVm(1, { labels: gone })] });
    expect(namesOf(plan, "releaseVm")).toEqual(["web-1"]);
    expect(createsOf(plan)).toEqual([2]);
  });

  it("comes with its other owners and finalizers, which are to stay", () => {
    const owners = [
      anOwner("backup-uid", { kind: "Backup", apiVersion: "example.com/v1", controller: false }),
      anOwner(POOL_UID),
    ];
    const vm = aVm(0, { labels: gone, owners, finalizers: [POOL_FINALIZER, KUBEVIRT_FINALIZER] });
    const [released] = targetsOf(planOf({ vms: [vm] }), "releaseVm");
    expect(released?.owners).toEqual(owners);
    expect(released?.finalizers).toEqual([POOL_FINALIZER, KUBEVIRT_FINALIZER]);
  });

  it("is released while the pool is paused", () => {
    const plan = planOf({ pool: aPoolWith({ paused: true }), vms: [aVm(0, { labels: gone })] });
    expect(kindsOf(plan)).toEqual(["releaseVm"]);
  });

  it("is released while it is being deleted", () => {
    expect(namesOf(planOf({ vms: [aVm(0, { labels: gone, terminating: true })] }), "releaseVm")).toEqual(["web-0"]);
  });

  it("stays bound while its disks are to be kept and cannot be told", () => {
    const pool = aPoolWith({ replicas: 1, scaleInStrategy: { proactive: { statePreservation: "Offline" } } });
    const vm = aVm(0, { labels: gone, terminating: true, spec: null });
    const plan = planPass({ ...anObservation({ pool, vms: [vm] }), specless: new Set([vm.uid]) }, ACTING);
    expect(plan).toMatchObject({ needs: [], actions: [] });
    expect(plan.reasons).toEqual(["web-0 is held: its spec cannot be read, so its disks cannot be kept"]);
  });

  it("leaves with its disks changed once, when it is being deleted and they are kept", () => {
    const pool = aPoolWith({ replicas: 1, scaleInStrategy: { proactive: { statePreservation: "Offline" } } });
    const vm = aVm(0, { labels: gone, terminating: true, annotations: { [GUARDED_ANNOTATION]: "data-0" } });
    const plan = planOf({ pool, vms: [vm], disks: new Map([[vm.uid, [aDisk(0, { guarded: true })]]]) });
    expect(kindsOf(plan)).toEqual(["changeDisk", "releaseVm"]);
    expect(plan.actions[0]).toMatchObject({ released: true });
  });

  // The call that an earlier pass may still send carries the version from before the labels were changed: it misses.
  it("is released, not deleted, while the pool shrinks, though an earlier pass had chosen it to go", () => {
    const claim = aClaim({ generation: 2, delete: [claimedObject(aVm(2), 2)] });
    const pool = aPoolWith({ replicas: 2 }, { generation: 2, claim });
    const plan = planOf({ pool, vms: [aVm(0), aVm(1), aVm(2, { labels: gone })] });
    expect(namesOf(plan, "releaseVm")).toEqual(["web-2"]);
    expect(kindsOf(plan)).toEqual(["releaseVm", "writeClaim"]);
    expect(claimIn(plan)?.delete).toEqual([]);
  });

  it("is not counted as a machine of the pool", () => {
    expect(planOf({ vms: [aVm(0), aVm(1, { labels: gone })] }).members?.map(({ name }) => name)).toEqual(["web-0"]);
  });

  it("stays where it is when another pool controls it", () => {
    const pool = aPoolWith({ replicas: 0 });
    expect(planOf({ pool, vms: [aVm(0, { labels: gone, pool: OTHER_POOL_UID })] }).actions).toEqual([]);
  });
});

interface Case {
  readonly it: string;
  readonly vm: Vm;
  readonly dropped: boolean;
}

const DETACHED = { pool: null } as const;
const CASES: readonly Case[] = [
  { it: "drops the finalizer of a machine whose owner was removed (D14)", vm: aVm(0, DETACHED), dropped: true },
  {
    it: "drops it when the labels were changed as well, by the revision label",
    vm: aVm(0, { ...DETACHED, labels: gone }),
    dropped: true,
  },
  {
    it: "drops it when the revision label is missing, by name and selector",
    vm: aVm(0, { ...DETACHED, revision: null }),
    dropped: true,
  },
  {
    it: "drops it when something that is no pool took the machine over",
    vm: aVm(0, { owners: [anOwner("uid", { kind: "Cluster", apiVersion: "example.com/v1" })] }),
    dropped: true,
  },
  {
    it: "drops it when the pool is left as an owner that does not control",
    vm: aVm(0, { owners: [anOwner(POOL_UID, { controller: false })] }),
    dropped: true,
  },
  {
    it: "never touches a detached machine again",
    vm: aVm(0, { ...DETACHED, finalizers: [KUBEVIRT_FINALIZER] }),
    dropped: false,
  },
  {
    it: "leaves a machine of another pool alone though the selector matches",
    vm: aVm(0, { pool: OTHER_POOL_UID }),
    dropped: false,
  },
  {
    it: "leaves a machine alone that another pool has left behind",
    vm: aVm(0, { ...DETACHED, revision: "blue-3", name: "blue-0" }),
    dropped: false,
  },
  {
    it: "leaves a machine alone that a pool with a longer name has left behind",
    vm: aVm(0, { ...DETACHED, revision: "web-2-5", name: "web-2-0" }),
    dropped: false,
  },
  {
    it: "leaves a machine alone whose name is not the pool's and whose revision label is missing",
    vm: aVm(0, { ...DETACHED, revision: null, name: "database" }),
    dropped: false,
  },
  {
    it: "leaves a machine alone when name, labels and revision label all point elsewhere",
    vm: aVm(0, { ...DETACHED, revision: null, labels: gone }),
    dropped: false,
  },
];

describe("a detached machine", () => {
  for (const { it: name, vm, dropped } of CASES) {
    it(name, () => {
      const plan = planOf({ pool: aPoolWith({ replicas: 0 }), vms: [vm] });
      expect(kindsOf(plan)).toEqual(dropped ? ["dropVmFinalizer"] : []);
    });
  }

  it("is replaced under another name", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }), vms: [aVm(0, DETACHED)] });
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
    expect(createsOf(plan)).toEqual([1]);
  });

  it("is freed before machines are created", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }), vms: [aVm(0, DETACHED)] });
    expect(kindsOf(plan)).toEqual(["dropVmFinalizer", "writeClaim", "createRevision", "createVm"]);
  });

  it("is neither adopted nor deleted", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 0 }), vms: someVms(3, { ...DETACHED, finalizers: [] }) });
    expect(plan.actions).toEqual([]);
  });
});

const STATES: readonly { readonly it: string; readonly spec: Json }[] = [
  { it: "a pool with the right count", spec: { replicas: 2 } },
  { it: "a pool with too few machines", spec: { replicas: 9 } },
  { it: "a pool with too many machines", spec: { replicas: 0 } },
  { it: "a paused pool (D12)", spec: { replicas: 2, paused: true } },
  { it: "unmanaged scale in", spec: { replicas: 0, scaleInStrategy: { unmanaged: {} } } },
  { it: "opportunistic scale in", spec: { replicas: 0, scaleInStrategy: { opportunistic: {} } } },
  {
    it: "a pool whose strategy is not supported",
    spec: { scaleInStrategy: { proactive: { selectionPolicy: { sortPolicy: "Newest" } } } },
  },
];

describe("the finalizer of a machine that somebody deleted", () => {
  for (const { it: name, spec } of STATES) {
    it(`goes in ${name}`, () => {
      const plan = planOf({ pool: aPoolWith(spec), vms: [aVm(0, { terminating: true }), aVm(1)] });
      expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
    });
  }

  it("goes while the claim cannot be read", () => {
    const plan = planOf({ pool: aPool({ claim: "garbled" }), vms: [aVm(0, { terminating: true })] });
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
  });

  it("goes though the labels of the machine match no more, with the release", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }), vms: [aVm(0, { terminating: true, labels: gone })] });
    expect(kindsOf(plan)).toEqual(["releaseVm"]);
  });

  it("is not dropped twice", () => {
    const vms = [aVm(0, { terminating: true, finalizers: [KUBEVIRT_FINALIZER] })];
    expect(planOf({ pool: aPoolWith({ replicas: 1 }), vms }).actions).toEqual([]);
  });

  it("of another pool stays", () => {
    const vms = [aVm(0, { terminating: true, pool: OTHER_POOL_UID })];
    expect(planOf({ pool: aPoolWith({ replicas: 0 }), vms }).actions).toEqual([]);
  });
});

describe("a paused pool", () => {
  const paused = (replicas: number) => aPoolWith({ replicas, paused: true });

  it("is not scaled out, and says so", () => {
    const plan = planOf({ pool: paused(5), vms: someVms(2) });
    expect(plan.actions).toEqual([]);
    expect(plan.reasons).toEqual(["paused: 2 machines are left as they are, 5 are wanted"]);
  });

  it("is not scaled in, and says so", () => {
    const plan = planOf({ pool: paused(1), vms: someVms(4) });
    expect(plan.actions).toEqual([]);
    expect(plan.reasons).toEqual(["paused: 4 machines are left as they are, 1 are wanted"]);
  });

  it("says nothing when nothing is left undone", () => {
    expect(planOf({ pool: paused(2), vms: someVms(2) }).reasons).toEqual([]);
  });

  it("goes on when it is resumed", () => {
    expect(createsOf(planOf({ pool: aPoolWith({ replicas: 3, paused: false }), vms: someVms(2) }))).toEqual([2]);
  });
});

describe("two pools with overlapping selectors", () => {
  const red = aPoolWith({ replicas: 1 }, { name: "red" });
  const blue = aPoolWith({ replicas: 3 }, { name: "blue", uid: OTHER_POOL_UID });
  const vms = [
    aVm(0, { poolName: "red" }),
    aVm(1, { poolName: "red" }),
    aVm(2, { poolName: "blue", pool: OTHER_POOL_UID }),
    aVm(3, { poolName: "blue", pool: OTHER_POOL_UID }),
  ];
  const seenBy = (poolName: string) =>
    vms.map((vm) => ({ ...vm, ordinal: vm.name.startsWith(poolName) ? vm.ordinal : undefined }));

  it("count and delete only machines of their own", () => {
    const plan = planOf({ pool: red, vms: seenBy("red") });
    expect(plan.members?.map(({ name }) => name)).toEqual(["red-0", "red-1"]);
    expect(deletesOf(plan)).toHaveLength(1);
    expect(deletesOf(plan)[0]).toMatch(/^red-/);
  });

  it("fill their own gaps", () => {
    expect(createsOf(planOf({ pool: blue, vms: seenBy("blue") }))).toEqual([0]);
  });

  it("drop no finalizer of each other when one of them is deleted", () => {
    const plan = planOf({ pool: aPool({ name: "red", deleting: true }), vms: seenBy("red") });
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["red-0", "red-1"]);
  });
});

describe("a machine of an earlier pool of the same name", () => {
  const pool = aPoolWith({ replicas: 0 });
  const self = { namespace: "default", name: "web", uid: POOL_UID };
  const vms = [aVm(0, { pool: EARLIER_POOL_UID }), aVm(1, { pool: EARLIER_POOL_UID, terminating: true })];

  it("is let go once this pool is seen to live after the machine was seen: there is no other then", () => {
    const plan = planOf({ pool, vms, livingPools: [self] });
    expect(kindsOf(plan)).toEqual(["dropVmFinalizer", "dropVmFinalizer"]);
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0", "web-1"]);
  });

  it("makes the pass ask which pools live", () => {
    expect(planOf({ pool, vms })).toMatchObject({ needs: [{ read: "livingPools" }], actions: [] });
  });

  it("is let go whatever other pools live beside this one", () => {
    const other = { namespace: "default", name: "other", uid: OTHER_POOL_UID };
    const plan = planOf({ pool, vms, livingPools: [other, self] });
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0", "web-1"]);
  });

  it("stays where it is when this pool is gone by now: its own may be the one that came after", () => {
    const livingPools = [{ ...self, uid: EARLIER_POOL_UID }];
    expect(planOf({ pool, vms, livingPools })).toMatchObject({ needs: [], actions: [] });
  });

  it("is not asked after when it is free already", () => {
    const plan = planOf({ pool, vms: [aVm(0, { pool: EARLIER_POOL_UID, finalizers: [KUBEVIRT_FINALIZER] })] });
    expect(plan).toMatchObject({ needs: [], actions: [] });
  });

  it("is no machine of this pool, and its name is taken", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }), vms: vms.slice(0, 1), livingPools: [self] });
    expect(plan.members).toEqual([]);
    expect(createsOf(plan)).toEqual([1]);
  });
});

describe("of an illegal pool", () => {
  const illegal = aPoolWith({ maxUnavailable: "0%" });
  const DELETED = { terminating: true } as const;

  it("a machine that somebody deletes is let go, and nothing else is done", () => {
    const vms = [aVm(0, DELETED), aVm(1), aVm(2, { labels: gone }), aVm(3, { pool: null })];
    const plan = planOf({ pool: illegal, vms });
    expect(kindsOf(plan)).toEqual(["dropVmFinalizer"]);
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
    expect(plan).toMatchObject({ members: undefined, announcements: [] });
    expect(plan.reasons).toEqual([expect.stringMatching(/^held: spec.maxUnavailable/)]);
  });

  it("a deleted machine is let go whatever its labels, and when no pool controls it any more", () => {
    const vms = [aVm(0, { ...DELETED, labels: gone }), aVm(1, { ...DELETED, pool: null })];
    expect(namesOf(planOf({ pool: illegal, vms }), "dropVmFinalizer")).toEqual(["web-0", "web-1"]);
  });

  it("a deleted machine that nothing but its name binds to the pool is left alone: its selector may be wrong", () => {
    expect(planOf({ pool: illegal, vms: [aVm(0, { ...DELETED, pool: null, revision: null })] }).actions).toEqual([]);
  });

  it("deleted machines are let go in the order of their names, whatever the order of the list", () => {
    const vms = someVms(3, DELETED).toReversed();
    expect(namesOf(planOf({ pool: illegal, vms }), "dropVmFinalizer")).toEqual(["web-0", "web-1", "web-2"]);
  });

  it("no machine is let go before all that has to be read was read", () => {
    const pool = aPoolWith({ maxUnavailable: "0%", scaleInStrategy: { proactive: { statePreservation: "Offline" } } });
    const plan = planOf({ pool, vms: [aVm(0, DELETED), aVm(1, { ...DELETED, pool: null })] });
    expect(plan).toMatchObject({ needs: [{ read: "disks" }], actions: [] });
  });

  it("a deleted machine is let go though the spec is garbage", () => {
    expect(namesOf(planOf({ pool: aPool({ spec: "" }), vms: [aVm(0, DELETED)] }), "dropVmFinalizer")).toEqual([
      "web-0",
    ]);
  });

  it("a deleted machine of another pool stays bound", () => {
    expect(planOf({ pool: illegal, vms: [aVm(0, { ...DELETED, pool: OTHER_POOL_UID })] }).actions).toEqual([]);
  });

  it("a deleted machine of an earlier pool of its name is let go", () => {
    const livingPools = [{ namespace: "default", name: "web", uid: POOL_UID }];
    const plan = planOf({ pool: illegal, vms: [aVm(0, { ...DELETED, pool: EARLIER_POOL_UID })], livingPools });
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
  });

  it.each([
    ["a preservation that the rest of the spec makes illegal", "Offline"],
    ["a preservation that nobody knows", "Sometimes"],
  ])("a deleted machine's disks are released first, by %s", (_what, statePreservation) => {
    const pool = aPoolWith({ maxUnavailable: "0%", scaleInStrategy: { proactive: { statePreservation } } });
    const vm = aVm(0, DELETED);
    expect(planOf({ pool, vms: [vm] })).toMatchObject({ needs: [{ read: "disks" }], actions: [] });
    const plan = planOf({ pool, vms: [vm], disks: new Map([[vm.uid, [aDisk(0)]]]) });
    expect(kindsOf(plan)).toEqual(["changeDisk", "dropVmFinalizer"]);
    expect(plan.actions[0]).toMatchObject({ released: true });
  });

  it("nothing is done in a look that has not seen the namespace's machines", () => {
    expect(planOf({ pool: illegal, vms: [aVm(0, DELETED)], narrow: true })).toMatchObject({ needs: [], actions: [] });
  });
});

describe("who controls a machine", () => {
  it("is told by UID, not by name", () => {
    const vms = [aVm(0, { pool: EARLIER_POOL_UID })];
    expect(planOf({ pool: aPoolWith({ replicas: 0 }), vms }).members).toEqual([]);
  });

  it("is the same whatever version of the pool API its reference names", () => {
    const vm = aVm(0, { owners: [anOwner(POOL_UID, { apiVersion: "pool.kubevirt.io/v1alpha1" })] });
    expect(planOf({ vms: [vm] }).members).toHaveLength(1);
  });

  it("is not a pool when the group is another's (D43)", () => {
    const vm = aVm(0, { owners: [anOwner(POOL_UID, { apiVersion: "pool.example.com/v1" })], finalizers: [] });
    expect(planOf({ pool: aPoolWith({ replicas: 0 }), vms: [vm] })).toMatchObject({ members: [], actions: [] });
  });

  it("is written as the one controller that blocks the owner's deletion", () => {
    expect(ownerReferenceTo(aPool(), "pool.kubevirt.io/v1beta1")).toEqual(anOwner(POOL_UID));
  });

  it("is asked of the labels of the machine, whatever else they say", () => {
    const vms = [aVm(0, { labels: { ...LABELS, tier: "front" } })];
    expect(planOf({ vms }).members).toHaveLength(1);
  });
});
