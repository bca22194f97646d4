import { describe, expect, it } from "vitest";
import type { Pool } from "../../shared/planning/model.ts";
import { resyncCause } from "../../shared/planning/schedule.ts";
import { findSecondWriter, isOfAnother } from "../../shared/planning/second-writer.ts";
import { type PassFailure, reportStatus } from "../../shared/planning/status.ts";
import { judge } from "../../shared/planning/verdict.ts";
import {
  aClaim,
  anInstance,
  anObservation,
  aPool,
  aRevision,
  aSpec,
  aVm,
  type Json,
  NOW,
  OTHER_POOL_UID,
  type PoolOverrides,
  someVms,
} from "../support/builders.ts";
import { kindsOf, namesOf, planOf } from "./plans.ts";

const MINUTE_MS = 60_000;
/** Of `aClaim()`. */
const SINCE = NOW - 60 * MINUTE_MS;
const at = (epochMs: number) => new Date(epochMs).toISOString().replace(".000Z", "Z");
const AFTER = at(NOW - 30 * MINUTE_MS);
const SETTLED: Json = { replicas: 3, readyReplicas: 3, labelSelector: "app=web", conditions: [] };

const found = (overrides: PoolOverrides, by: { by?: string } = { by: "test" }) =>
  findSecondWriter({ pool: aPool(overrides), now: NOW, by: by.by })?.kind;
const claimedBy = (by: string, agoMs: number) => aClaim({ by, at: NOW - agoMs });

describe("KubeVirt's own pool controller", () => {
  it.each([
    ["long before", at(SINCE - 3_600_000), undefined],
    ["in the second in which the pool was taken over", at(SINCE), undefined],
    ["two seconds later, by a clock that is ahead", at(SINCE + 2_000), undefined],
    ["three seconds later", at(SINCE + 3_000), "inTree"],
    ["just now", at(NOW), "inTree"],
  ])("that wrote %s", (_, inTreeWroteAt, kind) => {
    expect(found({ inTreeWroteAt })).toBe(kind);
  });

  it("counts whichever deployment took the pool over, however long ago it claimed, and for those who only look", () => {
    expect(found({ inTreeWroteAt: AFTER, claim: claimedBy("old", 40 * MINUTE_MS) })).toBe("inTree");
    expect(found({ inTreeWroteAt: AFTER }, {})).toBe("inTree");
  });

  it("had the right to write while no claim could be read", () => {
    expect(found({ inTreeWroteAt: AFTER, claim: null })).toBeUndefined();
    expect(found({ inTreeWroteAt: AFTER, claim: "{}" })).toBeUndefined();
  });

  it("is told from others by its name alone", () => {
    expect(found({})).toBeUndefined();
  });
});

describe("another deployment", () => {
  it.each([
    ["has claimed just now", "other", 0, "deployment"],
    ["has claimed nine minutes ago", "other", 9 * MINUTE_MS, "deployment"],
    ["is silent for ten minutes", "other", 10 * MINUTE_MS, undefined],
  ])("that %s", (_, by, agoMs, kind) => {
    expect(found({ claim: claimedBy(by, agoMs) })).toBe(kind);
  });

  it("is nobody who runs twice: instances of one deployment overlap", () => {
    expect(found({ claim: claimedBy("test", 0) })).toBeUndefined();
  });

  it("does not matter to those who only look", () => {
    expect(found({ claim: claimedBy("other", 0) }, {})).toBeUndefined();
  });
});

