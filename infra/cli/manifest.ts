/** The pools of a manifest, and what a pool is like once it is edited to one. */
import { type Document, parseAllDocuments } from "yaml";
import * as z from "zod";
import { canonicalJson, isRecord } from "../../shared/planning/json.ts";
import { OBJECT_NAME, POOL_GROUP, POOL_KIND } from "../../shared/planning/names.ts";
import { CommandError } from "./errors.ts";

/** A pool as it stands in a manifest. */
export interface PoolManifest {
  readonly name: string;
  /** Undefined when the manifest leaves it to the command. */
  readonly namespace: string | undefined;
  readonly spec: unknown;
}

const objectSchema = z.looseObject({ apiVersion: z.string(), kind: z.string() });
const poolSchema = z.object({
  metadata: z.object({
    name: z.string().regex(OBJECT_NAME, "expected a name that Kubernetes allows"),
    namespace: z.string().regex(OBJECT_NAME, "expected a name that Kubernetes allows").nullish(),
  }),
  spec: z.unknown().optional(),
});

/** The pools of a YAML or JSON text, lists included; other objects beside them are left out. `source` names the text in errors. */
export function readPools(text: string, source: string): readonly PoolManifest[] {
  const objects = parseAllDocuments(text).flatMap((document) => {
    const [error] = document.errors;
    if (error !== undefined) throw notYaml(source, error);
    return flatten(objectOf(document, source), source);
  });
  const pools = objects.filter(isPool);
  if (pools.length === 0) {
    const kinds = [...new Set(objects.map(({ apiVersion, kind }) => `${kind} (${apiVersion})`))].join(", ");
    throw new CommandError(`${source} holds no ${POOL_KIND} of ${POOL_GROUP}: it holds ${kinds || "nothing"}`);
  }
  return pools.map((object) => {
    const parsed = poolSchema.safeParse(object);
    if (!parsed.success) {
      const [issue] = parsed.error.issues;
      throw new CommandError(`a pool of ${source} cannot be read: ${issue?.path.join(".")}: ${issue?.message}`);
    }
    const { metadata, spec } = parsed.data;
    return { name: metadata.name, namespace: metadata.namespace ?? undefined, spec };
  });
}

/** Throws where an alias has no anchor: that is only found when the value is made. */
function objectOf(document: Document, source: string): unknown {
  try {
    return document.toJS();
  } catch (error) {
    throw notYaml(source, error);
  }
}

function notYaml(source: string, error: unknown): CommandError {
  const message = error instanceof Error ? error.message : String(error);
  return new CommandError(`${source} is not YAML: ${message.split("\n")[0]}`);
}

type KubeObject = z.infer<typeof objectSchema>;

/** The objects of a document: itself, or what a list holds. */
function flatten(value: unknown, source: string): readonly KubeObject[] {
  if (value === null || value === undefined) return [];
  const parsed = objectSchema.safeParse(value);
  if (!parsed.success) throw new CommandError(`${source} is no manifest: a document of it has no apiVersion and kind`);
  const { kind, items } = parsed.data;
  if (!kind.endsWith("List") || !Array.isArray(items)) return [parsed.data];
  return items.flatMap((item) => flatten(item, source));
}

function isPool({ apiVersion, kind }: KubeObject): boolean {
  return kind === POOL_KIND && apiVersion.startsWith(`${POOL_GROUP}/`);
}

const liveSchema = z.looseObject({
  metadata: z.looseObject({ generation: z.int().nonnegative() }),
  spec: z.unknown().optional(),
});

/**
 * The pool as the API server would store it when its spec is replaced; a new one without `live`. Undefined when `live`
 * is not what the API promises. Its metadata, with the claim, stay as they are.
 */
export function editPool(
  { name, spec }: PoolManifest,
  { namespace, live }: { readonly namespace: string; readonly live: unknown },
): object | undefined {
  if (live === undefined) {
    return { metadata: { name, namespace, uid: "not-created-yet", resourceVersion: "0", generation: 1 }, spec };
  }
  const parsed = liveSchema.safeParse(live);
  if (!parsed.success) return undefined;
  const { metadata } = parsed.data;
  const isSame = canonicalJson(parsed.data.spec) === canonicalJson(spec);
  return { ...parsed.data, metadata: { ...metadata, generation: metadata.generation + (isSame ? 0 : 1) }, spec };
}

/** What a reader of the plan may not expect; empty when there is nothing. */
export function notesOf({ spec }: PoolManifest, live: unknown): readonly string[] {
  const now = isRecord(live) && isRecord(live["spec"]) ? live["spec"]["replicas"] : undefined;
  const isSaid = !isRecord(spec) || typeof spec["replicas"] === "number";
  if (isSaid || now === undefined || now === 1) return [];
  return [
    `the manifest does not say spec.replicas, which means 1; the pool asks for ${now} now, and kubectl apply keeps that where it was set by something else`,
  ];
}
