/** `npm run simulate`: runs seeds one after the other, on a terminal with a bar; stops at the first that fails and tells its story. */
import { createProgressLine, freshSeed, readOptions, wholeNumber } from "../support/command-line.ts";
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
const MINUTE_MS = 60_000;

const values = readOptions({
  runs: { type: "string" },
  minutes: { type: "string" },
  seed: { type: "string", default: freshSeed() },
  only: { type: "string" },
  coverage: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
});

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
  const line = createProgressLine();
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
    const told = `${done + 1}${Number.isFinite(runs) ? `/${runs}` : ""} runs, ${rate(done + 1, startedAt)} runs/s`;
    line.show(told, Math.max((done + 1) / runs, elapsedMs() / limitMs));
  }
  line.clear();
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
