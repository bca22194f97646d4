/** What tests of the planner import as fast-check while they judge mutants: the same few cases of each property every time. */
import * as fc from "fast-check";

export * from "fast-check";

/** Each property is asked hundreds of times about each mutant. */
const RUNS_MAX = 25;

// That a property fails is all that counts, not by which shortest case.
const ALWAYS = { seed: 1, endOnFailure: true } as const;

/** As `assert` of fast-check, for a property that is asynchronous or not. */
export function assert<T>(property: fc.IRawProperty<T>, parameters: fc.Parameters<T> = {}): Promise<void> | void {
  const numRuns = Math.min(RUNS_MAX, parameters.numRuns ?? RUNS_MAX);
  return fc.assert(property, { ...parameters, ...ALWAYS, numRuns });
}
