import type { EventBridgeClient, PutEventsCommand, PutEventsResultEntry } from "@aws-sdk/client-eventbridge";
import { expect, it } from "vitest";
import { createEventBridgeFacts, reconciledSchema } from "../../shared/events/facts.ts";
import { aFact } from "../support/handlers.ts";

const FACT = aFact();
const TAKEN = [{ EventId: "1" }];
const REFUSED = [{ ErrorCode: "ThrottlingException", ErrorMessage: "slow down" }];

type Answer = readonly PutEventsResultEntry[] | Error | undefined;

/** A bus client that records its calls and gives its answers in order. */
function aBusService(...answers: readonly Answer[]) {
  const calls: PutEventsCommand["input"][] = [];
  const client = {
    async send({ input }: { readonly input: PutEventsCommand["input"] }) {
      const answer = answers[calls.length];
      calls.push(input);
      if (answer instanceof Error) throw answer;
      return { $metadata: {}, ...(answer === undefined ? {} : { Entries: answer }) };
    },
  };
  const bridge: Pick<EventBridgeClient, "send"> = Object.assign(Object.create(null), client);
  return { calls, facts: createEventBridgeFacts("pools", bridge) };
}

it("puts a fact on the bus under its source and name", async () => {
  const { calls, facts } = aBusService(TAKEN);

  expect(await facts.publishReconciled(FACT)).toBe(true);
  expect(calls).toEqual([
    {
      Entries: [
        {
          EventBusName: "pools",
          Source: "vmpool-functions",
          DetailType: "Virtual Machine Pool Reconciled",
          Detail: JSON.stringify(FACT),
        },
      ],
    },
  ]);
});

it.each<[string, Answer]>([
  ["the entry was not taken", REFUSED],
  ["the call failed", new Error("reset")],
  ["the answer says nothing", undefined],
])("sends a fact again when %s", async (_when, answer) => {
  const { calls, facts } = aBusService(answer, TAKEN);

  expect(await facts.publishReconciled(FACT)).toBe(true);
  expect(calls).toHaveLength(2);
  expect(calls[1]).toEqual(calls[0]);
});

it("gives up after three attempts and says so", async () => {
  const { calls, facts } = aBusService(REFUSED, new Error("reset"), REFUSED, TAKEN);

  expect(await facts.publishReconciled(FACT)).toBe(false);
  expect(calls).toHaveLength(3);
});

it("reads its own facts from the bus", () => {
  expect(reconciledSchema.parse(JSON.parse(JSON.stringify(FACT)))).toEqual(FACT);
});

it.each<[string, object]>([
  ["another version", { version: 2 }],
  ["no UID", { uid: undefined }],
  ["a time of another form", { startedAt: "Fri, 01 May 2026 12:00:00 GMT" }],
  ["half a machine", { status: { ...FACT.status, replicas: 0.5 } }],
  ["a condition without a type", { status: { ...FACT.status, conditions: [{ status: "True" }] } }],
  ["more failures than a fact holds", { failures: Array.from({ length: 51 }, () => "no") }],
])("takes no fact with %s", (_what, fields) => {
  expect(reconciledSchema.safeParse({ ...FACT, ...fields }).success).toBe(false);
});
