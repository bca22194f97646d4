/** `npm run fuzz`: tries the rules of hostile input with many inputs, tells how far it is, and stops at the first that is broken. */
import { parseArgs } from "node:util";
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

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const options = readOptions(args);
  if (typeof options === "string") {
    process.stderr.write(options);
    return 2;
  }
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const chosen = PROPERTIES.filter(({ name }) => name.includes(options.only));
  const weights = chosen.reduce((sum, { weight }) => sum + weight, 0);
  if (chosen.length === 0) {
    process.stderr.write(
      `no rule has "${options.only}" in its name; there are:\n${PROPERTIES.map(({ name }) => `  ${name}\n`).join("")}`,
    );
    return 2;
  }
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
      if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${name}: ${done + batch} of ${inputs}`);
    }
    const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0);
    process.stdout.write(
      `${process.stderr.isTTY ? "\r\u001b[K" : ""}${seconds.padStart(5)} s  ${inputs} inputs: ${name}\n`,
    );
  }
  process.stdout.write(`${total} inputs, no rule broken\n`);
  return 0;
}

interface Options {
  readonly inputs: number;
  readonly seed: number;
  readonly only: string;
  readonly help: boolean;
}

/** The options, or what is wrong with them. */
function readOptions(args: readonly string[]): Options | string {
  try {
    const { values } = parseArgs({
      args: [...args],
      strict: true,
      allowPositionals: false,
      options: {
        inputs: { type: "string", default: "100000" },
        seed: { type: "string", default: String(Date.now() % 1_000_000_000) },
        only: { type: "string", default: "" },
        help: { type: "boolean", short: "h", default: false },
      },
    });
    const { inputs, seed, only, help } = values;
    if (!/^[1-9]\d{0,8}$/.test(inputs)) return `--inputs takes a whole number from 1, not "${inputs}"\n`;
    if (!/^\d{1,9}$/.test(seed)) return `--seed takes a whole number, not "${seed}"\n`;
    return { inputs: Number(inputs), seed: Number(seed), only, help };
  } catch (error) {
    return `${error instanceof Error ? error.message : "the options cannot be read"}\n`;
  }
}
