/**
 * Wake-ups, facts and the consumer of the queues, held to a stand-in for AWS; and the local runtime's queue held to the same.
 * moto differs from AWS in this, so it is not asked for it: it forgets a deduplication id when its message is deleted (AWS keeps
 * it for five minutes), gives several messages of one group that failed in another order, and fails no entry of a batch alone.
 */
import { randomUUID } from "node:crypto";
import {
  CreateEventBusCommand,
  EventBridgeClient,
  PutEventsCommand,
  PutRuleCommand,
  PutTargetsCommand,
} from "@aws-sdk/client-eventbridge";
import { CreateQueueCommand, type Message, ReceiveMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createStatus } from "../../functions/status.ts";
import { createFifoQueue } from "../../infra/local/runtime/fifo-queue.ts";
import { createEventBridgeFacts, FACT_SOURCE, RECONCILED } from "../../shared/events/facts.ts";
import {
  createSqsWakeUps,
  deduplicationIdOf,
  groupIdOf,
  type Outgoing,
  wakeUpSchema,
} from "../../shared/events/wake-ups.ts";
import { aContext, aDirectory, aFact, aLog, aMailbox, aReconcile, aWakeUp } from "../support/handlers.ts";
import { type Moto, motoClient, startMoto } from "../support/moto.ts";
import { aMotoQueue, type MotoQueue, pollOnce, type QueueTimes } from "../support/moto-queues.ts";
import { aWire, linesOf, ok, on } from "../support/transport.ts";
import { aList, aSettledPool, aVm, DISCOVERY, poolPath, served, VMS } from "../support/transport-objects.ts";

const POOL = `GET ${poolPath()}`;
const SECOND = 1_700_000_000_000;

let moto: Moto;
beforeAll(async () => {
  moto = await startMoto();
});
afterAll(() => moto.stop());

function outside(name: string, seenAtMs: number, cause = "pool"): Outgoing {
  return { wakeUp: aWakeUp({ name, cause }), seenAtMs };
}

function own(name: string, cause = "again"): Outgoing {
  return { wakeUp: aWakeUp({ name, cause }), seenAtMs: undefined };
}

/** Both queues, and the publisher of wake-ups to them. */
async function aPairOfQueues(times: QueueTimes = {}) {
  const [passes, late] = await Promise.all([aMotoQueue(moto, "passes", times), aMotoQueue(moto, "late", times)]);
  return { passes, late, wakeUps: createSqsWakeUps({ passes: passes.url, late: late.url }, passes.client) };
}

/** All that is in a queue, batch after batch. */
async function drain(queue: MotoQueue): Promise<readonly Message[]> {
  const all: Message[] = [];
  for (let batch = await queue.receive(); batch.length > 0; batch = await queue.receive()) {
    all.push(...batch);
    await queue.acknowledge(batch);
  }
  return all;
}

function wakeUpOf({ Body = "" }: Message) {
  return wakeUpSchema.parse(JSON.parse(Body));
}

