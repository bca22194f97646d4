import { describe, expect, it } from "vitest";
import {
  type Claim,
  type ClaimItems,
  EMPTY_LEDGER,
  formatClaim,
  type Ledger,
  ledgerAfterClaim,
  parseClaim,
  QUIET_AFTER_MS,
  readClaim,
} from "../../shared/planning/claim.ts";
import { rankForScaleIn } from "../../shared/planning/scale-in.ts";
import { planScaleOut } from "../../shared/planning/scale-out.ts";
import {
  aClaim,
  aPool,
  aPoolWith,
  aRollout,
  aSpec,
  aVm,
  type Json,
  LABELS,
  NOW,
  someVms,
} from "../support/builders.ts";
import { CLOSING, claimedOrdinals, claimIn, createsOf, deletesOf, kindsOf, namesOf, planOf } from "./plans.ts";

const JUST = NOW - 10_000;
const claimed = (...ordinals: readonly number[]) => new Map(ordinals.map((ordinal) => [ordinal, JUST] as const));
const items = (...ordinals: readonly number[]) =>
  ordinals.map((n) => ({ ordinal: n, uidPrefix: aVm(n).uid.slice(0, 8) }));
const aForeigner = (ordinal: number) =>
  aVm(ordinal, { pool: null, labels: { app: "database" }, revision: null, finalizers: [] });
const poolWith = (replicas: number, claim: Partial<Claim>, spec: Json = {}) =>
  aPoolWith({ replicas, ...spec }, { claim: aClaim(claim) });

describe("the claim comes before what it guards", () => {
  it("when machines are created", () => {
    expect(kindsOf(planOf({ pool: poolWith(1, {}) }))).toEqual(["writeClaim", "createRevision", "createVm"]);
  });

  it("when machines are deleted", () => {
    const plan = planOf({ pool: poolWith(1, {}), vms: someVms(3) });
    expect(kindsOf(plan)).toEqual(["writeClaim", "deleteVm", "deleteVm"]);
    expect(claimIn(plan)?.delete.map(({ ordinal }) => `web-${ordinal}`)).toEqual(deletesOf(plan));
  });

  it("in every loop, also when it names the same machines again", () => {
    const plan = planOf({ pool: poolWith(0, { delete: items(0) }), vms: someVms(1) });
    expect(kindsOf(plan)).toEqual(["writeClaim", "deleteVm"]);
  });

  it("names at most 500 deletes, however many machines there are", () => {
    const plan = planOf({ pool: poolWith(0, {}), vms: someVms(2_000) });
    expect(claimIn(plan)?.delete.length).toBeLessThanOrEqual(500);
  });
});

