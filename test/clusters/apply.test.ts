import { expect, it } from "vitest";
import { type Applied, announceOutcomes, applyPlan, failuresOf } from "../../shared/clusters/apply.ts";
import type { ApiRequest, ApiResponse } from "../../shared/clusters/connection.ts";
import { EMPTY_LEDGER, type Ledger, parseClaim } from "../../shared/planning/claim.ts";
import { isRecord, recordOf } from "../../shared/planning/json.ts";
import { type Pool, parsePool, parseVm, type Vm } from "../../shared/planning/model.ts";
import { CLAIM_ANNOTATION, GUARDED_ANNOTATION, POOL_FINALIZER } from "../../shared/planning/names.ts";
import type { Action } from "../../shared/planning/plan.ts";
import { aDisk, anInstance, anObservation, aRevision } from "../support/builders.ts";
import {
  aCluster,
  aWire,
  linesOf,
  networkError,
  ok,
  on,
  type Reply,
  type Route,
  refusal,
  writesOf,
} from "../support/transport.ts";
import {
  aClaimText,
  aPool,
  aVm,
  NOW,
  type PoolFields,
  poolPath,
  REVISIONS,
  VMS,
  type VmFields,
} from "../support/transport-objects.ts";

const CREATE = `POST ${VMS}`;
const CLAIM = `PATCH ${poolPath()}`;
const CLAIM_POINTER = "/metadata/annotations/vmpool-functions~1pass";
const BUSY = refusal(429, "TooManyRequests", "slow down", { "retry-after": "3" });
const WRITTEN = on(CLAIM, ok({ metadata: { resourceVersion: "101" } }));

function must<T>(value: T | undefined): T {
  if (value === undefined) throw new TypeError("the test's own object is not valid");
  return value;
}

function aSeenVm(ordinal: number, fields: VmFields = {}): Vm {
  return must(parseVm(aVm(ordinal, fields), "web"));
}

function aSeenPool(fields: PoolFields = {}): Pool {
  return must(parsePool(aPool(fields)));
}

function creates(count: number): readonly Action[] {
  return Array.from({ length: count }, (_, ordinal) => ({ kind: "createVm", ordinal, revision: "web-1", why: "test" }));
}

interface ClaimFields {
  readonly addFinalizer?: boolean;
  readonly create?: ReadonlyMap<number, number>;
  readonly healing?: string | null;
}

function writeClaim({ addFinalizer = false, create = new Map(), healing }: ClaimFields = {}): Action {
  return {
    kind: "writeClaim",
    items: { create, delete: [], restart: [], rollout: undefined, waitUntil: undefined },
    addFinalizer,
    healing,
    why: "test",
  };
}

interface Setting {
  readonly routes: readonly Route[];
  readonly pool?: Pool;
  readonly ledger?: Ledger;
  /** How much time is left, by the number of requests sent so far. */
  readonly timeLeftMs?: (sent: number) => number;
}

/** Applies the actions; returns what came of them, what was sent and how long it slept. */
async function apply(actions: readonly Action[], { routes, pool = aSeenPool(), ledger, timeLeftMs }: Setting) {
  const wire = aWire(...routes);
  const sleeps: number[] = [];
  const seen = anObservation({ now: NOW, pool, narrow: true, ledger: ledger ?? EMPTY_LEDGER });
  const applied = await applyPlan(
    { needs: [], actions, reasons: [], announcements: [], members: [] },
    {
      cluster: aCluster(wire).cluster,
      seen,
      poolVersion: "v1beta1",
      by: "here",
      nonce: "nonce-now",
      sleep: async (ms) => {
        sleeps.push(ms);
      },
      writeTimeLeftMs: () => timeLeftMs?.(wire.sent.length) ?? 30_000,
    },
  );
  return { ...applied, wire, sleeps, seen };
}

function resultsOf({ outcomes }: Applied): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { result } of outcomes) counts[result] = (counts[result] ?? 0) + 1;
  return counts;
}

/** Answers that tell how many of its requests were under way at once. */
function aGauge(reply: (request: ApiRequest) => ApiResponse = () => ok({})) {
  const waves: number[] = [];
  let open = 0;
  let most = 0;
  return {
    waves,
    /** Most at once. */
    most: () => most,
    async answer(request: ApiRequest): Promise<ApiResponse> {
      if (open === 0) waves.push(0);
      open += 1;
      most = Math.max(most, open);
      waves.push((waves.pop() ?? 0) + 1);
      await new Promise(setImmediate);
      open -= 1;
      return reply(request);
    },
  };
}

it.each(["already", "failed", "skipped"] as const)("tells of no success where a call was %s (D26, D34)", (result) => {
  const vm = aSeenVm(0);
  const disk = aDisk(0);
  const instance = anInstance(0);
  const actions: readonly Action[] = [
    writeClaim(),
    ...creates(1),
    { kind: "deleteVm", vm, why: "test" },
    { kind: "updateVm", vm, revision: "web-2", patch: {}, why: "test" },
    { kind: "restartInstance", vm, instance, why: "test" },
    { kind: "changeDisk", vm, disk, metadata: {}, released: true, why: "test" },
  ];
  const seen = anObservation({ now: NOW, pool: aSeenPool() });
  const outcomes = (outcome: typeof result | "done") =>
    actions.map((action) => ({ action, result: outcome, failure: undefined }));

  expect(announceOutcomes(seen, outcomes(result))).toEqual([]);
  expect(announceOutcomes(seen, outcomes("done")).map(({ type }) => type)).toContain("Normal");
});

it("creates in batches that double", async () => {
  const gauge = aGauge();
  const done = await apply(creates(20), { routes: [on(CREATE, gauge.answer)] });

  expect(gauge.waves).toEqual([1, 2, 4, 8, 5]);
  expect(resultsOf(done)).toEqual({ done: 20 });
});

