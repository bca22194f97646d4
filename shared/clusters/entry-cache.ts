/** Keeps registry entries for a few minutes; losing them changes nothing. Unknown names are kept too, so that guessing costs no reads. */

const ENTRY_TTL_MS = 5 * 60_000;
/** After a refused credential or signature the entry is read early, this often at most. */
const REFRESH_INTERVAL_MS = 60_000;
const ENTRIES_MAX = 1_000;

export interface EntryCache<T> {
  find(name: string): Promise<T>;
  /** To be called when the entry seems outdated: the next `find` reads it anew, at most once a minute. */
  refuse(name: string): void;
}

interface Entry<T> {
  readonly value: T;
  readonly readAt: number;
  expiresAt: number;
}

/** `read` gets the value that it replaces, if any; one read of a name at a time. `now` is in epoch milliseconds. */
export function createEntryCache<T>(
  read: (name: string, previous: T | undefined) => Promise<T>,
  now: () => number,
): EntryCache<T> {
  const entries = new Map<string, Entry<T>>();
  const reading = new Map<string, Promise<T>>();
  const refresh = async (name: string): Promise<T> => {
    const value = await read(name, entries.get(name)?.value);
    if (entries.size >= ENTRIES_MAX) entries.clear();
    entries.set(name, { value, readAt: now(), expiresAt: now() + ENTRY_TTL_MS });
    return value;
  };
  return {
    async find(name) {
      const entry = entries.get(name);
      if (entry !== undefined && now() < entry.expiresAt) return entry.value;
      const promise = reading.get(name) ?? refresh(name).finally(() => reading.delete(name));
      reading.set(name, promise);
      return promise;
    },
    refuse(name) {
      const entry = entries.get(name);
      if (entry !== undefined && now() >= entry.readAt + REFRESH_INTERVAL_MS) entry.expiresAt = now();
    },
  };
}
