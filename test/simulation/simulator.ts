/** Runs one seed: random steps under the invariants, then peace, in which the cluster has to come to match and to stay so. */

import type { PassResult } from "../../shared/clusters/reconcile-pool.ts";
import type { WakeUp } from "../../shared/events/wake-ups.ts";
import { type Plan, planPass } from "../../shared/planning/plan.ts";
import { judgeReview } from "../../shared/planning/review.ts";
import { type Coverage, type Sight, sightOfAnswer, sightOfChange } from "./coverage.ts";
import {
  type CallKind,
  callKindOf,
  canBefall,
  countFault,
  drawFault,
  type Fault,
  type FaultTable,
  strike,
} from "./faults.ts";
import { collectGarbage, garbageSteps, type Step } from "./garbage.ts";
import { createJudge, type Judge, judgeClaims, mismatches } from "./invariants.ts";
import type { Kind } from "./kinds.ts";
import { crashSteps, endSteps, kubevirtSteps, recoverAll, reportSteps, startFailureSteps } from "./kubevirt.ts";
import { createRandom, type Random, seedOf } from "./random.ts";
import { shrink } from "./shrink.ts";
import type { Change } from "./store.ts";
import {
  createPool,
  drawUserMood,
  makeUsersReasonable,
  NAMESPACE,
  namespaceSteps,
  POOL_NAMES,
  startStopped,
  type UserMood,
  userStep,
} from "./users.ts";
import { type Answered, actorOf, createWorld, type Invocation, type PendingCall, type World } from "./world.ts";

export const STEPS = 200;
const MINUTE_MS = 60_000;
/** Longer than every wait that the design knows, one after the other, and two full looks of the schedule. */
const PEACE_MINUTES = 30;
/** Of all pools together, in peace, whatever was under way: a step of KubeVirt's each, and those of the claim's waits. */
const PASSES_TO_MATCH_MAX = 60;
/** A full look of the schedule and the longest wait: what is then not settled never will be. */
const REST_MINUTES = 14;
const VERIFY_MINUTES = 11;
/** One a pool and minute where a pool is paused and not what it says, and one more look. */
const PASSES_MAX = POOL_NAMES.length * (VERIFY_MINUTES + 1);
/** Of one round of peace; a handler that goes on for ever is a bug. */
const CALLS_MAX = 5_000;
/** Of all of it; a healthy run needs a tenth. */
const PEACE_CALLS_MAX = 40_000;
/** So many passes find nothing to do when everything matches. */
const LOOKS = 100;
const LOOKS_AT_ONCE = 20;
const SHRINK_ATTEMPTS_MAX = 400;

export interface RunOptions {
  readonly seed: number;
  readonly kinds: readonly Kind[];
  /** Positions of the steps that are taken; all 200 when absent. */
  readonly only?: readonly number[];
}

export interface RunResult {
  /** What went wrong; undefined when nothing did. */
  readonly failure: string | undefined;
  /** One line a step that did something. */
  readonly trace: readonly string[];
  readonly coverage: Coverage;
  readonly met: FaultTable;
  /** Batches of wake-ups that it took in peace until the cluster matched. */
  readonly passes: number;
}

interface Run {
  readonly world: World;
  readonly judge: Judge;
  readonly mood: Mood;
  readonly trace: string[];
  /** Changes of the cluster that somebody outside may be told of. */
  readonly notices: Change[];
  noticed: number;
  /** What was found while a handler ran. */
  readonly faults: readonly string[];
  readonly coverage: Map<Sight, number>;
  readonly met: FaultTable;
  /** Turns of peace so far. */
  peaceCalls: number;
  /** The most passes that a pool took to come to match in peace. */
  passes: number;
  failure: string | undefined;
}

/** A failure is a value; what is thrown is a fault of the simulation. */
export async function simulate({ seed, kinds, only }: RunOptions): Promise<RunResult> {
  const run = startRun(seed, kinds);
  if (run.mood.startsAtRest) for (let minute = 0; minute < 3; minute += 1) await liveMinute(run, createRandom(0));
  const positions = only ?? Array.from({ length: STEPS }, (_, position) => position);
  for (const position of positions) {
    const random = createRandom(seedOf(seed, position + 1));
    if (random.chance(REPAIR_CHANCE)) repair(run.world);
    const label = await takeStep(run, random);
    await afterStep(run, random, `${position} ${label}`);
    if (run.failure !== undefined) break;
  }
  if (run.failure === undefined) await makePeace(run);
  const { failure, trace, coverage, met, passes } = run;
  return { failure, trace, coverage, met, passes };
}

function see(coverage: Map<Sight, number>, sight: Sight | undefined): void {
  if (sight !== undefined) coverage.set(sight, (coverage.get(sight) ?? 0) + 1);
}

