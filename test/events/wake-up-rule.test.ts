import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { QUEUE_DELAY_MS } from "../../shared/events/wake-ups.ts";
import {
  type Arrival,
  type Cause,
  INTACT,
  type Invocation,
  longestWaitMs,
  missedChanges,
  type Outcome,
  type Scenario,
  simulate,
  type Wiring,
} from "../support/wake-up-simulation.ts";

/** The rule's slack: no two senders differ by more, and no consumer from the queue. */
const SKEW_MAX_MS = 999;
/** How long other webhooks may hold up a write that was announced. */
const PRECEDES_MAX_MS = 20_000;
const FUNCTION_TIMEOUT_MS = 60_000;
const PROMPT: Invocation = { durationMs: 100, instance: 0, fate: "succeeds" };
/** Of the runs that must find a counterexample, so that they find the same one every time. */
const SEED = 2;

const cause = fc.constantFrom<Cause>("pool", "vm", "instance", "disk");
/** Mostly one pool, and the edges of its first seconds: that is where changes meet in one bucket. */
const pool = fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat(2));
const at = fc.oneof(fc.constantFrom(0, 1, 999, 1_000, 1_999, 2_000), fc.nat(5_000), fc.nat(60_000));
const received = { atMs: at, sender: fc.nat(1), publishMs: fc.oneof(fc.constant(0), fc.nat(3_000)) };
const change = fc.record({ pool, cause, agoMs: fc.oneof({ weight: 3, arbitrary: fc.nat(100) }, fc.nat(5_000)) });

const audit: fc.Arbitrary<readonly Arrival[]> = fc
  .record({
    ...received,
    changes: fc.array(change, { minLength: 1, maxLength: 4 }),
    // The sender repeats what it holds for lost: later, and perhaps to another instance.
    repeats: fc.array(fc.record({ laterMs: fc.nat(10_000), sender: fc.nat(1) }), { maxLength: 2 }),
  })
  .map(({ repeats, ...first }) => [
    { kind: "audit", ...first },
    ...repeats.map(({ laterMs, sender }): Arrival => {
      const changes = first.changes.map(({ agoMs, ...rest }) => ({ ...rest, agoMs: agoMs + laterMs }));
      return { kind: "audit", ...first, sender, atMs: first.atMs + laterMs, changes };
    }),
  ]);

const admission: fc.Arbitrary<readonly Arrival[]> = fc
  .record({ ...received, pool, cause, precedesMs: fc.oneof(fc.nat(200), fc.nat(PRECEDES_MAX_MS)) })
  .map((arrival) => [{ kind: "admission", ...arrival }]);

const invocation: fc.Arbitrary<Invocation> = fc.record({
  durationMs: fc.oneof(fc.nat(1_000), fc.nat(FUNCTION_TIMEOUT_MS)),
  instance: fc.nat(2),
  fate: fc.constantFrom("succeeds", "succeeds", "crashes", "acknowledgementLost", "fails"),
});

function scenarios(skewMaxMs = SKEW_MAX_MS): fc.Arbitrary<Scenario> {
  const skew = fc.oneof(fc.constant(0), fc.constant(skewMaxMs), fc.nat(skewMaxMs));
  const notices = fc.oneof({ weight: 2, arbitrary: audit }, admission);
  const few = fc.array(notices, { minLength: 1, maxLength: 3 });
  return fc.record({
    arrivals: fc
      .oneof({ weight: 2, arbitrary: few }, fc.array(notices, { maxLength: 12 }))
      .map((lists) => lists.flat()),
    senderSkewsMs: fc.tuple(skew, skew),
    instanceSkewsMs: fc.tuple(
      fc.constant(0),
      skew,
      skew.map((ms) => -ms),
    ),
    invocations: fc.array(invocation, { maxLength: 12 }),
    later: fc.constant(PROMPT),
    concurrency: fc.constantFrom(1, 8),
    pollMs: fc.constant(1),
  });
}

/** Two notices of one pool, the first by a sender whose clock is ahead: all that the delay has to do with. */
function pairs(senderSkewMs: number): fc.Arbitrary<Scenario> {
  const changes = [{ pool: 0, cause: "pool", agoMs: 0 }] as const;
  const notice = (sender: number) =>
    fc.nat(3_000).map((atMs): Arrival => ({ kind: "audit", atMs, sender, publishMs: 0, changes }));
  return fc.tuple(notice(0), notice(1)).map((arrivals) => ({
    arrivals,
    senderSkewsMs: [senderSkewMs, 0],
    instanceSkewsMs: [0],
    invocations: [],
    later: PROMPT,
    concurrency: 8,
    pollMs: 1,
  }));
}

/** The most messages that one queue took of one pool within one second of a sender's clock. */
function messagesASecondMax({ taken }: Outcome): number {
  return Math.max(0, ...taken.values());
}

