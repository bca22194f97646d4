/** `npm start` as a user runs it, in a process group of its own as a terminal would give it, on plain pipes. */
import { type ChildProcess, spawn } from "node:child_process";
import { ROOT } from "./world.ts";

export interface SessionEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface Session {
  readonly pid: number;
  /** What was printed so far. */
  readonly stdout: string;
  readonly stderr: string;
  /** Settles with the first line that begins with `ready`; rejects when the session ends without one. */
  readonly ready: Promise<string>;
  readonly ended: Promise<SessionEnd>;
  /** Ctrl-C: SIGINT to the whole group. */
  interrupt(): void;
  /** SIGTERM to the first process alone. */
  terminate(): void;
}

export interface SessionOptions {
  /** Called as soon as the line that begins with `ready` was printed. */
  readonly onReady?: () => void;
}

/** `npm start -- …`. */
export function npmStart(args: readonly string[], options: SessionOptions = {}): Session {
  return follow(spawnGroup("npm", ["start", "--", ...args]), options);
}

/** What `npm start` runs, without npm's own lines and time. */
export function launch(args: readonly string[]): Session {
  const program = ["infra/local/launch.mjs", "infra/local/start.ts", ...args];
  return follow(spawnGroup(process.execPath, program), {});
}

/** The lines that begin with `ready`. */
export function readyLines({ stdout }: Session): readonly string[] {
  return stdout.split("\n").filter((line) => line.startsWith("ready"));
}

/** Nothing of the test runner's reaches the user's command. */
function spawnGroup(command: string, args: readonly string[]): ChildProcess {
  const names = ["PATH", "HOME", "XDG_CACHE_HOME", "KUBEBUILDER_ASSETS", "GOFLAGS", "GOPROXY", "TMPDIR"];
  const env = Object.fromEntries(names.map((name) => [name, process.env[name]]));
  return spawn(command, args, { cwd: ROOT, env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
}

function follow(child: ChildProcess, { onReady }: SessionOptions): Session {
  const { pid } = child;
  if (pid === undefined) throw new Error(`${child.spawnfile} could not be started`);
  const printed = { stdout: "", stderr: "" };
  const ready = Promise.withResolvers<string>();
  ready.promise.catch(() => undefined);
  let isReady = false;
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    printed.stdout += text;
    const line = /^ready.*(?=\n)/m.exec(printed.stdout)?.[0];
    if (line === undefined || isReady) return;
    isReady = true;
    onReady?.();
    ready.resolve(line);
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    printed.stderr += text;
  });
  const ended = new Promise<SessionEnd>((resolve) => {
    child.once("close", (code, signal) => {
      ready.reject(new Error(`the session ended without being ready: ${printed.stderr}`));
      resolve({ code, signal });
    });
  });
  return {
    pid,
    get stdout() {
      return printed.stdout;
    },
    get stderr() {
      return printed.stderr;
    },
    ready: ready.promise,
    ended,
    interrupt: () => signalTo(-pid, "SIGINT"),
    terminate: () => signalTo(pid, "SIGTERM"),
  };
}

/** It may be gone already. */
export function signalTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // What a signal does is seen by what is left.
  }
}
