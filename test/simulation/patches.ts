/** JSON patch and JSON merge patch as the API server applies them (evanphx/json-patch 4): not in every point what the RFCs say. */
import { isRecord } from "../../shared/planning/json.ts";

/** `malformed` is answered 400, `refused` (a failed test, a path that is not there) 422. */
export type Patched =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly why: "malformed" | "refused" };

const REFUSED: Patched = { ok: false, why: "refused" };
const MALFORMED: Patched = { ok: false, why: "malformed" };

/** Applies the operations in their order, all or none. */
export function applyJsonPatch(document: unknown, operations: unknown): Patched {
  if (!Array.isArray(operations) || !operations.every(isRecord)) return MALFORMED;
  let value = document;
  for (const operation of operations) {
    const { op, path } = operation;
    if (typeof op !== "string" || typeof path !== "string" || !path.startsWith("/")) return REFUSED;
    const keys = path.slice(1).split("/").map(unescapeKey);
    const edited = edit(value, keys, { op, value: operation["value"] });
    if (!edited.ok) return edited;
    value = edited.value;
  }
  return { ok: true, value };
}

function unescapeKey(key: string): string {
  return key.replaceAll("~1", "/").replaceAll("~0", "~");
}

interface Change {
  readonly op: string;
  readonly value: unknown;
}

/** Walks down to the container of the last key and rebuilds what is on the way. */
function edit(value: unknown, keys: readonly string[], change: Change): Patched {
  const [key = "", ...rest] = keys;
  if (Array.isArray(value)) return editList(value, key, rest, change);
  if (!isRecord(value)) return REFUSED;
  if (rest.length === 0) return editKey(value, key, change);
  const edited = edit(value[key], rest, change);
  return edited.ok ? { ok: true, value: { ...value, [key]: edited.value } } : edited;
}

function editKey(value: Readonly<Record<string, unknown>>, key: string, { op, value: given }: Change): Patched {
  switch (op) {
    case "test":
      return isSame(value[key], given) ? { ok: true, value } : REFUSED;
    case "add":
    // A surprise: an absent key can be replaced.
    case "replace":
      return { ok: true, value: { ...value, [key]: given ?? null } };
    case "remove": {
      const { [key]: _removed, ...others } = value;
      return key in value ? { ok: true, value: others } : REFUSED;
    }
    default:
      return REFUSED;
  }
}

function editList(list: readonly unknown[], key: string, rest: readonly string[], change: Change): Patched {
  const { op, value: given } = change;
  const adds = op === "add" && rest.length === 0;
  const index = indexIn(list.length + (adds ? 1 : 0), key === "-" && adds ? String(list.length) : key);
  if (index === undefined) return REFUSED;
  if (rest.length > 0) {
    const edited = edit(list[index], rest, change);
    return edited.ok ? { ok: true, value: list.with(index, edited.value) } : edited;
  }
  switch (op) {
    case "test":
      return isSame(list[index], given) ? { ok: true, value: list } : REFUSED;
    case "add":
      return { ok: true, value: list.toSpliced(index, 0, given ?? null) };
    case "replace":
      return { ok: true, value: list.with(index, given ?? null) };
    case "remove":
      return { ok: true, value: list.toSpliced(index, 1) };
    default:
      return REFUSED;
  }
}

/** Negative indices count from the end. */
function indexIn(length: number, key: string): number | undefined {
  if (!/^-?\d{1,9}$/.test(key)) return undefined;
  const index = Number(key) < 0 ? Number(key) + length : Number(key);
  return index >= 0 && index < length ? index : undefined;
}

/** A patch that is not an object is malformed. A null in it removes; nulls below what is new are left out. */
export function applyMergePatch(document: unknown, patch: unknown): Patched {
  if (!isRecord(patch)) return MALFORMED;
  return { ok: true, value: merge(document, patch) };
}

function merge(current: unknown, patch: unknown): unknown {
  if (!isRecord(current)) return withoutNulls(patch);
  if (!isRecord(patch)) return patch;
  const merged: Record<string, unknown> = { ...current };
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key];
    else merged[key] = merge(merged[key], value);
  }
  return merged;
}

function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls);
  if (!isRecord(value)) return value;
  const kept = Object.entries(value).filter(([, entry]) => entry !== null);
  return Object.fromEntries(kept.map(([key, entry]) => [key, withoutNulls(entry)]));
}

/** Equality of JSON values; at the top null and absent are one. */
export function isSame(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (a === null || a === undefined) return b === null || b === undefined;
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((entry, index) => isSame(entry, b[index]));
  }
  if (!isRecord(a) || !isRecord(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => key in b && isSame(a[key], b[key]));
}
