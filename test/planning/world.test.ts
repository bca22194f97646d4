/** Overlapping passes over one pool, interleaved and failing in every way the world knows. */
import * as fc from "fast-check";
import { describe, it } from "vitest";
import { playStory, story, storyWithClaimEdits } from "./stories.ts";
import type { Beginning, Disturbance, Fate, Step } from "./world.ts";

const disturb = (disturbance: Disturbance): Step => ({ kind: "disturb", disturbance });
const scale = (replicas: number) => disturb({ act: "scale", replicas });
/** Picks among all machines by name of the order of their making; 0 is the other pool's. */
const machine = (act: "delete" | "detach" | "ready", which: number) => disturb({ act, which });
const foreign = disturb({ act: "foreign" });
const forget = disturb({ act: "forget" });
const stall = (before: "claim" | "act"): Step => ({ kind: "stall", wide: false, before });
const pass: Step = { kind: "pass", wide: false };
const crash: Step = { kind: "crash", which: 0 };
const serve = (which: number, fate: Fate): Step => ({ kind: "serve", which, fate });
/** Lets the pass at this place go on to its end. */
const finish = (which: number): Step => ({ kind: "run", which, calls: 99 });
const tick = (seconds: number): Step => ({ kind: "tick", seconds });
const grown = (replicas: number): Beginning => ({ replicas, grown: true });
const empty = (replicas: number): Beginning => ({ replicas, grown: false });
/** Every story of a choice among two machines is told for both. */
const TWO = [1, 2] as const;

interface Named {
  readonly it: string;
  readonly beginning: Beginning;
  readonly steps: readonly Step[];
}

/**
 * What random stories have found, and what the rules of the claim are there for: without its rule, each goes wrong. A foreign
 * machine `web-0` that goes again makes passes choose other ordinals. Calls that wait are served when the story ends.
 */
const STORIES: readonly Named[] = [
  ...TWO.map((which) => ({
    it: `miss with a delete that was taken back since (unready machine ${which})`,
    beginning: grown(2),
    steps: [scale(1), stall("act"), scale(2), pass, machine("ready", which), scale(1), pass],
  })),
  ...TWO.map((which) => ({
    it: `do not act on a claim that another pass has overtaken (unready machine ${which})`,
    beginning: grown(2),
    steps: [scale(1), stall("claim"), machine("ready", which), pass],
  })),
  ...TWO.map((which) => ({
    it: `go on with the deletes that are claimed (unready machine ${which})`,
    beginning: grown(2),
    steps: [scale(1), stall("act"), machine("ready", which), pass],
  })),
  ...TWO.map((which) => ({
    it: `wait when somebody removed the claim while machines are being deleted (unready machine ${which})`,
    beginning: grown(2),
    steps: [scale(1), stall("act"), forget, machine("ready", which), pass],
  })),
  {
    it: "wait when somebody removed the claim of a pool whose creates are under way",
    beginning: empty(3),
    steps: [stall("act"), serve(0, "answer"), scale(0), pass, forget, scale(1), stall("act")],
  },
  {
    it: "do not make up for a create that may still land when its name is another's for a while",
    beginning: empty(1),
    steps: [stall("act"), foreign, pass, machine("delete", 1)],
  },
  {
    it: "do not take a create for finished by its machine when another pass has sent it too",
    beginning: empty(1),
    steps: [foreign, stall("act"), crash, pass, machine("delete", 2), pass, machine("delete", 1), pass],
  },
  {
    it: "do not let go of a pool whose create was sent twice",
    beginning: empty(1),
    steps: [stall("act"), serve(0, "busy"), disturb({ act: "deletePool", how: "background" })],
  },
  {
    it: "do not let go of a pool whose create is under way",
    beginning: empty(1),
    steps: [stall("act"), crash, disturb({ act: "deletePool", how: "background" }), pass],
  },
  {
    it: "do not claim for a pool that is being deleted",
    beginning: grown(0),
    steps: [scale(1), stall("claim"), disturb({ act: "deletePool", how: "foreground" }), pass],
  },
  {
    it: "keep on record what may still appear when fewer machines are wanted",
    beginning: empty(2),
    steps: [foreign, stall("act"), scale(1), pass, machine("delete", 1), pass],
  },
  {
    it: "keep on record a create whose answer was lost",
    beginning: empty(1),
    steps: [foreign, stall("act"), serve(0, "late"), finish(0), machine("delete", 1), pass],
  },
  {
    it: "keep on record a create of another pass, though their own was refused",
    beginning: empty(1),
    steps: [foreign, stall("act"), stall("act"), serve(1, "refuse"), finish(1), machine("delete", 1), pass],
  },
  {
    it: "keep on record a create that another pass has repeated, though their own was refused",
    beginning: empty(1),
    steps: [foreign, stall("act"), stall("act"), serve(0, "refuse"), finish(0), machine("delete", 1), pass],
  },
  {
    it: "keep on record a create until its call can land no more",
    beginning: empty(1),
    steps: [foreign, stall("act"), tick(40), machine("delete", 1), pass],
  },
  {
    it: "keep on record a create for the whole time again when it was repeated",
    beginning: empty(1),
    steps: [foreign, stall("act"), crash, tick(110), stall("act"), crash, tick(40), machine("delete", 1), pass],
  },
  {
    it: "replace a detached machine and never touch it again",
    beginning: grown(1),
    steps: [machine("detach", 1), pass, machine("ready", 1), pass],
  },
];

describe("overlapping passes", () => {
  for (const { it: name, beginning, steps } of STORIES) it(name, () => playStory({ beginning, steps }));

  it("never delete or create too much, touch only what is theirs, and settle", () =>
    fc.assert(fc.asyncProperty(story, playStory), { numRuns: 900 }));

  it("do so too when users remove or garble the claim", () =>
    fc.assert(fc.asyncProperty(storyWithClaimEdits, playStory), { numRuns: 400 }));
});
