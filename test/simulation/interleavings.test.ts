/** Every order of the calls of two passes, with the fewest machines. */
import { describe, expect, it } from "vitest";
import { prepareRest } from "./exhaustive.ts";
import { interleave } from "./interleavings.ts";
import { loadKinds } from "./kinds.ts";
import { scenarioOf } from "./scenarios.ts";

/** A bound for what hangs, nothing that is measured. */
const TIMEOUT_MS = 30 * 60_000;
const kinds = await loadKinds();

describe("two passes over one pool", () => {
  for (const name of ["scale-out", "scale-in", "update", "heal", "release", "delete"]) {
    it(
      `keep the invariants in every order of their calls: ${name}`,
      async () => {
        const rest = await prepareRest(scenarioOf(name, "small"), kinds);
        const found = await interleave(rest, { isPrompt: false, mayDie: false, onRun: () => undefined });
        expect(found.failures).toEqual([]);
        expect(found.ends).toBeGreaterThan(1);
      },
      TIMEOUT_MS,
    );
  }
});
