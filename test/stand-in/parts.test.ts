import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { createAddressBook } from "../../infra/local/stand-in/addresses.ts";
import { CPU_ANNOTATION, cpuPercentOf, usageOf } from "../../infra/local/stand-in/metrics.ts";
import { CLAIMS, type Claim, INSTANCES, MACHINES, requestsOf } from "../../infra/local/stand-in/objects.ts";
import { behaviourOf, createPacer, lagMs } from "../../infra/local/stand-in/pace.ts";
import { bytesOf, quantityOf } from "../../infra/local/stand-in/quantity.ts";
import { planRun } from "../../infra/local/stand-in/run-strategy.ts";
import { createStore } from "../../infra/local/stand-in/store.ts";
import { createWorkQueue } from "../../infra/local/stand-in/work-queue.ts";

const aClaim = (name: string, uid: string, resourceVersion: number, changes: object = {}): Claim =>
  CLAIMS.schema.parse({
    metadata: { name, namespace: "default", uid, resourceVersion: String(resourceVersion), ...changes },
    spec: {},
  });

describe("the store", () => {
  const aStore = () => {
    const changes: string[] = [];
    const store = createStore<Claim>(
      (claim) => void changes.push(`${claim.metadata.name}@${claim.metadata.resourceVersion}`),
    );
    return { store, changes };
  };
  const version = (claim: Claim | undefined) => claim?.metadata.resourceVersion;

  it("does not go back to an older state", () => {
    const { store, changes } = aStore();
    store.observe(aClaim("a", "1", 7));
    store.observeAnswer(aClaim("a", "1", 6));
    store.observe(aClaim("a", "1", 7));
    expect(version(store.get("default/a"))).toBe("7");
    expect(changes).toEqual(["a@7"]);
  });

  it("does not bring back what was deleted", () => {
    const { store } = aStore();
    store.observe(aClaim("a", "1", 7));
    store.forget(aClaim("a", "1", 9));
    store.observeAnswer(aClaim("a", "1", 8));
    expect(store.get("default/a")).toBeUndefined();
  });

  it("keeps the successor of a deleted object", () => {
    const { store } = aStore();
    store.observe(aClaim("a", "1", 7));
    store.observe(aClaim("a", "2", 10));
    store.forget(aClaim("a", "1", 9));
    expect(store.get("default/a")?.metadata.uid).toBe("2");
  });

  it("drops what a list no longer has, but not what was written after the list", () => {
    const { store, changes } = aStore();
    store.observe(aClaim("gone", "1", 7));
    store.observeAnswer(aClaim("fresh", "2", 12));
    store.replaceAll([aClaim("listed", "3", 8)], "11");
    expect([...store.all()].map((claim) => claim.metadata.name).sort()).toEqual(["fresh", "listed"]);
    expect(changes).toEqual(["gone@7", "fresh@12", "gone@7", "listed@8"]);
  });

  it("waits for the watch to say that a deleted object is gone", () => {
    const { store } = aStore();
    store.observe(aClaim("a", "1", 7, { finalizers: ["x"] }));
    store.observeAnswer(aClaim("a", "1", 8, { deletionTimestamp: "2026-01-01T00:00:00Z" }));
    expect(version(store.get("default/a"))).toBe("7");
  });
});

describe("the work queue", () => {
  it("works on one key at a time, and again on what changed meanwhile", async () => {
    const started: string[] = [];
    const gate = Promise.withResolvers<void>();
    const queue = createWorkQueue({
      concurrencyMax: 2,
      onError: () => undefined,
      work: async (key) => {
        started.push(key);
        await gate.promise;
      },
    });
    for (const key of ["a", "a", "b", "c", "a"]) queue.add(key);
    expect(started).toEqual(["a", "b"]);
    gate.resolve();
    while (started.length < 4) await sleep(1);
    await queue.stop();
    expect(started.sort()).toEqual(["a", "a", "b", "c"]);
  });

  it("tries again what failed", async () => {
    const errors: string[] = [];
    const done = Promise.withResolvers<void>();
    let attempts = 0;
    const queue = createWorkQueue({
      concurrencyMax: 1,
      onError: (key) => void errors.push(key),
      work: async () => {
        attempts++;
        if (attempts < 3) throw new Error("not yet");
        done.resolve();
      },
    });
    queue.add("a");
    await done.promise;
    await queue.stop();
    expect(errors).toEqual(["a", "a"]);
  });

  it("finishes what is under way when it stops, and takes nothing more", async () => {
    const gate = Promise.withResolvers<void>();
    const finished: string[] = [];
    const queue = createWorkQueue({
      concurrencyMax: 1,
      onError: () => undefined,
      work: async (key) => {
        await gate.promise;
        finished.push(key);
      },
    });
    queue.add("a");
    queue.add("b");
    queue.addAfter("c", 0);
    const stopping = queue.stop();
    queue.add("d");
    gate.resolve();
    await stopping;
    expect(finished).toEqual(["a"]);
  });
});

