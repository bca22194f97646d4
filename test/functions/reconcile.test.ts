import { describe, expect, it } from "vitest";
import { RegistryError } from "../../shared/clusters/registry.ts";
import { deduplicationIdOf } from "../../shared/events/wake-ups.ts";
import { recordOf } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION, POOL_FINALIZER } from "../../shared/planning/names.ts";
import { aContext, aDirectory, aMessage, aReconcile, aWakeUp } from "../support/handlers.ts";
import {
  aWire,
  linesOf,
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
import {
  aClaimText,
  aList,
  aPool,
  aSettledPool,
  aVm,
  DATE,
  DISCOVERY,
  EVENT_LIST,
  INSTANCES,
  NOW,
  poolPath,
  REVISIONS,
  served,
  VMS,
} from "../support/transport-objects.ts";

const POOL = `GET ${poolPath()}`;
const POOLS = poolPath().replace("/web", "");
const ALL_ACKNOWLEDGED = { batchItemFailures: [] };
const METADATA = expect.stringContaining("as=PartialObjectMetadataList");

/** A cluster in which the pool `web` has all that it wants. */
function aSettledWire(): Wire {
  return aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, ok(aSettledPool(), DATE)),
    on(`GET ${VMS}`, aList([aVm(0)])),
    on(`GET ${poolPath("api")}`, ok(aSettledPool({ name: "api", replicas: 0 }), DATE)),
  );
}

/** A cluster in which the pool `web` lacks its one machine, which comes when it is created. */
function anActingWire({ create = ok(aVm(0)) }: { create?: Reply } = {}): Wire {
  const claimed = aSettledPool({ resourceVersion: "102", status: { replicas: 0 } });
  return aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, ok(aPool(), DATE), ok(claimed, DATE)),
    on(`GET ${VMS}`, aList([]), aList([]), aList([aVm(0)])),
    on(`GET ${INSTANCES}`, aList([])),
    on(`GET ${REVISIONS}/web-1`, refusal(404, "NotFound")),
    on(`PATCH ${poolPath()}`, ok(aPool({ resourceVersion: "101" }))),
    on(`POST ${REVISIONS}`, ok({})),
    on(`POST ${VMS}`, create),
    on(`POST ${EVENT_LIST}`, ok({})),
    on(`GET ${poolPath("api")}`, ok(aSettledPool({ name: "api", replicas: 0 }), DATE)),
  );
}

function poolReads(wire: Wire, line = POOL): number {
  return linesOf(wire).filter((sent) => sent === line).length;
}

it("serves all wake-ups of a pool with one pass, and each pool with its own", async () => {
  const wire = aSettledWire();
  const { run } = aReconcile({ west: { wire } });

  const response = await run(
    aMessage({ id: "1", cause: "pool" }),
    aMessage({ id: "2", name: "api", cause: "instance" }),
    aMessage({ id: "3", cause: "instance" }),
    aMessage({ id: "4", cause: "again" }),
  );

  expect(response).toEqual(ALL_ACKNOWLEDGED);
  expect([poolReads(wire), poolReads(wire, `GET ${poolPath("api")}`)]).toEqual([1, 1]);
});

it("keeps pools of one name in several clusters apart", async () => {
  const [west, east] = [aSettledWire(), aSettledWire()];
  const { run } = aReconcile({ west: { wire: west }, east: { wire: east } });

  await run(aMessage({ id: "1" }), aMessage({ id: "2", cluster: "east" }));

  expect([poolReads(west), poolReads(east)]).toEqual([1, 1]);
});

it("finds out about a settled pool with three requests, then with two, and tells nobody", async () => {
  const wire = aSettledWire();
  const { run, bus, mailbox, log } = aReconcile({ west: { wire } });

  await run(aMessage({ sentAt: NOW }));
  await run(aMessage({ sentAt: NOW }));

  const look = [POOL, `GET ${VMS}`];
  expect(linesOf(wire)).toEqual([DISCOVERY, ...look, ...look]);
  expect(bus.published).toEqual([]);
  expect(mailbox.sent).toEqual([]);
  expect(log.lines.filter(({ level }) => level !== "debug")).toEqual([]);
});

it.each([
  { causes: ["pool"], looks: "at the selected machines" },
  { causes: ["resync", "again", "status", "scale", "error", "disk"], looks: "at the selected machines" },
  { causes: ["vm"], looks: "at the whole namespace" },
  { causes: ["sweep"], looks: "at the whole namespace" },
  { causes: ["of a later version"], looks: "at the whole namespace" },
  { causes: ["pool", "vm", "pool"], looks: "at the whole namespace" },
])("looks $looks when woken by $causes", async ({ causes, looks }) => {
  const wire = aSettledWire();
  const { run } = aReconcile({ west: { wire } });

  await run(...causes.map((cause, index) => aMessage({ id: String(index), cause })));

  const lists = wire.sent.filter(({ path }) => path.startsWith(VMS));
  const selected = lists.filter((request) => queryOf(request)["labelSelector"] === "app=web");
  const whole = lists.filter((request) => queryOf(request)["labelSelector"] === undefined);
  expect(selected).toHaveLength(1);
  expect(whole).toHaveLength(looks === "at the whole namespace" ? 1 : 0);
  expect(whole.map(({ accept }) => accept)).toEqual(whole.map(() => METADATA));
});

