/** The list of bugs cannot rot: what a bug replaces stands in the sources, and the test that is to catch it is there. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { BUGS, type Bug } from "./bugs.ts";
import { ROOT, sabotaged } from "./sources.ts";

const DEFECTS = readFileSync(join(ROOT, "docs/defects.md"), "utf8");

it("has a name of its own for each of at least 48 bugs", () => {
  expect(BUGS.length).toBeGreaterThanOrEqual(48);
  expect(new Set(BUGS.map(({ name }) => name)).size).toBe(BUGS.length);
});

describe.each(BUGS.map((bug) => ({ ...bug, bug })))("the bug $name", ({ bug, defect, file, catcher, test }) => {
  it("changes one place of the sources", async () => {
    expect(await sabotaged(bug)).not.toBe(readFileSync(join(ROOT, file), "utf8"));
  });

  it("names a defect that is on record, if any, and a test that is there", () => {
    if (defect !== undefined) expect(DEFECTS).toContain(`| ${defect} |`);
    if (catcher === "test") expect(test).toBeDefined();
    if (test === undefined) return;
    const text = readFileSync(join(ROOT, test.file), "utf8");
    for (const part of test.name.split(" > ")) expect(text).toContain(part);
  });
});

it.each(["stands nowhere", "const "])(
  "is told by its name when what it replaces stands there not once: %s",
  async (find) => {
    const file = "shared/planning/hash.ts";
    const bug: Bug = { name: "rotten", what: "it was right once", file, find, replace: "", catcher: "seeds" };
    await expect(sabotaged(bug)).rejects.toThrow(/^bug rotten: what it replaces stands \d+ times in shared/);
  },
);
