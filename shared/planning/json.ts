/** JSON values: narrowing and a canonical text. */
import { compareText } from "./selector.ts";

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The fields of the value; none when it is no object. */
export function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return isRecord(value) ? value : {};
}

/** To the API, null and absent are the same. */
export function isAbsent(value: unknown): value is null | undefined {
  return value === null || value === undefined;
}

/** The value, or undefined when `text` is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** JSON with sorted keys in which null and absent are the same. Takes any depth: users choose how deep they nest. */
export function canonicalJson(value: unknown): string {
  const written: string[] = [];
  // What is still to be written, the next last: texts as they are, values in a wrapper.
  const left: (string | { readonly value: unknown })[] = [{ value }];
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    if (typeof next === "string") written.push(next);
    else if (Array.isArray(next.value))
      pushParts(
        left,
        "[]",
        next.value.map((entry) => ["", entry] as const),
      );
    else if (isRecord(next.value)) pushParts(left, "{}", sortedEntries(next.value));
    else written.push(JSON.stringify(next.value ?? null));
  }
  return written.join("");
}

function sortedEntries(value: Readonly<Record<string, unknown>>): readonly (readonly [string, unknown])[] {
  const entries = Object.entries(value).filter(([, entry]) => !isAbsent(entry));
  entries.sort(([a], [b]) => compareText(a, b));
  return entries.map(([key, entry]) => [`${JSON.stringify(key)}:`, entry]);
}

/** In reverse, as the last is taken first. */
function pushParts(
  left: (string | { readonly value: unknown })[],
  [open = "", close = ""]: string,
  entries: readonly (readonly [string, unknown])[],
): void {
  left.push(close);
  for (let index = entries.length - 1; index >= 0; index -= 1) {
    const [key, value] = entries[index] ?? ["", undefined];
    left.push({ value }, index === 0 ? key : `,${key}`);
  }
  left.push(open);
}

/** Deeper than anything that KubeVirt's API has; the API server itself stores up to 10,000 levels. */
export const DEPTH_MAX = 64;

/** What no object of KubeVirt holds, and what our own reading of objects is not made for. */
export interface Flaw {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** The first flaw of a value; undefined when every part of it can be walked and copied. Looks no deeper than is allowed. */
export function flawOf(value: unknown, depth = 0): Flaw | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (depth >= DEPTH_MAX)
    return { path: [], message: `is nested more than ${DEPTH_MAX} levels deep: write less of it` };
  for (const [key, entry] of Array.isArray(value) ? value.entries() : Object.entries(value)) {
    // Readers that copy field by field lose it, and what is judged would not be what is stored.
    const message = `has a field "${PROTOTYPE}", which no object can have: take it out`;
    const flaw = key === PROTOTYPE ? { path: [], message } : below(key, flawOf(entry, depth + 1));
    if (flaw !== undefined) return flaw;
  }
  return undefined;
}

const PROTOTYPE = "__proto__";

function below(key: PropertyKey, flaw: Flaw | undefined): Flaw | undefined {
  return flaw && { ...flaw, path: [key, ...flaw.path] };
}
