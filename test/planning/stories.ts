/** Random stories for the world: what passes, users and the network do, in every order. */
import * as fc from "fast-check";
import { type Beginning, createWorld, type Disturbance, type Fate, type Step } from "./world.ts";

export interface Story {
  readonly beginning: Beginning;
  readonly steps: readonly Step[];
}

const STEPS_MAX = 60;

const which = fc.nat(11);

const fate: fc.Arbitrary<Fate> = fc.oneof(
  { arbitrary: fc.constant("answer" as const), weight: 6 },
  { arbitrary: fc.constantFrom<Fate>("lose", "late", "busy", "drop", "refuse"), weight: 2 },
);

/** Switches that hold the pool are rare, for little can go wrong while they do. */
const anyDisturbance: fc.Arbitrary<Disturbance> = fc.oneof(
  { arbitrary: fc.record({ act: fc.constant("scale" as const), replicas: fc.nat(4) }), weight: 12 },
  { arbitrary: fc.record({ act: fc.constantFrom("delete", "detach", "ready", "finish"), which }), weight: 20 },
  { arbitrary: fc.record({ act: fc.constant("relabel" as const), which }), weight: 2 },
  { arbitrary: fc.record({ act: fc.constantFrom("pause", "edit", "break", "unmanage") }), weight: 2 },
  { arbitrary: fc.record({ act: fc.constantFrom("attach", "foreign", "foreign", "collect") }), weight: 5 },
);

const poolDeletion: fc.Arbitrary<Disturbance> = fc.record({
  act: fc.constant("deletePool" as const),
  how: fc.constantFrom("background", "foreground", "orphan"),
});

const claimEdit: fc.Arbitrary<Disturbance> = fc.record({ act: fc.constantFrom("forget", "scribble") });

/** Users do anything but touch the claim. */
export const story = storyOf(
  fc.oneof({ arbitrary: anyDisturbance, weight: 40 }, { arbitrary: poolDeletion, weight: 1 }),
);

/** Users remove or garble the claim, too, of a pool that stays. */
export const storyWithClaimEdits = storyOf(
  fc.oneof({ arbitrary: anyDisturbance, weight: 10 }, { arbitrary: claimEdit, weight: 1 }),
);

/** Throws when an invariant is broken on the way, or when the pool does not settle afterwards. */
export async function playStory({ beginning, steps }: Story): Promise<void> {
  const world = await createWorld(beginning);
  for (const step of steps) await world.play(step);
  await world.converge();
}

function storyOf(disturbances: fc.Arbitrary<Disturbance>): fc.Arbitrary<Story> {
  const wide = fc.boolean();
  const before = fc.constantFrom("claim", "act");
  const seconds = fc.constantFrom(1, 10, 40, 70);
  const step: fc.Arbitrary<Step> = fc.oneof(
    { arbitrary: fc.record({ kind: fc.constant("stall" as const), wide, before }), weight: 8 },
    { arbitrary: fc.record({ kind: fc.constant("pass" as const), wide }), weight: 6 },
    { arbitrary: fc.record({ kind: fc.constant("start" as const), wide }), weight: 2 },
    { arbitrary: fc.record({ kind: fc.constant("serve" as const), which, fate }), weight: 8 },
    {
      arbitrary: fc.record({ kind: fc.constant("run" as const), which, calls: fc.integer({ min: 1, max: 9 }) }),
      weight: 4,
    },
    { arbitrary: fc.record({ kind: fc.constant("land" as const), which }), weight: 3 },
    { arbitrary: fc.record({ kind: fc.constant("crash" as const), which }), weight: 2 },
    { arbitrary: fc.record({ kind: fc.constant("tick" as const), seconds }), weight: 1 },
    { arbitrary: fc.record({ kind: fc.constant("disturb" as const), disturbance: disturbances }), weight: 16 },
  );
  const beginning = fc.record({ replicas: fc.integer({ min: 0, max: 4 }), grown: fc.boolean() });
  const steps = fc.oneof(fc.array(step, { maxLength: STEPS_MAX, size: "max" }), duelOf(disturbances));
  return fc.record({ beginning, steps });
}

/** Stories in which passes stop right before they act, others run meanwhile, and the first go on at last, when the story ends. */
function duelOf(disturbances: fc.Arbitrary<Disturbance>): fc.Arbitrary<Step[]> {
  const wide = fc.constant(false);
  const before = fc.constantFrom("claim", "act");
  const act: fc.Arbitrary<Step> = fc.oneof(
    { arbitrary: fc.record({ kind: fc.constant("stall" as const), wide, before }), weight: 4 },
    { arbitrary: fc.record({ kind: fc.constant("pass" as const), wide }), weight: 5 },
    { arbitrary: fc.record({ kind: fc.constant("serve" as const), which, fate }), weight: 2 },
    { arbitrary: fc.record({ kind: fc.constant("crash" as const), which }), weight: 1 },
  );
  const change = fc.oneof(
    { arbitrary: fc.record({ act: fc.constant("resize" as const), by: fc.constantFrom(-1, 1) }), weight: 5 },
    { arbitrary: fc.record({ act: fc.constant("ready" as const), which }), weight: 3 },
    { arbitrary: disturbances, weight: 2 },
  );
  const round = fc
    .tuple(fc.array(change, { minLength: 1, maxLength: 2 }), act)
    .map(([changes, last]): Step[] => [
      ...changes.map((disturbance) => ({ kind: "disturb", disturbance }) as const),
      last,
    ]);
  return fc.array(round, { minLength: 2, maxLength: 9 }).map((rounds) => rounds.flat());
}
