/** `npm run cluster`: commands about the clusters of a registry. */
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { createInterface } from "node:readline/promises";
import { text } from "node:stream/consumers";
import type { ClusterAccess } from "../../shared/clusters/access.ts";
import { openConnection } from "../../shared/clusters/connection.ts";
import { KubeconfigError, readContext, readEksContext } from "../../shared/clusters/kubeconfig.ts";
import { RegistryError } from "../../shared/clusters/registry.ts";
import { environment } from "../../shared/runtime/config.ts";
import { describeError } from "../../shared/runtime/logger.ts";
import { runAdd, runCredentials } from "./add.ts";
import { runCheck } from "./check.ts";
import { type CheckOptions, type ClusterOptions, parseClusterOptions, type RegistryPlace } from "./cluster-options.ts";
import type { NoticeReader } from "./delivery.ts";
import { formatEntry, formatJson, formatList, type ShownEntry } from "./entries.ts";
import { CommandError } from "./errors.ts";
import { createCloudWatchNotices, createFileNotices, createLogsClient } from "./notices.ts";
import type { Outcome } from "./registration.ts";
import {
  createFileStore,
  createSsmClient,
  createSsmStore,
  type RegistryStore,
  unknownCluster,
} from "./registry-store.ts";
import { type RemoveDeps, runRemove } from "./remove.ts";
import { runRotate } from "./rotate.ts";
import { readSession } from "./session.ts";

const FAILED = 2;
const DIR_DEFAULT = ".local";
/** Of the stage that a deployment has unless it is told another one. */
const LOG_GROUPS_DEFAULT = "/aws/lambda/vmpool-functions-prod-";

/** npm runs scripts at the project's folder: names of files are the user's own, from where npm was called. */
const folder = environment["INIT_CWD"] ?? process.cwd();

process.exitCode = await run(process.argv.slice(2));

async function run(args: readonly string[]): Promise<number> {
  const parsed = parseClusterOptions(args);
  if (parsed.kind === "help") {
    process.stdout.write(parsed.text);
    return 0;
  }
  if (parsed.kind === "wrong") return fail(`${parsed.message}. See npm run cluster -- --help`);
  try {
    const { stdout, stderr, exitCode } = await runCommand(parsed.options);
    process.stdout.write(stdout);
    for (const line of stderr) fail(line);
    return exitCode;
  } catch (error) {
    return fail(explain(error));
  }
}

async function runCommand(options: ClusterOptions): Promise<Outcome> {
  const store = openStore(options.registry);
  const deps = depsFor(options, store);
  switch (options.command) {
    case "check":
    case "mode":
      return check(options, store);
    case "list":
      return list(options.output, store);
    case "show":
      return show(options.name, options.output, store);
    case "add":
      return runAdd(options, deps);
    case "credentials":
      return runCredentials(options, deps);
    case "rotate":
      return runRotate(options, deps);
    case "remove":
      return runRemove(options, deps);
  }
}

async function check(options: CheckOptions, store: RegistryStore): Promise<Outcome> {
  const { kubeconfig, context } = options.rights;
  const { stdout, refusal, exitCode } = await runCheck(options, {
    store,
    viewerAccess: kubeconfig === undefined ? undefined : accessOf([pathOf(kubeconfig)], context),
    connect: openConnection,
    readNotices: noticesOf(options),
    now: Date.now,
  });
  return { stdout, stderr: refusal === undefined ? [] : [refusal], exitCode };
}

/** Where the functions log: locally beside the registry, on AWS in the log groups of the deployment. */
function noticesOf({ registry, logGroups }: CheckOptions): NoticeReader | undefined {
  if (logGroups !== undefined || registry.kind === "ssm") {
    const region = registry.kind === "ssm" ? registry.region : undefined;
    return createCloudWatchNotices(logGroups ?? LOG_GROUPS_DEFAULT, createLogsClient(region));
  }
  return registry.path === undefined ? createFileNotices(dirOf(registry)) : undefined;
}