describe("unfinished creates", () => {
  it("are repeated before other ordinals are taken", () => {
    expect(createsOf(planOf({ pool: poolWith(2, { create: claimed(4) }), vms: [aVm(0)] }))).toEqual([4]);
  });

  it("count once", () => {
    expect(createsOf(planOf({ pool: poolWith(3, { create: claimed(4) }), vms: [aVm(0)] }))).toEqual([1, 4]);
  });

  it("are no more carried on from an earlier claim once they are repeated", () => {
    const input = { owned: [], taken: new Set<number>(), preferred: [], createsMax: 250 };
    const { create, carried } = planScaleOut({ ...input, replicas: 2, unfinished: claimed(4) });
    expect([create, carried]).toEqual([[0, 4], new Map()]);
  });

  it("are repeated lowest first when one loop may not send all", () => {
    const create = new Map([
      [7, JUST - 1_000],
      [3, JUST],
    ] as const);
    const plan = planOf({ pool: poolWith(2, { create }) }, { ...CLOSING, createsMax: 1 });
    expect(createsOf(plan)).toEqual([3]);
    expect(claimedOrdinals(plan)).toEqual([3, 7]);
  });

  it("leave new ones only the room that the claim has", () => {
    const ordinals = Array.from({ length: 400 }, (_, ordinal) => ordinal);
    const plan = planOf({ pool: poolWith(1_000, { create: claimed(...ordinals) }), vms: someVms(400) });
    expect(createsOf(plan)).toHaveLength(100);
    expect(claimedOrdinals(plan)).toHaveLength(500);
  });

  it("are renewed by being repeated", () => {
    const plan = planOf({ pool: poolWith(1, { create: claimed(0) }) });
    expect(claimIn(plan)?.create).toEqual(new Map([[0, NOW]]));
  });

  // That object may go before the call lands, when the machine was already made under another name. Only the pass that got
  // the answer knows that the create is over.
  it("keep their place while another's machine has the name, which may go before they land", () => {
    expect(createsOf(planOf({ pool: poolWith(1, { create: claimed(0) }), vms: [aForeigner(0)] }))).toEqual([]);
  });

  it("do not count beside the machine that they made", () => {
    expect(createsOf(planOf({ pool: poolWith(2, { create: claimed(0) }), vms: [aVm(0)] }))).toEqual([1]);
  });

  it("hold back all creates while there are more of them than machines missing", () => {
    const plan = planOf({ pool: poolWith(1, { create: claimed(0, 1, 2) }) });
    expect(plan.actions).toEqual([]);
    expect(plan.reasons.join()).toContain(
      "waiting: 3 machines that were being created may still appear, 1 are missing",
    );
  });

  it("hold back all creates beside machines, too", () => {
    const { actions, reasons } = planOf({ pool: poolWith(2, { create: claimed(4, 5, 6) }), vms: [aVm(0)] });
    expect(actions).toEqual([]);
    expect(reasons).toEqual(["waiting: 3 machines that were being created may still appear, 1 are missing"]);
  });

  it("are all repeated when exactly as many machines are missing", () => {
    expect(createsOf(planOf({ pool: poolWith(3, { create: claimed(0, 5, 7) }) }))).toEqual([0, 5, 7]);
  });

  it("stay on record, with their time, when a new generation is seen to", () => {
    const claim = aClaim({ generation: 1, create: claimed(0, 1) });
    const plan = planOf({ pool: aPoolWith({ replicas: 0 }, { generation: 2, claim }) });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.create).toEqual(claimed(0, 1));
  });

  it("stay on record in a paused pool", () => {
    expect(planOf({ pool: poolWith(5, { create: claimed(0) }, { paused: true }) }).actions).toEqual([]);
  });

  it("stay on record when the pass may create nothing", () => {
    const pool = aPoolWith({ replicas: 3 }, { generation: 2, claim: aClaim({ create: claimed(1) }) });
    const plan = planOf({ pool }, CLOSING);
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.create).toEqual(claimed(1));
  });

  it("ask for the names of the namespace even if nothing is missing", () => {
    const plan = planOf({ pool: poolWith(0, { create: claimed(0) }), narrow: true });
    expect(plan).toMatchObject({ needs: [{ read: "namespaceVms" }], actions: [] });
  });

  it("may still land one millisecond before T", () => {
    const create = new Map([0, 1].map((n) => [n, NOW - QUIET_AFTER_MS + 1] as const));
    expect(createsOf(planOf({ pool: poolWith(1, { create }) }))).toEqual([]);
  });

  it("are ordinary free ordinals at T", () => {
    const create = new Map([0, 1].map((n) => [n, NOW - QUIET_AFTER_MS] as const));
    const plan = planOf({ pool: poolWith(1, { create }) });
    expect(createsOf(plan)).toEqual([0]);
    expect(claimedOrdinals(plan)).toEqual([0]);
  });

  it("expire one by one", () => {
    const create = new Map([
      [0, NOW - QUIET_AFTER_MS],
      [1, JUST],
    ] as const);
    expect(createsOf(planOf({ pool: poolWith(1, { create }) }))).toEqual([1]);
  });

  it("are taken off the record at T, once", () => {
    const create = new Map([[0, NOW - QUIET_AFTER_MS]] as const);
    const plan = planOf({ pool: poolWith(0, { create }) });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimedOrdinals(plan)).toEqual([]);
    expect(planOf({ pool: poolWith(0, {}) }).actions).toEqual([]);
  });

  // A second call for it (another pass repeated it, or the answer of the first was lost) may land after the machine is gone,
  // when the count was already made up under another name.
  it("stay on record while their machine exists, as their call may have been sent twice", () => {
    const pool = poolWith(1, { create: claimed(1) });
    expect(planOf({ pool, vms: [aVm(1, { terminating: true, finalizers: [] })] }).actions).toEqual([]);
  });
});

