/** Keeps a store equal to the cluster by list and watch, through restarts of the API server. Writes nothing. */
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import type { Connection } from "../../../shared/clusters/connection.ts";
import type { Kind, Stored } from "./objects.ts";
import { kindPath, type Send } from "./requests.ts";
import type { Store } from "./store.ts";

const LIST_PAGE_SIZE = 500;
/** How long the server keeps one watch open, in seconds. */
const WATCH_SECONDS = 480;
const WATCH_GRACE_SECONDS = 30;
const RECONNECT_FIRST_MS = 100;
const RECONNECT_MAX_MS = 3_000;

const listSchema = z.object({
  metadata: z.object({ resourceVersion: z.string(), continue: z.string().nullish() }),
  items: z.array(z.unknown()),
});
const eventSchema = z.object({ type: z.string(), object: z.unknown() });
const bookmarkSchema = z.object({ metadata: z.object({ resourceVersion: z.string() }) });

export interface FollowOptions<T extends Stored> {
  readonly kind: Kind<T>;
  readonly store: Store<T>;
  readonly send: Send;
  readonly watch: Connection["watch"];
  readonly signal: AbortSignal;
  /** Nothing for what cannot be read, which is then left out. */
  readonly parse: (body: unknown) => T | undefined;
  readonly onError: (operation: string, error: unknown) => void;
}

export interface Following {
  /** Resolves after the first complete list. */
  readonly synced: Promise<void>;
  /** Resolves when the signal has ended the watch. */
  readonly ended: Promise<void>;
}

export function follow<T extends Stored>(options: FollowOptions<T>): Following {
  const synced = Promise.withResolvers<void>();
  const { kind, signal } = options;
  const run = async () => {
    let resourceVersion: string | undefined;
    let pauseMs = RECONNECT_FIRST_MS;
    while (!signal.aborted) {
      try {
        resourceVersion ??= await listAll(options);
        synced.resolve();
        const startedAt = performance.now();
        resourceVersion = await watchFrom(options, resourceVersion);
        // A server that ends every watch at once is as good as unreachable.
        if (performance.now() - startedAt > RECONNECT_MAX_MS) pauseMs = RECONNECT_FIRST_MS;
      } catch (error) {
        resourceVersion = undefined;
        if (!signal.aborted) options.onError(`watch ${kind.plural}`, error);
      }
      await sleep(pauseMs, undefined, { signal }).catch(() => undefined);
      pauseMs = Math.min(RECONNECT_MAX_MS, pauseMs * 2);
    }
  };
  return { synced: synced.promise, ended: run() };
}

/** Puts what there is into the store; the version that it was. */
async function listAll<T extends Stored>({ kind, store, send, parse }: FollowOptions<T>): Promise<string> {
  const objects: T[] = [];
  let next = "";
  for (;;) {
    const query = new URLSearchParams({ limit: String(LIST_PAGE_SIZE), ...selectorOf(kind) });
    if (next !== "") query.set("continue", next);
    const body = await send(`list ${kind.plural}`, { method: "GET", path: `${kindPath(kind)}?${query}` });
    const { items, metadata } = listSchema.parse(body);
    objects.push(...items.flatMap((item) => parse(item) ?? []));
    next = metadata.continue ?? "";
    if (next !== "") continue;
    store.replaceAll(objects, metadata.resourceVersion);
    return metadata.resourceVersion;
  }
}

/** Follows changes until the server ends the watch; the version to go on from, or nothing when only a list helps. */
async function watchFrom<T extends Stored>(
  options: FollowOptions<T>,
  resourceVersion: string,
): Promise<string | undefined> {
  const { kind, store } = options;
  const query = new URLSearchParams({
    watch: "true",
    allowWatchBookmarks: "true",
    timeoutSeconds: String(WATCH_SECONDS),
    resourceVersion,
    ...selectorOf(kind),
  });
  // A connection that died in silence would otherwise be waited on for ever.
  const deadline = AbortSignal.timeout((WATCH_SECONDS + WATCH_GRACE_SECONDS) * 1_000);
  const signal = AbortSignal.any([options.signal, deadline]);
  let last = resourceVersion;
  for await (const line of options.watch(`${kindPath(kind)}?${query}`, signal)) {
    const { type, object: body } = eventSchema.parse(line);
    if (type === "ERROR") return undefined;
    last = bookmarkSchema.parse(body).metadata.resourceVersion;
    const object = type === "BOOKMARK" ? undefined : options.parse(body);
    if (object === undefined) continue;
    if (type === "DELETED") store.forget(object);
    else store.observe(object);
  }
  return last;
}

function selectorOf<T extends Stored>(kind: Kind<T>): { readonly labelSelector?: string } {
  return kind.labelSelector === undefined ? {} : { labelSelector: kind.labelSelector };
}
