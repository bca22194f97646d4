import * as fc from "fast-check";
import { expect, it } from "vitest";
import {
  createFifoQueue,
  type FifoQueue,
  type Message,
  type QueueSettings,
} from "../../infra/local/runtime/fifo-queue.ts";
import { groupIdOf, type Outgoing, wakeUpSchema } from "../../shared/events/wake-ups.ts";
import { aWakeUp } from "../support/handlers.ts";

const SETTINGS: QueueSettings = {
  name: "passes",
  delayMs: 2_000,
  visibilityMs: 90_000,
  retentionMs: 600_000,
  receiptsMax: 3,
};
const NONE: ReadonlySet<string> = new Set();
const FIVE_MINUTES_MS = 300_000;

/** Sent by our own code, so never merged. `cause` tells messages of one pool apart. */
function own(name: string, cause = "again"): Outgoing {
  return { wakeUp: aWakeUp({ name, cause }), seenAtMs: undefined };
}

function outside(name: string, seenAtMs: number, cause = "pool"): Outgoing {
  return { wakeUp: aWakeUp({ name, cause }), seenAtMs };
}

function causesOf(batch: readonly Message[]): readonly string[] {
  return batch.map(({ body }) => wakeUpSchema.parse(JSON.parse(body)).cause);
}

function idsOf(batch: readonly Message[]): ReadonlySet<string> {
  return new Set(batch.map(({ id }) => id));
}

/** A queue into which these messages of pool `web` were sent at time 0. */
function aQueueWith(...causes: readonly string[]): FifoQueue {
  const queue = createFifoQueue(SETTINGS);
  for (const cause of causes) queue.send(own("web", cause), 0);
  return queue;
}

it("holds a message back for its delay", () => {
  const queue = aQueueWith("a");

  expect(queue.nextAt()).toBe(2_000);
  expect(queue.receive(1_999)).toEqual([]);
  expect(causesOf(queue.receive(2_000))).toEqual(["a"]);
});

it("carries the wake-up and its group", () => {
  const queue = createFifoQueue(SETTINGS);
  queue.send(own("web"), 7);
  const [message] = queue.receive(5_000);

  expect(message).toMatchObject({ groupId: groupIdOf(aWakeUp()), sentAt: 7, receipts: 1 });
  expect(JSON.parse(message?.body ?? "")).toEqual(aWakeUp({ cause: "again" }));
});

it("gives several messages of a group in the order of sending, and those of other groups beside them", () => {
  const queue = createFifoQueue(SETTINGS);
  for (const cause of ["1", "2", "3"]) for (const name of ["web", "api"]) queue.send(own(name, `${name}${cause}`), 0);

  expect(causesOf(queue.receive(2_000))).toEqual(["web1", "api1", "web2", "api2", "web3", "api3"]);
});

it("gives ten messages at most, and the rest of a group only after them", () => {
  const causes = Array.from({ length: 12 }, (_, index) => `c${index}`);
  const queue = aQueueWith(...causes);
  const first = queue.receive(2_000);
  expect(causesOf(first)).toEqual(causes.slice(0, 10));
  expect(queue.receive(2_000)).toEqual([]);
  queue.settle(first, NONE, 2_500);

  expect(causesOf(queue.receive(2_500))).toEqual(causes.slice(10));
});

it("gives no message of a group while another of it is being served", () => {
  const queue = aQueueWith("a");
  const batch = queue.receive(2_000);
  queue.send(own("web", "b"), 2_000);
  queue.send(own("api", "c"), 2_000);

  expect(queue.nextAt()).toBe(4_000);
  expect(causesOf(queue.receive(10_000))).toEqual(["c"]);
  expect(queue.nextAt()).toBeUndefined();
  queue.settle(batch, NONE, 20_000);
  expect(causesOf(queue.receive(20_000))).toEqual(["b"]);
});

it("lets no message overtake one of its group that is still held back", () => {
  const queue = aQueueWith("a");
  const batch = queue.receive(2_000);
  queue.send(own("web", "b"), 2_000);
  queue.settle(batch, idsOf(batch), 3_000);

  expect(queue.receive(92_999)).toEqual([]);
  expect(causesOf(queue.receive(93_000))).toEqual(["a", "b"]);
});

it("removes what was acknowledged", () => {
  const queue = aQueueWith("a", "b");
  queue.settle(queue.receive(2_000), NONE, 2_000);

  expect(queue.size).toBe(0);
  expect(queue.nextAt()).toBeUndefined();
  expect(queue.receive(1_000_000)).toEqual([]);
});

it("gives a failed message again after the visibility time, without those that did not fail", () => {
  const queue = aQueueWith("a", "b");
  const batch = queue.receive(2_000);
  queue.settle(batch, new Set(batch.slice(1).map(({ id }) => id)), 5_000);

  expect(queue.nextAt()).toBe(95_000);
  expect(queue.receive(94_999)).toEqual([]);
  expect(queue.receive(95_000)).toMatchObject([{ receipts: 2, sentAt: 0 }]);
});

