/** The scale subresource of a pool (autoscaling/v1): reads what clients send, and sends it to the cluster. Judges nothing beyond its form. */
import * as z from "zod";
import { describeProblems, type Problem } from "../planning/errors.ts";
import { parseJson } from "../planning/json.ts";
import { REPLICAS_MAX } from "../planning/scale-request.ts";
import { quoted, shorten, shownValue } from "../planning/wording.ts";
import type {
  Answer,
  Cluster,
  JsonPatchOperation,
  ObjectPlace,
  Patch,
  ResourceType,
  ScalableCluster,
} from "./cluster.ts";
import { type KubernetesStatus, statusObject } from "./kubernetes-status.ts";

const OPERATIONS_MAX = 20;
const MESSAGE_LENGTH_MAX = 200;
const REPLICAS_PATH = "/spec/replicas";
const VERSION_PATH = "/metadata/resourceVersion";

/** A Scale as the API server sends it, which leaves out zeros. */
const scaleSchema = z.object({
  metadata: z.looseObject({ name: z.string(), namespace: z.string(), resourceVersion: z.string() }),
  spec: z.object({ replicas: z.int().default(0) }).prefault({}),
  status: z.object({ replicas: z.int().default(0), selector: z.string().optional() }).prefault({}),
});
/** How many machines a pool asks for and has; zeros included. */
export type Scale = z.infer<typeof scaleSchema>;

/** What a client wants to be done to the scale of a pool. */
export type ScaleChange =
  | { readonly kind: "replace"; readonly object: object }
  | { readonly kind: "patch"; readonly patch: Patch };

export type ReadChange =
  | { readonly ok: true; readonly change: ScaleChange }
  | { readonly ok: false; readonly status: KubernetesStatus };

/** The scale of one pool of a cluster. */
export interface ScaleTarget {
  readonly pools: ResourceType;
  readonly place: ObjectPlace;
}

export async function fetchScale(cluster: Cluster, { pools, place }: ScaleTarget): Promise<Answer<Scale>> {
  return asScale(await cluster.get(pools, place, "scale"));
}

export async function applyScale(
  cluster: ScalableCluster,
  { pools, place }: ScaleTarget,
  change: ScaleChange,
): Promise<Answer<Scale>> {
  const answer =
    change.kind === "replace"
      ? await cluster.replace(pools, place, change.object, "scale")
      : await cluster.patch(pools, place, change.patch, "scale");
  return asScale(answer);
}

function asScale(answer: Answer<unknown>): Answer<Scale> {
  if (!answer.ok) return answer;
  const parsed = scaleSchema.safeParse(answer.value);
  if (parsed.success) return { ...answer, value: parsed.data };
  const message = "the cluster's answer is not a Scale";
  return {
    ok: false,
    failure: { kind: "garbled", status: undefined, definite: false, retryAfterMs: undefined, message },
  };
}

/** The whole object, as clients of autoscaling/v1 expect it. */
export function formatScale({ metadata, spec, status }: Scale): object {
  return { kind: "Scale", apiVersion: "autoscaling/v1", metadata, spec, status };
}

const replicasSchema = z.int().min(0).max(REPLICAS_MAX);
/** Of the metadata, only what identifies the object and its state; the API server ignores the rest. */
const metadataSchema = z.object({
  name: z.string().optional(),
  namespace: z.string().optional(),
  uid: z.string().optional(),
  resourceVersion: z.string().nullish(),
});
const versionSchema = z.object({
  apiVersion: z.literal("autoscaling/v1").optional(),
  kind: z.literal("Scale").optional(),
});
/** Go's clients leave out a zero, so a Scale without `spec.replicas` asks for none; one without `spec` is a mistake. */
const replacementSchema = versionSchema.extend({
  metadata: metadataSchema.prefault({}),
  spec: z.strictObject({ replicas: replicasSchema.default(0) }),
});
/** Null would remove the field, which the API server takes for 0: that has to be said as 0. */
const mergeSchema = versionSchema.extend({
  metadata: metadataSchema.prefault({}),
  spec: z.strictObject({ replicas: replicasSchema.optional() }).optional(),
});
const operationSchema = z.object({ op: z.string(), path: z.string(), value: z.unknown().optional() });

