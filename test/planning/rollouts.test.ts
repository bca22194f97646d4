/** Roll-outs under the claim: what overlapping and crashed passes leave, when the record says done, and what holds for each of them. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  CLAIM_ITEMS_MAX,
  type Claim,
  claimedObject,
  formatClaim,
  parseClaim,
  type Rollout,
} from "../../shared/planning/claim.ts";
import { fnv1a } from "../../shared/planning/hash.ts";
import { type Instance, isOwnedBy, poolSpecSchema, type Vm } from "../../shared/planning/model.ts";
import { CLAIM_ANNOTATION, REVISION_LABEL, UPDATED_ANNOTATION } from "../../shared/planning/names.ts";
import type { Limits, Observation, Plan } from "../../shared/planning/plan.ts";
import { templateHash } from "../../shared/planning/template-change.ts";
import { isUpToDate, resolveMaxUnavailable } from "../../shared/planning/update.ts";
import { judge } from "../../shared/planning/verdict.ts";
import {
  aClaim,
  anInstance,
  anObservation,
  aPool,
  aRevision,
  aRollout,
  aSpec,
  aVm,
  aVmSpec,
  deepFreeze,
  type Json,
  LABELS,
  NOW,
  OTHER_POOL_UID,
  POOL_UID,
} from "../support/builders.ts";
import {
  ANNOTATES,
  aChangedPool,
  aTemplate,
  type ChangedPool,
  LIVES,
  MEMORY,
  REPLACES,
  RESTARTS,
} from "../support/changed-pools.ts";
import {
  ACTING,
  CLOSING,
  claimIn,
  createsOf,
  deletesOf,
  kindsOf,
  namesOf,
  planOf,
  planRead,
  prunesOf,
  restartedIn,
  restartsOf,
  updatesOf,
} from "./plans.ts";

type Setting = Partial<ChangedPool>;

const THREE = [0, 1, 2] as const;
const moved = THREE.map((ordinal) => aVm(ordinal, { revision: "web-2" }));
const stale = THREE.map((ordinal) => anInstance(ordinal));
const fresh = THREE.map((ordinal) => anInstance(ordinal, { revision: "web-2" }));

/** Plans with one unavailable at most. */
function rollOut({ spec, ...changes }: ChangedPool, limits: Limits = ACTING): Plan {
  return planOf(aChangedPool({ ...changes, spec: { maxUnavailable: 1, ...spec } }), limits);
}

const swap = <T>(list: readonly T[], at: number, item: T) => list.map((old, index) => (index === at ? item : old));

const restartOf = (ordinal: number) => claimedObject(anInstance(ordinal), ordinal);
const deleteOf = (ordinal: number) => claimedObject(aVm(ordinal), ordinal);
const revokedOf = ({ actions }: Plan) =>
  actions.flatMap((action) => (action.kind === "revokeRestart" ? [action.instance.name] : []));

describe("a claimed restart", () => {
  it("is written before it is sent", () => {
    const plan = rollOut({ vms: moved, instances: stale });
    const [restart] = restartedIn(plan);
    expect(kindsOf(plan)).toEqual(["writeClaim", "restartInstance"]);
    expect(claimIn(plan)?.restart).toEqual([restart && claimedObject(restart, Number(restart.name.slice(4)))]);
  });

  it.each(THREE)("that is unfinished comes first and counts once (web-%i)", (ordinal) => {
    const plan = rollOut({ vms: moved, instances: stale, claim: { restart: [restartOf(ordinal)] } });
    expect(restartsOf(plan)).toEqual([`web-${ordinal}`]);
    expect(claimIn(plan)?.restart).toEqual([restartOf(ordinal)]);
    expect(revokedOf(plan)).toEqual([]);
  });

  it("is sent once, with others", () => {
    const plan = rollOut({
      spec: { maxUnavailable: 3 },
      vms: moved,
      instances: stale,
      claim: { restart: [restartOf(1)] },
    });
    expect(restartsOf(plan).toSorted()).toEqual(["web-0", "web-1", "web-2"]);
  });

  it.each<[string, readonly Instance[]]>([
    ["gone", stale.slice(1)],
    ["terminating", swap(stale, 0, { ...anInstance(0), terminating: true })],
    ["another", swap(stale, 0, anInstance(0, { uid: "0ddba11f-0000", revision: "web-2", ready: false }))],
  ])("is finished when its instance is %s, and the budget is still spent", (_what, instances) => {
    const plan = rollOut({ vms: moved, instances, claim: { restart: [restartOf(0)] } });
    expect([restartsOf(plan), revokedOf(plan), claimIn(plan)?.restart]).toEqual([[], [], []]);
  });

  it.each<[string, ChangedPool]>([
    [
      "the template is the old one again",
      {
        to: aTemplate(),
        revisions: [aRevision()],
        vms: THREE.map((ordinal) => aVm(ordinal)),
        instances: stale,
      },
    ],
    ["the pool is paused", { spec: { paused: true }, vms: moved, instances: stale }],
    ["updates are unmanaged", { spec: { updateStrategy: { unmanaged: {} } }, vms: moved, instances: stale }],
    ["updates are opportunistic", { spec: { updateStrategy: { opportunistic: {} } }, vms: moved, instances: stale }],
    [
      "the budget is spent on another",
      { vms: moved, instances: swap(stale, 2, { ...anInstance(2), terminating: true }) },
    ],
    [
      "the machine waits for yet another template",
      {
        vms: swap(
          moved,
          0,
          aVm(0, { revision: "web-2", annotations: { [UPDATED_ANNOTATION]: new Date(NOW).toISOString() } }),
        ),
        instances: swap(fresh, 0, anInstance(0)),
      },
    ],
  ])("is revoked before the claim drops it when %s", (_what, setting) => {
    const plan = rollOut({ claim: { restart: [restartOf(0)] }, ...setting });
    expect(revokedOf(plan)).toEqual(["web-0"]);
    expect(kindsOf(plan).indexOf("revokeRestart")).toBeLessThan(kindsOf(plan).indexOf("writeClaim"));
    expect(claimIn(plan)?.restart).not.toContainEqual(restartOf(0));
  });

  it("is revoked with others in the order of their names", () => {
    const setting = { spec: { paused: true }, vms: moved, claim: { restart: [restartOf(0), restartOf(2)] } };
    for (const instances of [stale, stale.toReversed()])
      expect(revokedOf(rollOut({ ...setting, instances }))).toEqual(["web-0", "web-2"]);
  });

  it("is looked up though the pool is at rest, or paused", () => {
    const pool = aPool({ spec: aSpec({ paused: true }), claim: aClaim({ restart: [restartOf(0)] }) });
    expect(planOf({ pool, vms: THREE.map((ordinal) => aVm(ordinal)) }).needs).toEqual([{ read: "instances" }]);
  });

  it("stays on record when the pass may restart nothing", () => {
    const plan = rollOut({ vms: moved, instances: stale, claim: { restart: [restartOf(1)] } }, CLOSING);
    expect([kindsOf(plan), claimIn(plan)]).toEqual([[], undefined]);
  });
});

