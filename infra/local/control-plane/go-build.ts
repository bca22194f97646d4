/** Builds one program of the pinned Go module; decides nothing about where it goes. */
import { delimiter, join } from "node:path";
import { isExecutable } from "./files.ts";
import type { RunCommand } from "./processes.ts";
import type { Step } from "./progress.ts";
import { SetupError } from "./setup-error.ts";
import { isOlder, majorMinor, type Versions } from "./versions.ts";

export interface GoBuild {
  /** Import path of the main package. */
  readonly package: string;
  readonly moduleDir: string;
  readonly versions: Versions;
  readonly output: string;
  readonly env: NodeJS.ProcessEnv;
  readonly run: RunCommand;
  readonly step: Step;
  readonly signal: AbortSignal;
}

export type Toolchain =
  | { readonly kind: "found"; readonly command: string }
  | { readonly kind: "missing"; readonly why: string };

export interface GoSearch extends Pick<GoBuild, "moduleDir" | "versions" | "env" | "run" | "signal"> {
  /** Searched after the PATH. */
  readonly goFolders: readonly string[];
}

/** Looks for a Go that can build the module; a newer one that Go fetches by itself counts. */
export async function findGo(search: GoSearch): Promise<Toolchain> {
  const { moduleDir, versions, env, run, signal } = search;
  const command = await findProgram("go", env, search.goFolders);
  if (command === undefined) return { kind: "missing", why: "Go is not installed" };
  const answer = await run(command, ["version"], { cwd: moduleDir, env: goEnvironment(env), signal });
  if (answer.code !== 0) return { kind: "missing", why: `Go does not work here (${answer.errorLines})` };
  const version = /\bgo(\d+\.\d+(?:\.\d+)?)/.exec(answer.stdout)?.[1] ?? "0";
  if (isOlder(version, versions.go)) return { kind: "missing", why: `Go ${version} is older than ${versions.go}` };
  return { kind: "found", command };
}

/** Downloads the modules and compiles the program to `output`. Throws `SetupError` with the compiler's last words. */
export async function buildProgram(build: GoBuild, go: string): Promise<void> {
  const { moduleDir, versions, output, run, step, signal } = build;
  const options = { cwd: moduleDir, env: goEnvironment(build.env), signal };
  let modules = 0;
  const onDownload = (line: string) => {
    if (line.startsWith("go: downloading ")) step.report(`${++modules} modules downloaded`);
  };
  const listed = await run(go, ["list", "-deps", build.package], { ...options, onErrorLine: onDownload });
  if (listed.code !== 0) throw buildFailed(build.package, listed.errorLines);
  const total = listed.stdout.trim().split("\n").length;
  let compiled = 0;
  const onCompiled = (line: string) => {
    if (!line.startsWith("go: ")) step.report(`${++compiled} of at most ${total} packages`);
  };
  const args = ["build", "-v", "-trimpath", `-ldflags=${linkerFlags(versions)}`, "-o", output, build.package];
  const built = await run(go, args, { ...options, onErrorLine: onCompiled });
  if (built.code !== 0) throw buildFailed(build.package, built.errorLines);
}

/** The first executable of that name on the PATH, else in the other folders. */
export async function findProgram(
  name: string,
  env: NodeJS.ProcessEnv,
  otherFolders: readonly string[] = [],
): Promise<string | undefined> {
  const folders = [...(env["PATH"] ?? "").split(delimiter), ...otherFolders];
  for (const folder of folders.filter((one) => one !== "")) {
    const path = join(folder, name);
    if (await isExecutable(path)) return path;
  }
  return undefined;
}

/** The user's own settings (proxies, caches), but for this machine and for this module alone. */
function goEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { GOOS: _os, GOARCH: _arch, ...rest } = env;
  return { ...rest, CGO_ENABLED: "0", GOWORK: "off" };
}

/** The version that `kubectl version` shows and that discovery compares. */
function linkerFlags({ kubernetes }: Versions): string {
  const [major, minor] = majorMinor(kubernetes);
  const version = "k8s.io/component-base/version";
  return `-s -w -X ${version}.gitVersion=${kubernetes} -X ${version}.gitMajor=${major} -X ${version}.gitMinor=${minor}`;
}

function buildFailed(packagePath: string, errorLines: string): SetupError {
  return new SetupError(`Go could not build ${packagePath}.`, `Its last words were:\n${errorLines}`);
}
