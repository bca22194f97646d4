import { describe, expect, it } from "vitest";
import { POOL_FINALIZER } from "../../shared/planning/names.ts";
import { aClaim, aPool, aSpec, aVm, NOW, OTHER_POOL_UID, someVms } from "../support/builders.ts";
import { deletesOf, kindsOf, namesOf, planOf } from "./plans.ts";

const deleting = { deleting: true, generation: 2 } as const;
const T = 150_000;

const HOWS = [
  { it: "background", finalizers: [POOL_FINALIZER], terminating: false },
  { it: "foreground", finalizers: [POOL_FINALIZER, "foregroundDeletion"], terminating: true },
] as const;

describe("a pool that is deleted", () => {
  for (const { it: how, finalizers, terminating } of HOWS) {
    it(`frees its machines first (${how})`, () => {
      const plan = planOf({ pool: aPool({ ...deleting, finalizers }), vms: someVms(2, { terminating }) });
      expect(kindsOf(plan)).toEqual(["dropVmFinalizer", "dropVmFinalizer"]);
    });

    it(`drops its own finalizer when its machines are free (${how})`, () => {
      const vms = someVms(2, { finalizers: [], terminating });
      const plan = planOf({ pool: aPool({ ...deleting, finalizers }), vms });
      expect(kindsOf(plan)).toEqual(["dropPoolFinalizer"]);
    });
  }

  it("frees the machines that the garbage collector has orphaned", () => {
    const pool = aPool({ ...deleting, finalizers: [POOL_FINALIZER, "orphan"] });
    const plan = planOf({ pool, vms: [aVm(0, { pool: null }), aVm(1)] });
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0", "web-1"]);
  });

  it("frees orphaned and other machines in one order, that of their names", () => {
    const pool = aPool({ ...deleting, finalizers: [POOL_FINALIZER, "orphan"] });
    const plan = planOf({ pool, vms: [aVm(0), aVm(1, { pool: null })] });
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0", "web-1"]);
  });

  it("says why it does what it does, and why it waits", () => {
    const keeping = aSpec({ scaleInStrategy: { proactive: { statePreservation: "Offline" } } });
    const why = "the pool is being deleted";
    const plans = [
      planOf({ pool: aPool({ ...deleting, finalizers: ["foregroundDeletion"] }) }),
      planOf({ pool: aPool(deleting) }),
      planOf({ pool: aPool(deleting), vms: someVms(1) }),
      planOf({ pool: aPool({ ...deleting, spec: keeping }), vms: someVms(1, { terminating: true }) }),
    ];
    for (const { reasons } of plans) expect(reasons).toEqual([why]);
    const waiting = planOf({ pool: aPool({ ...deleting, claim: aClaim({ waitUntil: NOW + 1 }) }) });
    expect(waiting.reasons).toEqual([
      `${why}: waiting until 2026-11-22T10:00:00.001Z: calls of an unknown earlier pass may still land`,
    ]);
  });

  it("frees its machines in the order of their names, whatever the order of the list", () => {
    const vms = someVms(3).toReversed();
    expect(namesOf(planOf({ pool: aPool(deleting), vms }), "dropVmFinalizer")).toEqual(["web-0", "web-1", "web-2"]);
  });

  it("deletes no machine itself", () => {
    expect(kindsOf(planOf({ pool: aPool(deleting), vms: someVms(3) }))).not.toContain("deleteVm");
  });

  it.each([
    ["go with it", {}],
    ["are kept", { scaleInStrategy: { proactive: { statePreservation: "Offline" } } }],
  ])("lets go of a machine that was taken out by its labels, which stays when disks %s (D16)", (_what, strategy) => {
    const pool = aPool({ ...deleting, spec: aSpec({ replicas: 2, ...strategy }) });
    const plan = planOf({ pool, vms: [aVm(0), aVm(1, { labels: { app: "mine" } })] });
    expect(namesOf(plan, "releaseVm")).toEqual(["web-1"]);
    expect([...deletesOf(plan), ...namesOf(plan, "dropVmFinalizer")]).toEqual(["web-0"]);
  });

  it("frees one whose labels changed while it was on its way out", () => {
    const vms = [aVm(0, { labels: { app: "gone" }, terminating: true })];
    const plan = planOf({ pool: aPool(deleting), vms });
    expect([namesOf(plan, "releaseVm"), namesOf(plan, "dropVmFinalizer")]).toEqual([[], ["web-0"]]);
  });

  it("frees a relabelled machine whose spec is illegal, which says nothing of labels", () => {
    const pool = aPool({ ...deleting, spec: aSpec({ maxUnavailable: "0%" }) });
    const plan = planOf({ pool, vms: [aVm(0, { labels: { app: "gone" } })] });
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
  });

  it("leaves the machines of another pool bound (D16)", () => {
    const plan = planOf({ pool: aPool(deleting), vms: [aVm(0, { pool: OTHER_POOL_UID })] });
    expect(kindsOf(plan)).toEqual(["dropPoolFinalizer"]);
  });

  it("frees its machines though its spec is illegal", () => {
    const pool = aPool({ ...deleting, spec: aSpec({ maxUnavailable: "0%" }) });
    expect(namesOf(planOf({ pool, vms: someVms(2) }), "dropVmFinalizer")).toEqual(["web-0", "web-1"]);
    expect(kindsOf(planOf({ pool, vms: [] }))).toEqual(["dropPoolFinalizer"]);
  });

  it("frees its machines though its spec is garbage", () => {
    const pool = aPool({ ...deleting, spec: null });
    expect(namesOf(planOf({ pool, vms: someVms(1) }), "dropVmFinalizer")).toEqual(["web-0"]);
  });

  it("frees its machines though its selector does not match its template (D19)", () => {
    const pool = aPool({ ...deleting, spec: aSpec({ selector: { matchLabels: { app: "db" } } }) });
    expect(namesOf(planOf({ pool, vms: someVms(2) }), "dropVmFinalizer")).toEqual(["web-0", "web-1"]);
    expect(kindsOf(planOf({ pool, vms: [] }))).toEqual(["dropPoolFinalizer"]);
  });

  it("frees its machines while it is paused", () => {
    const pool = aPool({ ...deleting, spec: aSpec({ paused: true }) });
    expect(namesOf(planOf({ pool, vms: someVms(1) }), "dropVmFinalizer")).toEqual(["web-0"]);
  });

  it("neither creates nor deletes machines, whatever is wanted", () => {
    for (const replicas of [0, 9]) {
      const plan = planOf({
        pool: aPool({ ...deleting, spec: aSpec({ replicas }) }),
        vms: someVms(2, { finalizers: [] }),
      });
      expect(kindsOf(plan)).toEqual(["dropPoolFinalizer"]);
    }
  });

  it("asks for all machines of the namespace before it lets go", () => {
    expect(planOf({ pool: aPool(deleting), narrow: true })).toMatchObject({
      needs: [{ read: "namespaceVms" }],
      actions: [],
    });
  });

  it("asks for the machines whose disks it keeps in one order, whatever the order of the list", () => {
    const scaleInStrategy = { proactive: { statePreservation: "Offline" } };
    const pool = aPool({ ...deleting, spec: aSpec({ scaleInStrategy }) });
    const vms = someVms(3, { terminating: true });
    const names = planOf({ pool, vms: vms.toReversed() }).needs.flatMap((need) =>
      need.read === "disks" ? need.vms.map(({ name }) => name) : [],
    );
    expect(names).toEqual(["web-0", "web-1", "web-2"]);
  });

  it("is left to others when our finalizer is gone", () => {
    const plan = planOf({ pool: aPool({ ...deleting, finalizers: ["foregroundDeletion"] }), vms: someVms(2) });
    expect(plan).toMatchObject({ needs: [], actions: [] });
  });

  it("waits for machines that may still be created (D16)", () => {
    const claim = aClaim({ create: new Map([[0, NOW - T + 1]]) });
    const plan = planOf({ pool: aPool({ ...deleting, claim }) });
    expect(plan.actions).toEqual([]);
    expect(plan.reasons.join()).toContain("1 machines that were being created may still appear");
  });

  it("waits no more when those creates can take no effect", () => {
    const claim = aClaim({ create: new Map([[0, NOW - T]]) });
    expect(kindsOf(planOf({ pool: aPool({ ...deleting, claim }) }))).toEqual(["dropPoolFinalizer"]);
  });

  it("frees a machine that appeared late", () => {
    const claim = aClaim({ create: new Map([[0, NOW - 1_000]]) });
    const plan = planOf({ pool: aPool({ ...deleting, claim }), vms: [aVm(0)] });
    expect(namesOf(plan, "dropVmFinalizer")).toEqual(["web-0"]);
  });

  // A pass whose answer was lost, or that repeats another's create, may send a create twice. That its machine exists
  // now does not mean that the second one cannot land once the machine is gone: it then hangs for ever, as its pool is no more.
  it("waits though a machine of that name exists, as its create may have been sent twice", () => {
    const claim = aClaim({ create: new Map([[0, NOW - 1_000]]) });
    const vms = [aVm(0, { finalizers: [], terminating: true })];
    expect(planOf({ pool: aPool({ ...deleting, claim }), vms }).actions).toEqual([]);
  });

  // Its calls are as late here as anywhere, and a machine that they create would hang for ever.
  it("waits while calls of an unknown earlier pass may still land", () => {
    const claim = aClaim({ waitUntil: NOW + 1_000 });
    expect(kindsOf(planOf({ pool: aPool({ ...deleting, claim }) }))).not.toContain("dropPoolFinalizer");
    const over = aClaim({ waitUntil: NOW });
    expect(kindsOf(planOf({ pool: aPool({ ...deleting, claim: over }) }))).toEqual(["dropPoolFinalizer"]);
  });

  it("does not drop its finalizer at once when its claim cannot be read", () => {
    expect(kindsOf(planOf({ pool: aPool({ ...deleting, claim: "garbled" }) }))).toEqual(["writeClaim"]);
  });

  // Seed 87 of the simulation: a user took the annotations of a deleted pool while a create was under way.
  it("does not drop its finalizer at once when somebody took its claim", () => {
    expect(kindsOf(planOf({ pool: aPool({ ...deleting, claim: null }) }))).toEqual(["writeClaim"]);
  });
});
