/** `npm run sabotage`: puts known bugs into copies of the sources, one at a time, and tells what catches each. */

import { createRandom } from "../simulation/random.ts";
import { createProgressLine, freshSeed, readOptions, refuse, wholeNumber } from "../support/command-line.ts";
import { BUGS, type Bug } from "./bugs.ts";
import { check } from "./check.ts";

const HELP = `Puts known bugs into copies of the sources, one at a time, and tells which check catches each: the simulator by one of its
first seeds, else the test that is named for it. The working tree is only read.

  npm run sabotage -- [options]

  --only LIST   only the bugs of these names, such as claim-skipped,paused-ignored
  --sample N    only so many of them, chosen by --seed
  --seed S      of the choice (default: another one each time)
  --seeds N     how many seeds the simulator has for each bug (default 300); with 0 only the tests are run
  --jobs N      how many bugs are looked for at once (default 2)
  --list        tells the bugs and what is wrong with them, and runs nothing
  --help        this text
`;

const values = readOptions({
  only: { type: "string" },
  sample: { type: "string" },
  seed: { type: "string", default: freshSeed() },
  seeds: { type: "string", default: "300" },
  jobs: { type: "string", default: "2" },
  list: { type: "boolean", default: false },
  help: { type: "boolean", default: false },
});
const line = createProgressLine();

function chooseBugs(): readonly Bug[] {
  const names = values.only?.split(",");
  const unknown = names?.filter((name) => !BUGS.some((bug) => bug.name === name)) ?? [];
  if (unknown.length > 0) return refuse(`there is no bug ${unknown.join(", ")}: --list names them`);
  const named = BUGS.filter(({ name }) => names?.includes(name) ?? true);
  if (values.sample === undefined) return named;
  const seed = wholeNumber("seed", values.seed);
  process.stdout.write(`chosen by --seed ${seed}\n`);
  return sampleOf(named, wholeNumber("sample", values.sample, { min: 1 }), seed);
}

/** So many of the bugs, in their order. */
function sampleOf(bugs: readonly Bug[], count: number, seed: number): readonly Bug[] {
  const random = createRandom(seed);
  const drawn = bugs.map((bug) => ({ bug, key: random.int(2 ** 30) })).sort((a, b) => a.key - b.key);
  const chosen = new Set(drawn.slice(0, count).map(({ bug }) => bug));
  return bugs.filter((bug) => chosen.has(bug));
}

interface Progress {
  readonly bugs: number;
  readonly width: number;
  done: number;
  /** Of the bugs under way. */
  readonly seeds: Map<string, number>;
}

function showBar({ seeds, done, bugs }: Progress): void {
  const underWay = [...seeds].map(([name, count]) => `${name} (${count})`).join(", ");
  line.show(`${done}/${bugs} bugs: ${underWay}`, done / bugs);
}

function showRow(text: string): void {
  line.clear();
  process.stdout.write(`${text.trimEnd()}\n`);
}

const DETAIL_MAX = 150;

function rowOf(width: number, cells: readonly [string, string, string, string]): string {
  const [name, seeds, seconds, by] = cells;
  const shown = by.replaceAll(/\s+/g, " ");
  const cut = shown.length > DETAIL_MAX ? `${shown.slice(0, DETAIL_MAX)}…` : shown;
  return `${name.padEnd(width)}  ${seeds.padStart(5)}  ${seconds.padStart(7)}  ${cut}`;
}

async function lookFor(bug: Bug, progress: Progress, signal: AbortSignal): Promise<boolean> {
  const { name } = bug;
  const { width } = progress;
  progress.seeds.set(name, 0);
  showBar(progress);
  const onSeed = (seeds: number) => {
    progress.seeds.set(name, seeds);
    showBar(progress);
  };
  try {
    const { by, seeds, durationMs } = await check(bug, {
      seedsMax: wholeNumber("seeds", values.seeds),
      onSeed,
      signal,
    });
    showRow(rowOf(width, [name, String(seeds), (durationMs / 1_000).toFixed(1), by ?? "SURVIVED"]));
    return by !== undefined;
  } catch (error) {
    if (signal.aborted) return false;
    showRow(rowOf(width, [name, "", "", `ERROR ${error instanceof Error ? error.message : String(error)}`]));
    return false;
  } finally {
    progress.seeds.delete(name);
    progress.done += 1;
  }
}

async function main(): Promise<number> {
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const bugs = chooseBugs();
  const width = Math.max(...bugs.map(({ name }) => name.length));
  if (values.list) {
    for (const { name, defect, what } of bugs)
      process.stdout.write(`${name.padEnd(width)}  ${(defect ?? "").padEnd(3)}  ${what}\n`);
    return 0;
  }
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => controller.abort());
  const progress: Progress = { bugs: bugs.length, width, done: 0, seeds: new Map() };
  process.stdout.write(`${rowOf(width, ["bug", "seeds", "seconds", "caught by"])}\n`);
  const survived: string[] = [];
  const jobs = wholeNumber("jobs", values.jobs, { min: 1 });
  const waiting = [...bugs];
  await Promise.all(
    Array.from({ length: jobs }, async () => {
      for (let bug = waiting.shift(); bug !== undefined && !controller.signal.aborted; bug = waiting.shift()) {
        if (!(await lookFor(bug, progress, controller.signal))) survived.push(bug.name);
      }
    }),
  );
  if (controller.signal.aborted) return 130;
  line.clear();
  if (survived.length > 0) process.stdout.write(`survived: ${survived.join(", ")}\n`);
  process.stdout.write(`${bugs.length - survived.length} of ${bugs.length} caught\n`);
  return survived.length === 0 ? 0 : 1;
}

process.exit(await main());
