/** The errors and exhaustiveness checks that every layer shares. */
import { shorten } from "./wording.ts";

/** Fails to compile when a union gains a member that a switch does not handle. */
export function assertNever(value: never): never {
  throw new TypeError(`unhandled member of a union: ${JSON.stringify(value)}`);
}

/** One thing that is wrong with an object a user wrote: where, and what was expected instead. */
export interface Problem {
  /** Path such as `spec.selector`. */
  readonly field: string;
  readonly message: string;
}

/** How many problems one text tells, and how much of each. */
const PROBLEMS_MAX = 20;
const PROBLEM_LENGTH_MAX = 3_000;

/** The problems as one line for a log, a condition or a Kubernetes Event. */
export function describeProblems(problems: readonly Problem[]): string {
  const told = problems.slice(0, PROBLEMS_MAX).map(({ field, message }) => {
    return shorten(field === "" ? message : `${field}: ${message}`, PROBLEM_LENGTH_MAX);
  });
  const more = problems.length - told.length;
  return [...told, ...(more > 0 ? [`and ${more} more`] : [])].join("; ");
}