it("keeps at most sixteen calls under way", async () => {
  const gauge = aGauge();
  await apply(creates(100), { routes: [on(CREATE, gauge.answer)] });

  expect(gauge.most()).toBe(16);
});

it.each([
  { refusedAt: 1, sent: 1 },
  { refusedAt: 2, sent: 3 },
  { refusedAt: 4, sent: 7 },
])("stops after the batch in which create number $refusedAt is refused", async ({ refusedAt, sent }) => {
  const replies: Reply[] = Array.from({ length: 20 }, (_, index) =>
    index + 1 === refusedAt ? refusal(403, "Forbidden", "exceeded quota") : ok({}),
  );
  const done = await apply(creates(20), { routes: [on(CREATE, ...replies)] });

  expect(done.wire.sent).toHaveLength(sent);
  expect(resultsOf(done)).toEqual({ ...(sent === 1 ? {} : { done: sent - 1 }), failed: 1, skipped: 20 - sent });
  expect(done.ledger.tainted).toEqual(new Set());
  expect(failuresOf(done.outcomes)).toEqual([{ during: "scaleOut", message: "exceeded quota" }]);
});

const NEW: readonly Action[] = [
  writeClaim({ create: new Map([0, 1, 2].map((ordinal) => [ordinal, NOW])) }),
  { kind: "createRevision", name: "web-1", why: "test" },
  ...creates(3),
];
const MADE = on(`POST ${REVISIONS}`, ok({}));

it("tries the first machine of a new revision before anything is claimed, and makes all", async () => {
  const done = await apply(NEW, { routes: [WRITTEN, MADE, on(CREATE, ok({}))] });

  expect(linesOf(done.wire)).toEqual([CREATE, CLAIM, `POST ${REVISIONS}`, CREATE, CREATE, CREATE]);
  expect(done.wire.sent.map(({ path }) => path.includes("dryRun=All"))).toEqual([
    true,
    false,
    false,
    false,
    false,
    false,
  ]);
  expect(done.wire.sent[0]?.body).toEqual(done.wire.sent[3]?.body);
  expect(resultsOf(done)).toEqual({ done: 5 });
});

it.each<[string, readonly Action[]]>([
  ["its revision is there", NEW.filter(({ kind }) => kind !== "createRevision")],
  ["machines that are there are to name its revision", NEW.filter(({ kind }) => kind !== "createVm")],
])("tries no machine when %s", async (_what, actions) => {
  const done = await apply(actions, { routes: [WRITTEN, MADE, on(CREATE, ok({}))] });

  expect(done.wire.sent.filter(({ path }) => path.includes("dryRun"))).toEqual([]);
});

/** A machine goes so that another can come, whose revision is there. */
const REPLACING: readonly Action[] = [
  writeClaim({}),
  { kind: "deleteVm", vm: aSeenVm(3), successor: "web-1", complaint: "it failed to start", why: "test" },
];

it("deletes no machine whose successor the cluster refuses", async () => {
  const done = await apply(REPLACING, { routes: [on(CREATE, refusal(422, "Invalid", "spec.running: required"))] });

  expect(done.wire.sent.map(({ method, path }) => [method, path.includes("dryRun=All")])).toEqual([["POST", true]]);
  expect(resultsOf(done)).toEqual({ failed: 1, skipped: 2 });
  expect(failuresOf(done.outcomes)).toEqual([{ during: "scaleOut", message: "spec.running: required" }]);
  expect(announceOutcomes(done.seen, done.outcomes)).toEqual([]);
});

it.each<[string, Reply]>([
  ["takes its successor", ok({})],
  ["finds nothing but the name in the way", refusal(409, "AlreadyExists")],
  ["has a quota that is used up", refusal(403, "Forbidden", "exceeded quota: vms")],
  [
    "has a policy that counts machines",
    refusal(403, "Forbidden", 'admission webhook "x" denied the request: 3 at most'),
  ],
])("deletes a machine for another when the cluster %s, and says why", async (_what, reply) => {
  const done = await apply(REPLACING, { routes: [on(CREATE, reply), WRITTEN, on(`DELETE ${VMS}/web-3`, ok({}))] });

  expect(linesOf(done.wire)).toEqual([CREATE, CLAIM, `DELETE ${VMS}/web-3`]);
  expect(announceOutcomes(done.seen, done.outcomes)).toMatchObject([
    { type: "Warning", reason: "Healing", message: "web-3 is replaced: it failed to start" },
    { reason: "SuccessfulDelete" },
  ]);
});

const DENIED = 'admission webhook "vms.example.com" denied the request: no';

it.each<[string, Reply, string]>([
  ["is invalid", refusal(422, "Invalid", "spec.running: required"), "spec.running: required"],
  ["cannot be read", refusal(400, "BadRequest", 'unknown field "spec.x"'), 'unknown field "spec.x"'],
  ["is denied by a webhook", refusal(403, "Forbidden", DENIED), DENIED],
])("does nothing for a template that %s, and tells it once", async (_what, reply, message) => {
  const vm = aSeenVm(7);
  const plan: readonly Action[] = [...NEW, { kind: "deleteVm", vm, why: "replaced" }];
  const done = await apply(plan, { routes: [on(CREATE, reply)] });

  expect(done.wire.sent).toHaveLength(1);
  expect(resultsOf(done)).toEqual({ failed: 1, skipped: 5 });
  expect(failuresOf(done.outcomes)).toEqual([{ during: "scaleOut", message }]);
  expect(announceOutcomes(done.seen, done.outcomes)).toEqual([]);
  expect(done.ledger).toEqual(EMPTY_LEDGER);
});

/** Answers a create as a cluster does whose policy changes the metadata of new machines. */
const altering =
  (change: object): Reply =>
  ({ body }) => {
    const sent = recordOf(body);
    return ok({ ...sent, metadata: { ...recordOf(sent["metadata"]), ...change } });
  };
