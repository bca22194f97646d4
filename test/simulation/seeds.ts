/** Which seeds `npm test` runs, and how a failing one is told. */
import { expect } from "vitest";
import { addCoverage, type Coverage, SIGHTS, type Sight } from "./coverage.ts";
import { loadKinds } from "./kinds.ts";
import { explainFailure, simulate } from "./simulator.ts";

/** A bound for what hangs, nothing that is measured. */
export const TIMEOUT_MS = 30 * 60_000;
/** At least so many, and more as long as there is time. */
const SEEDS = Number(process.env["SIMULATION_SEEDS"] ?? 2_000);
const SEEDS_MAX = 100_000;
const TIME_MS = 5 * 60_000;
const HALVES = 2;
/** So many seeds see everything, each half of them. */
const COVERING_SEEDS = 1_000;

/** The same seeds each time, so that a change is to blame for what breaks. */
export const firstSeed = Number(process.env["SIMULATION_SEED"] ?? 1);
/** Another one each time, in the title of its test. */
export const freshSeed = SEEDS_MAX + (Date.now() % 899_000_000);

const kinds = await loadKinds();

/** Fails with the seed's story when it breaks an invariant. */
export async function runSeed(seed: number): Promise<Coverage> {
  const { failure, coverage } = await simulate({ seed, kinds });
  if (failure !== undefined) expect.fail(await explainFailure({ seed, kinds }, failure));
  return coverage;
}

/** Whoever asks for a number of seeds gets no more. */
const isTimed = process.env["SIMULATION_SEEDS"] === undefined;

/** Runs every second seed, from the first or the second on; fails with the story of the first that breaks an invariant. */
export async function runSeeds(half: number): Promise<void> {
  const seen = new Map<Sight, number>();
  const startedAt = performance.now();
  const isDue = (done: number) => done < SEEDS || (isTimed && performance.now() - startedAt < TIME_MS);
  for (let done = half; done < SEEDS_MAX && isDue(done); done += HALVES) {
    addCoverage(seen, await runSeed(firstSeed + done));
  }
  if (SEEDS < COVERING_SEEDS) return;
  const unseen = SIGHTS.filter((sight) => !seen.has(sight));
  expect(unseen, "what the seeds never got to see").toEqual([]);
}
