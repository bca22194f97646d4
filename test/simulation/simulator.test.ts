/** Random seeds of the simulation, in chunks that the two workers share with `simulator-more.test.ts`. */
import { describe, expect, it } from "vitest";
import { loadKinds } from "./kinds.ts";
import { firstSeed, freshSeed, runSeed, runSeeds, TIMEOUT_MS } from "./seeds.ts";
import { simulate } from "./simulator.ts";

const kinds = await loadKinds();

describe("the functions under random users, faults and interleavings", () => {
  it("keep the invariants: first half of the seeds", () => runSeeds(0), TIMEOUT_MS);

  it(`keep them for a seed that was never run before: ${freshSeed}`, () => runSeed(freshSeed), TIMEOUT_MS);

  it("do the same again for the same seed", async () => {
    const options = { seed: firstSeed, kinds };
    expect(await simulate(options)).toEqual(await simulate(options));
  });
});
