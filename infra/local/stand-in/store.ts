/** The last known state of one kind of object, by key. Holds no connection; never goes back to an older state of an object. */
import { isDeleting, keyOf, type Stored } from "./objects.ts";

/** How many deleted objects are remembered, so that a late answer does not bring one back. */
const TOMBSTONES_MAX = 20_000;

export interface Store<T extends Stored> {
  get(key: string): T | undefined;
  all(): Iterable<T>;
  /** Takes an object from the watch. */
  observe(object: T): void;
  /** Takes an object from the answer to a write, which may be later or earlier than what the watch has said. */
  observeAnswer(object: T): void;
  forget(object: T): void;
  /** Takes a complete list of that version: what is not in it and not newer is gone. */
  replaceAll(objects: readonly T[], resourceVersion: string): void;
}

/** `onChange` is told of each object that came, changed or went; the earlier state comes along when there was one. */
export function createStore<T extends Stored>(onChange: (object: T, before: T | undefined) => void): Store<T> {
  const objects = new Map<string, T>();
  const tombstones = new Set<string>();

  const observe = (object: T) => {
    const key = keyOf(object);
    const before = objects.get(key);
    if (tombstones.has(object.metadata.uid)) return;
    if (before !== undefined && !isNewer(object, before)) return;
    objects.set(key, object);
    onChange(object, before);
  };
  const forget = (object: T) => {
    const { uid } = object.metadata;
    tombstones.add(uid);
    for (const oldest of tombstones) {
      if (tombstones.size <= TOMBSTONES_MAX) break;
      tombstones.delete(oldest);
    }
    const key = keyOf(object);
    const before = objects.get(key);
    if (before?.metadata.uid === uid) objects.delete(key);
    onChange(object, before);
  };
  return {
    get: (key) => objects.get(key),
    all: () => objects.values(),
    observe,
    observeAnswer(object) {
      // Without finalizers a deleted object is gone or about to be: the watch says when.
      if (!isDeleting(object) || object.metadata.finalizers.length > 0) observe(object);
    },
    forget,
    replaceAll(listed, resourceVersion) {
      const present = new Set(listed.map((object) => object.metadata.uid));
      for (const object of [...objects.values()]) {
        const isLater = Number(object.metadata.resourceVersion) > Number(resourceVersion);
        if (!isLater && !present.has(object.metadata.uid)) forget(object);
      }
      for (const object of listed) observe(object);
    },
  };
}

/** Resource versions of one kind are numbers that grow; of another incarnation of the name the later one counts. */
function isNewer(object: Stored, before: Stored): boolean {
  return Number(object.metadata.resourceVersion) > Number(before.metadata.resourceVersion);
}
