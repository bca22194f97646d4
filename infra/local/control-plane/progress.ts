/** What a person at the terminal is told while something takes long; decides nothing about how it is shown. */

/** The shortest time between two reports of one step. */
const REPORT_INTERVAL_MS = 500;
/** The longest silence of a step that goes on: linking a large program says nothing for long. */
const HEARTBEAT_MS = 5_000;

export interface Progress {
  /** What is going on, without a full stop: `building kube-apiserver v1.35.4 from source`. The same for all reports of one step. */
  readonly step: string;
  readonly phase: "begun" | "going" | "finished" | "failed";
  /** How far, such as `512 of at most 1204 packages`, or why it failed; absent where there is nothing to say. */
  readonly detail?: string;
  readonly elapsedMs: number;
}

export type OnProgress = (progress: Progress) => void;

/** One thing that takes long. Exactly one of `finish` and `fail` counts, the first; one of them must come. */
export interface Step {
  /** Says how far the step is; told with the next heartbeat when the last report is only just out. */
  report(detail: string): void;
  finish(detail?: string): void;
  fail(detail: string): void;
}

/** Begins a step: reports it and returns what its later reports go through. */
export function beginStep(onProgress: OnProgress, step: string): Step {
  const begunAt = performance.now();
  let reportedAt = begunAt;
  let latest: string | undefined;
  let ended = false;
  const say = (phase: Progress["phase"], detail?: string) => {
    reportedAt = performance.now();
    const elapsedMs = Math.round(reportedAt - begunAt);
    onProgress({ step, phase, elapsedMs, ...(detail === undefined ? {} : { detail }) });
  };
  const heartbeat = setInterval(() => {
    if (performance.now() - reportedAt >= HEARTBEAT_MS) say("going", latest);
  }, HEARTBEAT_MS / 5).unref();
  const end = (phase: Progress["phase"], detail?: string) => {
    if (ended) return;
    ended = true;
    clearInterval(heartbeat);
    say(phase, detail);
  };
  say("begun");
  return {
    report(detail) {
      latest = detail;
      if (!ended && performance.now() - reportedAt >= REPORT_INTERVAL_MS) say("going", detail);
    },
    finish: (detail) => end("finished", detail),
    fail: (detail) => end("failed", detail),
  };
}
