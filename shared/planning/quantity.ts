/** Kubernetes quantities, compared by value. Source: resource.Quantity of apimachinery. */

/** Longer texts are no quantities to us; they are compared as they are written. */
const TEXT_LENGTH_MAX = 100;
const QUANTITY =
  /^(?<sign>[+-]?)(?=\.?\d)(?<whole>\d*)(?:\.(?<fraction>\d*))?(?:[eE](?<exponent>[+-]?\d{1,9})|(?<suffix>[numkMGTPE]|[KMGTPE]i))?$/;
const DECIMAL_EXPONENTS: Readonly<Record<string, number>> = {
  n: -9,
  u: -6,
  m: -3,
  k: 3,
  M: 6,
  G: 9,
  T: 12,
  P: 15,
  E: 18,
};
const BINARY_SHIFTS: Readonly<Record<string, bigint>> = { Ki: 10n, Mi: 20n, Gi: 30n, Ti: 40n, Pi: 50n, Ei: 60n };

/** One exact text for all ways to write a value: `1Gi`, `1024Mi` and 1073741824 share it. Undefined for what is no quantity. */
export function canonicalQuantity(value: unknown): string | undefined {
  if (typeof value !== "string" && typeof value !== "number") return undefined;
  const text = String(value);
  const parts = text.length <= TEXT_LENGTH_MAX ? QUANTITY.exec(text)?.groups : undefined;
  if (parts === undefined) return undefined;
  const { sign = "", whole = "", fraction = "", exponent = "0", suffix = "" } = parts;
  const digits = String(BigInt(`${whole}${fraction}`) << (BINARY_SHIFTS[suffix] ?? 0n));
  if (digits === "0") return "0";
  const significant = digits.replace(/0+$/, "");
  const power = Number(exponent) + (DECIMAL_EXPONENTS[suffix] ?? 0) - fraction.length;
  return `${sign === "-" ? "-" : ""}${significant}e${power + digits.length - significant.length}`;
}
