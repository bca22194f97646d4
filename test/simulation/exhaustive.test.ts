/** Every crash and every wrong answer in small stories; the orders of two passes are in `interleavings.test.ts`: a file of its own is a worker of its own. */
import { describe, expect, it } from "vitest";
import { explore, prepareRest, tell } from "./exhaustive.ts";
import { loadKinds } from "./kinds.ts";
import { scenarioOf, scenariosOf } from "./scenarios.ts";

/** A bound for what hangs, nothing that is measured. */
const TIMEOUT_MS = 30 * 60_000;
const kinds = await loadKinds();

describe("the functions after a fault at any call", () => {
  for (const scenario of scenariosOf("small")) {
    it(
      `keep the invariants and come to rest: ${scenario.name}`,
      async () => {
        const rest = await prepareRest(scenario, kinds);
        const { failures, calls, states } = await explore(rest, { pairs: false, onRun: () => undefined });
        expect(failures).toEqual([]);
        // Each call can go wrong in more than one way that makes a difference.
        expect(states).toBeGreaterThan(calls);
      },
      TIMEOUT_MS,
    );
  }

  it("keep the invariants after two crashes: scale-in", { timeout: TIMEOUT_MS }, async () => {
    const rest = await prepareRest(scenarioOf("scale-in", "small"), kinds);
    const { failures } = await explore(rest, { pairs: true, onRun: () => undefined });
    expect(failures).toEqual([]);
  });

  it("do the same again for the same faults", async () => {
    const rest = await prepareRest(scenarioOf("scale-out", "small"), kinds);
    const faults = [{ position: 8, kind: "diesAfter" }] as const;
    expect(await tell(rest, faults)).toEqual(await tell(rest, faults));
  });
});