describe("wake-ups", () => {
  it("arrive, more than ten at once too, each in its pool's group and in its queue", async () => {
    const { passes, late, wakeUps } = await aPairOfQueues();
    const sent = Array.from({ length: 25 }, (_, index) => outside(`pool-${index}`, SECOND));

    expect(await wakeUps.send("passes", sent)).toEqual([]);
    expect(await wakeUps.send("late", [own("other")])).toEqual([]);
    const arrived = await drain(passes);
    expect(arrived.map(wakeUpOf).toSorted((a, b) => Number(a.name.slice(5)) - Number(b.name.slice(5)))).toEqual(
      sent.map(({ wakeUp }) => wakeUp),
    );
    for (const message of arrived) {
      const wakeUp = wakeUpOf(message);
      expect(message.Attributes).toMatchObject({
        MessageGroupId: groupIdOf(wakeUp),
        MessageDeduplicationId: deduplicationIdOf({ wakeUp, seenAtMs: SECOND }),
      });
    }
    expect((await drain(late)).map(wakeUpOf)).toEqual([aWakeUp({ name: "other", cause: "again" })]);
  });

  it("of one pool, second and width are one; of our own code each is kept", async () => {
    const { passes, wakeUps } = await aPairOfQueues();
    const sent = [
      outside("web", SECOND),
      outside("web", SECOND + 999, "instance"),
      outside("web", SECOND + 999, "vm"),
      outside("web", SECOND + 1_000, "disk"),
      outside("api", SECOND),
      own("web"),
      own("web"),
    ];

    for (const one of sent) expect(await wakeUps.send("passes", [one])).toEqual([]);
    expect((await drain(passes)).map(wakeUpOf).map(({ name, cause }) => `${name} ${cause}`)).toEqual([
      "web pool",
      "web vm",
      "web disk",
      "api pool",
      "web again",
      "web again",
    ]);
  });

  it("that merge within one batch are one", async () => {
    const { passes, wakeUps } = await aPairOfQueues();
    await wakeUps.send("passes", [outside("web", SECOND), outside("web", SECOND + 1), outside("web", SECOND + 2)]);

    expect(await drain(passes)).toHaveLength(1);
  });

  it("come back when their queue is not there, and the others of the call too", async () => {
    const client = new SQSClient(motoClient(moto));
    const url = `${moto.endpoint}/123456789012/gone.fifo`;
    const wakeUps = createSqsWakeUps({ passes: url, late: url }, client);
    const sent = Array.from({ length: 12 }, (_, index) => own(`pool-${index}`));

    expect(await wakeUps.send("passes", sent)).toEqual(sent);
  });
});

const FACT = aFact();

describe("facts", () => {
  /** A bus whose rule for `status` leads to a queue. */
  async function aBusWithRule() {
    const client = new EventBridgeClient(motoClient(moto));
    const sqs = new SQSClient(motoClient(moto));
    const bus = `pools-${randomUUID()}`;
    const { QueueUrl = "" } = await sqs.send(new CreateQueueCommand({ QueueName: bus }));
    await client.send(new CreateEventBusCommand({ Name: bus }));
    const EventPattern = JSON.stringify({ source: [FACT_SOURCE], "detail-type": [RECONCILED] });
    await client.send(new PutRuleCommand({ Name: "status", EventBusName: bus, EventPattern }));
    const Arn = `arn:aws:sqs:eu-central-1:123456789012:${bus}`;
    await client.send(new PutTargetsCommand({ Rule: "status", EventBusName: bus, Targets: [{ Id: "1", Arn }] }));
    const receive = async (): Promise<readonly unknown[]> => {
      const { Messages = [] } = await sqs.send(new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10 }));
      return Messages.map(({ Body = "" }) => JSON.parse(Body));
    };
    return { bus, client, receive, facts: createEventBridgeFacts(bus, client) };
  }

  it("reach the rule of status as they were published, and status takes them", async () => {
    const { facts, receive } = await aBusWithRule();

    expect(await facts.publishReconciled(FACT)).toBe(true);
    const events = await receive();
    expect(events).toMatchObject([{ source: "vmpool-functions", "detail-type": RECONCILED, detail: FACT }]);
    const { directory } = aDirectory({}, Date.now);
    const now = () => Date.parse(FACT.startedAt);
    const status = createStatus(() => ({ directory, wakeUps: aMailbox(), now, logger: aLog() }));
    expect(await status(events[0], aContext())).toBe("unknownCluster");
  });

  it("of another kind or source do not", async () => {
    const { bus, client, receive } = await aBusWithRule();
    const entry = { EventBusName: bus, Source: FACT_SOURCE, DetailType: RECONCILED, Detail: "{}" };
    const Entries = [
      { ...entry, DetailType: "Virtual Machine Pool Scale Requested" },
      { ...entry, Source: "somebody" },
      { ...entry, Detail: '{"version":2}' },
    ];
    await client.send(new PutEventsCommand({ Entries }));

    expect(await receive()).toMatchObject([{ detail: { version: 2 } }]);
  });

  it("are told as not published when the bus takes none of them, or is not there", async () => {
    const { bus, client } = await aBusWithRule();
    // moto refuses an entry without a source, as AWS does; the call itself succeeds.
    client.middlewareStack.add(
      (next) => (call) => {
        const Entries = [{ EventBusName: bus, Source: "", DetailType: RECONCILED, Detail: "{}" }];
        return next({ ...call, input: { ...call.input, Entries } });
      },
      { step: "initialize" },
    );

    expect(await createEventBridgeFacts(bus, client).publishReconciled(FACT)).toBe(false);
    const other = new EventBridgeClient(motoClient(moto));
    expect(await createEventBridgeFacts("gone", other).publishReconciled(FACT)).toBe(false);
  });
});