it("puts a message aside after its third failure, and lets those behind it go on", () => {
  const queue = aQueueWith("bad");
  let now = 2_000;
  for (let receipt = 1; receipt <= 3; receipt += 1) {
    const batch = queue.receive(now);
    expect(batch).toMatchObject([{ receipts: receipt }]);
    queue.settle(batch, idsOf(batch), now);
    expect(queue.deadLetters).toHaveLength(receipt === 3 ? 1 : 0);
    now += SETTINGS.visibilityMs;
  }
  queue.send(own("web", "good"), now);

  expect(causesOf(queue.deadLetters)).toEqual(["bad"]);
  expect(causesOf(queue.receive(now + 2_000))).toEqual(["good"]);
});

it("forgets a message that is older than the retention, and not a moment before", () => {
  expect(causesOf(aQueueWith("a").receive(SETTINGS.retentionMs - 1))).toEqual(["a"]);
  const queue = aQueueWith("a");

  expect(queue.receive(SETTINGS.retentionMs)).toEqual([]);
  expect([queue.size, queue.deadLetters.length, queue.nextAt()]).toEqual([0, 0, undefined]);
});

it("does not forget a message that is being served", () => {
  const queue = aQueueWith("a");
  const batch = queue.receive(2_000);
  queue.receive(SETTINGS.retentionMs);

  expect(queue.size).toBe(1);
  queue.settle(batch, NONE, SETTINGS.retentionMs);
  expect(queue.size).toBe(0);
});

it("merges outside changes of one second, pool and width", () => {
  const queue = createFifoQueue(SETTINGS);
  for (const ms of [0, 500, 999]) queue.send(outside("web", ms), ms);
  expect(queue.size).toBe(1);

  queue.send(outside("web", 900, "vm"), 900);
  queue.send(outside("api", 900), 900);
  queue.send(outside("web", 1_000), 1_000);
  expect(queue.size).toBe(4);
});

it("goes on merging for five minutes after the message was served", () => {
  const queue = createFifoQueue(SETTINGS);
  queue.send(outside("web", 0), 0);
  queue.settle(queue.receive(2_000), NONE, 2_000);
  queue.send(outside("web", 0), FIVE_MINUTES_MS - 1);
  expect(queue.size).toBe(0);

  queue.send(outside("web", 0), FIVE_MINUTES_MS);
  expect(queue.size).toBe(1);
});

it("counts the five minutes from the message that was kept", () => {
  const queue = createFifoQueue(SETTINGS);
  queue.send(outside("web", 0), 0);
  queue.send(outside("web", 0), FIVE_MINUTES_MS - 1);
  queue.send(outside("web", 0), FIVE_MINUTES_MS + 1);

  expect(queue.size).toBe(2);
});

it("never merges what our own code sends", () => {
  expect(aQueueWith("again", "again", "again").size).toBe(3);
});

type Step =
  | { readonly kind: "send"; readonly pool: number; readonly merge: boolean }
  | { readonly kind: "receive" }
  | { readonly kind: "settle"; readonly batch: number; readonly failing: number }
  | { readonly kind: "wait"; readonly ms: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("send"), pool: fc.nat(3), merge: fc.boolean() }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("receive") }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("settle"), batch: fc.nat(), failing: fc.nat(11) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("wait"), ms: fc.constantFrom(1, 500, 1_000, 2_000, 90_000) }) },
);

/** What SQS promises, kept as plainly as can be: every message that was taken in, and what became of it. */
interface Sent {
  readonly order: number;
  readonly groupId: string;
  readonly sentAt: number;
  hiddenUntil: number;
  receipts: number;
  state: "waiting" | "taken" | "done" | "dead";
}

interface Model {
  now: number;
  readonly sent: Sent[];
  /** Batches that are being served. */
  readonly batches: (readonly Message[])[];
  readonly merged: Map<string, number>;
}

function sendStep(model: Model, queue: FifoQueue, { pool, merge }: Extract<Step, { kind: "send" }>): void {
  const { now, sent, merged } = model;
  const outgoing = merge ? outside(`web-${pool}`, now) : own(`web-${pool}`);
  queue.send(outgoing, now);
  const key = `${pool} ${Math.floor(now / 1_000)}`;
  if (merge && now < (merged.get(key) ?? 0)) return;
  if (merge) merged.set(key, now + FIVE_MINUTES_MS);
  const groupId = groupIdOf(outgoing.wakeUp);
  const { delayMs } = SETTINGS;
  sent.push({
    order: sent.length + 1,
    groupId,
    sentAt: now,
    hiddenUntil: now + delayMs,
    receipts: 0,
    state: "waiting",
  });
}