it.each([
  ["text", "hello"],
  ["nothing", ""],
  ["JSON of another kind", '{"Records":[]}'],
  ["a wake-up of a later version", JSON.stringify({ ...aWakeUp(), version: 2 })],
  ["a wake-up without a name", JSON.stringify({ ...aWakeUp(), name: "" })],
  ["a wake-up with a broken count", JSON.stringify({ ...aWakeUp(), attempt: -1 })],
])("lets go of a message that holds %s, and serves the others", async (_what, body) => {
  const wire = aSettledWire();
  const { run, log, mailbox } = aReconcile({ west: { wire } });

  const response = await run(aMessage({ id: "1" }), aMessage({ id: "2", body }), aMessage({ id: "3", name: "api" }));

  expect(response).toEqual(ALL_ACKNOWLEDGED);
  expect([poolReads(wire), poolReads(wire, `GET ${poolPath("api")}`)]).toEqual([1, 1]);
  expect(log.lines).toContainEqual({
    level: "error",
    message: "message is not a wake-up",
    fields: { messageId: "2" },
  });
  expect(mailbox.sent).toEqual([]);
});

it("refuses an event that is not a batch, and names what is wrong with it", async () => {
  const { handler, log } = aReconcile({});

  await expect(handler({ Records: [{ messageId: "1", body: "{}" }] }, aContext())).rejects.toMatchObject({
    name: "EventError",
    message: expect.stringContaining("Records.0.attributes"),
  });
  expect(log.at("error")).toEqual(["function failed"]);
});

it("creates what is missing: a trial, then claim, revision, machine, in this order", async () => {
  const wire = anActingWire();
  const { run } = aReconcile({ west: { wire } });

  const response = await run(aMessage());

  expect(response).toEqual(ALL_ACKNOWLEDGED);
  expect(writesOf(wire).map(({ method, path }) => `${method} ${path.replace(/\?(dryRun=All)?.*/, "$1")}`)).toEqual([
    `POST ${VMS}dryRun=All`,
    `PATCH ${poolPath()}`,
    `POST ${REVISIONS}`,
    `POST ${VMS}`,
    `POST ${EVENT_LIST}`,
  ]);
});

it("publishes what a pass did, with the status that the pool should show (D32, D38)", async () => {
  const wire = anActingWire();
  const { run, bus } = aReconcile({ west: { wire } });

  await run(aMessage());

  expect(bus.published).toEqual([
    {
      version: 1,
      cluster: "west",
      namespace: "ci",
      name: "web",
      uid: "uid-web",
      resourceVersion: "102",
      generation: 1,
      startedAt: "2026-05-01T12:00:00.000Z",
      durationMs: 0,
      requests: wire.sent.length,
      actions: { writeClaim: 1, createRevision: 1, createVm: 1 },
      status: { replicas: 1, readyReplicas: 1, labelSelector: "app=web", conditions: [] },
      failures: [],
      complete: true,
    },
  ]);
});

it("publishes a difference of status, and nothing else, when there is nothing to do", async () => {
  const pool = aSettledPool({ status: { replicas: 1, readyReplicas: 0, labelSelector: "app=web" } });
  const wire = aWire(on(DISCOVERY, served("v1beta1")), on(POOL, ok(pool, DATE)), on(`GET ${VMS}`, aList([aVm(0)])));
  const { run, bus, mailbox } = aReconcile({ west: { wire } });

  await run(aMessage());

  expect(bus.published).toMatchObject([{ resourceVersion: "100", actions: {}, status: { readyReplicas: 1 } }]);
  expect(mailbox.sent).toEqual([]);
  expect(writesOf(wire)).toEqual([]);
});

it("looks again after it acted, by wake-ups that never merge", async () => {
  const first = aReconcile({ west: { wire: anActingWire() } });
  const second = aReconcile({ west: { wire: anActingWire() } });

  await Promise.all([first.run(aMessage({ attempt: 2 })), second.run(aMessage({ cause: "vm" }))]);

  const sent = [...first.mailbox.sent, ...second.mailbox.sent];
  const again = { queue: "passes", wakeUp: aWakeUp({ cause: "again" }), seenAtMs: undefined };
  expect(sent).toEqual([again, again]);
  expect(new Set(sent.map(deduplicationIdOf)).size).toBe(2);
});

it("goes on with the wide look when a wide pass ran out of time", async () => {
  const wire = anActingWire();
  const { handler, mailbox, bus } = aReconcile({ west: { wire } });

  await handler({ Records: [aMessage({ cause: "vm" })] }, aContext(16_000));

  expect(writesOf(wire)).toEqual([]);
  expect(mailbox.sent).toMatchObject([{ queue: "passes", wakeUp: { cause: "sweep", attempt: 0 } }]);
  expect(bus.published).toMatchObject([{ complete: false, actions: {}, failures: [] }]);
});

it("only plans and logs in mode observe: no write, no fact, no wake-up", async () => {
  const wire = anActingWire();
  const { run, bus, mailbox, log } = aReconcile({ west: { wire, access: { mode: "observe" } } });

  const response = await run(aMessage());

  expect(response).toEqual(ALL_ACKNOWLEDGED);
  expect(writesOf(wire)).toEqual([]);
  expect(bus.published).toEqual([]);
  expect(mailbox.sent).toEqual([]);
  expect(log.lines.at(-1)).toMatchObject({
    level: "info",
    message: "pass decided",
    fields: { decisions: expect.arrayContaining([expect.stringContaining("create web-0")]), writes: 0 },
  });
});