const UNLABELLED = altering({ labels: { tier: "front" } });
const CHANGES_LABELS = 'policy or webhook of the cluster changes what the pool knows new machines by (label "app")';

it.each<[string, Reply, string]>([
  ["its selector does not match", UNLABELLED, CHANGES_LABELS],
  [
    "it does not control",
    altering({ ownerReferences: [] }),
    "changes what the pool knows new machines by (owner references)",
  ],
])("claims nothing for machines of which the cluster would make such as %s", async (_what, reply, message) => {
  const done = await apply(NEW, { routes: [on(CREATE, reply)] });

  expect(done.wire.sent).toHaveLength(1);
  expect(resultsOf(done)).toEqual({ failed: 1, skipped: 4 });
  expect(failuresOf(done.outcomes)).toEqual([{ during: "scaleOut", message: expect.stringContaining(message) }]);
});

it("makes one machine, and no more, of which the cluster makes one that the selector does not match", async () => {
  const done = await apply(creates(7), { routes: [on(CREATE, UNLABELLED)] });

  expect(done.wire.sent).toHaveLength(1);
  expect(resultsOf(done)).toEqual({ failed: 1, skipped: 6 });
  expect(failuresOf(done.outcomes)).toMatchObject([{ message: expect.stringContaining(CHANGES_LABELS) }]);
  expect(announceOutcomes(done.seen, done.outcomes)).toEqual([]);
  expect(done.ledger.tainted).toEqual(new Set());
});

it("makes all machines of a cluster that adds labels of its own", async () => {
  const done = await apply(NEW, {
    routes: [WRITTEN, MADE, on(CREATE, altering({ labels: { app: "web", tier: "front" } }))],
  });

  expect(resultsOf(done)).toEqual({ done: 5 });
});

it("deletes no machine whose successor the selector would not match", async () => {
  const done = await apply(REPLACING, { routes: [on(CREATE, UNLABELLED)] });

  expect(resultsOf(done)).toEqual({ failed: 1, skipped: 2 });
});

it.each([
  ["the last pass failed", "True", true],
  ["an earlier failure is over", "False", false],
])("tries a machine of a revision that is there when %s: %s", async (_what, status, tries) => {
  const pool = aSeenPool({ status: { conditions: [{ type: "ReplicaFailure", status }] } });
  const done = await apply(creates(1), { routes: [on(CREATE, ok({}))], pool });

  expect(done.wire.sent.map(({ path }) => path.includes("dryRun=All"))).toEqual(tries ? [true, false] : [false]);
});

it("leaves it to the create to be refused once machines of the revision are there: their updates go on", async () => {
  const pool = aSeenPool({ status: { conditions: [{ type: "ReplicaFailure", status: "True" }] } });
  const routes = [on(CREATE, refusal(422, "Invalid", "no")), on(`PATCH ${VMS}/web-0`, ok({}))];
  const done = await apply([...creates(2), ...updates(1)], { routes, pool });

  expect(linesOf(done.wire)).toEqual([CREATE, CREATE, `PATCH ${VMS}/web-0`]);
  expect(resultsOf(done)).toEqual({ failed: 1, skipped: 1, done: 1 });
});

it("claims nothing in a pool that shows a failure while the cluster would alter another machine", async () => {
  const pool = aSeenPool({ status: { conditions: [{ type: "ReplicaFailure", status: "True" }] } });
  const done = await apply([writeClaim(), ...creates(2)], { routes: [on(CREATE, UNLABELLED)], pool });

  expect(done.wire.sent.map(({ path }) => path.includes("dryRun=All"))).toEqual([true]);
  expect(resultsOf(done)).toEqual({ failed: 1, skipped: 2 });
});

it.each<[string, Reply]>([
  ["finds a quota used up", refusal(403, "Forbidden", 'virtualmachines "web-0" is forbidden: exceeded quota: few')],
  ["may not create", refusal(403, "Forbidden", 'virtualmachines is forbidden: User "x" cannot create resource')],
  [
    "meets a webhook that has side effects",
    refusal(400, "BadRequest", 'admission webhook "x" does not support dry run'),
  ],
  ["finds the name taken", refusal(409, "AlreadyExists")],
  ["is throttled", BUSY],
  ["meets a broken webhook", refusal(500, "InternalError", "failed calling webhook")],
  ["gets no answer", networkError("ECONNRESET")],
])("goes on when a trial %s: the create itself tells", async (_what, reply) => {
  const done = await apply(NEW, { routes: [WRITTEN, MADE, on(CREATE, reply, ok({}))] });

  expect(resultsOf(done)).toEqual({ done: 5 });
  expect(done.sleeps).toEqual([]);
  expect(done.ledger.tainted).toEqual(new Set());
});

it("tries nothing when no time is left to act on it", async () => {
  const done = await apply(NEW, { routes: [], timeLeftMs: () => 0 });

  expect(done.wire.sent).toEqual([]);
  expect(resultsOf(done)).toEqual({ skipped: 5 });
});

it("goes on when a machine's name is taken: the next look says whose it is (D17)", async () => {
  const done = await apply(creates(3), { routes: [on(CREATE, refusal(409, "AlreadyExists"), ok({}))] });

  expect(resultsOf(done)).toEqual({ already: 1, done: 2 });
  expect(failuresOf(done.outcomes)).toEqual([]);
});

it.each<[string, Reply]>([
  ["a reset", networkError("ECONNRESET")],
  ["a 500", refusal(500, "InternalError")],
  ["a 504", refusal(504, "Timeout")],
  ["a 408", refusal(408, "Timeout")],
  ["an answer that is no object", ok("created")],
])("taints the create that ended in %s, and only that", async (_what, reply) => {
  const done = await apply(creates(7), { routes: [on(CREATE, ok({}), reply, ok({}))] });

  expect(done.ledger.tainted).toEqual(new Set([1]));
  expect(resultsOf(done)).toEqual({ done: 2, failed: 1, skipped: 4 });
});

