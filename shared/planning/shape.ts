/** Says in words what is wrong with the shape of a pool's spec, and what to write instead. Judges nothing: the schema of `model.ts` does. */
import type * as z from "zod";
import type { Problem } from "./errors.ts";
import { isAbsent } from "./json.ts";
import { listed, pathStep, quoted, shorten, shownType, shownValue } from "./wording.ts";

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
  const field = path.reduce<string>(
    (field, key) => `${field}${typeof key === "number" ? `[${key}]` : `.${pathStep(String(key))}`}`,
    "spec",
  );
  return shorten(field, FIELD_LENGTH_MAX);
}

function describeIssue(issue: z.core.$ZodIssue, field: string): string {
  switch (issue.code) {
    case "invalid_type": {
      const expected = EXPECTED[issue.expected] ?? issue.expected;
      if (isAbsent(issue.input)) return MISSING[field] ?? `missing: write ${expected}`;
      return `must be ${expected}, not ${FEW_VALUES.has(issue.expected) ? shownValue(issue.input) : shownType(issue.input)}`;
    }
    case "too_small":
      return `must be at least ${issue.minimum}, not ${shownValue(issue.input)}`;
    case "too_big":
      return `must be at most ${issue.maximum}, not ${shownValue(issue.input)}`;
    case "invalid_value":
      return `${shownValue(issue.input)} is not supported: write ${choices(issue.values.map((value) => JSON.stringify(value)))}`;
    case "unrecognized_keys":
      return `has no field ${listed(issue.keys.map(quoted), KEYS_MAX)}`;
    case "invalid_union":
      return `must be a number of machines, such as 1, or a percentage, such as 25%, not ${shownValue(issue.input)}`;
    default:
      return shorten(issue.message, MESSAGE_LENGTH_MAX);
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
/** Fields of these types have few values, or none that could be a secret. */
const FEW_VALUES: ReadonlySet<string> = new Set(["int", "number", "boolean"]);
/** How many keys that are not known are told. */
const KEYS_MAX = 5;
const FIELD_LENGTH_MAX = 300;
const MESSAGE_LENGTH_MAX = 200;

function choices(texts: readonly string[]): string {
  return `${texts.slice(0, -1).join(", ")} or ${texts.at(-1)}`;
}