describe("the consumer of a queue", () => {
  /** `reconcile` for the settled pools `web` and `api` of `west`; passes for any other cluster end in a bug. */
  function aConsumer(given: Pick<Parameters<typeof aReconcile>[1] & object, "wakeUps">) {
    const wire = aWire(
      on(DISCOVERY, served("v1beta1")),
      on(POOL, ok(aSettledPool())),
      on(`GET ${poolPath("api")}`, ok(aSettledPool({ name: "api", replicas: 0 }))),
      on(`GET ${VMS}`, aList([aVm(0)])),
    );
    const registered = aDirectory({ west: { wire } }, Date.now).directory;
    const find = async (name: string) => {
      if (name !== "west") throw new TypeError("a bug");
      return registered.find(name);
    };
    const { handler, log } = aReconcile({}, { directory: { ...registered, find }, now: Date.now, ...given });
    const invoke: Parameters<typeof pollOnce>[1] = (event) => handler(event, aContext());
    const passesOf = (line: string) => linesOf(wire).filter((sent) => sent === line).length;
    return { invoke, log, passes: () => [passesOf(POOL), passesOf(`GET ${poolPath("api")}`)] };
  }

  it("serves a batch with one pass a pool and acknowledges it", async () => {
    const { passes, wakeUps } = await aPairOfQueues();
    const consumer = aConsumer({ wakeUps });
    await wakeUps.send("passes", [own("web"), own("web", "instance"), own("api"), own("web")]);

    expect(await pollOnce(passes, consumer.invoke)).toMatchObject({ failed: [], messages: { length: 4 } });
    expect(consumer.passes()).toEqual([1, 1]);
    expect(await passes.receive()).toEqual([]);
  });

  it("takes a pass that failed to the late queue, acknowledges it, and keeps nobody waiting", async () => {
    const { passes, late, wakeUps } = await aPairOfQueues();
    const consumer = aConsumer({ wakeUps });
    const bad: Outgoing = { wakeUp: aWakeUp({ cluster: "bad" }), seenAtMs: undefined };
    await wakeUps.send("passes", [bad, own("web")]);

    expect(await pollOnce(passes, consumer.invoke)).toMatchObject({ failed: [], messages: { length: 2 } });
    expect(consumer.passes()).toEqual([1, 0]);
    expect((await late.receive(10)).map(wakeUpOf)).toEqual([aWakeUp({ cluster: "bad", cause: "error", attempt: 1 })]);
  });

  it("gives a failed pass three tries when the late queue is out of reach, and then a place among the dead letters", async () => {
    const { passes, wakeUps } = await aPairOfQueues({ visibilitySeconds: 1 });
    const unreachable = `${moto.endpoint}/123456789012/gone.fifo`;
    const broken = createSqsWakeUps({ passes: passes.url, late: unreachable }, passes.client);
    const consumer = aConsumer({ wakeUps: broken });
    const bad: Outgoing = { wakeUp: aWakeUp({ cluster: "bad" }), seenAtMs: undefined };
    await wakeUps.send("passes", [bad, own("web")]);
    const tries: unknown[] = [];
    for (let turn = await pollOnce(passes, consumer.invoke, 5); turn !== undefined; ) {
      tries.push(turn.messages.map(({ Attributes }) => Attributes?.["ApproximateReceiveCount"]));
      expect(turn.failed).toEqual(
        turn.messages.filter((one) => wakeUpOf(one).cluster === "bad").map((one) => one.MessageId),
      );
      turn = await pollOnce(passes, consumer.invoke, 5);
    }

    expect(tries).toEqual([["1", "1"], ["2"], ["3"]]);
    expect(consumer.passes()).toEqual([1, 0]);
    expect((await passes.receive(5, passes.deadLettersUrl)).map(wakeUpOf)).toEqual([bad.wakeUp]);
  });

  it("lets go what is no wake-up", async () => {
    const { passes, wakeUps } = await aPairOfQueues();
    const consumer = aConsumer({ wakeUps });
    await wakeUps.send("passes", [
      { wakeUp: { ...aWakeUp(), cluster: "NOT A NAME" }, seenAtMs: undefined },
      own("web"),
    ]);

    expect(await pollOnce(passes, consumer.invoke)).toMatchObject({ failed: [] });
    expect(consumer.log.at("error")).toEqual(["message is not a wake-up"]);
    expect(await passes.receive()).toEqual([]);
  });
});

