/** Finds or makes the programs of the control plane: named folder, cache, download, build, in this order and one by one. */
import { chmod, mkdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { downloadEnvtest, type Fetch } from "./envtest-download.ts";
import { isExecutable } from "./files.ts";
import { buildProgram, findGo, findProgram } from "./go-build.ts";
import { type LockHolder, tryLock } from "./lock.ts";
import { type RunCommand, runCommand } from "./processes.ts";
import { beginStep, type OnProgress } from "./progress.ts";
import { SetupError } from "./setup-error.ts";
import { majorMinor, readVersions, type Versions } from "./versions.ts";

/** Where installers put Go without putting it on the PATH. */
const GO_FOLDERS = ["/usr/local/go/bin", "/opt/homebrew/bin"];
const LOCK_POLL_MS = 500;
/** The longest that another start may take for one program; a cold build takes minutes. */
const LOCK_TIMEOUT_MS = 60 * 60 * 1_000;

export interface Binaries {
  readonly etcd: string;
  readonly kubeApiserver: string;
  readonly kubeControllerManager: string;
  readonly kubectl: string;
}

export interface BinariesOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly onProgress: OnProgress;
  /** Ends the search; nothing half-done stays. */
  readonly signal: AbortSignal;
  readonly fetch?: Fetch;
  readonly run?: RunCommand;
  /** Holds go.mod. */
  readonly moduleDir?: string;
  /** Where to look for Go when the PATH does not have it. */
  readonly goFolders?: readonly string[];
  readonly downloadBeginningTimeoutMs?: number;
}

interface Program {
  readonly file: string;
  readonly package: string;
  /** Whether the envtest release has it. */
  readonly released: boolean;
  /** Whether one on the PATH will do. */
  readonly fromPath: boolean;
}

const ETCD: Program = { file: "etcd", package: "go.etcd.io/etcd/server/v3", released: true, fromPath: false };
const API_SERVER = kubernetesProgram("kube-apiserver");
const CONTROLLER_MANAGER: Program = { ...kubernetesProgram("kube-controller-manager"), released: false };
const KUBECTL: Program = { ...kubernetesProgram("kubectl"), fromPath: true };
const PROGRAMS = [ETCD, API_SERVER, CONTROLLER_MANAGER, KUBECTL];

/** Returns paths of all four programs; what has to be made goes to the cache, for the next start. Throws `SetupError`. */
export async function findBinaries(options: BinariesOptions): Promise<Binaries> {
  const search = await beginSearch(options);
  // One after the other: a build uses all processors by itself.
  const etcd = await findOne(search, ETCD);
  const kubeApiserver = await findOne(search, API_SERVER);
  const kubeControllerManager = await findOne(search, CONTROLLER_MANAGER);
  const kubectl = await findOne(search, KUBECTL);
  return { etcd, kubeApiserver, kubeControllerManager, kubectl };
}

function kubernetesProgram(file: string): Program {
  return { file, package: `k8s.io/kubernetes/cmd/${file}`, released: true, fromPath: false };
}

interface Search extends BinariesOptions {
  readonly fetch: Fetch;
  readonly run: RunCommand;
  readonly moduleDir: string;
  readonly goFolders: readonly string[];
  readonly versions: Versions;
  readonly os: string;
  readonly arch: string;
  readonly cacheDir: string;
  /** Why the one download of this run failed; undefined as long as it has not. */
  readonly download: { failure?: string };
}

async function beginSearch(options: BinariesOptions): Promise<Search> {
  const { env } = options;
  const moduleDir = options.moduleDir ?? import.meta.dirname;
  const versions = await readVersions(moduleDir);
  const os = process.platform;
  const arch = process.arch === "x64" ? "amd64" : process.arch;
  const caches = env["XDG_CACHE_HOME"] || join(env["HOME"] ?? homedir(), ".cache");
  // Every pinned version stands in the path: an upgrade finds nothing old.
  const name = `${versions.kubernetes}-etcd-${versions.etcd}-${os}-${arch}`;
  const cacheDir = join(caches, "vmpool-functions", "control-plane", name);
  const defaults = { fetch, run: runCommand, goFolders: GO_FOLDERS };
  return { ...defaults, ...options, moduleDir, versions, os, arch, cacheDir, download: {} };
}

async function findOne(search: Search, program: Program): Promise<string> {
  search.signal.throwIfAborted();
  const path = program.fromPath ? await findProgram(program.file, search.env) : undefined;
  if (path !== undefined) return path;
  const assets = search.env["KUBEBUILDER_ASSETS"] || undefined;
  const named = assets === undefined ? undefined : await findExecutable(assets, program);
  return named ?? (await findCached(search, program)) ?? (await make(search, program));
}

async function findExecutable(folder: string, program: Program): Promise<string | undefined> {
  const path = join(folder, program.file);
  return (await isExecutable(path)) ? path : undefined;
}