describe("a pass that is not alone", () => {
  const moved = aSpec({ replicas: 5, virtualMachineTemplate: aTemplate("new") });
  const writers: readonly (readonly [string, PoolOverrides])[] = [
    ["KubeVirt's controller", { inTreeWroteAt: AFTER }],
    ["another deployment", { claim: aClaim({ by: "other", at: NOW, rollout: undefined }) }],
  ];

  it.each(writers)(
    "beside %s creates, deletes, restarts, updates and prunes nothing, and asks for no more",
    (_, seen) => {
      const revisions = [aRevision(), aRevision({ name: "web-0", generation: 0 })];
      const all = {
        revisions,
        ownRevisions: revisions,
        instances: [0, 1, 2].map((ordinal) => anInstance(ordinal)),
        vms: someVms(3),
      };
      for (const spec of [moved, aSpec({ replicas: 1 }), aSpec()]) {
        const plan = planOf({ ...all, pool: aPool({ ...seen, spec, generation: 2 }) });
        expect(plan.needs).toEqual([]);
        expect(kindsOf(plan)).toEqual([]);
        expect(plan.reasons[0]).toMatch(/^held: /);
      }
    },
  );

  it.each(writers)("beside %s goes on letting machines go", (_, seen) => {
    const leaving = aVm(0, { terminating: true });
    const relabelled = aVm(1, { labels: { app: "db" } });
    const plan = planOf({ pool: aPool(seen), vms: [leaving, relabelled, aVm(2)], looseInstances: undefined });
    expect(kindsOf(plan)).toEqual(["releaseVm", "dropVmFinalizer"]);
    expect([...namesOf(plan, "releaseVm"), ...namesOf(plan, "dropVmFinalizer")]).toEqual(["web-1", "web-0"]);
  });

  it.each(writers)("beside %s lets the pool go when it is deleted", (_, seen) => {
    const pool = aPool({ ...seen, deleting: true });
    expect(kindsOf(planOf({ pool, vms: someVms(2) }))).toEqual(["dropVmFinalizer", "dropVmFinalizer"]);
    expect(kindsOf(planOf({ pool, vms: [aVm(0, { pool: OTHER_POOL_UID })] }))).toEqual(["dropPoolFinalizer"]);
  });

  it("takes the pool over anew when its claim is removed: it waits, and looks for others from then on", () => {
    const plan = planOf({ pool: aPool({ inTreeWroteAt: AFTER, claim: null }), vms: someVms(3) });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    const since = { at: NOW, generation: 1 };
    const after = aPool({ inTreeWroteAt: AFTER, claim: aClaim({ at: NOW, since, rollout: undefined }) });
    expect(findSecondWriter({ pool: after, now: NOW + 200_000, by: "test" })).toBeUndefined();
  });
});

function aTemplate(name: string): Json {
  const spec = { domain: {}, hostname: name };
  return { metadata: { labels: { app: "web" } }, spec: { runStrategy: "Always", template: { metadata: {}, spec } } };
}

