/** The text form of label selectors, as the `labelSelector` parameter of a list takes it. */

export type Labels = Readonly<Record<string, string>>;
/** Undefined for a text that the API server refuses. */
export type LabelTest = ((labels: Labels) => boolean) | undefined;

const VALUE = /^(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?$/;
const NAME = /^([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$/;
const PREFIX = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

export function isLabelKey(key: string): boolean {
  const [name = "", prefix, ...more] = key.split("/").reverse();
  return more.length === 0 && NAME.test(name) && (prefix === undefined || PREFIX.test(prefix));
}

export function isLabelValue(value: string): boolean {
  return VALUE.test(value);
}

export function parseLabelSelector(text: string): LabelTest {
  if (text.trim() === "") return () => true;
  // A comma between parentheses separates values, not requirements.
  const parts = text.split(/,(?![^(]*\))/).map((part) => parseRequirement(part.trim()));
  const tests = parts.filter((test) => test !== undefined);
  return tests.length === parts.length ? (labels) => tests.every((test) => test(labels)) : undefined;
}

function parseRequirement(part: string): LabelTest {
  const exists = /^(!?)\s*([^\s!=<>()]+)$/.exec(part);
  if (exists?.[2] !== undefined) return onKey(exists[2], (value) => (value === undefined) === (exists[1] === "!"));
  const set = /^([^\s!=<>()]+)\s+(in|notin)\s*\(([^()]*)\)$/.exec(part);
  if (set?.[1] !== undefined) {
    const values = (set[3] ?? "").split(",").map((value) => value.trim());
    if (!values.every(isLabelValue)) return undefined;
    const isIn = set[2] === "in";
    return onKey(set[1], (value) => (value !== undefined && values.includes(value)) === isIn);
  }
  const compared = /^([^\s!=<>()]+)\s*(==|=|!=|<|>)\s*([^\s!=<>()]*)$/.exec(part);
  if (compared?.[1] === undefined) return undefined;
  return parseComparison(compared[1], compared[2] ?? "", compared[3] ?? "");
}

function parseComparison(key: string, operator: string, wanted: string): LabelTest {
  if (operator === "<" || operator === ">") {
    if (!/^-?\d+$/.test(wanted)) return undefined;
    return onKey(key, (value) => {
      if (value === undefined || !/^-?\d+$/.test(value)) return false;
      return operator === "<" ? Number(value) < Number(wanted) : Number(value) > Number(wanted);
    });
  }
  if (!isLabelValue(wanted)) return undefined;
  return onKey(key, (value) => (value === wanted) === (operator !== "!="));
}

function onKey(key: string, holds: (value: string | undefined) => boolean): LabelTest {
  return isLabelKey(key) ? (labels) => holds(labels[key]) : undefined;
}
