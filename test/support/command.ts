/** Runs a program to its end, as a shell would. */
import { execFile } from "node:child_process";

export interface CommandOutcome {
  readonly ok: boolean;
  /** Undefined when a signal ended it, or it could not be started. */
  readonly code: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  readonly env: NodeJS.ProcessEnv;
  readonly stdin?: string;
}

const OUTPUT_BYTES_MAX = 64 * 1024 * 1024;

export function run(command: string, args: readonly string[], options: CommandOptions): Promise<CommandOutcome> {
  return new Promise((resolve) => {
    const settings = { env: options.env, maxBuffer: OUTPUT_BYTES_MAX };
    const child = execFile(command, args, settings, (error, stdout, stderr) => {
      const code = error === null ? 0 : error.code;
      resolve({ ok: error === null, code: typeof code === "number" ? code : undefined, stdout, stderr });
    });
    // A program that does not read its input is no event of interest.
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(options.stdin ?? "");
  });
}