/** Reads the body of a PUT, which replaces the object. */
export function readReplacement(body: Buffer, { namespace, name }: ObjectPlace): ReadChange {
  return readBodyAs(body, (value) => {
    const parsed = replacementSchema.safeParse(value);
    if (!parsed.success) return invalid(name, problemsOf(parsed.error));
    const metadata = { name, namespace, ...withoutNull(parsed.data.metadata) };
    const { spec } = parsed.data;
    return accept({ kind: "replace", object: { kind: "Scale", apiVersion: "autoscaling/v1", metadata, spec } });
  });
}

/** Reads a merge patch (RFC 7396). */
export function readMergePatch(body: Buffer, { name }: ObjectPlace): ReadChange {
  return readBodyAs(body, (value) => {
    const parsed = mergeSchema.safeParse(value);
    if (!parsed.success) return invalid(name, problemsOf(parsed.error));
    const { metadata, spec = {} } = parsed.data;
    const patch: Patch = { type: "merge", body: { metadata: withoutNull(metadata), spec } };
    return accept({ kind: "patch", patch });
  });
}

/** Reads a JSON patch (RFC 6902) of `spec.replicas`, with tests and, if wanted, the resourceVersion that it is for. */
export function readJsonPatch(body: Buffer, { name }: ObjectPlace): ReadChange {
  return readBodyAs(body, (value) => {
    const parsed = z.array(operationSchema).min(1).max(OPERATIONS_MAX).safeParse(value);
    if (!parsed.success) return invalid(name, problemsOf(parsed.error));
    const read = parsed.data.map(readOperation);
    const problems = read.flatMap((entry, index) => (typeof entry === "string" ? [problemAt(index, entry)] : []));
    if (problems.length > 0) return invalid(name, problems);
    const operations = read.filter((entry) => typeof entry !== "string");
    return accept({ kind: "patch", patch: { type: "json", operations } });
  });
}

/** The operation as the cluster understands it, or what is wrong with it. The API server's own Scale has no zeros, ours does. */
function readOperation({ op, path, value }: z.output<typeof operationSchema>): JsonPatchOperation | string {
  if (op === "test") return { op, path, value: path === REPLICAS_PATH && value === 0 ? null : value };
  if (op !== "add" && op !== "replace") return `op is ${quoted(op)}: write test, add or replace`;
  if (path === VERSION_PATH) return typeof value === "string" ? { op, path, value } : "value has to be a text";
  if (path !== REPLICAS_PATH)
    return `path is ${quoted(path)}: only ${REPLICAS_PATH} and ${VERSION_PATH} can be written`;
  const replicas = replicasSchema.safeParse(value);
  return replicas.success ? { op: "add", path, value: replicas.data } : describeReplicas(value);
}

function readBodyAs(body: Buffer, read: (value: unknown) => ReadChange): ReadChange {
  const value = parseJson(body.toString("utf8"));
  return value === undefined ? refuse(statusObject("BadRequest", "the body is not JSON")) : read(value);
}

function problemsOf(error: z.ZodError): readonly Problem[] {
  return error.issues.slice(0, OPERATIONS_MAX).map(({ path, message }) => ({
    field: path.map(String).join(".") || "body",
    message: shorten(message, MESSAGE_LENGTH_MAX),
  }));
}

function problemAt(index: number, message: string): Problem {
  return { field: String(index), message };
}

function describeReplicas(value: unknown): string {
  return `value is ${shownValue(value)}: write a whole number from 0 to ${REPLICAS_MAX}`;
}

function withoutNull(metadata: z.output<typeof metadataSchema>): object {
  return Object.fromEntries(Object.entries(metadata).filter(([, value]) => value !== null && value !== undefined));
}

function invalid(name: string, problems: readonly Problem[]): ReadChange {
  return refuse(statusObject("Invalid", `Scale.autoscaling "${name}" is invalid: ${describeProblems(problems)}`));
}

function accept(change: ScaleChange): ReadChange {
  return { ok: true, change };
}

function refuse(status: KubernetesStatus): ReadChange {
  return { ok: false, status };
}
