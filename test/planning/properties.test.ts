/** What holds for every pool, every list and every claim, sound or garbled. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  CLAIM_ITEMS_MAX,
  type Claim,
  formatClaim,
  type Ledger,
  ledgerAfterClaim,
  parseClaim,
} from "../../shared/planning/claim.ts";
import {
  controllerOf,
  isOwnedBy,
  isPoolOwner,
  parsePool,
  parseRevision,
  parseVm,
  poolSpecSchema,
  type Vm,
} from "../../shared/planning/model.ts";
import { CLAIM_ANNOTATION, HEALING_ANNOTATION, POOL_FINALIZER } from "../../shared/planning/names.ts";
import { type Limits, type Observation, type Plan, planPass } from "../../shared/planning/plan.ts";
import { chooseRevision } from "../../shared/planning/revisions.ts";
import { keepsDisks, planScaleIn } from "../../shared/planning/scale-in.ts";
import { resyncCause } from "../../shared/planning/schedule.ts";
import { reportStatus } from "../../shared/planning/status.ts";
import { buildVm } from "../../shared/planning/template.ts";
import { judge } from "../../shared/planning/verdict.ts";
import {
  aClaim,
  anObservation,
  aPool,
  aRevision,
  aSpec,
  aVm,
  deepFreeze,
  EARLIER_POOL_UID,
  type Json,
  NOW,
  OTHER_POOL_UID,
  POOL_UID,
} from "../support/builders.ts";
import {
  ACTING,
  CLOSING,
  claimedOrdinals,
  claimIn,
  createsOf,
  deletesOf,
  kindsOf,
  namesOf,
  planRead,
  targetsOf,
} from "./plans.ts";

const ORDINAL_MAX = 7;
const REPLICAS_MAX = 6;

const SPARE = { labelSelector: { matchLabels: { tier: "spare" } } };
const MANY_CORES = { nodeSelectorRequirementMatcher: [{ key: "cores", operator: "Gt", values: ["4"] }] };

const strategy = fc.constantFrom<Json | undefined>(
  undefined,
  {},
  { proactive: { selectionPolicy: { sortPolicy: "Random" } } },
  { unmanaged: {} },
  { opportunistic: { statePreservation: "Offline" } },
  { proactive: { selectionPolicy: { sortPolicy: "Newest" } } },
  { proactive: { selectionPolicy: { sortPolicy: "Oldest", selectors: SPARE }, statePreservation: "Offline" } },
  { proactive: { selectionPolicy: { sortPolicy: "AscendingOrder", selectors: MANY_CORES } } },
  { proactive: { selectionPolicy: { sortPolicy: "DescendingOrder", selectors: { ...SPARE, ...MANY_CORES } } } },
);
const legalSpec: fc.Arbitrary<Json> = fc
  .record({
    replicas: fc.option(fc.nat(REPLICAS_MAX), { nil: undefined }),
    paused: fc.constantFrom(false, false, false, true, null),
    scaleInStrategy: strategy,
    nameGeneration: fc.constantFrom(undefined, { appendIndexToSecretRefs: true }),
    autohealing: fc.constantFrom(undefined, undefined, {}, { startUpFailureThreshold: 1 }),
  })
  .map(aSpec);
const brokenSpec: fc.Arbitrary<unknown> = fc.oneof(
  fc.jsonValue(),
  fc
    .tuple(legalSpec, fc.constantFrom(...Object.keys(aSpec()), "scaleInStrategy", "maxUnavailable"), fc.jsonValue())
    .map(([spec, field, value]) => ({ ...spec, [field]: value })),
);

/** What selectors ask for: a machine's spec says it, or cannot be read. */
interface Kind {
  readonly tier: string | undefined;
  readonly cores: number | undefined;
  readonly isRead: boolean;
}

const kind: fc.Arbitrary<Kind> = fc.record({
  tier: fc.constantFrom("spare", "busy", undefined),
  cores: fc.constantFrom(2, 4, 5, 16, undefined),
  isRead: fc.constantFrom(true, true, true, false),
});
const specOf = ({ tier, cores, isRead }: Kind): Json | null => {
  if (!isRead) return null;
  const nodeSelector = cores === undefined ? {} : { cores: String(cores) };
  return { template: { metadata: { labels: tier === undefined ? {} : { tier } }, spec: { nodeSelector } } };
};
const created = fc.constantFrom("2026-11-22T09:00:00Z", "2026-11-22T09:00:01Z", "2026-11-22T09:30:00Z");

