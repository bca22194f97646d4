import type { SendMessageBatchCommand, SQSClient } from "@aws-sdk/client-sqs";
import * as fc from "fast-check";
import { expect, it } from "vitest";
import {
  createSqsWakeUps,
  deduplicationIdOf,
  groupIdOf,
  isWide,
  type Outgoing,
  QUEUE_DELAY_MS,
  type WakeUp,
  wakeUpSchema,
} from "../../shared/events/wake-ups.ts";
import { aWakeUp } from "../support/handlers.ts";
import { NOW } from "../support/transport-objects.ts";

const URLS = { passes: "https://sqs.example/passes.fifo", late: "https://sqs.example/late.fifo" };

type Input = SendMessageBatchCommand["input"];
/** Which entries of a call the queue does not take; an error stands for a call that fails. */
type Answer = (input: Input, call: number) => readonly string[] | Error;

/** An SQS client that records its calls and answers as told. */
function aQueueService(answer: Answer = () => []) {
  const calls: Input[] = [];
  const client = {
    async send({ input }: { readonly input: Input }) {
      calls.push(input);
      const refused = answer(input, calls.length);
      if (refused instanceof Error) throw refused;
      return { $metadata: {}, Failed: refused.map((Id) => ({ Id, SenderFault: false, Code: "InternalError" })) };
    },
  };
  const sqs: Pick<SQSClient, "send"> = Object.assign(Object.create(null), client);
  return { calls, wakeUps: createSqsWakeUps(URLS, sqs) };
}

function someOutgoing(count: number): readonly Outgoing[] {
  return Array.from({ length: count }, (_, index) => ({ wakeUp: aWakeUp({ name: `web-${index}` }), seenAtMs: NOW }));
}

function entriesOf(input: Input | undefined) {
  return input?.Entries ?? [];
}

function namesOf(input: Input | undefined): readonly string[] {
  return entriesOf(input).map(({ MessageBody }) => wakeUpSchema.parse(JSON.parse(MessageBody ?? "")).name);
}

it("groups messages by the SHA-256 of cluster, namespace and name", () => {
  expect(groupIdOf(aWakeUp({ cluster: "local", namespace: "default", name: "web" }))).toBe(
    "ee6bfffe7f445b9e9c222c4bda2fd1221cfdbfe25f64ecc62bd2e69aabdb680a",
  );
});

it("gives no two pools one group, and asks for no more of a wake-up", () => {
  const pools = ["cluster", "namespace", "name"].map((field) => aWakeUp({ [field]: "other" }));

  expect(new Set([aWakeUp(), ...pools].map(groupIdOf)).size).toBe(4);
  expect(groupIdOf(aWakeUp({ cause: "vm", attempt: 2 }))).toBe(groupIdOf(aWakeUp()));
});

it.each([
  { ms: 0, bucket: NOW / 1_000 },
  { ms: 999, bucket: NOW / 1_000 },
  { ms: 1_000, bucket: NOW / 1_000 + 1 },
  { ms: -1, bucket: NOW / 1_000 - 1 },
])("merges outside changes of one second: $ms ms later", ({ ms, bucket }) => {
  const wakeUp = aWakeUp();

  expect(deduplicationIdOf({ wakeUp, seenAtMs: NOW + ms })).toBe(`${groupIdOf(wakeUp)}.${bucket}.other`);
});

it.each(["pool", "instance", "disk", "resync", "again", "status", "scale", "error"])(
  "asks for the narrow look after %s",
  (cause) => {
    expect(isWide(cause)).toBe(false);
    expect(deduplicationIdOf({ wakeUp: aWakeUp({ cause }), seenAtMs: NOW })).toMatch(/\.other$/);
  },
);

it.each(["vm", "sweep", "of a later version", "toString", ""])("asks for the wide look after %j", (cause) => {
  expect(isWide(cause)).toBe(true);
  expect(deduplicationIdOf({ wakeUp: aWakeUp({ cause }), seenAtMs: NOW })).toMatch(/\.vm$/);
});

it("keeps at most two messages a pool and second from outside, whatever the causes", () => {
  const causes = fc.array(fc.constantFrom("pool", "vm", "instance", "disk", "scale", "sweep", "resync"), {
    minLength: 1,
  });
  fc.assert(
    fc.property(causes, fc.integer({ min: 0, max: 999 }), (some, ms) => {
      const ids = some.map((cause) => deduplicationIdOf({ wakeUp: aWakeUp({ cause }), seenAtMs: NOW + ms }));
      expect(new Set(ids).size).toBeLessThanOrEqual(2);
      expect(ids.every((id) => /^[\w.-]{1,128}$/.test(id))).toBe(true);
    }),
  );
});

it("never merges what our own code sends", () => {
  const own: Outgoing = { wakeUp: aWakeUp({ cause: "again" }), seenAtMs: undefined };

  expect(new Set(Array.from({ length: 100 }, () => deduplicationIdOf(own))).size).toBe(100);
});

