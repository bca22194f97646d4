import { expect, it } from "vitest";
import { createStatus } from "../../functions/status.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import type { Reconciled } from "../../shared/events/facts.ts";
import { deduplicationIdOf } from "../../shared/events/wake-ups.ts";
import { aBusEvent, aContext, aDirectory, aFact, aLog, aMailbox, aWakeUp } from "../support/handlers.ts";
import {
  aWire,
  networkError,
  ok,
  on,
  queryOf,
  type Reply,
  refusal,
  silence,
  type Wire,
  writesOf,
} from "../support/transport.ts";
import { aSettledPool, DISCOVERY, NOW, poolPath, SELECTOR, served } from "../support/transport-objects.ts";

const POOL = `GET ${poolPath()}`;
const STATUS = `PATCH ${poolPath()}/status`;
const FAILURE = {
  type: "ReplicaFailure",
  status: "True",
  lastTransitionTime: "2026-05-01T11:59:00Z",
  reason: "FailedScaleOut",
  message: "error during scale out: exceeded quota",
};
const WANTED = { replicas: 1, readyReplicas: 1, labelSelector: SELECTOR, conditions: [] };

function aRecentFact(fields: Partial<Reconciled> = {}): Reconciled {
  return aFact({
    startedAt: new Date(NOW - 1_000).toISOString(),
    durationMs: 900,
    generation: 1,
    status: WANTED,
    ...fields,
  });
}

/** A cluster whose pool shows `status`, and which answers a write of it with `reply`. */
function aWireShowing(status: object, reply: Reply = ok({})): Wire {
  return aWire(on(DISCOVERY, served("v1beta1")), on(POOL, ok(aSettledPool({ status }))), on(STATUS, reply));
}

function aStatus(wire: Wire, access: Partial<ServerAccess> = {}) {
  const clock = { now: NOW };
  const now = () => clock.now;
  const registrations = aDirectory({ west: { wire, access } }, now);
  const mailbox = aMailbox();
  const log = aLog();
  const deps = { directory: registrations.directory, wakeUps: mailbox, now, logger: log };
  const handler = createStatus(() => deps);
  const run = (fact: unknown = aRecentFact(), remainingMs = 30_000) => handler(aBusEvent(fact), aContext(remainingMs));
  return { clock, mailbox, log, ...registrations, run, handler };
}

it("writes nothing and wakes nobody when the pool shows the same", async () => {
  const wire = aWireShowing({ ...WANTED, conditions: undefined });
  const { run, mailbox } = aStatus(wire);

  expect(await run()).toBe("equal");
  expect(writesOf(wire)).toEqual([]);
  expect(mailbox.sent).toEqual([]);
});

it("treats conditions in another order as the same", async () => {
  const paused = { ...FAILURE, type: "ReplicaPaused" };
  const { run } = aStatus(aWireShowing({ ...WANTED, conditions: [paused, FAILURE] }));

  expect(await run(aRecentFact({ status: { ...WANTED, conditions: [FAILURE, paused] } }))).toBe("equal");
});

it.each([
  ["another count", { ...WANTED, readyReplicas: 0 }],
  ["no selector", { replicas: 1, readyReplicas: 1 }],
  ["a count that is missing", { readyReplicas: 1, labelSelector: SELECTOR }],
  ["a condition that is over", { ...WANTED, conditions: [FAILURE] }],
  ["nothing", {}],
])("writes the status when the pool shows %s, and has it verified", async (_what, shown) => {
  const wire = aWireShowing(shown);
  const { run, mailbox } = aStatus(wire);

  expect(await run()).toBe("written");
  const [write] = writesOf(wire);
  expect(writesOf(wire)).toHaveLength(1);
  expect(write).toMatchObject({ method: "PATCH", contentType: "application/merge-patch+json" });
  expect(write?.path.split("?")[0]).toBe(`${poolPath()}/status`);
  expect(write === undefined ? undefined : queryOf(write)).toEqual({
    fieldManager: "vmpool-functions",
    timeout: "10s",
  });
  expect(write?.body).toMatchObject({
    metadata: { uid: "uid-web", resourceVersion: "102" },
    status: { replicas: 1, readyReplicas: 1, labelSelector: SELECTOR },
  });
  expect(mailbox.sent).toEqual([{ queue: "passes", wakeUp: aWakeUp({ cause: "status" }), seenAtMs: undefined }]);
});

it("writes the conditions of the fact, and removes those that are over", async () => {
  const [failing, over] = [aWireShowing(WANTED), aWireShowing({ ...WANTED, conditions: [FAILURE] })];

  await aStatus(failing).run(aRecentFact({ status: { ...WANTED, conditions: [FAILURE] } }));
  await aStatus(over).run(aRecentFact());

  expect(writesOf(failing)[0]?.body).toMatchObject({ status: { conditions: [FAILURE] } });
  expect(writesOf(over)[0]?.body).toMatchObject({ status: { conditions: null } });
});

it("wakes the pool by messages that never merge", async () => {
  const { run, mailbox } = aStatus(aWireShowing({}));
  await run();
  await run();

  expect(new Set(mailbox.sent.map(deduplicationIdOf)).size).toBe(2);
});

it("wakes the pool when somebody else changed it in between (D32)", async () => {
  const { run, mailbox, log } = aStatus(aWireShowing({}, refusal(409, "Conflict")));

  expect(await run()).toBe("conflict");
  expect(mailbox.sent).toMatchObject([{ queue: "passes", wakeUp: { cause: "status" } }]);
  expect(log.lines).toEqual([]);
});