it.each([
  ["the stop switch is on", { stopped: true }, {}, {}],
  ["the cluster is not registered", {}, {}, { cluster: "north" }],
  ["the namespace is not served", {}, { namespaces: ["prod", "test"] }, {}],
] as const)("calls no cluster when %s", async (_when, given, access, key) => {
  const wire = aWire();
  const namespaces = "namespaces" in access ? { namespaces: [...access.namespaces] } : {};
  const { run, mailbox, bus, log } = aReconcile({ west: { wire, access: namespaces } }, given);

  expect(await run(aMessage(key))).toEqual(ALL_ACKNOWLEDGED);
  expect(wire.sent).toEqual([]);
  expect([...mailbox.sent, ...bus.published]).toEqual([]);
  expect(log.at("warn")).toEqual(["pool is not reconciled"]);
});

it("says what is wrong with a registration, leaves it to resync, and serves the other clusters of the batch", async () => {
  const wire = aSettledWire();
  const { directory } = aDirectory({ west: { wire } }, () => NOW);
  const bad = new RegistryError(
    "the cluster registry /clusters/bad/access is not valid: server: expected an https URL",
  );
  const find = async (name: string) => (name === "bad" ? Promise.reject(bad) : directory.find(name));
  const { run, mailbox, log } = aReconcile({}, { directory: { ...directory, find } });

  expect(await run(aMessage({ cluster: "bad" }), aMessage())).toEqual(ALL_ACKNOWLEDGED);
  expect(poolReads(wire)).toBe(1);
  expect(mailbox.sent).toEqual([]);
  expect(log.lines).toContainEqual({
    level: "error",
    message: "cluster cannot be read",
    fields: { cluster: "bad", kind: "invalid", message: bad.message },
  });
});

it("looks again later when the registry does not answer now", async () => {
  const away = new RegistryError("the cluster registry cannot be read", { kind: "unavailable" });
  const { directory } = aDirectory({}, () => NOW);
  const { run, mailbox } = aReconcile({}, { directory: { ...directory, find: () => Promise.reject(away) } });

  expect(await run(aMessage())).toEqual(ALL_ACKNOWLEDGED);
  expect(mailbox.sent).toMatchObject([{ queue: "late", wakeUp: { name: "web", attempt: 1 } }]);
});

it("serves a namespace that the entry names", async () => {
  const wire = aSettledWire();
  const { run } = aReconcile({ west: { wire, access: { namespaces: ["prod", "ci"] } } });

  await run(aMessage());

  expect(poolReads(wire)).toBe(1);
});

it("has nothing to tell about a pool that is gone", async () => {
  const wire = aWire(on(DISCOVERY, served("v1beta1")), on(POOL, refusal(404, "NotFound")));
  const { run, mailbox, bus } = aReconcile({ west: { wire } });

  expect(await run(aMessage())).toEqual(ALL_ACKNOWLEDGED);
  expect([...mailbox.sent, ...bus.published]).toEqual([]);
});

it("lets the machines go that a pool which is gone has left behind", async () => {
  const stray = aVm(0, { deletionTimestamp: "2026-05-01T11:00:00Z" });
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, refusal(404, "NotFound")),
    on(`GET ${VMS}`, aList([stray, aVm(0, { pool: "api" })])),
    on(`GET ${POOLS}`, aList([aPool({ name: "api" })])),
    on(`PATCH ${VMS}/web-0`, ok({})),
  );
  const { run, log, mailbox, bus } = aReconcile({ west: { wire } });

  expect(await run(aMessage({ cause: "sweep" }))).toEqual(ALL_ACKNOWLEDGED);
  // The order is what makes it safe: a pool that the later list lacks is gone for good.
  expect(linesOf(wire).slice(-3)).toEqual([`GET ${VMS}`, `GET ${POOLS}`, `PATCH ${VMS}/web-0`]);
  expect(writesOf(wire).map(({ body }) => body)).toEqual([
    { metadata: { uid: "vm-0-of-web", resourceVersion: "50", finalizers: [] } },
  ]);
  expect(log.at("info")).toEqual(["pass decided"]);
  expect([...mailbox.sent, ...bus.published]).toEqual([]);
});

it("takes a page that says 404 for no word that the pool is gone", async () => {
  const page = { status: 404, headers: {}, body: "404 page not found\n", bytes: 20 };
  const wire = aWire(on(DISCOVERY, served("v1beta1")), on(POOL, page));
  const { run, log } = aReconcile({ west: { wire } });

  expect(await run(aMessage({ cause: "sweep" }))).toEqual(ALL_ACKNOWLEDGED);
  expect(linesOf(wire).at(-1)).toBe(`GET ${poolPath()}`);
  expect(log.at("warn")).toEqual(["pool cannot be read"]);
});

it("does nothing by a list of machines that is older than the pool", async () => {
  const pool = aPool({ resourceVersion: "901" });
  const wire = aWire(on(DISCOVERY, served("v1beta1")), on(POOL, ok(pool, DATE)), on(`GET ${VMS}`, aList([])));
  const { run, log } = aReconcile({ west: { wire } });

  expect(await run(aMessage())).toEqual(ALL_ACKNOWLEDGED);
  expect(writesOf(wire)).toEqual([]);
  expect(log.at("warn")).toEqual(["pool cannot be read"]);
});

