/** Which seeds `npm test` runs, and how a failing one is told. */
import { expect } from "vitest";
import { addCoverage, SIGHTS, type Sight } from "./coverage.ts";
import { loadKinds } from "./kinds.ts";
import { explainFailure, simulate } from "./simulator.ts";

/** A bound for what hangs, nothing that is measured. */
export const TIMEOUT_MS = 30 * 60_000;
/** So many that two free cores need about five minutes. */
const SEEDS = Number(process.env["SIMULATION_SEEDS"] ?? 2_000);
const HALVES = 2;
/** So many seeds see everything, each half of them. */
const COVERING_SEEDS = 1_000;

/** The same seeds each time, so that a change is to blame for what breaks; `npm run simulate` takes others. */
export const firstSeed = Number(process.env["SIMULATION_SEED"] ?? 1);

/** Runs every second seed, from the first or the second on; fails with the story of the first that breaks an invariant. */
export async function runSeeds(half: number): Promise<void> {
  const kinds = await loadKinds();
  const seen = new Map<Sight, number>();
  for (let seed = firstSeed + half; seed < firstSeed + SEEDS; seed += HALVES) {
    const { failure, coverage } = await simulate({ seed, kinds });
    addCoverage(seen, coverage);
    if (failure !== undefined) expect.fail(await explainFailure({ seed, kinds }, failure));
  }
  if (SEEDS < COVERING_SEEDS) return;
  const unseen = SIGHTS.filter((sight) => !seen.has(sight));
  expect(unseen, "what the seeds never got to see").toEqual([]);
}
