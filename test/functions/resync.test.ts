import { describe, expect, it } from "vitest";
import { createResync } from "../../functions/resync.ts";
import { deduplicationIdOf, groupIdOf } from "../../shared/events/wake-ups.ts";
import type { ResyncRules } from "../../shared/planning/schedule.ts";
import { aContext, aDirectory, aLog, aMailbox, aWakeUp, type Registered, TICK } from "../support/handlers.ts";
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
} from "../support/transport.ts";
import { aList, aPool, aSettledPool, aVm, DISCOVERY, NOW, served } from "../support/transport-objects.ts";

const MINUTE_MS = 60_000;
const ALL_POOLS = "GET /apis/pool.kubevirt.io/v1beta1/virtualmachinepools";

const ALL_MACHINES = "GET /apis/kubevirt.io/v1/virtualmachines";
/** A cluster whose machines are not looked through at `NOW`, where the schedule does so every ten minutes. */
const QUIET = "quiet";

/** A cluster with these pools, and no machines. */
function aWireWith(...pools: readonly object[]): Wire {
  return aWireOf(pools, aList([]));
}

function aWireOf(pools: readonly object[], machines: Reply): Wire {
  return aWire(on(DISCOVERY, served("v1beta1")), on(ALL_POOLS, aList(pools)), on(ALL_MACHINES, machines));
}

function aResync(clusters: Readonly<Record<string, Registered>>, rules: Partial<ResyncRules> = {}) {
  const clock = { now: NOW };
  const now = () => clock.now;
  const registrations = aDirectory(clusters, now);
  const mailbox = aMailbox();
  const log = aLog();
  const deps = {
    directory: registrations.directory,
    wakeUps: mailbox,
    rules: { settledMinutes: 10, everything: false, ...rules },
    now,
    logger: log,
  };
  const handler = createResync(() => deps);
  const run = (remainingMs = 50_000) => handler(TICK, aContext(remainingMs));
  return { clock, mailbox, log, ...registrations, run };
}

/** Causes of the wake-ups of `name` in each of `minutes` ticks, a minute apart. */
async function causesOver(minutes: number, pool: object): Promise<readonly string[]> {
  const { run, clock, mailbox } = aResync({ west: { wire: aWireWith(pool) } });
  for (let minute = 0; minute < minutes; minute += 1) {
    await run();
    clock.now += MINUTE_MS;
  }
  return mailbox.sent.map(({ wakeUp }) => wakeUp.cause);
}

it("wakes a settled pool once in ten minutes, for the full look", async () => {
  expect(await causesOver(30, aSettledPool())).toEqual(["sweep", "sweep", "sweep"]);
});

it.each([
  ["that nobody has looked at", aPool()],
  ["whose generation was not seen to", aSettledPool({ generation: 2, annotations: { "vmpool-functions/pass": "{}" } })],
  ["that has too few machines", aSettledPool({ status: { replicas: 0, readyReplicas: 0 } })],
  ["whose machines are not ready", aSettledPool({ status: { replicas: 1, readyReplicas: 0 } })],
  ["without a status", { ...aSettledPool(), status: undefined }],
  ["with a failure", aSettledPool({ status: aStatusWith("ReplicaFailure") })],
  ["that is being deleted", aSettledPool({ deletionTimestamp: "2026-05-01T11:00:00Z" })],
])("wakes a pool %s every minute, with the full look in its turn", async (_which, pool) => {
  const causes = await causesOver(10, pool);

  expect(causes).toHaveLength(10);
  expect(causes.filter((cause) => cause === "sweep")).toHaveLength(1);
  expect(causes.filter((cause) => cause === "resync")).toHaveLength(9);
});

it("wakes a paused pool no more often than a settled one", async () => {
  const causes = await causesOver(10, aSettledPool({ status: aStatusWith("ReplicaPaused") }));

  expect(causes).toEqual(["sweep"]);
});

it("spreads settled pools evenly over the minutes", async () => {
  const pools = Array.from({ length: 1_000 }, (_, index) => aSettledPool({ name: `web-${index}` }));
  const { run, clock, mailbox } = aResync({ west: { wire: aWireWith(...pools) } });
  const counts: number[] = [];
  for (let minute = 0; minute < 10; minute += 1) {
    const before = mailbox.sent.length;
    await run();
    counts.push(mailbox.sent.length - before);
    clock.now += MINUTE_MS;
  }

  expect(new Set(mailbox.sent.map(({ wakeUp }) => wakeUp.name)).size).toBe(1_000);
  expect(Math.max(...counts)).toBeLessThan(150);
  expect(Math.min(...counts)).toBeGreaterThan(60);
});

