/** `npm run simulate`: runs seeds one after the other, on a terminal with a bar; stops at the first that fails and tells its story. */
import { parseArgs } from "node:util";
import { addCoverage, describeCoverage, type Sight } from "./coverage.ts";
import { addFaults, describeFaults, type FaultTable, unmetFaults } from "./faults.ts";
import { loadKinds } from "./kinds.ts";
import { explainFailure, STEPS, simulate } from "./simulator.ts";

const HELP = `Runs the functions on an API server in memory, under random users, faults and interleavings, and checks the invariants.

  npm run simulate -- [options]

  --runs N      how many seeds (default 1000; with --minutes as many as there is time for)
  --minutes M   stops after so many minutes
  --seed S      the first seed (default: another one each time)
  --only LIST   of each run only the steps at these positions, such as 3,5,9: replays a shrunk story
  --coverage    tells at the end what was seen how often, and which fault has befallen which call
  --help        this text

Ends with 1 when an invariant was broken, and prints the seed, the shortest story found and the line that replays it.
`;
const BAR_WIDTH = 30;
const BAR_INTERVAL_MS = 200;
const MINUTE_MS = 60_000;

const { values } = parseArgs({
  options: {
    runs: { type: "string" },
    minutes: { type: "string" },
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

function showBar(part: number, told: string): void {
  const filled = Math.floor(Math.min(1, part) * BAR_WIDTH);
  process.stderr.write(`\r${"█".repeat(filled)}${"░".repeat(BAR_WIDTH - filled)} ${told} `);
}

function rate(done: number, startedAt: number): string {
  return ((done * 1_000) / Math.max(1, performance.now() - startedAt)).toFixed(1);
}

async function main(): Promise<number> {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const limitMs =
    values.minutes === undefined ? Number.POSITIVE_INFINITY : wholeNumber("minutes", values.minutes) * MINUTE_MS;
  const runs =
    values.runs !== undefined
      ? wholeNumber("runs", values.runs)
      : values.minutes === undefined
        ? 1_000
        : Number.POSITIVE_INFINITY;
  const first = wholeNumber("seed", values.seed);
  const only =
    values.only === undefined ? {} : { only: values.only.split(",").map((text) => wholeNumber("only", text)) };
  const kinds = await loadKinds();
  const startedAt = performance.now();
  const elapsedMs = () => performance.now() - startedAt;
  const seen = new Map<Sight, number>();
  const met: FaultTable = new Map();
  let shownAt = 0;
  let done = 0;
  let passesMax = 0;
  process.stdout.write(`seeds from ${first} on, ${STEPS} steps each\n`);
  for (; done < runs && elapsedMs() < limitMs; done += 1) {
    const seed = first + done;
    const result = await simulate({ seed, kinds, ...only });
    const { failure, trace } = result;
    if (failure !== undefined) {
      const told =
        values.only === undefined ? await explainFailure({ seed, kinds }, failure) : `${trace.join("\n")}\n${failure}`;
      process.stdout.write(`\n${told}\n`);
      return 1;
    }
    addCoverage(seen, result.coverage);
    addFaults(met, result.met);
    passesMax = Math.max(passesMax, result.passes);
    if (!process.stderr.isTTY || performance.now() - shownAt < BAR_INTERVAL_MS) continue;
    shownAt = performance.now();
    const told = `${done + 1}${Number.isFinite(runs) ? `/${runs}` : ""} runs, ${rate(done + 1, startedAt)} runs/s`;
    showBar(Math.max((done + 1) / runs, elapsedMs() / limitMs), told);
  }
  if (process.stderr.isTTY) process.stderr.write("\r\u001b[K");
  if (values.coverage) {
    const unmet = unmetFaults(met);
    process.stdout.write(`${describeCoverage(seen)}\n\n${describeFaults(met)}\n`);
    process.stdout.write(`\nnever met: ${unmet.length === 0 ? "nothing" : unmet.join(", ")}\n`);
  }
  const seeds = `seeds ${first} to ${first + done - 1}`;
  process.stdout.write(
    `${done} runs (${seeds}), no invariant broken, ${rate(done, startedAt)} runs/s; in peace a cluster matched after at most ${passesMax} passes\n`,
  );
  return 0;
}

// The functions' own deadlines are real timers that nobody waits for.
process.exit(await main());
