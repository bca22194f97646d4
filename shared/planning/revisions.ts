/** ControllerRevisions: which one machines are made from, and when one of that name can be trusted. */
import { fnv1a } from "./hash.ts";
import type { Pool, PoolSpec, Revision } from "./model.ts";
import { LABEL_VALUE_LENGTH_MAX, revisionName } from "./names.ts";
import { ownerReferenceTo } from "./template.ts";
import { templateHash } from "./template-change.ts";

/** What was read of revisions, by name. */
export type KnownRevisions = ReadonlyMap<string, Revision | "absent">;

export type RevisionChoice =
  /** Read these first. */
  | { readonly kind: "unread"; readonly names: readonly string[] }
  | { readonly kind: "existing" | "missing"; readonly name: string }
  | { readonly kind: "blocked"; readonly why: string };

/**
 * The revision for the pool's template: one of `preferred` if its content is the same, so that machines of one template
 * share a revision; else the one of the pool's generation, as the reference names it. A leftover of an earlier pool under
 * that name is not trusted: then the name gets a suffix from the pool's UID, which no other pool shares. `recorded` is known
 * to have the template, though it may be read another way by now.
 */
export function chooseRevision(
  pool: Pool,
  spec: PoolSpec,
  {
    known,
    preferred,
    recorded,
  }: {
    readonly known: KnownRevisions;
    readonly preferred: readonly string[];
    readonly recorded?: string | undefined;
  },
): RevisionChoice {
  const template = templateHash(spec);
  const holds = (name: string) => {
    const revision = ownRevision(pool, known, name);
    return revision?.spec !== undefined && (name === recorded || templateHash(revision.spec) === template);
  };
  const unread = preferred.filter((name) => !known.has(name));
  if (unread.length > 0) return { kind: "unread", names: unread };
  const ownName = revisionName(pool.name, pool.generation);
  const suffixed = `${ownName}-${fnv1a(pool.uid).slice(0, 8)}`;
  const found = [...preferred, ownName, suffixed].find(holds);
  if (found !== undefined) return { kind: "existing", name: found };
  for (const name of [ownName, suffixed]) {
    if (name.length > LABEL_VALUE_LENGTH_MAX && name === ownName) return { kind: "blocked", why: describeLength(name) };
    if (name.length > LABEL_VALUE_LENGTH_MAX) break;
    if (!known.has(name)) return { kind: "unread", names: [name] };
    if (known.get(name) === "absent") return { kind: "missing", name };
  }
  const why = `the name of ControllerRevision ${ownName} is taken by one that is not this pool's, or not of this template: delete that one`;
  return { kind: "blocked", why };
}

function describeLength(name: string): string {
  return `ControllerRevision ${name} would have a name of more than ${LABEL_VALUE_LENGTH_MAX} characters, and machines name it in a label: make the pool anew under a shorter name`;
}

/** A revision that this pool made; undefined when it is absent, was not read, or is another's. */
export function ownRevision(pool: Pool, known: KnownRevisions, name: string): Revision | undefined {
  const revision = known.get(name);
  return typeof revision === "object" && revision.ownerUid === pool.uid ? revision : undefined;
}

/** How a pool makes names of ordinals, in a short form for the claim. */
export function namingOf({ nameGeneration }: PoolSpec): string {
  const configMaps = nameGeneration?.appendIndexToConfigMapRefs === true;
  const secrets = nameGeneration?.appendIndexToSecretRefs === true;
  return [configMaps ? "configMaps" : "", secrets ? "secrets" : ""].join("+");
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