function ofOrder({ sent }: Model, id: string): Sent {
  const found = sent[Number(id) - 1];
  if (found === undefined) throw new RangeError(`message ${id} was never sent`);
  return found;
}

function isExpired({ now }: Model, { sentAt }: Sent): boolean {
  return now >= sentAt + SETTINGS.retentionMs;
}

/** Every rule of a delivery, one after the other. */
function receiveStep(model: Model, queue: FifoQueue): void {
  const { now, sent, batches } = model;
  const taken = new Set(sent.filter(({ state }) => state === "taken").map(({ groupId }) => groupId));
  const batch = queue.receive(now);
  expect(batch.length).toBeLessThanOrEqual(10);
  const given = batch.map(({ id }) => ofOrder(model, id));
  for (const [index, one] of given.entries()) {
    expect(taken.has(one.groupId), "no message of a group that is being served").toBe(false);
    expect(one.state, "nothing twice").toBe("waiting");
    expect(one.hiddenUntil, "nothing before its time").toBeLessThanOrEqual(now);
    expect(isExpired(model, one), "nothing after the retention").toBe(false);
    const before = sent.filter(
      ({ groupId, order, state }) => groupId === one.groupId && order < one.order && state === "waiting",
    );
    const skipped = before.filter((earlier) => !isExpired(model, earlier) && !given.slice(0, index).includes(earlier));
    expect(skipped, "nothing before an earlier message of its group").toEqual([]);
  }
  const due = sent.filter((one) => isDue(model, one, taken));
  expect(batch.length > 0 || due.length === 0, "something when something is due").toBe(true);
  for (const one of given) {
    one.state = "taken";
    one.receipts += 1;
  }
  if (batch.length > 0) batches.push(batch);
}

/** The first message of a free group, and past its delay. */
function isDue(model: Model, one: Sent, taken: ReadonlySet<string>): boolean {
  if (one.state !== "waiting" || isExpired(model, one) || taken.has(one.groupId)) return false;
  const first = model.sent.find(
    (other) => other.groupId === one.groupId && other.state === "waiting" && !isExpired(model, other),
  );
  return first === one && one.hiddenUntil <= model.now;
}

function settleStep(
  model: Model,
  queue: FifoQueue,
  { batch: which, failing }: Extract<Step, { kind: "settle" }>,
): void {
  const { now, batches } = model;
  const [batch] = batches.splice(batches.length === 0 ? 0 : which % batches.length, 1);
  if (batch === undefined) return;
  // As the function reports it: after a failed message of a group all later ones have failed too.
  const failed = new Set(batch.slice(failing).map(({ id }) => id));
  queue.settle(batch, failed, now);
  for (const { id } of batch) {
    const one = ofOrder(model, id);
    if (!failed.has(id)) one.state = "done";
    else if (one.receipts >= SETTINGS.receiptsMax) one.state = "dead";
    else {
      one.state = "waiting";
      one.hiddenUntil = now + SETTINGS.visibilityMs;
    }
  }
}

it("keeps the rules of a FIFO queue through any history", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      const queue = createFifoQueue(SETTINGS);
      const model: Model = { now: 0, sent: [], batches: [], merged: new Map() };
      for (const one of steps) {
        if (one.kind === "send") sendStep(model, queue, one);
        else if (one.kind === "receive") receiveStep(model, queue);
        else if (one.kind === "settle") settleStep(model, queue, one);
        else model.now += one.ms;
      }
      receiveStep(model, queue);
      const alive = model.sent.filter(
        (sent) => sent.state === "taken" || (sent.state === "waiting" && !isExpired(model, sent)),
      );
      expect(queue.size, "nothing is lost, and nothing is left over").toBe(alive.length);
      expect(queue.deadLetters).toHaveLength(model.sent.filter(({ state }) => state === "dead").length);
    }),
    { numRuns: 500 },
  );
});

it("delivers everything in the end when whoever serves it succeeds in time", () => {
  fc.assert(
    fc.property(fc.array(fc.record({ pool: fc.nat(3), afterMs: fc.nat(3_000) }), { maxLength: 60 }), (sends) => {
      const queue = createFifoQueue(SETTINGS);
      let now = 0;
      for (const { pool, afterMs } of sends) {
        now += afterMs;
        queue.send(own(`web-${pool}`), now);
      }
      const served: number[] = [];
      for (let at = queue.nextAt(); at !== undefined; at = queue.nextAt()) {
        now = Math.max(now, at);
        const batch = queue.receive(now);
        expect(batch.length).toBeGreaterThan(0);
        served.push(...batch.map(({ id }) => Number(id)));
        queue.settle(batch, NONE, now);
      }
      expect(served.toSorted((a, b) => a - b)).toEqual(sends.map((_, index) => index + 1));
    }),
  );
});