it.each<[string, Reply]>([
  ["was refused", refusal(422, "Invalid")],
  ["was throttled", refusal(429, "TooManyRequests")],
  ["found the name taken", refusal(409, "AlreadyExists")],
  ["did not reach the server", networkError("ECONNREFUSED")],
])("does not taint a create that %s", async (_what, reply) => {
  const done = await apply(creates(1), { routes: [on(CREATE, reply)] });

  expect(done.ledger.tainted).toEqual(new Set());
});

it("leaves a create tainted when its repetition succeeds", async () => {
  const busy = refusal(503, "ServiceUnavailable", "busy", { "retry-after": "1" });
  const done = await apply(creates(1), { routes: [on(CREATE, busy, ok({}))] });

  expect(resultsOf(done)).toEqual({ done: 1 });
  expect(done.ledger.tainted).toEqual(new Set([0]));
});

it("keeps what earlier loops have tainted", async () => {
  const ledger = { nonce: "nonce-before", own: new Set([0, 9]), tainted: new Set([9]) };
  const done = await apply(creates(1), { routes: [on(CREATE, ok({}))], ledger });

  expect(done.ledger.tainted).toEqual(new Set([9]));
});

it("is as patient as the server asks, three times", async () => {
  const done = await apply(creates(1), { routes: [on(CREATE, BUSY)] });

  expect(done.wire.sent).toHaveLength(4);
  expect(done.sleeps).toEqual([3_000, 3_000, 3_000]);
  expect(resultsOf(done)).toEqual({ failed: 1 });
});

it("succeeds after having been patient", async () => {
  const unavailable = refusal(503, "ServiceUnavailable", "starting", { "retry-after": "1" });
  const done = await apply(creates(1), { routes: [on(CREATE, BUSY, unavailable, ok({}))] });

  expect(done.sleeps).toEqual([3_000, 1_000]);
  expect(resultsOf(done)).toEqual({ done: 1 });
});

it("does not wait for longer than it may still write", async () => {
  const done = await apply(creates(1), { routes: [on(CREATE, BUSY)], timeLeftMs: () => 3_000 });

  expect(done.wire.sent).toHaveLength(1);
  expect(done.sleeps).toEqual([]);
  expect(resultsOf(done)).toEqual({ failed: 1 });
});

it("does not repeat what was refused without a time", async () => {
  const done = await apply(creates(1), { routes: [on(CREATE, refusal(429, "TooManyRequests"))] });

  expect(done.wire.sent).toHaveLength(1);
});

it("starts no write inside the time reserve, and does not taint what it never sent", async () => {
  const done = await apply(creates(20), {
    routes: [on(CREATE, ok({}))],
    timeLeftMs: (sent) => (sent < 3 ? 10_000 : 0),
  });

  expect(done.wire.sent).toHaveLength(3);
  expect(resultsOf(done)).toEqual({ done: 3, skipped: 17 });
  expect(done.ledger.tainted).toEqual(new Set());
  expect(failuresOf(done.outcomes)).toEqual([]);
});

it("deletes a machine by the UID and version that were read, and by nothing else (D09)", async () => {
  const vm = aSeenVm(2);
  const done = await apply([{ kind: "deleteVm", vm, why: "test" }], { routes: [on(`DELETE ${VMS}/web-2`, ok({}))] });

  expect(done.wire.sent.map(({ body }) => body)).toEqual([
    { apiVersion: "v1", kind: "DeleteOptions", preconditions: { uid: vm.uid, resourceVersion: "52" } },
  ]);
  expect(resultsOf(done)).toEqual({ done: 1 });
});

it.each<[Reply, string, string[]]>([
  [refusal(404, "NotFound"), "already", []],
  [refusal(409, "Conflict"), "failed", []],
  [refusal(403, "Forbidden", "no"), "failed", ["no"]],
])("collects every outcome of several deletes: %j (D33)", async (reply, result, messages) => {
  const vms = [0, 1, 2].map((ordinal) => aSeenVm(ordinal));
  const routes = vms.map(({ name }, index) => on(`DELETE ${VMS}/${name}`, index === 1 ? reply : ok({})));
  const done = await apply(
    vms.map((vm) => ({ kind: "deleteVm", vm, why: "test" })),
    { routes },
  );

  expect(resultsOf(done)).toEqual({ done: 2, [result]: 1 });
  expect(failuresOf(done.outcomes).map(({ message }) => message)).toEqual(messages);
});

it("tells of every failure, not only of the first (D38)", async () => {
  const vms = [0, 1, 2].map((ordinal) => aSeenVm(ordinal));
  const routes = vms.map(({ name }, index) => {
    return on(`DELETE ${VMS}/${name}`, index === 1 ? ok({}) : refusal(403, "Forbidden", `not ${name}`));
  });
  const done = await apply(
    vms.map((vm) => ({ kind: "deleteVm", vm, why: "test" })),
    { routes },
  );

  expect(failuresOf(done.outcomes).map(({ message }) => message)).toEqual(["not web-0", "not web-2"]);
});

/** The operations of the one claim that is written to this pool. */
async function claimOf(pool: Pool, addFinalizer = false): Promise<readonly unknown[]> {
  const { wire } = await apply([writeClaim({ addFinalizer, create: new Map([[0, NOW]]) })], {
    routes: [WRITTEN],
    pool,
  });
  const body = wire.sent[0]?.body;
  return Array.isArray(body) ? body : [];
}

const GUARDS = [
  { op: "test", path: "/metadata/uid", value: "uid-web" },
  { op: "test", path: "/metadata/generation", value: 1 },
];
const ANY_TEXT = expect.any(String);

