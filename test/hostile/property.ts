/** One rule that hostile input must not break, in the form in which the tests and `npm run fuzz` run it. */
import * as fc from "fast-check";

export interface Run {
  readonly inputs: number;
  readonly seed: number;
}

export interface Property {
  readonly name: string;
  /** How often it is tried, of so many inputs in all: what starts a whole function costs more than a parser. */
  readonly weight: number;
  /** Undefined, or how it was broken and by which input. */
  run(run: Run): Promise<string | undefined>;
}

/** One that is nested too deep for fast-check to print is found again by its seed. */
async function describe<T>(details: fc.RunDetails<T>): Promise<string> {
  try {
    return (await fc.asyncDefaultReportMessage(details)) ?? "it failed";
  } catch {
    return `the input cannot be printed: path ${details.counterexamplePath}`;
  }
}

/** A counterexample of megabytes helps nobody. */
const REPORT_LENGTH_MAX = 6_000;

export function property<T>(
  name: string,
  {
    weight,
    input,
    holds,
  }: { readonly weight: number; readonly input: fc.Arbitrary<T>; readonly holds: (input: T) => unknown },
): Property {
  return {
    name,
    weight,
    async run({ inputs, seed }) {
      const checked = fc.asyncProperty(input, async (value) => void (await holds(value)));
      const details = await fc.check(checked, { numRuns: inputs, seed, endOnFailure: false });
      if (!details.failed) return undefined;
      const report = await describe(details);
      const error = details.errorInstance instanceof Error ? `${details.errorInstance.stack}\n` : "";
      return `${error}${report}`.slice(0, REPORT_LENGTH_MAX);
    },
  };
}