function startRun(seed: number, kinds: readonly Kind[]): Run {
  const random = createRandom(seed);
  const faults: string[] = [];
  const coverage = new Map<Sight, number>();
  const onPass = (_key: WakeUp, result: PassResult) => {
    for (const sight of sightsOfPass(result)) see(coverage, sight);
    const fault = random.chance(0.3) ? planDependsOnOrder(result, random) : undefined;
    if (fault !== undefined) faults.push(fault);
  };
  const mood = drawMood(random);
  /** The admission webhook, with the rules of the function. */
  const validate = ({ plural }: Kind, object: unknown, existing: unknown) => {
    if (!mood.admits || plural !== "virtualmachinepools") return undefined;
    const { refusal } = judgeReview(object, existing);
    if (refusal !== undefined) see(coverage, "a pool is refused at admission");
    return refusal?.message;
  };
  const onAnswer = (answered: Answered) => see(coverage, sightOfAnswer(answered));
  const world = createWorld({ seed, kinds, onPass, onAnswer, validate, skewMs: mood.skewMs });
  world.cluster.addNamespace(NAMESPACE);
  createPool(world.cluster, POOL_NAMES[0], { ...mood.users.form, replicas: random.int(5) });
  const judge = createJudge(world.cluster, (actor) => world.started.get(actor));
  return {
    world,
    judge,
    mood,
    faults,
    coverage,
    trace: [],
    met: new Map(),
    passes: 0,
    peaceCalls: 0,
    notices: [],
    noticed: 0,
    failure: undefined,
  };
}

function sightsOfPass({ outcome, view, actions, decisions, failures, complete }: PassResult): readonly Sight[] {
  const sights: Sight[] = [];
  const isHeld = view?.seen.verdict.legal === false && !view.seen.pool.deleting;
  if (outcome === "gone" && actions.dropVmFinalizer !== undefined) sights.push("a machine is freed whose pool is gone");
  if (isHeld && actions.dropVmFinalizer !== undefined) sights.push("a deleted machine of an illegal pool is freed");
  if (decisions.some((text) => /machines that were being created may still appear/.test(text)))
    sights.push("a pass waits for unfinished creates");
  if (decisions.some((text) => /an unknown earlier pass/.test(text))) sights.push("a pass waits at first contact");
  if (decisions.some((text) => /has written to the pool since/.test(text)))
    sights.push("a pass holds beside another controller");
  if (decisions.some((text) => /has claimed the pool within/.test(text)))
    sights.push("a pass holds beside another deployment");
  if (view === undefined && outcome === "unreadable") sights.push("a pass cannot read everything");
  if (failures.length > 0) sights.push("a pass has failures");
  if (!complete && failures.length === 0) sights.push("a pass runs out of looks or time");
  if (view?.seen.pool.deleting === true) sights.push("a pass finds its pool on its way out");
  else if (view?.seen.verdict.legal === false) sights.push("a pass finds its pool illegal");
  else if (view?.seen.verdict.legal === true && view.seen.verdict.spec.paused === true)
    sights.push("a pass finds its pool paused");
  return sights;
}

/** Invariant 10: the same picture in another order gives the same plan. */
export function planDependsOnOrder({ view }: PassResult, random: Random): string | undefined {
  if (view === undefined) return undefined;
  const { seen } = view;
  if (Math.max(seen.selected.length, seen.namespaceVms?.length ?? 0) < 2) return undefined;
  const limits = { createsMax: 250, deletesMax: 250, updatesMax: 250, restartsMax: 250 };
  const other = { ...seen, selected: shuffled(seen.selected, random) };
  const mixed =
    seen.namespaceVms === undefined ? other : { ...other, namespaceVms: shuffled(seen.namespaceVms, random) };
  const [one, two] = [seen, mixed].map((picture) => textOf(planPass(picture, limits)));
  return one === two ? undefined : "invariant 10: the plan depends on the order of the lists";
}

/** With maps as JSON has them. */
function textOf(plan: Plan): string {
  return JSON.stringify(plan, (_, value: unknown) => (value instanceof Map ? [...value] : value));
}

function shuffled<T>(list: readonly T[], random: Random): readonly T[] {
  return list
    .map((entry) => ({ entry, key: random.int(2 ** 30) }))
    .sort((a, b) => a.key - b.key)
    .map(({ entry }) => entry);
}

