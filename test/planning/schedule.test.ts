import { describe, expect, it } from "vitest";
import type { Claim } from "../../shared/planning/claim.ts";
import type { Pool } from "../../shared/planning/model.ts";
import { OWN_MANAGER } from "../../shared/planning/names.ts";
import { isStalled, resyncCause, strayTurn } from "../../shared/planning/schedule.ts";
import { aClaim, aPool, aPoolWith, aSpec, type Json, NOW } from "../support/builders.ts";

const MINUTE_MS = 60_000;
const SETTLED_STATUS: Json = { replicas: 3, readyReplicas: 3, labelSelector: "app=web" };
const settled = (uid: string) => aPool({ uid, status: SETTLED_STATUS });
const rules = (settledMinutes: number) => ({ settledMinutes, everything: false });

/** Causes of every minute of an hour that does not begin at a round time. */
function hourOf(pool: Pool, settledMinutes: number, minutes = 60): readonly ("sweep" | "resync" | undefined)[] {
  return Array.from({ length: minutes }, (_, minute) =>
    resyncCause(pool, NOW + 17_000 + minute * MINUTE_MS, rules(settledMinutes)),
  );
}

describe("the schedule", () => {
  for (const settledMinutes of [1, 2, 5, 10, 60]) {
    it(`looks at every settled pool exactly once in ${settledMinutes} minutes`, () => {
      for (let index = 0; index < 40; index += 1) {
        const causes = hourOf(settled(`pool-${index}`), settledMinutes);
        for (let start = 0; start + settledMinutes <= 60; start += 1) {
          const looks = causes.slice(start, start + settledMinutes).filter((cause) => cause !== undefined);
          expect(looks).toEqual(["sweep"]);
        }
      }
    });
  }

  it("spreads the pools evenly over the minutes", () => {
    const counts = Array.from({ length: 10 }, () => 0);
    for (let index = 0; index < 2_000; index += 1) {
      const minute = hourOf(settled(`11111111-aaaa-4bbb-8ccc-${index}`), 10, 10).indexOf("sweep");
      counts[minute] = (counts[minute] ?? 0) + 1;
    }
    expect(Math.min(...counts)).toBeGreaterThan(140);
    expect(Math.max(...counts)).toBeLessThan(260);
  });

  it("looks through the machines of a cluster for those without a pool, as often as at a settled pool", () => {
    const turns = Array.from({ length: 60 }, (_, minute) => strayTurn("west", NOW + minute * MINUTE_MS, rules(10)));
    expect(turns.filter((turn) => turn)).toHaveLength(6);
    expect(strayTurn("west", NOW, { settledMinutes: 10, everything: true })).toBe(true);
    expect(strayTurn("west", NOW + MINUTE_MS, { settledMinutes: 10, everything: true })).toBe(true);
  });

  it("looks at everything at every tick when it is told so", () => {
    expect(resyncCause(settled("a"), NOW, { settledMinutes: 10, everything: true })).toBe("sweep");
  });

  const claimed = (claim: Partial<Claim>) => aPool({ status: SETTLED_STATUS, claim: aClaim(claim) });
  const UNSETTLED: readonly (readonly [string, Pool])[] = [
    ["a pool that no pass has seen", aPool({ status: SETTLED_STATUS, claim: null })],
    ["a pool whose claim is garbled", aPool({ status: SETTLED_STATUS, claim: "{}" })],
    [
      "a pool that was changed since",
      aPool({ status: SETTLED_STATUS, generation: 2, claim: aClaim({ generation: 1 }) }),
    ],
    ["a pool on its way out", aPool({ status: SETTLED_STATUS, deleting: true })],
    ["a pool with unfinished creates", claimed({ create: new Map([[0, NOW]]) })],
    ["a pool with unfinished deletes", claimed({ delete: [{ ordinal: 0, uidPrefix: "abc" }] })],
    ["a pool with unfinished restarts", claimed({ restart: [{ ordinal: 0, uidPrefix: "abc" }] })],
    ["a pool that waits", claimed({ waitUntil: NOW })],
    ["a pool whose machines were not seen to follow its template", claimed({ rollout: undefined })],
    ["a pool that heals", aPool({ status: SETTLED_STATUS, annotations: { "vmpool-functions/healing": "{}" } })],
    ["a pool without status", aPool()],
    ["a pool with a machine missing", aPool({ status: { ...SETTLED_STATUS, replicas: 2 } })],
    ["a pool with a machine too many", aPool({ status: { ...SETTLED_STATUS, replicas: 4 } })],
    ["a pool with an unready machine", aPool({ status: { ...SETTLED_STATUS, readyReplicas: 2 } })],
    ["a pool whose absent replicas mean 1", aPoolWith({ replicas: undefined }, { status: SETTLED_STATUS })],
    [
      "a pool that failed",
      aPool({ status: { ...SETTLED_STATUS, conditions: [{ type: "ReplicaFailure", status: "True" }] } }),
    ],
    ["a pool whose spec is garbage", aPool({ status: SETTLED_STATUS, spec: [] })],
    ["a pool whose spec is gone", aPool({ status: SETTLED_STATUS, spec: null })],
  ];
  for (const [name, pool] of UNSETTLED) {
    it(`looks every minute at ${name}, and once in ten minutes at all of it`, () => {
      const causes = hourOf(pool, 10);
      expect(causes.filter((cause) => cause === "sweep")).toHaveLength(6);
      expect(causes.filter((cause) => cause === "resync")).toHaveLength(54);
    });
  }

  const SETTLED: readonly (readonly [string, Pool])[] = [
    ["a pool of none", aPool({ spec: aSpec({ replicas: 0 }), status: {} })],
    [
      "a paused pool that matches",
      aPool({
        spec: aSpec({ paused: true }),
        status: { ...SETTLED_STATUS, conditions: [{ type: "ReplicaPaused", status: "True" }] },
      }),
    ],
    [
      "a paused pool that does not match",
      aPool({ spec: aSpec({ paused: true }), status: { ...SETTLED_STATUS, readyReplicas: 1 } }),
    ],
    [
      "a pool of none that has another template since",
      aPool({ spec: aSpec({ replicas: 0 }), status: {}, claim: aClaim({ rollout: undefined }) }),
    ],
    [
      "a pool whose machines keep their templates",
      aPoolWith(
        { updateStrategy: { unmanaged: {} } },
        { status: SETTLED_STATUS, claim: aClaim({ rollout: undefined }) },
      ),
    ],
    ["a pool of none that has no status", aPoolWith({ replicas: 0 })],
    ["a pool of one by default", aPoolWith({ replicas: undefined }, { status: { replicas: 1, readyReplicas: 1 } })],
  ];
  for (const [name, pool] of SETTLED) {
    it(`leaves ${name} alone between its turns`, () => expect(hourOf(pool, 10)).not.toContain("resync"));
  }
});

