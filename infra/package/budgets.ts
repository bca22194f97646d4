/** How large the zip of each function may become: the larger, the longer a cold start takes. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import type { Bundle } from "./bundle.ts";

const BUDGETS = join(import.meta.dirname, "budgets.json");
/** A budget is what was measured and this much more. */
const SLACK = 1.2;

/** Function → bytes of its zip. */
const budgetsSchema = z.record(z.string(), z.int().positive());
export type Budgets = z.output<typeof budgetsSchema>;

export async function readBudgets(): Promise<Budgets> {
  return budgetsSchema.parse(JSON.parse(await readFile(BUDGETS, "utf8")));
}

/** Makes the sizes of today the measure. */
export async function writeBudgets(bundles: readonly Bundle[]): Promise<void> {
  const budgets = Object.fromEntries(
    bundles.map(({ name, zipBytes }) => [name, Math.round((zipBytes * SLACK) / 1_000) * 1_000]),
  );
  await writeFile(BUDGETS, `${JSON.stringify(budgets, null, 2)}\n`);
}

/** What is wrong with the sizes, one line each; a function without a budget is wrong, too, and a budget without a function. */
export function judgeSizes(bundles: readonly Pick<Bundle, "name" | "zipBytes">[], budgets: Budgets): readonly string[] {
  const over = bundles.flatMap(({ name, zipBytes }) => {
    const budget = budgets[name];
    if (budget === undefined) return [`${name} has no budget`];
    return zipBytes <= budget ? [] : [`the zip of ${name} has ${zipBytes} bytes, and its budget is ${budget}`];
  });
  const names = new Set(bundles.map(({ name }) => name));
  const gone = Object.keys(budgets).filter((name) => !names.has(name));
  return [...over, ...gone.map((name) => `there is a budget for ${name}, which is no function`)];
}

/** The sizes for people, with what the budgets allow. */
export function formatSizes(bundles: readonly Bundle[], budgets: Budgets): string {
  const rows = bundles.map(({ name, bytes, zipBytes }) => [
    name,
    kilobytes(bytes),
    kilobytes(zipBytes),
    budgets[name] === undefined ? "none" : kilobytes(budgets[name]),
  ]);
  const table = [["function", "bundle", "zip", "budget"], ...rows];
  return table
    .map(([name = "", ...cells]) => `  ${name.padEnd(10)}${cells.map((cell) => cell.padStart(11)).join("")}`)
    .join("\n");
}

function kilobytes(bytes: number): string {
  return `${(bytes / 1_000).toFixed(0)} kB`;
}