describe("a claimed replacement", () => {
  const old = THREE.map((ordinal) => aVm(ordinal));
  const replace = (changes: Setting) => rollOut({ to: REPLACES, vms: old, instances: stale, ...changes });

  it("is a delete in the claim, written before it is sent", () => {
    const plan = replace({});
    expect(kindsOf(plan)).toEqual(["writeClaim", "deleteVm"]);
    expect(claimIn(plan)?.delete).toHaveLength(1);
  });

  it.each(THREE)("that is unfinished comes first and counts once (web-%i)", (ordinal) => {
    const plan = replace({ claim: { delete: [deleteOf(ordinal)] } });
    expect([deletesOf(plan), namesOf(plan, "revokeDelete")]).toEqual([[`web-${ordinal}`], []]);
  });

  it("stays on record and is not sent when the pass may restart nothing", () => {
    const changes = { to: REPLACES, vms: old, instances: stale, claim: { delete: [deleteOf(1)] } };
    expect(kindsOf(rollOut(changes, CLOSING))).toEqual([]);
  });

  it("becomes the delete of scale in when there are too many, and counts there", () => {
    const plan = replace({ spec: { replicas: 2 }, claim: { delete: [deleteOf(1)] } });
    expect(deletesOf(plan)).toContain("web-1");
    expect(deletesOf(plan)).toHaveLength(2);
  });

  it("is revoked when the machine may stay", () => {
    const plan = rollOut({ vms: moved, instances: fresh, claim: { delete: [deleteOf(1)] } });
    expect(namesOf(plan, "revokeDelete")).toEqual(["web-1"]);
    expect(claimIn(plan)?.delete).toEqual([]);
  });

  it("spares a machine whose label forbids to delete it, and goes on with the others", () => {
    const labels = { ...LABELS, "kubevirt.io/vm-delete-protection": "True" };
    const plan = replace({ vms: [aVm(0, { labels }), aVm(1), aVm(2)], spec: { maxUnavailable: 3 } });
    expect(deletesOf(plan).toSorted()).toEqual(["web-1", "web-2"]);
    expect(plan.reasons.join()).toContain("its label kubevirt.io/vm-delete-protection keeps it");
  });

  it("is another thing than a restart, which that label does not forbid", () => {
    const labels = { ...LABELS, "kubevirt.io/vm-delete-protection": "True" };
    const vms = swap(moved, 0, aVm(0, { revision: "web-2", labels }));
    expect(restartsOf(rollOut({ vms, instances: swap(fresh, 0, anInstance(0)) }))).toEqual(["web-0"]);
  });

  it("fits the claim with the deletes of scale in, however many there are", () => {
    const vms = Array.from({ length: 900 }, (_, ordinal) => aVm(ordinal));
    const claim = { delete: vms.slice(0, 500).map((vm) => claimedObject(vm, vm.ordinal)) };
    const plan = replace({ vms, instances: [], claim, spec: { replicas: 400 } });
    const items = claimIn(plan);
    expect(items?.delete.length).toBe(CLAIM_ITEMS_MAX);
    expect(items && parseClaim(formatClaim({ ...aClaim(), ...items }))).toBeDefined();
  });
});

