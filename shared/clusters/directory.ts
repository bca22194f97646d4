/** Hands out connections to registered clusters, kept warm between invocations; losing them changes nothing. */
import type { ClusterAccess } from "./access.ts";
import type { ClusterCache } from "./cluster.ts";
import { type Connection, openConnection } from "./connection.ts";
import type { Registry } from "./registry.ts";

const ENTRY_TTL_MS = 5 * 60_000;
/** After a refused credential the entry is read early, this often at most. */
const REFRESH_INTERVAL_MS = 60_000;
/** Unknown names are remembered too, within this bound. */
const ENTRIES_MAX = 1_000;

/** A registered cluster, ready to be called. */
export interface ReachableCluster {
  readonly name: string;
  readonly access: ClusterAccess;
  readonly connection: Connection;
  readonly cache: ClusterCache;
}

export interface Directory {
  names(): Promise<readonly string[]>;
  /** Undefined for a name that is not registered. */
  find(name: string): Promise<ReachableCluster | undefined>;
  /** To be called after a 401: the next `find` reads the entry anew. */
  refuse(name: string): void;
}

export interface DirectoryDeps {
  readonly registry: Registry;
  readonly now: () => number;
  readonly connect?: (access: ClusterAccess) => Connection;
}

interface Entry {
  readonly found: ReachableCluster | undefined;
  readonly readAt: number;
  expiresAt: number;
}

export function createDirectory({ registry, now, connect = openConnection }: DirectoryDeps): Directory {
  const entries = new Map<string, Entry>();
  const read = async (name: string): Promise<ReachableCluster | undefined> => {
    const access = await registry.access(name);
    const previous = entries.get(name)?.found;
    const unchanged = previous !== undefined && JSON.stringify(previous.access) === JSON.stringify(access);
    const fresh = (given: ClusterAccess) => ({
      name,
      access: given,
      connection: connect(given),
      cache: { poolVersion: undefined },
    });
    const found = access === undefined ? undefined : unchanged ? previous : fresh(access);
    if (entries.size >= ENTRIES_MAX) entries.clear();
    entries.set(name, { found, readAt: now(), expiresAt: now() + ENTRY_TTL_MS });
    if (previous !== undefined && !unchanged) await previous.connection.close();
    return found;
  };
  return {
    names: () => registry.names(),
    async find(name) {
      const entry = entries.get(name);
      return entry !== undefined && now() < entry.expiresAt ? entry.found : read(name);
    },
    refuse(name) {
      const entry = entries.get(name);
      if (entry !== undefined && now() >= entry.readAt + REFRESH_INTERVAL_MS) entry.expiresAt = now();
    },
  };
}