describe("a pass that alone issued its creates", () => {
  const ledger = (overrides: Partial<Ledger> = {}): Ledger => ({
    nonce: "nonce-1",
    own: new Set([0, 1, 2]),
    tainted: new Set(),
    ...overrides,
  });
  const pool = (replicas: number) => poolWith(replicas, { create: claimed(0, 1, 2) });

  it("goes from 3 to 0 to 1 at once, at the lowest free ordinal", () => {
    expect(claimedOrdinals(planOf({ pool: pool(0), ledger: ledger() }))).toEqual([]);
    const plan = planOf({ pool: pool(1), ledger: ledger() });
    expect(createsOf(plan)).toEqual([0]);
    expect(claimedOrdinals(plan)).toEqual([0]);
  });

  it("takes the next ordinal at once when the name of one turned out to be another's", () => {
    const seen = { pool: poolWith(1, { create: claimed(0) }), vms: [aForeigner(0)] };
    expect(createsOf(planOf({ ...seen, ledger: ledger({ own: new Set([0]) }) }))).toEqual([1]);
  });

  it("waits for the one whose answer did not say what happened", () => {
    expect(createsOf(planOf({ pool: pool(1), ledger: ledger({ tainted: new Set([2]) }) }))).toEqual([2]);
    expect(createsOf(planOf({ pool: pool(1), ledger: ledger({ tainted: new Set([1, 2]) }) }))).toEqual([]);
  });

  it("waits for those that it inherited", () => {
    expect(createsOf(planOf({ pool: pool(1), ledger: ledger({ own: new Set([0]) }) }))).toEqual([]);
    expect(createsOf(planOf({ pool: pool(1), ledger: ledger({ own: new Set([0, 2]) }) }))).toEqual([1]);
  });

  it("owns nothing when somebody has claimed since", () => {
    expect(createsOf(planOf({ pool: pool(1), ledger: ledger({ nonce: "nonce-0" }) }))).toEqual([]);
  });

  it("owns nothing before its own claim", () => {
    expect(createsOf(planOf({ pool: pool(1), ledger: EMPTY_LEDGER }))).toEqual([]);
  });
});

describe("the ledger after a claim", () => {
  const ledgerAfter = (ledger: Ledger, previous: Claim | undefined, ...issued: readonly number[]) =>
    ledgerAfterClaim(ledger, { previous, nonce: "new", issued });

  it("owns what it was the first to claim", () => {
    expect(ledgerAfter(EMPTY_LEDGER, undefined, 0, 1)).toEqual({
      nonce: "new",
      own: new Set([0, 1]),
      tainted: new Set(),
    });
  });

  it("does not own what it repeats for another pass", () => {
    expect(ledgerAfter(EMPTY_LEDGER, aClaim({ create: claimed(0) }), 0, 1).own).toEqual(new Set([1]));
  });

  it("keeps what it owns while nobody else claims", () => {
    const first: Ledger = { nonce: "nonce-1", own: new Set([0]), tainted: new Set() };
    expect(ledgerAfter(first, aClaim({ create: claimed(0) }), 0, 2).own).toEqual(new Set([0, 2]));
  });

  it("loses what it owns when somebody has claimed in between", () => {
    const first: Ledger = { nonce: "nonce-0", own: new Set([0, 1]), tainted: new Set() };
    expect(ledgerAfter(first, aClaim({ create: claimed(0) }), 0, 2).own).toEqual(new Set([2]));
  });

  it("loses what it owns when somebody removed the claim", () => {
    const first: Ledger = { nonce: "nonce-1", own: new Set([0]), tainted: new Set() };
    expect(ledgerAfter(first, undefined, 2).own).toEqual(new Set([2]));
  });

  it("never forgets a call that was not answered", () => {
    const first: Ledger = { nonce: "nonce-1", own: new Set([0]), tainted: new Set([0]) };
    expect(ledgerAfter(first, aClaim({ create: claimed(0) }), 0).tainted).toEqual(new Set([0]));
  });
});

