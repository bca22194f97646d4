/** docs/defects.md has every defect of the reference, and names tests that exist. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";

const ROOT = join(import.meta.dirname, "../..");
const page = await readFile(join(ROOT, "docs/defects.md"), "utf8");

const NUMBERS = Array.from({ length: 48 }, (_, index) => `D${String(index + 1).padStart(2, "0")}`);
/** What cannot exist here, for the reason that the page gives. */
const WITHOUT_TEST: readonly string[] = ["D05", "D47"];

interface NamedTest {
  readonly file: string;
  readonly title: string;
}

interface Row {
  readonly number: string;
  readonly cells: readonly string[];
  readonly tests: readonly NamedTest[];
}

/** Tests of a cell: links to files, each followed by titles. A file without one gets a title that nothing has. */
function testsOf(cell: string): readonly NamedTest[] {
  return cell
    .split("[")
    .slice(1)
    .flatMap((part) => {
      const [, file = "", titles = ""] = /^[^\]]+\]\(\.\.\/([^)]+)\): (.*)$/.exec(part) ?? [];
      const quoted = [...titles.matchAll(/`([^`]+)`/g)].map(([, title = ""]) => title);
      return (quoted.length > 0 ? quoted : [""]).map((title) => ({ file, title }));
    });
}

const rows: readonly Row[] = [...page.matchAll(/^\| (D\d\d) \| (.*) \|$/gm)].map(([, number = "", rest = ""]) => {
  const cells = rest.split(" | ");
  return { number, cells, tests: testsOf(cells.at(-1) ?? "") };
});
const tested = rows.filter(({ number }) => !WITHOUT_TEST.includes(number));
const named = rows.flatMap(({ tests }) => tests);

/** Titles of tests and of the cases of their tables, as they stand in the source; none of a file that does not exist. */
async function titlesIn(file: string): Promise<ReadonlySet<string>> {
  const source = await readFile(join(ROOT, file), "utf8").catch(() => "");
  // After `it(`, at the end of `it.each(…)(`, after `it:`, or first in a row of a table.
  const literal = /(?:\bit(?:\.\w+)*\(|\)\(|\bit: |\[)\s*(["'`])((?:(?!\1)[^\\\n])+)\1(?=,)/g;
  return new Set([...source.matchAll(literal)].map(([, , title = ""]) => title));
}

it("has every defect once, in order, with what is wrong there and what happens here", () => {
  expect(rows.map(({ number }) => number)).toEqual(NUMBERS);
  for (const { number, cells } of rows) expect([number, cells.length, cells.includes("")]).toEqual([number, 3, false]);
});

it("names a test for each of them, one of which carries its number", () => {
  const carriesIt = ({ number, tests }: Row) => tests.some(({ title }) => title.includes(number));
  expect(tested.filter((row) => !carriesIt(row)).map(({ number }) => number)).toEqual([]);
  expect(rows.filter(({ tests }) => tests.length === 0).map(({ number }) => number)).toEqual(WITHOUT_TEST);
});

it("names tests that exist, in the files that it says", async () => {
  expect(new Set(named.map(({ file }) => file)).size).toBe(new Set(page.match(/\(\.\.\/test\/[^)]+/g)).size);
  const checked = await Promise.all(
    named.map(async ({ file, title }) => ({ file, title, exists: (await titlesIn(file)).has(title) })),
  );
  expect(checked.filter(({ exists }) => !exists)).toEqual([]);
});