/** Lets the handlers go on, judges what was written, and hears of it outside. */
async function afterStep(run: Run, random: Random, line: string): Promise<void> {
  const { world, trace } = run;
  await world.settle();
  trace.push(line);
  judgeNow(run);
  const { journal } = world.cluster.store;
  for (; run.noticed < journal.length; run.noticed += 1) {
    const change = journal[run.noticed];
    if (change !== undefined) seeChange(run, change);
    if (change === undefined || !TOLD_OF.has(change.kind.plural) || random.chance(0.2)) continue;
    for (let copies = random.chance(0.1) ? 2 : 1; copies > 0; copies -= 1) run.notices.push(change);
  }
}

/** Whose changes a cluster tells of. */
const TOLD_OF = new Set(["virtualmachinepools", "virtualmachines", "virtualmachineinstances", "datavolumes"]);

function seeChange({ coverage, world }: Run, change: Change): void {
  const invocation = world.started.get(change.actor);
  if (invocation === undefined) return;
  const sight = sightOfChange(change);
  see(coverage, sight);
  const others = [...world.invocations].some((other) => other.name === "reconcile" && other.id !== invocation.id);
  if (sight === "a claim is written" && others) see(coverage, "a claim is written while another pass is under way");
}

function judgeNow(run: Run): void {
  const { world } = run;
  run.failure ??=
    run.judge.judge() ??
    judgeClaims(
      world.cluster,
      [...world.calls.filter(({ answer }) => answer === undefined), ...world.late],
      world.cluster.now(),
    ) ??
    run.world.errors[0] ??
    run.faults[0];
}

/** How often a kind of step comes up; what is not possible now lets a call go on, or the clock. */
const WEIGHTS = {
  calls: 30,
  burst: 20,
  deliver: 10,
  intrude: 4,
  ambush: 1,
  finish: 2,
  kubevirt: 12,
  user: 8,
  notice: 8,
  fact: 4,
  garbage: 4,
  time: 10,
  late: 4,
  kill: 3,
  resync: 2,
  crash: 4,
  restart: 1,
  pages: 1,
  calm: 0.2,
  token: 0.1,
  outage: 0.4,
  scale: 1,
  namespace: 0.04,
  limbo: 0.7,
  turn: 1,
} as const;
type StepKind = keyof typeof WEIGHTS;
const STEP_KINDS: readonly StepKind[] = [
  ...([
    "calls",
    "burst",
    "deliver",
    "intrude",
    "ambush",
    "finish",
    "kubevirt",
    "user",
    "notice",
    "fact",
    "garbage",
  ] as const),
  ...(["time", "late", "kill", "resync", "crash", "restart", "pages", "calm"] as const),
  ...(["token", "outage", "scale", "namespace", "limbo", "turn"] as const),
];

/** Passes that meet over one pool that people scale, and little else: where the claim is put to the test. */
const DUEL_WEIGHTS: Partial<Record<StepKind, number>> = {
  calls: 8,
  burst: 6,
  intrude: 2,
  ambush: 12,
  finish: 12,
  user: 12,
  kubevirt: 10,
  crash: 10,
  late: 8,
  kill: 5,
  time: 4,
  garbage: 2,
  calm: 0.8,
  limbo: 2,
  turn: 4,
};

/** What befalls everybody, whoever they are. */
const TROUBLES: ReadonlySet<StepKind> = new Set(["token", "outage", "namespace", "pages", "restart"]);

/** How much of its usual weight a kind of step has in a run; without the essential ones nothing happens at all. */
const SHARES = { essential: [0.5, 1, 2], other: [0, 0.5, 1, 2] } as const;

function shareOf(kind: StepKind): keyof typeof SHARES {
  return kind === "user" || kind === "ambush" || kind === "finish" || kind === "calls" ? "essential" : "other";
}

/** What a run is like: with everything at once nothing gets far, so each has some of it, and more of that. */
interface Mood {
  readonly isDuel: boolean;
  readonly weights: readonly (readonly [StepKind, number])[];
  /** How many times as often as usual calls go wrong. */
  readonly risk: number;
  readonly burstMax: number;
  /** Durations up to this come up. */
  readonly patienceMs: number;
  /** How often only little time passes while a call is under way. */
  readonly haste: number;
  /** Pools are judged when they are written, too. */
  readonly admits: boolean;
  /** How often a guest that starts comes to nothing. */
  readonly trouble: number;
  /** How far the cluster's clock is ahead of the functions'. */
  readonly skewMs: number;
  /** How many of the passes beside the queues are of another deployment. */
  readonly rivals: number;
  /** How often what is read is old. */
  readonly stale: number;
  /** The pool has come to rest before the first step. */
  readonly startsAtRest: boolean;
  readonly users: UserMood;
}