describe("unfinished deletes", () => {
  const vms = someVms(4);
  /** Machines from the one that goes first to the one that goes last. */
  const ranked = rankForScaleIn(aPool(), vms).map(({ ordinal }) => ordinal ?? 0);
  const lastToGo = ranked.at(-1) ?? 0;
  const first = ranked[0] ?? 0;

  it("come before machines that would otherwise go first", () => {
    const plan = planOf({ pool: poolWith(3, { delete: items(lastToGo) }), vms });
    expect(deletesOf(plan)).toEqual([`web-${lastToGo}`]);
    expect(namesOf(plan, "revokeDelete")).toEqual([]);
  });

  it("count once against the surplus", () => {
    const plan = planOf({ pool: poolWith(2, { delete: items(lastToGo) }), vms });
    expect(deletesOf(plan)).toEqual([`web-${lastToGo}`, `web-${first}`]);
  });

  it("are over when the machine is on its way out", () => {
    const seen = vms.map((vm) => ({ ...vm, terminating: vm.ordinal === lastToGo }));
    const plan = planOf({ pool: poolWith(3, { delete: items(lastToGo) }), vms: seen });
    expect(deletesOf(plan)).toEqual([]);
    expect(namesOf(plan, "revokeDelete")).toEqual([]);
    expect(claimIn(plan)?.delete).toEqual([]);
  });

  it("are over when the machine is gone", () => {
    const plan = planOf({ pool: poolWith(2, { delete: items(2) }), vms: someVms(2) });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.delete).toEqual([]);
  });

  it("do not hit the successor of the name (D43)", () => {
    const successor = aVm(0, { uid: "feedf00d-0000" });
    const plan = planOf({ pool: poolWith(1, { delete: items(0) }), vms: [successor] });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
  });

  const UNWANTED: readonly { readonly it: string; readonly spec: Json }[] = [
    { it: "more machines are wanted again", spec: { replicas: 4 } },
    { it: "the pool is paused", spec: { replicas: 1, paused: true } },
    { it: "scale in is unmanaged now", spec: { replicas: 1, scaleInStrategy: { unmanaged: {} } } },
    { it: "scale in is opportunistic now", spec: { replicas: 1, scaleInStrategy: { opportunistic: {} } } },
  ];
  for (const { it: name, spec } of UNWANTED) {
    it(`are revoked before the claim drops them when ${name}`, () => {
      const plan = planOf({ pool: poolWith(4, { delete: items(1) }, spec), vms });
      expect(kindsOf(plan)).toEqual(["revokeDelete", "writeClaim"]);
      expect(namesOf(plan, "revokeDelete")).toEqual(["web-1"]);
      expect(claimIn(plan)?.delete).toEqual([]);
    });
  }

  it("are revoked only as far as they are too many", () => {
    const plan = planOf({ pool: poolWith(3, { delete: items(0, 1, 2) }), vms });
    expect(deletesOf(plan)).toHaveLength(1);
    expect(namesOf(plan, "revokeDelete")).toHaveLength(2);
    expect(new Set([...deletesOf(plan), ...namesOf(plan, "revokeDelete")])).toEqual(
      new Set(["web-0", "web-1", "web-2"]),
    );
  });

  it("are revoked before a machine is created", () => {
    const plan = planOf({ pool: poolWith(5, { delete: items(1) }), vms });
    expect(kindsOf(plan)).toEqual(["revokeDelete", "writeClaim", "createRevision", "createVm"]);
  });

  it("stay on record when the pass may delete nothing", () => {
    const pool = aPoolWith({ replicas: 3 }, { generation: 2, claim: aClaim({ delete: items(1) }) });
    const plan = planOf({ pool, vms }, CLOSING);
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.delete).toEqual(items(1));
  });

  it("are no more ours when the machine was released", () => {
    const seen = [aVm(0, { labels: { app: "gone" }, pool: null, finalizers: [] })];
    const plan = planOf({ pool: poolWith(0, { delete: items(0) }), vms: seen });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
  });
});

