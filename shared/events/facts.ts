/** Facts on the bus: what has happened, as EventBridge events with a schema version. */
import { EventBridgeClient, PutEventsCommand, type PutEventsRequestEntry } from "@aws-sdk/client-eventbridge";
import * as z from "zod";

export const FACT_SOURCE = "vmpool-functions";
export const RECONCILED = "Virtual Machine Pool Reconciled";
const SEND_ATTEMPTS_MAX = 3;

const conditionSchema = z.object({
  type: z.string(),
  status: z.string(),
  lastTransitionTime: z.string().nullish(),
  reason: z.string().nullish(),
  message: z.string().nullish(),
});

/** Detail of `Virtual Machine Pool Reconciled`: how one pass went, and the status that the pool should show. */
export const reconciledSchema = z.object({
  version: z.literal(1),
  cluster: z.string(),
  namespace: z.string(),
  name: z.string(),
  uid: z.string(),
  /** As returned by the pass's last write to the pool, else as read. */
  resourceVersion: z.string(),
  generation: z.int(),
  /** RFC 3339. */
  startedAt: z.iso.datetime(),
  durationMs: z.number(),
  requests: z.int(),
  /** Action kind → how often it was done. */
  actions: z.record(z.string(), z.int()),
  /** Absent when the pass did not see the machines. */
  status: z
    .object({
      replicas: z.int(),
      readyReplicas: z.int(),
      labelSelector: z.string(),
      conditions: z.array(conditionSchema),
    })
    .optional(),
  failures: z.array(z.string()).max(50),
  complete: z.boolean(),
});
export type Reconciled = z.infer<typeof reconciledSchema>;

/** Publishes facts; false when it could not. */
export interface Facts {
  publishReconciled(fact: Reconciled): Promise<boolean>;
}

/** The publisher on AWS. */
export function createEventBridgeFacts(
  busName: string,
  client: Pick<EventBridgeClient, "send"> = new EventBridgeClient({}),
): Facts {
  return {
    async publishReconciled(fact) {
      const entry: PutEventsRequestEntry = {
        EventBusName: busName,
        Source: FACT_SOURCE,
        DetailType: RECONCILED,
        Detail: JSON.stringify(fact),
      };
      for (let attempt = 0; attempt < SEND_ATTEMPTS_MAX; attempt += 1) {
        const answer = await client.send(new PutEventsCommand({ Entries: [entry] })).catch(() => undefined);
        if (answer?.Entries?.every(({ ErrorCode }) => ErrorCode === undefined) === true) return true;
      }
      return false;
    },
  };
}
