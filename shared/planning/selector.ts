/** Label selectors and node selector requirements: parsing, matching, canonical text. Source: metav1.LabelSelector, core/v1. */
import * as z from "zod";
import type { Problem } from "./errors.ts";
import { listed, pathStep, quoted, shorten } from "./wording.ts";

export type Labels = Readonly<Record<string, string>>;

export const labelsSchema = z.record(z.string(), z.string());

/** A requirement as a user writes it, of labels or of nodes. Source: metav1.LabelSelectorRequirement, core/v1 NodeSelectorRequirement. */
export const requirementSchema = z.strictObject({
  key: z.string(),
  operator: z.string(),
  values: z.array(z.string()).nullish(),
});
type WrittenRequirement = z.infer<typeof requirementSchema>;

export const labelSelectorSchema = z.strictObject({
  matchLabels: labelsSchema.nullish(),
  matchExpressions: z.array(requirementSchema).nullish(),
});
export type LabelSelector = z.infer<typeof labelSelectorSchema>;

/** One requirement in the form that matching and printing use; `values` are sorted. */
interface Requirement {
  readonly key: string;
  readonly operator: "Equals" | "In" | "NotIn" | "Exists" | "DoesNotExist";
  readonly values: readonly string[];
}

/** The two operators that only node selector requirements have: one whole number is compared. */
interface Comparison {
  readonly key: string;
  readonly operator: "Gt" | "Lt";
  readonly values: readonly string[];
}

/** A selector that was found legal. */
export interface ParsedSelector {
  matches(labels: Labels): boolean;
  /** The form that the API's `labelSelector` parameter and `status.labelSelector` take; empty when everything matches. */
  readonly text: string;
}

/** The largest number that the API compares: an int64. */
const INTEGER_MAX = 9_223_372_036_854_775_807n;
const NAME = /^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)$/;
const LABEL_FORM = 'write at most 63 letters, digits, "-", "_" and ".", the first and the last no sign';
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
      ...valueProblems([value], `${field}.matchLabels.${pathStep(key)}`),
    );
  }
  for (const [index, { key, operator, values }] of (selector.matchExpressions ?? []).entries()) {
    const at = `${field}.matchExpressions[${index}]`;
    const sorted = [...(values ?? [])].sort();
    problems.push(...keyProblems(key, `${at}.key`), ...valueProblems(sorted, `${at}.values`));
    const parsed = parseOperator({ operator, values: sorted, at }, "In, NotIn, Exists or DoesNotExist");
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

/** Parses requirements that all have to hold; none holds for everything. The problems carry paths below `field`. */
export function parseNodeRequirements(
  requirements: readonly WrittenRequirement[],
  field: string,
): { readonly parsed: Pick<ParsedSelector, "matches">; readonly problems: readonly Problem[] } {
  const problems: Problem[] = [];
  const legal: (Requirement | Comparison)[] = [];
  for (const [index, { key, operator, values }] of requirements.entries()) {
    const at = `${field}[${index}]`;
    const given = values ?? [];
    problems.push(...keyProblems(key, `${at}.key`));
    if (operator === "Gt" || operator === "Lt") {
      problems.push(...integerProblems(operator, given, `${at}.values`));
      legal.push({ key, operator, values: given });
      continue;
    }
    problems.push(...valueProblems(given, `${at}.values`));
    const parsed = parseOperator({ operator, values: given, at }, "In, NotIn, Exists, DoesNotExist, Gt or Lt");
    if (typeof parsed === "string") legal.push({ key, operator: parsed, values: given });
    else problems.push(parsed);
  }
  return { parsed: { matches: (labels) => legal.every((requirement) => holds(requirement, labels)) }, problems };
}

/** How many labels a message shows. */
const LABELS_SHOWN_MAX = 10;

/** Labels for a message, and of those that no label can be only that they are there. */
export function describeLabels(labels: Labels): string {
  const entries = Object.entries(labels).map(([key, value]) => {
    return `${quoted(key)}:${value === "" || NAME.test(value) ? JSON.stringify(value) : "…"}`;
  });
  return `{${listed(entries, LABELS_SHOWN_MAX)}}`;
}

const TEXT_SHOWN_MAX = 200;

/** A selector's text for a message. */
export function describeSelector(text: string): string {
  return shorten(text, TEXT_SHOWN_MAX);
}

/** Plain code-unit order, which does not depend on a locale. */
export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

interface Written {
  readonly operator: string;
  readonly values: readonly string[];
  /** Where it was written. */
  readonly at: string;
}

/** `accepted` says which operators may be written here. */
function parseOperator({ operator, values, at }: Written, accepted: string): Requirement["operator"] | Problem {
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
        message: `${quoted(operator)} is not a valid label selector operator: write ${accepted}`,
      };
  }
}

function keyProblems(key: string, field: string): Problem[] {
  const slash = key.indexOf("/");
  const legal = slash === -1 ? NAME.test(key) : PREFIX.test(key.slice(0, slash)) && NAME.test(key.slice(slash + 1));
  return legal ? [] : [{ field, message: `${quoted(key)} is not a valid label key: ${LABEL_FORM}` }];
}

function valueProblems(values: readonly string[], field: string): Problem[] {
  return values
    .filter((value) => value !== "" && !NAME.test(value))
    .map((value) => ({ field, message: `${quoted(value)} is not a valid label value: ${LABEL_FORM}` }));
}

/** A sign is no part of a label value, so no number below 0 can be asked for. */
function integerProblems(operator: string, values: readonly string[], field: string): Problem[] {
  const [value = ""] = values;
  if (values.length === 1 && /^\d/.test(value) && typeof integerOf(value) === "bigint") return [];
  const given = values.length === 1 ? quoted(value) : `${values.length} values`;
  const message = `must be exactly one integer from 0 when operator is ${operator}, such as ["4"], not ${given}`;
  return [{ field, message }];
}

/** An int64 in decimal digits, as the API reads one; NaN, which is neither more nor less than any, for anything else. */
function integerOf(text: string): bigint | number {
  if (!/^[+-]?\d{1,63}$/.test(text)) return Number.NaN;
  const value = BigInt(text);
  return value > INTEGER_MAX || value < -INTEGER_MAX - 1n ? Number.NaN : value;
}

function isGreater(value = "", than = ""): boolean {
  return integerOf(value) > integerOf(than);
}

function holds({ key, operator, values }: Requirement | Comparison, labels: Labels): boolean {
  const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
  const isListed = value !== undefined && values.includes(value);
  switch (operator) {
    case "Equals":
    case "In":
      return isListed;
    case "NotIn":
      return !isListed;
    case "Exists":
      return value !== undefined;
    case "DoesNotExist":
      return value === undefined;
    case "Gt":
      return isGreater(value, values[0]);
    case "Lt":
      return isGreater(values[0], value);
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
