/** Every state of small pools, with the real planner: no invariant breaks, and from everywhere passes reach what was asked for. */
import { describe, expect, it } from "vitest";
import { SCOPES } from "./scopes.ts";
import { search } from "./search.ts";

/** More than any of them has: a search that gets there has not seen all. */
const STATES_MAX = 3_000_000;
const TEN_MINUTES_MS = 600_000;

describe("every state of a pool", () => {
  for (const { name, rules } of SCOPES) {
    it(
      `keeps the invariants and converges: ${name}`,
      () => {
        const { failure, complete, cut } = search(rules, { statesMax: STATES_MAX, millisecondsMax: TEN_MINUTES_MS });
        expect(failure?.join("\n")).toBeUndefined();
        expect({ complete, cut }).toEqual({ complete: true, cut: 0 });
      },
      TEN_MINUTES_MS,
    );
  }
});
