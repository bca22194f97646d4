/** `npm run outages`: faults of real servers for as long as wanted, with figures at the end, or the story of what went wrong. */
import { freshSeed, readOptions, wholeNumber } from "../support/command-line.ts";
import { runOutages } from "./outages.ts";

const MINUTES_MAX = 24 * 60;
const POOLS_MAX = 100;
const STORY_LINES_MAX = 200;
const INTERRUPTED = 130;
const HELP = `Usage: npm run outages -- [options]

Starts a control plane, the stand-in for KubeVirt and the functions, and changes pools all the time
while the API server, etcd, credentials and the functions' process fail one after the other. Every
change is judged; in the end all pools have to come to rest as they should be.

Options:
  --minutes N   how long faults happen (default 10)
  --seed S      of the schedule (default: another one each time)
  --pools N     how many pools there are (default 20)
  --help        show this

Exit codes: 0 all went well, 1 something is wrong (the story is told), 2 a wrong option.
`;

const values = readOptions({
  minutes: { type: "string", default: "10" },
  seed: { type: "string", default: freshSeed() },
  pools: { type: "string", default: "20" },
  help: { type: "boolean", default: false },
});

process.exitCode = await main();
process.exit();

async function main(): Promise<number> {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const minutes = wholeNumber("minutes", values.minutes, { min: 1, max: MINUTES_MAX });
  const seed = wholeNumber("seed", values.seed);
  const pools = wholeNumber("pools", values.pools, { min: 1, max: POOLS_MAX });
  process.stdout.write(`seed ${seed}, ${pools} pools, faults for ${minutes} minutes\n`);
  const ending = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => ending.abort());
  const report = await runOutages({
    ...{ seed, pools, durationMs: minutes * 60_000, patience: 0.5, signal: ending.signal },
    onProgress: (line) => process.stderr.write(`${line}\n`),
  }).catch((error: unknown) => {
    if (!ending.signal.aborted) throw error;
  });
  if (report === undefined) return INTERRUPTED;
  const { violations, figures, story } = report;
  const width = Math.max(...figures.map(([what]) => what.length));
  for (const [what, value] of figures) process.stdout.write(`${what.padEnd(width)}  ${value}\n`);
  if (violations.length === 0) {
    process.stdout.write("nothing is wrong\n");
    return 0;
  }
  process.stdout.write(`\n${story.slice(-STORY_LINES_MAX).join("\n")}\n\n${violations.join("\n")}\n`);
  process.stdout.write(`again: npm run outages -- --seed ${seed} --minutes ${minutes} --pools ${pools}\n`);
  return 1;
}
