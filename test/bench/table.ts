/** A small table of text. */
import type { Row } from "./measurements.ts";

/** Three columns, the second one flush right. */
export function formatTable(rows: readonly Row[]): string {
  const width = (of: (row: Row) => string) => Math.max(0, ...rows.map((row) => of(row).length));
  const [whatWidth, valueWidth] = [width(({ what }) => what), width(({ value }) => value)];
  return rows
    .map(({ what, value, unit }) => `${what.padEnd(whatWidth)}  ${value.padStart(valueWidth)} ${unit}`.trimEnd())
    .map((line) => `${line}\n`)
    .join("");
}