it.each([
  { ageMs: 60_001, result: "stale" },
  { ageMs: 60_000, result: "written" },
])("takes a fact that is $ageMs ms old as $result", async ({ ageMs, result }) => {
  const wire = aWireShowing({});
  const { run, mailbox, clock } = aStatus(wire);
  clock.now = NOW - 100 + ageMs;

  expect(await run()).toBe(result);
  expect(wire.sent.length).toBe(result === "stale" ? 0 : 3);
  expect(mailbox.sent).toMatchObject([{ wakeUp: { cause: "status" } }]);
});

it("counts a fact's age from the end of its pass", async () => {
  const { run } = aStatus(aWireShowing({}));

  expect(await run(aRecentFact({ startedAt: new Date(NOW - 90_000).toISOString(), durationMs: 50_000 }))).toBe(
    "written",
  );
});

it("leaves a pool of the same name but another UID alone", async () => {
  const wire = aWireShowing({});
  const { run, mailbox } = aStatus(wire);

  expect(await run(aRecentFact({ uid: "uid-before" }))).toBe("gone");
  expect([...writesOf(wire), ...mailbox.sent]).toEqual([]);
});

it("leaves a pool that is gone alone", async () => {
  const gone = aWire(on(DISCOVERY, served("v1beta1")), on(POOL, refusal(404, "NotFound")));
  const goneMeanwhile = aWireShowing({}, refusal(404, "NotFound"));

  for (const wire of [gone, goneMeanwhile]) {
    const { run, mailbox } = aStatus(wire);
    expect(await run()).toBe("gone");
    expect(mailbox.sent).toEqual([]);
  }
});

it("calls nobody in mode observe", async () => {
  const wire = aWire();
  const { run, mailbox } = aStatus(wire, { mode: "observe" });

  expect(await run()).toBe("observing");
  expect([...wire.sent, ...mailbox.sent]).toEqual([]);
});

it("calls nobody for a cluster that is not registered", async () => {
  const wire = aWire();
  const { run, mailbox } = aStatus(wire);

  expect(await run(aRecentFact({ cluster: "north" }))).toBe("unknownCluster");
  expect([...wire.sent, ...mailbox.sent]).toEqual([]);
});

it("has nothing to write for a pass that did not see the machines", async () => {
  const wire = aWire();
  const { status: _none, ...fact } = aRecentFact();
  const { run, mailbox } = aStatus(wire);

  expect(await run(fact)).toBe("nothing");
  expect([...wire.sent, ...mailbox.sent]).toEqual([]);
});

const OUTAGES: readonly (readonly [string, Reply, string])[] = [
  ["refuses the credentials", refusal(401, "Unauthorized"), "unauthorized"],
  ["forbids it", refusal(403, "Forbidden", "pools is forbidden"), "forbidden"],
  ["finds the status invalid", refusal(422, "Invalid"), "invalid"],
  ["fails", refusal(500, "InternalError"), "unavailable"],
  ["cannot be reached", networkError("ECONNREFUSED"), "unreachable"],
];

it.each(OUTAGES)("reports a cluster that %s, and leaves the status to the next pass", async (_what, reply, kind) => {
  for (const wire of [aWireShowing({}, reply), aWire(on(DISCOVERY, served("v1beta1")), on(POOL, reply))]) {
    const { run, mailbox, log } = aStatus(wire);

    expect(await run()).toBe("failed");
    expect(mailbox.sent).toEqual([]);
    expect(log.lines).toMatchObject([{ level: "warn", fields: { cluster: "west", pool: "web", kind } }]);
    expect(JSON.stringify(log.lines)).not.toMatch(/s3cr3t|secret/i);
  }
});

it("reads the entry anew after refused credentials, at most once a minute", async () => {
  const { run, clock, reads } = aStatus(aWire(on(DISCOVERY, refusal(401, "Unauthorized"))));
  const fact = () => aRecentFact({ startedAt: new Date(clock.now).toISOString() });
  await run(fact());
  await run(fact());
  clock.now += 60_000;
  await run(fact());
  await run(fact());

  expect(reads).toEqual(["west", "west"]);
});

it("ends when the function's time is up", async () => {
  const { run } = aStatus(aWire(on(DISCOVERY, silence)));

  expect(await run(aRecentFact(), 3_020)).toBe("failed");
});

it("says so when the pool cannot be woken", async () => {
  const { run, mailbox, log } = aStatus(aWireShowing({}));
  mailbox.down.add("passes");

  expect(await run()).toBe("written");
  expect(log.at("error")).toEqual(["wake-up could not be sent"]);
});

it.each([
  [
    "of another kind",
    { ...aBusEvent(aRecentFact()), "detail-type": "Virtual Machine Pool Scale Requested" },
    "detail-type",
  ],
  ["of another source", { ...aBusEvent(aRecentFact()), source: "aws.ec2" }, "source"],
  ["of a later version", aBusEvent({ ...aRecentFact(), version: 2 }), "detail.version"],
  ["without a UID", aBusEvent({ ...aRecentFact(), uid: undefined }), "detail.uid"],
  ["with a time that is none", aBusEvent({ ...aRecentFact(), startedAt: "yesterday" }), "detail.startedAt"],
])("refuses an event %s, and names the field", async (_what, event, field) => {
  const { handler, log } = aStatus(aWire());

  await expect(handler(event, aContext())).rejects.toMatchObject({
    name: "EventError",
    message: expect.stringContaining(field),
  });
  expect(log.at("error")).toEqual(["function failed"]);
});

it("ignores fields of a fact that it does not know", async () => {
  const { run } = aStatus(aWireShowing(WANTED));

  expect(await run({ ...aRecentFact(), addedLater: true })).toBe("equal");
});