describe("the pace", () => {
  it("is the same for the same object each time, and near the mean", () => {
    const lags = ["a", "b", "c", "d", "e"].map((uid) => lagMs("boot", uid));
    expect(lags).toEqual(["a", "b", "c", "d", "e"].map((uid) => lagMs("boot", uid)));
    expect(new Set(lags).size).toBeGreaterThan(1);
    for (const lag of lags) expect(Math.abs(lag - 600)).toBeLessThanOrEqual(200);
  });

  it("counts from when a state was first seen", () => {
    let nowMs = 1_000;
    const pacer = createPacer(() => nowMs);
    const lag = lagMs("boot", "a");
    expect(pacer.remainingMs("a", "Scheduled", "boot")).toBe(lag);
    nowMs += lag - 1;
    expect(pacer.remainingMs("a", "Scheduled", "boot")).toBe(1);
    nowMs += 1;
    expect(pacer.remainingMs("a", "Scheduled", "boot")).toBe(0);
    expect(pacer.remainingMs("a", "other", "boot")).toBe(lag);
  });

  it.each([
    ["crash-loop", { crashLoop: true }],
    ["never-ready,unschedulable", { neverReady: true, unschedulable: true }],
    ["never-ready  slow:90", { neverReady: true, readyAfterSeconds: 90 }],
    ["ignore-live-update", { ignoresLiveUpdate: true, neverReady: false }],
    ["slow:soon nonsense", { readyAfterSeconds: 0, crashLoop: false }],
  ])("reads %j", (annotation, behaviour) => {
    const instance = INSTANCES.schema.parse({
      metadata: {
        name: "a",
        namespace: "default",
        uid: "1",
        resourceVersion: "1",
        annotations: { "stand-in.vmpool-functions/behaviour": annotation },
      },
    });
    expect(behaviourOf(instance)).toMatchObject(behaviour);
  });
});

describe("the address book", () => {
  it("gives every instance an address of its own, and the same one again", () => {
    const book = createAddressBook();
    book.note("old", "10.244.0.1");
    const addresses = Array.from({ length: 3_000 }, (_, index) => book.allocate(`uid-${index}`));
    expect(new Set([...addresses, "10.244.0.1"]).size).toBe(3_001);
    expect(book.allocate("uid-7")).toBe(addresses[7]);
    expect(book.allocate("old")).toBe("10.244.0.1");
  });
});

describe("the run strategy", () => {
  const machine = (spec: object, status: object = {}) =>
    MACHINES.schema.parse({
      metadata: { name: "a", namespace: "default", uid: "1", resourceVersion: "1" },
      spec: { template: { spec: {} }, ...spec },
      status,
    });

  it.each([
    [{ running: true }, "start"],
    [{ running: false }, "stay"],
    [{}, "stay"],
    [{ runStrategy: "Always" }, "start"],
    [{ runStrategy: "Once" }, "start"],
    [{ runStrategy: "RerunOnFailure" }, "start"],
    [{ runStrategy: "Manual" }, "stay"],
    [{ runStrategy: "Halted" }, "stay"],
    [{ runStrategy: "WaitAsReceiver" }, "stay"],
  ])("of %j lets a new machine %s", (spec, step) => {
    expect(planRun(machine(spec), undefined, 0).kind).toBe(step);
  });

  it("does not start again before the pause after a failed start is over", () => {
    const failed = machine(
      { runStrategy: "Always" },
      { startFailure: { retryAfterTimestamp: "1970-01-01T00:00:05Z" } },
    );
    expect(planRun(failed, undefined, 2_000)).toEqual({ kind: "wait", delayMs: 3_000 });
    expect(planRun(failed, undefined, 5_000)).toEqual({ kind: "start" });
  });
});

describe("amounts of memory", () => {
  it.each([
    ["2Gi", 2_147_483_648],
    ["1.5Gi", 1_610_612_736],
    ["64M", 64_000_000],
    ["1024", 1_024],
    [7, 7],
    ["much", undefined],
    ["1Qi", undefined],
    [undefined, undefined],
  ])("of %j are %j bytes", (quantity, bytes) => {
    expect(bytesOf(quantity)).toBe(bytes);
  });

  it.each([
    [8 * 2 ** 30, "8Gi"],
    [1.5 * 2 ** 30, "1536Mi"],
    [1_000, "1000"],
  ])("of %d bytes are written %s", (bytes, text) => {
    expect(quantityOf(bytes)).toBe(text);
  });
});

describe("the launcher's requests", () => {
  it.each([
    [{}, { cpu: "100m", memory: "128Mi" }],
    [{ domain: { cpu: { cores: 2, sockets: 2 }, memory: { guest: "1Gi" } } }, { cpu: "400m", memory: "1Gi" }],
    [{ domain: { resources: { requests: { cpu: 2, memory: "64M" } } } }, { cpu: "2", memory: "64M" }],
    [{ domain: { cpu: "nonsense" } }, { cpu: "100m", memory: "128Mi" }],
    ["nonsense", { cpu: "100m", memory: "128Mi" }],
  ])("for %j are %j", (spec, requests) => {
    expect(requestsOf(spec)).toEqual(requests);
  });
});

describe("what a launcher pod uses", () => {
  it.each([
    [undefined, 5],
    ["90%", 90],
    [" 0% ", 0],
    ["250%", 250],
    ["99999%", 10_000],
    ["90", 5],
    ["0.9", 5],
    ["-10%", 5],
    ["lots", 5],
  ])("is, told %j, %i % of the CPU that it requests", (text, percent) => {
    expect(cpuPercentOf(text === undefined ? {} : { [CPU_ANNOTATION]: text })).toBe(percent);
  });

  it.each([
    [{}, "90m"],
    [{ cpu: { cores: 4 } }, "360m"],
    [{ resources: { requests: { cpu: "2" } } }, "1800m"],
    [{ resources: { requests: { cpu: 0.5 } } }, "450m"],
    [{ resources: { requests: { cpu: "250m" } } }, "225m"],
    [{ resources: { requests: { cpu: "many" } } }, "90m"],
  ])("is of %j the part that it was told", (domain, cpu) => {
    expect(usageOf({ domain }, 90)).toEqual({ cpu, memory: "128Mi" });
  });
});