function emptyClaim(items: Partial<ClaimItems>): ClaimItems {
  return { create: new Map(), delete: [], restart: [], rollout: undefined, waitUntil: undefined, ...items };
}

describe("a claim that cannot be read", () => {
  for (const claim of [null, "", "{}", "garbled", '{"v":2}']) {
    it(`is replaced by an empty one, and nothing else is done, when the pool has machines (${JSON.stringify(claim)})`, () => {
      const plan = planOf({ pool: aPoolWith({ replicas: 1 }, { claim }), vms: someVms(3) });
      expect(kindsOf(plan)).toEqual(["writeClaim"]);
      expect(claimIn(plan)).toEqual(emptyClaim({ waitUntil: NOW + QUIET_AFTER_MS }));
      expect(plan.reasons.join()).toContain("no readable claim");
    });
  }

  it("lets a new pool, without machines and without our finalizer, act at once", () => {
    expect(createsOf(planOf({ pool: aPoolWith({ replicas: 2 }, { claim: null, finalizers: [] }) }))).toEqual([0, 1]);
  });

  // The finalizer comes with the first claim, so there was one, and its creates may be under way.
  it("makes a pool without machines wait when it carries our finalizer", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 2 }, { claim: null }) });
    expect(claimIn(plan)).toEqual(emptyClaim({ waitUntil: NOW + QUIET_AFTER_MS }));
  });

  it("makes a pool with machines wait though our finalizer is gone", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }, { claim: null, finalizers: [] }), vms: someVms(3) });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)).toEqual(emptyClaim({ waitUntil: NOW + QUIET_AFTER_MS }));
  });

  it("takes a terminating machine for a machine", () => {
    const vms = [aVm(0, { terminating: true, finalizers: [] })];
    expect(kindsOf(planOf({ pool: aPoolWith({ replicas: 2 }, { claim: null }), vms }))).toEqual(["writeClaim"]);
  });

  it("does not take a foreign machine for one of the pool", () => {
    const vms = [aVm(0, { pool: null, labels: LABELS, revision: null, finalizers: [] })];
    expect(createsOf(planOf({ pool: aPoolWith({ replicas: 1 }, { claim: null, finalizers: [] }), vms }))).toEqual([1]);
  });

  it("keeps the pool waiting until one millisecond before T", () => {
    const plan = planOf({ pool: poolWith(1, { waitUntil: NOW + 1 }), vms: someVms(3) });
    expect(plan.actions).toEqual([]);
    expect(plan.reasons.join()).toContain("waiting until 2026-11-22T10:00:00.001Z");
  });

  it("lets the pool act at T, and ends the wait in the same claim", () => {
    const plan = planOf({ pool: poolWith(1, { waitUntil: NOW }), vms: someVms(3) });
    expect(deletesOf(plan)).toHaveLength(2);
    expect(claimIn(plan)?.waitUntil).toBeUndefined();
  });

  it("ends the wait of a pool that needs nothing", () => {
    const plan = planOf({ pool: poolWith(3, { waitUntil: NOW }), vms: someVms(3) });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.waitUntil).toBeUndefined();
  });
});

