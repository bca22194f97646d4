/** What the commands share in reading their command line. */
import { type ParseArgsConfig, parseArgs } from "node:util";
import { CommandError } from "./errors.ts";

/** The message of a wrong command line says what is wrong and what is accepted. */
export type Parsed<T> =
  | { readonly kind: "options"; readonly options: T }
  | { readonly kind: "help"; readonly text: string }
  | { readonly kind: "wrong"; readonly message: string };

/** Whatever `read` or `parseArgs` throws is said in one sentence. */
export function parseCommandLine<T>(read: () => Parsed<T>): Parsed<T> {
  try {
    return read();
  } catch (error) {
    if (error instanceof CommandError) return { kind: "wrong", message: error.message };
    const message = error instanceof Error ? firstSentence(error.message) : "the options cannot be read";
    return { kind: "wrong", message };
  }
}

/** Throws for an option that is not known or is given nothing. */
export function readArguments<const O extends NonNullable<ParseArgsConfig["options"]>>(
  args: readonly string[],
  options: O,
) {
  const parsed = parseArgs({ args: [...args], strict: true, allowPositionals: true, options });
  const given: readonly [string, unknown][] = Object.entries(parsed.values);
  const empty = given.find(([, value]) => value === "" || (Array.isArray(value) && value.includes("")));
  if (empty !== undefined) throw new CommandError(`--${empty[0]} is empty`);
  return parsed;
}

export function readOutput(output: string): "text" | "json" {
  if (output === "text" || output === "json") return output;
  throw new CommandError(`--output is text or json, not "${output}"`);
}

function firstSentence(message: string): string {
  return message.split(/\.\s|\n/)[0] ?? message;
}