describe("the record of a roll-out", () => {
  const done = { template: expect.any(String), revisions: ["web-2"], instances: true, generation: 2 };
  const current = { ownRevisions: [] };

  it("is written when every machine and instance follows the template", () => {
    const plan = rollOut({ vms: moved, instances: fresh, ...current });
    expect([kindsOf(plan), claimIn(plan)?.rollout]).toEqual([["writeClaim"], done]);
  });

  it("is written when a machine without an instance had ten seconds to boot the template before", () => {
    const annotations = { [UPDATED_ANNOTATION]: new Date(NOW - 10_000).toISOString() };
    const vms = swap(moved, 0, aVm(0, { revision: "web-2", annotations }));
    expect(claimIn(rollOut({ vms, instances: fresh.slice(1), ...current }))?.rollout).toEqual(done);
  });

  it("says of an opportunistic update that instances were not looked at", () => {
    const spec = { updateStrategy: { opportunistic: {} } };
    expect(claimIn(rollOut({ spec, vms: moved, instances: stale, ...current }))?.rollout).toEqual({
      ...done,
      instances: false,
    });
  });

  const justMoved = aVm(0, {
    revision: "web-2",
    annotations: { [UPDATED_ANNOTATION]: new Date(NOW - 9_999).toISOString() },
  });
  const freshOne = anInstance(0, { revision: "web-2" });

  it.each<[string, Setting]>([
    ["an older instance is on its way out", { instances: swap(fresh, 0, { ...anInstance(0), terminating: true }) }],
    [
      "a machine without an instance has only just got the template",
      { vms: swap(moved, 0, justMoved), instances: fresh.slice(1) },
    ],
    [
      "a machine whose instance is on its way out has only just got the template that this one runs",
      { vms: swap(moved, 0, justMoved), instances: swap(fresh, 0, { ...freshOne, terminating: true }) },
    ],
    [
      "a machine whose guest has shut down has only just got the template that it ran",
      { vms: swap(moved, 0, justMoved), instances: swap(fresh, 0, { ...freshOne, ready: false, final: true }) },
    ],
    ["an instance is older", { instances: swap(fresh, 0, anInstance(0)) }],
    ["a machine is older", { vms: swap(moved, 0, aVm(0)) }],
  ])("is not written while %s", (_what, setting) => {
    expect(claimIn(rollOut({ vms: moved, instances: fresh, ...current, ...setting }))?.rollout).toBeUndefined();
  });

  const left = aVm(3, { revision: "web-2", labels: { app: "debug" } });

  it("is not written before a machine whose labels left is let go, which may run the template before and come back", () => {
    const plan = rollOut({ vms: [...moved, left], instances: fresh, spec: { replicas: 3 }, ...current });
    expect(kindsOf(plan)).toContain("releaseVm");
    expect(claimIn(plan)?.rollout).toBeUndefined();
  });

  it("is not held up by such a machine that is on its way out", () => {
    const vms = [...moved, aVm(3, { revision: "web-2", labels: { app: "debug" }, terminating: true })];
    const plan = rollOut({ vms, instances: fresh, spec: { replicas: 3 }, ...current });
    expect(claimIn(plan)?.rollout).toEqual(done);
  });

  it("is written after a look at all that the pool controls, whatever its labels", () => {
    const setting = { vms: moved, instances: fresh, ...current, narrow: true };
    expect(rollOut(setting).needs).toEqual([{ read: "namespaceVms" }]);
    expect(rollOut({ ...setting, spec: { updateStrategy: { opportunistic: {} } } }).needs).toEqual([]);
    expect(rollOut({ ...setting, instances: stale }).needs).toEqual([]);
  });

  it("is taken back, should another pass write it meanwhile, before a machine is moved", () => {
    const claim = { generation: 2, rollout: undefined };
    const plan = rollOut({ vms: swap(moved, 0, aVm(0)), instances: fresh.slice(1), ...current, claim });
    expect(kindsOf(plan)).toEqual(["writeClaim", "updateVm"]);
  });

  it("is not written while a machine that was not looked at is only claimed for deletion", () => {
    const claim = { delete: [deleteOf(2)] };
    const plan = rollOut({ vms: moved, instances: swap(fresh, 2, anInstance(2)), spec: { replicas: 2 }, claim });
    expect(kindsOf(plan)).toContain("deleteVm");
    expect(claimIn(plan)?.rollout).toBeUndefined();
  });

  it("says of an unmanaged pool nothing but what its next machine is to name", () => {
    const spec = { updateStrategy: { unmanaged: {} } };
    const plan = rollOut({ spec, vms: [aVm(0), aVm(1, { revision: "web-2" })], ...current });
    expect(claimIn(plan)?.rollout).toEqual({ ...done, instances: false });
  });

  it("goes as far as an opportunistic strategy asks, and no further than a proactive one does", () => {
    const look = (updateStrategy: Json) => {
      const spec = judgeSpec(aSpec({ updateStrategy }));
      const rollout = { template: templateHash(spec), revisions: ["web-1"], instances: false, generation: 1 };
      return planOf({ pool: aPool({ spec, claim: aClaim({ rollout }) }), vms: THREE.map((n) => aVm(n)), narrow: true });
    };
    expect(look({ opportunistic: {} })).toMatchObject({ needs: [], actions: [] });
    expect(look({ unmanaged: {} })).toMatchObject({ needs: [], actions: [] });
    expect(look({ proactive: {} }).needs).toEqual([{ read: "instances" }]);
  });

  it("of an unmanaged pool does not care which revisions machines name", () => {
    const spec = judgeSpec(aSpec({ updateStrategy: { unmanaged: {} } }));
    const rollout = { template: templateHash(spec), revisions: ["web-9"], instances: false, generation: 1 };
    const plan = planOf({ pool: aPool({ spec, claim: aClaim({ rollout }) }), vms: THREE.map((n) => aVm(n)) });
    expect(plan).toMatchObject({ needs: [], actions: [] });
  });

  it("is taken back at the first look at another template", () => {
    const rollout = aRollout(aSpec(), "web-1", 1);
    const plan = rollOut({ vms: THREE.map((ordinal) => aVm(ordinal)), instances: stale, claim: { rollout } });
    expect(kindsOf(plan)).toEqual(["writeClaim", "updateVm", "updateVm", "updateVm"]);
    expect(claimIn(plan)?.rollout).toBeUndefined();
  });

  it("lets a settled pool rest, with nothing read and nothing done (D25)", () => {
    const spec = judgeSpec(aSpec({ virtualMachineTemplate: RESTARTS, maxUnavailable: 1 }));
    const rollout = aRollout(spec, "web-2", 2);
    const vms = swap(moved, 0, { ...moved[0], ready: false } as Vm);
    expect(
      planOf({ pool: aPool({ generation: 2, spec, claim: aClaim({ generation: 2, rollout }) }), vms, narrow: true }),
    ).toMatchObject({ needs: [], actions: [], reasons: [] });
  });

  it("is not that of any template when there is none", () => {
    expect(isUpToDate(undefined, aPool(), judgeSpec(aSpec()))).toBe(false);
  });

  it("is doubted when a machine names another revision", () => {
    expect(planOf({ vms: [aVm(0), aVm(1), aVm(2, { revision: "web-9" })] }).needs.length).toBeGreaterThan(0);
  });

  it("is doubted when a machine's spec was put back from another revision than the machine names", () => {
    const vms = [aVm(0), aVm(1), aVm(2, { spec: aVmSpec("web-0") })];
    const older = aRevision({ name: "web-0", data: aSpec({ virtualMachineTemplate: RESTARTS }) });
    const instances = [...stale.slice(0, 2), anInstance(2, { revision: "web-0" })];
    const plan = planOf({ vms, instances, revisions: [aRevision(), older], ownRevisions: [aRevision(), older] });
    expect(kindsOf(plan)).toEqual(["writeClaim", "updateVm"]);
    expect(claimIn(plan)?.rollout).toBeUndefined();
  });
});

