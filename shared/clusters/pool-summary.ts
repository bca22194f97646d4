/** What pools are, in short, from the pool objects alone. Reads clusters. */
import { type Claim, parseClaim } from "../planning/claim.ts";
import { recordOf } from "../planning/json.ts";
import type { Condition, Pool } from "../planning/model.ts";
import { CLAIM_ANNOTATION } from "../planning/names.ts";
import { isUpToDate, updateStrategyOf } from "../planning/update.ts";
import { judge } from "../planning/verdict.ts";
import { type Answer, type Cluster, poolsOf } from "./cluster.ts";

export interface PoolSummary {
  readonly namespace: string;
  readonly name: string;
  readonly generation: number;
  /** The generation that the last pass acted on; null when no pass has. */
  readonly observedGeneration: number | null;
  /** Machines that the pool asks for; null when its spec does not say it legibly. */
  readonly desired: number | null;
  /** As the pool's status has them; null before its first status. */
  readonly current: number | null;
  readonly ready: number | null;
  readonly paused: boolean;
  readonly deleting: boolean;
  readonly conditions: readonly Condition[];
  /**
   * Whether all machines were last seen to follow the template in force: `unknown` when no pass has looked at this
   * generation yet, `unmanaged` when they are to keep the one that they were made from.
   */
  readonly rollout: "complete" | "underway" | "unknown" | "unmanaged";
}

export function summarize(pool: Pool): PoolSummary {
  const { namespace, name, generation, deleting, status } = pool;
  const spec = recordOf(pool.spec);
  const replicas = spec["replicas"] ?? 1;
  const claim = parseClaim(pool.annotations?.[CLAIM_ANNOTATION]);
  return {
    namespace,
    name,
    generation,
    observedGeneration: claim?.generation ?? null,
    desired: typeof replicas === "number" ? replicas : null,
    current: status?.replicas ?? null,
    ready: status?.readyReplicas ?? null,
    paused: spec["paused"] === true,
    deleting,
    conditions: conditionsOf(pool),
    rollout: rolloutOf(pool, claim),
  };
}

/** Only the fields that are known. */
export function conditionsOf({ status }: Pool): readonly Condition[] {
  return (status?.conditions ?? []).map(({ type, status: value, lastTransitionTime, reason, message }) => ({
    type,
    status: value,
    lastTransitionTime,
    reason,
    message,
  }));
}

function rolloutOf(pool: Pool, claim: Claim | undefined): PoolSummary["rollout"] {
  const verdict = judge(pool);
  if (claim?.generation !== pool.generation || !verdict.legal) return "unknown";
  if (updateStrategyOf(verdict.spec) === "unmanaged") return "unmanaged";
  return pool.status?.replicas === 0 || isUpToDate(claim.rollout, pool, verdict.spec) ? "complete" : "underway";
}

/** The pools of a cluster, or of these namespaces of it. */
export async function listPools(
  cluster: Cluster,
  namespaces: readonly string[] | undefined,
): Promise<Answer<readonly unknown[]>> {
  const version = await cluster.poolVersion();
  if (!version.ok) return version;
  const places = namespaces?.map((namespace) => ({ namespace })) ?? [{}];
  const lists = await Promise.all(places.map((place) => cluster.list(poolsOf(version.value), place)));
  const pools: unknown[] = [];
  for (const list of lists) {
    if (!list.ok) return list;
    for (const pool of list.value) pools.push(pool);
  }
  return { ok: true, value: pools, serverTimeMs: undefined };
}
