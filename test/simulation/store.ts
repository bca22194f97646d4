/** What etcd is to the API server: objects by place, one counter of versions, a journal of every change. Knows no rules. */
import type { Kind } from "./kinds.ts";
import type { KubeObject } from "./objects.ts";

/** One change that took effect. */
export interface Change {
  /** Counts changes from 1. */
  readonly sequence: number;
  /** Who asked for it. */
  readonly actor: string;
  readonly kind: Kind;
  /** Undefined for a create. */
  readonly before: KubeObject | undefined;
  /** Undefined when the object is gone. */
  readonly after: KubeObject | undefined;
}

export interface Store {
  /** The version of the last change. */
  readonly version: number;
  readonly journal: readonly Change[];
  get(kind: Kind, namespace: string, name: string): KubeObject | undefined;
  /** In the order of namespaces, then names; of all namespaces when none is given. */
  list(kind: Kind, namespace?: string): readonly KubeObject[];
  /** Puts the object under a new resourceVersion and returns it so. */
  put(kind: Kind, object: KubeObject, actor: string): KubeObject;
  remove(kind: Kind, object: KubeObject, actor: string): void;
  /** As it was so many changes ago, to be read. */
  past(changes: number): Store;
}

export function createStore(): Store {
  const tables = new Map<Kind, Map<string, KubeObject>>();
  const journal: Change[] = [];
  // Not from 1: a version must not be mistaken for a count.
  let version = 100;
  const table = (kind: Kind): Map<string, KubeObject> => {
    const found = tables.get(kind) ?? new Map<string, KubeObject>();
    tables.set(kind, found);
    return found;
  };
  // Lists are asked for far more often than something changes.
  const sorted = new Map<Kind, readonly KubeObject[]>();
  const sort = (kind: Kind): readonly KubeObject[] => {
    const known = sorted.get(kind);
    if (known !== undefined) return known;
    const objects = inOrder(table(kind));
    sorted.set(kind, objects);
    return objects;
  };
  const note = (change: Omit<Change, "sequence">) => void journal.push({ ...change, sequence: journal.length + 1 });
  /** The kind's objects before the last so many changes of any kind. */
  const tableBefore = (kind: Kind, changes: number): Map<string, KubeObject> => {
    const objects = new Map(table(kind));
    for (const change of journal.slice(Math.max(0, journal.length - changes)).reverse()) {
      const { namespace, name } = (change.after ?? change.before)?.metadata ?? { namespace: "", name: "" };
      if (change.kind !== kind) continue;
      if (change.before === undefined) objects.delete(`${namespace}/${name}`);
      else objects.set(`${namespace}/${name}`, change.before);
    }
    return objects;
  };
  const store: Store = {
    get version() {
      return version;
    },
    journal,
    get: (kind, namespace, name) => table(kind).get(`${namespace}/${name}`),
    list: (kind, namespace) => inNamespace(sort(kind), namespace),
    past: (changes) => ({
      ...store,
      version: version - Math.min(changes, journal.length),
      get: (kind, namespace, name) => tableBefore(kind, changes).get(`${namespace}/${name}`),
      list: (kind, namespace) => inNamespace(inOrder(tableBefore(kind, changes)), namespace),
    }),
    put(kind, object, actor) {
      version += 1;
      const { namespace, name } = object.metadata;
      const place = `${namespace}/${name}`;
      const stored = { ...object, metadata: { ...object.metadata, resourceVersion: String(version) } };
      note({ actor, kind, before: table(kind).get(place), after: stored });
      table(kind).set(place, stored);
      sorted.delete(kind);
      return stored;
    },
    remove(kind, object, actor) {
      version += 1;
      const { namespace, name } = object.metadata;
      table(kind).delete(`${namespace}/${name}`);
      sorted.delete(kind);
      note({ actor, kind, before: object, after: undefined });
    },
  };
  return store;
}

function inOrder(objects: ReadonlyMap<string, KubeObject>): readonly KubeObject[] {
  return [...objects].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, object]) => object);
}

function inNamespace(objects: readonly KubeObject[], namespace: string | undefined): readonly KubeObject[] {
  return namespace === undefined ? objects : objects.filter(({ metadata }) => metadata.namespace === namespace);
}
