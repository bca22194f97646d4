/** `npm test`, `npm run test:unit` and `npm run check`: runs every check, shows its output, ends with the line `N passed, N failed`. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as z from "zod";

interface Tally {
  readonly passed: number;
  readonly failed: number;
}

const reportSchema = z.object({
  numPassedTests: z.int(),
  numFailedTests: z.int(),
  numFailedTestSuites: z.int(),
  success: z.boolean(),
});

const CHECKS = [
  { name: "format and lint", args: ["node_modules/@biomejs/biome/bin/biome", "check", "--error-on-warnings", "."] },
  { name: "types", args: ["node_modules/typescript/bin/tsc", "-p", "."] },
] as const;
/** The tests of the planner notice each small break of what has changed in it. */
const MUTATIONS = { name: "mutations of the planner", args: ["test/mutation/main.ts", "--changed"] } as const;

/** What a deploy sends can be made offline, is not too large, and is a template that cfn-lint has nothing against. */
const PACKAGE = { name: "package", args: ["infra/package/main.ts", "package"] } as const;

/** A check that is one command counts as one test. */
function check({ name, args }: (typeof CHECKS)[number] | typeof MUTATIONS | typeof PACKAGE): Tally {
  process.stdout.write(`\n${name}\n`);
  const { status } = spawnSync(process.execPath, args, { stdio: "inherit" });
  return status === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

/** Runs vitest and counts from its report; a runner that dies without one counts as a failure. */
function runTests(projects: readonly string[]): Tally {
  const folder = mkdtempSync(join(tmpdir(), "vmpool-functions-"));
  const report = join(folder, "report.json");
  const selected = projects.flatMap((project) => ["--project", project]);
  const reporters = ["--reporter=default", "--reporter=json", `--outputFile.json=${report}`];
  try {
    const { status } = spawnSync(
      process.execPath,
      ["node_modules/vitest/vitest.mjs", "run", ...selected, ...reporters],
      { stdio: "inherit" },
    );
    const { numPassedTests, numFailedTests, numFailedTestSuites } = reportSchema.parse(
      JSON.parse(readFileSync(report, "utf8")),
    );
    const failed = Math.max(numFailedTests, numFailedTests === 0 ? numFailedTestSuites : 0, status === 0 ? 0 : 1);
    return { passed: numPassedTests, failed };
  } catch (error) {
    process.stdout.write(`the test runner ended without a report: ${error instanceof Error ? error.message : error}\n`);
    return { passed: 0, failed: 1 };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function runAll(what: string | undefined): readonly Tally[] {
  switch (what) {
    case "check":
      return CHECKS.map(check);
    case "unit":
      return [runTests(["unit"])];
    case undefined:
      return [...CHECKS.map(check), check(MUTATIONS), check(PACKAGE), runTests(["unit", "real"])];
    default:
      process.stderr.write(`"${what}" is not something to run: leave it out, or give check or unit\n`);
      return [{ passed: 0, failed: 1 }];
  }
}

const tallies = runAll(process.argv[2]);
const passed = tallies.reduce((sum, tally) => sum + tally.passed, 0);
const failed = tallies.reduce((sum, tally) => sum + tally.failed, 0);
process.stdout.write(`\n${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
