/** What tests of the planner import as vitest in a process that runs each of them many times: here they are only taken down. */
import { expect } from "vitest";

export { expect };

type Body = (...values: readonly unknown[]) => unknown;

export interface Case {
  readonly id: string;
  readonly file: string;
  readonly run: () => unknown;
}

const cases = new Map<string, Case>();
let currentFile = "";
let titles: readonly string[] = [];

/** Takes down the tests of one file, in place of those that it had before. */
export async function collect(file: string, load: () => Promise<unknown>): Promise<void> {
  for (const { id } of [...cases.values()].filter((one) => one.file === file)) cases.delete(id);
  currentFile = file;
  titles = [];
  await load();
}

export function collected(): readonly Case[] {
  return [...cases.values()];
}

export function describe(title: string, body: () => void): void {
  const outer = titles;
  titles = [...outer, title];
  body();
  titles = outer;
}

export function it(title: string, body: Body): void {
  add(title, () => body());
}

it.each = (table: readonly unknown[]) => (title: string, body: Body) => {
  const isTable = table.every((row) => Array.isArray(row));
  for (const row of table) add(title, () => (isTable && Array.isArray(row) ? body(...row) : body(row)));
};

/** Rows of a table share a title: they are told apart by number. */
function add(title: string, run: () => unknown): void {
  const name = [currentFile, ...titles, title].join(" > ");
  let id = name;
  for (let number = 2; cases.has(id); number += 1) id = `${name} (${number})`;
  cases.set(id, { id, file: currentFile, run });
}
