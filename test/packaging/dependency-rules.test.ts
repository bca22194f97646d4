import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, expect, it } from "vitest";
import * as z from "zod";

const ROOT = join(import.meta.dirname, "../..");
const IMPORTS = "lint/style/noRestrictedImports";
const GLOBALS = "lint/style/noRestrictedGlobals";
const PROCESS_ENV = "lint/style/noProcessEnv";
const CYCLES = "lint/suspicious/noImportCycles";
const PLUGIN = "plugin";

const KUBERNETES = "only shared/clusters imports the Kubernetes client";
const MESSAGING = "only shared/events imports AWS messaging clients";
const FUNCTIONS = "only infra/local and tests import functions";
const INFRA = "shared/ and functions/ do not import infra/";
const TESTS = "nothing outside test/ imports test/";
const PURE = "shared/planning is pure: time and chance come in as arguments";
const PLANNING = "shared/planning imports only itself and zod";

/** A file, and the one complaint about it; none when it keeps the rules. */
interface Sample {
  readonly folder: string;
  readonly code: string;
  readonly complaint: readonly [category: string, message: string] | undefined;
}

function imports(folder: string, from: string, message?: string): Sample {
  const code = `import { x } from "${from}";\n\nexport const y = x;\n`;
  return { folder, code, complaint: message === undefined ? undefined : [IMPORTS, message] };
}

function code(folder: string, text: string, complaint?: Sample["complaint"]): Sample {
  return { folder, code: `${text}\n`, complaint };
}

const CLIENTS = ["@aws-sdk/client-sqs", "@aws-sdk/client-eventbridge", "@aws-sdk/client-sns"];
const KUBERNETES_CLIENTS = ["@kubernetes/client-node", "@kubernetes/client-node/dist/config.js"];

const IMPORT_SAMPLES: readonly Sample[] = [
  ...["node:fs", "node:crypto", "fast-check", "zod/mini", "@middy/core", ...CLIENTS, ...KUBERNETES_CLIENTS].map(
    (from) => imports("shared/planning", from, PLANNING),
  ),
  ...["../clusters/x.ts", "../events/x.ts", "../runtime/x.ts", "../../functions/x.ts", "../../test/x.ts"].map((from) =>
    imports("shared/planning", from, PLANNING),
  ),
  ...["./names.ts", "zod"].map((from) => imports("shared/planning", from)),
  code("shared/planning", 'export * from "node:fs";', [IMPORTS, PLANNING]),
  code("shared/planning", 'export const load = () => import("node:fs");', [IMPORTS, PLANNING]),
  code("shared/planning", 'import type { Stats } from "node:fs";\n\nexport type A = Stats;', [IMPORTS, PLANNING]),

  ...CLIENTS.map((from) => imports("shared/clusters", from, MESSAGING)),
  imports("shared/clusters", "../events/wake-ups.ts", "shared/clusters leans on shared/planning only"),
  imports("shared/clusters", "../runtime/logger.ts", "shared/clusters leans on shared/planning only"),
  imports("shared/clusters", "../../functions/resync.ts", FUNCTIONS),
  imports("shared/clusters", "../../infra/local/http.ts", INFRA),
  imports("shared/clusters", "../../test/support/x.ts", TESTS),
  ...["../planning/plan.ts", "./access.ts", "node:fs", "undici", "@aws-sdk/client-eks", ...KUBERNETES_CLIENTS].map(
    (from) => imports("shared/clusters", from),
  ),

  ...KUBERNETES_CLIENTS.map((from) => imports("shared/events", from, KUBERNETES)),
  imports("shared/events", "../clusters/cluster.ts", "shared/events leans on shared/planning only"),
  imports("shared/events", "../runtime/config.ts", "shared/events leans on shared/planning only"),
  imports("shared/events", "../../functions/resync.ts", FUNCTIONS),
  imports("shared/events", "../../infra/local/http.ts", INFRA),
  imports("shared/events", "../../test/support/x.ts", TESTS),
  ...["../planning/json.ts", "./facts.ts", "node:crypto", ...CLIENTS].map((from) => imports("shared/events", from)),

  ...CLIENTS.map((from) => imports("shared/runtime", from, MESSAGING)),
  ...KUBERNETES_CLIENTS.map((from) => imports("shared/runtime", from, KUBERNETES)),
  imports("shared/runtime", "../clusters/cluster.ts", "shared/runtime leans on shared/planning only"),
  imports("shared/runtime", "../events/facts.ts", "shared/runtime leans on shared/planning only"),
  imports("shared/runtime", "../../functions/resync.ts", FUNCTIONS),
  imports("shared/runtime", "../../infra/local/http.ts", INFRA),
  imports("shared/runtime", "../../test/support/x.ts", TESTS),
  ...["../planning/json.ts", "./once.ts", "@middy/core"].map((from) => imports("shared/runtime", from)),

  ...CLIENTS.map((from) => imports("functions", from, MESSAGING)),
  ...KUBERNETES_CLIENTS.map((from) => imports("functions", from, KUBERNETES)),
  imports("functions", "./resync.ts", "functions never import each other"),
  imports("functions", "../infra/local/http.ts", INFRA),
  imports("functions", "../test/support/x.ts", TESTS),
  ...["clusters/cluster.ts", "events/facts.ts", "runtime/config.ts", "planning/json.ts"].map((file) =>
    imports("functions", `../shared/${file}`),
  ),

  ...["infra/local", "infra/cli"].flatMap((folder) => [
    ...CLIENTS.map((from) => imports(folder, from, MESSAGING)),
    ...KUBERNETES_CLIENTS.map((from) => imports(folder, from, KUBERNETES)),
    imports(folder, "../../test/support/x.ts", TESTS),
    ...["../../functions/resync.ts", "../../shared/clusters/cluster.ts", "./http.ts"].map((from) =>
      imports(folder, from),
    ),
  ]),

  ...[...CLIENTS, ...KUBERNETES_CLIENTS, "../functions/resync.ts", "../infra/local/http.ts", "./support/x.ts"].map(
    (from) => imports("test", from),
  ),
];

