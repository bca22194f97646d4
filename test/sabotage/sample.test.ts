/** Some of the bugs, so that every run of the tests proves that they can fail; `npm run sabotage` has all of them. */
import { describe, expect, it } from "vitest";
import { BUGS, type Bug } from "./bugs.ts";
import { check } from "./check.ts";

/** Of each kind one that the first seeds find. */
const SAMPLE = [
  "claim-not-continued",
  "claim-skipped",
  "shortage-off-by-one",
  "surplus-off-by-one",
  "finalizer-kept-at-other-sizes",
  "settled-pass-writes",
] as const;
/** Several times as many as it takes, since each change of the simulator makes other seeds of them. */
const SEEDS_MAX = 50;
/** A bound for what hangs. */
const TIMEOUT_MS = 10 * 60_000;

function options(seedsMax: number) {
  return { seedsMax, onSeed: () => undefined, signal: new AbortController().signal };
}

describe("the simulator", () => {
  it.each(SAMPLE)(
    "finds %s",
    async (name) => {
      const bug = BUGS.find((one) => one.name === name);
      if (bug === undefined) throw new Error(`there is no bug ${name}`);
      expect((await check(bug, options(SEEDS_MAX))).by).toMatch(/^seed \d+: /);
    },
    TIMEOUT_MS,
  );
});

describe("what is no bug", () => {
  const harmless: Bug = {
    name: "harmless",
    what: "nothing",
    file: "shared/planning/hash.ts",
    find: "export ",
    replace: "/* harmless */ export ",
    catcher: "seeds",
    test: { file: "test/planning/revisions.test.ts", name: "the hash" },
  };

  it(
    "survives seeds and test",
    async () => {
      expect(await check(harmless, options(2))).toMatchObject({ by: undefined, seeds: 2 });
    },
    TIMEOUT_MS,
  );

  it(
    "is no proof when its file cannot be loaded",
    async () => {
      const broken = { ...harmless, replace: "/* broken export " };
      await expect(check(broken, options(2))).rejects.toThrow("seed 1 cannot be run");
      await expect(check({ ...broken, catcher: "test" }, options(2))).rejects.toThrow("cannot be loaded");
    },
    TIMEOUT_MS,
  );
});
