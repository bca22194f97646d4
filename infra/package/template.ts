/** Makes the CloudFormation template of serverless.yml and has it judged; needs no network, no credentials and no account. */
import { readFile } from "node:fs/promises";
import { join, relative } from "node:path";
import * as z from "zod";
import { parseJson } from "../../shared/planning/json.ts";
import { environment } from "../../shared/runtime/config.ts";
import { runCommand } from "../local/control-plane/processes.ts";
import { SetupError } from "../local/control-plane/setup-error.ts";
import { pythonTool } from "./python-tools.ts";

const ROOT = join(import.meta.dirname, "../..");
/** The program that packages and deploys. */
export const OSLS = join(ROOT, "node_modules/osls/bin/serverless.js");

export interface TemplateOptions {
  /** Holds a zip for each function. */
  readonly zips: string;
  /** Where the template goes. */
  readonly folder: string;
  /** Further options of `osls package`, such as `--stage`. */
  readonly args?: readonly string[];
  readonly signal?: AbortSignal;
}

/** Writes the template of the whole stack; returns its path. Throws `SetupError` with what osls says. */
export async function makeTemplate({ zips, folder, args = [], signal }: TemplateOptions): Promise<string> {
  // Whatever the machine knows of AWS must make no difference.
  const env = Object.fromEntries(Object.entries(environment).filter(([name]) => !/^(AWS|SLS|SERVERLESS)_/.test(name)));
  const build = relative(ROOT, zips) || ".";
  const { code, stdout, errorLines } = await runCommand(
    process.execPath,
    [OSLS, "package", "--package", folder, "--param", `build=${build}`, ...args],
    { cwd: ROOT, env, signal: signal ?? new AbortController().signal },
  );
  if (code === 0) return join(folder, "cloudformation-template-update-stack.json");
  throw new SetupError("serverless.yml cannot be packaged.", `osls says:\n${stdout}${errorLines}`.trimEnd());
}

const findingsSchema = z.array(
  z.object({
    Level: z.string(),
    Message: z.string(),
    Location: z.object({ Path: z.array(z.union([z.string(), z.number()])).nullish() }),
    Rule: z.object({ Id: z.string() }),
  }),
);
type Finding = z.output<typeof findingsSchema>[number];

/** What cfn-lint has against the template, one line each. */
export async function lintTemplate(path: string, signal = new AbortController().signal): Promise<readonly string[]> {
  const linter = await pythonTool("cfn-lint", { signal });
  const { stdout, errorLines } = await runCommand(linter, ["--format", "json", path], { env: environment, signal });
  const parsed = findingsSchema.safeParse(parseJson(stdout));
  if (!parsed.success) throw new SetupError("cfn-lint did not do its work.", `It says:\n${errorLines || stdout}`);
  return parsed.data.filter((finding) => !isOfOsls(finding)).map(describe);
}

/** osls names dependencies that are clear without: on roles, log groups and integrations of what it makes itself. */
function isOfOsls({ Rule, Location }: Finding): boolean {
  const [section, resource, attribute] = Location.Path ?? [];
  if (Rule.Id !== "W3005" || section !== "Resources" || attribute !== "DependsOn") return false;
  return /LambdaFunction$|^HttpApi(Stage$|Route)/.test(String(resource));
}

function describe({ Rule, Level, Message, Location }: Finding): string {
  return `${Level} ${Rule.Id} at ${(Location.Path ?? []).join("/")}: ${Message}`;
}

/** The template as JSON. */
export async function readTemplate(path: string): Promise<unknown> {
  return JSON.parse(await readFile(path, "utf8"));
}
