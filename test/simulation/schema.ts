/** The structural schema of a CRD: prunes what it does not know and says what is not as it must be. */
import * as z from "zod";
import { isRecord } from "../../shared/planning/json.ts";

const nodeSchema = z.object({
  type: z.string().optional(),
  get properties() {
    return z.record(z.string(), nodeSchema).optional();
  },
  get items() {
    return nodeSchema.optional();
  },
  get additionalProperties() {
    return nodeSchema.optional();
  },
  required: z.array(z.string()).optional(),
  enum: z.array(z.unknown()).optional(),
  minimum: z.number().optional(),
  format: z.string().optional(),
  nullable: z.boolean().optional(),
  "x-kubernetes-preserve-unknown-fields": z.boolean().optional(),
  "x-kubernetes-int-or-string": z.boolean().optional(),
});

/** One node of an openAPIV3Schema, as far as our CRDs go. */
export type SchemaNode = z.infer<typeof nodeSchema>;

export function parseSchema(value: unknown): SchemaNode {
  return nodeSchema.parse(value);
}

/** Why a value is not accepted, in the form of a cause of the API's `Status`. */
export interface Cause {
  readonly reason: string;
  readonly field: string;
  readonly message: string;
}

/** Drops unknown fields, and nulls where the schema names a field that cannot be null. */
export function prune(value: unknown, schema: SchemaNode): unknown {
  if (Array.isArray(value)) {
    const { items } = schema;
    return items === undefined ? value : value.map((entry) => prune(entry, items));
  }
  if (!isRecord(value)) return value;
  const pruned: Record<string, unknown> = {};
  for (const [key, entry] of Object.entries(value)) {
    const node = schema.properties?.[key] ?? schema.additionalProperties;
    if (node === undefined) {
      if (schema["x-kubernetes-preserve-unknown-fields"] === true) pruned[key] = entry;
    } else if (entry !== null || node.nullable === true) pruned[key] = prune(entry, node);
  }
  return pruned;
}

/** Everything that is wrong with the value. */
export function check(value: unknown, schema: SchemaNode, field: string): Cause[] {
  if (value === null && schema.nullable === true) return [];
  if (!hasType(value, schema)) {
    return [{ reason: "FieldValueTypeInvalid", field, message: `must be of type ${schema.type ?? "integer,string"}` }];
  }
  const causes: Cause[] = [];
  if (schema.enum !== undefined && !schema.enum.includes(value)) {
    causes.push({ reason: "FieldValueNotSupported", field, message: "Unsupported value" });
  }
  if (schema.minimum !== undefined && typeof value === "number" && value < schema.minimum) {
    causes.push({
      reason: "FieldValueInvalid",
      field,
      message: `should be greater than or equal to ${schema.minimum}`,
    });
  }
  if (Array.isArray(value)) {
    const { items } = schema;
    if (items !== undefined) causes.push(...value.flatMap((entry, index) => check(entry, items, `${field}[${index}]`)));
  } else if (isRecord(value)) causes.push(...checkFields(value, schema, field));
  return causes;
}

function checkFields(value: Readonly<Record<string, unknown>>, schema: SchemaNode, field: string): Cause[] {
  const at = (key: string) => (field === "" ? key : `${field}.${key}`);
  const missing = (schema.required ?? []).filter((key) => value[key] === undefined);
  return [
    ...missing.map((key) => ({ reason: "FieldValueRequired", field: at(key), message: "Required value" })),
    ...Object.entries(value).flatMap(([key, entry]) => {
      const node = schema.properties?.[key] ?? schema.additionalProperties;
      return node === undefined ? [] : check(entry, node, at(key));
    }),
  ];
}

function hasType(value: unknown, schema: SchemaNode): boolean {
  if (schema["x-kubernetes-int-or-string"] === true) return typeof value === "string" || Number.isInteger(value);
  switch (schema.type) {
    case "object":
      return isRecord(value);
    case "array":
      return Array.isArray(value);
    case "string":
      return typeof value === "string" && (schema.format !== "date-time" || isDateTime(value));
    case "boolean":
      return typeof value === "boolean";
    case "integer":
      return Number.isInteger(value);
    case "number":
      return typeof value === "number";
    default:
      return true;
  }
}

function isDateTime(text: string): boolean {
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text) && !Number.isNaN(Date.parse(text));
}
