/** A cluster cannot be reached for a reason that somebody can act upon. Nothing was sent; the message is safe to show. */
export class UnreachableError extends Error {
  override readonly name = "UnreachableError";
  /** Whether the next try may succeed though nobody does anything. */
  readonly retryable: boolean;

  constructor(message: string, { retryable = false, cause }: { retryable?: boolean; cause?: unknown } = {}) {
    super(message, { cause });
    this.retryable = retryable;
  }
}
