/** Runs one seed: random steps under the invariants, then peace, in which the cluster has to come to match and to stay so. */

import type { PassResult } from "../../shared/clusters/reconcile-pool.ts";
import type { WakeUp } from "../../shared/events/wake-ups.ts";
import { canonicalJson } from "../../shared/planning/json.ts";
import { type Plan, planPass } from "../../shared/planning/plan.ts";
import { collectGarbage, garbageSteps, type Step } from "./garbage.ts";
import { createJudge, type Judge, mismatches } from "./invariants.ts";
import type { Kind } from "./kinds.ts";
import { crashSteps, kubevirtSteps } from "./kubevirt.ts";
import { ownersOf } from "./objects.ts";
import { createRandom, type Random, seedOf } from "./random.ts";
import { shrink } from "./shrink.ts";
import { createPool, makeUsersReasonable, NAMESPACE, POOL_NAMES, userStep } from "./users.ts";
import { actorOf, createWorld, type PendingCall, type World } from "./world.ts";

export const STEPS = 200;
const MINUTE_MS = 60_000;
/** Longer than every wait that the design knows, one after the other, and two full looks of the schedule. */
const PEACE_MINUTES = 30;
/** A full look of the schedule and the longest wait: what is then not settled never will be. */
const REST_MINUTES = 14;
const VERIFY_MINUTES = 11;
/** Of one round of peace; a handler that goes on for ever is a bug. */
const CALLS_MAX = 5_000;
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
}

interface Run {
  readonly world: World;
  readonly judge: Judge;
  readonly trace: string[];
  /** Changes of the cluster that somebody outside may be told of. */
  readonly notices: { readonly name: string; readonly cause: string }[];
  noticed: number;
  /** What was found while a handler ran. */
  readonly faults: readonly string[];
  failure: string | undefined;
}

/** A failure is a value; what is thrown is a fault of the simulation. */
export async function simulate({ seed, kinds, only }: RunOptions): Promise<RunResult> {
  const run = startRun(seed, kinds);
  const positions = only ?? Array.from({ length: STEPS }, (_, position) => position);
  for (const position of positions) {
    const random = createRandom(seedOf(seed, position + 1));
    const label = await takeStep(run, random);
    await afterStep(run, random, `${position} ${label}`);
    if (run.failure !== undefined) break;
  }
  if (run.failure === undefined) await makePeace(run);
  return { failure: run.failure, trace: run.trace };
}

function startRun(seed: number, kinds: readonly Kind[]): Run {
  const random = createRandom(seed);
  const faults: string[] = [];
  const onPass = (_key: WakeUp, result: PassResult) => {
    const fault = planDependsOnOrder(result, random);
    if (fault !== undefined) faults.push(fault);
  };
  const world = createWorld({ seed, kinds, onPass });
  world.cluster.addNamespace(NAMESPACE);
  createPool(world.cluster, POOL_NAMES[0], random.int(5));
  const judge = createJudge(world.cluster);
  return { world, judge, faults, trace: [], notices: [], noticed: 0, failure: undefined };
}

/** Invariant 10: the same picture in another order gives the same plan. */
function planDependsOnOrder({ view }: PassResult, random: Random): string | undefined {
  if (view === undefined) return undefined;
  const { seen } = view;
  const limits = { createsMax: 250, deletesMax: 250, updatesMax: 250, restartsMax: 250 };
  const other = { ...seen, selected: shuffled(seen.selected, random) };
  const mixed =
    seen.namespaceVms === undefined ? other : { ...other, namespaceVms: shuffled(seen.namespaceVms, random) };
  const [one, two] = [seen, mixed].map((picture) => actionsOf(planPass(picture, limits), seen.pool.deleting));
  const same = canonicalJson(one) === canonicalJson(two);
  return same ? undefined : "invariant 10: the plan depends on the order of the lists";
}

/** Maps as JSON has them. The actions of a pool on its way out are compared as a set: their order still follows the list. */
function actionsOf({ needs, actions, reasons }: Plan, isLeaving: boolean): unknown {
  const texts = actions.map((action) =>
    JSON.stringify(action, (_, value: unknown) => (value instanceof Map ? [...value] : value)),
  );
  return { needs, reasons, actions: isLeaving ? texts.sort() : texts };
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
    const object = change?.after ?? change?.before;
    if (change === undefined || object === undefined || random.chance(0.2)) continue;
    const cause = { virtualmachinepools: "pool", virtualmachines: "vm", virtualmachineinstances: "instance" }[
      change.kind.plural
    ];
    const name = cause === "pool" ? object.metadata.name : ownersOf(object)[0]?.name;
    if (cause === undefined || name === undefined) continue;
    for (let copies = random.chance(0.1) ? 2 : 1; copies > 0; copies -= 1) run.notices.push({ name, cause });
  }
}