it("holds passes back for 2 s and late ones for 30 s", () => {
  expect(QUEUE_DELAY_MS).toEqual({ passes: 2_000, late: 30_000 });
});

it.each<[string, Partial<Record<keyof WakeUp, unknown>>]>([
  ["another version", { version: 2 }],
  ["no cluster", { cluster: "" }],
  ["no namespace", { namespace: undefined }],
  ["a name that is a number", { name: 3 }],
  ["no cause", { cause: "" }],
  ["half an attempt", { attempt: 0.5 }],
  ["a negative attempt", { attempt: -1 }],
])("takes no wake-up with %s", (_what, fields) => {
  expect(wakeUpSchema.safeParse({ ...aWakeUp(), ...fields }).success).toBe(false);
  expect(wakeUpSchema.safeParse({ ...aWakeUp(), addedLater: true }).data).toEqual(aWakeUp());
});

it("sends a wake-up with its group and deduplication ids to the queue that is meant", async () => {
  const { calls, wakeUps } = aQueueService();
  const wakeUp = aWakeUp({ cause: "vm" });

  expect(await wakeUps.send("late", [{ wakeUp, seenAtMs: NOW }])).toEqual([]);

  expect(calls).toEqual([
    {
      QueueUrl: URLS.late,
      Entries: [
        {
          Id: "0",
          MessageBody: JSON.stringify(wakeUp),
          MessageGroupId: groupIdOf(wakeUp),
          MessageDeduplicationId: `${groupIdOf(wakeUp)}.${NOW / 1_000}.vm`,
        },
      ],
    },
  ]);
});

it("calls nobody when there is nothing to send", async () => {
  const { calls, wakeUps } = aQueueService();

  expect(await wakeUps.send("passes", [])).toEqual([]);
  expect(calls).toEqual([]);
});

it.each([
  { count: 1, sizes: [1] },
  { count: 10, sizes: [10] },
  { count: 11, sizes: [10, 1] },
  { count: 25, sizes: [10, 10, 5] },
])("sends $count wake-ups in batches of at most ten", async ({ count, sizes }) => {
  const { calls, wakeUps } = aQueueService();
  await wakeUps.send("passes", someOutgoing(count));

  expect(calls.map((call) => entriesOf(call).length)).toEqual(sizes);
  expect(calls.flatMap(namesOf)).toEqual(someOutgoing(count).map(({ wakeUp }) => wakeUp.name));
  expect(calls.every((call) => new Set(entriesOf(call).map(({ Id }) => Id)).size === entriesOf(call).length)).toBe(
    true,
  );
});

it("sends again only what the queue did not take", async () => {
  const { calls, wakeUps } = aQueueService((_, call) => (call === 1 ? ["1", "3"] : []));

  expect(await wakeUps.send("passes", someOutgoing(5))).toEqual([]);
  expect(calls.map(namesOf).slice(1)).toEqual([["web-1", "web-3"]]);
});

it("gathers what several batches left into full ones", async () => {
  const { calls, wakeUps } = aQueueService((_, call) => (call <= 3 ? ["0"] : []));

  expect(await wakeUps.send("passes", someOutgoing(30))).toEqual([]);
  expect(calls.map(namesOf).slice(3)).toEqual([["web-0", "web-10", "web-20"]]);
});

it("keeps the deduplication id when it sends an outside change again", async () => {
  const { calls, wakeUps } = aQueueService((_, call) => (call === 1 ? ["0"] : []));
  await wakeUps.send("passes", someOutgoing(1));
  const [first, second] = calls.flatMap(entriesOf);

  expect(second?.MessageDeduplicationId).toBe(first?.MessageDeduplicationId);
});

it("returns what is left after three attempts", async () => {
  const { calls, wakeUps } = aQueueService(({ Entries = [] }) =>
    Entries.filter(({ MessageBody }) => MessageBody?.includes("web-2") === true).map(({ Id = "" }) => Id),
  );
  const outgoing = someOutgoing(4);

  expect(await wakeUps.send("passes", outgoing)).toEqual([outgoing[2]]);
  expect(calls).toHaveLength(3);
});

it("returns everything when the queue cannot be reached", async () => {
  const { calls, wakeUps } = aQueueService(() => new Error("no route"));
  const outgoing = someOutgoing(12);

  expect(await wakeUps.send("passes", outgoing)).toEqual(outgoing);
  expect(calls).toHaveLength(6);
});

it("goes on with the other batches when one call fails", async () => {
  const { calls, wakeUps } = aQueueService((_, call) => (call === 1 ? new Error("reset") : []));

  expect(await wakeUps.send("passes", someOutgoing(12))).toEqual([]);
  expect(calls.map((call) => entriesOf(call).length)).toEqual([10, 2, 10]);
});