describe("the generation on record", () => {
  const old = THREE.map((ordinal) => aVm(ordinal));
  const known = { revisions: [aRevision()], ownRevisions: [aRevision()], instances: stale, liveUpdates: false };
  /** The pool's template, as it is read now. */
  const poolOf = (template: Json, fields: { generation?: number; spec?: Json; rollout?: Rollout; at?: number }) => {
    const { generation = 1, spec = {}, rollout = aRollout(aSpec(), "web-1", 1), at = generation } = fields;
    const wanted = aSpec({ virtualMachineTemplate: template, ...spec });
    return aPool({ generation, spec: wanted, claim: aClaim({ generation: at, rollout }) });
  };
  const readAnew = aRollout(aSpec({ virtualMachineTemplate: REPLACES }), "web-1", 1);

  it("tells that the template is the same though it is read another way, as after an upgrade of KubeVirt", () => {
    const plan = planOf({ pool: poolOf(REPLACES, {}), vms: old, ...known });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.rollout).toEqual(readAnew);
  });

  it("lets the pool rest once the new reading is on record", () => {
    const plan = planOf({ pool: poolOf(REPLACES, { ...(readAnew && { rollout: readAnew }) }), vms: old, narrow: true });
    expect(plan).toMatchObject({ needs: [], actions: [] });
  });

  it("makes that reading hold for machines that are made later, which name the revision on record", () => {
    const scaled = { generation: 2, at: 1, spec: { replicas: 4 }, ...(readAnew && { rollout: readAnew }) };
    const plan = planOf({ pool: poolOf(REPLACES, scaled), vms: old, ...known, keptDisks: [] });
    expect(kindsOf(plan)).toEqual(["writeClaim", "createVm"]);
    expect(plan.actions).toContainEqual(expect.objectContaining({ ordinal: 3, revision: "web-1" }));
    expect(claimIn(plan)?.rollout).toEqual({ ...readAnew, generation: 2 });
  });

  it("has machines of the same generation name the revision on record, however the template is read", () => {
    const plan = planOf({ pool: poolOf(REPLACES, {}), vms: old.slice(1), ...known, keptDisks: [] });
    expect(plan.actions).toContainEqual(expect.objectContaining({ kind: "createVm", revision: "web-1" }));
  });

  it.each([
    ["is an earlier pool's", aRevision({ owner: "earlier-uid" })],
    ["says nothing that can be read", aRevision({ data: { replicas: 1 } })],
  ])("has no machine name a revision on record that %s", (_what, revision) => {
    const plan = planRead(anObservation({ pool: poolOf(REPLACES, {}), vms: [], revision }), ACTING);
    expect(createsOf(plan)).toEqual([0, 1, 2]);
    expect(plan.actions).not.toContainEqual(expect.objectContaining({ kind: "createVm", revision: "web-1" }));
  });

  it("follows that of the pool while the template stays", () => {
    const plan = planOf({ pool: poolOf(aTemplate(), { generation: 2, at: 1 }), vms: old, narrow: true });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.rollout).toEqual(aRollout(aSpec(), "web-1", 2));
  });

  it("is added to a record of an older release, which says nothing of it", () => {
    const { generation: _, ...rollout } = aRollout(aSpec(), "web-1") ?? {};
    const pool = poolOf(aTemplate(), { rollout: rollout as Rollout });
    expect(claimIn(planOf({ pool, vms: old, narrow: true }))?.rollout).toEqual(aRollout(aSpec(), "web-1", 1));
    const changed = poolOf(RESTARTS, { rollout: rollout as Rollout });
    expect(planOf({ pool: changed, vms: old }).needs.length).toBeGreaterThan(0);
  });

  it.each<[string, Json, readonly Vm[]]>([
    ["is paused", { paused: true }, old],
    ["has no machine", { replicas: 0 }, []],
  ])(
    "stays when the template changes while the pool %s: the record is not taken for one of the new template",
    (...row) => {
      const [, spec, vms] = row;
      const plan = planOf({ pool: poolOf(RESTARTS, { generation: 2, at: 1, spec }), vms });
      expect(kindsOf(plan)).toEqual(["writeClaim"]);
      expect(claimIn(plan)?.rollout).toEqual(aRollout(aSpec(), "web-1", 1));
      const next = rollOut({ vms: old, instances: stale, claim: { rollout: claimIn(plan)?.rollout } });
      expect(kindsOf(next)).toEqual(["writeClaim", "updateVm", "updateVm", "updateVm"]);
    },
  );

  it("stands in the first claim of a pool", () => {
    const plan = planRead(
      anObservation({ pool: aPool({ claim: null, finalizers: [], generation: 7 }), vms: [] }),
      ACTING,
    );
    expect(claimIn(plan)?.rollout).toEqual(aRollout(aSpec(), "web-7", 7));
  });
});

const judgeSpec = (spec: Json) => {
  const verdict = judge({ name: "web", spec });
  if (!verdict.legal) throw new Error("the test's own spec is not legal");
  return verdict.spec;
};

