/** The other half of the seeds of `simulator.test.ts`: a file of its own is a worker of its own. */
import { describe, it } from "vitest";
import { runSeeds, TIMEOUT_MS } from "./seeds.ts";

describe("the functions under random users, faults and interleavings", () => {
  it("keep the invariants: second half of the seeds", () => runSeeds(1), TIMEOUT_MS);
});