it("asks for no pools when the machines that there are point to others", async () => {
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, refusal(404, "NotFound")),
    on(`GET ${VMS}`, aList([aVm(0, { pool: "api" })])),
  );
  const { run } = aReconcile({ west: { wire } });

  expect(await run(aMessage({ cause: "sweep" }))).toEqual(ALL_ACKNOWLEDGED);
  expect(linesOf(wire).at(-1)).toBe(`GET ${VMS}`);
});

it.each([
  ["the list of machines", refusal(500, "InternalError"), aList([])],
  ["the list of pools", aList([aVm(0)]), refusal(403, "Forbidden")],
  ["the list of pools, being older than a machine,", aList([aVm(0, { resourceVersion: "901" })]), aList([])],
])("lets no machine go when %s cannot be read", async (what, machines, pools) => {
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, refusal(404, "NotFound")),
    on(`GET ${VMS}`, machines),
    ...(what.startsWith("the list of pools") ? [on(`GET ${POOLS}`, pools)] : []),
  );
  const { run, log } = aReconcile({ west: { wire } });

  expect(await run(aMessage({ cause: "sweep" }))).toEqual(ALL_ACKNOWLEDGED);
  expect(writesOf(wire)).toEqual([]);
  expect(log.at("warn")).toEqual(["pool cannot be read"]);
});

it("looks again when a machine of a pool that is gone was changed meanwhile", async () => {
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, refusal(404, "NotFound")),
    on(`GET ${VMS}`, aList([aVm(0)])),
    on(`GET ${POOLS}`, aList([])),
    on(`PATCH ${VMS}/web-0`, refusal(409, "Conflict")),
  );
  const { run, mailbox } = aReconcile({ west: { wire } });

  await run(aMessage({ cause: "sweep" }));
  expect(mailbox.sent.map(({ wakeUp }) => wakeUp)).toEqual([aWakeUp({ cause: "sweep" })]);
});

it("looks again, and has no failure to tell, when a machine that it lets go was changed meanwhile (D42)", async () => {
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, ok(aSettledPool(), DATE)),
    on(`GET ${VMS}`, aList([aVm(0), aVm(1, { deletionTimestamp: "2026-05-01T11:00:00Z" })])),
    on(`PATCH ${VMS}/web-1`, refusal(409, "Conflict")),
  );
  const { run, mailbox, log } = aReconcile({ west: { wire } });

  await run(aMessage());

  expect(linesOf(wire).at(-1)).toBe(`PATCH ${VMS}/web-1`);
  expect(mailbox.sent.map(({ wakeUp }) => wakeUp)).toEqual([aWakeUp({ cause: "again" })]);
  expect(log.at("warn")).toEqual([]);
});

it("asks for no more where no machine waits for its pool", async () => {
  const wire = aWire(on(DISCOVERY, served("v1beta1")), on(POOL, refusal(404, "NotFound")), on(`GET ${VMS}`, aList([])));
  const { run } = aReconcile({ west: { wire } });

  await run(aMessage({ cause: "vm" }));
  expect(linesOf(wire).at(-1)).toBe(`GET ${VMS}`);
});

it("holds an illegal pool: an event and a status say why, nothing else is written", async () => {
  const pool = aPool({ spec: { selector: { matchLabels: { app: "other" } } } });
  const wire = aWire(on(DISCOVERY, served("v1beta1")), on(POOL, ok(pool, DATE)), on(`POST ${EVENT_LIST}`, ok({})));
  const { run, bus, log, mailbox } = aReconcile({ west: { wire } });

  await run(aMessage());

  expect(writesOf(wire).map(({ path }) => path.split("?")[0])).toEqual([EVENT_LIST]);
  const condition = {
    type: "ReplicaFailure",
    reason: "InvalidSpec",
    message: expect.stringContaining("spec.selector"),
  };
  expect(bus.published).toMatchObject([{ status: { conditions: [condition] }, complete: true }]);
  expect(log.at("error")).toEqual(["pool is illegal and held"]);
  expect(mailbox.sent).toEqual([]);
});

describe("a pool that KubeVirt's own controller writes to, too", () => {
  const managedFields = [{ manager: "virt-controller", operation: "Update", time: "2026-05-01T11:59:00Z" }];
  const { metadata, ...rest } = aSettledPool({ replicas: 2 });
  const taken = { ...rest, metadata: { ...metadata, managedFields } };
  const aWireOf = () =>
    aWire(
      on(DISCOVERY, served("v1beta1")),
      on(POOL, ok(taken, DATE)),
      on(`GET ${VMS}`, aList([aVm(0)])),
      on(`POST ${EVENT_LIST}`, ok({})),
    );

  it("is held: an event and a status say why, an alarm can count it, nothing else is written", async () => {
    const wire = aWireOf();
    const { run, bus, log, mailbox } = aReconcile({ west: { wire } });

    await run(aMessage());

    expect(writesOf(wire).map(({ body }) => body)).toMatchObject([{ type: "Warning", reason: "InTreeController" }]);
    const condition = { type: "SecondWriter", reason: "InTreeController" };
    expect(bus.published).toMatchObject([{ status: { conditions: [condition] }, complete: true, actions: {} }]);
    expect(log.lines).toMatchObject([
      { level: "error", message: "pool has a second writer and is held", fields: { secondWriter: "inTree" } },
    ]);
    expect(mailbox.sent).toEqual([]);
  });

  it("raises no alarm where the functions only observe, as after they were handed back", async () => {
    const { run, bus, log } = aReconcile({ west: { wire: aWireOf(), access: { mode: "observe" } } });

    await run(aMessage());

    expect(log.at("error")).toEqual([]);
    expect(bus.published).toEqual([]);
  });
});