describe("the status of a pool with two writers", () => {
  const failures: readonly PassFailure[] = [{ during: "upkeep", message: "refused" }];
  const report = (pool: Pool, { now = NOW, by = "test" } = {}) =>
    reportStatus({ now, pool, verdict: judge(pool), members: someVms(2), failures, by });
  const told = (reason: string, lastTransitionTime = at(NOW)) => ({
    type: "SecondWriter",
    status: "True",
    lastTransitionTime,
    reason,
    message: expect.any(String),
  });

  it("says which one was seen and what to do, and leaves all else to the other", () => {
    const { status, changed, announcements } = report(aPool({ status: SETTLED, inTreeWroteAt: AFTER }));
    expect(changed).toBe(true);
    expect(status).toEqual({ ...SETTLED, conditions: [told("InTreeController")] });
    const message = status.conditions?.[0]?.message;
    expect(message).toContain("virt-controller");
    expect(message).toContain("kubectl annotate vmpool -n default web vmpool-functions/pass-");
    expect(announcements).toEqual([{ type: "Warning", reason: "InTreeController", message, key: "1" }]);
  });

  it("names both deployments", () => {
    const { status } = report(aPool({ status: SETTLED, claim: claimedBy("blue", 0) }), { by: "green" });
    expect(status.conditions).toEqual([told("OtherDeployment")]);
    expect(status.conditions?.[0]?.message).toMatch(
      /^deployment "blue" .* within 10 minutes, and this is deployment "green": /,
    );
  });

  it("is written once, however often the other writes", () => {
    const first = report(aPool({ status: SETTLED, inTreeWroteAt: AFTER }));
    const again = aPool({ status: { ...first.status, replicas: 2 }, inTreeWroteAt: at(NOW) });
    expect(report(again, { now: NOW + MINUTE_MS })).toMatchObject({
      changed: false,
      announcements: [],
      status: { ...first.status, replicas: 2 },
    });
  });

  it("is written again when there is something else to say", () => {
    const claim = claimedBy("blue", 0);
    const first = report(aPool({ status: SETTLED, claim }), { by: "green" });
    const again = report(aPool({ status: first.status, claim }), { by: "yellow" });
    expect([again.changed, again.announcements.length]).toEqual([true, 1]);
  });

  it("leaves the selector's text to the other, too, once there is one", () => {
    const told = (status: Json) => report(aPool({ status, inTreeWroteAt: AFTER })).status.labelSelector;
    expect(told({ ...SETTLED, labelSelector: "by the other" })).toBe("by the other");
    expect(told({ replicas: 3 })).toBe("app=web");
  });

  it("keeps no condition of another kind for the other's, whatever its reason", () => {
    const condition = {
      type: "ReplicaFailure",
      status: "True",
      lastTransitionTime: at(NOW),
      reason: "OtherDeployment",
    };
    expect(isOfAnother(condition, NOW)).toBe(false);
    expect(isOfAnother({ ...condition, type: "SecondWriter" }, NOW)).toBe(true);
  });

  it("keeps conditions that the other has written", () => {
    const paused = { type: "ReplicaPaused", status: "True", lastTransitionTime: AFTER, lastProbeTime: null };
    const pool = aPool({ status: { ...SETTLED, conditions: [paused] }, inTreeWroteAt: AFTER });
    expect(report(pool).status.conditions).toEqual([paused, told("InTreeController")]);
  });

  it("loses the condition when the pass is alone again", () => {
    const conditions = [told("InTreeController", at(NOW - MINUTE_MS))];
    const pool = aPool({ status: { ...SETTLED, conditions: [{ ...conditions[0], message: "…" }] } });
    const members = someVms(3);
    expect(reportStatus({ now: NOW, pool, verdict: judge(pool), members, failures: [], by: "test" })).toMatchObject({
      changed: true,
      status: SETTLED,
    });
  });

  it("is not fought over by the two deployments: the one that acts leaves the other's condition for a while", () => {
    const claim = claimedBy("blue", 0);
    const { status } = report(aPool({ status: SETTLED, claim }), { by: "green" });
    const pool = aPool({ status: { ...SETTLED, conditions: [...(status.conditions ?? [])] }, claim });
    const acting = { pool, verdict: judge(pool), members: someVms(3), failures: [], by: "blue" };
    expect(reportStatus({ ...acting, now: NOW + 9 * MINUTE_MS })).toMatchObject({ changed: false });
    expect(reportStatus({ ...acting, now: NOW + 10 * MINUTE_MS })).toMatchObject({ changed: true, status: SETTLED });
  });

  it("has the schedule look every minute, so that a hold ends soon after its cause", () => {
    const conditions = [{ type: "SecondWriter", status: "True" }];
    const causesOf = (status: Json) =>
      Array.from({ length: 10 }, (_, minute) =>
        resyncCause(aPool({ status }), NOW + minute * 60_000, { settledMinutes: 10, everything: false }),
      ).filter((cause) => cause !== undefined);
    expect(causesOf(SETTLED)).toEqual(["sweep"]);
    expect(causesOf({ ...SETTLED, conditions })).toHaveLength(10);
  });
});

it("is a look at the pool alone", () => {
  const seen = anObservation({ pool: aPool({ inTreeWroteAt: AFTER }), vms: [] });
  expect(findSecondWriter(seen)?.kind).toBe("inTree");
});
