/**
 * Keeps registry entries, and what belongs to them, for a few minutes; losing them changes nothing. Unknown names and bad
 * entries are kept too, so that guessing and mistakes cost no reads.
 */

const ENTRY_TTL_MS = 5 * 60_000;
/** After a refused credential or signature the entry is read early, this often at most. */
const REFRESH_INTERVAL_MS = 60_000;
/** What could not be read is not asked for again before. */
const RETRY_INTERVAL_MS = 10_000;
/** A value that cannot be read again serves for so long after it was read. */
const STALE_MAX_MS = 30 * 60_000;
const ENTRIES_MAX = 1_000;

export interface EntryCache<T> {
  find(name: string): Promise<T>;
  /** To be called when the entry seems outdated: the next `find` reads it anew, at most once a minute. */
  refuse(name: string): void;
}

/** An expected failure of a read: kept as long as a value, unless the next try may succeed. */
interface ReadFailure extends Error {
  readonly retryable: boolean;
}

type Outcome<T> =
  | { readonly value: T; readonly readAt: number }
  /** It was read, and is of no use. */
  | { readonly error: ReadFailure };

interface Entry<T> {
  readonly outcome: Outcome<T>;
  readonly askedAt: number;
  expiresAt: number;
}

/**
 * `read` gets the value that it replaces, if any; one read of a name at a time. `now` is in epoch milliseconds. Errors that
 * have no boolean `retryable` are nobody's expectation, and are not kept.
 */
export function createEntryCache<T>(
  read: (name: string, previous: T | undefined) => Promise<T>,
  now: () => number,
  ttlMs: (value: T) => number = () => ENTRY_TTL_MS,
): EntryCache<T> {
  const entries = new Map<string, Entry<T>>();
  const reading = new Map<string, Promise<Entry<T>>>();
  const keep = (name: string, outcome: Outcome<T>, keptMs: number): Entry<T> => {
    if (entries.size >= ENTRIES_MAX) makeRoom(entries);
    const entry = { outcome, askedAt: now(), expiresAt: now() + keptMs };
    entries.set(name, entry);
    return entry;
  };
  const refresh = async (name: string): Promise<Entry<T>> => {
    const last = entries.get(name)?.outcome;
    const previous = last !== undefined && "value" in last ? last : undefined;
    try {
      const value = await read(name, previous?.value);
      return keep(name, { value, readAt: now() }, ttlMs(value));
    } catch (error) {
      if (!isReadFailure(error)) throw error;
      if (!error.retryable) return keep(name, { error }, ENTRY_TTL_MS);
      const serves = previous !== undefined && now() < previous.readAt + STALE_MAX_MS;
      return keep(name, serves ? previous : { error }, RETRY_INTERVAL_MS);
    }
  };
  return {
    async find(name) {
      const kept = entries.get(name);
      if (kept !== undefined && now() < kept.expiresAt) return open(kept.outcome);
      const promise = reading.get(name) ?? refresh(name).finally(() => reading.delete(name));
      reading.set(name, promise);
      return open((await promise).outcome);
    },
    refuse(name) {
      const entry = entries.get(name);
      if (entry !== undefined && now() >= entry.askedAt + REFRESH_INTERVAL_MS) entry.expiresAt = now();
    },
  };
}

function open<T>(outcome: Outcome<T>): T {
  if ("value" in outcome) return outcome.value;
  throw outcome.error;
}

/** Names that somebody guesses must not drive out those that are registered. */
function makeRoom<T>(entries: Map<string, Entry<T>>): void {
  for (const [name, { outcome }] of entries)
    if (!("value" in outcome) || outcome.value === undefined) entries.delete(name);
  if (entries.size >= ENTRIES_MAX) entries.clear();
}

function isReadFailure(error: unknown): error is ReadFailure {
  return error instanceof Error && "retryable" in error && typeof error.retryable === "boolean";
}
