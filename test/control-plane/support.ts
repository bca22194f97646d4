/** What the tests of the control plane share: folders that go away, shell scripts in the place of programs, the process table. */
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { onTestFinished } from "vitest";

const POLL_MS = 25;

/** An empty folder that is removed when the test is over. */
export function aFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "control-plane-test-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A shell script in the place of a program; returns its path. */
export function aProgram(folder: string, name: string, script = "exit 0"): string {
  const path = join(folder, name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

/** Id, state and command line of the living processes that have `text` in theirs. */
export function processesWith(text: string): readonly string[] {
  const options = { encoding: "utf8", maxBuffer: 16 * 1024 * 1024 } as const;
  const table = execFileSync("ps", ["-A", "-ww", "-o", "pid=,stat=,args="], options);
  return table.split("\n").filter((line) => line.includes(text) && !/^\s*\d+ Z/.test(line));
}

/** The id of the program, not of its guard, with `text` in its command line. */
export function pidOf(text: string): number {
  const [line = ""] = processesWith(text).filter((one) => !one.includes("/bin/sh"));
  return Number.parseInt(line, 10);
}

/** Settles when the condition holds; the test's own time limit is the bound. */
export async function until(condition: () => boolean | Promise<boolean>, signal?: AbortSignal): Promise<void> {
  while (!(await condition())) await sleep(POLL_MS, undefined, signal === undefined ? {} : { signal });
}

export function never(): AbortSignal {
  return new AbortController().signal;
}