function drawMood(random: Random): Mood {
  const isDuel = random.chance(0.6);
  const isTroubled = random.chance(0.25);
  // Where much goes wrong nothing gets far: what only passes do to each other is found where little does.
  const isCalm = random.chance(0.4);
  const more = (kind: StepKind) => (isTroubled && kind === "kubevirt" ? 3 : 1);
  const usual = (kind: StepKind) =>
    more(kind) * (isDuel ? (DUEL_WEIGHTS[kind] ?? Math.min(0.5, WEIGHTS[kind])) : WEIGHTS[kind]);
  return {
    isDuel,
    weights: STEP_KINDS.map((kind) => {
      if (isCalm && TROUBLES.has(kind)) return [kind, 0] as const;
      const isNeeded = isTroubled && kind === "kubevirt";
      return [kind, usual(kind) * (random.pick(SHARES[isNeeded ? "essential" : shareOf(kind)]) ?? 1)] as const;
    }),
    risk: isCalm ? (random.pick([0, 0.2]) ?? 0) : (random.pick([0.3, 1, 2]) ?? 1),
    burstMax: random.pick([6, 15, 30]) ?? 6,
    patienceMs: isDuel ? (random.pick([2_500, 12_000, 155_000]) ?? 0) : 155_000,
    haste: random.pick([0.5, 0.9]) ?? 0.9,
    trouble: isTroubled ? (random.pick([0.1, 0.4]) ?? 0) : 0,
    startsAtRest: random.chance(0.7),
    admits: random.chance(0.4),
    skewMs: random.chance(0.5) ? 0 : (random.int(31) - 15) * MINUTE_MS,
    rivals: !isCalm && random.chance(0.15) ? 0.5 : 0,
    stale: isCalm ? 0 : (random.pick([0, 0.05, 0.3]) ?? 0),
    users: drawUserMood(
      random,
      isTroubled ? "healing" : random.chance(0.35) ? "rollingOut" : isDuel ? "scaling" : "anything",
    ),
  };
}

function drawKind({ weights }: Mood, random: Random): StepKind {
  const sum = weights.reduce((total, [, weight]) => total + weight, 0);
  let draw = (random.int(2 ** 20) / 2 ** 20) * sum;
  for (const [kind, weight] of weights) {
    if (draw < weight) return kind;
    draw -= weight;
  }
  return "time";
}

/** How often another kind is drawn when there is nothing to do of one; then time passes. */
const DRAWS_MAX = 20;

async function takeStep(run: Run, random: Random): Promise<string> {
  for (let draws = 0; draws < DRAWS_MAX; draws += 1) {
    const label = await tryStep(drawKind(run.mood, random), run, random);
    if (label !== undefined) return label;
  }
  return passTime(run, random);
}