it("claims a pool without annotations by creating them", async () => {
  expect(await claimOf(aSeenPool())).toEqual([
    ...GUARDS,
    { op: "test", path: "/metadata/annotations", value: null },
    { op: "add", path: "/metadata/annotations", value: { [CLAIM_ANNOTATION]: ANY_TEXT } },
  ]);
});

it("claims a pool with other annotations by adding one", async () => {
  expect(await claimOf(aSeenPool({ annotations: { team: "a" } }))).toEqual([
    ...GUARDS,
    { op: "test", path: CLAIM_POINTER, value: null },
    { op: "add", path: CLAIM_POINTER, value: ANY_TEXT },
  ]);
});

it("claims a pool only while its claim is the one that was read, to the letter", async () => {
  const text = ` ${aClaimText()} `;

  expect(await claimOf(aSeenPool({ annotations: { [CLAIM_ANNOTATION]: text } }))).toEqual([
    ...GUARDS,
    { op: "test", path: CLAIM_POINTER, value: text },
    { op: "add", path: CLAIM_POINTER, value: ANY_TEXT },
  ]);
});

it("adds the first finalizer only while there is none (D42)", async () => {
  expect((await claimOf(aSeenPool(), true)).slice(-2)).toEqual([
    { op: "test", path: "/metadata/finalizers", value: null },
    { op: "add", path: "/metadata/finalizers", value: [POOL_FINALIZER] },
  ]);
});

it("adds its finalizer to those of others (D15)", async () => {
  expect((await claimOf(aSeenPool({ finalizers: ["other/x"] }), true)).slice(-1)).toEqual([
    { op: "add", path: "/metadata/finalizers/-", value: POOL_FINALIZER },
  ]);
});

/** The claim that is written over `previous`. */
async function claimOver(previous: string | undefined) {
  const operations = await claimOf(
    aSeenPool({ annotations: previous === undefined ? {} : { [CLAIM_ANNOTATION]: previous } }),
  );
  const last = operations.at(-1);
  return must(parseClaim(isRecord(last) && typeof last["value"] === "string" ? last["value"] : undefined));
}

it("says in the claim who acts, when, on which generation and with what", async () => {
  expect(await claimOver(undefined)).toEqual({
    by: "here",
    at: NOW,
    nonce: "nonce-now",
    generation: 1,
    since: { at: NOW, generation: 1, naming: "+" },
    waitUntil: undefined,
    create: new Map([[0, NOW]]),
    delete: [],
    restart: [],
    rollout: undefined,
  });
});

it("keeps since when this deployment acts, and begins anew after another", async () => {
  const since = { at: NOW - 86_400_000, generation: 7 };

  expect(await claimOver(aClaimText({ since }))).toMatchObject({ since });
  expect(await claimOver(aClaimText({ since, by: "elsewhere" }))).toMatchObject({ since: { at: NOW, generation: 1 } });
  expect(await claimOver("unreadable")).toMatchObject({ since: { at: NOW, generation: 1 } });
  // One that no pass takes for a claim must not hand its beginning on: what is written would be no claim, either.
  const ahead = { at: NOW + 3_600_000, generation: 7 };
  expect(await claimOver(aClaimText({ since: ahead }))).toMatchObject({ since: { at: NOW, generation: 1 } });
});

it("owns what it claimed, and knows the pool's new version", async () => {
  const done = await apply([writeClaim({ create: new Map([[0, NOW]]) }), ...creates(1)], {
    routes: [WRITTEN, on(CREATE, ok({}))],
  });

  expect(done.poolResourceVersion).toBe("101");
  expect(done.ledger).toEqual({ nonce: "nonce-now", own: new Set([0]), tainted: new Set() });
});

const OWNING: Ledger = { nonce: "nonce-before", own: new Set([5]), tainted: new Set() };

it.each<[string, Reply, Ledger]>([
  ["refused by its test", refusal(422, "Invalid"), OWNING],
  ["refused by a conflict", refusal(409, "Conflict"), OWNING],
  ["forbidden", refusal(403, "Forbidden"), OWNING],
  ["of unknown outcome after a reset", networkError("ECONNRESET"), EMPTY_LEDGER],
  ["of unknown outcome after a 500", refusal(500, "InternalError"), EMPTY_LEDGER],
])("does nothing that leans on a claim that is %s", async (_what, reply, ledger) => {
  const actions: readonly Action[] = [
    writeClaim(),
    { kind: "createRevision", name: "web-1", why: "test" },
    ...creates(2),
    { kind: "deleteVm", vm: aSeenVm(3), why: "test" },
  ];
  const done = await apply(actions, { routes: [on(CREATE, ok({})), on(CLAIM, reply)], ledger: OWNING });

  expect(linesOf(done.wire)).toEqual([CREATE, CLAIM]);
  expect(done.wire.sent[0]?.path).toContain("dryRun=All");
  expect(resultsOf(done)).toEqual({ failed: 1, skipped: 4 });
  expect(done.ledger).toEqual(ledger);
  expect(done.poolResourceVersion).toBeUndefined();
});

it("does upkeep, revocations, the trial, the claim, revision, creates and deletes, in this order", async () => {
  const [leaving, revoked, surplus] = [aSeenVm(1), aSeenVm(2), aSeenVm(3)];
  const actions: readonly Action[] = [
    { kind: "deleteVm", vm: surplus, why: "test" },
    ...creates(1),
    { kind: "createRevision", name: "web-1", why: "test" },
    writeClaim(),
    { kind: "revokeDelete", vm: revoked, why: "test" },
    { kind: "dropVmFinalizer", vm: leaving, why: "test" },
  ];
  const lines = [
    `PATCH ${VMS}/web-1`,
    `PATCH ${VMS}/web-2`,
    CREATE,
    CLAIM,
    `POST ${REVISIONS}`,
    CREATE,
    `DELETE ${VMS}/web-3`,
  ];
  const done = await apply(actions, { routes: lines.map((line) => on(line, ok({ metadata: {} }))) });

  expect(linesOf(done.wire)).toEqual(lines);
  expect(resultsOf(done)).toEqual({ done: 6 });
});

