/** One kind of object in the cluster: a local copy that follows it, and writes whose answers enter the copy at once. */
import type { Connection } from "../../../shared/clusters/connection.ts";
import { type Following, follow } from "./follow.ts";
import { type Kind, keyOf, type Stored } from "./objects.ts";
import { createSend, kindPath, objectPath, RefusedError, type Send } from "./requests.ts";
import { createStore, type Store } from "./store.ts";

export interface PatchBody {
  readonly metadata?: object;
  readonly spec?: object;
  readonly status?: object;
}

export interface StatusChange {
  readonly status: object;
  /** All labels of the object, where they change along with the status. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Where the kind has one. */
  readonly subresource?: "status";
}

export interface Collection<T extends Stored> extends Following {
  get(key: string): T | undefined;
  all(): Iterable<T>;
  /** Creates the object; one of that name that is already there is success, and then nothing comes back. */
  create(namespace: string, body: object): Promise<T | undefined>;
  /** Merge patch that applies only to the state of `object` that is given. */
  patch(object: T, body: PatchBody, subresource?: "status"): Promise<T | undefined>;
  /** Puts the whole status in place of that of `object`, nulls included, which a merge patch would drop. */
  replaceStatus(object: T, change: StatusChange): Promise<T | undefined>;
  /** Puts the whole spec in place of that of `object`. */
  replaceSpec(object: T, spec: object): Promise<T | undefined>;
  /** Deletes just this incarnation of the object; when it is gone already, that is success. */
  remove(object: T, options?: { readonly gracePeriodSeconds: number }): Promise<void>;
}

export interface CollectionOptions<T extends Stored> {
  readonly connection: Connection;
  readonly kind: Kind<T>;
  readonly signal: AbortSignal;
  readonly onChange: (object: T, before: T | undefined) => void;
  readonly onError: (operation: string, error: unknown) => void;
}

export function createCollection<T extends Stored>(options: CollectionOptions<T>): Collection<T> {
  const { connection, kind, signal, onError } = options;
  const store = createStore<T>(options.onChange);
  const send = createSend(connection, signal);
  const parse = (body: unknown): T | undefined => {
    const parsed = kind.schema.safeParse(body);
    if (!parsed.success) onError(`read ${kind.plural}`, parsed.error);
    return parsed.data;
  };
  const watch: Connection["watch"] = (path, ended) => connection.watch(path, ended);
  return {
    ...follow({ kind, store, send, watch, signal, parse, onError }),
    ...createWrites({ kind, store, send, parse }),
    get: store.get,
    all: store.all,
  };
}

interface WriteOptions<T extends Stored> {
  readonly kind: Kind<T>;
  readonly store: Store<T>;
  readonly send: Send;
  readonly parse: (body: unknown) => T | undefined;
}

function createWrites<T extends Stored>(options: WriteOptions<T>) {
  const { kind, store, send, parse } = options;
  const noteAnswer = (body: unknown): T | undefined => {
    const object = parse(body);
    if (object !== undefined) store.observeAnswer(object);
    return object;
  };
  const sendPatch = async (path: string, type: "merge-patch" | "json-patch", body: object) =>
    noteAnswer(
      await send(`patch ${kind.plural}`, { method: "PATCH", path, contentType: `application/${type}+json`, body }),
    );
  return {
    async create(namespace: string, body: object) {
      const path = kindPath(kind, namespace);
      const whole = { apiVersion: kind.apiVersion, kind: kind.kind, ...body };
      try {
        return noteAnswer(await send(`create ${kind.plural}`, { method: "POST", path, body: whole }));
      } catch (error) {
        if (error instanceof RefusedError && error.reason === "AlreadyExists") return undefined;
        throw error;
      }
    },
    patch(object: T, body: PatchBody, subresource?: "status") {
      const { uid, resourceVersion } = object.metadata;
      const metadata = { uid, resourceVersion, ...body.metadata };
      return sendPatch(objectPath(kind, object, subresource), "merge-patch", { ...body, metadata });
    },
    replaceSpec(object: T, spec: object) {
      const change = { op: "replace", path: "/spec", value: spec };
      return sendPatch(objectPath(kind, object), "json-patch", [...unchanged(object), change]);
    },
    replaceStatus(object: T, { status, labels, subresource }: StatusChange) {
      return sendPatch(objectPath(kind, object, subresource), "json-patch", [
        ...unchanged(object),
        ...(labels === undefined ? [] : [{ op: "add", path: "/metadata/labels", value: labels }]),
        { op: "add", path: "/status", value: status },
      ]);
    },
    async remove(object: T, deleteOptions?: { readonly gracePeriodSeconds: number }) {
      const preconditions = { uid: object.metadata.uid };
      const body = { apiVersion: "v1", kind: "DeleteOptions", preconditions, ...deleteOptions };
      try {
        const path = objectPath(kind, object);
        const left = kind.schema.safeParse(await send(`delete ${kind.plural}`, { method: "DELETE", path, body }));
        if (left.success && keyOf(left.data) === keyOf(object)) store.observeAnswer(left.data);
      } catch (error) {
        // Another incarnation (409) is left alone, and this one is gone either way.
        if (!(error instanceof RefusedError && error.isStale)) throw error;
      }
    },
  };
}

/** Operations that make a JSON patch apply only to this state of the object. */
function unchanged({ metadata: { uid, resourceVersion } }: Stored): readonly object[] {
  return [
    { op: "replace", path: "/metadata/uid", value: uid },
    { op: "replace", path: "/metadata/resourceVersion", value: resourceVersion },
  ];
}