describe("revisions that nothing names", () => {
  const unused = aRevision({ name: "web-0" });
  const inForce = aRevision({ name: "web-2", generation: 2, data: aSpec({ virtualMachineTemplate: RESTARTS }) });
  const withUnused = (changes: Setting = {}) => {
    const own = [unused, inForce];
    return rollOut({ vms: moved, instances: fresh, revisions: own, ownRevisions: own, ...changes });
  };

  it("go when the roll-out is done, before the record is written", () => {
    expect(prunesOf(withUnused())).toEqual(["web-0"]);
    expect(claimIn(withUnused())?.rollout).toBeUndefined();
  });

  it.each<[string, Setting]>([
    ["a machine is to be moved from it", { vms: swap(moved, 0, aVm(0, { revision: "web-0" })) }],
    [
      "a machine that cannot be moved names it",
      { vms: swap(moved, 0, { ...aVm(0, { revision: "web-0" }), spec: undefined }) },
    ],
    ["an instance is to be restarted from it", { instances: swap(fresh, 0, anInstance(0, { revision: "web-0" })) }],
    [
      "an instance that is about to stop names it",
      {
        vms: swap(moved, 0, { ...aVm(0, { revision: "web-2" }), requested: true }),
        instances: swap(fresh, 0, anInstance(0, { revision: "web-0" })),
      },
    ],
    ["a machine that names it may still appear", { claim: { create: new Map([[7, NOW - 1_000]]) } }],
  ])("stay while %s, and are not forgotten then", (_what, changes) => {
    const plan = withUnused(changes);
    expect([plan.needs, prunesOf(plan), claimIn(plan)?.rollout]).toEqual([[], [], undefined]);
  });

  it.each<[string, Setting]>([
    ["a machine", { vms: swap(moved, 0, aVm(0, { revision: "web-0", terminating: true })) }],
    ["an instance", { instances: swap(fresh, 0, anInstance(0, { revision: "web-0", terminating: true })) }],
  ])("go though %s on its way out names it, which is compared with nothing any more", (_what, changes) => {
    expect(prunesOf(withUnused(changes))).toEqual(["web-0"]);
  });

  it.each<[string, Setting]>([
    ["unmanaged", { spec: { updateStrategy: { unmanaged: {} } } }],
    ["opportunistic", { spec: { updateStrategy: { opportunistic: {} } } }],
    ["of a size that cannot be reached (D21)", { spec: { replicas: 1, scaleInStrategy: { unmanaged: {} } } }],
    [
      "with a machine that cannot follow",
      { vms: [...moved, { ...aVm(3, { revision: "web-1" }), spec: undefined }], spec: { replicas: 4 } },
    ],
  ])("go in a pool that is %s, too", (_what, setting) => {
    expect(prunesOf(withUnused(setting))).toEqual(["web-0"]);
  });

  it("stay while a machine is moved, which is what is done then", () => {
    const own = [unused, aRevision(), inForce];
    const plan = withUnused({ vms: swap(moved, 0, aVm(0)), revisions: own, ownRevisions: own });
    expect([updatesOf(plan).length, prunesOf(plan)]).toEqual([1, []]);
  });

  it("go though a machine gives its guest no labels", () => {
    const spec = aVmSpec(null, { template: { spec: { domain: {} } } });
    expect(prunesOf(withUnused({ vms: swap(moved, 0, aVm(0, { revision: "web-2", spec })) }))).toEqual(["web-0"]);
  });

  it("go in the order of their names, no more than one look may change, under a claim or without one", () => {
    const own = [aRevision({ name: "web-1" }), unused, inForce];
    const changes: ChangedPool = { vms: moved, instances: fresh, revisions: own, ownRevisions: own };
    expect(prunesOf(rollOut(changes))).toEqual(["web-0", "web-1"]);
    expect(prunesOf(rollOut(changes, { ...ACTING, updatesMax: 1 }))).toEqual(["web-0"]);
  });

  it("stay while the one in force is not made: another may hold its template", () => {
    const own = [unused, aRevision({ name: "web-1" })];
    expect(prunesOf(withUnused({ ownRevisions: own }))).toEqual([]);
  });

  it("are asked for with the instances before they are judged", () => {
    const spec = { updateStrategy: { unmanaged: {} } };
    const seen = aChangedPool({ spec, vms: moved });
    const { ownRevisions: _, instances: __, ...unread } = seen;
    for (const known of [unread, { ...unread, ownRevisions: [] }, { ...unread, instances: [] }]) {
      expect(planOf(known)).toMatchObject({ needs: [{ read: "instances" }], actions: [] });
    }
    const { instances: ___, ...claiming } = aChangedPool({ spec, vms: moved, claim: { restart: [restartOf(0)] } });
    expect(planOf(claiming)).toMatchObject({ needs: [{ read: "instances" }], actions: [] });
  });

  it("go only after the claim, which a pass that another template has overtaken cannot write", () => {
    const kinds = kindsOf(withUnused({ claim: { rollout: undefined } }));
    expect(kinds).toEqual(["writeClaim", "pruneRevision"]);
  });

  it("stay when the pool is paused", () => {
    expect(prunesOf(withUnused({ spec: { paused: true } }))).toEqual([]);
  });

  it("never are the one in force, though no machine names it (D33)", () => {
    const vms = [aVm(0, { revision: "web-1" })];
    const revisions = [aRevision(), aRevision({ name: "web-2", generation: 2 })];
    const plan = planOf({
      pool: aPool({
        generation: 2,
        spec: aSpec({ replicas: 1 }),
        claim: aClaim({ generation: 2, rollout: undefined }),
      }),
      vms,
      revisions,
      instances: [],
      ownRevisions: revisions,
    });
    expect(prunesOf(plan)).toEqual(["web-2"]);
    expect(
      prunesOf(
        rollOut({
          vms: [aVm(0, { revision: "web-1" })],
          instances: [],
          spec: { replicas: 1, updateStrategy: { unmanaged: {} } },
        }),
      ),
    ).toEqual([]);
  });
});

it("takes machines for the first of a new pool only where there is no other, not even one to be let go", () => {
  const pool = aPool({ claim: null, finalizers: [] });
  const rolloutBeside = (...vms: readonly Vm[]) => {
    const plan = planOf({ pool, vms });
    expect(createsOf(plan).length).toBeGreaterThan(0);
    return claimIn(plan)?.rollout;
  };
  expect(rolloutBeside()?.revisions).toEqual(["web-1"]);
  expect(rolloutBeside(aVm(0, { labels: { app: "mine" } }))).toBeUndefined();
});

it("moves machines to the revision that others name when the one on record was never made", () => {
  const vms = [aVm(0), aVm(1), aVm(2, { revision: "web-2" })];
  const { pool, ...seen } = aChangedPool({ vms });
  const template = templateHash(poolSpecSchema.parse(pool?.spec));
  // An unmanaged pool records what its next machine is to name; then it was edited again.
  const rollout = { template, revisions: ["web-9"], instances: false };
  const edited = aPool({ generation: 3, spec: pool?.spec, claim: aClaim({ generation: 2, rollout }) });
  const plan = planRead(anObservation({ ...seen, pool: edited }), ACTING);
  expect(updatesOf(plan).map(({ vm, revision }) => [vm.name, revision])).toEqual([
    ["web-0", "web-2"],
    ["web-1", "web-2"],
  ]);
});

