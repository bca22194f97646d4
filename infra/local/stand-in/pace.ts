/** How long each step of the stand-in takes, and how an instance was told to fail. Pure. */
import type { Instance } from "./objects.ts";

/** On the template of the instance, or on the instance itself: how it fails. */
export const BEHAVIOUR_ANNOTATION = "stand-in.vmpool-functions/behaviour";

/** Means; each object deviates by up to a third, always by the same amount. */
const LAG_MS = {
  schedule: 200,
  launch: 350,
  boot: 600,
  shutDown: 300,
  importStep: 400,
  /** Until a change of the template shows in the spec of a running instance. */
  liveUpdate: 500,
  /** Until the guest has it, which takes a migration. */
  resize: 900,
} as const;

export type Step = keyof typeof LAG_MS;

const JITTER = 1 / 3;

export interface Behaviour {
  readonly neverReady: boolean;
  readonly crashLoop: boolean;
  readonly unschedulable: boolean;
  /** Changes of the template that the instance could take do not reach it, and nobody says so. */
  readonly ignoresLiveUpdate: boolean;
  /** How long after its creation the instance becomes ready; 0 for as soon as it runs. */
  readonly readyAfterSeconds: number;
}

/** What the annotation says; words separated by commas or white space, unknown ones ignored. */
export function behaviourOf(instance: Instance): Behaviour {
  const words = (instance.metadata.annotations[BEHAVIOUR_ANNOTATION] ?? "").split(/[\s,]+/);
  const slow = words.find((word) => /^slow:\d+(\.\d+)?$/.test(word));
  return {
    neverReady: words.includes("never-ready"),
    crashLoop: words.includes("crash-loop"),
    unschedulable: words.includes("unschedulable"),
    ignoresLiveUpdate: words.includes("ignore-live-update"),
    readyAfterSeconds: slow === undefined ? 0 : Number(slow.slice("slow:".length)),
  };
}

/** How long this step takes this object. */
export function lagMs(step: Step, uid: string): number {
  const deviation = ((hash(`${step}/${uid}`) % 1_000) / 1_000) * 2 - 1;
  return Math.round(LAG_MS[step] * (1 + JITTER * deviation));
}

/** FNV-1a, 32 bits. */
export function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193) >>> 0;
  }
  return value;
}

/** Remembers since when an object is in its present state, for as long as the stand-in runs. */
export interface Pacer {
  /** How long it still takes until the object has been in `state`, one at a time for each step, for the time of `step`; 0 when it has. */
  remainingMs(uid: string, state: string, step: Step): number;
  forget(uid: string): void;
}

export function createPacer(now: () => number): Pacer {
  const since = new Map<string, Map<Step, { readonly state: string; readonly atMs: number }>>();
  return {
    remainingMs(uid, state, step) {
      const steps = since.get(uid) ?? new Map();
      const known = steps.get(step);
      const entry = known?.state === state ? known : { state, atMs: now() };
      since.set(uid, steps.set(step, entry));
      return Math.max(0, entry.atMs + lagMs(step, uid) - now());
    },
    forget(uid) {
      since.delete(uid);
    },
  };
}
