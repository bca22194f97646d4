/** Kubernetes' amounts of memory as numbers of bytes, and back. Pure. */

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};
const BINARY_UNITS = ["Ti", "Gi", "Mi", "Ki"] as const;

/** How many bytes the text or number says; undefined for anything that is no such amount. */
export function bytesOf(quantity: unknown): number | undefined {
  if (typeof quantity === "number") return quantity;
  const [, digits, unit] = (typeof quantity === "string" && /^(\d+(?:\.\d+)?)([A-Za-z]*)$/.exec(quantity)) || [];
  const factor = UNITS[unit ?? "?"];
  return digits === undefined || factor === undefined ? undefined : Math.ceil(Number(digits) * factor);
}

/** In the largest binary unit in which it is a whole number. */
export function quantityOf(bytes: number): string {
  const unit = BINARY_UNITS.find((name) => bytes % (UNITS[name] ?? 1) === 0) ?? "";
  return `${bytes / (UNITS[unit] ?? 1)}${unit}`;
}
