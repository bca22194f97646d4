/** `npm run mutate`: breaks the planner in every small way, one at a time, and fails when the tests do not notice one that is not explained. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import type { MutantResult } from "@stryker-mutator/api/core";
import { Stryker } from "@stryker-mutator/core";
import * as z from "zod";

const HELP = `Breaks shared/planning in every small way, one at a time, and runs test/planning against each.
Fails when a change goes unnoticed that test/mutation/survivors.json does not explain.

  npm run mutate -- [options]

  --only LIST     modules, such as claim,json (default: all of them)
  --changed       only declarations that differ from those of the last run of their whole module
                  (test/mutation/proven.json), and a sample of the others
  --record        writes down what goes unnoticed as open and, of modules that were run whole, what was proven
  --static        also what runs only while modules are loaded, such as constants: seconds for each
  --processes N   at a time (default 2)
  --help          this text
`;
const FOLDER = "shared/planning";
const TESTS = "test/planning";
const SURVIVORS = "test/mutation/survivors.json";
const PROVEN = "test/mutation/proven.json";
/** Of declarations that did not change, in lines. */
const SAMPLE_LINES = 150;
/** A mutant that runs so long, beside one and a half times what the tests take, does not end. */
const TIMEOUT_MS = 5_000;

const survivorSchema = z.strictObject({
  module: z.string(),
  /** The line that it begins in, without indentation. */
  line: z.string(),
  /** `text → what it was replaced by`, white space made single. */
  mutant: z.string(),
  /** Left out while nobody has looked into it: it is to get a test, or a reason. */
  why: z.string().min(20).optional(),
});
type Survivor = z.infer<typeof survivorSchema>;
const provenSchema = z.record(z.string(), z.array(z.string()));

/** A top-level declaration with what stands above it, and its lines, from 1. */
interface Declaration {
  readonly module: string;
  readonly first: number;
  readonly last: number;
  readonly hash: string;
}

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    changed: { type: "boolean", default: false },
    record: { type: "boolean", default: false },
    static: { type: "boolean", default: false },
    processes: { type: "string", default: "2" },
    help: { type: "boolean", default: false },
  },
});

async function main(): Promise<number> {
  if (values.help) return say(HELP);
  const known = modulesOf(FOLDER);
  const modules = values.only?.split(",").map((name) => name.replace(/\.ts$/, "")) ?? known;
  const unknown = modules.filter((name) => !known.includes(name));
  if (unknown.length > 0) return say(`there is no ${FOLDER}/${unknown.join(", ")}.ts\n`, 1);
  const declarations = modules.flatMap(declarationsOf);
  const chosen = values.changed ? select(declarations) : declarations;
  if (chosen.length === 0) return say("nothing to do\n");
  const startedAt = performance.now();
  const results = (await mutate(values.changed ? chosen.map(rangeOf) : modules.map(pathOf))).filter(
    ({ status }) => status !== "Ignored",
  );
  const seconds = Math.round((performance.now() - startedAt) / 1_000);
  const explained = z.array(survivorSchema).parse(JSON.parse(readFileSync(SURVIVORS, "utf8")));
  const found = results.filter(isUnnoticed).map((result) => ({ ...textsOf(result), result }));
  const fresh = found.filter((one) => !explained.some((survivor) => isSame(survivor, one)));
  // A part of the mutants says nothing of the explanations for the others.
  const stale = explained.filter(
    (survivor) => !values.changed && modules.includes(survivor.module) && !found.some((one) => isSame(survivor, one)),
  );
  say(`\n${table(results, explained)}\n\n`);
  for (const { result, ...texts } of fresh) say(`unnoticed (${result.status}): ${describe(texts, result)}\n`);
  for (const survivor of stale) say(`in ${SURVIVORS} in vain: ${describe(survivor)}\n`);
  say(`${results.length} mutants in ${seconds} s: ${fresh.length} unnoticed, ${stale.length} explained in vain\n`);
  if (values.record) {
    const kept = explained.filter((survivor) => !stale.includes(survivor));
    const open = fresh.map(({ module, line, mutant }) => ({ module, line, mutant }));
    recordSurvivors([...kept, ...open]);
    if (!values.changed) recordProven(declarations);
    return 0;
  }
  return fresh.length + stale.length === 0 ? 0 : 1;
}

function say(text: string, code = 0): number {
  process.stdout.write(text);
  return code;
}

function modulesOf(folder: string): readonly string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith(".ts"))
    .map((name) => name.replace(/\.ts$/, ""))
    .sort();
}

function pathOf(module: string): string {
  return `${FOLDER}/${module}.ts`;
}

function rangeOf({ module, first, last }: Declaration): string {
  return `${pathOf(module)}:${first}-${last}`;
}

function linesOf(module: string): readonly string[] {
  return readFileSync(pathOf(module), "utf8").split("\n");
}

/** The formatter indents all that is not top-level: what follows an empty line without indentation begins a declaration. */
function declarationsOf(module: string): readonly Declaration[] {
  const lines = linesOf(module);
  const starts = lines.flatMap((line, index) =>
    index === 0 || (lines[index - 1] === "" && /^\S/.test(line)) ? [index] : [],
  );
  return starts.map((start, index) => {
    const end = starts[index + 1] ?? lines.length;
    return { module, first: start + 1, last: end, hash: hash(lines.slice(start, end).join("\n").trim()) };
  });
}

