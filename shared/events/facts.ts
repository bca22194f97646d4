/** Facts on the bus: what has happened, as EventBridge events with a schema version. */
import { EventBridgeClient, PutEventsCommand, type PutEventsRequestEntry } from "@aws-sdk/client-eventbridge";
import * as z from "zod";
import { OBJECT_NAME } from "../planning/names.ts";
import { REPLICAS_MAX } from "../planning/scale-request.ts";

export const FACT_SOURCE = "vmpool-functions";
export const RECONCILED = "Virtual Machine Pool Reconciled";
export const SCALE_REQUESTED = "Virtual Machine Pool Scale Requested";
const SEND_ATTEMPTS_MAX = 3;

const conditionSchema = z.object({
  type: z.string(),
  status: z.string(),
  lastTransitionTime: z.string().nullish(),
  reason: z.string().nullish(),
  message: z.string().nullish(),
});

const objectNameSchema = z.string().regex(OBJECT_NAME, "expected the name of a Kubernetes object");

/** Detail of `Virtual Machine Pool Reconciled`: how one pass went, and the status that the pool should show. */
export const reconciledSchema = z.object({
  version: z.literal(1),
  cluster: z.string(),
  namespace: objectNameSchema,
  name: objectNameSchema,
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

const replicasSchema = z.int().min(0).max(REPLICAS_MAX);

/** Detail of `Virtual Machine Pool Scale Requested`, which anybody may send. Closed, so that no condition is lost to a slip of the pen. */
export const scaleRequestedSchema = z.strictObject({
  version: z.literal(1),
  cluster: z.string().min(1).max(63),
  namespace: objectNameSchema,
  name: objectNameSchema,
  replicas: replicasSchema,
  /** RFC 3339. */
  requestedAt: z.iso.datetime({ offset: true }).transform((text) => Date.parse(text)),
  /** The request counts only while `spec.replicas` is this. */
  expectedReplicas: replicasSchema.optional(),
  /** `replicas` is moved into these bounds. */
  minReplicas: replicasSchema.optional(),
  maxReplicas: replicasSchema.optional(),
});
export type ScaleRequested = z.output<typeof scaleRequestedSchema>;

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