/** Undefined when there is nothing of that kind to do. */
async function tryStep(kind: StepKind, run: Run, random: Random): Promise<string | undefined> {
  const { world } = run;
  const { cluster } = world;
  switch (kind) {
    case "calls":
      return world.calls.length === 0 ? undefined : takeCall(run, random);
    case "burst":
      return world.calls.length === 0 ? undefined : takeBurst(run, random);
    case "deliver": {
      const queue = random.chance(0.8) ? "passes" : "late";
      // Now and then twice at once: a visibility time that ran out, a second deployment, a zombie.
      const copies = random.chance(0.3) ? 2 : 1;
      if (!world.deliver(queue, copies)) return undefined;
      if (copies === 2) see(run.coverage, "two passes begin at once");
      return `deliver from ${queue}${copies === 2 ? " twice" : ""}`;
    }
    case "intrude": {
      const name = random.chance(0.9) ? POOL_NAMES[0] : POOL_NAMES[1];
      const deployment = random.chance(run.mood.rivals) ? "rival" : "simulated";
      world.intrude({ namespace: NAMESPACE, name }, random.chance(0.5) ? "sweep" : "again", deployment);
      see(run.coverage, "a pass begins beside the queues");
      return `a pass of ${name} beside the queues${deployment === "rival" ? ", of another deployment" : ""}`;
    }
    case "ambush":
      return ambush(run, random);
    case "finish":
      return finish(run, random);
    case "kubevirt": {
      const trouble = random.chance(run.mood.trouble) ? takeAny(startFailureSteps(cluster), random) : undefined;
      const label = trouble ?? takeAny(kubevirtSteps(cluster), random);
      if (!run.mood.isDuel || label === undefined || random.chance(0.3)) return label;
      // In trouble it stops before everything runs.
      const steps = run.mood.trouble > 0 ? random.int(KUBEVIRT_STEPS_MAX) : KUBEVIRT_STEPS_MAX;
      for (let left = steps; left > 0 && takeAny(kubevirtSteps(cluster), random); left -= 1) {
        if (random.chance(run.mood.trouble)) takeAny(startFailureSteps(cluster), random);
      }
      return "KubeVirt catches up";
    }
    case "user":
      return takeAny([userStep(cluster, random, run.mood.users)], random);
    case "garbage":
      if (cluster.namespaces.get(NAMESPACE) !== "active") return clearNamespace(run, random);
      return takeAny(garbageSteps(cluster), random);
    case "crash": {
      const failures = random.chance(0.4) ? startFailureSteps(cluster) : [];
      const usual = random.chance(0.85) ? crashSteps(cluster) : endSteps(cluster);
      const label = takeAny(failures.length > 0 ? failures : usual, random);
      // Often told at once: a machine's rank changes with it.
      if (label !== undefined && random.chance(0.7)) takeAny(reportSteps(cluster), random);
      return label;
    }
    case "notice": {
      const [notice] = run.notices.splice(random.int(Math.max(1, run.notices.length)), 1);
      if (notice === undefined) return undefined;
      const sender = run.mood.admits && random.chance(0.5) ? "admission" : random.chance(0.5) ? "audit" : "cloudEvent";
      world.hear(notice, sender);
      return `${sender} tells of ${notice.kind.kind} ${(notice.after ?? notice.before)?.metadata.name}`;
    }
    case "fact":
      return takeFact(world, random);
    case "late": {
      const call = random.pick(world.late);
      if (call !== undefined) {
        countFault(run.met, callKindOf(call.request), "late");
        world.land(call);
        if (!call.invocation.isOver) see(run.coverage, "a call takes effect after its time-out");
      }
      return call === undefined ? undefined : `late: ${describe(call)}`;
    }
    case "kill": {
      // Most of all one that is about to write.
      const call = random.chance(0.7) ? random.pick(world.calls.filter(isGuarded)) : undefined;
      const invocation = call?.invocation ?? random.pick([...world.invocations]);
      if (call !== undefined && random.chance(0.4)) world.perform(call);
      if (invocation !== undefined) {
        for (const other of world.calls.filter((one) => one.invocation === invocation)) {
          const fault = other.answer === undefined ? "killed before" : "killed after";
          countFault(run.met, callKindOf(other.request), fault);
        }
        world.kill(invocation);
        see(run.coverage, "a pass is killed");
      }
      return invocation === undefined ? undefined : `kill ${actorOf(invocation)}`;
    }
    case "restart":
      world.restart();
      see(run.coverage, "the instances restart");
      return "the instances restart";
    case "resync":
      world.resync();
      return "resync";
    case "token":
      world.rotateToken();
      return "the token of the functions expires";
    case "outage":
      return breakDown(world, random);
    case "scale": {
      const replicas = random.int(6);
      world.scale({ namespace: NAMESPACE, name: POOL_NAMES[0] }, replicas);
      return `a user scales over HTTP to ${replicas}`;
    }
    case "namespace":
      if (cluster.namespaces.get(NAMESPACE) !== "active") return undefined;
      cluster.endNamespace(NAMESPACE);
      see(run.coverage, "a namespace goes");
      return "user deletes the namespace";
    case "limbo":
      return limbo(run, random);
    case "turn":
      return turn(run, random);
    case "calm":
      return calm(run);
    case "pages":
      cluster.expirePages();
      return "page tokens expire";
    case "time":
      return passTime(run, random);
  }
}

/** Some of what goes with the namespace, and its end. */
function clearNamespace({ world: { cluster } }: Run, random: Random): string {
  const labels = Array.from({ length: 1 + random.int(10) }, () =>
    takeAny([...garbageSteps(cluster), ...namespaceSteps(cluster)], random),
  );
  return labels.filter((label) => label !== undefined).join("; ");
}

/** Outages are short: with every step one may be over. */
const REPAIR_CHANCE = 0.12;

/** The API server is gone, or does not serve a kind: its CRD is gone, or the server is starting. */
function breakDown(world: World, random: Random): string {
  const plural = random.pick([...TOLD_OF]);
  if (plural === undefined || random.chance(0.5)) {
    world.isDown = true;
    return "the API server is down";
  }
  world.unserved.add(plural);
  return `the API server does not serve ${plural}`;
}

function repair(world: World): void {
  world.isDown = false;
  world.unserved.clear();
}

function takeAny(steps: readonly Step[], random: Random): string | undefined {
  const step = random.pick(steps);
  step?.take();
  return step?.label;
}

function takeFact(world: World, random: Random): string | undefined {
  const index = random.int(Math.max(1, world.facts.length));
  const fact = world.facts[index];
  if (fact === undefined) return undefined;
  // Delivered at least once, in any order; now and then not at all.
  if (!random.chance(0.15)) world.facts.splice(index, 1);
  if (random.chance(0.1)) return "a fact is late";
  world.report(fact);
  return `fact about ${fact.name}`;
}