async function list(output: "text" | "json", store: RegistryStore): Promise<Outcome> {
  const names = await store.names();
  const entries = await Promise.all(names.map((name) => readEntry(name, store)));
  const isGood = entries.every(({ problem }) => problem === undefined);
  const stdout = output === "json" ? asJson({ clusters: entries.map(formatJson) }) : formatList(entries);
  return { stdout, stderr: [], exitCode: isGood ? 0 : 1 };
}

async function show(name: string, output: "text" | "json", store: RegistryStore): Promise<Outcome> {
  const entry = await readEntry(name, store);
  if (entry.problem === undefined && entry.access === undefined && entry.webhook === undefined) {
    throw await unknownCluster(name, store);
  }
  const stdout = output === "json" ? asJson(formatJson(entry)) : formatEntry(entry);
  return { stdout, stderr: [], exitCode: entry.problem === undefined ? 0 : 1 };
}

/** One entry that is not valid does not hide the others. */
async function readEntry(name: string, store: RegistryStore): Promise<ShownEntry> {
  try {
    const [access, webhook] = await Promise.all([store.access(name), store.webhook(name)]);
    return { name, access, webhook, problem: undefined };
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    return { name, access: undefined, webhook: undefined, problem: error.message };
  }
}

function asJson(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

function depsFor({ registry, rights }: ClusterOptions, store: RegistryStore): RemoveDeps {
  return {
    store,
    connect: openConnection,
    readText,
    readContext: (context) => ({ access: accessOf(kubeconfigsOf(rights.kubeconfig), context) }),
    session: async () =>
      registry.kind === "file" && registry.path === undefined ? readSession(dirOf(registry)) : undefined,
    confirm,
  };
}

function openStore(place: RegistryPlace): RegistryStore {
  if (place.kind === "ssm") return createSsmStore(place.prefix, createSsmClient(place.region));
  return createFileStore(place.path === undefined ? join(dirOf(place), "registry.json") : pathOf(place.path));
}

/** The default one is where `npm start` has it: in the project's folder. */
function dirOf({ dir }: Extract<RegistryPlace, { readonly kind: "file" }>): string {
  return dir === undefined ? resolve(DIR_DEFAULT) : pathOf(dir);
}

/** What a person's context leads to; a cluster of EKS by the AWS credentials that are found here, without the program that it names. */
function accessOf(paths: readonly string[], context: string | undefined): ClusterAccess {
  const auth = readEksContext(paths, { context, profile: environment["AWS_PROFILE"] });
  return auth === undefined ? readContext(paths, { mode: "observe", context }).access : { auth, mode: "observe" };
}

/** As kubectl chooses them. */
function kubeconfigsOf(kubeconfig: string | undefined): readonly string[] {
  if (kubeconfig !== undefined) return [pathOf(kubeconfig)];
  const named = (environment["KUBECONFIG"] ?? "").split(delimiter).filter((path) => path !== "");
  return named.length > 0 ? named.map(pathOf) : [join(homedir(), ".kube", "config")];
}

function pathOf(path: string): string {
  return resolve(folder, path);
}

async function readText(file: string): Promise<string> {
  if (file === "-") return text(process.stdin);
  return readFile(pathOf(file), "utf8").catch(() => {
    throw new CommandError(`the file ${file} cannot be read`);
  });
}

async function confirm(question: string): Promise<boolean | undefined> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return undefined;
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await lines.question(`${question} [y/N] `)).trim());
  } finally {
    lines.close();
  }
}

function explain(error: unknown): string {
  if (error instanceof CommandError || error instanceof KubeconfigError || error instanceof RegistryError) {
    return error.message;
  }
  const { error: name, message } = describeError(error);
  return `${name}: ${message}`;
}

function fail(message: string): number {
  process.stderr.write(`${message}\n`);
  return FAILED;
}