/** What was received of a queue. */
interface Received {
  readonly cause: string;
  readonly group: string;
  readonly receipts: number;
  /** From sending to the first receipt. */
  readonly heldMs: number;
}

/** A queue as the poller sees it. */
interface PolledQueue {
  send(...outgoing: readonly Outgoing[]): Promise<void>;
  /** A batch as soon as there is one; empty when none comes. */
  receive(): Promise<readonly Received[]>;
  /** A batch if there is one now. */
  receiveNow(): Promise<readonly Received[]>;
  /** Acknowledges a batch but for messages of these causes. */
  settle(batch: readonly Received[], failed?: readonly string[]): Promise<void>;
  deadLetters(): Promise<readonly string[]>;
}

type MakeQueue = (times: Required<QueueTimes>) => Promise<PolledQueue>;

const overMoto: MakeQueue = async (times) => {
  const queue = await aMotoQueue(moto, "passes", times);
  const wakeUps = createSqsWakeUps({ passes: queue.url, late: queue.url }, queue.client);
  const handles = new WeakMap<Received, Message>();
  const toReceived = (message: Message): Received => {
    const { Attributes = {} } = message;
    const received = {
      cause: wakeUpOf(message).cause,
      group: Attributes["MessageGroupId"] ?? "",
      receipts: Number(Attributes["ApproximateReceiveCount"]),
      heldMs: Number(Attributes["ApproximateFirstReceiveTimestamp"]) - Number(Attributes["SentTimestamp"]),
    };
    handles.set(received, message);
    return received;
  };
  return {
    async send(...outgoing) {
      for (const one of outgoing) expect(await wakeUps.send("passes", [one])).toEqual([]);
    },
    receive: async () => (await queue.receive(5)).map(toReceived),
    receiveNow: async () => (await queue.receive()).map(toReceived),
    async settle(batch, failed = []) {
      const done = batch.filter(({ cause }) => !failed.includes(cause));
      await queue.acknowledge(done.flatMap((received) => handles.get(received) ?? []));
    },
    async deadLetters() {
      return (await queue.receive(0, queue.deadLettersUrl)).map((message) => wakeUpOf(message).cause);
    },
  };
};

const inMemory: MakeQueue = async ({ delaySeconds, visibilitySeconds }) => {
  let now = SECOND;
  const queue = createFifoQueue({
    name: "passes",
    delayMs: delaySeconds * 1_000,
    visibilityMs: visibilitySeconds * 1_000,
    retentionMs: 600_000,
    receiptsMax: 3,
  });
  const handles = new WeakMap<Received, ReturnType<typeof queue.receive>[number]>();
  const receiveNow = async () =>
    queue.receive(now).map((message) => {
      const { body, groupId: group, receipts, sentAt } = message;
      const received = { cause: wakeUpSchema.parse(JSON.parse(body)).cause, group, receipts, heldMs: now - sentAt };
      handles.set(received, message);
      return received;
    });
  return {
    async send(...outgoing) {
      for (const one of outgoing) queue.send(one, now);
    },
    receiveNow,
    async receive() {
      now = Math.max(now, queue.nextAt() ?? now);
      return receiveNow();
    },
    async settle(batch, failed = []) {
      const messages = batch.flatMap((received) => handles.get(received) ?? []);
      const ids = batch.flatMap((received) =>
        failed.includes(received.cause) ? (handles.get(received)?.id ?? []) : [],
      );
      queue.settle(messages, new Set(ids), now);
    },
    async deadLetters() {
      return queue.deadLetters.map(({ body }) => wakeUpSchema.parse(JSON.parse(body)).cause);
    },
  };
};

