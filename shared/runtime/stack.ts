/** The middy stack of every function: the event is parsed once, unexpected errors are logged without their contents. */
import middy from "@middy/core";
import type { Context } from "aws-lambda";
import type * as z from "zod";
import { shorten } from "../planning/wording.ts";
import { describeError, type Logger } from "./logger.ts";

/** The event is not of the form that this function is triggered with. */
export class EventError extends Error {
  override readonly name = "EventError";
}

/** Lambda's time-out ends the process too: what middy gave up on would go on beside the next invocation. */
const NEVER_EARLY = 0;
/** Names of fields may be the sender's. */
const MESSAGE_LENGTH_MAX = 500;

export interface StackOptions<S extends z.ZodType> {
  /** Name of the function, for logs. */
  readonly name: string;
  readonly event: S;
  readonly logger: () => Logger;
}

/** Wraps `handle`, which gets the parsed event. What is returned takes exactly what AWS sends. */
export function createStack<S extends z.ZodType, R>(
  { name, event: schema, logger }: StackOptions<S>,
  handle: (event: z.output<S>, context: Context) => Promise<R>,
): (event: unknown, context: Context) => Promise<R> {
  return middy<unknown, R, Error, Context>({ timeoutEarlyInMillis: NEVER_EARLY })
    .onError((request) => {
      const { error } = request;
      request.error = bareError(error);
      logger().error("function failed", { function: name, ...describeError(error) });
    })
    .handler(async (event: unknown, context: Context) => {
      const parsed = schema.safeParse(event);
      if (parsed.success) return handle(parsed.data, context);
      const fields = parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`);
      throw new EventError(
        `the event of ${name} is not of the expected form: ${shorten(fields.slice(0, 5).join("; "), MESSAGE_LENGTH_MAX)}`,
      );
    });
}

/** Lambda's runtime writes an error with all its properties to the log, which may be headers, bodies or a whole request. */
function bareError(error: unknown): Error {
  if (!(error instanceof Error)) return new Error("a value that is not an Error was thrown");
  const bare = new Error(error.message);
  bare.name = error.name;
  if (error.stack !== undefined) bare.stack = error.stack;
  return bare;
}
