/** What a function's log lines look like on AWS. */
import { afterEach, expect, it, vi } from "vitest";
import { createLogger, describeError } from "../../shared/runtime/logger.ts";

afterEach(() => void vi.restoreAllMocks());

/** What `log` writes, line by line. */
function linesOf(log: () => void): readonly unknown[] {
  const written: string[] = [];
  const record = (chunk: string | Uint8Array) => written.push(String(chunk)) > 0;
  vi.spyOn(process.stdout, "write").mockImplementation(record);
  vi.spyOn(process.stderr, "write").mockImplementation(record);
  log();
  vi.restoreAllMocks();
  return written
    .join("")
    .split("\n")
    .filter((line) => line !== "")
    .map((line): unknown => JSON.parse(line));
}

it("says in one line what happened and why", () => {
  const logger = createLogger("reconcile");
  const lines = linesOf(() => logger.error("pass failed", { pool: "web", ...describeError(new Error("no route")) }));
  expect(lines).toEqual([
    expect.objectContaining({
      level: "ERROR",
      message: "pass failed",
      service: "reconcile",
      pool: "web",
      error: "Error",
      errorMessage: "no route",
    }),
  ]);
});

it.for(["debug", "info", "warn", "error"] as const)(
  "keeps the constant message apart from a field of that name: %s",
  (level) => {
    vi.stubEnv("POWERTOOLS_LOG_LEVEL", "DEBUG");
    const logger = createLogger("status");
    vi.unstubAllEnvs();
    const lines = linesOf(() => logger[level]("cluster cannot be read", { kind: "unreachable", message: "no route" }));
    expect(lines).toEqual([
      expect.objectContaining({ message: "cluster cannot be read", kind: "unreachable", errorMessage: "no route" }),
    ]);
  },
);
