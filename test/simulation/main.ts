/** `npm run simulate`: runs seeds one after the other, on a terminal with a bar; stops at the first that fails and tells its story. */
import { parseArgs } from "node:util";
import { addCoverage, describeCoverage, type Sight } from "./coverage.ts";
import { loadKinds } from "./kinds.ts";
import { explainFailure, STEPS, simulate } from "./simulator.ts";

const HELP = `Runs the functions on an API server in memory, under random users, faults and interleavings, and checks the invariants.

  npm run simulate -- [options]

  --runs N      how many seeds (default 1000)
  --seed S      the first of them (default: another one each time)
  --only LIST   of each run only the steps at these positions, such as 3,5,9: replays a shrunk story
  --coverage    tells at the end what was seen how often
  --help        this text
`;
const BAR_WIDTH = 30;
const BAR_INTERVAL_MS = 200;

const { values } = parseArgs({
  options: {
    runs: { type: "string", default: "1000" },
    seed: { type: "string", default: String(Date.now() % 1_000_000_000) },
    only: { type: "string" },
    coverage: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

function wholeNumber(name: string, text: string): number {
  if (/^\d{1,9}$/.test(text)) return Number(text);
  process.stderr.write(`--${name} takes a whole number, not "${text}"\n`);
  return process.exit(1);
}

function showBar(done: number, runs: number, startedAt: number): void {
  const filled = Math.floor((done / runs) * BAR_WIDTH);
  const bar = `${"█".repeat(filled)}${"░".repeat(BAR_WIDTH - filled)}`;
  process.stderr.write(`\r${bar} ${done}/${runs} runs, ${rate(done, startedAt)} runs/s `);
}

function rate(done: number, startedAt: number): string {
  return ((done * 1_000) / Math.max(1, performance.now() - startedAt)).toFixed(1);
}

async function main(): Promise<number> {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const runs = wholeNumber("runs", values.runs);
  const first = wholeNumber("seed", values.seed);
  const only =
    values.only === undefined ? {} : { only: values.only.split(",").map((text) => wholeNumber("only", text)) };
  const kinds = await loadKinds();
  const startedAt = performance.now();
  const seen = new Map<Sight, number>();
  let shownAt = 0;
  process.stdout.write(`seeds ${first} to ${first + runs - 1}, ${STEPS} steps each\n`);
  for (let done = 0; done < runs; done += 1) {
    const seed = first + done;
    const { failure, trace, coverage } = await simulate({ seed, kinds, ...only });
    if (failure !== undefined) {
      const told =
        values.only === undefined ? await explainFailure({ seed, kinds }, failure) : `${trace.join("\n")}\n${failure}`;
      process.stdout.write(`\n${told}\n`);
      return 1;
    }
    addCoverage(seen, coverage);
    if (!process.stderr.isTTY || performance.now() - shownAt < BAR_INTERVAL_MS) continue;
    shownAt = performance.now();
    showBar(done + 1, runs, startedAt);
  }
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[K");
  if (values.coverage) process.stdout.write(`${describeCoverage(seen)}\n`);
  process.stdout.write(`${runs} runs, no invariant broken, ${rate(runs, startedAt)} runs/s\n`);
  return 0;
}

// The functions' own deadlines are real timers that nobody waits for.
process.exit(await main());
