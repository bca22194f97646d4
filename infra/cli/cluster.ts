/** `npm run cluster`: commands about the clusters of a registry. */
import { join, resolve } from "node:path";
import { openConnection } from "../../shared/clusters/connection.ts";
import { KubeconfigError, readContext } from "../../shared/clusters/kubeconfig.ts";
import { createFileRegistry, RegistryError } from "../../shared/clusters/registry.ts";
import { environment } from "../../shared/runtime/config.ts";
import { describeError } from "../../shared/runtime/logger.ts";
import { runCheck } from "./check.ts";
import { type ClusterOptions, parseClusterOptions } from "./cluster-options.ts";
import { CommandError } from "./errors.ts";
import { writeMode } from "./registry-file.ts";

const FAILED = 2;
const DIR_DEFAULT = ".local";

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
    return await check(parsed.options);
  } catch (error) {
    return fail(explain(error));
  }
}

async function check(options: ClusterOptions): Promise<number> {
  const path = registryOf(options);
  const { stdout, refusal, exitCode } = await runCheck(options, {
    registry: createFileRegistry(path),
    viewerAccess: viewerAccessOf(options),
    connect: openConnection,
    writeMode: (name, mode) => writeMode(path, name, mode),
    now: Date.now,
  });
  process.stdout.write(stdout);
  if (refusal !== undefined) fail(refusal);
  return exitCode;
}

/** The default one is where `npm start` has it: in the project's folder. */
function registryOf({ registry, dir }: ClusterOptions): string {
  if (registry !== undefined) return resolve(folder, registry);
  return join(dir === undefined ? resolve(DIR_DEFAULT) : resolve(folder, dir), "registry.json");
}

function viewerAccessOf({ kubeconfig, context }: ClusterOptions) {
  if (kubeconfig === undefined) return undefined;
  return readContext([resolve(folder, kubeconfig)], { mode: "observe", context }).access;
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