describe("the revisions that machines name", () => {
  const asked = (...names: readonly string[]) => {
    const pool = aPool({
      generation: 99,
      spec: aSpec({ replicas: names.length }),
      claim: aClaim({ rollout: undefined }),
    });
    const vms = names.map((revision, ordinal) => aVm(ordinal, { revision }));
    return planOf({ pool, vms }).needs.flatMap((need) => (need.read === "revisions" ? need.names : []));
  };

  it("are asked for one with the template in force, those of the most machines first, then by name", () => {
    expect(asked("web-9", "web-7", "web-8", "web-6", "web-8", "web-7", "web-8")).toEqual([
      "web-8",
      "web-7",
      "web-6",
      "web-9",
    ]);
  });

  it("are asked for only a few of many", () => {
    const names = Array.from({ length: 30 }, (_, index) => `web-${index + 10}`);
    expect(asked(...names)).toEqual(names.slice(0, 20));
  });

  it("give new machines the one that most of them name", () => {
    const pool = aPool({ generation: 9, spec: aSpec({ replicas: 4 }), claim: aClaim({ rollout: undefined }) });
    const vms = [aVm(0, { revision: "web-7" }), aVm(1, { revision: "web-8" }), aVm(2, { revision: "web-8" })];
    const revisions = [aRevision({ name: "web-7", generation: 7 }), aRevision({ name: "web-8", generation: 8 })];
    const plan = planOf({ pool, vms, revisions, instances: [], ownRevisions: revisions });
    expect(plan.actions.at(-1)).toMatchObject({ kind: "createVm", revision: "web-8" });
  });
});

describe("a leftover of an earlier pool", () => {
  const spec = aSpec({ virtualMachineTemplate: RESTARTS });
  const leftover = aRevision({ name: "web-2", owner: "earlier-uid", data: spec });
  const suffixed = `web-2-${fnv1a(POOL_UID).slice(0, 8)}`;
  const pool = aPool({ generation: 2, spec, claim: aClaim({ generation: 2, rollout: undefined }) });

  it("does not name machines, nor makes them outdated again and again (D18)", () => {
    const plan = planOf({
      pool,
      vms: THREE.map((ordinal) => aVm(ordinal)),
      revisions: [aRevision(), leftover],
      instances: stale,
    });
    expect(updatesOf(plan).map(({ revision }) => revision)).toEqual([suffixed, suffixed, suffixed]);
    const own = aRevision({ name: suffixed, data: spec });
    const vms = THREE.map((ordinal) => aVm(ordinal, { revision: suffixed }));
    const instances = THREE.map((ordinal) => anInstance(ordinal, { revision: suffixed }));
    const next = planOf({ pool, vms, revisions: [own, leftover], instances, ownRevisions: [own] });
    expect(kindsOf(next)).toEqual(["writeClaim"]);
  });

  it("holds the pool, and it says why, when no other name is short enough (D22)", () => {
    const name = "w".repeat(60);
    const long = aPool({ name, spec: aSpec({ replicas: 1 }), claim: aClaim({ rollout: undefined }) });
    const plan = planOf({ pool: long, revision: aRevision({ name: `${name}-1`, owner: "earlier-uid" }) });
    expect(plan.reasons.join()).toContain("is taken by one that is not this pool's");
    expect(plan.actions).toEqual([]);
  });
});

describe("a pool that comes from the reference, without a claim", () => {
  const pool = (claim: Claim | null) => aPool({ generation: 5, claim });
  const vms = THREE.map((ordinal) => aVm(ordinal, { revision: `web-${ordinal + 1}` }));
  const revisions = THREE.map((ordinal) => aRevision({ name: `web-${ordinal + 1}`, generation: ordinal + 1 }));
  const instances = THREE.map((ordinal) => anInstance(ordinal, { revision: `web-${ordinal + 1}` }));

  it("waits first, whatever is to be rolled out", () => {
    expect(kindsOf(planOf({ pool: pool(null), vms, revisions, instances }))).toEqual(["writeClaim"]);
  });

  it("is taken over without a restart when its machines have one template under many names", () => {
    const claim = aClaim({ generation: 5, rollout: undefined, since: { at: NOW, generation: 5, naming: "+" } });
    const plan = planOf({ pool: pool(claim), vms, revisions, instances, ownRevisions: revisions });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.rollout?.revisions.toSorted()).toEqual(["web-1", "web-2", "web-3"]);
    const others = THREE.map((ordinal) => aVm(ordinal, { revision: `web-${3 - ordinal}` }));
    const again = planOf({ pool: pool(claim), vms: others, revisions, instances: [], ownRevisions: revisions });
    expect(claimIn(again)?.rollout).toEqual(claimIn(plan)?.rollout);
  });
});

// --- for every roll-out

/** Of the pool, and in the middle of an ordinary roll-out. */
const sound = fc.record({
  ordinal: fc.nat(7),
  pool: fc.constant(POOL_UID),
  revision: fc.constantFrom("web-1", "web-2", "web-2"),
  spec: fc.constant(undefined),
  labels: fc.constant(LABELS),
  terminating: fc.constant(false),
  requested: fc.constantFrom(false, false, false, false, false, true),
  isRead: fc.constant(true),
  updatedAgoMs: fc.constantFrom(undefined, 30_000, 90_000),
  instance: fc.record({
    revision: fc.constantFrom("web-1", "web-1", "web-2"),
    terminating: fc.constant(false),
    ready: fc.constantFrom(true, true, true, false),
    created: fc.constant("2026-11-22T09:00:00Z"),
    uid: fc.constant(undefined),
  }),
});

const odd = fc.record({
  ordinal: fc.nat(7),
  pool: fc.constantFrom(POOL_UID, POOL_UID, POOL_UID, POOL_UID, OTHER_POOL_UID, null),
  revision: fc.constantFrom("web-1", "web-1", "web-2", "web-2", "web-3", "lost-1", "", null),
  spec: fc.constantFrom(undefined, undefined, ...["web-1", "web-2", "lost-1", ""].map((name) => aVmSpec(name))),
  labels: fc.constantFrom(LABELS, LABELS, LABELS, LABELS, { app: "gone" }),
  terminating: fc.constantFrom(false, false, false, false, true),
  requested: fc.constantFrom(false, false, false, true),
  isRead: fc.constantFrom(true, true, true, true, false),
  updatedAgoMs: fc.constantFrom(undefined, 0, 5_000, 30_000, 90_000, -90_000),
  instance: fc.option(
    fc.record({
      revision: fc.constantFrom("web-1", "web-2", "web-3", null),
      terminating: fc.constantFrom(false, false, false, true),
      ready: fc.constantFrom(true, true, false),
      created: fc.constantFrom("2026-11-22T09:00:00Z", "2026-11-22T09:59:57Z"),
      uid: fc.constantFrom(undefined, "0ddba11f-0000"),
    }),
  ),
});

