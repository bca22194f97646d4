/** When the schedule wakes a pool without being told of a change, and when it says that a pool gets nowhere. */
import * as z from "zod";
import { type Claim, parseClaim } from "./claim.ts";
import { fnv1a } from "./hash.ts";
import { isRecord } from "./json.ts";
import { type Pool, poolSpecSchema } from "./model.ts";
import { CLAIM_ANNOTATION, HEALING_ANNOTATION, OWN_MANAGER } from "./names.ts";
import { SECOND_WRITER_CONDITION } from "./second-writer.ts";
import { isUpToDate, updateStrategyOf } from "./update.ts";

const MINUTE_MS = 60_000;
/** A pool that has something left to do and has not moved for this long is worth a person's look. */
const STALLED_MS = 15 * MINUTE_MS;
/** Conditions of a pool that something keeps from being as it should. */
const HELD: ReadonlySet<string> = new Set(["ReplicaFailure", SECOND_WRITER_CONDITION]);

export interface ResyncRules {
  /** How often a settled pool is looked at, in minutes. */
  readonly settledMinutes: number;
  /** Wake every pool at every tick, with the full look. */
  readonly everything: boolean;
}

/** `sweep` is the full look, `resync` the ordinary one; undefined when the pool is not due in the minute of `now`. */
export function resyncCause(
  pool: Pool,
  now: number,
  { settledMinutes, everything }: ResyncRules,
): "sweep" | "resync" | undefined {
  if (everything || isTurn(pool.uid, now, settledMinutes)) return "sweep";
  return isUnsettled(pool) ? "resync" : undefined;
}

/** Whether the machines of a cluster are looked through for those whose pool is gone: as often as a settled pool is looked at. */
export function strayTurn(cluster: string, now: number, { settledMinutes, everything }: ResyncRules): boolean {
  return everything || isTurn(cluster, now, settledMinutes);
}

/** Spread evenly over the minutes. */
function isTurn(key: string, now: number, settledMinutes: number): boolean {
  const slot = Number(BigInt(`0x${fnv1a(key)}`) % BigInt(settledMinutes));
  return Math.floor(now / MINUTE_MS) % settledMinutes === slot;
}

/** Something is left to do or to wait for, as far as the pool itself shows. */
function isUnsettled(pool: Pool): boolean {
  const { status } = pool;
  const claim = parseClaim(pool.annotations?.[CLAIM_ANNOTATION]);
  if (pool.deleting || claim === undefined || claim.generation !== pool.generation) return true;
  if (claim.create.size > 0 || claim.delete.length > 0 || claim.restart.length > 0) return true;
  if (claim.waitUntil !== undefined) return true;
  if (status?.conditions?.some(({ type }) => HELD.has(type)) === true) return true;
  if (isPaused(pool)) return false;
  if (pool.annotations?.[HEALING_ANNOTATION] !== undefined || isRollingOut(pool, claim)) return true;
  const replicas = isRecord(pool.spec) ? (pool.spec["replicas"] ?? 1) : 1;
  return (status?.replicas ?? 0) !== replicas || (status?.readyReplicas ?? 0) !== replicas;
}

function isPaused({ spec }: Pool): boolean {
  return isRecord(spec) && spec["paused"] === true;
}

const historySchema = z.object({
  metadata: z.object({
    creationTimestamp: z.string().nullish(),
    deletionTimestamp: z.string().nullish(),
    managedFields: z
      .array(z.object({ manager: z.string().nullish(), subresource: z.string().nullish(), time: z.string().nullish() }))
      .nullish(),
  }),
});
type History = z.infer<typeof historySchema>["metadata"];

/**
 * Whether `pool`, which was read from `object`, has had something left to do for 15 minutes while nothing moved: nobody
 * changed what it asks for, and its status stayed as it is. One that is deleted has 15 minutes in all.
 */
export function isStalled(pool: Pool, object: unknown, now: number): boolean {
  const history = historySchema.safeParse(object).data?.metadata;
  if (history === undefined || (isPaused(pool) && !pool.deleting) || !isUnsettled(pool)) return false;
  // Without a time that can be read this is NaN, and nothing is said.
  const movedAt = pool.deleting ? Date.parse(history.deletionTimestamp ?? "") : lastMoveOf(history);
  return now >= movedAt + STALLED_MS;
}

/** When the pool was made, or last changed by others, or its status by anybody. What passes note in its metadata is no move. */
function lastMoveOf({ creationTimestamp, managedFields }: History): number {
  const moves = (managedFields ?? []).filter(
    ({ manager, subresource }) => manager !== OWN_MANAGER || (subresource ?? "") !== "",
  );
  return Math.max(...[creationTimestamp, ...moves.map(({ time }) => time)].map((time) => Date.parse(time ?? "")));
}

/** Machines may follow another template than the one in force. */
function isRollingOut(pool: Pool, claim: Claim): boolean {
  const spec = poolSpecSchema.safeParse(pool.spec).data;
  if (spec === undefined || (pool.status?.replicas ?? 0) === 0) return false;
  return updateStrategyOf(spec) !== "unmanaged" && !isUpToDate(claim.rollout, pool, spec);
}