describe("the wake-up rule", () => {
  it("lets a pass that looks widely enough begin after every change, with two messages a pool, queue and second", async () => {
    await fc.assert(
      fc.asyncProperty(scenarios(), async (scenario) => {
        const outcome = await simulate(scenario);
        expect(missedChanges(outcome)).toEqual([]);
        expect(messagesASecondMax(outcome)).toBeLessThanOrEqual(2);
      }),
      { numRuns: 600 },
    );
  });

  const without: readonly (readonly [string, Partial<Wiring>])[] = [
    ["the delay of the queue", { delayMs: { passes: 0, late: 30_000 } }],
    ["a deduplication id for each second", { seenAt: () => 0 }],
    ["the late queue", { queues: ["passes"] }],
    ["a late queue that is later than other webhooks take", { delayMs: { passes: 2_000, late: 2_000 } }],
    ["the consumer's knowing which queue a message is from", { shownAs: () => "passes" }],
  ];
  it.each(without)("misses changes without %s", async (_what, change) => {
    const wiring = { ...INTACT, ...change };
    const property = fc.asyncProperty(scenarios(), async (scenario) => {
      expect(missedChanges(await simulate(scenario, wiring))).toEqual([]);
    });
    const { failed, counterexample } = await fc.check(property, { seed: SEED, numRuns: 2_000, endOnFailure: true });
    expect(failed).toBe(true);
    const [scenario] = counterexample ?? [];
    if (scenario === undefined) throw new Error("a failed run has a counterexample");
    expect(missedChanges(await simulate(scenario))).toEqual([]);
  });

  it.each([
    { senderSkewMs: SKEW_MAX_MS, delayMs: 2_000, missed: false },
    { senderSkewMs: SKEW_MAX_MS + 200, delayMs: 2_000, missed: true },
    { senderSkewMs: 0, delayMs: 1_000, missed: false },
    { senderSkewMs: SKEW_MAX_MS, delayMs: 1_000, missed: true },
  ])("bears clocks that are $senderSkewMs ms apart with a delay of $delayMs ms: missed $missed", async (bounds) => {
    const { senderSkewMs, delayMs, missed } = bounds;
    const wiring = { ...INTACT, delayMs: { passes: delayMs, late: 30_000 } };
    const property = fc.asyncProperty(pairs(senderSkewMs), async (scenario) => {
      expect(missedChanges(await simulate(scenario, wiring))).toEqual([]);
    });
    const { failed } = await fc.check(property, { seed: SEED, numRuns: 500, endOnFailure: true });
    expect(failed).toBe(missed);
  });
});

interface Storm {
  readonly pools: number;
  /** All events come within this time. */
  readonly withinMs: number;
}

const STORM_EVENTS = 100_000;
const STORM_BATCH = 100;
const STORM_PASS_MS = 200;
const STORM_CONCURRENCY = 8;
const STORM_POLL_MS = 50;
/** Messages of one delivery. */
const RECEIVED_MAX = 10;

/** Events at regular intervals, each about the next pool, in batches of several. */
function aStorm({ pools, withinMs }: Storm): Scenario {
  const causes = ["pool", "vm", "instance", "disk"] as const;
  const arrivals = Array.from({ length: STORM_EVENTS / STORM_BATCH }, (_, batch): Arrival => {
    const changes = Array.from({ length: STORM_BATCH }, (_, index) => {
      const number = batch * STORM_BATCH + index;
      return { pool: number % pools, cause: causes[Math.floor(number / pools) % 4] ?? "pool", agoMs: index };
    });
    const atMs = Math.floor((batch * withinMs * STORM_BATCH) / STORM_EVENTS);
    return { kind: "audit", atMs, sender: batch % 2, publishMs: 0, changes };
  });
  return {
    arrivals,
    senderSkewsMs: [0, SKEW_MAX_MS],
    instanceSkewsMs: [0],
    invocations: [],
    later: { ...PROMPT, durationMs: STORM_PASS_MS },
    concurrency: STORM_CONCURRENCY,
    pollMs: STORM_POLL_MS,
  };
}

/** What a message waits at most: its second, the delay, the clocks, and its turn among all that were sent. */
function waitMaxMs({ messages }: Outcome): number {
  const turns = Math.ceil(messages / (RECEIVED_MAX * STORM_CONCURRENCY)) + 1;
  return 1_000 + QUEUE_DELAY_MS.passes + SKEW_MAX_MS + turns * (STORM_PASS_MS + STORM_POLL_MS);
}

describe("a storm of 100,000 events", () => {
  it.each([
    { pools: 1, withinMs: 60_000 },
    { pools: 100, withinMs: 4_000 },
    { pools: 1_000, withinMs: 1_000 },
  ])("over $pools pools within $withinMs ms costs a few passes, and no pool waits for the others", async (storm) => {
    const outcome = await simulate(aStorm(storm));
    const passesOfEach = [...outcome.reads.values()].map(({ length }) => length);
    expect(missedChanges(outcome)).toEqual([]);
    expect(messagesASecondMax(outcome)).toBeLessThanOrEqual(2);
    expect(outcome.messages).toBeLessThanOrEqual(2 * storm.pools * (storm.withinMs / 1_000 + 2));
    expect(outcome.passes).toBeLessThanOrEqual(outcome.messages);
    expect(passesOfEach).toHaveLength(storm.pools);
    expect(Math.max(...passesOfEach) - Math.min(...passesOfEach)).toBeLessThanOrEqual(1);
    expect(longestWaitMs(outcome)).toBeLessThanOrEqual(waitMaxMs(outcome));
  });
});
