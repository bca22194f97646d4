/** The two programs of Python that packaging and tests use, in a virtual environment of their own in the cache; knows nothing of what they do. */
import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { environment } from "../../shared/runtime/config.ts";
import { isExecutable } from "../local/control-plane/files.ts";
import { findProgram } from "../local/control-plane/go-build.ts";
import { type LockAttempt, tryLock } from "../local/control-plane/lock.ts";
import { type RunCommand, runCommand } from "../local/control-plane/processes.ts";
import { beginStep, type OnProgress, type Step } from "../local/control-plane/progress.ts";
import { SetupError } from "../local/control-plane/setup-error.ts";

const REQUIREMENTS = join(import.meta.dirname, "requirements.txt");
/** The oldest Python that every pinned version runs on. */
const PYTHON_MIN = [3, 11] as const;
const LOCK_POLL_MS = 250;
/** The longest that another process may take to install. */
const LOCK_TIMEOUT_MS = 15 * 60 * 1_000;

export type PythonTool = "cfn-lint" | "moto_server";

export interface PythonToolOptions {
  readonly env?: NodeJS.ProcessEnv;
  /** By default one line on stderr when something has to be installed, and one when that is done. */
  readonly onProgress?: OnProgress;
  readonly signal?: AbortSignal;
  readonly run?: RunCommand;
  readonly requirements?: string;
}

/** The path of the program; installed at the first use, which takes about half a minute. Throws `SetupError`. */
export async function pythonTool(name: PythonTool, options: PythonToolOptions = {}): Promise<string> {
  const env = options.env ?? environment;
  const requirements = options.requirements ?? REQUIREMENTS;
  const pins = createHash("sha256")
    .update(await readFile(requirements))
    .digest("hex");
  const caches = env["XDG_CACHE_HOME"] || join(env["HOME"] ?? homedir(), ".cache");
  const folder = join(caches, "vmpool-functions", "python-tools");
  // The pins stand in the path: an upgrade finds nothing old.
  const venv = join(folder, `${pins.slice(0, 16)}-${process.platform}-${process.arch}`);
  const path = join(venv, "bin", name);
  if (await isComplete(venv)) return path;
  const setup: Setup = {
    env,
    requirements,
    venv,
    run: options.run ?? runCommand,
    onProgress: options.onProgress ?? tellStderr,
    signal: options.signal ?? new AbortController().signal,
  };
  await mkdir(folder, { recursive: true });
  const lock = await waitForLock(`${venv}.lock`, setup);
  try {
    if (!(await isComplete(venv))) await install(setup);
  } finally {
    await lock.release();
  }
  return path;
}

interface Setup {
  readonly env: NodeJS.ProcessEnv;
  readonly requirements: string;
  readonly venv: string;
  readonly run: RunCommand;
  readonly onProgress: OnProgress;
  readonly signal: AbortSignal;
}

/** Written last. The interpreter is a link to the system's, which may have gone since. */
async function isComplete(venv: string): Promise<boolean> {
  const done = await readFile(join(venv, "complete"), "utf8").catch(() => undefined);
  return done !== undefined && (await isExecutable(join(venv, "bin", "python3")));
}

/** An environment cannot be moved, so it is made where it stays; what somebody left half-done is made anew. */
async function install({ env, requirements, venv, run, onProgress, signal }: Setup): Promise<void> {
  const step = beginStep(onProgress, "installing cfn-lint and moto into a virtual environment of Python");
  try {
    const python = await findPython(env, run, signal);
    await rm(venv, { recursive: true, force: true });
    const made = await run(python, ["-m", "venv", venv], { env, signal });
    if (made.code !== 0) throw venvFailed(made.errorLines || made.stdout.slice(-500));
    // Every version is pinned, so nothing has to be resolved; what is run once a check need not be compiled.
    const arguments_ = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--no-input"];
    const pip = join(venv, "bin", "python3");
    const installed = await run(pip, [...arguments_, "--requirement", requirements], { env, signal });
    if (installed.code !== 0) throw installFailed(installed.errorLines);
    await writeFile(join(venv, "complete"), "");
    step.finish();
  } catch (error) {
    step.fail(error instanceof Error ? error.message : String(error));
    throw error;
  }
}

async function findPython(env: NodeJS.ProcessEnv, run: RunCommand, signal: AbortSignal): Promise<string> {
  const wanted = PYTHON_MIN.join(".");
  const advice = `Install Python ${wanted} or newer (Debian and Ubuntu: apt-get install python3 python3-venv) and run the same command again.`;
  const python = await findProgram("python3", env);
  if (python === undefined) throw new SetupError("There is no python3 on the PATH.", advice);
  const isNewEnough = `import sys; sys.exit(sys.version_info[:2] < (${PYTHON_MIN.join(", ")}))`;
  const { code } = await run(python, ["-c", isNewEnough], { env, signal });
  if (code === 0) return python;
  throw new SetupError(`${python} does not work or is older than ${wanted}.`, advice);
}

function venvFailed(lastWords: string): SetupError {
  return new SetupError(
    "Python cannot make a virtual environment.",
    `On Debian and Ubuntu it needs the package python3-venv. Its last words were:\n${lastWords}`,
  );
}

function installFailed(lastWords: string): SetupError {
  return new SetupError(
    "pip could not install cfn-lint and moto.",
    `Check the network (pip's own settings for proxies and indexes count) and run the same command again. Its last words were:\n${lastWords}`,
  );
}

async function waitForLock(path: string, setup: Setup): Promise<Extract<LockAttempt, { kind: "taken" }>> {
  const deadline = performance.now() + LOCK_TIMEOUT_MS;
  let step: Step | undefined;
  for (;;) {
    const attempt = await tryLock(path, "installs tools of Python");
    if (attempt.kind === "taken") {
      step?.finish();
      return attempt;
    }
    const { pid, purpose, since } = attempt.holder;
    step ??= beginStep(setup.onProgress, `waiting for process ${pid}, which ${purpose}`);
    if (performance.now() >= deadline) {
      step.fail("stopped");
      throw new SetupError(
        `Process ${pid} has been installing since ${since} and does not come to an end.`,
        `End that process, or remove ${path} if it is none of ours.`,
      );
    }
    await sleep(LOCK_POLL_MS, undefined, { signal: setup.signal });
  }
}

const tellStderr: OnProgress = ({ step, phase, detail, elapsedMs }) => {
  if (phase === "going") return;
  const seconds = phase === "begun" ? " …" : ` (${(elapsedMs / 1_000).toFixed(1)} s)`;
  process.stderr.write(
    `${phase === "failed" ? "failed: " : ""}${step}${detail === undefined ? "" : `: ${detail}`}${seconds}\n`,
  );
};