/** A file in the cache is whole: it got there by a rename. What lies beside it was left by somebody who was killed. */
async function findCached(search: Search, program: Program): Promise<string | undefined> {
  const path = await findExecutable(search.cacheDir, program);
  if (path !== undefined) await rm(workDirOf(search, program), { recursive: true, force: true });
  return path;
}

/** Puts the program into the cache, unless another start does so meanwhile. */
async function make(search: Search, program: Program): Promise<string> {
  await mkdir(search.cacheDir, { recursive: true });
  const lock = await waitForLock(search, program);
  const workDir = workDirOf(search, program);
  try {
    const cached = await findCached(search, program);
    if (cached !== undefined) return cached;
    await rm(workDir, { recursive: true, force: true });
    await mkdir(workDir);
    if (program.released) await tryDownload(search, program, workDir);
    return (await findCached(search, program)) ?? (await build(search, program, workDir));
  } finally {
    await rm(workDir, { recursive: true, force: true });
    await lock.release();
  }
}

/** Only the holder of the program's lock writes there. */
function workDirOf(search: Search, program: Program): string {
  return join(search.cacheDir, `${program.file}.partial`);
}

async function waitForLock(search: Search, program: Program): Promise<{ release(): Promise<void> }> {
  const path = join(search.cacheDir, `${program.file}.lock`);
  const purpose = `gets ${program.file}`;
  const first = await tryLock(path, purpose);
  if (first.kind === "taken") return first;
  const step = beginStep(search.onProgress, `waiting for process ${first.holder.pid}, which ${first.holder.purpose}`);
  const deadline = performance.now() + LOCK_TIMEOUT_MS;
  let holder = first.holder;
  try {
    while (performance.now() < deadline) {
      await sleep(LOCK_POLL_MS, undefined, { signal: search.signal });
      const attempt = await tryLock(path, purpose);
      if (attempt.kind === "taken") {
        step.finish();
        return attempt;
      }
      holder = attempt.holder;
    }
  } finally {
    step.fail("stopped");
  }
  throw lockTimedOut(program, holder, path);
}

function lockTimedOut(program: Program, holder: LockHolder, path: string): SetupError {
  return new SetupError(
    `Process ${holder.pid} has been getting ${program.file} since ${holder.since} and does not come to an end.`,
    `End that process, or remove ${path} if it is none of ours.`,
  );
}

/** Fills the cache with what the release has, once a run; the program itself comes last, for it says that the rest is there. */
async function tryDownload(search: Search, program: Program, workDir: string): Promise<void> {
  if (search.download.failure !== undefined) return;
  const [major, minor] = majorMinor(search.versions.kubernetes);
  // One release a minor version.
  const version = `v${major}.${minor}.0`;
  const step = beginStep(search.onProgress, `downloading etcd, kube-apiserver and kubectl ${version}`);
  const beginningTimeoutMs = search.downloadBeginningTimeoutMs;
  try {
    const outcome = await downloadEnvtest({ ...search, version, workDir, step, beginningTimeoutMs });
    if (outcome.kind === "failed") {
      search.download.failure = outcome.why;
      step.fail(outcome.why);
      return;
    }
    const others = PROGRAMS.filter((one) => one.released && one !== program);
    for (const one of [...others, program]) {
      if ((await findExecutable(search.cacheDir, one)) === undefined)
        await install(search, one, join(outcome.dir, one.file));
    }
    step.finish();
  } finally {
    step.fail("stopped");
  }
}

async function build(search: Search, program: Program, workDir: string): Promise<string> {
  const go = await findGo(search);
  if (go.kind === "missing") throw unobtainable(search, program, go.why);
  const version = program === ETCD ? search.versions.etcd : search.versions.kubernetes;
  const step = beginStep(search.onProgress, `building ${program.file} ${version} from source`);
  const output = join(workDir, program.file);
  try {
    await buildProgram({ ...search, package: program.package, output, step }, go.command);
  } catch (error) {
    step.fail(error instanceof Error ? error.message : String(error));
    throw error;
  }
  const installed = await install(search, program, output);
  step.finish();
  return installed;
}

async function install(search: Search, program: Program, from: string): Promise<string> {
  const path = join(search.cacheDir, program.file);
  await chmod(from, 0o755);
  await rename(from, path);
  return path;
}

function unobtainable(search: Search, program: Program, why: string): SetupError {
  const { failure } = search.download;
  const downloadPart = program.released && failure !== undefined ? `its download failed (${failure}), and ` : "";
  const files = PROGRAMS.map(({ file }) => file).join(", ");
  return new SetupError(
    `There is no ${program.file}: ${downloadPart}it cannot be built because ${why}.`,
    `Install Go ${search.versions.go} or newer (https://go.dev/dl/), or set KUBEBUILDER_ASSETS to a folder with ${files}.`,
  );
}