function judgeNow(run: Run): void {
  run.failure ??= run.judge.judge(run.world.invocations) ?? run.world.errors[0] ?? run.faults[0];
}

/** How often a kind of step comes up; what is not possible now lets a call go on, or the clock. */
const WEIGHTS = [
  ["calls", 30],
  ["burst", 20],
  ["deliver", 10],
  ["kubevirt", 12],
  ["user", 8],
  ["notice", 8],
  ["fact", 4],
  ["garbage", 4],
  ["time", 10],
  ["late", 4],
  ["kill", 4],
  ["resync", 2],
  ["crash", 6],
  ["pages", 1],
] as const;
type StepKind = (typeof WEIGHTS)[number][0];
const WEIGHT_SUM = WEIGHTS.reduce((sum, [, weight]) => sum + weight, 0);

function drawKind(random: Random): StepKind {
  let draw = random.int(WEIGHT_SUM);
  for (const [kind, weight] of WEIGHTS) {
    if (draw < weight) return kind;
    draw -= weight;
  }
  return "time";
}

async function takeStep(run: Run, random: Random): Promise<string> {
  const { world } = run;
  const label = await tryStep(drawKind(random), run, random);
  if (label !== undefined) return label;
  return world.calls.length > 0 ? takeCall(world, random) : passTime(world, random);
}

