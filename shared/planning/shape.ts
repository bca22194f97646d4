/** Says in words what is wrong with the shape of a pool's spec, and what to write instead. Judges nothing: the schema of `model.ts` does. */
import type * as z from "zod";
import type { Problem } from "./errors.ts";

/** What a field that is missing is for. */
const MISSING: Readonly<Record<string, string>> = {
  "spec.selector": "missing selector: write matchLabels with labels that the template has",
  "spec.virtualMachineTemplate": "missing virtual machine template: write metadata.labels and spec.template",
  "spec.virtualMachineTemplate.spec.template":
    "missing virtual machine template: write the template of the instances, with metadata.labels and spec",
};
const TEMPLATE_SPEC = "spec.virtualMachineTemplate.spec";

/** One problem for each issue of the schema; the error must have been made with `reportInput`. */
export function shapeProblems({ issues }: z.ZodError): readonly Problem[] {
  return issues.map((issue) => {
    const found = fieldOf(issue.path);
    // What a template without a spec lacks is the instance template.
    const field = found === TEMPLATE_SPEC && isAbsent(issue.input) ? `${TEMPLATE_SPEC}.template` : found;
    return { field, message: describeIssue(issue, field) };
  });
}

/** `spec.a[0].b`, as the API writes paths. */
function fieldOf(path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (field, key) => `${field}${typeof key === "number" ? `[${key}]` : `.${String(key)}`}`,
    "spec",
  );
}

function describeIssue(issue: z.core.$ZodIssue, field: string): string {
  switch (issue.code) {
    case "invalid_type": {
      const expected = EXPECTED[issue.expected] ?? issue.expected;
      if (isAbsent(issue.input)) return MISSING[field] ?? `missing: write ${expected}`;
      return `must be ${expected}, not ${shown(issue.input)}`;
    }
    case "too_small":
      return `must be at least ${issue.minimum}, not ${shown(issue.input)}`;
    case "too_big":
      return `must be at most ${issue.maximum}, not ${shown(issue.input)}`;
    case "invalid_value":
      return `${shown(issue.input)} is not supported: write ${choices(issue.values.map((value) => JSON.stringify(value)))}`;
    case "unrecognized_keys":
      return `has no field ${choices(issue.keys.map((key) => JSON.stringify(key)))}`;
    case "invalid_union":
      return `must be a number of machines, such as 1, or a percentage, such as 25%, not ${shown(issue.input)}`;
    default:
      return issue.message;
  }
}

const EXPECTED: Readonly<Record<string, string>> = {
  int: "a whole number",
  number: "a number",
  string: "a text",
  boolean: "true or false",
  object: "an object",
  record: "an object",
  array: "a list",
};
/** What is longer is not worth repeating. */
const SHOWN_LENGTH_MAX = 60;

function isAbsent(input: unknown): boolean {
  return input === undefined || input === null;
}

function shown(input: unknown): string {
  const text = JSON.stringify(input) ?? "nothing";
  return text.length <= SHOWN_LENGTH_MAX ? text : `${text.slice(0, SHOWN_LENGTH_MAX)}…`;
}

function choices(texts: readonly string[]): string {
  return texts.length < 2 ? texts.join() : `${texts.slice(0, -1).join(", ")} or ${texts.at(-1)}`;
}