describe("a claim that somebody edited", () => {
  const later = NOW + 365 * 24 * 3_600_000;

  /** Minutes until the pool creates its machine, each pass writing the claim that it plans. */
  function minutesUntilCreate(claim: Claim): number | undefined {
    let text = formatClaim(claim);
    for (let minute = 0; minute < 10; minute += 1) {
      const now = NOW + minute * 60_000;
      const plan = planOf({ now, pool: aPoolWith({ replicas: 1 }, { claim: text }) });
      if (createsOf(plan).length > 0) return minute;
      const written = claimIn(plan);
      if (written !== undefined) text = formatClaim({ ...aClaim(), at: now, ...written });
    }
    return undefined;
  }

  // A time that lies further ahead than T was never written by a pass; it must not block the pool until then (invariant 9).
  it("does not hold the pool for ever by a wait in the far future", () => {
    expect(minutesUntilCreate(aClaim({ waitUntil: later }))).toBeDefined();
  });

  // By its beginning another controller is told: one that lies ahead would hide it.
  it("is as good as none when it begins in the far future", () => {
    const claim = aClaim({ since: { at: later, generation: 1 } });
    const plan = planOf({ pool: aPoolWith({ replicas: 1 }, { claim }) });
    expect(claimIn(plan)?.waitUntil).toBe(NOW + QUIET_AFTER_MS);
  });

  it("is read as long as no time in it is further ahead than the clocks of a cluster may be apart", () => {
    const ahead: readonly Partial<Claim>[] = [
      { at: NOW + 30_000 },
      { since: { at: NOW + 30_000, generation: 1 } },
      { create: new Map([[0, NOW + 30_000]]) },
      { waitUntil: NOW + 30_000 + QUIET_AFTER_MS },
    ];
    for (const times of ahead) {
      expect(readClaim(formatClaim(aClaim(times)), NOW)).toEqual(aClaim(times));
      expect(readClaim(formatClaim(aClaim(times)), NOW - 1)).toBeUndefined();
    }
  });

  it("does not hold the pool for ever by creates of the far future", () => {
    expect(
      minutesUntilCreate(
        aClaim({
          create: new Map([
            [0, later],
            [1, later],
          ]),
        }),
      ),
    ).toBeDefined();
  });
});

describe("the record of the roll-out", () => {
  it("begins with the first machines, which follow the template because nothing else can be there", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 2 }, { claim: null, finalizers: [] }) });
    expect(claimIn(plan)?.rollout).toEqual(aRollout(aSpec(), "web-1"));
  });

  it("does not begin with the first machines of a pool that was there before: revisions of older templates are to go first", () => {
    const claim = aClaim({ rollout: undefined });
    const plan = planOf({ pool: aPoolWith({ replicas: 2 }, { generation: 3, claim }) });
    expect(createsOf(plan)).toEqual([0, 1]);
    expect(claimIn(plan)?.rollout).toBeUndefined();
  });

  it("does not begin beside a create of an earlier pass, whose template may have been another", () => {
    const claim = aClaim({ create: claimed(0), rollout: undefined });
    const plan = planOf({ pool: aPoolWith({ replicas: 2 }, { claim }), vms: [aForeigner(0)] });
    expect(createsOf(plan)).toEqual([1]);
    expect(claimIn(plan)?.rollout).toBeUndefined();
  });

  it("does not begin beside a machine, which may have been made from another template", () => {
    const pool = aPoolWith({ replicas: 2 }, { generation: 2, claim: aClaim({ rollout: undefined }) });
    const plan = planOf({ pool, vms: someVms(1), instances: [], ownRevisions: [] });
    expect(createsOf(plan)).toEqual([1]);
    expect(claimIn(plan)?.rollout).toBeUndefined();
  });

  it("stays as it was while a pool without machines needs none", () => {
    const before = aClaim({ rollout: { template: "another", revisions: ["web-7"], instances: false } });
    const plan = planOf({ pool: aPoolWith({ replicas: 0 }, { generation: 2, claim: before }) });
    expect(kindsOf(plan)).toEqual(["writeClaim"]);
    expect(claimIn(plan)?.rollout).toEqual(before.rollout);
  });
});

