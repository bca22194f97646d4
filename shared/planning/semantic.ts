/**
 * When two parts of a VM say the same to KubeVirt: nil is empty, a zero that Go does not write is nothing, quantities count by
 * value. Source: equality.Semantic over its Go types.
 */
import { canonicalJson, isRecord } from "./json.ts";
import { canonicalQuantity } from "./quantity.ts";
import { compareText } from "./selector.ts";
import { NOTHING_WHEN_ZERO } from "./zero-values.ts";

/** The fields on the way to a value; the elements of a list have the path of the list. */
export type Path = readonly string[];

/** Maps, whose keys are no fields: users choose them. */
const MAPS: ReadonlySet<string> = new Set([
  ...["labels", "annotations", "nodeSelector", "matchLabels", "requests", "limits"],
]);

/** Objects that are nothing when empty: maps, and structs that Go holds by value. All others are pointers: `masquerade: {}` says something. */
const NOTHING_WHEN_EMPTY: ReadonlySet<string> = new Set([
  ...MAPS,
  ...["metadata", "spec", "domain", "devices", "resources", "features/acpi"],
]);

/** Without quantities, which have a zero of their own. */
const ZEROS: ReadonlySet<unknown> = new Set(["", false, 0]);

/** Lists whose order says nothing: KubeVirt finds their elements by name. */
const UNORDERED: ReadonlySet<string> = new Set(["dataVolumeTemplates"]);

/** Where KubeVirt, Kubernetes and CDI have a quantity: the field, or `*` for each, by the field that holds it. */
const QUANTITIES: ReadonlyMap<string, readonly string[]> = new Map([
  ["requests", ["*"]],
  ["limits", ["*"]],
  ["memory", ["guest", "maxGuest"]],
  ["reservedOverhead", ["addedOverhead"]],
  ["emptyDisk", ["capacity"]],
  ["hostDisk", ["capacity"]],
  ["resourceFieldRef", ["divisor"]],
]);

/** Whether two values at the same place mean the same. */
export function isSame(a: unknown, b: unknown, path: Path): boolean {
  return canonicalText(a, path) === canonicalText(b, path);
}

/** One text for all values that mean the same at this place. */
export function canonicalText(value: unknown, path: Path): string {
  return canonicalJson(canonicalForm(value, path));
}

/** Whether a value says nothing at this place. */
export function isNothing(value: unknown, path: Path): boolean {
  return canonicalForm(value, path) === undefined;
}

/** Whether the object at this place may as well be absent when it is empty. */
export function isNothingWhenEmpty(path: Path): boolean {
  return isListed(NOTHING_WHEN_EMPTY, path);
}

function canonicalForm(value: unknown, path: Path): unknown {
  if (value === null) return undefined;
  if (Array.isArray(value)) return value.length === 0 ? undefined : canonicalList(value, path);
  if (!isRecord(value)) return canonicalScalar(value, path);
  const entries = Object.entries(value)
    .map(([key, entry]) => [key, canonicalForm(entry, [...path, key])] as const)
    .filter(([, entry]) => entry !== undefined);
  return entries.length === 0 && isNothingWhenEmpty(path) ? undefined : Object.fromEntries(entries);
}

function canonicalList(list: readonly unknown[], path: Path): unknown {
  const elements = list.map((element) => canonicalForm(element, path) ?? null);
  if (!UNORDERED.has(path.at(-1) ?? "")) return elements;
  return elements.sort((a, b) => compareText(canonicalJson(a), canonicalJson(b)));
}

function canonicalScalar(value: unknown, path: Path): unknown {
  const quantity = isQuantity(path) ? canonicalQuantity(value) : undefined;
  const isZero = quantity === undefined ? ZEROS.has(value) : quantity === "0";
  return isZero && isNothingWhenZero(path) ? undefined : (quantity ?? value);
}

function isNothingWhenZero(path: Path): boolean {
  return !MAPS.has(path.at(-2) ?? "") && isListed(NOTHING_WHEN_ZERO, path);
}

/** By its name alone, or by that of its holder, too. */
function isListed(fields: ReadonlySet<string>, path: Path): boolean {
  const [field = "", holder = ""] = [path.at(-1), path.at(-2)];
  return fields.has(field) || fields.has(`${holder}/${field}`);
}

function isQuantity(path: Path): boolean {
  const [field, holder = ""] = [path.at(-1), path.at(-2)];
  return QUANTITIES.get(holder)?.some((name) => name === "*" || name === field) === true;
}