function hash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 12);
}

/**
 * What is new since its module was last run whole, and some of the rest, other ones after each change: a test that was
 * weakened is found sooner or later before the next whole run.
 */
function select(declarations: readonly Declaration[]): readonly Declaration[] {
  const proven = readProven();
  const isProven = ({ module, hash }: Declaration) => proven[module]?.includes(hash) === true;
  const state = hash(
    readdirSync(TESTS)
      .sort()
      .map((name) => readFileSync(join(TESTS, name), "utf8"))
      .join("\n"),
  );
  const others = declarations.filter(isProven).sort((a, b) => (hash(state + a.hash) < hash(state + b.hash) ? -1 : 1));
  let room = SAMPLE_LINES;
  const sample = others.filter(({ first, last }) => {
    const fits = room > 0;
    room -= last - first + 1;
    return fits;
  });
  const changed = declarations.filter((declaration) => !isProven(declaration));
  say(`${changed.length} declarations are new or changed; ${sample.length} others are a sample\n`);
  return [...changed, ...sample];
}

function readProven(): z.infer<typeof provenSchema> {
  return provenSchema.parse(JSON.parse(readFileSync(PROVEN, "utf8")));
}

/** Of modules that were not run, what was proven before stays. */
function recordProven(declarations: readonly Declaration[]): void {
  const proven = readProven();
  const byModule = Map.groupBy(declarations, ({ module }) => module);
  const hashes = modulesOf(FOLDER).flatMap((module) => {
    const known = byModule.get(module)?.map(({ hash }) => hash) ?? proven[module];
    return known === undefined ? [] : [[module, known] as const];
  });
  writeJson(PROVEN, Object.fromEntries(hashes));
}

function recordSurvivors(survivors: readonly Survivor[]): void {
  writeJson(
    SURVIVORS,
    survivors.toSorted((a, b) => (a.module < b.module ? -1 : Number(a.module > b.module))),
  );
}

/** `npm run format` gives it its form. */
function writeJson(path: string, value: unknown): void {
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`);
}

async function mutate(what: readonly string[]): Promise<readonly MutantResult[]> {
  const stryker = new Stryker({
    mutate: [...what],
    testRunner: "planner",
    plugins: ["./test/mutation/runner.ts"],
    coverageAnalysis: "perTest",
    concurrency: Number(values.processes),
    // What messages say is judged by whoever reads them.
    mutator: { plugins: null, excludedMutations: ["StringLiteral"] },
    ignorers: ["emptyLists"],
    reporters: process.stderr.isTTY ? ["progress"] : ["progress-append-only"],
    tempDirName: ".local/mutation",
    ignorePatterns: [".*", "docs", "tsconfig.json"],
    timeoutMS: TIMEOUT_MS,
    timeoutFactor: 1.5,
    ignoreStatic: !values.static,
    allowEmpty: true,
  });
  return stryker.runMutationTest();
}

function isUnnoticed({ status }: MutantResult): boolean {
  return status !== "Killed" && status !== "Timeout" && status !== "Ignored";
}

function moduleOf({ fileName }: MutantResult): string {
  return basename(fileName, ".ts");
}

function textsOf(result: MutantResult): Pick<Survivor, "module" | "line" | "mutant"> {
  const { start, end } = result.location;
  const module = moduleOf(result);
  const lines = linesOf(module).slice(start.line - 1, end.line);
  const [line = ""] = lines;
  const whole = lines.join("\n");
  const cut = whole.length - (lines.at(-1)?.length ?? 0) + end.column - 1;
  const mutant = `${whole.slice(start.column - 1, cut)} → ${result.replacement}`.replaceAll(/\s+/g, " ");
  return { module, line: line.trim(), mutant };
}

function isSame(a: Survivor, b: Survivor): boolean {
  return a.module === b.module && a.line === b.line && a.mutant === b.mutant;
}

function describe({ module, line, mutant }: Survivor, result?: MutantResult): string {
  return `${pathOf(module)}${result === undefined ? "" : `:${result.location.start.line}`}: ${mutant}\n    ${line}`;
}

function table(results: readonly MutantResult[], explained: readonly Survivor[]): string {
  const rows = [...Map.groupBy(results, moduleOf), ["all", results] as const].map(([module, all]) => {
    const count = (status: string) => all.filter((result) => result.status === status).length;
    const known = all.filter(isUnnoticed).map((result) => explained.find((one) => isSame(one, textsOf(result))));
    const open = known.filter((survivor) => survivor !== undefined && survivor.why === undefined).length;
    const unnoticed = known.filter((survivor) => survivor === undefined).length;
    return [module, all.length, count("Killed"), count("Timeout"), known.length - open - unnoticed, open, unnoticed];
  });
  const head = ["module", "mutants", "noticed", "endless", "explained", "open", "unnoticed"];
  return [head, ...rows]
    .map(([name, ...cells]) => `${String(name).padEnd(18)}${cells.map((cell) => String(cell).padStart(10)).join("")}`)
    .join("\n");
}

process.exitCode = await main();