const vms: fc.Arbitrary<readonly Vm[]> = fc
  .uniqueArray(
    fc.record({
      ordinal: fc.nat(ORDINAL_MAX),
      pool: fc.constantFrom(POOL_UID, POOL_UID, POOL_UID, POOL_UID, OTHER_POOL_UID, EARLIER_POOL_UID, null),
      terminating: fc.constantFrom(false, false, false, true),
      ready: fc.boolean(),
      failures: fc.constantFrom(0, 0, 1, 5),
      shown: fc.constantFrom("Running", "Running", "CrashLoopBackOff"),
      readyChanged: fc.constantFrom("2026-11-22T09:00:00Z", "2026-11-22T09:59:50Z", null),
      labels: fc.constantFrom({ app: "web" }, { app: "web" }, { app: "web" }, { app: "gone" }),
      revision: fc.constantFrom("web-1", "web-2", "other-1", null),
      finalizers: fc.constantFrom([POOL_FINALIZER], [POOL_FINALIZER, "example.com/x"], []),
      stranger: fc.constantFrom(false, false, false, true),
      created,
      spec: kind.map(specOf),
    }),
    { selector: ({ ordinal }) => ordinal, maxLength: ORDINAL_MAX },
  )
  .map((entries) =>
    entries.map(({ stranger, ...entry }) =>
      aVm(entry.ordinal, stranger ? { ...entry, name: `box${entry.ordinal}` } : entry),
    ),
  );

const time = fc.integer({ min: NOW - 200_000, max: NOW + 200_000 });
const claim: fc.Arbitrary<Claim> = fc
  .record({
    generation: fc.integer({ min: 0, max: 2 }),
    nonce: fc.constantFrom("nonce-1", "nonce-2"),
    create: fc.uniqueArray(fc.tuple(fc.nat(ORDINAL_MAX), time), { selector: ([ordinal]) => ordinal, maxLength: 5 }),
    delete: fc.uniqueArray(fc.nat(ORDINAL_MAX), { maxLength: 4 }),
    waitUntil: fc.oneof({ arbitrary: fc.constant(undefined), weight: 8 }, { arbitrary: time, weight: 1 }),
  })
  .map(({ create, delete: deletes, ...rest }) =>
    aClaim({
      ...rest,
      create: new Map(create),
      delete: deletes.map((ordinal) => ({ ordinal, uidPrefix: aVm(ordinal).uid.slice(0, 8) })),
    }),
  );
const claimText: fc.Arbitrary<string | null> = fc.oneof(
  { arbitrary: claim.map(formatClaim), weight: 8 },
  { arbitrary: fc.constant(null), weight: 1 },
  { arbitrary: fc.oneof(fc.string(), fc.json()), weight: 1 },
  {
    arbitrary: fc
      .tuple(claim, fc.constantFrom("create", "delete", "at", "waitUntil", "nonce", "since"), fc.jsonValue())
      .map(([base, field, value]) => JSON.stringify({ ...JSON.parse(formatClaim(base)), [field]: value })),
    weight: 2,
  },
  {
    arbitrary: fc
      .tuple(
        claim,
        fc.constantFrom("0-3", "5", "0-499", "1,1,1", "999999999"),
        fc.date({ noInvalidDate: true, min: new Date(0), max: new Date("9999-12-31T23:59:59Z") }),
      )
      .map(([base, create, at]) =>
        JSON.stringify({ ...JSON.parse(formatClaim(base)), create: { [at.toISOString()]: create } }),
      ),
    weight: 1,
  },
);

/** What a pool remembers of healing; somebody may have edited it. */
const memory: fc.Arbitrary<string> = fc.oneof(
  {
    arbitrary: fc
      .dictionary(
        fc.nat(ORDINAL_MAX).map(String),
        fc.record({ count: fc.integer({ min: 1, max: 12 }), at: time.map((at) => new Date(at).toISOString()) }),
        { maxKeys: 5 },
      )
      .map((entries) => JSON.stringify(entries)),
    weight: 5,
  },
  { arbitrary: fc.constantFrom("{", "[]", '{"a":1}'), weight: 1 },
);