const IMPURE: Sample["complaint"] = [PLUGIN, PURE];
const DENIED_CALLS = [
  "process.hrtime()",
  'fetch("x")',
  "setTimeout(stop, 1)",
  "performance.now()",
  "crypto.randomUUID()",
  "globalThis.x",
];

const PURITY_SAMPLES: readonly Sample[] = [
  code("shared/planning", "export const a = Math.random();", IMPURE),
  code("shared/planning", "export const a = [1].map(Math.random);", IMPURE),
  code("shared/planning", "export const a = Date.now();", IMPURE),
  code("shared/planning", "export const now = Date.now;", IMPURE),
  code("shared/planning", "export const a = new Date();", IMPURE),
  code("shared/planning", "export const a = new Date( ).toISOString();", IMPURE),
  code("shared/planning", "export const a = new Date(5).toISOString();"),
  code("shared/planning", "export const a = Date.parse('2026-05-01');"),
  code("shared/planning", "export const a = Math.max(1, 2);"),
  ...DENIED_CALLS.map((call) =>
    code("shared/planning", `export const a = (stop: () => void) => [stop, ${call}];`, [
      GLOBALS,
      `Do not use the global variable ${/^\w+/.exec(call)?.[0]}.`,
    ]),
  ),
  ...["shared/clusters", "functions", "infra/local"].map((folder) =>
    code(folder, "export const a = [Math.random(), Date.now(), new Date(), performance.now()];"),
  ),
];

/** Other spellings of what the rules forbid. */
const OTHER_SPELLINGS: readonly Sample[] = [
  code("shared/planning", "export const a = new Date;", IMPURE),
  code("shared/planning", "export const a = Date();", IMPURE),
  code("shared/planning", 'export const a = Math["random"]();', IMPURE),
  code("shared/planning", "const { random } = Math;\n\nexport const a = random();", IMPURE),
  code("shared/planning", "export const a = new Intl.DateTimeFormat().format();", IMPURE),
  imports("shared/clusters", "@aws-sdk/client-sqs/dist-es/SQSClient.js", MESSAGING),
  imports("functions", "../functions/resync.ts", "functions never import each other"),
];

const NO_ENV: Sample["complaint"] = [PROCESS_ENV, "Don't use process.env."];
const READS_ENV = 'export const a = process.env["X"];';

const ENV_SAMPLES: readonly Sample[] = [
  ...["shared/clusters", "shared/events", "shared/runtime", "functions", "infra/local"].map((folder) =>
    code(folder, READS_ENV, NO_ENV),
  ),
  code("functions", 'import { env } from "node:process";\n\nexport const a = env["X"];', NO_ENV),
  code("test", READS_ENV),
];

