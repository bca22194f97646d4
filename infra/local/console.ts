/** What `npm start` shows: steps with their progress, the pool while it comes up, decisions with their reasons. Plain lines without a terminal. */
import { clearScreenDown, moveCursor } from "node:readline";
import type { WriteStream } from "node:tty";
import type { PassResult } from "../../shared/clusters/reconcile-pool.ts";
import type { WakeUp } from "../../shared/events/wake-ups.ts";
import type { Progress } from "./control-plane/progress.ts";

/** Decisions of one pass that are shown one by one. */
const LINES_A_PASS_MAX = 8;
/** Without a terminal a long step says how far it is this often. */
const PLAIN_INTERVAL_MS = 10_000;
/** Pools whose last decisions are remembered, so that what holds is said once. */
const REMEMBERED_MAX = 10_000;

export interface Console {
  line(text: string): void;
  /** One sentence about what is wrong, and what to do. */
  error(text: string): void;
  progress(progress: Progress): void;
  /** Shows `text` as the last, changing line; without a terminal, as a line whenever it changed. */
  live(text: string): void;
  endLive(): void;
  /** Shows what a pass decided; `wouldOnly` for one that may not act. */
  pass(key: WakeUp, result: PassResult, wouldOnly: boolean): void;
}

export function createConsole(out: WriteStream | NodeJS.WriteStream, err: NodeJS.WriteStream): Console {
  const isTerminal = out.isTTY === true;
  let liveText = "";
  let plainAt = 0;
  const shown = new Map<string, string>();
  const clear = () => {
    if (!isTerminal || liveText === "") return;
    moveCursor(out, -1_000, 0);
    clearScreenDown(out);
  };
  const draw = () => {
    if (isTerminal && liveText !== "") out.write(liveText.slice(0, Math.max(20, (out.columns || 80) - 1)));
  };
  const line = (text: string) => {
    clear();
    out.write(`${text}\n`);
    draw();
  };
  const live = (text: string) => {
    if (text === liveText) return;
    clear();
    liveText = text;
    if (isTerminal) draw();
    else if (text !== "") out.write(`${text}\n`);
  };
  return {
    line,
    live,
    endLive: () => live(""),
    error(text) {
      clear();
      liveText = "";
      err.write(`${text}\n`);
    },
    progress({ step, phase, detail, elapsedMs }) {
      const seconds = `${(elapsedMs / 1_000).toFixed(1)} s`;
      const said = detail === undefined ? "" : `: ${detail}`;
      if (phase === "finished" || phase === "failed") {
        if (isTerminal) live("");
        line(`  ${phase === "failed" ? "✗" : "✓"} ${step}${said} (${seconds})`);
      } else if (isTerminal) live(`  … ${step}${said} (${seconds})`);
      else if (phase === "going" && elapsedMs - plainAt >= PLAIN_INTERVAL_MS) {
        plainAt = elapsedMs;
        line(`  … ${step}${said} (${seconds})`);
      } else if (phase === "begun") plainAt = 0;
    },
    pass({ namespace, name }, { decisions, failures, unreadable, view }, wouldOnly) {
      const told = decisions.filter((decision) => !decision.startsWith("write the claim"));
      const problems =
        unreadable === undefined ? failures : [`${unreadable.what} cannot be read: ${unreadable.failure.message}`];
      const reasons = new Set(view?.plan.reasons);
      const said = told.map((decision) => (wouldOnly && !reasons.has(decision) ? `would ${decision}` : decision));
      // What holds in every look of a pass is one line.
      const text = [...new Set([...said, ...problems.map((problem) => `failed: ${problem}`)])];
      const key = `${namespace}/${name}`;
      if (shown.get(key) === text.join("\n")) return;
      if (shown.size >= REMEMBERED_MAX) shown.clear();
      shown.set(key, text.join("\n"));
      for (const entry of text.slice(0, LINES_A_PASS_MAX)) line(`${clock()}  ${key}  ${entry}`);
      if (text.length > LINES_A_PASS_MAX) line(`${clock()}  ${key}  … and ${text.length - LINES_A_PASS_MAX} more`);
    },
  };
}

function clock(): string {
  return new Date().toTimeString().slice(0, 8);
}
