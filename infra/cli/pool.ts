/** `npm run pool`: commands about one pool. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { openConnection } from "../../shared/clusters/connection.ts";
import { KubeconfigError, readContext } from "../../shared/clusters/kubeconfig.ts";
import { environment } from "../../shared/runtime/config.ts";
import { describeError } from "../../shared/runtime/logger.ts";
import { CommandError } from "./errors.ts";
import { runPlan } from "./plan.ts";
import { PLAN_HELP, type PlanOptions, parsePlanOptions } from "./plan-options.ts";

const FAILED = 2;

/** npm runs scripts at the project's folder: names of files are the user's own, from where npm was called. */
const folder = environment["INIT_CWD"] ?? process.cwd();

const [command, ...args] = process.argv.slice(2);
process.exitCode = await run(command, args);

async function run(name: string | undefined, rest: readonly string[]): Promise<number> {
  if (name === "--help" || name === "-h") return say(PLAN_HELP);
  if (name !== "plan") {
    return complain(`${name === undefined ? "a command is missing" : `"${name}" is no command`}: there is plan`);
  }
  const parsed = parsePlanOptions(rest);
  if (parsed.kind === "help") return say(parsed.text);
  if (parsed.kind === "wrong") return complain(parsed.message);
  try {
    return await plan(parsed.options);
  } catch (error) {
    return fail(explain(error));
  }
}

async function plan(options: PlanOptions): Promise<number> {
  const { access, namespace } = readContext(kubeconfigsOf(options), { mode: "observe", context: options.context });
  const { stdout, errors, exitCode } = await runPlan(options, {
    access,
    contextNamespace: namespace,
    connect: openConnection,
    readText,
    now: Date.now,
  });
  process.stdout.write(stdout);
  for (const error of errors) fail(error);
  return exitCode;
}

/** As kubectl chooses them. */
function kubeconfigsOf({ kubeconfig }: PlanOptions): readonly string[] {
  if (kubeconfig !== undefined) return [resolve(folder, kubeconfig)];
  const named = (environment["KUBECONFIG"] ?? "").split(delimiter).filter((path) => path !== "");
  return named.length > 0 ? named.map((path) => resolve(folder, path)) : [join(homedir(), ".kube", "config")];
}

async function readText(file: string): Promise<string> {
  if (file === "-") return text(process.stdin);
  return readFile(resolve(folder, file), "utf8").catch(() => {
    throw new CommandError(`the file ${file} cannot be read`);
  });
}

function explain(error: unknown): string {
  if (error instanceof CommandError || error instanceof KubeconfigError) return error.message;
  const { error: name, message } = describeError(error);
  return `${name}: ${message}`;
}

function say(help: string): number {
  process.stdout.write(help);
  return 0;
}

function complain(message: string): number {
  return fail(`${message}. See npm run pool -- plan --help`);
}

function fail(message: string): number {
  process.stderr.write(`${message}\n`);
  return FAILED;
}
