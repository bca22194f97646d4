/** The logger that functions are given: constant messages with fields, one JSON line each on AWS. */
import { Logger as PowertoolsLogger } from "@aws-lambda-powertools/logger";
import { shorten } from "../planning/wording.ts";

/** Of a message, and of each line that says where. */
const LENGTH_MAX = 500;

export type Fields = Readonly<Record<string, unknown>>;

export interface Logger {
  debug(message: string, fields: Fields): void;
  info(message: string, fields: Fields): void;
  warn(message: string, fields: Fields): void;
  error(message: string, fields: Fields): void;
}

/** JSON lines for CloudWatch. */
export function createLogger(serviceName: string): Logger {
  const logger = new PowertoolsLogger({ serviceName });
  return {
    debug: (message, fields) => logger.debug(message, nameApart(fields)),
    info: (message, fields) => logger.info(message, nameApart(fields)),
    warn: (message, fields) => logger.warn(message, nameApart(fields)),
    error: (message, fields) => logger.error(message, nameApart(fields)),
  };
}

/** A line's own `message` is the constant one; the logger drops a field of that name, with a line of complaint. */
function nameApart({ message, ...fields }: Fields): Record<string, unknown> {
  return message === undefined ? fields : { ...fields, errorMessage: message };
}

/** What may be logged of a thrown value: its name and message, never its properties, which may hold headers or bodies. */
export function describeError(error: unknown): Fields {
  if (!(error instanceof Error)) return { error: "a value that is not an Error was thrown" };
  const lines = error.stack?.split("\n").map((line) => shorten(line.trim(), LENGTH_MAX));
  // Before them stands the message, of however many lines.
  const where = lines?.filter((line) => line.startsWith("at ")).slice(0, 3);
  return { error: error.name, message: shorten(error.message, LENGTH_MAX), where };
}
