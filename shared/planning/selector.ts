/** Label selectors: parsing, matching and their canonical text. Source: metav1.LabelSelector. */
import * as z from "zod";
import type { Problem } from "./errors.ts";

export type Labels = Readonly<Record<string, string>>;

export const labelsSchema = z.record(z.string(), z.string());

export const labelSelectorSchema = z.strictObject({
  matchLabels: labelsSchema.nullish(),
  matchExpressions: z
    .array(z.strictObject({ key: z.string(), operator: z.string(), values: z.array(z.string()).nullish() }))
    .nullish(),
});
export type LabelSelector = z.infer<typeof labelSelectorSchema>;

/** One requirement in the form that matching and printing use; `values` are sorted. */
interface Requirement {
  readonly key: string;
  readonly operator: "Equals" | "In" | "NotIn" | "Exists" | "DoesNotExist";
  readonly values: readonly string[];
}

/** A selector that was found legal. */
export interface ParsedSelector {
  matches(labels: Labels): boolean;
  /** The form that the API's `labelSelector` parameter and `status.labelSelector` take; empty when everything matches. */
  readonly text: string;
}

const NAME = /^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)$/;
const PREFIX = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

/** Parses `selector`; the problems carry paths below `field`. */
export function parseSelector(
  selector: LabelSelector,
  field: string,
): { readonly parsed: ParsedSelector; readonly problems: readonly Problem[] } {
  const problems: Problem[] = [];
  const requirements: Requirement[] = [];
  for (const [key, value] of Object.entries(selector.matchLabels ?? {})) {
    requirements.push({ key, operator: "Equals", values: [value] });
    problems.push(
      ...keyProblems(key, `${field}.matchLabels`),
      ...valueProblems([value], `${field}.matchLabels.${key}`),
    );
  }
  for (const [index, { key, operator, values }] of (selector.matchExpressions ?? []).entries()) {
    const at = `${field}.matchExpressions[${index}]`;
    const sorted = [...(values ?? [])].sort();
    problems.push(...keyProblems(key, `${at}.key`), ...valueProblems(sorted, `${at}.values`));
    const parsed = parseOperator(operator, sorted, at);
    if (typeof parsed === "string") requirements.push({ key, operator: parsed, values: sorted });
    else problems.push(parsed);
  }
  requirements.sort((a, b) => compareText(a.key, b.key) || compareText(printed(a), printed(b)));
  return {
    parsed: {
      matches: (labels) => requirements.every((requirement) => holds(requirement, labels)),
      text: requirements.map(printed).join(","),
    },
    problems,
  };
}

/** Plain code-unit order, which does not depend on a locale. */
export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

function parseOperator(operator: string, values: readonly string[], at: string): Requirement["operator"] | Problem {
  switch (operator) {
    case "In":
    case "NotIn":
      if (values.length > 0) return operator;
      return { field: `${at}.values`, message: `must be specified when operator is ${operator}` };
    case "Exists":
    case "DoesNotExist":
      if (values.length === 0) return operator;
      return { field: `${at}.values`, message: `may not be specified when operator is ${operator}` };
    default:
      return {
        field: `${at}.operator`,
        message: `"${operator}" is not a valid label selector operator: write In, NotIn, Exists or DoesNotExist`,
      };
  }
}

function keyProblems(key: string, field: string): Problem[] {
  const slash = key.indexOf("/");
  const legal = slash === -1 ? NAME.test(key) : PREFIX.test(key.slice(0, slash)) && NAME.test(key.slice(slash + 1));
  return legal ? [] : [{ field, message: `"${key}" is not a valid label key` }];
}

function valueProblems(values: readonly string[], field: string): Problem[] {
  return values
    .filter((value) => value !== "" && !NAME.test(value))
    .map((value) => ({ field, message: `"${value}" is not a valid label value` }));
}

function holds({ key, operator, values }: Requirement, labels: Labels): boolean {
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
  switch (operator) {
    case "Equals":
    case "In":
      return value !== undefined && values.includes(value);
    case "NotIn":
      return value === undefined || !values.includes(value);
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
  }
}

function printed({ key, operator, values }: Requirement): string {
  switch (operator) {
    case "Equals":
      return `${key}=${values[0]}`;
    case "In":
      return `${key} in (${values.join(",")})`;
    case "NotIn":
      return `${key} notin (${values.join(",")})`;
    case "Exists":
      return key;
    case "DoesNotExist":
      return `!${key}`;
  }
}