const OUTAGES: readonly (readonly [string, Reply, string])[] = [
  ["refuses the credentials", refusal(401, "Unauthorized"), "unauthorized"],
  ["forbids it", refusal(403, "Forbidden"), "forbidden"],
  ["is overloaded", refusal(429, "TooManyRequests", "slow down", { "retry-after": "1" }), "throttled"],
  ["fails", refusal(500, "InternalError"), "unavailable"],
  ["is going down", refusal(503, "ServiceUnavailable"), "unavailable"],
  ["cannot be reached", networkError("ECONNREFUSED"), "unreachable"],
  ["hangs up", networkError("ECONNRESET"), "unreachable"],
  ["is not the one that was registered", networkError("SELF_SIGNED_CERT_IN_CHAIN"), "unreachable"],
  ["answers with a page", ok("<html>"), "garbled"],
];

it.each(OUTAGES)("reports a cluster that %s, and leaves its pools to the schedule", async (_what, reply, kind) => {
  const [first, ...others] = [`GET ${VMS}`, DISCOVERY, POOL];
  // The owner of a pool hears of a missing right, see below.
  for (const line of kind === "forbidden" ? others : [first, ...others]) {
    const good = [on(DISCOVERY, served("v1beta1")), on(POOL, ok(aPool(), DATE)), on(`GET ${VMS}`, aList([]))];
    const wire = aWire(on(line, reply), ...good);
    const { run, mailbox, bus, log } = aReconcile({ west: { wire } });

    expect(await run(aMessage())).toEqual(ALL_ACKNOWLEDGED);
    expect(writesOf(wire)).toEqual([]);
    expect([...mailbox.sent, ...bus.published]).toEqual([]);
    expect(log.lines).toMatchObject([
      { level: "warn", message: "pool cannot be read", fields: { kind, outcome: "unreadable", complete: false } },
    ]);
    expect(JSON.stringify(log.lines)).not.toMatch(/s3cr3t|secret|bearer/i);
  }
});

it("tells a pool's owner what may not be read, and leaves its counts as they were (D38)", async () => {
  const status = { replicas: 4, readyReplicas: 2, labelSelector: "app=web" };
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, ok(aSettledPool({ status }), DATE)),
    on(`GET ${VMS}`, refusal(403, "Forbidden", "virtualmachines is forbidden")),
    on(`POST ${EVENT_LIST}`, ok({})),
  );
  const { run, bus, log, mailbox } = aReconcile({ west: { wire } });

  await run(aMessage());

  const message = "error while reading the list of VMs: virtualmachines is forbidden";
  const condition = { type: "ReplicaFailure", status: "True", reason: "FailedRead", message };
  expect(bus.published).toMatchObject([
    { uid: "uid-web", complete: false, actions: {}, status: { ...status, conditions: [condition] } },
  ]);
  expect(writesOf(wire).map(({ body }) => body)).toEqual([
    expect.objectContaining({ kind: "Event", type: "Warning", reason: "FailedRead", message }),
  ]);
  expect(mailbox.sent).toEqual([]);
  expect(log.at("warn")).toEqual(["pool cannot be read"]);
});

it("only logs what may not be read where it only observes", async () => {
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, ok(aSettledPool(), DATE)),
    on(`GET ${VMS}`, refusal(403, "Forbidden")),
  );
  const { run, bus } = aReconcile({ west: { wire, access: { mode: "observe" } } });

  await run(aMessage());

  expect([writesOf(wire), bus.published]).toEqual([[], []]);
});

it("ends a call that gets no answer when the function's time is up", async () => {
  const wire = aWire(on(DISCOVERY, served("v1beta1")), on(POOL, silence));
  const { handler, log, mailbox } = aReconcile({ west: { wire } });

  const response = await handler({ Records: [aMessage()] }, aContext(5_020));

  expect(response).toEqual(ALL_ACKNOWLEDGED);
  expect(log.lines).toMatchObject([{ message: "pool cannot be read", fields: { kind: "timeout" } }]);
  expect(mailbox.sent).toEqual([]);
});

it("reads a cluster's entry anew after refused credentials, at most once a minute", async () => {
  const wire = aWire(on(DISCOVERY, refusal(401, "Unauthorized")));
  const { run, reads, clock } = aReconcile({ west: { wire } });
  const readsAfter = async (ms: number) => {
    clock.now += ms;
    await run(aMessage());
    return reads.length;
  };

  expect(await readsAfter(0)).toBe(1);
  expect(await readsAfter(59_999)).toBe(1);
  // The refusal just past a minute marks the entry; whoever comes next reads it.
  expect(await readsAfter(1)).toBe(1);
  expect(await readsAfter(1)).toBe(2);
  expect(await readsAfter(1)).toBe(2);
});

