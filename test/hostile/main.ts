/** `npm run fuzz`: tries the rules of hostile input with many inputs, tells how far it is, and stops at the first that is broken. */
import { createProgressLine, freshSeed, readOptions, refuse, wholeNumber } from "../support/command-line.ts";
import { PROPERTIES } from "./properties.ts";

const HELP = `Usage: npm run fuzz -- [options]

Feeds the functions input that is not what it should be, and checks that they refuse it: no unhandled error,
no machine that comes or goes, no secret that shows.

Options:
  --inputs N    how many inputs, shared among the rules (default 100000)
  --seed S      the first seed (default: another one each time); with --only and the inputs of a failure it repeats that
  --only NAME   only the rules whose name contains this
  --help        show this
`;
/** Inputs of one seed, between two lines of progress. */
const BATCH = 1_000;

const values = readOptions({
  inputs: { type: "string", default: "100000" },
  seed: { type: "string", default: freshSeed() },
  only: { type: "string", default: "" },
  help: { type: "boolean", default: false },
});

process.exitCode = await main();

async function main(): Promise<number> {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const options = {
    inputs: wholeNumber("inputs", values.inputs, { min: 1 }),
    seed: wholeNumber("seed", values.seed),
    only: values.only,
  };
  const line = createProgressLine();
  const chosen = PROPERTIES.filter(({ name }) => name.includes(options.only));
  const weights = chosen.reduce((sum, { weight }) => sum + weight, 0);
  if (chosen.length === 0)
    refuse(
      `no rule has "${options.only}" in its name; there are:\n${PROPERTIES.map(({ name }) => `  ${name}`).join("\n")}\n`,
    );
  const startedAt = performance.now();
  process.stdout.write(`${options.inputs} inputs from seed ${options.seed} on\n`);
  let total = 0;
  for (const { name, weight, run } of chosen) {
    const inputs = Math.ceil((options.inputs * weight) / weights);
    for (let done = 0; done < inputs; done += BATCH) {
      const seed = options.seed + done / BATCH;
      const batch = Math.min(BATCH, inputs - done);
      const broken = await run({ inputs: batch, seed });
      if (broken !== undefined) {
        process.stdout.write(
          `\nbroken: ${name}\n${broken}\nrepeat: npm run fuzz -- --only "${name}" --seed ${seed} --inputs ${batch}\n`,
        );
        return 1;
      }
      total += batch;
      line.show(`${name}: ${done + batch} of ${inputs}`, (done + batch) / inputs);
    }
    const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
    line.clear();
    process.stdout.write(`${seconds.padStart(5)} s  ${inputs} inputs: ${name}\n`);
  }
  process.stdout.write(`${total} inputs, no rule broken\n`);
  return 0;
}
