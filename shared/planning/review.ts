/** Judges a create or update of a pool before it is stored, with the rules that guard the pass. */
import * as z from "zod";
import { warningsOf } from "./advice.ts";
import { describeProblems, type Problem } from "./errors.ts";
import { canonicalJson, flawOf, isRecord, recordOf } from "./json.ts";
import { type PoolSpec, poolSpecSchema } from "./model.ts";
import { describeSelector, labelSelectorSchema, parseSelector } from "./selector.ts";
import { templateHash } from "./template-change.ts";
import { judge, nameProblems } from "./verdict.ts";

export interface ReviewVerdict {
  readonly refusal?: { readonly message: string; readonly causes: readonly Problem[] };
  /** What is legal and yet probably not meant; kubectl prints them. */
  readonly warnings?: readonly string[];
}

const reviewedSchema = z.object({
  metadata: z.object({
    name: z.string().optional(),
    generateName: z.string().optional(),
    generation: z.int().nonnegative().optional(),
  }),
  spec: z.unknown().optional(),
});

/**
 * `oldObject` is undefined for a create. An update that leaves the spec as it is, is never refused: rules that became
 * stricter must not keep finalizers from being dropped, of a pool on its way out least of all.
 */
export function judgeReview(object: unknown, oldObject: unknown): ReviewVerdict {
  const parsed = reviewedSchema.safeParse(object);
  if (!parsed.success) return refuse([{ field: "metadata", message: "is not what the API promises" }]);
  const { metadata, spec } = parsed.data;
  if (oldObject !== undefined && !isRecord(oldObject)) return refuse([OLD_POOL_MISSING]);
  const oldSpec = oldObject?.["spec"];
  if (oldObject !== undefined && canonicalJson(oldSpec) === canonicalJson(spec)) return {};
  const name = metadata.name || generatedName(metadata.generateName ?? "");
  const verdict = judge({ name, spec });
  const problems = [
    ...(verdict.legal ? [] : verdict.problems),
    ...(oldObject === undefined ? [] : selectorChange(spec, oldObject)),
    ...(verdict.legal && isNewTemplate(verdict.spec, oldSpec) ? nameProblems(name, metadata.generation ?? 1) : []),
  ];
  return problems.length === 0 ? { warnings: warningsOf(verdict) } : refuse(problems);
}

const OLD_POOL_MISSING: Problem = {
  field: "",
  message: "could not fetch the old pool: an update is reviewed with oldObject, by which the selector is compared",
};

/** What the API server makes of `generateName`: its beginning, and five characters that are not known yet. */
function generatedName(prefix: string): string {
  return `${prefix.slice(0, 58)}?????`;
}

/**
 * The selector says which machines are the pool's: with another one it would let go of those that it has. One that cannot be
 * read, stored while nobody judged it, has none and may be mended, into the one that was last in force if there was one.
 */
function selectorChange(spec: unknown, { spec: oldSpec, status }: Readonly<Record<string, unknown>>): Problem[] {
  const [before, after] = [selectorOf(oldSpec), selectorOf(spec)];
  const last = before ?? recordOf(status)["labelSelector"];
  const isFree = before === undefined && (after === undefined || typeof last !== "string" || last === "");
  if (isFree || last === after) return [];
  const kept = JSON.stringify(describeSelector(String(last)));
  const message = `selector is immutable after creation: keep ${kept}, or make another pool`;
  return [{ field: "spec.selector", message }];
}

/** Machines of another template name another revision, whose name has the generation in it. */
function isNewTemplate(spec: PoolSpec, oldSpec: unknown): boolean {
  const before = poolSpecSchema.safeParse(oldSpec).data;
  return before !== undefined && templateHash(before) !== templateHash(spec);
}

/** Two selectors of one text ask for the same labels, in whatever order they are written; undefined for one that cannot be read. */
function selectorOf(spec: unknown): string | undefined {
  const written = recordOf(spec)["selector"];
  const read = flawOf(written) === undefined ? labelSelectorSchema.safeParse(written).data : undefined;
  const parsed = read && parseSelector(read, "");
  return parsed?.problems.length === 0 ? parsed.parsed.text : undefined;
}

function refuse(causes: readonly Problem[]): ReviewVerdict {
  return { refusal: { message: describeProblems(causes), causes } };
}