function causesOf(batch: readonly Received[]): readonly string[] {
  return batch.map(({ cause }) => cause);
}

describe.each([
  ["of the stand-in for AWS", overMoto],
  ["of the local runtime", inMemory],
])("a FIFO queue %s", (_whose, make) => {
  it("holds each message back for the queue's delay", async () => {
    const queue = await make({ delaySeconds: 1, visibilitySeconds: 30 });
    await queue.send(own("web", "a"));
    const [first] = await queue.receive();

    expect(first).toMatchObject({ cause: "a", receipts: 1, group: groupIdOf(aWakeUp()) });
    expect(first?.heldMs).toBeGreaterThanOrEqual(1_000);
  });

  it("gives a group's messages in order, ten at once, and no more while they are out", async () => {
    const queue = await make({ delaySeconds: 0, visibilitySeconds: 30 });
    const causes = Array.from({ length: 12 }, (_, index) => `c${index}`);
    await queue.send(...causes.map((cause) => own("web", cause)));
    const first = await queue.receive();
    expect(causesOf(first)).toEqual(causes.slice(0, 10));
    await queue.send(own("api", "other"));
    const second = await queue.receiveNow();
    expect(causesOf(second)).toEqual(["other"]);
    expect(await queue.receiveNow()).toEqual([]);
    await queue.settle(first);

    expect(causesOf(await queue.receiveNow())).toEqual(["c10", "c11"]);
  });

  it("gives what failed again after its visibility, before what came later, and keeps no other group waiting", async () => {
    const queue = await make({ delaySeconds: 0, visibilitySeconds: 2 });
    await queue.send(own("web", "a"), own("web", "b"));
    const first = await queue.receive();
    await queue.send(own("web", "c"), own("api", "other"));
    await queue.settle(first, ["a"]);
    const between = await queue.receiveNow();
    expect(causesOf(between)).toEqual(["other"]);
    await queue.settle(between);
    const again = await queue.receive();

    expect(again.map(({ cause, receipts }) => `${cause} ${receipts}`)).toEqual(["a 2", "c 1"]);
  });

  it("takes a message with a deduplication id that it holds for sent, and keeps the first", async () => {
    const queue = await make({ delaySeconds: 0, visibilitySeconds: 1 });
    await queue.send(outside("web", SECOND, "pool"), outside("web", SECOND + 999, "disk"));
    await queue.send(outside("api", SECOND, "vm"), outside("api", SECOND, "disk"), outside("api", SECOND, "sweep"));
    const batch = await queue.receive();
    expect(causesOf(batch)).toEqual(["pool", "vm", "disk"]);
    await queue.send(outside("web", SECOND + 500, "instance"));
    await queue.settle(batch, ["pool"]);

    expect(causesOf(await queue.receive())).toEqual(["pool"]);
  });

  it("puts a message aside after three receipts, and goes on with the group", async () => {
    const queue = await make({ delaySeconds: 0, visibilitySeconds: 1 });
    await queue.send(own("web", "bad"));
    for (const receipts of [1, 2, 3]) {
      const batch = await queue.receive();
      expect(batch).toMatchObject([{ cause: "bad", receipts }]);
      await queue.settle(batch, ["bad"]);
    }
    await queue.send(own("web", "good"));

    expect(causesOf(await queue.receive())).toEqual(["good"]);
    expect(await queue.deadLetters()).toEqual(["bad"]);
  });
});