it("lets a failure of upkeep hold nothing up", async () => {
  const actions: readonly Action[] = [
    { kind: "dropVmFinalizer", vm: aSeenVm(1), why: "test" },
    writeClaim(),
    ...creates(1),
  ];
  const routes = [on(`PATCH ${VMS}/web-1`, refusal(403, "Forbidden", "no")), WRITTEN, on(CREATE, ok({}))];
  const done = await apply(actions, { routes });

  expect(resultsOf(done)).toEqual({ failed: 1, done: 2 });
  expect(failuresOf(done.outcomes)).toEqual([{ during: "upkeep", message: "no" }]);
});

it.each<[string, Reply]>([
  ["is gone", refusal(404, "NotFound")],
  ["has another UID", refusal(409, "Conflict")],
  ["is on its way out", ok({ metadata: { deletionTimestamp: "2026-05-01T12:00:00Z" } })],
  ["may or may not have changed", refusal(500, "InternalError")],
  ["cannot be reached", networkError("ECONNRESET")],
])("claims nothing when a machine whose deletion is revoked %s", async (_what, reply) => {
  const actions: readonly Action[] = [
    { kind: "revokeDelete", vm: aSeenVm(1), why: "test" },
    { kind: "revokeDelete", vm: aSeenVm(2), why: "test" },
    writeClaim(),
    ...creates(1),
    { kind: "deleteVm", vm: aSeenVm(3), why: "test" },
  ];
  const routes = [on(`PATCH ${VMS}/web-1`, reply), on(`PATCH ${VMS}/web-2`, ok({ metadata: {} }))];
  const done = await apply(actions, { routes });

  expect(linesOf(done.wire).toSorted()).toEqual([`PATCH ${VMS}/web-1`, `PATCH ${VMS}/web-2`]);
  expect(done.outcomes.filter(({ result }) => result === "done").map(({ action }) => action.kind)).toEqual([
    "revokeDelete",
  ]);
});

it("revokes a deletion by a change that tests the UID", async () => {
  const vm = aSeenVm(1);
  const done = await apply([{ kind: "revokeDelete", vm, why: "test" }], {
    routes: [on(`PATCH ${VMS}/web-1`, ok({ metadata: {} }))],
  });

  expect(writesOf(done.wire)).toMatchObject([
    {
      contentType: "application/merge-patch+json",
      body: { metadata: { uid: vm.uid, annotations: { "vmpool-functions/revoked": "nonce-now" } } },
    },
  ]);
});

it.each<[string, Reply, string]>([
  ["refused", refusal(403, "Forbidden"), "skipped"],
  ["quickly made by another pass under the generation's name", refusal(409, "AlreadyExists"), "skipped"],
  ["new", ok({}), "done"],
])("creates machines by the outcome of the revision: %s", async (_what, reply, result) => {
  const actions: readonly Action[] = [{ kind: "createRevision", name: "web-1", why: "test" }, ...creates(1)];
  const done = await apply(actions, { routes: [on(`POST ${REVISIONS}`, reply), on(CREATE, ok({}))] });

  expect(done.outcomes.find(({ action }) => action.kind === "createVm")?.result).toBe(result);
});

it("takes a revision of its own unique name, made by another pass, for its own", async () => {
  const actions: readonly Action[] = [{ kind: "createRevision", name: "web-1-0123abcd", why: "test" }, ...creates(1)];
  const routes = [on(`POST ${REVISIONS}`, refusal(409, "AlreadyExists")), on(CREATE, ok({}))];

  expect(resultsOf(await apply(actions, { routes }))).toEqual({ already: 1, done: 1 });
});

it("releases a machine: our finalizer and owner reference go, what others wrote stays (D13)", async () => {
  const others = { apiVersion: "v1", kind: "ConfigMap", name: "c", uid: "c-1" };
  const vm = aSeenVm(1);
  const shared = { ...vm, owners: [...vm.owners, others], finalizers: ["other/x", ...vm.finalizers] };
  const done = await apply([{ kind: "releaseVm", vm: shared, why: "test" }], {
    routes: [on(`PATCH ${VMS}/web-1`, ok({}))],
  });

  expect(writesOf(done.wire).map(({ body }) => body)).toEqual([
    {
      metadata: { uid: vm.uid, resourceVersion: "51", finalizers: ["other/x"], ownerReferences: [others] },
    },
  ]);
});

it("drops a machine's finalizer without touching its owners", async () => {
  const vm = aSeenVm(1);
  const done = await apply([{ kind: "dropVmFinalizer", vm, why: "test" }], {
    routes: [on(`PATCH ${VMS}/web-1`, refusal(404, "NotFound"))],
  });

  expect(writesOf(done.wire).map(({ body }) => body)).toEqual([
    { metadata: { uid: vm.uid, resourceVersion: "51", finalizers: [] } },
  ]);
  expect(resultsOf(done)).toEqual({ already: 1 });
});

it("drops the pool's finalizer by the version that was read", async () => {
  const pool = aSeenPool({ finalizers: ["other/x", POOL_FINALIZER] });
  const done = await apply([{ kind: "dropPoolFinalizer", why: "test" }], { routes: [on(CLAIM, ok({}))], pool });

  expect(writesOf(done.wire)).toMatchObject([
    {
      contentType: "application/merge-patch+json",
      body: { metadata: { uid: "uid-web", resourceVersion: "100", finalizers: ["other/x"] } },
    },
  ]);
});