it("wakes every pool for the full look when no events are expected", async () => {
  const wire = aWireWith(aSettledPool(), aPool({ name: "api" }));
  const { run, mailbox } = aResync({ west: { wire } }, { everything: true });

  expect(await run()).toEqual({ clusters: 1, unreachable: 0, pools: 2, woken: 2 });
  expect(mailbox.sent.map(({ wakeUp }) => [wakeUp.name, wakeUp.cause])).toEqual([
    ["web", "sweep"],
    ["api", "sweep"],
  ]);
});

it("sends wake-ups that merge with others of the same second, pool and width", async () => {
  const { run, mailbox, clock } = aResync({ west: { wire: aWireWith(aPool()) } }, { everything: true });
  clock.now = NOW + 250;
  await run();
  clock.now = NOW + 999;
  await run();
  clock.now = NOW + 1_000;
  await run();

  const second = Math.floor(NOW / 1_000);
  const group = groupIdOf(aWakeUp());
  expect(mailbox.sent.map(deduplicationIdOf)).toEqual([
    `${group}.${second}.vm`,
    `${group}.${second}.vm`,
    `${group}.${second + 1}.vm`,
  ]);
  expect(mailbox.sent[0]).toEqual({ queue: "passes", wakeUp: aWakeUp({ cause: "sweep" }), seenAtMs: NOW + 250 });
});

it("lists a cluster with one request once its version is known", async () => {
  const wire = aWireWith(aPool());
  const { run } = aResync({ [QUIET]: { wire } });
  await run();
  await run();

  expect(linesOf(wire)).toEqual([DISCOVERY, ALL_POOLS, ALL_POOLS]);
});

it("lists an old KubeVirt's pools by the version that it serves", async () => {
  const line = ALL_POOLS.replace("v1beta1", "v1alpha1");
  const wire = aWire(on(DISCOVERY, served("v1alpha1")), on(line, aList([aPool()])));
  const { run } = aResync({ west: { wire } });

  expect(await run()).toMatchObject({ pools: 1, woken: 1 });
});

it("lists only the namespaces that the entry names", async () => {
  const lists = ["ci", "prod"].map((namespace) =>
    on(
      `GET /apis/pool.kubevirt.io/v1beta1/namespaces/${namespace}/virtualmachinepools`,
      aList([aPool({ namespace, name: "web" })]),
    ),
  );
  const wire = aWire(on(DISCOVERY, served("v1beta1")), ...lists);
  const { run, mailbox } = aResync({ west: { wire, access: { namespaces: ["ci", "prod"] } } });

  expect(await run()).toEqual({ clusters: 1, unreachable: 0, pools: 2, woken: 2 });
  expect(mailbox.sent.map(({ wakeUp }) => wakeUp.namespace)).toEqual(["ci", "prod"]);
});