/** Undefined when there is nothing of that kind to do. */
async function tryStep(kind: StepKind, run: Run, random: Random): Promise<string | undefined> {
  const { world } = run;
  const { cluster } = world;
  switch (kind) {
    case "calls":
      return world.calls.length === 0 ? undefined : takeCall(world, random);
    case "burst":
      return world.calls.length === 0 ? undefined : takeBurst(run, random);
    case "deliver": {
      const queue = random.chance(0.8) ? "passes" : "late";
      // Now and then twice at once: a visibility time that ran out, a second deployment, a zombie.
      const copies = random.chance(0.3) ? 2 : 1;
      return world.deliver(queue, copies) ? `deliver from ${queue}${copies === 2 ? " twice" : ""}` : undefined;
    }
    case "kubevirt":
      return takeAny(kubevirtSteps(cluster), random);
    case "user":
      return takeAny([userStep(cluster, random)], random);
    case "garbage":
      return takeAny(garbageSteps(cluster), random);
    case "crash":
      return takeAny(crashSteps(cluster), random);
    case "notice": {
      const [notice] = run.notices.splice(random.int(Math.max(1, run.notices.length)), 1);
      if (notice !== undefined) world.wake({ namespace: NAMESPACE, name: notice.name }, notice.cause);
      return notice === undefined ? undefined : `notice of a ${notice.cause} of ${notice.name}`;
    }
    case "fact":
      return takeFact(world, random);
    case "late": {
      const call = random.pick(world.late);
      if (call !== undefined) world.land(call);
      return call === undefined ? undefined : `late: ${describe(call)}`;
    }
    case "kill": {
      const invocation = random.pick([...world.invocations]);
      if (invocation !== undefined) world.kill(invocation);
      return invocation === undefined ? undefined : `kill ${actorOf(invocation)}`;
    }
    case "resync":
      world.resync();
      return "resync";
    case "pages":
      cluster.expirePages();
      return "page tokens expire";
    case "time":
      return passTime(world, random);
  }
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

function passTime(world: World, random: Random): string {
  // A call that is under way takes long only now and then.
  const choices = world.calls.length > 0 && random.chance(0.9) ? DURATIONS_MS.slice(0, 5) : DURATIONS_MS;
  const ms = random.pick(choices) ?? 0;
  world.advance(ms);
  return `${ms} ms pass`;
}

function describe({ invocation, request }: Pick<PendingCall, "invocation" | "request">): string {
  const path = request.path.replace(/^\/apis?\/(.*\/namespaces\/[^/]+\/)?/, "").replace(/\?.*$/, "");
  return `${actorOf(invocation)} ${request.method} ${path}`;
}

function unreachable(): Error {
  return Object.assign(new Error("the connection was reset"), { code: "ECONNRESET" });
}

const BURST_MAX = 8;

/** Several calls, one after the other, so that passes get on; each is judged. */
async function takeBurst(run: Run, random: Random): Promise<string> {
  const told: string[] = [];
  for (let left = 1 + random.int(BURST_MAX); left > 0 && run.world.calls.length > 0; left -= 1) {
    told.push(takeCall(run.world, random));
    await run.world.settle();
    judgeNow(run);
  }
  return told.join("; ");
}

/** Lets one call, whichever, take effect, be answered, be lost or be refused. */
function takeCall(world: World, random: Random): string {
  const call = random.pick(world.calls);
  if (call === undefined) return "no call";
  const told = describe(call);
  const draw = random.int(100);
  if (call.answer !== undefined || draw < 80) {
    world.answer(call);
    return told;
  }
  if (draw < 93) {
    world.perform(call);
    return `${told}: done, not yet answered`;
  }
  if (draw < 95) {
    world.lose(call, unreachable());
    return `${told}: never arrives`;
  }
  if (draw < 97) {
    world.perform(call);
    world.lose(call, unreachable());
    return `${told}: done, the answer is lost`;
  }
  const [status, reason] =
    draw === 97 ? [429, "TooManyRequests"] : draw === 98 ? [500, "InternalError"] : [503, "ServiceUnavailable"];
  const body = { kind: "Status", status: "Failure", reason, message: reason, code: status };
  world.reply(call, { status, headers: { "retry-after": "1" }, body, bytes: 0 });
  return `${told}: ${status}`;
}

/** Invariants 9 and 8: without faults and users the cluster comes to match in bounded time, and then nobody writes any more. */
async function makePeace(run: Run): Promise<void> {
  const { world } = run;
  const random = createRandom(0);
  for (const invocation of [...world.invocations]) world.kill(invocation);
  world.late.splice(0);
  run.notices.splice(0);
  makeUsersReasonable(world.cluster);
  const isDone = () => mismatches(world.cluster).length === 0;
  for (let minute = 0; minute < PEACE_MINUTES && run.failure === undefined && !isDone(); minute += 1) {
    await liveMinute(run, random);
  }
  for (let minute = 0; minute < REST_MINUTES && run.failure === undefined; minute += 1) await liveMinute(run, random);
  if (run.failure !== undefined) return;
  if (!isDone()) {
    run.failure = `invariant 9: after ${PEACE_MINUTES} minutes of peace ${mismatches(world.cluster).join("; ")}`;
    return;
  }
  const before = world.cluster.store.journal.length;
  for (let minute = 0; minute < VERIFY_MINUTES && run.failure === undefined; minute += 1) await liveMinute(run, random);
  const [written] = world.cluster.store.journal.slice(before);
  if (written !== undefined) {
    run.failure = `invariant 8: ${written.actor} writes ${written.kind.kind} ${(written.after ?? written.before)?.metadata.name} though everything matches`;
  }
}

/** A tick of the schedule and all that follows from it within a minute. */
async function liveMinute(run: Run, random: Random): Promise<void> {
  const { world } = run;
  const end = world.now() + MINUTE_MS;
  world.resync();
  while (world.now() < end) {
    await goOn(run, random);
    run.notices.splice(0);
    const due = [world.queues.passes.nextAt(), world.queues.late.nextAt(), world.wakesAt()].filter(
      (time) => time !== undefined,
    );
    world.advance(Math.max(1, Math.min(end, ...due) - world.now()));
  }
}

/** Everything that can be done without waiting. */
async function goOn(run: Run, random: Random): Promise<void> {
  const { world } = run;
  for (let calls = 0; calls < CALLS_MAX && run.failure === undefined; calls += 1) {
    await world.settle();
    const [call] = world.calls;
    if (call !== undefined) {
      const told = describe(call);
      world.answer(call);
      await afterStep(run, random, `peace: ${told}`);
      continue;
    }
    for (const step of kubevirtSteps(world.cluster).slice(0, 1)) step.take();
    collectGarbage(world.cluster);
    const [fact] = world.facts.splice(0, 1);
    if (fact !== undefined) world.report(fact);
    const delivered = world.deliver("passes", 1) || world.deliver("late", 1);
    const isAtRest = fact === undefined && !delivered && kubevirtSteps(world.cluster).length === 0;
    if (isAtRest && world.calls.length === 0) return;
  }
}

/** What a failing seed tells: the seed, the shortest steps that still fail, and how to see it again. */
export async function explainFailure({ seed, kinds }: RunOptions, failure: string): Promise<string> {
  const all = Array.from({ length: STEPS }, (_, position) => position);
  const kindOf = (text: string | undefined) => text?.replace(/[ (].*$/s, "");
  const positions = await shrink(all, {
    attemptsMax: SHRINK_ATTEMPTS_MAX,
    fails: async (only) => kindOf((await simulate({ seed, kinds, only })).failure) === kindOf(failure),
  });
  const { failure: shortest = failure, trace } = await simulate({ seed, kinds, only: positions });
  const replay = `npm run simulate -- --seed ${seed} --runs 1 --only ${positions.join(",")}`;
  const shown = trace.filter((line) => !line.startsWith("peace")).join("\n  ");
  return `seed ${seed}: ${shortest}\n  ${shown}\nreplay: ${replay}`;
}