describe("the end of a pass", () => {
  it("shortens the claim when everything is finished", () => {
    const plan = planOf({ pool: poolWith(2, { delete: items(5) }), vms: someVms(2) });
    expect(claimIn(plan)).toEqual(emptyClaim({ rollout: aClaim().rollout }));
  });

  it("writes the generation that was seen to, once", () => {
    const vms = someVms(2);
    const before = aPoolWith({ replicas: 2 }, { generation: 6, claim: aClaim({ generation: 5 }) });
    expect(kindsOf(planOf({ pool: before, vms }))).toEqual(["writeClaim"]);
    const after = aPoolWith({ replicas: 2 }, { generation: 6, claim: aClaim({ generation: 6 }) });
    expect(planOf({ pool: after, vms })).toMatchObject({ needs: [], actions: [], reasons: [] });
  });

  it("puts back the pool's finalizer that somebody removed", () => {
    const plan = planOf({ pool: aPoolWith({ replicas: 2 }, { finalizers: [] }), vms: someVms(2) });
    expect(plan.actions).toMatchObject([{ kind: "writeClaim", addFinalizer: true }]);
  });

  it("leaves the finalizers of others as they are", () => {
    const pool = aPoolWith({ replicas: 0 }, { finalizers: ["example.com/backup"] });
    expect(planOf({ pool }).actions).toMatchObject([{ kind: "writeClaim", addFinalizer: true }]);
  });

  it("plans nothing in a settled pool, with the narrow and with the wide look", () => {
    for (const narrow of [true, false]) {
      const plan = planOf({ pool: poolWith(3, {}), vms: someVms(3), narrow, revision: undefined });
      expect(plan).toMatchObject({ needs: [], actions: [], reasons: [] });
    }
  });
});

