/** Looks for what catches a bug: the simulator first, then the test that is named. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import * as z from "zod";
import { loadKinds } from "../simulation/kinds.ts";
import { simulate } from "../simulation/simulator.ts";
import type { Bug, NamedTest } from "./bugs.ts";
import { copyWith } from "./sources.ts";

/** A seed takes a fraction of a second: one that takes so long never ends. */
const SEED_MAX_MS = 120_000;
const TEST_MAX_MS = 300_000;
const FIRST_SEED = 1;

export interface Caught {
  /** The invariant, or the test; undefined when the bug survived. */
  readonly by: string | undefined;
  /** How many seeds were run until then. */
  readonly seeds: number;
  readonly durationMs: number;
}

export interface CheckOptions {
  readonly seedsMax: number;
  /** Hears of every seed. */
  readonly onSeed: (seeds: number) => void;
  /** Ends the check when it fires. */
  readonly signal: AbortSignal;
}

/** Puts the bug into a copy of the sources and says what caught it. Throws when the copy cannot be run at all. */
export async function check(bug: Bug, options: CheckOptions): Promise<Caught> {
  const startedAt = performance.now();
  const copy = await copyWith(bug);
  try {
    const simulated =
      bug.catcher === "seeds" && options.seedsMax > 0 ? await runSeeds(bug, copy.directory, options) : NO_SEEDS;
    const isFound = simulated.by !== undefined || bug.test === undefined;
    const by = isFound ? simulated.by : await runTest(bug.test, copy.directory, options.signal);
    return { by, seeds: simulated.seeds, durationMs: performance.now() - startedAt };
  } finally {
    await copy.remove();
  }
}

type Simulated = Omit<Caught, "durationMs">;
const NO_SEEDS: Simulated = { by: undefined, seeds: 0 };
const seedSchema = z.object({ seed: z.int(), failure: z.string().optional() });

async function runSeeds({ name }: Bug, directory: string, options: CheckOptions): Promise<Simulated> {
  const { seedsMax, onSeed, signal } = options;
  const args = ["test/sabotage/seeds.ts", String(FIRST_SEED), String(seedsMax)];
  const child = spawn(process.execPath, args, { cwd: directory, signal, stdio: ["ignore", "pipe", "pipe"] });
  const ended = endOf(child);
  let complaint = "";
  child.stderr.on("data", (chunk: Buffer) => {
    complaint = `${complaint}${chunk}`.slice(-2_000);
  });
  let seeds = 0;
  let by: string | undefined;
  let isStuck = false;
  const giveUp = () => {
    isStuck = true;
    child.kill("SIGKILL");
  };
  let timer = setTimeout(giveUp, SEED_MAX_MS);
  for await (const line of createInterface({ input: child.stdout })) {
    clearTimeout(timer);
    timer = setTimeout(giveUp, SEED_MAX_MS);
    const { seed, failure } = seedSchema.parse(JSON.parse(line));
    seeds += 1;
    onSeed(seeds);
    if (failure !== undefined) by = `seed ${seed}: ${failure}`;
  }
  clearTimeout(timer);
  const error = await ended;
  if (error !== undefined) throw error;
  const seed = FIRST_SEED + seeds;
  if (isStuck && seeds > 0) return { by: `seed ${seed}: it never ends`, seeds: seeds + 1 };
  if (by === undefined && seeds < seedsMax) throw new Error(`bug ${name}: seed ${seed} cannot be run: ${complaint}`);
  const blameless = by === undefined ? undefined : await failureWithout(FIRST_SEED + seeds - 1);
  if (blameless !== undefined) throw new Error(`seed ${seed - 1} fails without any bug, too: ${blameless}`);
  return { by, seeds };
}

/** Resolves when the process is gone and its output read, with why it could not be run or was ended. */
function endOf(child: ChildProcess): Promise<Error | undefined> {
  return new Promise((resolve) => {
    let failure: Error | undefined;
    child.once("error", (error) => {
      failure = error;
      // One that was never started does not close.
      if (child.pid === undefined) resolve(failure);
    });
    child.once("close", () => resolve(failure));
  });
}

/** What the seed says of the sources as they are, which is to be nothing. */
async function failureWithout(seed: number): Promise<string | undefined> {
  return (await simulate({ seed, kinds: await loadKinds() })).failure;
}

const reportSchema = z.object({
  testResults: z.array(z.object({ assertionResults: z.array(z.object({ fullName: z.string(), status: z.string() })) })),
});

/** The name of the test that fails; undefined when none does. A file that cannot be loaded proves nothing. */
async function runTest({ file, name }: NamedTest, directory: string, signal: AbortSignal): Promise<string | undefined> {
  const report = join(directory, "sabotage-report.json");
  const pattern = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const args = [
    "node_modules/vitest/vitest.mjs",
    "run",
    "--config",
    "test/sabotage/vitest.config.ts",
    file,
    "-t",
    pattern,
  ];
  const reporting = ["--reporter=json", `--outputFile=${report}`];
  const child = spawn(process.execPath, [...args, ...reporting], { cwd: directory, signal, stdio: "ignore" });
  const timer = setTimeout(() => child.kill("SIGKILL"), TEST_MAX_MS);
  const error = await endOf(child);
  clearTimeout(timer);
  if (error !== undefined) throw error;
  const { testResults } = reportSchema.parse(JSON.parse(await readFile(report, "utf8")));
  const results = testResults.flatMap(({ assertionResults }) => assertionResults);
  const ran = results.filter(({ status }) => status === "passed" || status === "failed");
  if (ran.length === 0) throw new Error(`no test of ${file} begins with "${name}", or the file cannot be loaded`);
  const failed = ran.find(({ status }) => status === "failed");
  return failed === undefined ? undefined : `${file}: ${failed.fullName}`;
}