const ledger: fc.Arbitrary<Ledger> = fc
  .record({
    nonce: fc.constantFrom(undefined, "nonce-1", "nonce-2"),
    own: fc.uniqueArray(fc.nat(ORDINAL_MAX)),
    tainted: fc.uniqueArray(fc.nat(ORDINAL_MAX), { maxLength: 2 }),
  })
  .map(({ nonce, own, tainted }) => ({ nonce, own: new Set(own), tainted: new Set(tainted) }));

const limits: fc.Arbitrary<Limits> = fc.constantFrom(
  ACTING,
  ACTING,
  CLOSING,
  { createsMax: 1, deletesMax: 1, updatesMax: 1, restartsMax: 1 },
  { createsMax: 2, deletesMax: 0, updatesMax: 0, restartsMax: 2 },
);

const observationOf = (spec: fc.Arbitrary<unknown>): fc.Arbitrary<Observation> =>
  fc
    .record({
      spec,
      vms,
      claim: claimText,
      memory: fc.option(memory, { nil: undefined }),
      ledger,
      deleting: fc.constantFrom(false, false, false, false, true),
      finalizers: fc.constantFrom([POOL_FINALIZER], [POOL_FINALIZER, "orphan"], []),
      narrow: fc.boolean(),
      revision: fc.constantFrom<"absent" | undefined>("absent", undefined),
    })
    .map(({ spec: value, claim: text, memory: healing, deleting, finalizers, ...rest }) => {
      const annotations = healing === undefined ? {} : { [HEALING_ANNOTATION]: healing };
      const pool = aPool({ spec: value, claim: text, annotations, deleting, finalizers });
      return deepFreeze(anObservation({ ...rest, pool }));
    });

const legalObservation = observationOf(legalSpec);
const anyObservation = observationOf(
  fc.oneof({ arbitrary: legalSpec, weight: 3 }, { arbitrary: brokenSpec, weight: 1 }),
);

const healedIn = ({ actions }: Plan) =>
  actions.flatMap((action) => (action.kind === "deleteVm" && action.why.startsWith("it is healed") ? [action.vm] : []));
const replicasOf = ({ verdict }: Observation) => (verdict.legal ? (verdict.spec.replicas ?? 1) : 0);
/** A pool whose disks outlive its machines deletes these itself on its way out. */
const isCollecting = ({ pool }: Observation) => pool.deleting && keepsDisks(pool.spec);
const isFree = ({ pool, verdict }: Observation) => verdict.legal && !pool.deleting && verdict.spec.paused !== true;
const membersOf = (seen: Observation) =>
  [...new Map([...(seen.namespaceVms ?? []), ...seen.selected].map((vm) => [vm.uid, vm])).values()].filter(
    (vm) => isOwnedBy(vm, seen.pool) && seen.verdict.legal && seen.verdict.selector.matches(vm.labels),
  );

const RUNS = { numRuns: 1_000 } as const;
const check = (seen: fc.Arbitrary<Observation>, holds: (seen: Observation, limit: Limits) => void) =>
  fc.assert(fc.property(seen, limits, holds), RUNS);