describe("the text of a claim", () => {
  it("is short when nothing is unfinished", () => {
    expect(formatClaim(aClaim({ rollout: undefined }))).toBe(
      '{"v":1,"by":"test","at":"2026-11-22T09:59:00.000Z","nonce":"nonce-1","generation":1,"since":{"at":"2026-11-22T09:00:00.000Z","generation":1}}',
    );
  });

  it("groups ordinals by time and in ranges", () => {
    const create = new Map([
      [7, JUST],
      [0, JUST],
      [2, JUST],
      [1, JUST],
      [3, NOW],
    ] as const);
    expect(JSON.parse(formatClaim(aClaim({ create })))).toMatchObject({
      create: { "2026-11-22T09:59:50.000Z": "0-2,7", "2026-11-22T10:00:00.000Z": "3" },
    });
  });

  it("names the earliest creates first, whatever was claimed first", () => {
    const create = new Map([
      [3, NOW],
      [0, JUST],
    ] as const);
    const text = formatClaim(aClaim({ create }));
    expect(text).toContain('{"2026-11-22T09:59:50.000Z":"0","2026-11-22T10:00:00.000Z":"3"}');
  });

  it("names deletes by ordinal and the beginning of the UID", () => {
    const text = formatClaim(aClaim({ delete: [...items(3), { ordinal: undefined, uidPrefix: "abcdef01" }] }));
    expect(JSON.parse(text)).toMatchObject({ delete: "3:beef0003 :abcdef01" });
  });

  it("stays below 10 KB with 250 creates and 250 deletes that make no range", () => {
    const ordinals = Array.from({ length: 250 }, (_, index) => 100_000 + 2 * index);
    expect(formatClaim(aClaim({ create: claimed(...ordinals), delete: items(...ordinals) })).length).toBeLessThan(
      10_000,
    );
  });

  const good = JSON.parse(formatClaim(aClaim({ create: claimed(1, 2), delete: items(3) })));
  it("is read back", () => {
    expect(parseClaim(JSON.stringify(good))).toEqual(aClaim({ create: claimed(1, 2), delete: items(3) }));
  });

  it("is read up to 64,000 characters", () => {
    const text = JSON.stringify({ ...good, more: "" });
    const longest = JSON.stringify({ ...good, more: "x".repeat(64_000 - text.length) });
    expect(longest).toHaveLength(64_000);
    expect(parseClaim(longest)).toBeDefined();
  });

  it("is read with ranges of many digits", () => {
    const create = parseClaim(JSON.stringify({ ...good, create: { [good.at]: "9-12,4321" } }))?.create;
    expect([...(create?.keys() ?? [])]).toEqual([9, 10, 11, 12, 4321]);
  });

  it("is read with as many creates, and as many deletes, as a claim may hold", () => {
    const create = { [good.at]: "0-249", "2026-11-22T09:00:00Z": "300-549" };
    const text = JSON.stringify({ ...good, create, delete: Array(500).fill("1:abc").join(" ") });
    expect(parseClaim(text)?.create.size).toBe(500);
    expect(parseClaim(text)?.delete.length).toBe(500);
  });

  const BAD: readonly { readonly it: string; readonly text: string | undefined }[] = [
    { it: "absent", text: undefined },
    { it: "empty", text: "" },
    { it: "not JSON", text: "{" },
    { it: "not an object", text: "[]" },
    { it: "of another version", text: JSON.stringify({ ...good, v: 2 }) },
    { it: "without a nonce", text: JSON.stringify({ ...good, nonce: "" }) },
    { it: "without a time", text: JSON.stringify({ ...good, at: "yesterday" }) },
    { it: "with a negative generation", text: JSON.stringify({ ...good, generation: -1 }) },
    { it: "with a range that runs backwards", text: JSON.stringify({ ...good, create: { [good.at]: "3-1" } }) },
    { it: "with a range too long", text: JSON.stringify({ ...good, create: { [good.at]: "0-999999999" } }) },
    {
      it: "with ranges that together are too long",
      text: JSON.stringify({ ...good, create: { [good.at]: "0-400,500-900" } }),
    },
    { it: "with one create too many", text: JSON.stringify({ ...good, create: { [good.at]: "0-249,300-550" } }) },
    { it: "with something after a range", text: JSON.stringify({ ...good, create: { [good.at]: "1-2x" } }) },
    { it: "with something before a delete", text: JSON.stringify({ ...good, delete: "x3:abc" }) },
    { it: "with something after a delete", text: JSON.stringify({ ...good, delete: "3:abcdefghi" }) },
    { it: "with ordinals that are none", text: JSON.stringify({ ...good, create: { [good.at]: "-1" } }) },
    { it: "with an empty group", text: JSON.stringify({ ...good, create: { [good.at]: "" } }) },
    { it: "with a group whose time is none", text: JSON.stringify({ ...good, create: { noon: "1" } }) },
    { it: "with a restart without a UID", text: JSON.stringify({ ...good, restart: "3:" }) },
    { it: "with a delete without a UID", text: JSON.stringify({ ...good, delete: "3:" }) },
    { it: "with more than 500 deletes", text: JSON.stringify({ ...good, delete: Array(501).fill("1:abc").join(" ") }) },
    { it: "longer than any claim", text: JSON.stringify({ ...good, more: "x".repeat(64_000) }) },
  ];
  for (const { it: name, text } of BAD) {
    it(`is not taken for a claim when it is ${name}`, () => expect(parseClaim(text)).toBeUndefined());
  }
});
