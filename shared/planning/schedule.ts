/** When the schedule wakes a pool without being told of a change. */
import { type Claim, parseClaim } from "./claim.ts";
import { fnv1a } from "./hash.ts";
import { isRecord } from "./json.ts";
import { type Pool, poolSpecSchema } from "./model.ts";
import { CLAIM_ANNOTATION, HEALING_ANNOTATION } from "./names.ts";
import { SECOND_WRITER_CONDITION } from "./second-writer.ts";
import { isUpToDate, updateStrategyOf } from "./update.ts";

const MINUTE_MS = 60_000;
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
  if (isRecord(pool.spec) && pool.spec["paused"] === true) return false;
  if (pool.annotations?.[HEALING_ANNOTATION] !== undefined || isRollingOut(pool, claim)) return true;
  const replicas = isRecord(pool.spec) ? (pool.spec["replicas"] ?? 1) : 1;
  return (status?.replicas ?? 0) !== replicas || (status?.readyReplicas ?? 0) !== replicas;
}

/** Machines may follow another template than the one in force. */
function isRollingOut(pool: Pool, claim: Claim): boolean {
  const spec = poolSpecSchema.safeParse(pool.spec).data;
  if (spec === undefined || (pool.status?.replicas ?? 0) === 0) return false;
  return updateStrategyOf(spec) !== "unmanaged" && !isUpToDate(claim.rollout, spec);
}