describe("every plan", () => {
  it("is made without throwing, and asks for no more rounds of reads than a pass has", () =>
    check(anyObservation, (seen, limit) => {
      const first = planPass(seen, limit);
      if (first.needs.length > 0) expect(first.actions).toEqual([]);
      expect(planRead(seen, limit).needs).toEqual([]);
    }));

  it("is the same for the same observation (invariant 10)", () =>
    check(anyObservation, (seen, limit) => {
      expect(planPass(seen, limit)).toEqual(planPass(seen, limit));
    }));

  it("is the same whatever the order of the lists (invariant 10)", () =>
    fc.assert(
      fc.property(anyObservation, limits, fc.infiniteStream(fc.nat()), (seen, limit, random) => {
        const shuffled = (list: readonly Vm[]) =>
          list
            .map((vm) => ({ vm, key: random.next().value ?? 0 }))
            .sort((a, b) => a.key - b.key)
            .map(({ vm }) => vm);
        const namespaceVms = seen.namespaceVms && shuffled(seen.namespaceVms);
        expect(planPass({ ...seen, selected: shuffled(seen.selected), namespaceVms }, limit)).toEqual(
          planPass(seen, limit),
        );
      }),
      RUNS,
    ));

  it("touches only what is the pool's (invariants 1 and 6)", () =>
    check(anyObservation, (seen, limit) => {
      const plan = planRead(seen, limit);
      // On its way out a pool lets go of all that it owns, whatever the labels say.
      const owned = (seen.namespaceVms ?? []).filter((vm) => isOwnedBy(vm, seen.pool));
      const ours = (isCollecting(seen) ? owned : membersOf(seen))
        .filter(({ terminating }) => !terminating)
        .map(({ uid }) => uid);
      for (const vm of [...targetsOf(plan, "deleteVm"), ...targetsOf(plan, "revokeDelete")])
        expect(ours).toContain(vm.uid);
      for (const vm of targetsOf(plan, "releaseVm")) {
        expect(isOwnedBy(vm, seen.pool) && vm.labels["app"] !== "web").toBe(true);
      }
      for (const vm of targetsOf(plan, "dropVmFinalizer")) {
        const controller = controllerOf(vm);
        const isBound = controller !== undefined && isPoolOwner(controller);
        expect(vm.finalizers).toContain(POOL_FINALIZER);
        const isGoing = isOwnedBy(vm, seen.pool) && (vm.terminating || seen.pool.deleting);
        expect(isBound ? isGoing || controller.uid === EARLIER_POOL_UID : true).toBe(true);
      }
      if (kindsOf(plan).includes("dropPoolFinalizer")) expect(seen.pool.deleting).toBe(true);
    }));

  it("has each machine as the target of at most one action", () =>
    check(anyObservation, (seen, limit) => {
      const plan = planRead(seen, limit);
      const kinds = ["releaseVm", "dropVmFinalizer", "revokeDelete", "deleteVm"] as const;
      const targets = kinds.flatMap((kind) => namesOf(plan, kind));
      expect(new Set(targets).size).toBe(targets.length);
    }));

  it("never deletes more than the surplus and what is healed (invariant 2)", () =>
    check(anyObservation, (seen, limit) => {
      if (isCollecting(seen)) return;
      const plan = planRead(seen, limit);
      const deletes = deletesOf(plan).length;
      const live = membersOf(seen).filter(({ terminating }) => !terminating).length;
      const surplus = Math.max(0, live - replicasOf(seen));
      expect(deletes).toBeLessThanOrEqual(Math.min(limit.deletesMax, surplus + healedIn(plan).length));
    }));

  it("heals only what has failed to start, and no more than 40 % of the pool", () =>
    check(legalObservation, (seen, limit) => {
      const healed = healedIn(planRead(seen, limit));
      if (healed.length === 0) return;
      const spec = seen.verdict.legal ? seen.verdict.spec : undefined;
      expect(spec).toMatchObject({ autohealing: {} });
      expect(healed.length).toBeLessThanOrEqual(Math.max(1, Math.floor(0.4 * replicasOf(seen))));
      const threshold = spec?.autohealing?.startUpFailureThreshold ?? 3;
      for (const vm of healed) {
        const isLong = vm.shown !== undefined && seen.now - (vm.notReadySince ?? seen.now) >= 300_000;
        expect(vm.startFailures >= threshold || isLong).toBe(true);
      }
    }));

  it("never creates more than the shortage, with all that may still land (invariant 3)", () =>
    check(anyObservation, (seen, limit) => {
      const plan = planRead(seen, limit);
      const creates = createsOf(plan);
      if (creates.length === 0) return;
      const members = membersOf(seen);
      const made = new Set(members.map(({ ordinal }) => ordinal));
      const mayLand = (claimedOrdinals(plan) ?? []).filter((ordinal) => !made.has(ordinal));
      expect(creates.length).toBeLessThanOrEqual(limit.createsMax);
      expect(members.length + mayLand.length).toBeLessThanOrEqual(replicasOf(seen));
    }));

  it("creates only names that nothing has, each once", () =>
    check(anyObservation, (seen, limit) => {
      const creates = createsOf(planRead(seen, limit));
      const names = [...seen.selected, ...(seen.namespaceVms ?? [])].map(({ ordinal }) => ordinal);
      expect(new Set(creates).size).toBe(creates.length);
      for (const ordinal of creates) expect(names).not.toContain(ordinal);
    }));

  it("creates and deletes only in a legal pool that is neither paused nor on its way out (invariants 5 and 7)", () =>
    check(anyObservation, (seen, limit) => {
      const plan = planRead(seen, limit);
      if (!isFree(seen)) expect(createsOf(plan)).toEqual([]);
      if (!isFree(seen) && !isCollecting(seen)) expect(deletesOf(plan)).toEqual([]);
      if (seen.verdict.legal || seen.pool.deleting) return;
      expect(kindsOf(plan).filter((kind) => kind !== "changeDisk" && kind !== "dropVmFinalizer")).toEqual([]);
      expect(targetsOf(plan, "dropVmFinalizer").filter(({ terminating }) => !terminating)).toEqual([]);
    }));

  it("claims before it acts, and revokes before it drops a claim", () =>
    check(anyObservation, (seen, limit) => {
      if (isCollecting(seen)) return;
      const plan = planRead(seen, limit);
      const kinds = kindsOf(plan);
      const at = kinds.indexOf("writeClaim");
      const guarded = kinds.flatMap((kind, index) => (kind === "createVm" || kind === "deleteVm" ? [index] : []));
      const revokes = kinds.flatMap((kind, index) => (kind === "revokeDelete" ? [index] : []));
      for (const index of guarded) expect(at !== -1 && at < index).toBe(true);
      for (const index of revokes) expect(index < at).toBe(true);
      const items = claimIn(plan);
      for (const ordinal of createsOf(plan)) expect(items?.create.get(ordinal)).toBe(seen.now);
      const prefixes = items?.delete.map(({ uidPrefix }) => uidPrefix) ?? [];
      for (const vm of targetsOf(plan, "deleteVm")) expect(prefixes).toContain(vm.uid.slice(0, 8));
      for (const vm of targetsOf(plan, "revokeDelete")) expect(prefixes).not.toContain(vm.uid.slice(0, 8));
    }));

  it("leaves no claimed delete of a live machine behind that it neither keeps nor revokes", () =>
    check(legalObservation, (seen, limit) => {
      const before = parseClaim(seen.pool.annotations?.[CLAIM_ANNOTATION]);
      const plan = planRead(seen, limit);
      const items = claimIn(plan);
      if (before === undefined || items === undefined || items.waitUntil !== undefined) return;
      const live = membersOf(seen).filter(({ terminating }) => !terminating);
      const kept = new Set(items.delete.map(({ uidPrefix }) => uidPrefix));
      const revoked = new Set(targetsOf(plan, "revokeDelete").map(({ uid }) => uid.slice(0, 8)));
      for (const { uidPrefix } of before.delete) {
        if (live.some(({ uid }) => uid.startsWith(uidPrefix)))
          expect(kept.has(uidPrefix) || revoked.has(uidPrefix)).toBe(true);
      }
    }));

  it("writes a claim that can be read", () =>
    check(anyObservation, (seen, limit) => {
      const items = claimIn(planRead(seen, limit));
      if (items === undefined) return;
      expect(items.create.size).toBeLessThanOrEqual(CLAIM_ITEMS_MAX);
      const written = { ...aClaim({ at: seen.now }), ...items };
      expect(parseClaim(formatClaim(written))).toEqual(written);
    }));

  it("is followed by an empty one when it only wrote the claim (invariant 8)", () =>
    check(legalObservation, (seen, limit) => {
      const plan = planRead(seen, limit);
      const items = claimIn(plan);
      if (items === undefined || plan.actions.length > 1) return;
      const text = formatClaim({
        ...aClaim({ at: seen.now, generation: seen.pool.generation, nonce: "next" }),
        ...items,
      });
      const ledgerAfter = ledgerAfterClaim(seen.ledger, {
        previous: parseClaim(seen.pool.annotations?.[CLAIM_ANNOTATION]),
        nonce: "next",
        issued: [],
      });
      const [action] = plan.actions;
      const healing = action?.kind === "writeClaim" ? action.healing : undefined;
      const { [HEALING_ANNOTATION]: before, ...annotations } = seen.pool.annotations ?? {};
      const left = healing === undefined ? before : (healing ?? undefined);
      const pool = {
        ...seen.pool,
        annotations: {
          ...annotations,
          [CLAIM_ANNOTATION]: text,
          ...(left === undefined ? {} : { [HEALING_ANNOTATION]: left }),
        },
        finalizers: [...new Set([...seen.pool.finalizers, POOL_FINALIZER])],
      };
      expect(planRead({ ...seen, pool, ledger: ledgerAfter }, limit).actions).toEqual([]);
    }));
});