it("creates a machine as the pool's template says, with its owner, finalizer and revision", async () => {
  const done = await apply(creates(1), { routes: [on(CREATE, ok({}))] });

  expect(done.wire.sent[0]?.body).toMatchObject({
    kind: "VirtualMachine",
    metadata: {
      name: "web-0",
      namespace: "ci",
      labels: { app: "web", "kubevirt.io/vm-pool-revision-name": "web-1" },
      finalizers: [POOL_FINALIZER],
      ownerReferences: [{ kind: "VirtualMachinePool", name: "web", uid: "uid-web", controller: true }],
    },
  });
});

it("announces what was done, and not what was found done", async () => {
  const vm = aSeenVm(9);
  const actions: readonly Action[] = [...creates(3), { kind: "deleteVm", vm, why: "test" }];
  const routes = [on(CREATE, ok({}), refusal(409, "AlreadyExists"), ok({})), on(`DELETE ${VMS}/web-9`, ok({}))];
  const done = await apply(actions, { routes });

  expect(announceOutcomes(done.seen, done.outcomes).map(({ reason, message }) => `${reason} ${message}`)).toEqual([
    "SuccessfulCreate Created VM ci/web-0",
    "SuccessfulCreate Created VM ci/web-2",
    `SuccessfulDelete Deleted VM ci/web-9 with uid ${vm.uid} from pool`,
  ]);
});

const INSTANCES = VMS.replace("virtualmachines", "virtualmachineinstances");
const DATA_VOLUMES = `/apis/cdi.kubevirt.io/v1beta1/namespaces/ci/datavolumes`;
const instance = { ...anInstance(1), resourceVersion: "61" };

function aRestart(spec?: object): Action {
  const vm = aSeenVm(1);
  return {
    kind: "restartInstance",
    vm: spec === undefined ? vm : { ...vm, spec: vmSpec(spec) },
    instance,
    why: "test",
  };
}

const vmSpec = (fields: object) => must(parseVm({ ...aVm(1), spec: { ...fields, template: {} } }, "web")).spec;

it.each<[string, object | undefined]>([
  ["Always", { runStrategy: "Always" }],
  ["Once", { runStrategy: "Once" }],
  ["the old running: true", { running: true }],
  ["an unknown one", undefined],
])("restarts a guest of run strategy %s by deleting the instance that was read", async (_what, spec) => {
  const done = await apply([aRestart(spec)], { routes: [on(`DELETE ${INSTANCES}/web-1`, ok({}))] });

  expect(done.wire.sent.map(({ body }) => body)).toMatchObject([
    { preconditions: { uid: instance.uid, resourceVersion: "61" } },
  ]);
  expect(resultsOf(done)).toEqual({ done: 1 });
});

it.each(["Manual", "RerunOnFailure"])(
  "asks a machine of run strategy %s to stop this instance and to start (D40)",
  async (runStrategy) => {
    const vm = aSeenVm(1);
    const done = await apply([aRestart({ runStrategy })], { routes: [on(`PATCH ${VMS}/web-1/status`, ok({}))] });

    expect(writesOf(done.wire)).toMatchObject([
      {
        contentType: "application/merge-patch+json",
        body: {
          metadata: { uid: vm.uid, resourceVersion: "51" },
          status: { stateChangeRequests: [{ action: "Stop", uid: instance.uid }, { action: "Start" }] },
        },
      },
    ]);
  },
);

it("revokes a restart by changing the machine and then its instance", async () => {
  const routes = [on(`PATCH ${VMS}/web-1`, ok({ metadata: {} })), on(`PATCH ${INSTANCES}/web-1`, ok({ metadata: {} }))];
  const done = await apply([{ kind: "revokeRestart", vm: aSeenVm(1), instance, why: "test" }], { routes });

  expect(linesOf(done.wire)).toEqual([`PATCH ${VMS}/web-1`, `PATCH ${INSTANCES}/web-1`]);
  expect(writesOf(done.wire).map(({ body }) => body)).toEqual([
    { metadata: { uid: aSeenVm(1).uid, annotations: { "vmpool-functions/revoked": "nonce-now" } } },
    { metadata: { uid: instance.uid, annotations: { "vmpool-functions/revoked": "nonce-now" } } },
  ]);
});

it.each<[string, Reply]>([
  ["is gone", refusal(404, "NotFound")],
  ["is on its way out", ok({ metadata: { deletionTimestamp: "2026-05-01T12:00:00Z" } })],
  ["may or may not have changed", networkError("ECONNRESET")],
])("claims nothing when an instance whose restart is revoked %s", async (_what, reply) => {
  const actions: readonly Action[] = [
    { kind: "revokeRestart", vm: undefined, instance, why: "test" },
    writeClaim(),
    aRestart(),
    ...creates(1),
  ];
  const done = await apply(actions, { routes: [on(`PATCH ${INSTANCES}/web-1`, reply)] });

  expect(linesOf(done.wire)).toEqual([`PATCH ${INSTANCES}/web-1`]);
});

function updates(count: number): readonly Action[] {
  const patch = { metadata: { labels: { a: "b" } } };
  return Array.from({ length: count }, (_, ordinal) => ({
    kind: "updateVm",
    vm: aSeenVm(ordinal),
    revision: "web-2",
    patch,
    why: "test",
  }));
}

/** A route for each of the first machines, and what each answers. */
const patchRoutes = (count: number, reply: (ordinal: number) => Reply) =>
  Array.from({ length: count }, (_, ordinal) => on(`PATCH ${VMS}/web-${ordinal}`, reply(ordinal)));

it("updates a machine by the UID and version that were read, and only what the patch says", async () => {
  const done = await apply(updates(1), { routes: patchRoutes(1, () => ok({})) });

  expect(writesOf(done.wire)).toMatchObject([
    {
      contentType: "application/merge-patch+json",
      body: { metadata: { uid: aSeenVm(0).uid, resourceVersion: "50", labels: { a: "b" } } },
    },
  ]);
});

it("updates in batches that double (D28)", async () => {
  const gauge = aGauge();
  await apply(updates(10), { routes: patchRoutes(10, () => gauge.answer) });

  expect(gauge.waves).toEqual([1, 2, 4, 3]);
});

