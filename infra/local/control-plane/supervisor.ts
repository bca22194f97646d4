/** Several processes that serve together: started one by one, stopped in the reverse order; says when one is gone too early. */
import { describeExit, type Exit, type LocalProcess, type ProcessOptions, startProcess } from "./processes.ts";
import { SetupError } from "./setup-error.ts";

export interface Supervisor {
  /** Starts one more; `graceMs` is how long it gets to end by itself when stopped. */
  start(options: ProcessOptions, graceMs: number): Promise<void>;
  /** Aborted, with a `SetupError`, when one is gone that nobody stopped. */
  readonly failed: AbortSignal;
  /** Settles with the reason when one is gone that nobody stopped. */
  readonly died: Promise<string>;
  /** Stops all, the last started first; settles when they are gone. */
  stop(): Promise<void>;
}

/** Begins with no process. */
export function supervise(): Supervisor {
  const members: { readonly process: LocalProcess; readonly graceMs: number }[] = [];
  const failure = new AbortController();
  const { promise: died, resolve: tellDied } = Promise.withResolvers<string>();
  let stopping = false;
  const onExit = (process: LocalProcess, exit: Exit) => {
    if (stopping) return;
    const what = describeExit(process, exit);
    const log = `The end of ${process.logPath}:\n${exit.lastLines}`;
    tellDied(`${what}. ${log}`);
    failure.abort(new SetupError(`${what}.`, log));
  };
  return {
    async start(options, graceMs) {
      const process = await startProcess(options);
      members.push({ process, graceMs });
      void process.exited.then((exit) => onExit(process, exit));
    },
    failed: failure.signal,
    died,
    async stop() {
      stopping = true;
      for (const { process, graceMs } of members.toReversed()) await process.stop(graceMs);
    },
  };
}