/** What each filter lets through, said a second time. */
const FILTERS: readonly { readonly selectors: Json; readonly passes: (kind: Kind) => boolean }[] = [
  { selectors: {}, passes: () => true },
  { selectors: SPARE, passes: ({ tier, isRead }) => isRead && tier === "spare" },
  { selectors: MANY_CORES, passes: ({ cores, isRead }) => isRead && cores !== undefined && cores > 4 },
  {
    selectors: { ...SPARE, ...MANY_CORES },
    passes: ({ tier, cores, isRead }) => isRead && tier === "spare" && cores !== undefined && cores > 4,
  },
  {
    selectors: { labelSelector: { matchExpressions: [{ key: "tier", operator: "NotIn", values: ["busy"] }] } },
    passes: ({ tier, isRead }) => isRead && tier !== "busy",
  },
  {
    selectors: { nodeSelectorRequirementMatcher: [{ key: "cores", operator: "DoesNotExist" }] },
    passes: ({ cores, isRead }) => isRead && cores === undefined,
  },
];

const scaleIn = fc
  .record({
    filter: fc.constantFrom(...FILTERS),
    sortPolicy: fc.constantFrom(undefined, null, "AscendingOrder", "DescendingOrder", "Newest", "Oldest", "Random"),
    machines: fc.array(fc.record({ kind, created, ready: fc.boolean() }), { maxLength: 12 }),
    claimed: fc.uniqueArray(fc.nat(11), { maxLength: 5 }),
    surplus: fc.integer({ min: -3, max: 15 }),
    deletesMax: fc.constantFrom(0, 1, 3, 250),
  })
  .map(({ filter, sortPolicy, machines, claimed, ...rest }) => {
    const selectionPolicy = { sortPolicy, selectors: filter.selectors };
    const live = machines.map(({ kind: entry, ...more }, ordinal) => aVm(ordinal, { ...more, spec: specOf(entry) }));
    return {
      pool: aPool({ spec: aSpec({ scaleInStrategy: { proactive: { selectionPolicy } } }) }),
      live,
      passing: new Set(live.filter((_, ordinal) => machines[ordinal] && filter.passes(machines[ordinal].kind))),
      claimed: claimed.map((ordinal) => ({ ordinal, uidPrefix: aVm(ordinal).uid.slice(0, 8) })),
      ...rest,
    };
  });

