/** Child processes that a Ctrl-C at the terminal does not reach and that never outlive us; knows nothing of what they do. */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { mkdir, open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { errorCode } from "./setup-error.ts";

const LOG_LINES_MAX = 15;
const LOG_LINE_CHARACTERS_MAX = 400;
/** The most that is kept of what a command prints, in characters. */
const OUTPUT_CHARACTERS_MAX = 8 * 1024 * 1024;

/**
 * Becomes the program that it is given, after leaving a guard beside it. The guard reads the pipe that only we hold open: at
 * its end, which comes with our death too, it ends the process group. It signals group 0, its own, so no reused id is ever hit.
 */
const GUARDED = `
exec 3<&0
(
  trap "" TERM INT HUP
  while read -r line <&3; do :; done
  kill -TERM 0
  tries=0
  while [ "$tries" -lt 30 ] && kill -0 "$$"; do sleep 0.1; tries=$((tries + 1)); done
  kill -KILL 0
) >/dev/null 2>&1 &
exec "$@" </dev/null 3<&-
`;

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The end of its log. */
  readonly lastLines: string;
}

export interface LocalProcess {
  readonly name: string;
  readonly logPath: string;
  /** Settles when the process is gone, for whatever reason. */
  readonly exited: Promise<Exit>;
  /** Sends SIGTERM and after `graceMs` SIGKILL; settles when the process is gone. May be called again. */
  stop(graceMs: number): Promise<void>;
}

export interface ProcessOptions {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Folder of `<name>.log`; the log of the run before is kept as `<name>.previous.log`. */
  readonly logDir: string;
}

/** Starts a long-running program with its output in a log file. */
export async function startProcess(options: ProcessOptions): Promise<LocalProcess> {
  const { name, command, args, env, logDir } = options;
  const logPath = join(logDir, `${name}.log`);
  await mkdir(logDir, { recursive: true });
  await keepPrevious(logPath, join(logDir, `${name}.previous.log`));
  const log = await open(logPath, "a", 0o600);
  const child = spawnGuarded(command, args, { env, stdio: ["pipe", log.fd, log.fd] });
  // Before anything else is awaited: an exit is told only once.
  const ended = endOf(child);
  await log.close();
  const exited = ended.then(async (end) => ({ ...end, lastLines: await readLastLines(logPath) }));
  return { name, logPath, exited, stop: (graceMs) => stopGroup(child, ended, graceMs) };
}

/** How a process ended, such as `etcd exited with code 1`. */
export function describeExit(process: LocalProcess, exit: Exit): string {
  return `${process.name} ${exit.signal === null ? `exited with code ${exit.code}` : `was ended by ${exit.signal}`}`;
}

export interface CommandOptions {
  readonly cwd?: string;
  readonly env: NodeJS.ProcessEnv;
  /** Ends the command, and all that it started. */
  readonly signal: AbortSignal;
  /** Each line of stderr as it comes. */
  readonly onErrorLine?: (line: string) => void;
}

export interface CommandResult {
  /** Null when the command was ended by a signal or could not be started. */
  readonly code: number | null;
  readonly stdout: string;
  /** The last lines of stderr. */
  readonly errorLines: string;
}

/** Runs a command to its end. Tests put fakes here. */
export type RunCommand = (command: string, args: readonly string[], options: CommandOptions) => Promise<CommandResult>;

/** Runs a command to its end and collects what it prints; throws only the reason of the signal. */
export const runCommand: RunCommand = async (command, args, options) => {
  options.signal.throwIfAborted();
  const { cwd, env, signal, onErrorLine } = options;
  const child = spawnGuarded(command, args, {
    env,
    stdio: ["pipe", "pipe", "pipe"],
    ...(cwd === undefined ? {} : { cwd }),
  });
  const ended = endOf(child);
  const onAbort = () => void stopGroup(child, ended, 2_000);
  signal.addEventListener("abort", onAbort, { once: true });
  const output = Promise.all([readAll(child.stdout), readLines(child.stderr, onErrorLine)]);
  const { code } = await ended;
  signal.removeEventListener("abort", onAbort);
  const [stdout, lines] = await output;
  signal.throwIfAborted();
  return { code, stdout, errorLines: lines.join("\n") };
};

/** Spawns in a session of its own, so that the terminal's signals reach only us, with the guard beside it. */
function spawnGuarded(command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
  const child = spawn("/bin/sh", ["-c", GUARDED, "sh", command, ...args], { ...options, detached: true });
  // A pipe whose reader is gone is no event of interest: the exit says it.
  child.stdin?.on("error", () => undefined);
  return child;
}

/** Settles when the child is gone; takes along what is left of its process group, the guard included. */
function endOf(child: ChildProcess): Promise<Pick<Exit, "code" | "signal">> {
  return new Promise((resolve) => {
    child.once("error", () => resolve({ code: null, signal: null }));
    child.once("exit", (code, signal) => {
      signalGroup(child, "SIGKILL");
      resolve({ code, signal });
    });
  });
}

async function stopGroup(child: ChildProcess, ended: Promise<unknown>, graceMs: number): Promise<void> {
  const gone = () => child.exitCode !== null || child.signalCode !== null;
  if (!gone()) child.kill("SIGTERM");
  const timer = setTimeout(() => {
    if (!gone()) signalGroup(child, "SIGKILL");
  }, graceMs);
  await ended;
  clearTimeout(timer);
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch (error) {
    // Nobody is left; macOS says EPERM where only zombies are.
    if (errorCode(error) !== "ESRCH" && errorCode(error) !== "EPERM") throw error;
  }
}

async function keepPrevious(path: string, previous: string): Promise<void> {
  try {
    await rename(path, previous);
  } catch (error) {
    if (errorCode(error) !== "ENOENT") throw error;
  }
}

async function readLastLines(path: string): Promise<string> {
  const text = await readFile(path, "utf8").catch(() => "");
  const lines = text.trimEnd().split("\n").slice(-LOG_LINES_MAX);
  return lines.map((line) => line.slice(0, LOG_LINE_CHARACTERS_MAX)).join("\n");
}

async function readAll(stream: Readable | null): Promise<string> {
  let text = "";
  stream?.setEncoding("utf8");
  for await (const chunk of stream ?? []) {
    if (text.length < OUTPUT_CHARACTERS_MAX) text += String(chunk);
  }
  return text;
}

/** Reads to the end and returns the last lines. */
async function readLines(stream: Readable | null, onLine?: (line: string) => void): Promise<readonly string[]> {
  const last: string[] = [];
  if (stream === null) return last;
  for await (const line of createInterface({ input: stream })) {
    onLine?.(line);
    last.push(line.slice(0, LOG_LINE_CHARACTERS_MAX));
    if (last.length > LOG_LINES_MAX) last.shift();
  }
  return last;
}