describe("a pool that has something left to do", () => {
  const at = (minutes: number) => new Date(NOW - minutes * MINUTE_MS).toISOString();
  const BEHIND: Json = { ...SETTLED_STATUS, readyReplicas: 2 };
  const CREATED = at(600);
  interface Write {
    readonly manager?: string | null;
    readonly subresource?: string;
    readonly time?: string | null;
  }
  /** A pool, and the object that it was read from, which alone has its history. */
  const stalled = (pool: Pool, writes: readonly Write[], metadata: Json = {}) =>
    isStalled(pool, { metadata: { creationTimestamp: CREATED, managedFields: writes, ...metadata } }, NOW);
  const status = (minutes: number) => ({ manager: OWN_MANAGER, subresource: "status", time: at(minutes) });
  const user = (minutes: number) => ({ manager: "kubectl", time: at(minutes) });
  const pass = (minutes: number) => ({ manager: OWN_MANAGER, time: at(minutes) });
  const behind = aPool({ status: BEHIND });

  it("has stalled when nothing has moved for 15 minutes", () => {
    expect(stalled(behind, [user(20), status(15)])).toBe(true);
    expect(stalled(behind, [user(15), status(20)])).toBe(true);
    expect(stalled(behind, [])).toBe(true);
  });

  it.each([
    ["its status changed", [user(20), status(14.9)]],
    ["a user changed it", [user(14.9), status(20)]],
    ["KubeVirt's controller changed it", [{ manager: "virt-controller", time: at(14.9) }, user(20)]],
    ["somebody unnamed changed it", [{ manager: null, time: at(14.9) }, user(20)]],
    ["it was scaled", [{ manager: "kubectl", subresource: "scale", time: at(14.9) }, user(20)]],
    ["it was scaled by way of us", [{ manager: OWN_MANAGER, subresource: "scale", time: at(14.9) }, user(20)]],
  ])("has not when %s less than 15 minutes ago", (_, writes) => {
    expect(stalled(behind, writes)).toBe(false);
  });

  it("has not when it is younger than 15 minutes", () => {
    expect(stalled(behind, [], { creationTimestamp: at(14.9) })).toBe(false);
    expect(stalled(behind, [], { creationTimestamp: at(15) })).toBe(true);
    expect(stalled(behind, [], { creationTimestamp: at(14.9), managedFields: undefined })).toBe(false);
  });

  it("has stalled although its passes go on writing what they do", () => {
    expect(stalled(behind, [user(20), status(20), pass(0)])).toBe(true);
    expect(stalled(behind, [user(20), status(20), { ...pass(0), subresource: "" }])).toBe(true);
  });

  it("has not when nobody can tell since when", () => {
    expect(stalled(behind, [user(20)], { creationTimestamp: undefined })).toBe(false);
    expect(stalled(behind, [{ manager: "kubectl", time: null }, status(20)])).toBe(false);
    expect(isStalled(behind, "no object", NOW)).toBe(false);
  });

  it("has nothing left to do when it is settled, whatever its age", () => {
    expect(stalled(aPool({ status: SETTLED_STATUS }), [user(20)])).toBe(false);
  });

  it("waits for a person when it is paused", () => {
    const paused = (overrides: object) => aPool({ spec: aSpec({ paused: true }), status: BEHIND, ...overrides });
    expect(stalled(paused({ claim: aClaim({ create: new Map([[0, NOW]]) }) }), [user(20)])).toBe(false);
    expect(stalled(paused({ deleting: true }), [user(20)], { deletionTimestamp: at(20) })).toBe(true);
  });

  it("has 15 minutes in all to go when it is deleted, whatever moves", () => {
    const deleting = aPool({ status: BEHIND, deleting: true });
    expect(stalled(deleting, [user(0), status(0)], { deletionTimestamp: at(15) })).toBe(true);
    expect(stalled(deleting, [user(60), status(60)], { deletionTimestamp: at(14.9) })).toBe(false);
    expect(stalled(deleting, [user(60)], { deletionTimestamp: null })).toBe(false);
  });
});
