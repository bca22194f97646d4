/** Judges a request to scale a pool that came as an event: whether it still counts, and what it comes to. Performs no I/O. */

/** An older request was made for a state of things that may be over. */
export const REQUEST_AGE_MAX_MS = 60_000;
/** How far a sender's clock may be ahead of ours. */
const REQUEST_AHEAD_MAX_MS = 60_000;
/** `spec.replicas` is an int32. */
export const REPLICAS_MAX = 2_147_483_647;

export interface ScaleRequest {
  readonly replicas: number;
  /** When the sender asked, by its own clock, in epoch milliseconds. */
  readonly requestedAt: number;
  /** The request counts only while the pool asks for this many. */
  readonly expectedReplicas?: number | undefined;
  /** `replicas` is moved into these bounds. */
  readonly minReplicas?: number | undefined;
  readonly maxReplicas?: number | undefined;
}

export type RefusalReason = "replayed" | "stale" | "premature" | "contradictory" | "unexpected";

export interface Refusal {
  readonly reason: RefusalReason;
  readonly message: string;
}

/** Why the request does not count, as far as the request itself says; undefined when it does. */
export function judgeRequest(
  request: ScaleRequest,
  { now, isReplay }: { readonly now: number; readonly isReplay: boolean },
): Refusal | undefined {
  const ageMs = now - request.requestedAt;
  if (isReplay) return { reason: "replayed", message: "it was replayed from an archive" };
  if (ageMs > REQUEST_AGE_MAX_MS) {
    const message = `it was made ${Math.round(ageMs / 1_000)} s ago, more than ${REQUEST_AGE_MAX_MS / 1_000} s`;
    return { reason: "stale", message };
  }
  if (-ageMs > REQUEST_AHEAD_MAX_MS) {
    return { reason: "premature", message: `it was made ${Math.round(-ageMs / 1_000)} s in the future` };
  }
  const { minReplicas = 0, maxReplicas = REPLICAS_MAX } = request;
  if (minReplicas <= maxReplicas) return undefined;
  return { reason: "contradictory", message: `minReplicas ${minReplicas} is more than maxReplicas ${maxReplicas}` };
}

/** What the request comes to: a sender that computes `replicas` leaves its limits to the bounds. */
export function boundedReplicas({ replicas, minReplicas = 0, maxReplicas = REPLICAS_MAX }: ScaleRequest): number {
  return Math.min(Math.max(replicas, minReplicas), maxReplicas);
}

/**
 * Why a pool that asks for `current` machines is not to be scaled; undefined when it is. A pool that is already as asked
 * for is no surprise: events are delivered more than once.
 */
export function judgeCurrent(request: ScaleRequest, current: number): Refusal | undefined {
  const { expectedReplicas } = request;
  if (expectedReplicas === undefined || expectedReplicas === current) return undefined;
  if (boundedReplicas(request) === current) return undefined;
  return { reason: "unexpected", message: `spec.replicas is ${current}, not ${expectedReplicas}` };
}
