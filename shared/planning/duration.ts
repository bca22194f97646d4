/** Reads durations in the form that Go's `time.ParseDuration` accepts, which is the form the pool API uses. Source: metav1.Duration. */

const NANOSECONDS_A_UNIT: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1_000,
  "\u00b5s": 1_000,
  "\u03bcs": 1_000,
  ms: 1_000_000,
  s: 1_000_000_000,
  m: 60_000_000_000,
  h: 3_600_000_000_000,
};
const NANOSECONDS_A_MILLISECOND = 1_000_000;
/** The API's durations are int64 nanoseconds, which end just below this: about 292 years. */
const NANOSECONDS_MAX = 2 ** 63;
const TEXT_LENGTH_MAX = 100;
const PART = /(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/y;

/** The duration in milliseconds, with its sign, such as 5_400_000 of `1h30m`; undefined when the text is not a Go duration. */
export function parseDuration(text: string): number | undefined {
  if (text.length > TEXT_LENGTH_MAX) return undefined;
  const unsigned = text.replace(/^[+-]/, "");
  if (unsigned === "0") return 0;
  let nanoseconds = 0;
  let end = 0;
  while (end < unsigned.length) {
    PART.lastIndex = end;
    const match = PART.exec(unsigned);
    if (match === null) return undefined;
    const [part, amount, unit = ""] = match;
    nanoseconds += Number(amount) * (NANOSECONDS_A_UNIT[unit] ?? Number.NaN);
    end += part.length;
  }
  if (end === 0 || !(nanoseconds < NANOSECONDS_MAX)) return undefined;
  if (nanoseconds === 0) return 0;
  return (text.startsWith("-") ? -nanoseconds : nanoseconds) / NANOSECONDS_A_MILLISECOND;
}
