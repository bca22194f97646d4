/** The one error by which the local control plane refuses to start; written for the person at the terminal. */

/** What stands in the way (`message`, one sentence) and what to do about it (`advice`). Never a defect of this program. */
export class SetupError extends Error {
  override readonly name = "SetupError";
  readonly kind = "setup";
  readonly retryable = false;
  readonly advice: string;

  constructor(message: string, advice: string, options?: ErrorOptions) {
    super(message, options);
    this.advice = advice;
  }
}

/** The `code` of a system error, such as `ENOENT`. */
export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}