const DURATIONS_MS = [200, 1_000, 1_000, 2_500, 2_500, 5_000, 12_000, 31_000, 61_000, 155_000] as const;

function passTime({ world, mood }: Run, random: Random): string {
  // A call that is under way takes long only now and then.
  const isHasty = world.calls.length > 0 && random.chance(mood.haste);
  const choices = DURATIONS_MS.filter((ms) => ms <= (isHasty ? 2_500 : mood.patienceMs));
  const ms = random.pick(choices) ?? 0;
  world.advance(ms);
  return `${ms} ms pass`;
}

export function describe({ invocation, request }: Pick<PendingCall, "invocation" | "request">): string {
  const path = request.path.replace(/^\/apis?\/(.*\/namespaces\/[^/]+\/)?/, "").replace(/\?.*$/, "");
  return `${actorOf(invocation)} ${request.method} ${path}`;
}

/** Several calls of one function, so that it gets on while the others stand still; each is judged. */
async function takeBurst(run: Run, random: Random): Promise<string> {
  const { world } = run;
  const invocation = random.pick(world.calls)?.invocation;
  const told: string[] = [];
  for (let left = 1 + random.int(run.mood.burstMax); left > 0; left -= 1) {
    const calls = world.calls.filter((call) => call.invocation === invocation);
    if (calls.length === 0) break;
    told.push(takeCall(run, random, calls));
    await world.settle();
    judgeNow(run);
  }
  return told.join("; ");
}

/** Everything ends and nothing is left to wait for: another round begins from rest. */
async function calm(run: Run): Promise<string> {
  const { world } = run;
  for (const invocation of [...world.invocations]) world.kill(invocation);
  repair(world);
  world.advance(CALM_MS);
  makeUsersReasonable(world.cluster, { resume: true });
  for (let minute = 0; minute < 2; minute += 1) await liveMinute(run, createRandom(0));
  return "calm";
}

/** Longer than a claim can make a pass wait. */
const CALM_MS = 200_000;
/** Most calls of one pass; that it goes on for longer is judged in peace. */
const PASS_CALLS_MAX = 80;
/** More than a handful of machines need to settle. */
const KUBEVIRT_STEPS_MAX = 60;

/** A pass begins, gets to where it is about to claim, create or delete, and stands there while the world goes on. */
async function ambush(run: Run, random: Random): Promise<string> {
  const { world } = run;
  const before = new Set(world.invocations);
  world.intrude({ namespace: NAMESPACE, name: POOL_NAMES[0] }, random.chance(0.5) ? "sweep" : "again");
  const invocation = [...world.invocations].find((other) => !before.has(other));
  let lurks = 1 + random.int(4);
  for (let left = PASS_CALLS_MAX; left > 0 && run.failure === undefined; left -= 1) {
    await world.settle();
    judgeNow(run);
    const [call, ...others] = world.calls.filter((other) => other.invocation === invocation);
    if (call === undefined) break;
    if ([call, ...others].some(isGuarded)) lurks -= 1;
    if (lurks === 0) return `a pass lies in wait before ${[call, ...others].map(describe).join(", ")}`;
    world.answer(call);
  }
  return "a pass from beginning to end";
}

/** Long enough for a claim's calls to be thought over, and short enough for them not to be. */
const LIMBO_MS = [20_000, 40_000, 54_000] as const;

/** A function is about to write to a machine, stands there for long, and ends; what it has sent is still under way when another begins. */
async function limbo(run: Run, random: Random): Promise<string | undefined> {
  const { world } = run;
  const invocation = random.pick(world.calls.filter(isGuarded))?.invocation;
  if (invocation === undefined) return undefined;
  world.advance(random.pick(LIMBO_MS) ?? 0);
  await world.settle();
  if (!invocation.isOver) world.kill(invocation);
  world.advance(random.pick(LIMBO_MS) ?? 0);
  if (random.chance(0.7)) takeAny([userStep(world.cluster, random, { ...run.mood.users, vmShare: 0 })], random);
  return `${actorOf(invocation)} stands still and ends; ${await ambush(run, random)}`;
}

/** Nobody knows what has become of a write to a machine; before its function goes on to its end, the users want something else. */
async function turn(run: Run, random: Random): Promise<string | undefined> {
  const { world } = run;
  const call = random.pick(world.calls.filter((one) => one.answer === undefined && isGuarded(one)));
  if (call === undefined) return undefined;
  const told = suffer(run, { call, fault: random.pick(UNCLEAR) ?? "no answer" }, random);
  const step = userStep(world.cluster, random, { ...run.mood.users, vmShare: 0 });
  step.take();
  await finishOf(run, call.invocation, random);
  return `${told}; ${step.label}; ${actorOf(call.invocation)} goes on to its end`;
}