describe("every scale-in", () => {
  it("takes as many as are too many, match and may go, and nothing else (invariant 2)", () =>
    fc.assert(
      fc.property(scaleIn, ({ passing, ...input }) => {
        const { remove, claimed, revoke } = planScaleIn(deepFreeze(input));
        const wanted = Math.min(passing.size, Math.max(0, input.surplus));
        const inherited = input.claimed.filter(({ ordinal }) => [...passing].some((vm) => vm.ordinal === ordinal));
        const most = Math.max(Math.min(inherited.length, wanted), Math.min(wanted, input.deletesMax));
        expect(claimed).toHaveLength(most);
        expect(remove).toEqual(claimed.slice(0, input.deletesMax));
        for (const vm of claimed) expect(passing.has(vm)).toBe(true);
        for (const vm of revoke) expect(claimed).not.toContain(vm);
        expect(new Set([...claimed, ...revoke]).size).toBe(claimed.length + revoke.length);
      }),
      RUNS,
    ));

  it("keeps or revokes each claimed delete of a live machine", () =>
    fc.assert(
      fc.property(scaleIn, ({ passing: _, ...input }) => {
        const { claimed, revoke } = planScaleIn(input);
        const seen = new Set([...claimed, ...revoke].map(({ ordinal }) => ordinal));
        for (const { ordinal } of input.claimed)
          if ((ordinal ?? 0) < input.live.length) expect(seen).toContain(ordinal);
      }),
      RUNS,
    ));

  it("gives a reason exactly when the selectors block some of those that are too many", () =>
    fc.assert(
      fc.property(scaleIn, ({ passing, ...input }) => {
        expect(planScaleIn(input).reasons).toHaveLength(input.surplus > passing.size ? 1 : 0);
      }),
      RUNS,
    ));

  it("is the same whatever the order of the list (invariant 10)", () =>
    fc.assert(
      fc.property(scaleIn, fc.nat(), ({ passing: _, ...input }, turn) => {
        const at = turn % Math.max(1, input.live.length);
        const live = [...input.live.slice(at), ...input.live.slice(0, at)].toReversed();
        expect(planScaleIn({ ...input, live })).toEqual(planScaleIn(input));
      }),
      RUNS,
    ));
});

