/** A FIFO queue in memory with the semantics of SQS that the functions lean on. Pure state: whoever drives it says what time it is. */
import { deduplicationIdOf, groupIdOf, type Outgoing } from "../../../shared/events/wake-ups.ts";

/** Deduplication outlives the message, as on SQS. */
const DEDUPLICATION_MS = 5 * 60_000;
/** Messages of one batch. */
export const BATCH_MAX = 10;

export interface QueueSettings {
  readonly name: string;
  readonly delayMs: number;
  /** How long a received message is hidden when it is not acknowledged. */
  readonly visibilityMs: number;
  /** A message older than this is gone. */
  readonly retentionMs: number;
  /** Receipts after which a message is a dead letter. */
  readonly receiptsMax: number;
}

export interface Message {
  readonly id: string;
  readonly body: string;
  readonly groupId: string;
  readonly sentAt: number;
  visibleAt: number;
  receipts: number;
}

export interface FifoQueue {
  send(outgoing: Outgoing, now: number): void;
  /** Up to ten messages whose groups are free, in order within each group; their groups are taken until `settle`. */
  receive(now: number): readonly Message[];
  /** Acknowledges a received batch but for `failedIds`, which come again after the visibility time. */
  settle(batch: readonly Message[], failedIds: ReadonlySet<string>, now: number): void;
  /** When the next message can be received, in epoch milliseconds; undefined when none waits in a free group. */
  nextAt(): number | undefined;
  readonly deadLetters: readonly Message[];
  readonly size: number;
}

export function createFifoQueue({ delayMs, visibilityMs, retentionMs, receiptsMax }: QueueSettings): FifoQueue {
  let messages: Message[] = [];
  let sent = 0;
  const taken = new Set<string>();
  const deduplicated = new Map<string, number>();
  const deadLetters: Message[] = [];

  /** The first message of each free group; those behind it wait for it. */
  const heads = (): Message[] => {
    const seen = new Set(taken);
    return messages.filter(({ groupId }) => !seen.has(groupId) && seen.add(groupId));
  };
  return {
    deadLetters,
    get size() {
      return messages.length;
    },
    send(outgoing, now) {
      // Ids stand in the order in which they expire, so the walk ends at the first that has not.
      for (const [id, expiresAt] of deduplicated) {
        if (expiresAt > now) break;
        deduplicated.delete(id);
      }
      const deduplicationId = deduplicationIdOf(outgoing);
      if (deduplicated.has(deduplicationId)) return;
      deduplicated.set(deduplicationId, now + DEDUPLICATION_MS);
      sent += 1;
      const { wakeUp } = outgoing;
      const message = { id: String(sent), body: JSON.stringify(wakeUp), groupId: groupIdOf(wakeUp), sentAt: now };
      messages.push({ ...message, visibleAt: now + delayMs, receipts: 0 });
    },
    receive(now) {
      messages = messages.filter(({ sentAt, groupId }) => taken.has(groupId) || now < sentAt + retentionMs);
      const ready = new Set(
        heads()
          .filter(({ visibleAt }) => visibleAt <= now)
          .map(({ groupId }) => groupId),
      );
      const batch: Message[] = [];
      for (const message of messages) {
        if (batch.length === BATCH_MAX) break;
        if (!ready.has(message.groupId)) continue;
        if (message.visibleAt <= now) batch.push(message);
        else ready.delete(message.groupId);
      }
      for (const message of batch) {
        message.receipts += 1;
        taken.add(message.groupId);
      }
      return batch;
    },
    settle(batch, failedIds, now) {
      const done = new Set<Message>();
      for (const message of batch) {
        taken.delete(message.groupId);
        if (!failedIds.has(message.id)) done.add(message);
        else if (message.receipts >= receiptsMax) {
          done.add(message);
          deadLetters.push(message);
        } else message.visibleAt = now + visibilityMs;
      }
      messages = messages.filter((message) => !done.has(message));
    },
    nextAt() {
      const times = heads().map(({ visibleAt }) => visibleAt);
      return times.length === 0 ? undefined : Math.min(...times);
    },
  };
}