it("uses the new credentials, and ends the old connection, once the entry has changed", async () => {
  const old = aWire(on(DISCOVERY, refusal(401, "Unauthorized")));
  const clusters: Record<string, Parameters<typeof aReconcile>[0][string]> = { west: { wire: old } };
  const { run, clock, connected } = aReconcile(clusters);
  clock.now += 1;
  await run(aMessage());
  clock.now += 60_000;
  await run(aMessage());
  const fresh = aSettledWire();
  clusters["west"] = { wire: fresh, access: { auth: { kind: "token", token: "new" } } };

  await run(aMessage());

  expect(poolReads(fresh)).toBe(1);
  expect(old.closed).toBe(1);
  expect(connected.map(({ auth }) => auth.kind === "token" && auth.token)).toEqual(["s3cr3t", "new"]);
});

it("keeps the connection when the entry is read again and has not changed", async () => {
  const wire = aSettledWire();
  const { run, clock, reads, connected } = aReconcile({ west: { wire } });

  await run(aMessage());
  clock.now += 5 * 60_000;
  await run(aMessage({ sentAt: clock.now }));

  expect(reads).toEqual(["west", "west"]);
  expect(connected).toHaveLength(1);
  expect(wire.closed).toBe(0);
});

it.each([
  { cause: "pool", attempt: 0, sent: { cause: "error", attempt: 1 } },
  { cause: "error", attempt: 2, sent: { cause: "error", attempt: 3 } },
  { cause: "vm", attempt: 1, sent: { cause: "sweep", attempt: 2 } },
])("wakes a pool late after an unexpected error ($cause, attempt $attempt) (D04)", async ({ cause, attempt, sent }) => {
  const { run, mailbox, log } = aReconcile({ west: { wire: anActingWire() } }, { nonce: fail });

  const response = await run(aMessage({ cause, attempt }));

  expect(response).toEqual(ALL_ACKNOWLEDGED);
  expect(mailbox.sent).toEqual([{ queue: "late", wakeUp: aWakeUp(sent), seenAtMs: undefined }]);
  expect(log.lines).toMatchObject([
    { level: "error", message: "pass failed", fields: { pool: "web", attempt, error: "TypeError" } },
  ]);
});

it("counts the attempts of a pool by its most tried wake-up, and gives up after the third", async () => {
  const { run, mailbox, log } = aReconcile({ west: { wire: anActingWire() } }, { nonce: fail });

  const response = await run(aMessage({ id: "1", attempt: 3 }), aMessage({ id: "2", attempt: 0 }));

  expect(response).toEqual(ALL_ACKNOWLEDGED);
  expect(mailbox.sent).toEqual([]);
  expect(log.at("error")).toEqual(["pass failed"]);
});

it("reports every message of a pool as failed, and only those, when it cannot be woken late", async () => {
  const wire = anActingWire();
  const { run, mailbox } = aReconcile({ west: { wire } }, { nonce: fail });
  mailbox.down.add("late");

  const response = await run(
    aMessage({ id: "1" }),
    aMessage({ id: "2", name: "api" }),
    aMessage({ id: "3" }),
    aMessage({ id: "4", body: "garbled" }),
  );

  expect(response).toEqual({ batchItemFailures: [{ itemIdentifier: "1" }, { itemIdentifier: "3" }] });
});

it("reports a pool's messages as failed when sending the late wake-up throws", async () => {
  const wakeUps = { send: async () => fail() };
  const { run } = aReconcile({ west: { wire: anActingWire() } }, { nonce: fail, wakeUps });

  expect(await run(aMessage({ id: "1" }))).toEqual({ batchItemFailures: [{ itemIdentifier: "1" }] });
});

it("wakes a pool late when its fact cannot be published", async () => {
  const { run, bus, mailbox } = aReconcile({ west: { wire: anActingWire() } });
  bus.works = false;

  expect(await run(aMessage())).toEqual(ALL_ACKNOWLEDGED);
  expect(mailbox.sent).toMatchObject([{ queue: "late", wakeUp: { attempt: 1 } }]);
});

it("wakes a pool late when the wake-up for another look cannot be sent", async () => {
  const { run, mailbox } = aReconcile({ west: { wire: anActingWire() } });
  mailbox.down.add("passes");

  expect(await run(aMessage())).toEqual(ALL_ACKNOWLEDGED);
  expect(mailbox.sent).toMatchObject([{ queue: "late", wakeUp: { cause: "error", attempt: 1 } }]);
});

it("wakes a pool late when the registry cannot be read", async () => {
  const clusters = {
    get west(): never {
      return fail();
    },
  };
  const { run, mailbox, log } = aReconcile(clusters);

  expect(await run(aMessage())).toEqual(ALL_ACKNOWLEDGED);
  expect(mailbox.sent).toMatchObject([{ queue: "late", wakeUp: { attempt: 1 } }]);
  expect(log.at("error")).toEqual(["pass failed"]);
});

