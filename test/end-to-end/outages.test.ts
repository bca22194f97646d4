/** Half a dozen faults of real servers under pools that people change all the time; `npm run outages` goes on for as long as wanted. */
import { describe, expect, it } from "vitest";
import { createOutageJudge, type OutageJudge } from "../support/outage-judge.ts";
import { WORLD_TIMEOUT_MS } from "../support/world.ts";
import { runOutages } from "./outages.ts";

const FAULTS_MS = 45_000;
const POOLS = 8;
const SEED = Number(process.env["OUTAGES_SEED"] ?? 1);

it("keeps pools as they should be while servers, credentials and the functions fail, and brings them to rest after", {
  timeout: WORLD_TIMEOUT_MS,
}, async () => {
  const { violations, figures, story } = await runOutages({
    ...{ seed: SEED, durationMs: FAULTS_MS, pools: POOLS, patience: 0 },
    signal: new AbortController().signal,
    onProgress: () => undefined,
  });
  expect(violations, story.join("\n")).toEqual([]);
  expect(figures).not.toEqual([]);
});

const UID = "11111111-0000";

interface Claimed {
  readonly create?: string;
  readonly delete?: string;
}

/** Tells the judge one thing after the other, a second apart. */
function aStory() {
  const judge: OutageJudge = createOutageJudge();
  let revision = 0;
  const take = (kind: "pool" | "machine", name: string, value: unknown) => {
    revision += 1;
    judge.take({ kind, place: `default/${name}`, revision, value, atMs: revision * 1_000 });
  };
  return {
    judge,
    pool(replicas: number, { create, ...claimed }: Claimed = {}, spec: object = {}) {
      const claim = {
        generation: replicas,
        ...claimed,
        ...(create === undefined ? {} : { create: { "2026-01-01T00:00:00.000Z": create } }),
      };
      const annotations = { "vmpool-functions/pass": JSON.stringify(claim) };
      const metadata = { name: "web", uid: UID, generation: replicas, annotations };
      take("pool", "web", { metadata, spec: { replicas, ...spec } });
    },
    machine(ordinal: number, metadata: object = {}) {
      const ownerReferences = [{ apiVersion: "v1", kind: "Pool", name: "web", uid: UID, controller: true }];
      const own = { name: `web-${ordinal}`, uid: `vm-${ordinal}-uid`, ownerReferences };
      const status = { conditions: [{ type: "Ready", status: "True" }] };
      take("machine", `web-${ordinal}`, { metadata: { ...own, ...metadata }, status });
    },
  };
}

const GOING = { deletionTimestamp: "2026-01-01T00:00:00Z" } as const;

describe("the judge of the outages", () => {
  it("finds nothing wrong with a pool that grows and shrinks by its claims", () => {
    const { judge, pool, machine } = aStory();
    pool(2, { create: "0-1" });
    machine(0);
    machine(1);
    pool(2);
    pool(1, { delete: "1:vm-1-uid" });
    machine(1, GOING);
    expect(judge.violations).toEqual([]);
    expect(judge.counts).toMatchObject({ created: 2, deleted: 1, claims: 3 });
  });

  it("sees a machine too many", () => {
    const { judge, pool, machine } = aStory();
    pool(1, { create: "0-1" });
    machine(0);
    machine(1);
    expect(judge.violations).toEqual([
      expect.stringContaining("creates are claimed up to 2 machines, where 1 are wanted"),
      expect.stringContaining("web-1 is created as one of 2, where at most 1 were wanted"),
    ]);
  });

  it("sees a machine that is created or deleted without a claim", () => {
    const { judge, pool, machine } = aStory();
    pool(2, { create: "0" });
    machine(0);
    machine(1);
    pool(1);
    machine(0, GOING);
    expect(judge.violations).toEqual([
      expect.stringContaining("web-1 is created and not claimed"),
      expect.stringContaining("default/web-0 is deleted and not claimed"),
    ]);
  });

  it("does not blame anybody for a machine that a user deletes in between", () => {
    const { judge, pool, machine } = aStory();
    pool(3, { create: "0-2" });
    for (const ordinal of [0, 1, 2]) machine(ordinal);
    judge.userDeletes("vm-0-uid");
    machine(0, GOING);
    pool(2, { delete: "1:vm-1-uid" });
    machine(1, GOING);
    expect(judge.violations).toEqual([]);
    expect(judge.counts).toMatchObject({ deleted: 1, deletedByUsers: 1 });
  });

  it("sees a delete down to fewer than were ever wanted", () => {
    const { judge, pool, machine } = aStory();
    pool(2, { create: "0-1" });
    machine(0);
    machine(1);
    pool(2, { delete: "1:vm-1-uid" });
    machine(1, GOING);
    expect(judge.violations).toEqual([
      expect.stringContaining("deletes are claimed down to 1 machines, where 2 are wanted"),
      expect.stringContaining("default/web-1 is deleted, 1 live and 0 are excused, where at least 2 were wanted"),
    ]);
  });

  it("sees what is claimed for a paused pool, or for a spec that is not in force", () => {
    const { judge, pool } = aStory();
    pool(2, { create: "0" }, { paused: true });
    expect(judge.violations).toEqual([expect.stringContaining("though the pool is paused or illegal")]);
  });
});
