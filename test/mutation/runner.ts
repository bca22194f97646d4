/**
 * Runs the planner's tests in one process, once for each mutant that Stryker switches on. They are pure, so nothing of one
 * run is left for the next; a runner that starts anew for each mutant takes seconds where this one takes milliseconds.
 */
import { readdirSync } from "node:fs";
import { registerHooks } from "node:module";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import type { InstrumenterContext } from "@stryker-mutator/api/core";
import type { Ignorer } from "@stryker-mutator/api/ignore";
import { declareFactoryPlugin, declareValuePlugin, PluginKind } from "@stryker-mutator/api/plugin";
import {
  type DryRunResult,
  DryRunStatus,
  determineHitLimitReached,
  type MutantRunOptions,
  type MutantRunResult,
  type TestResult,
  type TestRunner,
  TestStatus,
  toMutantRunResult,
} from "@stryker-mutator/api/test-runner";
import { type Case, collect, collected } from "./vitest.ts";

const FOLDER = "test/planning";
/** Plays whole passes against a world in memory, for seconds: too long to be asked about each mutant. */
const LEFT_OUT = ["world.test.ts"];
/** Asked last, for it takes longest. */
const LAST = "properties.test.ts";

declare module "@stryker-mutator/api/ignore" {
  /** What we read of Babel's. */
  interface NodePath {
    readonly node: { readonly type: string; readonly elements?: readonly unknown[] };
  }
}

declare global {
  // What the mutated code asks which mutant it is to be.
  var __stryker__: InstrumenterContext | undefined;
}

const STAND_INS = new Map(["vitest", "fast-check"].map((name) => [name, new URL(`${name}.ts`, import.meta.url).href]));
let generation = 0;

/** Planner and tests are loaded anew in each generation, with a mutant in what runs while they are loaded. */
registerHooks({
  resolve(specifier, context, next) {
    const isTest = context.parentURL?.includes("?generation=") === true;
    const url = STAND_INS.get(specifier);
    if (isTest && url !== undefined) return { url, shortCircuit: true };
    const resolved = next(specifier, context);
    return isTest && specifier.startsWith(".")
      ? { ...resolved, url: `${resolved.url}?generation=${generation}` }
      : resolved;
  },
});

async function load(): Promise<TestResult | undefined> {
  generation += 1;
  const files = readdirSync(FOLDER).filter((name) => name.endsWith(".test.ts") && !LEFT_OUT.includes(name));
  for (const file of files.sort()) {
    const before = collected().find((one) => one.file === file);
    try {
      await collect(file, () => import(`${pathToFileURL(resolve(FOLDER, file)).href}?generation=${generation}`));
    } catch (error) {
      return failed(before?.id ?? file, 0, error);
    }
  }
  return undefined;
}

function failed(id: string, timeSpentMs: number, error: unknown): TestResult {
  const failureMessage = error instanceof Error ? error.message : String(error);
  return { id, name: id, timeSpentMs, status: TestStatus.Failed, failureMessage };
}

async function run({ id, run: body }: Case): Promise<TestResult> {
  const startedAt = performance.now();
  try {
    await body();
  } catch (error) {
    return failed(id, performance.now() - startedAt, error);
  }
  return { id, name: id, timeSpentMs: performance.now() - startedAt, status: TestStatus.Success };
}

/** How many mutants a test has killed: it is asked early the next time. */
const kills = new Map<string, number>();

/** First the tests that are named after the file, then those that were of use. */
function inOrder(cases: readonly Case[], mutated: string): readonly Case[] {
  const own = basename(mutated).replace(/\.ts$/, ".test.ts");
  const rank = ({ file }: Case) => (file === LAST ? 2 : Number(file !== own));
  return cases.toSorted((a, b) => rank(a) - rank(b) || (kills.get(b.id) ?? 0) - (kills.get(a.id) ?? 0));
}

async function dryRun(): Promise<DryRunResult> {
  const context: InstrumenterContext = { mutantCoverage: { static: {}, perTest: {} } };
  globalThis.__stryker__ = context;
  const broken = await load();
  isStale = broken !== undefined;
  if (broken !== undefined) return { status: DryRunStatus.Complete, tests: [broken] };
  const tests: TestResult[] = [];
  for (const one of collected()) {
    context.currentTestId = one.id;
    tests.push(await run(one));
  }
  const { mutantCoverage = { static: {}, perTest: {} } } = context;
  return { status: DryRunStatus.Complete, tests, mutantCoverage };
}

/** What is loaded holds a mutant, or nothing is. */
let isStale = true;

/** Stryker gives all tests together so many times what they took to reach the mutant's place without it. */
const STRYKER_HITS_FACTOR = 100;
/** What one test may take of that: no more than all did, and then some. A loop that does not end is noticed in less time. */
const HITS_FACTOR = 2;
const HITS_MIN = 10_000;

function hitsOfOne(hitLimit: number | undefined): number | undefined {
  return hitLimit && Math.max(HITS_MIN, (hitLimit / STRYKER_HITS_FACTOR) * HITS_FACTOR);
}

async function mutantRun(options: MutantRunOptions): Promise<MutantRunResult> {
  const { activeMutant, mutantActivation, testFilter } = options;
  const hitLimit = hitsOfOne(options.hitLimit);
  const context = globalThis.__stryker__ ?? {};
  globalThis.__stryker__ = context;
  const isStatic = mutantActivation === "static";
  Object.assign(context, { activeMutant: isStatic ? activeMutant.id : undefined, hitCount: 0, hitLimit });
  const broken = isStatic || isStale ? await load() : undefined;
  isStale = isStatic;
  if (broken !== undefined) return toMutantRunResult({ status: DryRunStatus.Complete, tests: [broken] });
  context.activeMutant = activeMutant.id;
  const wanted = testFilter && new Set(testFilter);
  const tests: TestResult[] = [];
  for (const one of inOrder(collected(), activeMutant.fileName)) {
    if (wanted !== undefined && !wanted.has(one.id)) continue;
    context.hitCount = 0;
    const result = await run(one);
    const endless = determineHitLimitReached(context.hitCount, hitLimit);
    if (endless !== undefined) return toMutantRunResult(endless);
    tests.push(result);
    if (result.status !== TestStatus.Failed) continue;
    kills.set(one.id, (kills.get(one.id) ?? 0) + 1);
    break;
  }
  return toMutantRunResult({ status: DryRunStatus.Complete, tests });
}

function createRunner(): TestRunner {
  return { capabilities: () => ({ reloadEnvironment: true }), dryRun, mutantRun };
}
createRunner.inject = [] as const;

/** Stryker puts a text into empty lists, which hardly any of them may hold: what comes of it says nothing of the tests. */
const emptyLists: Ignorer = {
  shouldIgnore: ({ node: { type, elements } }) =>
    type === "ArrayExpression" && elements?.length === 0 ? "a text in an empty list" : undefined,
};

export const strykerPlugins = [
  declareFactoryPlugin(PluginKind.TestRunner, "planner", createRunner),
  declareValuePlugin(PluginKind.Ignore, "emptyLists", emptyLists),
];
