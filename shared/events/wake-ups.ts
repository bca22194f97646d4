/** Wake-ups: hints that a pool may need a pass, as FIFO messages. Source of the rules: docs/architecture.md. */
import { createHash, randomUUID } from "node:crypto";
import { SendMessageBatchCommand, SQSClient } from "@aws-sdk/client-sqs";
import * as z from "zod";
import { CLUSTER_NAME, OBJECT_NAME } from "../planning/names.ts";

/** What is deduplicated together in one second. */
const BUCKET_MS = 1_000;
const BATCH_MAX = 10;
const SEND_ATTEMPTS_MAX = 3;

export type QueueName = "passes" | "late";
/** How long each queue holds a message back, in milliseconds; set on the queue, since FIFO knows no delay per message. */
export const QUEUE_DELAY_MS: Readonly<Record<QueueName, number>> = { passes: 2_000, late: 30_000 };

export const wakeUpSchema = z.object({
  version: z.literal(1),
  cluster: z.string().regex(CLUSTER_NAME),
  namespace: z.string().regex(OBJECT_NAME),
  name: z.string().regex(OBJECT_NAME),
  /** Why, for logs, and how wide the pass must look. */
  cause: z.string().min(1).max(100),
  /** How often this wake-up was sent again after an error. */
  attempt: z.int().min(0),
});
export type WakeUp = z.infer<typeof wakeUpSchema>;

/** A pool of a cluster. */
export type PoolKey = Pick<WakeUp, "cluster" | "namespace" | "name">;

/** Causes after which a pass need not look at VMs that the pool's selector does not match. */
const NARROW_CAUSES = new Set(["pool", "instance", "disk", "resync", "again", "status", "scale", "error"]);

/** Whether a pass for this cause must read the metadata of all VMs of the namespace; an unknown cause must. */
export function isWide(cause: string): boolean {
  return !NARROW_CAUSES.has(cause);
}

export type Outgoing =
  /** A change seen from outside: merges with others of its pool, second and width. */
  | { readonly wakeUp: WakeUp; readonly seenAtMs: number }
  /** Sent by our own code: never merged. */
  | { readonly wakeUp: WakeUp; readonly seenAtMs: undefined };

/** Sends wake-ups; what could not be sent comes back. */
export interface WakeUps<Q extends QueueName = QueueName> {
  send(queue: Q, outgoing: readonly Outgoing[]): Promise<readonly Outgoing[]>;
}

/** One message group a pool: the lower-case hex SHA-256 of `cluster/namespace/name`. */
export function groupIdOf({ cluster, namespace, name }: PoolKey): string {
  return createHash("sha256").update(`${cluster}/${namespace}/${name}`).digest("hex");
}

/** Two changes seen from outside are one wake-up when they came within one second and ask for the same width. */
export function deduplicationIdOf({ wakeUp, seenAtMs }: Outgoing): string {
  if (seenAtMs === undefined) return randomUUID();
  return `${groupIdOf(wakeUp)}.${Math.floor(seenAtMs / BUCKET_MS)}.${isWide(wakeUp.cause) ? "vm" : "other"}`;
}

/** The publisher on AWS, for the queues whose URLs it is given. */
export function createSqsWakeUps<Q extends QueueName>(
  queueUrls: Readonly<Record<Q, string>>,
  client: Pick<SQSClient, "send"> = new SQSClient({}),
): WakeUps<Q> {
  const sendBatch = async (queue: Q, batch: readonly Outgoing[]): Promise<readonly Outgoing[]> => {
    const Entries = batch.map((outgoing, index) => ({
      Id: String(index),
      MessageBody: JSON.stringify(outgoing.wakeUp),
      MessageGroupId: groupIdOf(outgoing.wakeUp),
      MessageDeduplicationId: deduplicationIdOf(outgoing),
    }));
    const answer = await client.send(new SendMessageBatchCommand({ QueueUrl: queueUrls[queue], Entries }));
    const failed = new Set((answer.Failed ?? []).map(({ Id }) => Id));
    return batch.filter((_, index) => failed.has(String(index)));
  };
  return {
    async send(queue, outgoing) {
      let unsent = outgoing;
      for (let attempt = 0; attempt < SEND_ATTEMPTS_MAX && unsent.length > 0; attempt += 1) {
        const batches = Array.from({ length: Math.ceil(unsent.length / BATCH_MAX) }, (_, index) =>
          unsent.slice(index * BATCH_MAX, (index + 1) * BATCH_MAX),
        );
        const left = await Promise.all(batches.map((batch) => sendBatch(queue, batch).catch(() => batch)));
        unsent = left.flat();
      }
      return unsent;
    },
  };
}