describe("a claim", () => {
  const anyClaim: fc.Arbitrary<Claim> = fc
    .record({
      by: fc.string({ minLength: 1, maxLength: 200 }),
      nonce: fc.string({ minLength: 1, maxLength: 64 }),
      at: time,
      generation: fc.nat(),
      since: fc.record({ at: time, generation: fc.nat() }),
      waitUntil: fc.option(time, { nil: undefined }),
      create: fc.uniqueArray(fc.tuple(fc.nat(300), time), { selector: ([ordinal]) => ordinal, maxLength: 200 }),
      delete: fc.array(
        fc.record({
          ordinal: fc.option(fc.nat(999_999_999), { nil: undefined }),
          uidPrefix: fc.stringMatching(/^[\w-]{1,8}$/),
        }),
        { maxLength: 200 },
      ),
      restart: fc.array(fc.record({ ordinal: fc.nat(999_999_999), uidPrefix: fc.stringMatching(/^[\w-]{1,8}$/) }), {
        maxLength: 200,
      }),
      rollout: fc.option(
        fc.record({
          template: fc.string({ maxLength: 64 }),
          revisions: fc.array(fc.string()),
          instances: fc.boolean(),
          generation: fc.option(fc.nat(), { nil: undefined }),
        }),
        { nil: undefined },
      ),
    })
    .map((entry) => ({ ...entry, create: new Map(entry.create) }));

  it("is read back as it was written", () =>
    fc.assert(
      fc.property(anyClaim, (entry) => {
        expect(parseClaim(formatClaim(entry))).toEqual(entry);
      }),
    ));

  it("is read from any text without throwing", () =>
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json(), claimText), (text) => {
        const parsed = parseClaim(text ?? undefined);
        if (parsed !== undefined) expect(parseClaim(formatClaim(parsed))).toEqual(parsed);
      }),
      RUNS,
    ));
});

describe("any JSON", () => {
  it("is judged, parsed and scheduled without throwing", () =>
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (value, other) => {
        parsePool(value);
        parseVm(value, "web");
        parseRevision(value);
        keepsDisks(value);
        keepsDisks({ scaleInStrategy: value });
        const verdict = judge({ name: "web", spec: value });
        if (!verdict.legal) {
          expect(verdict.problems.length).toBeGreaterThan(0);
          for (const { message } of verdict.problems) expect(message).not.toBe("");
        }
        resyncCause(aPool({ spec: value }), NOW, { settledMinutes: 10, everything: false });
        const revision = aRevision({ data: other });
        chooseRevision(aPool(), poolSpecSchema.parse(aSpec()), {
          known: new Map([["web-1", revision]]),
          preferred: [],
        });
      }),
      RUNS,
    ));

  it("is refused field by field in an otherwise legal spec, or accepted", () =>
    fc.assert(
      fc.property(brokenSpec, (spec) => {
        const verdict = judge({ name: "web", spec });
        if (!verdict.legal) for (const { field } of verdict.problems) expect(field).toMatch(/^(spec|metadata\.name|$)/);
      }),
      RUNS,
    ));
});

describe("every machine that is built", () => {
  it("is the pool's own, of its ordinal, and no part of the template is changed", () =>
    fc.assert(
      fc.property(legalSpec, fc.nat(10_000), (spec, ordinal) => {
        const pool = deepFreeze(aPool({ spec }));
        const verdict = deepFreeze(judge(pool));
        if (!verdict.legal) throw new Error("the generator made an illegal spec");
        const built = buildVm({
          pool,
          spec: verdict.spec,
          poolApiVersion: "pool.kubevirt.io/v1beta1",
          ordinal,
          revision: "web-1",
        });
        const vm = parseVm({ ...built, metadata: { ...built.metadata, uid: "new", resourceVersion: "1" } }, pool.name);
        expect(vm).toMatchObject({ ordinal, terminating: false, finalizers: [POOL_FINALIZER] });
        expect(vm && isOwnedBy(vm, pool) && verdict.selector.matches(vm.labels)).toBe(true);
      }),
    ));
});

describe("every status", () => {
  it("is settled once it is written", () =>
    check(anyObservation, (seen, limit) => {
      const { members } = planRead(seen, limit);
      const input = { now: seen.now, pool: seen.pool, verdict: seen.verdict, members, failures: [], by: seen.by };
      const { status } = reportStatus(input);
      const again = reportStatus({ ...input, now: seen.now + 60_000, pool: { ...seen.pool, status } });
      expect(again).toMatchObject({ changed: false, announcements: [] });
    }));
});