it("reports a machine that the cluster refuses, and closes the claim", async () => {
  const quota = refusal(403, "Forbidden", "exceeded quota: vms");
  const claimed = aPool({ resourceVersion: "101", annotations: { other: "1" }, finalizers: [POOL_FINALIZER] });
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, ok(aPool({ replicas: 8 }), DATE), ok(claimed, DATE)),
    on(`GET ${VMS}`, aList([])),
    on(`GET ${INSTANCES}`, aList([])),
    on(`GET ${REVISIONS}/web-1`, refusal(404, "NotFound")),
    on(`PATCH ${poolPath()}`, ok(aPool({ resourceVersion: "101" })), ok(aPool({ resourceVersion: "103" }))),
    on(`POST ${REVISIONS}`, ok({})),
    on(`POST ${VMS}`, quota),
    on(`POST ${EVENT_LIST}`, ok({})),
  );
  const { run, bus, log } = aReconcile({ west: { wire } });

  await run(aMessage());

  expect(writesOf(wire).filter(({ path }) => path.startsWith(`${VMS}?field`))).toHaveLength(1);
  expect(bus.published).toMatchObject([
    {
      resourceVersion: "103",
      failures: ["scaleOut: exceeded quota: vms"],
      actions: { writeClaim: 2, createRevision: 1 },
      status: { conditions: [{ type: "ReplicaFailure", reason: "FailedScaleOut" }] },
    },
  ]);
  expect(log.at("warn")).toEqual(["pass had failures"]);
  const events = writesOf(wire).filter(({ path }) => path.startsWith(EVENT_LIST));
  expect(events.map(({ body }) => body)).toContainEqual(
    expect.objectContaining({ type: "Warning", reason: "FailedCreate", message: expect.stringContaining("quota") }),
  );
});

/** A pool of eight machines that has none. */
function aPoolToFill() {
  const claimed = aPool({ resourceVersion: "101", annotations: { other: "1" }, finalizers: [POOL_FINALIZER] });
  return [
    on(DISCOVERY, served("v1beta1")),
    on(POOL, ok(aPool({ replicas: 8 }), DATE), ok(claimed, DATE)),
    on(`GET ${VMS}`, aList([])),
    on(`GET ${INSTANCES}`, aList([])),
    on(`GET ${REVISIONS}/web-1`, refusal(404, "NotFound")),
    on(`PATCH ${poolPath()}`, ok(aPool({ resourceVersion: "103" }))),
    on(`POST ${EVENT_LIST}`, ok({})),
  ];
}

it("makes nothing of a template that the cluster refuses, and tells the owner once a pass (D31)", async () => {
  const wire = aWire(
    ...aPoolToFill(),
    on(`POST ${VMS}`, refusal(422, "Invalid", "spec.running: RunStrategy must be specified")),
  );
  const { run, bus } = aReconcile({ west: { wire } });

  await run(aMessage());

  expect(writesOf(wire).map(({ method, path }) => `${method} ${path.split("?")[0]}`)).toEqual([
    `POST ${VMS}`,
    `PATCH ${poolPath()}`,
    `POST ${EVENT_LIST}`,
    `POST ${EVENT_LIST}`,
  ]);
  const message = expect.stringContaining("RunStrategy must be specified");
  expect(bus.published).toMatchObject([
    {
      failures: ["scaleOut: spec.running: RunStrategy must be specified"],
      actions: { writeClaim: 1 },
      status: { replicas: 0, conditions: [{ type: "ReplicaFailure", reason: "FailedScaleOut", message }] },
    },
  ]);
  const events = writesOf(wire).filter(({ path }) => path.startsWith(EVENT_LIST));
  expect(events.map(({ body }) => body)).toEqual([
    expect.objectContaining({ type: "Warning", reason: "FailedCreate", message }),
    expect.objectContaining({ type: "Warning", reason: "FailedScaleOut", message }),
  ]);
});

/** Answers a create as a cluster does whose policy takes the labels off new machines. */
const unlabelled: Reply = ({ body }) => {
  const vm = recordOf(body);
  return ok({ ...vm, metadata: { ...recordOf(vm["metadata"]), labels: {} } });
};

it.each<[string, Reply, { readonly made: number; readonly revisions: number }]>([
  ["no machine", unlabelled, { made: 0, revisions: 0 }],
  ["one machine, without looking again at once", ok({}), { made: 1, revisions: 1 }],
])(
  "where the cluster takes away the labels by which the pool finds its machines, makes %s, and says so",
  async (_what, trial, { made, revisions }) => {
    const wire = aWire(...aPoolToFill(), on(`POST ${REVISIONS}`, ok({})), on(`POST ${VMS}`, trial, unlabelled));
    const { run, bus, mailbox } = aReconcile({ west: { wire } });

    await run(aMessage());

    const creates = writesOf(wire).filter(({ method, path }) => method === "POST" && !path.includes("dryRun"));
    expect(creates.filter(({ path }) => path.startsWith(VMS))).toHaveLength(made);
    expect(creates.filter(({ path }) => path.startsWith(REVISIONS))).toHaveLength(revisions);
    const message = expect.stringContaining('changes what the pool knows new machines by (label "app")');
    expect(bus.published).toMatchObject([
      { failures: [message], status: { conditions: [{ type: "ReplicaFailure", reason: "FailedScaleOut", message }] } },
    ]);
    expect(creates.map(({ body }) => body)).toContainEqual(
      expect.objectContaining({ type: "Warning", reason: "FailedCreate", message }),
    );
    expect(mailbox.sent).toEqual([]);
  },
);