const UNCLEAR = ["reset before", "reset after", "no answer", "500", "504", "cut short"] as const;

/** One function goes on to its end while the others stand still. */
async function finish(run: Run, random: Random): Promise<string | undefined> {
  const { world } = run;
  const invocation = random.pick(world.calls)?.invocation;
  if (invocation === undefined) return undefined;
  await finishOf(run, invocation, random);
  return `${actorOf(invocation)} goes on to its end`;
}

async function finishOf(run: Run, invocation: Invocation, random: Random): Promise<void> {
  const { world } = run;
  for (let left = PASS_CALLS_MAX; left > 0 && run.failure === undefined; left -= 1) {
    await world.settle();
    judgeNow(run);
    const call = random.pick(world.calls.filter((other) => other.invocation === invocation));
    if (call === undefined) break;
    world.answer(call);
  }
}

/** Writes to a machine, or says that it will. */
function isGuarded({ request: { method, path, body } }: PendingCall): boolean {
  if (path.includes("/virtualmachines")) return method !== "GET";
  return path.includes("/virtualmachinepools/") && method === "PATCH" && Array.isArray(body);
}

/** What only some passes do goes wrong more often, or it never would. */
const RARE_WRITES: ReadonlySet<CallKind> = new Set([
  ...([
    "createRevision",
    "restartInstance",
    "labelInstance",
    "releaseVm",
    "dropPoolFinalizer",
    "revokeDelete",
  ] as const),
  ...(["revokeRestart", "changeDisk", "markVm", "pruneRevision", "status", "updateVm"] as const),
]);
const RARE_READS: ReadonlySet<CallKind> = new Set([
  ...([
    "get VM",
    "list instances",
    "get instance",
    "list revisions",
    "get revision",
    "list disks",
    "get disk",
  ] as const),
  ...(["get namespace", "list KubeVirts", "get event"] as const),
]);

/** Lets one call, whichever, take effect, be answered or go wrong. */
function takeCall({ world, met, coverage, mood }: Run, random: Random, calls = world.calls): string {
  const call = random.pick(calls);
  if (call === undefined) return "no call";
  const told = describe(call);
  const { method } = call.request;
  if (call.answer !== undefined) {
    world.answer(call);
    return told;
  }
  if (method === "GET" && random.chance(mood.stale)) return suffer({ world, met }, { call, fault: "stale" }, random);
  const kind = callKindOf(call.request);
  const risk = Math.min(
    0.9,
    mood.risk * (RARE_WRITES.has(kind) || isGuarded(call) ? 0.25 : RARE_READS.has(kind) ? 0.15 : 0.06),
  );
  if (random.chance(risk)) {
    // A machine more than the quota allows.
    const isCreate = method === "POST" && call.request.path.includes("/virtualmachines");
    const drawn = isCreate && random.chance(0.15) ? "403" : drawFault(random);
    const fault = canBefall(drawn, method) ? drawn : "no answer";
    see(coverage, fault === "reset after" ? "an answer is lost" : "a call is refused");
    return suffer({ world, met }, { call, fault }, random);
  }
  const outage = world.outageFor(call);
  if (outage !== undefined) countFault(met, kind, outage);
  if (random.chance(0.87)) {
    world.answer(call);
    return told;
  }
  world.perform(call);
  return `${told}: done, not yet answered`;
}

function suffer(
  { world, met }: Pick<Run, "world" | "met">,
  { call, fault }: { readonly call: PendingCall; readonly fault: Fault },
  random: Random,
): string {
  countFault(met, callKindOf(call.request), fault);
  const told = `${describe(call)}: ${fault}`;
  strike(world, call, fault, random);
  return told;
}

/** Invariants 9 and 8: without faults and users the cluster comes to match in bounded time, and then nobody writes any more. */
async function makePeace(run: Run): Promise<void> {
  const { world } = run;
  const random = createRandom(0);
  for (const invocation of [...world.invocations]) world.kill(invocation);
  world.late.splice(0);
  world.setClocks();
  repair(world);
  run.notices.splice(0);
  makeUsersReasonable(world.cluster, { resume: false });
  const isDone = () => mismatches(world.cluster).length === 0;
  for (let minute = 0; minute < PEACE_MINUTES && run.failure === undefined && !isDone(); minute += 1) {
    run.passes += await liveMinute(run, random);
  }
  for (let minute = 0; minute < REST_MINUTES && run.failure === undefined; minute += 1) await liveMinute(run, random);
  if (run.failure !== undefined) return;
  if (!isDone()) {
    run.failure = `invariant 9: after ${PEACE_MINUTES} minutes of peace ${mismatches(world.cluster).join("; ")}`;
    return;
  }
  if (run.passes > PASSES_TO_MATCH_MAX) {
    run.failure = `invariant 9: ${run.passes} passes in peace until everything matches`;
    return;
  }
  const before = world.cluster.store.journal.length;
  await lookAgain(run);
  let passes = 0;
  for (let minute = 0; minute < VERIFY_MINUTES && run.failure === undefined; minute += 1) {
    passes += await liveMinute(run, random);
  }
  const [written] = world.cluster.store.journal.slice(before);
  if (written !== undefined) {
    run.failure = `invariant 8: ${written.actor} writes ${written.kind.kind} ${(written.after ?? written.before)?.metadata.name} though everything matches`;
  } else if (passes > PASSES_MAX) {
    run.failure = `invariant 8: ${passes} batches of wake-ups in ${VERIFY_MINUTES} minutes though everything matches`;
  }
}

