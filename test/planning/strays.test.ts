/** Machines whose pool is gone: which of them are let go, and under which name they are looked for. */
import { describe, expect, it } from "vitest";
import type { Vm } from "../../shared/planning/model.ts";
import { poolsOfRevision } from "../../shared/planning/names.ts";
import { abandonedPools, type LivingPool, planGone } from "../../shared/planning/strays.ts";
import {
  anOwner,
  aVm,
  deepFreeze,
  EARLIER_POOL_UID,
  KUBEVIRT_FINALIZER,
  OTHER_POOL_UID,
  POOL_UID,
} from "../support/builders.ts";

const OTHER: LivingPool = { namespace: "default", name: "other", uid: OTHER_POOL_UID };
const SAME: LivingPool = { namespace: "default", name: "web", uid: POOL_UID };
const DETACHED = { pool: null } as const;

interface Case {
  readonly it: string;
  readonly vm: Vm;
  /** It is a machine that the pool `web` has left behind, while a pool `other` lives. */
  readonly isStray: boolean;
}

const CASES: readonly Case[] = [
  { it: "that lives, controlled by a pool that is gone", vm: aVm(0), isStray: true },
  { it: "that is being deleted", vm: aVm(0, { terminating: true }), isStray: true },
  { it: "that an earlier pool of the name controlled", vm: aVm(0, { pool: EARLIER_POOL_UID }), isStray: true },
  { it: "whose labels left", vm: aVm(0, { labels: { app: "mine" } }), isStray: true },
  { it: "that was detached or orphaned", vm: aVm(0, DETACHED), isStray: true },
  {
    it: "that something else than a pool took over",
    vm: aVm(0, { owners: [anOwner("uid", { kind: "Cluster", apiVersion: "example.com/v1" })] }),
    isStray: true,
  },
  {
    it: "that has its pool for an owner which does not control it",
    vm: aVm(0, { owners: [anOwner(POOL_UID, { controller: false })] }),
    isStray: true,
  },
  { it: "whose revision name has a hash", vm: aVm(0, { ...DETACHED, revision: "web-3-0badcafe" }), isStray: true },
  { it: "that is free already", vm: aVm(0, { finalizers: [KUBEVIRT_FINALIZER] }), isStray: false },
  { it: "of a pool that lives", vm: aVm(0, { pool: OTHER_POOL_UID }), isStray: false },
  {
    it: "of a pool that lives, under the name of this one",
    vm: aVm(0, { owners: [anOwner(OTHER_POOL_UID, { name: "web" })] }),
    isStray: false,
  },
  {
    it: "of another pool that is gone",
    vm: aVm(0, { owners: [anOwner(EARLIER_POOL_UID, { name: "blue" })] }),
    isStray: false,
  },
  { it: "that another pool has left behind", vm: aVm(0, { ...DETACHED, revision: "blue-1" }), isStray: false },
  { it: "that a pool with a longer name has left", vm: aVm(0, { ...DETACHED, revision: "web-2-5" }), isStray: false },
  { it: "that names no revision and has no owner", vm: aVm(0, { ...DETACHED, revision: null }), isStray: false },
];

const dropped = (vms: readonly Vm[], living: readonly LivingPool[]) =>
  planGone(deepFreeze({ name: "web", vms, living })).actions.map((action) => {
    if (action.kind !== "dropVmFinalizer") throw new Error(`a pool that is gone does ${action.kind}`);
    return action.vm.name;
  });

describe("the pass of a pool that is gone", () => {
  for (const { it: name, vm, isStray } of CASES) {
    it(`${isStray ? "lets a machine go" : "leaves a machine alone"} ${name}`, () => {
      expect(dropped([vm], [OTHER])).toEqual(isStray ? [vm.name] : []);
    });
  }

  it("leaves everything to a pool of its name that lives by now", () => {
    const plan = planGone({ name: "web", vms: [aVm(0, DETACHED), aVm(1, { pool: EARLIER_POOL_UID })], living: [SAME] });
    expect(plan).toEqual({ actions: [], reasons: ["there is a pool web again"] });
  });

  it("goes by the names of the machines, whatever the order of the list", () => {
    const vms = [aVm(2), aVm(0), aVm(1, { terminating: true })];
    expect(dropped(vms, [])).toEqual(["web-0", "web-1", "web-2"]);
  });
});

describe("the schedule", () => {
  const wakes = (vms: readonly Vm[], living: readonly LivingPool[], namespace = "default") =>
    abandonedPools(
      vms.map((vm) => ({ namespace, vm })),
      living,
    );

  for (const { it: name, vm, isStray } of CASES.filter(({ it: text }) => !text.startsWith("of another pool that"))) {
    it(`${isStray ? "wakes the pool" : "does not wake it"} for a machine ${name}`, () => {
      const isOurs = ({ name: woken }: { name: string }) => woken === "web";
      const expected = isStray ? [{ namespace: "default", name: "web" }] : [];
      expect(wakes([vm], [OTHER]).filter(isOurs)).toEqual(expected);
    });
  }

  it("wakes each pool once", () => {
    expect(wakes([aVm(0), aVm(1), aVm(2, DETACHED)], [])).toEqual([{ namespace: "default", name: "web" }]);
  });

  it("leaves to a pool that lives what may point to its name, or to another", () => {
    const vm = aVm(0, { pool: null, revision: "web-1-12345678" });
    expect(wakes([vm], [SAME])).toEqual([]);
    expect(wakes([vm], [{ ...SAME, name: "web-1" }])).toEqual([]);
    expect(wakes([vm], [OTHER])).toEqual([{ namespace: "default", name: "web" }]);
  });

  it("wakes nothing for a machine that names no pool", () => {
    expect(wakes([aVm(0, { pool: null, revision: null })], [])).toEqual([]);
  });

  it("leaves to a pool that lives what points to its name", () => {
    expect(wakes([aVm(0), aVm(1, DETACHED), aVm(2, { pool: EARLIER_POOL_UID })], [SAME])).toEqual([]);
  });

  it("does not take a pool of that name in another namespace for it", () => {
    expect(wakes([aVm(0, DETACHED)], [SAME], "ci")).toEqual([{ namespace: "ci", name: "web" }]);
  });
});

describe("the pool of a revision", () => {
  it.each([
    ["web-1", ["web"]],
    ["web-1-0badcafe", ["web"]],
    ["web-12-0badcafe", ["web"]],
    ["web-1-0badcafe1", []],
    ["web-1-0badcafe-x", []],
    ["web-1-7", ["web-1"]],
    ["web-1-12345678", ["web", "web-1"]],
    ["web", []],
    ["-1", []],
    ["", []],
  ])("of the name %j is one of %j", (label, names) => expect(poolsOfRevision(label)).toEqual(names));
});
