/** What ends a command: one sentence that says what is wrong and what to do, and no stack. */
export class CommandError extends Error {
  override readonly name = "CommandError";
}