/** Passes that find nothing to do, narrow and wide, one after another and at once. */
async function lookAgain(run: Run): Promise<void> {
  const { world } = run;
  for (let started = 0; started < LOOKS; ) {
    for (let together = 0; together < LOOKS_AT_ONCE; together += 1, started += 1) {
      const name = POOL_NAMES[started % POOL_NAMES.length] ?? POOL_NAMES[0];
      world.intrude({ namespace: NAMESPACE, name }, started % 3 === 0 ? "sweep" : "again");
    }
    for (let turns = 0; turns < CALLS_MAX && world.invocations.size > 0; turns += 1) {
      await world.settle();
      for (const call of [...world.calls]) world.answer(call);
    }
  }
  judgeNow(run);
}

/** A tick of the schedule and all that follows from it within a minute; how many batches of wake-ups those are. */
async function liveMinute(run: Run, random: Random): Promise<number> {
  const { world } = run;
  let delivered = 0;
  const end = world.now() + MINUTE_MS;
  world.resync();
  while (world.now() < end) {
    delivered += await goOn(run, random);
    run.notices.splice(0);
    const due = [world.queues.passes.nextAt(), world.queues.late.nextAt(), world.wakesAt()].filter(
      (time) => time !== undefined,
    );
    world.advance(Math.max(1, Math.min(end, ...due) - world.now()));
  }
  return delivered;
}

/** Everything that can be done without waiting. */
async function goOn(run: Run, random: Random): Promise<number> {
  const { world } = run;
  let batches = 0;
  let lookedAt: number | undefined;
  for (let calls = 0; calls < CALLS_MAX && run.failure === undefined; calls += 1) {
    run.peaceCalls += 1;
    if (run.peaceCalls > PEACE_CALLS_MAX) break;
    await world.settle();
    const [call] = world.calls;
    if (call !== undefined) {
      const told = describe(call);
      world.answer(call);
      await afterStep(run, random, `peace: ${told}`);
      continue;
    }
    const { store } = world.cluster;
    const hasChanged = store.version !== lookedAt;
    if (hasChanged) {
      lookedAt = store.version;
      kubevirtSteps(world.cluster)[0]?.take();
      recoverAll(world.cluster);
      startStopped(world.cluster);
      collectGarbage(world.cluster);
      for (const { take } of namespaceSteps(world.cluster)) take();
    }
    const [fact] = world.facts.splice(0, 1);
    if (fact !== undefined) world.report(fact);
    const delivered = world.deliver("passes", 1) || world.deliver("late", 1);
    if (delivered) batches += 1;
    const isAtRest = fact === undefined && !delivered && store.version === lookedAt;
    if (isAtRest && world.calls.length === 0) return batches;
  }
  run.failure ??= `invariant 9: the functions never come to rest within a minute of peace`;
  return batches;
}

/** What a failing seed tells: the seed, the shortest steps that still fail, and how to see it again. */
export async function explainFailure({ seed, kinds }: RunOptions, failure: string): Promise<string> {
  const all = Array.from({ length: STEPS }, (_, position) => position);
  const kindOf = (text: string | undefined) => text?.replace(/[:{].*$/s, "");
  const positions = await shrink(all, {
    attemptsMax: SHRINK_ATTEMPTS_MAX,
    fails: async (only) => kindOf((await simulate({ seed, kinds, only })).failure) === kindOf(failure),
  });
  const { failure: shortest = failure, trace } = await simulate({ seed, kinds, only: positions });
  const replay = `npm run simulate -- --seed ${seed} --runs 1 --only ${positions.join(",")}`;
  const shown = trace.filter((line) => !line.startsWith("peace")).join("\n  ");
  return `seed ${seed}: ${shortest}\n  ${shown}\nreplay: ${replay}`;
}
