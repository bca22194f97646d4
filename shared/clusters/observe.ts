/** Reads what a pass decides on: the pool first, its machines after it, and more only when the plan asks. Writes nothing. */
import type { Ledger } from "../planning/claim.ts";
import { type Pool, parsePool, parseRevision, parseVm, type Revision, type Vm } from "../planning/model.ts";
import { revisionName } from "../planning/names.ts";
import type { Limits, Need, Observation, Plan } from "../planning/plan.ts";
import { planPass } from "../planning/plan.ts";
import { judge, type Verdict } from "../planning/verdict.ts";
import type { ApiFailure, Cluster } from "./cluster.ts";
import { CONTROLLER_REVISIONS, poolsOf, VIRTUAL_MACHINES } from "./cluster.ts";

/** One pool of one cluster. */
export interface PoolPlace {
  readonly namespace: string;
  readonly name: string;
}

export interface LookOptions {
  /** Read the metadata of all VMs of the namespace whether or not the plan needs them: finds what labels hide. */
  readonly wide: boolean;
  readonly ledger: Ledger;
  readonly limits: Limits;
  /** Used when the server sends no date. */
  readonly now: () => number;
}

export type Look =
  | { readonly kind: "planned"; readonly seen: Observation; readonly plan: Plan; readonly poolVersion: string }
  | { readonly kind: "gone" }
  /** Half a picture never leads to a write. */
  | { readonly kind: "unreadable"; readonly what: string; readonly failure: ApiFailure };

/** Observes and plans; where the plan needs to know more, reads that and plans again. */
export async function lookAt(cluster: Cluster, place: PoolPlace, options: LookOptions): Promise<Look> {
  const version = await cluster.poolVersion();
  if (!version.ok) return { kind: "unreadable", what: "API discovery", failure: version.failure };
  const read = await cluster.get(poolsOf(version.value), place);
  if (!read.ok) {
    if (read.failure.kind === "notFound") return { kind: "gone" };
    return { kind: "unreadable", what: "the pool", failure: read.failure };
  }
  const pool = parsePool(read.value);
  if (pool === undefined) return unreadable("the pool", "its metadata are not what the API promises");
  const now = read.serverTimeMs ?? options.now();
  const verdict = judge(pool);
  const base = await observeMachines(cluster, { pool, verdict, wide: options.wide });
  if (base.kind !== "read") return base;
  const seen: Observation = { now, pool, verdict, revision: undefined, ledger: options.ledger, ...base.value };
  return planWithNeeds(cluster, { seen, limits: options.limits, poolVersion: version.value });
}

type Read<T> = { readonly kind: "read"; readonly value: T } | Extract<Look, { kind: "unreadable" }>;

async function observeMachines(
  cluster: Cluster,
  { pool, verdict, wide }: { pool: Pool; verdict: Verdict; wide: boolean },
): Promise<Read<Pick<Observation, "selected" | "namespaceVms">>> {
  const selectable = verdict.legal && !pool.deleting;
  const [selected, namespaceVms] = await Promise.all([
    selectable ? listVms(cluster, pool, { labelSelector: verdict.selector.text }) : none(),
    pool.deleting || (selectable && wide) ? listVms(cluster, pool, { metadataOnly: true }) : none(),
  ]);
  if (selected.kind !== "read") return selected;
  if (namespaceVms.kind !== "read") return namespaceVms;
  return { kind: "read", value: { selected: selected.value ?? [], namespaceVms: namespaceVms.value } };
}

interface PlanningStep {
  readonly seen: Observation;
  readonly limits: Limits;
  readonly poolVersion: string;
}

async function planWithNeeds(cluster: Cluster, { seen, limits, poolVersion }: PlanningStep): Promise<Look> {
  const plan = planPass(seen, limits);
  if (plan.needs.length === 0) return { kind: "planned", seen, plan, poolVersion };
  const more = await observeNeeds(cluster, seen, plan.needs);
  if (more.kind !== "read") return more;
  // Needs only grow by what is now read, of which there are two kinds: the recursion ends.
  return planWithNeeds(cluster, { seen: { ...seen, ...more.value }, limits, poolVersion });
}

async function observeNeeds(
  cluster: Cluster,
  { pool }: Observation,
  needs: readonly Need[],
): Promise<Read<Partial<Observation>>> {
  const [namespaceVms, revision] = await Promise.all([
    needs.includes("namespaceVms") ? listVms(cluster, pool, { metadataOnly: true }) : none(),
    needs.includes("revision") ? readRevision(cluster, pool) : none(),
  ]);
  if (namespaceVms.kind !== "read") return namespaceVms;
  if (revision.kind !== "read") return revision;
  return {
    kind: "read",
    value: {
      ...(namespaceVms.value === undefined ? {} : { namespaceVms: namespaceVms.value }),
      ...(revision.value === undefined ? {} : { revision: revision.value }),
    },
  };
}

async function listVms(
  cluster: Cluster,
  pool: Pool,
  options: { labelSelector?: string; metadataOnly?: boolean },
): Promise<Read<readonly Vm[]>> {
  const answer = await cluster.list(VIRTUAL_MACHINES, { namespace: pool.namespace }, options);
  if (!answer.ok) return { kind: "unreadable", what: "the list of VMs", failure: answer.failure };
  const vms: Vm[] = [];
  for (const item of answer.value) {
    const vm = parseVm(item, pool.name);
    if (vm === undefined) return unreadable("the list of VMs", "a VM's metadata are not what the API promises");
    vms.push(vm);
  }
  return { kind: "read", value: vms };
}

async function readRevision(cluster: Cluster, pool: Pool): Promise<Read<Revision | "absent">> {
  const name = revisionName(pool.name, pool.generation);
  const answer = await cluster.get(CONTROLLER_REVISIONS, { namespace: pool.namespace, name });
  if (!answer.ok) {
    if (answer.failure.kind === "notFound") return { kind: "read", value: "absent" };
    return { kind: "unreadable", what: `revision ${name}`, failure: answer.failure };
  }
  const revision = parseRevision(answer.value);
  if (revision === undefined) return unreadable(`revision ${name}`, "its metadata are not what the API promises");
  return { kind: "read", value: revision };
}

function none(): Read<undefined> {
  return { kind: "read", value: undefined };
}

function unreadable(what: string, message: string): Extract<Look, { kind: "unreadable" }> {
  const failure = { kind: "garbled", status: undefined, definite: true, retryAfterMs: undefined, message } as const;
  return { kind: "unreadable", what, failure };
}