const machine = fc.oneof({ weight: 5, arbitrary: sound }, { weight: 1, arbitrary: odd });

const anyRollOut: fc.Arbitrary<Observation> = fc
  .record({
    machines: fc.uniqueArray(machine, { selector: ({ ordinal }) => ordinal, maxLength: 7 }),
    to: fc.constantFrom(RESTARTS, REPLACES, LIVES, ANNOTATES),
    /** As many as there are, unless it is another number. */
    resized: fc.oneof({ weight: 3, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: fc.nat(7) }),
    maxUnavailable: fc.constantFrom(1, 2, "50%", undefined),
    paused: fc.constantFrom(false, false, false, false, true),
    updateStrategy: fc.constantFrom<Json | undefined>(
      undefined,
      {},
      { proactive: {} },
      { opportunistic: {} },
      { unmanaged: {} },
      { proactive: { selectionPolicy: { sortPolicy: "DescendingOrder" } } },
    ),
    scaleInStrategy: fc.constantFrom<Json | undefined>(
      undefined,
      undefined,
      { unmanaged: {} },
      { proactive: { statePreservation: "Offline" } },
    ),
    restart: fc.uniqueArray(fc.nat(7), { maxLength: 3 }),
    deletes: fc.uniqueArray(fc.nat(7), { maxLength: 2 }),
    generation: fc.constantFrom(1, 2),
    liveUpdates: fc.boolean(),
    recorded: fc.constantFrom(undefined, undefined, "web-2", "web-1"),
  })
  .map(({ machines, to, restart, deletes, generation, liveUpdates, recorded, resized, ...fields }) => {
    const replicas = resized ?? machines.length;
    const spec = aSpec({ virtualMachineTemplate: to, replicas, ...fields });
    const before = aSpec({ virtualMachineTemplate: aTemplate({ guest: MEMORY }) });
    const revisions = [
      aRevision({ data: before }),
      aRevision({ name: "web-2", generation: 2, data: spec }),
      aRevision({ name: "web-3", owner: "earlier-uid", data: spec }),
    ];
    const rollout =
      recorded && (recorded === "web-2" ? aRollout(spec, recorded, generation) : aRollout(before, recorded, 1));
    const claim = aClaim({ generation, rollout, restart: restart.map(restartOf), delete: deletes.map(deleteOf) });
    const vms = machines.map(({ ordinal, requested, isRead, updatedAgoMs, spec: own, instance: _, ...more }) => {
      const annotations =
        updatedAgoMs === undefined ? {} : { [UPDATED_ANNOTATION]: new Date(NOW - updatedAgoMs).toISOString() };
      const vm = aVm(ordinal, { ...more, annotations, ...(own && { spec: own }) });
      return { ...vm, requested, spec: isRead ? vm.spec : undefined };
    });
    const instances = machines.flatMap(({ ordinal, pool, labels, instance }) => {
      if (instance === null || pool !== POOL_UID || labels !== LABELS) return [];
      const { uid, ...more } = instance;
      return [anInstance(ordinal, uid === undefined ? more : { ...more, uid: `${uid}${ordinal}` })];
    });
    const disks = new Map(vms.map(({ uid }) => [uid, []] as const));
    const seen = anObservation({
      pool: aPool({ generation: 2, spec, claim }),
      vms,
      revisions,
      ownRevisions: revisions.slice(0, 2),
      instances,
      liveUpdates,
      disks,
      keptDisks: [],
      namespaceUid: "ns",
    });
    return deepFreeze(seen);
  });

const limits = fc.constantFrom<Limits>(ACTING, ACTING, CLOSING, {
  createsMax: 1,
  deletesMax: 1,
  updatesMax: 1,
  restartsMax: 1,
});
const RUNS = { numRuns: 250 } as const;
const check = (holds: (seen: Observation, plan: Plan, limit: Limits) => void) =>
  fc.assert(
    fc.property(anyRollOut, limits, (seen, limit) => holds(seen, planRead(seen, limit), limit)),
    RUNS,
  );

const specOf = ({ verdict }: Observation) => {
  if (!verdict.legal) throw new Error("the generator made an illegal spec");
  return verdict.spec;
};
const membersOf = (seen: Observation) => seen.selected.filter((vm) => isOwnedBy(vm, seen.pool));
const instanceOf = (seen: Observation, vm: Vm) => seen.instances?.find(({ vmUid }) => vmUid === vm.uid);
const isAvailable = (seen: Observation, vm: Vm) => {
  const instance = instanceOf(seen, vm);
  // One that is asked to stop is as good as stopped.
  if (vm.terminating || vm.requested || instance === undefined) return false;
  return instance.ready && !instance.terminating;
};
const UPDATE_KINDS = ["updateVm", "restartInstance", "labelInstance"];

