/** What the long checks share as commands: wrong options are told in one line, and a terminal shows how far they are. */
import { type ParseArgsConfig, parseArgs } from "node:util";

const WIDTH = 30;
const INTERVAL_MS = 200;

/** Ends the command for an option that is wrong. */
export function refuse(why: string): never {
  process.stderr.write(`${why}; --help tells the options\n`);
  return process.exit(2);
}

/** The options of the command line, by name. */
export function readOptions<const T extends NonNullable<ParseArgsConfig["options"]>>(options: T) {
  try {
    return parseArgs({ options, strict: true, allowPositionals: false }).values;
  } catch (error) {
    return refuse(error instanceof Error ? (error.message.split(/\. |\n/)[0] ?? "") : "the options cannot be read");
  }
}

/** Another one each time. */
export function freshSeed(): string {
  return String(Date.now() % 1_000_000_000);
}

export function wholeNumber(name: string, text: string, { min = 0, max = 999_999_999 } = {}): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  return value >= min && value <= max
    ? value
    : refuse(`--${name} takes a whole number from ${min} to ${max}, not "${text}"`);
}

/** A line that is written again and again, on a terminal only. */
export interface ProgressLine {
  /** `part` from 0 to 1 draws a bar before the text. */
  show(text: string, part?: number): void;
  clear(): void;
}

export function createProgressLine(): ProgressLine {
  let shownAt = Number.NEGATIVE_INFINITY;
  return {
    show(text, part) {
      if (!process.stderr.isTTY || performance.now() - shownAt < INTERVAL_MS) return;
      shownAt = performance.now();
      const filled = Math.floor(Math.min(1, part ?? 0) * WIDTH);
      const bar = part === undefined ? "" : `${"█".repeat(filled)}${"░".repeat(WIDTH - filled)} `;
      process.stderr.write(`\r\u001b[K${bar}${text}`);
    },
    clear() {
      if (process.stderr.isTTY) process.stderr.write("\r\u001b[K");
    },
  };
}
