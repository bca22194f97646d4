/** Judges a pool's spec: legal, or the list of what is wrong with it. The admission webhook and the pass use the same rules. */
import type * as z from "zod";
import type { Problem } from "./errors.ts";
import { type Pool, type PoolSpec, poolSpecSchema } from "./model.ts";
import { LABEL_VALUE_LENGTH_MAX, revisionName } from "./names.ts";
import { selectorsProblems } from "./selection.ts";
import { type ParsedSelector, parseSelector } from "./selector.ts";

/** How many problems of one pool are told. */
const PROBLEMS_MAX = 20;

export type Verdict =
  | { readonly legal: true; readonly spec: PoolSpec; readonly selector: ParsedSelector }
  | { readonly legal: false; readonly problems: readonly Problem[] };

/** Of later generations only those count that machines are made from: see `chooseRevision`. */
const FIRST_GENERATION = 1;

/** Says whether the pool may be acted on; never throws, whatever the spec holds. */
export function judge(pool: Pick<Pool, "name" | "spec">): Verdict {
  const shape = poolSpecSchema.safeParse(pool.spec);
  if (!shape.success) return { legal: false, problems: shapeProblems(shape.error) };
  const spec = shape.data;
  const selector = parseSelector(spec.selector, "spec.selector");
  const problems = [
    ...nameProblems(pool.name, FIRST_GENERATION),
    ...selector.problems,
    ...(selector.problems.length === 0 ? membershipProblems(spec, selector.parsed) : []),
    ...maxUnavailableProblems(spec.maxUnavailable),
    ...strategyProblems(spec.updateStrategy, "spec.updateStrategy"),
    ...strategyProblems(spec.scaleInStrategy, "spec.scaleInStrategy"),
    ...policyProblems(spec.updateStrategy, "spec.updateStrategy"),
    ...policyProblems(spec.scaleInStrategy, "spec.scaleInStrategy"),
  ];
  if (problems.length > 0) return { legal: false, problems: problems.slice(0, PROBLEMS_MAX) };
  return { legal: true, spec, selector: selector.parsed };
}

function shapeProblems(error: z.ZodError): Problem[] {
  return error.issues.slice(0, PROBLEMS_MAX).map(({ path, message }) => ({
    field: ["spec", ...path].map(String).join("."),
    message,
  }));
}

/** The name of a generation's revision becomes a label value, which has a length limit. */
export function nameProblems(name: string, generation: number): Problem[] {
  const excess = revisionName(name, generation).length - LABEL_VALUE_LENGTH_MAX;
  if (excess <= 0) return [];
  const message = `"${name}" is ${excess} characters too long: <name>-<generation> must fit a label value of ${LABEL_VALUE_LENGTH_MAX} characters; use a shorter name`;
  return [{ field: "metadata.name", message }];
}

function membershipProblems(spec: PoolSpec, selector: ParsedSelector): Problem[] {
  const labels = spec.virtualMachineTemplate.metadata?.labels ?? {};
  const empty = Object.keys(labels).length === 0;
  if (!empty && selector.matches(labels)) return [];
  const shown = empty ? "are empty" : `are ${JSON.stringify(labels)}`;
  const message = `selector "${selector.text}" does not match spec.virtualMachineTemplate.metadata.labels, which ${shown}; give the template the labels that the selector asks for`;
  return [{ field: "spec.selector", message }];
}

function maxUnavailableProblems(value: PoolSpec["maxUnavailable"]): Problem[] {
  const problem = (message: string) => [{ field: "spec.maxUnavailable", message }];
  if (value === undefined || value === null) return [];
  if (typeof value === "number") return value > 0 ? [] : problem("maxUnavailable must be greater than 0");
  if (!value.endsWith("%")) return problem("maxUnavailable percentage must end with %");
  const digits = value.slice(0, -1);
  if (!/^[+-]?\d{1,9}$/.test(digits)) return problem(`maxUnavailable percentage value "${digits}" is not an integer`);
  const percent = Number(digits);
  if (percent >= 1 && percent <= 100) return [];
  return problem(`maxUnavailable percentage value ${percent} must be between 1 and 100`);
}

const STRATEGIES = ["unmanaged", "opportunistic", "proactive"] as const;

function strategyProblems(
  strategy: Partial<Record<(typeof STRATEGIES)[number], unknown>> | null | undefined,
  field: string,
): Problem[] {
  const found = STRATEGIES.filter((name) => strategy?.[name] !== undefined && strategy[name] !== null);
  if (found.length < 2) return [];
  return [
    { field, message: `only one strategy can be configured at a time: but found ${found.join(", ")} strategies` },
  ];
}

function policyProblems(
  strategy: PoolSpec["updateStrategy"] | PoolSpec["scaleInStrategy"],
  field: string,
): readonly Problem[] {
  return selectorsProblems(
    strategy?.proactive?.selectionPolicy?.selectors,
    `${field}.proactive.selectionPolicy.selectors`,
  );
}