it("stops updating after the batch in which one is refused", async () => {
  const done = await apply(updates(10), {
    routes: patchRoutes(10, (ordinal) => (ordinal === 1 ? refusal(422, "Invalid", "no such field") : ok({}))),
  });

  expect(resultsOf(done)).toEqual({ done: 2, failed: 1, skipped: 7 });
  expect(failuresOf(done.outcomes)).toEqual([{ during: "update", message: "no such field" }]);
});

it("goes on updating past a machine that was changed meanwhile", async () => {
  const done = await apply(updates(10), {
    routes: patchRoutes(10, (ordinal) => (ordinal === 0 ? refusal(409, "Conflict") : ok({}))),
  });

  expect(resultsOf(done)).toEqual({ done: 9, failed: 1 });
  expect(failuresOf(done.outcomes)).toEqual([]);
});

it("updates nothing without its revision", async () => {
  const actions: readonly Action[] = [{ kind: "createRevision", name: "web-2", why: "test" }, ...updates(2)];
  const done = await apply(actions, { routes: [on(`POST ${REVISIONS}`, refusal(403, "Forbidden"))] });

  expect(resultsOf(done)).toEqual({ failed: 1, skipped: 2 });
});

it("labels an instance by the version that was read", async () => {
  const done = await apply([{ kind: "labelInstance", instance, revision: "web-2", why: "test" }], {
    routes: [on(`PATCH ${INSTANCES}/web-1`, ok({}))],
  });

  expect(writesOf(done.wire).map(({ body }) => body)).toEqual([
    {
      metadata: {
        uid: instance.uid,
        resourceVersion: "61",
        labels: { "kubevirt.io/vm-pool-revision-name": "web-2" },
      },
    },
  ]);
});

it.each<[string, Reply, string, number]>([
  ["done", ok({}), "done", 0],
  ["success when it is gone already (D33)", refusal(404, "NotFound"), "already", 0],
  ["a failure when it is forbidden", refusal(403, "Forbidden"), "failed", 1],
])("prunes a revision by UID and version: %s", async (_what, reply, result, failures) => {
  const revision = aRevision();
  const done = await apply([{ kind: "pruneRevision", revision, why: "test" }], {
    routes: [on(`DELETE ${REVISIONS}/web-1`, reply)],
  });

  expect(done.wire.sent.map(({ body }) => body)).toMatchObject([
    { preconditions: { uid: revision.uid, resourceVersion: "300" } },
  ]);
  expect(resultsOf(done)).toEqual({ [result]: 1 });
  expect(failuresOf(done.outcomes)).toHaveLength(failures);
});

function aRelease(ordinal: number): Action {
  const metadata = { ownerReferences: [], labels: { kept: "web" } };
  return { kind: "changeDisk", vm: aSeenVm(ordinal), disk: aDisk(ordinal), metadata, released: true, why: "test" };
}

it.each<[string, Reply, boolean]>([
  ["succeeds", ok({}), true],
  ["finds the disk gone", refusal(404, "NotFound"), true],
  ["is refused", refusal(403, "Forbidden"), false],
  ["finds the disk changed", refusal(409, "Conflict"), false],
  ["is not answered", networkError("ECONNRESET"), false],
])(
  "lets a machine go after its disk, when the release %s; another's machine in any case (D34)",
  async (_what, reply, goes) => {
    const actions: readonly Action[] = [
      { kind: "dropVmFinalizer", vm: aSeenVm(1), why: "test" },
      { kind: "dropVmFinalizer", vm: aSeenVm(2), why: "test" },
      aRelease(1),
    ];
    const routes = [
      on(`PATCH ${DATA_VOLUMES}/data-1`, reply),
      on(`PATCH ${VMS}/web-1`, ok({})),
      on(`PATCH ${VMS}/web-2`, ok({})),
    ];
    const done = await apply(actions, { routes });

    expect(linesOf(done.wire).slice(0, 1)).toEqual([`PATCH ${DATA_VOLUMES}/data-1`]);
    expect(writesOf(done.wire)[0]?.body).toMatchObject({ metadata: { uid: "uid-of-data-1", resourceVersion: "3001" } });
    expect(linesOf(done.wire).includes(`PATCH ${VMS}/web-1`)).toBe(goes);
    expect(linesOf(done.wire)).toContain(`PATCH ${VMS}/web-2`);
  },
);

it("takes the note about guarded disks from a machine that it releases", async () => {
  const vm = { ...aSeenVm(1), annotations: { [GUARDED_ANNOTATION]: "data-1" } };
  const done = await apply([{ kind: "releaseVm", vm, why: "test" }], { routes: [on(`PATCH ${VMS}/web-1`, ok({}))] });

  expect(writesOf(done.wire)).toMatchObject([{ body: { metadata: { annotations: { [GUARDED_ANNOTATION]: null } } } }]);
});

it("announces restarts and kept disks, and nothing for labels and pruning (D26)", async () => {
  const actions: readonly Action[] = [
    aRelease(1),
    aRestart(),
    { kind: "labelInstance", instance: { ...instance, name: "web-2" }, revision: "web-2", why: "test" },
    { kind: "pruneRevision", revision: aRevision(), why: "test" },
  ];
  const routes = [
    on(`PATCH ${DATA_VOLUMES}/data-1`, ok({})),
    on(`DELETE ${INSTANCES}/web-1`, ok({})),
    on(`PATCH ${INSTANCES}/web-2`, ok({})),
    on(`DELETE ${REVISIONS}/web-1`, ok({})),
  ];
  const done = await apply(actions, { routes });

  expect(announceOutcomes(done.seen, done.outcomes).map(({ reason }) => reason)).toEqual([
    "DiskKept",
    "SuccessfulUpdate",
  ]);
});