/** Files whose names matter, each with its complaint. */
const NAMED: Readonly<Record<string, Pick<Sample, "code" | "complaint">>> = {
  "shared/runtime/config.ts": code("", READS_ENV),
  "infra/local/start.mjs": code("", READS_ENV),
  "vitest.config.ts": code("", "export default {};"),
  "other.config.ts": code("", "export default {};", ["lint/style/noDefaultExport", "Avoid default exports."]),
  "shared/clusters/first.ts": code("", 'import { b } from "./second.ts";\n\nexport const a = () => b;', [
    CYCLES,
    "This import is part of a cycle.",
  ]),
  "shared/clusters/second.ts": code("", 'import { a } from "./first.ts";\n\nexport const b = () => a;', [
    CYCLES,
    "This import is part of a cycle.",
  ]),
  "shared/clusters/third.ts": code("", 'import { a } from "./first.ts";\n\nexport const c = () => a;'),
};

const reportSchema = z.object({
  diagnostics: z.array(
    z.object({ category: z.string(), message: z.string(), location: z.object({ path: z.string() }) }),
  ),
});

const project = mkdtempSync(join(tmpdir(), "dependency-rules-"));
afterAll(() => rmSync(project, { recursive: true, force: true }));

const SAMPLES = [...IMPORT_SAMPLES, ...PURITY_SAMPLES, ...ENV_SAMPLES, ...OTHER_SPELLINGS];
const pathOf = (index: number) => `${SAMPLES[index]?.folder}/sample-${index}.ts`;
const complaints = lintProject();

/** Lints all files in one run, by the project's own rules; complaints by path. */
function lintProject(): ReadonlyMap<string, readonly (readonly [string, string])[]> {
  for (const part of ["biome.json", ".biome"]) cpSync(join(ROOT, part), join(project, part), { recursive: true });
  const files = [
    ...SAMPLES.map((sample, index) => [pathOf(index), sample.code] as const),
    ...Object.entries(NAMED).map(([path, named]) => [path, named.code] as const),
  ];
  for (const [path, text] of files) {
    mkdirSync(dirname(join(project, path)), { recursive: true });
    writeFileSync(join(project, path), text);
  }
  const biome = join(ROOT, "node_modules/@biomejs/biome/bin/biome");
  const options = ["lint", "--reporter=json", "--max-diagnostics=none", "."];
  const { stdout } = spawnSync(process.execPath, [biome, ...options], { cwd: project, encoding: "utf8" });
  const { diagnostics } = reportSchema.parse(JSON.parse(stdout));
  const found = new Map<string, (readonly [string, string])[]>();
  for (const { category, message, location } of diagnostics) {
    found.set(location.path, [...(found.get(location.path) ?? []), [category, message]]);
  }
  return found;
}

function titled(samples: readonly Sample[]) {
  return samples.map((sample) => {
    const verdict = sample.complaint === undefined ? "allows" : "refuses";
    return {
      ...sample,
      verdict,
      shown: sample.code.trim().replaceAll(/\s+/g, " "),
      path: pathOf(SAMPLES.indexOf(sample)),
    };
  });
}

it.each(titled(IMPORT_SAMPLES))("$verdict in $folder: $shown", ({ path, complaint }) => {
  expect(complaints.get(path) ?? []).toEqual(complaint === undefined ? [] : [complaint]);
});

it.each(titled(PURITY_SAMPLES))("keeps planning pure: $verdict in $folder: $shown", ({ path, complaint }) => {
  expect(complaints.get(path) ?? []).toEqual(complaint === undefined ? [] : [complaint]);
});

it.each(titled(ENV_SAMPLES))(
  "keeps the environment in one place: $verdict in $folder: $shown",
  ({ path, complaint }) => {
    expect(complaints.get(path) ?? []).toEqual(complaint === undefined ? [] : [complaint]);
  },
);

it.each(titled(OTHER_SPELLINGS))("leaves no way around a rule: refuses in $folder: $shown", ({ path, complaint }) => {
  expect(complaints.get(path) ?? []).toEqual([complaint]);
});

it.each(Object.entries(NAMED))("judges %s by its name and its neighbours", (path, { complaint }) => {
  expect(complaints.get(path) ?? []).toEqual(complaint === undefined ? [] : [complaint]);
});

it("has a sample for every message of the rules", () => {
  const rules = readFileSync(join(ROOT, "biome.json"), "utf8");
  const messages = [...rules.matchAll(/"message": "([^"]+)"/g)].map(([, message]) => message);
  const proven = new Set(SAMPLES.map(({ complaint }) => complaint?.[1]));

  expect(messages.length).toBeGreaterThan(10);
  expect(messages.filter((message) => !proven.has(message))).toEqual([]);
});
