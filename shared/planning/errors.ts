/** The errors and exhaustiveness checks that every layer shares. */

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

/** The problems as one line for a log, a condition or a Kubernetes Event. */
export function describeProblems(problems: readonly Problem[]): string {
  return problems.map(({ field, message }) => (field === "" ? message : `${field}: ${message}`)).join("; ");
}
