/** Hands out connections to registered clusters, kept warm between invocations; losing them changes nothing. */
import type { ClusterAccess } from "./access.ts";
import type { ClusterCache } from "./cluster.ts";
import { type Connection, openConnection } from "./connection.ts";
import { createEntryCache, type EntryCache } from "./entry-cache.ts";
import type { Registry } from "./registry.ts";

/** A registered cluster, ready to be called. */
export interface ReachableCluster {
  readonly name: string;
  readonly access: ClusterAccess;
  readonly connection: Connection;
  readonly cache: ClusterCache;
}

/** `find` gives undefined for a name that is not registered; `refuse` is to be called after a 401. */
export interface Directory extends EntryCache<ReachableCluster | undefined> {
  names(): Promise<readonly string[]>;
}

export interface DirectoryDeps {
  readonly registry: Pick<Registry, "names" | "access">;
  readonly now: () => number;
  readonly connect?: (access: ClusterAccess) => Connection;
}

export function createDirectory({ registry, now, connect = openConnection }: DirectoryDeps): Directory {
  const read = async (name: string, previous: ReachableCluster | undefined): Promise<ReachableCluster | undefined> => {
    const access = await registry.access(name);
    if (previous !== undefined && JSON.stringify(previous.access) === JSON.stringify(access)) return previous;
    // Passes under way still use the old connection: it ends when they are done.
    if (previous !== undefined) void previous.connection.close("drained").catch(() => {});
    if (access === undefined) return undefined;
    return { name, access, connection: connect(access), cache: { poolVersion: undefined } };
  };
  return { names: () => registry.names(), ...createEntryCache<ReachableCluster | undefined>(read, now) };
}
