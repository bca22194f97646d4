/** How messages repeat what others wrote: never at length, and nothing that may be a secret in the wrong place. */

/** Longer text crowds out what the message is there to say; the longest legal label key is longer, which nobody has. */
const QUOTED_LENGTH_MAX = 100;
/** Control characters, line ends, halves of characters: nothing of a name, and much of a script or a key. */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]/u;
/** A word as fields with a few legal values have them, a number or a percentage. */
const PLAIN_WORD = /^[\w.%+ -]{0,20}$/;

/** A name, key or value for a message: in quotes while it is short and of one line, else only how long it is. */
export function quoted(text: string): string {
  return isShowable(text) ? JSON.stringify(text) : `a text of ${text.length} characters`;
}

/** The same without quotes, as for one step of a path to a field. */
export function pathStep(key: string): string {
  return isShowable(key) ? key : `(${key.length} characters)`;
}

function isShowable(text: string): boolean {
  return text.length <= QUOTED_LENGTH_MAX && !UNPRINTABLE.test(text);
}

/** What stands in a field instead of what belongs there: its type, and its value only where that is a number, a switch or a plain word. */
export function shownValue(value: unknown): string {
  if (value === null || value === undefined) return "nothing";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (Array.isArray(value)) return "a list";
  if (typeof value !== "string") return "an object";
  return PLAIN_WORD.test(value) ? JSON.stringify(value) : "a text";
}

/** The same where any text may have been meant, a secret among them: the type alone. */
export function shownType(value: unknown): string {
  return typeof value === "string" && value !== "" ? "a text" : shownValue(value);
}

/** The beginning of a text, of at most so many characters. Half a character at the cut becomes another sign: it would not come back from the API as it was sent. */
export function shorten(text: string, lengthMax: number): string {
  return text.length <= lengthMax ? text : `${text.slice(0, lengthMax - 1).toWellFormed()}…`;
}

/**
 * The text with each number as one sign, and words that are nothing else, such as addresses, times and identifiers, too. Servers put
 * ports, times and the numbers of requests into what they say: two texts of which this is the same say the same. A position
 * in a list stays: it says which entry is meant.
 */
export function withoutNumbers(text: string): string {
  return text.replace(/\[\d+\]|[\w.:-]+/g, (word) => {
    if (word.startsWith("[")) return word;
    return /\d/.test(word) && IDENTIFIER.test(word) ? "#" : word.replace(/\d+/g, "#");
  });
}

const IDENTIFIER = /^[\da-fA-F.:TZ-]+$/;

/** The first few of a list in words: `a, b and 7 more`. */
export function listed(texts: readonly string[], countMax: number): string {
  const more = texts.length - countMax;
  return `${texts.slice(0, countMax).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}