describe("machines whose pool is gone", () => {
  const strays = aList([aVm(0, { pool: "old" }), aVm(1, { pool: "old" }), aVm(0)]);

  it("are looked for every ten minutes, by their metadata, and wake that pool for the full look", async () => {
    const wire = aWireOf([aSettledPool()], strays);
    const { run, clock, mailbox, log } = aResync({ west: { wire } });
    for (let minute = 0; minute < 10; minute += 1, clock.now += MINUTE_MS) await run();

    const sent = wire.sent.filter(({ path }) => path.includes("/virtualmachines?"));
    expect(sent).toHaveLength(1);
    expect(sent.map(queryOf)).toMatchObject([{ labelSelector: "kubevirt.io/vm-pool-revision-name", limit: "1000" }]);
    expect(sent[0]?.accept).toContain("PartialObjectMetadataList");
    const woken = mailbox.sent.filter(({ wakeUp }) => wakeUp.name === "old");
    expect(woken.map(({ wakeUp }) => wakeUp)).toEqual([aWakeUp({ name: "old", cause: "sweep" })]);
    expect(log.at("info")).toEqual(["a pool is gone and has left machines behind"]);
  });

  it("count among what is woken", async () => {
    const { run } = aResync({ west: { wire: aWireOf([aSettledPool()], strays) } }, { everything: true });

    expect(await run()).toEqual({ clusters: 1, unreachable: 0, pools: 1, woken: 2 });
  });

  it("are looked for when there is no pool at all", async () => {
    const { run, mailbox } = aResync({ west: { wire: aWireOf([], strays) } }, { everything: true });

    expect(await run()).toMatchObject({ pools: 0, woken: 2 });
    expect(mailbox.sent.map(({ wakeUp }) => wakeUp.name)).toEqual(["old", "web"]);
  });

  it("are looked for in the namespaces that the entry names", async () => {
    const pools = on("GET /apis/pool.kubevirt.io/v1beta1/namespaces/ci/virtualmachinepools", aList([]));
    const machines = on("GET /apis/kubevirt.io/v1/namespaces/ci/virtualmachines", strays);
    const wire = aWire(on(DISCOVERY, served("v1beta1")), pools, machines);
    const { run } = aResync({ west: { wire, access: { namespaces: ["ci"] } } }, { everything: true });

    expect(await run()).toMatchObject({ woken: 2 });
  });

  it("wake nobody when the list of pools broke off: all would look as if theirs were gone", async () => {
    const wire = aWire(on(DISCOVERY, served("v1beta1")), on(ALL_POOLS, refusal(500, "InternalError")));
    const { run, mailbox } = aResync({ west: { wire } }, { everything: true });

    expect(await run()).toMatchObject({ unreachable: 1, woken: 0 });
    expect(mailbox.sent).toEqual([]);
  });

  it.each([
    ["fails", refusal(500, "InternalError")],
    ["is forbidden", refusal(403, "Forbidden")],
    ["is nonsense", ok("<html>")],
  ])("wake nobody when their list %s, and the pools are woken all the same", async (_how, reply) => {
    const { run, mailbox, log } = aResync({ west: { wire: aWireOf([aPool()], reply) } }, { everything: true });

    expect(await run()).toEqual({ clusters: 1, unreachable: 0, pools: 1, woken: 1 });
    expect(mailbox.sent.map(({ wakeUp }) => wakeUp.name)).toEqual(["web"]);
    expect(log.at("warn")).toEqual(["machines without a pool cannot be looked for"]);
  });

  it("keep no pool waiting when their list does not end", async () => {
    const { run, mailbox } = aResync({ west: { wire: aWireOf([aPool()], silence) } }, { everything: true });

    expect(await run(5_050)).toMatchObject({ pools: 1, woken: 1 });
    expect(mailbox.sent.map(({ wakeUp }) => wakeUp.name)).toEqual(["web"]);
  });
});

it("reads all pages of a long list", async () => {
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(ALL_POOLS, aList([aPool()], "next"), aList([aPool({ name: "api" })])),
  );
  const { run } = aResync({ [QUIET]: { wire } });

  expect(await run()).toMatchObject({ pools: 2, woken: 2 });
  expect(wire.sent.slice(1).map((request) => queryOf(request)["continue"])).toEqual([undefined, "next"]);
});

it("leaves out an object that is not a pool, and wakes the others", async () => {
  const { run } = aResync({ west: { wire: aWireWith({ kind: "Odd" }, aPool()) } });

  expect(await run()).toMatchObject({ pools: 2, woken: 1 });
});

const OUTAGES: readonly (readonly [string, Reply, string])[] = [
  ["cannot be reached", networkError("UND_ERR_CONNECT_TIMEOUT"), "unreachable"],
  ["refuses the credentials", refusal(401, "Unauthorized"), "unauthorized"],
  ["forbids the list", refusal(403, "Forbidden"), "forbidden"],
  ["fails", refusal(500, "InternalError"), "unavailable"],
  ["has no KubeVirt", refusal(404, "NotFound"), "notFound"],
  ["answers nonsense", ok("<html>"), "garbled"],
];

it.each(OUTAGES)("lists the other clusters when one %s", async (_what, reply, kind) => {
  const [good, bad] = [aWireWith(aPool()), aWire(on(DISCOVERY, reply))];
  const { run, mailbox, log } = aResync({ bad: { wire: bad }, west: { wire: good } });

  expect(await run()).toEqual({ clusters: 2, unreachable: 1, pools: 1, woken: 1 });
  expect(mailbox.sent.map(({ wakeUp }) => wakeUp.cluster)).toEqual(["west"]);
  expect(log.lines.filter(({ level }) => level === "warn")).toMatchObject([{ fields: { cluster: "bad", kind } }]);
  expect(JSON.stringify(log.lines)).not.toMatch(/s3cr3t|secret/i);
});