it("writes the claim as annotation of the pool, under the deployment's name", async () => {
  const wire = anActingWire();
  const { run } = aReconcile({ west: { wire } }, { deployment: "blue" });

  await run(aMessage());

  const claim = writesOf(wire).find(({ method }) => method === "PATCH");
  const text = JSON.stringify(claim?.body);
  expect(text).toContain(CLAIM_ANNOTATION);
  expect(text).toContain('\\"by\\":\\"blue\\"');
});

/** Whether a second message, sent at `sentAt`, gets a pass of its own after one that began at NOW for `first`. */
async function hasOwnPass(
  first: Parameters<typeof aMessage>[0],
  second: Parameters<typeof aMessage>[0],
): Promise<boolean> {
  const wire = aSettledWire();
  const { run, clock } = aReconcile({ west: { wire } });
  await run(aMessage({ sentAt: NOW - 10_000, ...first }));
  clock.now += 500;
  await run(aMessage(second));
  return poolReads(wire) + poolReads(wire, `GET ${poolPath("api")}`) === 2;
}

it.each([
  { when: "it was due a second before a complete pass began", second: { sentAt: NOW - 3_001 }, own: false },
  { when: "it was due less than a second before", second: { sentAt: NOW - 3_000 }, own: true },
  { when: "it was sent after the pass began", second: { sentAt: NOW + 100 }, own: true },
  { when: "its queue holds it back for longer", second: { sentAt: NOW - 3_001, queue: "late" }, own: true },
  { when: "it was due long ago on the late queue", second: { sentAt: NOW - 31_001, queue: "late" }, own: false },
  { when: "it asks for a wider look", second: { sentAt: NOW - 3_001, cause: "vm" }, own: true },
  { when: "it is of another pool", second: { sentAt: NOW - 3_001, name: "api" }, own: true },
] as const)("gives a message a pass of its own: $own, when $when", async ({ second, own }) => {
  expect(await hasOwnPass({}, second)).toBe(own);
});

it("serves a wide message by an earlier wide pass, and a narrow one too", async () => {
  expect(await hasOwnPass({ cause: "vm" }, { sentAt: NOW - 3_001, cause: "sweep" })).toBe(false);
  expect(await hasOwnPass({ cause: "vm" }, { sentAt: NOW - 3_001, cause: "pool" })).toBe(false);
});

it("serves a batch whose newest message is too new for the earlier pass", async () => {
  const wire = aSettledWire();
  const { run } = aReconcile({ west: { wire } });
  await run(aMessage({ sentAt: NOW - 10_000 }));

  await run(aMessage({ id: "1", sentAt: NOW - 10_000 }), aMessage({ id: "2", sentAt: NOW - 1_000 }));

  expect(poolReads(wire)).toBe(2);
});

it("passes over no message because of a pass that could not read the cluster", async () => {
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, refusal(500, "InternalError"), ok(aSettledPool(), DATE)),
    on(`GET ${VMS}`, aList([aVm(0)])),
  );
  const { run } = aReconcile({ west: { wire } });

  await run(aMessage({ sentAt: NOW - 10_000 }));
  await run(aMessage({ sentAt: NOW - 10_000 }));

  expect(poolReads(wire)).toBe(2);
});

it("forgets what it skipped by when the instance is new", async () => {
  const wire = aSettledWire();
  await aReconcile({ west: { wire } }).run(aMessage({ sentAt: NOW - 10_000 }));
  await aReconcile({ west: { wire } }).run(aMessage({ sentAt: NOW - 10_000 }));

  expect(poolReads(wire)).toBe(2);
});

function fail(): never {
  throw new TypeError("a bug");
}

it.each([
  ["a name that no object can have", { name: "../web" }],
  ["half a character in its name", { name: "\ud800" }],
  ["a namespace of any length", { namespace: "n".repeat(400_000) }],
  ["a cluster of no name", { cluster: "__proto__" }],
  ["a cause of any length", { cause: "c".repeat(400_000) }],
])("lets go of a message with %s", async (_what, fields) => {
  const { run, log, mailbox, reads } = aReconcile({ west: { wire: aWire() } });

  expect(await run(aMessage({ id: "1", body: JSON.stringify({ ...aWakeUp(), ...fields }) }))).toEqual(ALL_ACKNOWLEDGED);
  expect(log.at("error")).toEqual(["message is not a wake-up"]);
  expect([mailbox.sent, reads]).toEqual([[], []]);
});

it("publishes a fact without the status when others have filled that up, so that the fact arrives", async () => {
  const message = "m".repeat(400_000);
  const conditions = [{ type: "Strange", status: "True", message }];
  const claim = aClaimText({ since: { at: NOW - 600_000, generation: 1 } });
  const pool = aPool({
    annotations: { [CLAIM_ANNOTATION]: claim },
    finalizers: [POOL_FINALIZER],
    status: { conditions },
  });
  const managedFields = [{ manager: "virt-controller", time: new Date(NOW - 60_000).toISOString() }];
  const held = { ...pool, metadata: { ...pool.metadata, managedFields } };
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(POOL, ok(held, DATE)),
    on(`GET ${VMS}`, aList([])),
    on(`POST ${EVENT_LIST}`, ok({})),
  );
  const { run, bus } = aReconcile({ west: { wire } });

  await run(aMessage());

  expect(bus.published).toHaveLength(1);
  expect(bus.published[0]?.status).toBeUndefined();
});
