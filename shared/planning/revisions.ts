/** ControllerRevisions: which one a new machine is made from, and when one of that name can be trusted. */
import { fnv1a } from "./hash.ts";
import { canonicalJson, isRecord } from "./json.ts";
import type { Pool, Revision } from "./model.ts";
import { revisionName } from "./names.ts";
import { ownerReferenceTo } from "./template.ts";

export type RevisionChoice = { readonly name: string; readonly create: boolean };

/**
 * Names the revision of the pool's generation, as the reference does. A leftover of an earlier pool under that name is not
 * trusted: then the name gets a suffix from the pool's UID, which no other pool shares.
 */
export function chooseRevision(pool: Pool, existing: Revision | undefined): RevisionChoice {
  const name = revisionName(pool.name, pool.generation);
  if (existing === undefined) return { name, create: true };
  if (existing.ownerUid === pool.uid && isSameTemplate(existing.data, pool.spec)) return { name, create: false };
  return { name: `${name}-${fnv1a(pool.uid).slice(0, 8)}`, create: true };
}

/** The revision as it is created: its data are the complete spec of the pool. */
export function buildRevision(pool: Pool, poolApiVersion: string, name: string) {
  return {
    apiVersion: "apps/v1",
    kind: "ControllerRevision",
    metadata: { name, namespace: pool.namespace, ownerReferences: [ownerReferenceTo(pool, poolApiVersion)] },
    revision: pool.generation,
    data: pool.spec,
  };
}

/** Whether two specs make the same machines: only the template and the naming count. */
function isSameTemplate(a: unknown, b: unknown): boolean {
  return (["virtualMachineTemplate", "nameGeneration"] as const).every(
    (field) => canonicalJson(property(a, field)) === canonicalJson(property(b, field)),
  );
}

function property(value: unknown, key: string): unknown {
  return isRecord(value) ? value[key] : undefined;
}