describe("every roll-out", () => {
  it("makes no more machines unavailable than maxUnavailable allows (invariant 4, D27)", () =>
    check((seen, plan) => {
      const { replicas, maxUnavailable } = specOf(seen);
      const wanted = replicas ?? 1;
      const members = membersOf(seen);
      const surplus = members.filter(({ terminating }) => !terminating).length - wanted;
      const deleted = plan.actions.flatMap((action) => (action.kind === "deleteVm" ? [action] : []));
      const replaced = deleted.filter(({ why }) => why.includes("replaces")).map(({ vm }) => vm.uid);
      expect(deleted.length - replaced.length).toBeLessThanOrEqual(Math.max(0, surplus));
      // All that the claim names goes, in this loop or in the next.
      const claimed = (claimIn(plan)?.delete ?? []).map(({ uidPrefix }) => uidPrefix);
      const isLeaving = ({ uid }: Vm) => claimed.includes(uid.slice(0, 8)) && !replaced.includes(uid);
      const struck = [...restartedIn(plan).map(({ vmUid }) => vmUid), ...replaced];
      const staying = members.filter((vm) => !isLeaving(vm));
      const available = staying.filter((vm) => isAvailable(seen, vm));
      const lost = available.filter(({ uid }) => struck.includes(uid)).length;
      const down = staying.length - available.length + Math.max(0, wanted - staying.length);
      const most = Math.max(0, resolveMaxUnavailable(maxUnavailable, wanted) - down);
      expect(lost).toBeLessThanOrEqual(most);
    }));

  it("is the same whatever the order of machines, instances, revisions and disks (invariant 10, D37)", () =>
    fc.assert(
      fc.property(anyRollOut, limits, (seen, limit) => {
        const turned: Observation = {
          ...seen,
          selected: seen.selected.toReversed(),
          namespaceVms: seen.namespaceVms?.toReversed(),
          instances: seen.instances?.toReversed(),
          ownRevisions: seen.ownRevisions?.toReversed(),
          revisions: new Map([...seen.revisions].toReversed()),
          disks: new Map([...seen.disks].toReversed()),
        };
        expect(planRead(turned, limit)).toEqual(planRead(seen, limit));
      }),
      RUNS,
    ));

  it("updates, restarts and replaces nothing in an unmanaged or paused pool (invariant 5)", () =>
    check((seen, plan) => {
      const { paused, updateStrategy, replicas } = specOf(seen);
      if (paused !== true && !updateStrategy?.unmanaged) return;
      expect(kindsOf(plan).filter((kind) => UPDATE_KINDS.includes(kind))).toEqual([]);
      const live = membersOf(seen).filter(({ terminating }) => !terminating).length;
      expect(deletesOf(plan).length).toBeLessThanOrEqual(paused === true ? 0 : Math.max(0, live - (replicas ?? 1)));
    }));

  it("names each restart and replacement in the claim of the same plan, and that claim can be read", () =>
    check((seen, plan) => {
      const items = claimIn(plan);
      const acts = [
        ...restartedIn(plan),
        ...plan.actions.flatMap((action) => (action.kind === "deleteVm" ? [action.vm] : [])),
      ];
      if (acts.length === 0) return;
      const named = [...(items?.restart ?? []), ...(items?.delete ?? [])].map(({ uidPrefix }) => uidPrefix);
      for (const { uid } of acts) expect(named).toContain(uid.slice(0, 8));
      expect(items && parseClaim(formatClaim({ ...aClaim({ at: seen.now }), ...items }))).toBeDefined();
    }));

  it("keeps or revokes each claimed restart of an instance that lives", () =>
    check((seen, plan) => {
      const before = parseClaim(seen.pool.annotations?.[CLAIM_ANNOTATION]);
      const items = claimIn(plan);
      if (items === undefined) return;
      const kept = items.restart.map(({ uidPrefix }) => uidPrefix);
      const revoked = plan.actions.flatMap((action) =>
        action.kind === "revokeRestart" ? [action.instance.uid.slice(0, 8)] : [],
      );
      for (const { uidPrefix } of before?.restart ?? []) {
        const lives = seen.instances?.some(({ uid, terminating }) => uid.startsWith(uidPrefix) && !terminating);
        if (lives) expect(kept.includes(uidPrefix) !== revoked.includes(uidPrefix)).toBe(true);
      }
    }));

  it("touches nothing but the pool's own live machines and their instances (invariant 1)", () =>
    check((seen, plan) => {
      const own = membersOf(seen)
        .filter(({ terminating }) => !terminating)
        .map(({ uid }) => uid);
      for (const action of plan.actions) {
        if (action.kind === "updateVm" || action.kind === "deleteVm") expect(own).toContain(action.vm.uid);
        if (action.kind === "restartInstance" || action.kind === "labelInstance")
          expect(own).toContain(action.instance.vmUid);
        if (action.kind === "pruneRevision") expect(action.revision.ownerUid).toBe(POOL_UID);
      }
    }));

  it("restarts only machines of the wanted revision, and none that restarts already", () =>
    check((seen, plan) => {
      for (const action of plan.actions) {
        if (action.kind !== "restartInstance") continue;
        expect(action.vm.labels[REVISION_LABEL]).not.toBe(action.instance.labels[REVISION_LABEL]);
        expect([action.instance.terminating, action.vm.requested]).toEqual([false, false]);
        expect(plan.actions.some((other) => other.kind === "updateVm" && other.vm.uid === action.vm.uid)).toBe(false);
      }
      expect(seen.pool.deleting).toBe(false);
    }));

  it("restarts and replaces no machine for what its spec alone says", () =>
    check((seen, plan) => {
      const replaced = plan.actions.flatMap((action) =>
        action.kind === "deleteVm" && action.why.includes("replaces") ? [action.vm] : [],
      );
      const struck = plan.actions.flatMap((action) => (action.kind === "restartInstance" ? [action.vm] : replaced));
      for (const { labels, spec } of struck) {
        const named = spec?.template.metadata?.labels?.[REVISION_LABEL] ?? "";
        expect(["", labels[REVISION_LABEL]]).toContain(named);
      }
      expect(seen.pool.deleting).toBe(false);
    }));

  it("prunes no revision that something names, nor the one in force", () =>
    check((seen, plan) => {
      const staying = [...membersOf(seen), ...(seen.instances ?? [])].filter(({ terminating }) => !terminating);
      const named = staying.map(({ labels }) => labels[REVISION_LABEL]);
      for (const name of prunesOf(plan)) expect([...named, "web-2"]).not.toContain(name);
    }));

  it("is over when the record says so: then nothing is asked and nothing is done (invariant 8)", () =>
    check((seen, plan, limit) => {
      const items = claimIn(plan);
      if (items?.rollout === undefined || kindsOf(plan).join() !== "writeClaim") return;
      const text = formatClaim({ ...aClaim({ generation: 2, at: seen.now, nonce: "next" }), ...items });
      const pool = { ...seen.pool, annotations: { [CLAIM_ANNOTATION]: text } };
      const rested = {
        ...seen,
        pool,
        instances: undefined,
        ownRevisions: undefined,
        revisions: new Map(),
        liveUpdates: undefined,
      };
      const wantsMachines = membersOf(seen).length < (specOf(seen).replicas ?? 1) && specOf(seen).paused !== true;
      if (!wantsMachines) expect(planRead(rested, limit).actions).toEqual([]);
    }));
});
