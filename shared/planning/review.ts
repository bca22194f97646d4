/** Judges a create or update of a pool before it is stored, with the rules that guard the pass. */
import * as z from "zod";
import { describeProblems, type Problem } from "./errors.ts";
import { canonicalJson, recordOf } from "./json.ts";
import { type PoolSpec, poolSpecSchema } from "./model.ts";
import { templateHash } from "./template-change.ts";
import { judge, nameProblems } from "./verdict.ts";

export interface ReviewVerdict {
  readonly refusal?: { readonly message: string; readonly causes: readonly Problem[] };
}

const reviewedSchema = z.object({
  metadata: z.object({
    name: z.string().optional(),
    generateName: z.string().optional(),
    generation: z.int().nonnegative().optional(),
    deletionTimestamp: z.string().optional(),
  }),
  spec: z.unknown().optional(),
});

/** A pool on its way out is never refused: rules that became stricter must not keep its finalizer from being dropped. */
export function judgeReview(object: unknown, oldObject: unknown): ReviewVerdict {
  const parsed = reviewedSchema.safeParse(object);
  if (!parsed.success) return refuse([{ field: "metadata", message: "is not what the API promises" }]);
  const { metadata, spec } = parsed.data;
  if (metadata.deletionTimestamp !== undefined) return {};
  const name = metadata.name ?? metadata.generateName ?? "";
  const oldSpec = recordOf(oldObject)["spec"];
  const verdict = judge({ name, spec });
  const problems = [
    ...(verdict.legal ? [] : verdict.problems),
    ...selectorChange(spec, oldSpec),
    ...(verdict.legal && isNewTemplate(verdict.spec, oldSpec) ? nameProblems(name, metadata.generation ?? 1) : []),
  ];
  return problems.length === 0 ? {} : refuse(problems);
}

function selectorChange(spec: unknown, oldSpec: unknown): Problem[] {
  if (oldSpec === undefined || selectorOf(oldSpec) === selectorOf(spec)) return [];
  return [{ field: "spec.selector", message: "selector is immutable after creation." }];
}

/** Machines of another template name another revision, whose name has the generation in it. */
function isNewTemplate(spec: PoolSpec, oldSpec: unknown): boolean {
  const before = poolSpecSchema.safeParse(oldSpec).data;
  return before !== undefined && templateHash(before) !== templateHash(spec);
}

function selectorOf(spec: unknown): string {
  return canonicalJson(recordOf(spec)["selector"]);
}

function refuse(causes: readonly Problem[]): ReviewVerdict {
  return { refusal: { message: describeProblems(causes), causes } };
}