it("wakes no pool of a cluster whose list breaks off in the middle", async () => {
  const wire = aWire(
    on(DISCOVERY, served("v1beta1")),
    on(ALL_POOLS, aList([aPool()], "next"), refusal(500, "InternalError")),
  );
  const { run } = aResync({ west: { wire } });

  expect(await run()).toEqual({ clusters: 1, unreachable: 1, pools: 0, woken: 0 });
});

it("lists the other clusters when an entry cannot be read", async () => {
  const clusters = {
    get bad(): never {
      throw new TypeError("a bug");
    },
    west: { wire: aWireWith(aPool()) },
  };
  const { directory } = aDirectory({ west: clusters.west }, () => NOW);
  const mailbox = aMailbox();
  const log = aLog();
  const broken = {
    ...directory,
    names: async () => ["bad", "west"],
    find: async (name: string) => (name === "bad" ? clusters.bad : directory.find(name)),
  };
  const rules = { settledMinutes: 10, everything: false };
  const handler = createResync(() => ({ directory: broken, wakeUps: mailbox, rules, now: () => NOW, logger: log }));

  expect(await handler(TICK, aContext())).toMatchObject({ unreachable: 1, woken: 1 });
  expect(log.at("error")).toEqual(["cluster cannot be read"]);
});

it("wakes the pools of the other clusters when one does not answer in time", async () => {
  const slow = aWire(on(DISCOVERY, silence));
  const { run, log } = aResync({ slow: { wire: slow }, west: { wire: aWireWith(aPool()) } });

  expect(await run(5_020)).toEqual({ clusters: 2, unreachable: 1, pools: 1, woken: 1 });
  expect(log.lines).toContainEqual(
    expect.objectContaining({ level: "warn", fields: expect.objectContaining({ cluster: "slow", kind: "timeout" }) }),
  );
});

it("reads an entry anew after refused credentials, at most once a minute", async () => {
  const { run, clock, reads } = aResync({ west: { wire: aWire(on(DISCOVERY, refusal(401, "Unauthorized"))) } });
  await run();
  clock.now += 1_000;
  await run();
  clock.now += MINUTE_MS;
  await run();
  await run();

  expect(reads).toEqual(["west", "west"]);
});

it("counts what could not be sent as not woken, and says so", async () => {
  const { run, mailbox, log } = aResync({ west: { wire: aWireWith(aPool()) } });
  mailbox.down.add("passes");

  expect(await run()).toMatchObject({ pools: 1, woken: 0 });
  expect(log.at("error")).toEqual(["wake-ups could not be sent"]);
});

it("has nothing to do when no cluster is registered", async () => {
  const { run } = aResync({});

  expect(await run()).toEqual({ clusters: 0, unreachable: 0, pools: 0, woken: 0 });
});

it.each([["{}"], [{}], [null], ["text"]])("takes whatever input the schedule has: %s", async (event) => {
  const { directory } = aDirectory({}, () => NOW);
  const rules = { settledMinutes: 10, everything: false };
  const handler = createResync(() => ({ directory, wakeUps: aMailbox(), rules, now: () => NOW, logger: aLog() }));

  await expect(handler(event, aContext())).resolves.toMatchObject({ clusters: 0 });
});

function aStatusWith(type: string) {
  const condition = { type, status: "True", lastTransitionTime: "2026-05-01T11:00:00Z", reason: "R", message: "m" };
  return { replicas: 1, readyReplicas: 1, labelSelector: "app=web", conditions: [condition] };
}

describe("pools that get nowhere", () => {
  const OLD = "2026-01-01T00:00:00Z";
  const behind = (name: string) => {
    const pool = aSettledPool({ name, status: { replicas: 1, readyReplicas: 0 } });
    return { ...pool, metadata: { ...pool.metadata, creationTimestamp: OLD } };
  };
  const MESSAGE = "pools have not converged";

  it("are told in one line a cluster, counted, and named as far as twenty go", async () => {
    const pools = Array.from({ length: 25 }, (_, index) => behind(`web-${index}`));
    const { run, log } = aResync({ west: { wire: aWireWith(...pools, aSettledPool()) }, east: { wire: aWireWith() } });
    await run();

    const named = Array.from({ length: 20 }, (_, index) => `ci/web-${index}`);
    expect(log.lines.filter(({ message }) => message === MESSAGE)).toEqual([
      { level: "warn", message: MESSAGE, fields: { cluster: "west", count: 25, pools: named } },
    ]);
  });

  it("are not told of a cluster that is only observed", async () => {
    const { run, log } = aResync({ west: { wire: aWireWith(behind("web")), access: { mode: "observe" } } });
    await run();

    expect(log.at("warn")).toEqual([]);
  });
});
