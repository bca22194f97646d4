/**
 * Every crash and every wrong answer at every call of a small story, one after the other: what follows is judged step by step, has to
 * come to match and to stay so. Nothing is left to chance, so that a run is told by its faults.
 */
import { createHash } from "node:crypto";
import type { ApiResponse } from "../../shared/clusters/connection.ts";
import type { PassResult } from "../../shared/clusters/reconcile-pool.ts";
import type { QueueName, WakeUp } from "../../shared/events/wake-ups.ts";
import { collectGarbage } from "./garbage.ts";
import { createJudge, type Judge, judgeClaims, mismatches } from "./invariants.ts";
import type { Kind } from "./kinds.ts";
import { kubevirtSteps } from "./kubevirt.ts";
import { createRandom } from "./random.ts";
import { canTake, type Scenario } from "./scenarios.ts";
import { describe, planDependsOnOrder } from "./simulator.ts";
import type { Change } from "./store.ts";
import { NAMESPACE, objects, POOL_NAMES } from "./users.ts";
import { createWorld, type PendingCall, type World } from "./world.ts";

const MINUTE_MS = 60_000;
/** Longer than every wait that the design knows, one after the other, and two full looks of the schedule. */
const PEACE_MINUTES = 30;
/** The longest wait of a claim, after a full look: what is then not settled never will be. */
const REST_MINUTES = 3;
/** Two full looks, and the schedule's own after its longest pause. */
const VERIFY_MINUTES = 2;
const SCHEDULE_MS = 10 * MINUTE_MS;
/** Batches of wake-ups of the verifying minutes: the full looks, and one of the schedule's. */
const BATCHES_MAX = VERIFY_MINUTES + 1;
/** Of one story; a handler that goes on for ever is a bug. */
const CALLS_MAX = 5_000;
const SEED = 1;

/** What can become of a call, and of the process that sent it. */
export const CRASHES = ["diesBefore", "diesAfter", "diesAfterAll"] as const;
/** The call is under way when its sender is gone, or has given up; it takes effect before a later call, or never. */
export const LATES = ["diesUnderWay", "timesOut"] as const;
/** The answer does not come, or nobody can read it. */
const LOSSES = ["neverArrives", "answerLost", "answerCut", "answerGarbled"] as const;
/** What servers, and what stands before them, say without having done anything. */
const REFUSALS = [
  "unauthorized",
  "forbidden",
  "notFound",
  "conflict",
  "expired",
  "invalid",
  "throttled",
  "failed",
  "unavailable",
  "gatewayTimeout",
] as const;
type Refusal = (typeof REFUSALS)[number];
const ANSWERS: Readonly<Record<Refusal, readonly [number, string]>> = {
  unauthorized: [401, "Unauthorized"],
  forbidden: [403, "Forbidden"],
  notFound: [404, "NotFound"],
  conflict: [409, "Conflict"],
  expired: [410, "Expired"],
  invalid: [422, "Invalid"],
  throttled: [429, "TooManyRequests"],
  failed: [500, "InternalError"],
  unavailable: [503, "ServiceUnavailable"],
  gatewayTimeout: [504, "Timeout"],
};
/** The same of those that fail, which have done it all the same. */
const DONE_REFUSALS = ["failedDone", "unavailableDone", "gatewayTimeoutDone"] as const;
const SAID: Readonly<Record<(typeof DONE_REFUSALS)[number], Refusal>> = {
  failedDone: "failed",
  unavailableDone: "unavailable",
  gatewayTimeoutDone: "gatewayTimeout",
};

export const KINDS = [...CRASHES, ...LATES, "lands", ...LOSSES, ...REFUSALS, ...DONE_REFUSALS] as const;
export type FaultKind = (typeof KINDS)[number];

export interface Fault {
  /** Calls of the story are counted from 0. */
  readonly position: number;
  readonly kind: FaultKind;
}

/** The cluster of a scenario, at rest: no function runs, no wake-up waits. */
export interface Rest {
  readonly scenario: Scenario;
  readonly kinds: readonly Kind[];
  readonly journal: readonly Change[];
  /** Epoch milliseconds. */
  readonly at: number;
}

/** One story while it is told. */
export interface Course {
  readonly world: World;
  readonly judge: Judge;
  readonly scenario: Scenario;
  /** Of the machine that is stuck. */
  readonly stuckUid: string | undefined;
  readonly trace: string[];
  /** What was found while a handler ran. */
  readonly wrongs: string[];
  /** Changes that were there before the story. */
  readonly begin: number;
  /** The cluster has come to match. */
  isMatched: boolean;
  failure: string | undefined;
}

/** Lets the functions bring the scenario's cluster to rest. */
export async function prepareRest(scenario: Scenario, kinds: readonly Kind[]): Promise<Rest> {
  const course = begin({ scenario, kinds, journal: [], at: 0 }, SEED);
  const { world } = course;
  scenario.prepare(world.cluster);
  await makePeace(course);
  const isIdle = world.queues.passes.size + world.queues.late.size + world.facts.length === 0;
  const wrong = course.failure ?? mismatches(world.cluster)[0];
  if (wrong !== undefined || !isIdle) throw new Error(`${scenario.name} does not come to rest: ${wrong ?? "wake-ups"}`);
  return { scenario, kinds, journal: world.cluster.store.journal, at: world.now() };
}

/** A world as the rest left it: handlers cannot be copied, but at rest there are none. */
function begin({ scenario, kinds, journal, at }: Rest, seed: number): Course {
  const wrongs: string[] = [];
  const order = createRandom(seed);
  const onPass = (_key: WakeUp, result: PassResult) => {
    const wrong = planDependsOnOrder(result, order);
    if (wrong !== undefined) wrongs.push(wrong);
  };
  const world = createWorld({ seed, kinds, onPass, onAnswer: () => undefined });
  world.setClocks();
  world.advance(Math.max(0, at - world.now()));
  const { cluster } = world;
  cluster.addNamespace(NAMESPACE);
  for (const { kind, before, after, actor } of journal) {
    // The functions of this world begin to count anew.
    if (after !== undefined) cluster.store.put(kind, after, `earlier ${actor}`);
    else if (before !== undefined) cluster.store.remove(kind, before, `earlier ${actor}`);
  }
  const judge = createJudge(cluster, (actor) => world.started.get(actor));
  const stuck = objects(cluster, "virtualmachines").find(({ metadata }) => metadata.name === scenario.stuck);
  return {
    world,
    judge,
    scenario,
    stuckUid: stuck?.metadata.uid,
    trace: [],
    wrongs,
    begin: cluster.store.journal.length,
    isMatched: false,
    failure: judge.judge(),
  };
}

/** A world at the rest's end, with the scenario's change made. */
export function beginStory(rest: Rest): Course {
  const course = begin(rest, SEED + 1);
  rest.scenario.change(course.world.cluster);
  return course;
}

export function judgeCourse(course: Course): void {
  const { world, judge } = course;
  const underWay = [...world.calls.filter(({ answer }) => answer === undefined), ...world.late];
  course.failure ??=
    judge.judge() ?? judgeClaims(world.cluster, underWay, world.now()) ?? world.errors[0] ?? course.wrongs[0];
}

/** What happens to the next call; and whether the story is to go on when no function runs. */
interface Teller {
  take(call: PendingCall, course: Course): string;
  isEnough(course: Course): boolean;
}

const ANSWER: Teller = {
  take(call, { world }) {
    world.answer(call);
    return "";
  },
  isEnough: () => false,
};

/** A tick of the schedule and all that follows from it within a minute; how many batches of wake-ups those are. */
async function liveMinute(course: Course, teller: Teller): Promise<number> {
  const { world } = course;
  const end = world.now() + MINUTE_MS;
  let batches = 0;
  world.resync();
  while (world.now() < end && course.failure === undefined) {
    batches += await goOn(course, teller);
    if (teller.isEnough(course)) break;
    const times = [world.queues.passes.nextAt(), world.queues.late.nextAt(), world.wakesAt()];
    const due = times.filter((time) => time !== undefined);
    world.advance(Math.max(1, Math.min(end, ...due) - world.now()));
  }
  return batches;
}

/** Everything that can be done without waiting. */
async function goOn(course: Course, teller: Teller): Promise<number> {
  const { world } = course;
  let batches = 0;
  for (let calls = 0; calls < CALLS_MAX && course.failure === undefined; calls += 1) {
    await world.settle();
    const [call] = world.calls;
    if (call !== undefined) {
      const told = describe(call);
      const effect = teller.take(call, course);
      await world.settle();
      course.trace.push(effect === "" ? told : `${told}: ${effect}`);
      judgeCourse(course);
      continue;
    }
    if (teller.isEnough(course)) return batches;
    const hasMoved = catchUp(course);
    const [fact] = world.facts.splice(0, 1);
    if (fact !== undefined) world.report(fact);
    const delivered = world.deliver("passes", 1) || world.deliver("late", 1);
    if (delivered) batches += 1;
    if (!hasMoved && fact === undefined && !delivered && world.calls.length === 0) return batches;
  }
  course.failure ??= "invariant 9: the functions never come to rest within a minute of peace";
  return batches;
}

/** KubeVirt and the garbage collector do all that they can; whether that was anything. */
export function catchUp({ world: { cluster }, scenario, stuckUid }: Course): boolean {
  const before = cluster.store.version;
  for (;;) {
    const step = kubevirtSteps(cluster).find(({ label }) => canTake(scenario, { cluster, stuckUid, label }));
    if (step === undefined) break;
    step.take();
  }
  collectGarbage(cluster);
  return cluster.store.version !== before;
}

/** Invariants 9 and 8: the cluster comes to match in bounded time, and then nobody writes any more. */
export async function makePeace(course: Course, teller: Teller = ANSWER): Promise<void> {
  const { world } = course;
  const isDone = () => mismatches(world.cluster).length === 0;
  const live = async (minutes: number, until: () => boolean = () => false) => {
    let batches = 0;
    for (let minute = 0; minute < minutes && (minute === 0 || !until()); minute += 1) {
      if (course.failure !== undefined || teller.isEnough(course)) break;
      batches += await liveMinute(course, teller);
    }
    return batches;
  };
  const look = () => wake(world, "passes", "sweep");
  await live(PEACE_MINUTES, isDone);
  if (course.failure !== undefined || teller.isEnough(course)) return;
  course.isMatched = true;
  look();
  await live(REST_MINUTES);
  if (!isDone()) {
    course.failure ??= `invariant 9: after ${PEACE_MINUTES} minutes of peace ${mismatches(world.cluster).join("; ")}`;
    return;
  }
  const before = world.cluster.store.journal.length;
  let batches = 0;
  for (let minute = 0; minute < VERIFY_MINUTES; minute += 1) {
    look();
    batches += await live(1);
  }
  world.advance(SCHEDULE_MS);
  batches += await live(1);
  const [written] = world.cluster.store.journal.slice(before);
  if (written !== undefined) {
    const { actor, kind } = written;
    const name = (written.after ?? written.before)?.metadata.name;
    course.failure ??= `invariant 8: ${actor} writes ${kind.kind} ${name} though everything matches`;
  } else if (batches > BATCHES_MAX) {
    course.failure ??= `invariant 8: ${batches} batches of wake-ups though everything matches`;
  }
}

export interface Telling {
  readonly failure: string | undefined;
  readonly trace: readonly string[];
  /** Calls of the story up to the end of the minute in which the cluster came to match. */
  readonly calls: readonly TakenCall[];
  /** The state after the last fault, when all functions had ended, was known: the rest was not told again. */
  readonly isKnown: boolean;
}

interface TakenCall {
  readonly isWrite: boolean;
  /** Its function waits for others, too. */
  readonly hasSiblings: boolean;
  /** Calls of senders that are gone may still take effect. */
  readonly hasLate: boolean;
}

/** Tells the story with these faults. `known` has the states from which it was told to its end already. */
export async function tell(rest: Rest, faults: readonly Fault[], known?: Set<string>): Promise<Telling> {
  const course = beginStory(rest);
  const { world } = course;
  const sent = listenToQueues(world);
  const calls: TakenCall[] = [];
  let isKnown = false;
  let isFresh = faults.length > 0;
  let isContinued = rest.scenario.andThen === undefined;
  const teller: Teller = {
    take(call) {
      const fault = faults.find(({ position }) => position === calls.length);
      const { invocation, request } = call;
      if (course.isMatched) return ANSWER.take(call, course);
      calls.push({
        isWrite: request.method !== "GET",
        hasSiblings: world.calls.some((other) => other !== call && other.invocation === invocation),
        hasLate: world.late.length > 0,
      });
      return fault === undefined ? ANSWER.take(call, course) : strike(fault.kind, call, world);
    },
    isEnough() {
      const isOver = world.invocations.size === 0 && world.calls.length === 0;
      const isLast = faults.every(({ position }) => position < calls.length);
      if (isOver && !isContinued && hasPassed(world)) {
        isContinued = true;
        goOnAs(course);
      }
      if (isFresh && isOver && isLast) {
        isFresh = false;
        // What a warm instance remembers would be part of the state.
        world.restart();
        const state = stateOf(course, sent);
        isKnown = known?.has(state) === true;
        known?.add(state);
      }
      return isKnown;
    },
  };
  notice(world);
  await makePeace(course, teller);
  return { failure: course.failure, trace: course.trace, calls, isKnown };
}

/** A pass has come to its end, or died. */
function hasPassed({ started, invocations }: World): boolean {
  return [...started.values()].some((one) => one.name === "reconcile" && !invocations.has(one));
}

/** What somebody does is told at once. */
function goOnAs({ scenario, world, trace }: Course): void {
  scenario.andThen?.(world.cluster);
  notice(world);
  trace.push("the user goes on");
}

/** As at admission, in both queues: where a pass has died, its message holds up the first of them for longer than a call can be late. */
function notice(world: World): void {
  for (const queue of ["passes", "late"] as const) wake(world, queue, "pool");
}

function wake(world: World, queue: QueueName, cause: string): void {
  const place = { cluster: "local", namespace: NAMESPACE, name: POOL_NAMES[0] };
  const wakeUp: WakeUp = { version: 1, ...place, cause, attempt: 0 };
  world.queues[queue].send({ wakeUp, seenAtMs: world.now() }, world.now());
}

function unreachable(): Error {
  return Object.assign(new Error("the connection was reset"), { code: "ECONNRESET" });
}

export interface Sent {
  readonly queue: string;
  readonly text: string;
}

/** Keeps what the queues were given, the oldest first: they do not show what they hold. */
export function listenToQueues({ queues }: World): Sent[] {
  const sent: Sent[] = [];
  for (const [name, queue] of Object.entries(queues)) {
    const { send } = queue;
    queue.send = (outgoing, now) => {
      const before = queue.size;
      send(outgoing, now);
      if (queue.size > before) sent.push({ queue: name, text: `${now} ${JSON.stringify(outgoing.wakeUp)}` });
    };
  }
  return sent;
}

/**
 * Everything on which it depends what follows, and how it is judged, when no function runs and none remembers anything: each change
 * since the story began, the clock, what waits in the queues and on the bus, and the calls that may still take effect. Of one pool the
 * messages leave a queue in their order, so the last ones that came are those that wait. Nobody acts on Events: they are left out, and
 * versions are counted without them.
 */
export function stateOf({ world, begin: first }: Course, sent: readonly Sent[]): string {
  const { queues, facts, late, cluster } = world;
  const waiting = Object.entries(queues).map(([name, queue]) => {
    const own = sent.filter((one) => one.queue === name);
    return [queue.nextAt(), queue.deadLetters.length, own.slice(own.length - queue.size)];
  });
  const rest = late.map(({ request: { method, path, body }, until }) => [method, path, body, until]);
  return digest([world.now(), waiting, facts, rest, ...changesSince(cluster.store.journal, first)], shiftOf(world));
}

/** The changes but for Events. */
export function changesSince(journal: readonly Change[], first: number): readonly unknown[] {
  return journal
    .slice(first)
    .filter(({ kind }) => kind.plural !== "events")
    .map(({ actor, kind, before, after }) => [actor, kind.plural, after ?? ["ends", before?.metadata.uid]]);
}

/** Versions as if no Event had been written. */
export function shiftOf({ cluster: { store } }: World): (version: string) => string {
  const events = store.journal.filter(({ kind }) => kind.plural === "events").map(({ sequence }) => sequence);
  const offset = store.version - store.journal.length;
  return (version) => {
    const number = Number(version);
    return String(number - events.filter((sequence) => sequence + offset <= number).length);
  };
}

export function digest(value: unknown, shift: (version: string) => string): string {
  const text = JSON.stringify(value, (key, inner: unknown) =>
    key === "resourceVersion" && typeof inner === "string" && inner !== "" ? shift(inner) : inner,
  );
  return createHash("sha1").update(text).digest("base64");
}

/** Makes the fault happen to the call; says what it was. */
function strike(kind: FaultKind, call: PendingCall, world: World): string {
  switch (kind) {
    case "diesBefore":
      end(call, world);
      return "the process dies before it is sent";
    case "diesAfter":
      world.perform(call);
      end(call, world);
      return "done, and the process dies";
    case "diesAfterAll":
      for (const other of world.calls.filter(({ invocation }) => invocation === call.invocation)) world.perform(other);
      end(call, world);
      return "done as are those beside it, and the process dies";
    case "diesUnderWay":
      world.kill(call.invocation);
      return "under way when the process dies";
    case "timesOut":
      world.abandon(call, unreachable());
      return "no answer in time";
    case "lands":
      for (const late of [...world.late]) world.land(late);
      world.answer(call);
      return "before it, what was under way takes effect";
    case "neverArrives":
      world.lose(call, unreachable());
      return "never arrives";
    case "answerLost":
      world.perform(call);
      world.lose(call, unreachable());
      return "done, the answer is lost";
    case "answerCut":
      world.perform(call);
      world.lose(call, Object.assign(new Error("the answer ended too early"), { code: "UND_ERR_SOCKET" }));
      return "done, the answer is cut";
    case "answerGarbled":
      world.perform(call);
      world.reply(call, { status: 200, headers: {}, body: '{"kind":', bytes: 8 }, false);
      return "done, the answer is no JSON";
    case "failedDone":
    case "unavailableDone":
    case "gatewayTimeoutDone":
      world.perform(call);
      return `done, yet ${refuse(SAID[kind], call, world)}`;
    default:
      return refuse(kind, call, world);
  }
}

/** Nothing of what it has under way is sent any more. */
function end({ invocation }: PendingCall, world: World): void {
  world.kill(invocation);
  const others = world.late.filter((late) => late.invocation !== invocation);
  world.late.splice(0, world.late.length, ...others);
}

function refuse(kind: Refusal, call: PendingCall, world: World): string {
  const [status, reason] = ANSWERS[kind];
  const body = { kind: "Status", status: "Failure", reason, message: reason, code: status };
  const headers: ApiResponse["headers"] = kind === "throttled" || kind === "unavailable" ? { "retry-after": "1" } : {};
  world.reply(call, { status, headers, body, bytes: 0 }, false);
  return `${status} ${reason}`;
}

/** What was tried of a scenario. */
export interface Exploration {
  /** Calls of the story without faults. */
  calls: number;
  runs: number;
  /** Different states after the last fault, each told to its end once. */
  states: number;
  longestPath: number;
  readonly failures: Failure[];
}

export interface Failure {
  readonly failure: string;
  readonly faults: readonly Fault[];
  readonly trace: readonly string[];
}

export interface ExploreOptions {
  /** A second crash at every call of what follows each crash. */
  readonly pairs: boolean;
  /** Hears of every run. */
  readonly onRun: (soFar: Exploration) => void;
}

/** Failures after which a scenario is given up. */
const FAILURES_MAX = 5;

/**
 * Every fault at every call; a call that is under way when its sender is gone takes effect before each of those that follow; and where
 * asked for, every pair of crashes. Of faults that lead to the same state one is told to its end.
 */
export async function explore(rest: Rest, { pairs, onRun }: ExploreOptions): Promise<Exploration> {
  const known = new Set<string>();
  const result: Exploration = { calls: 0, runs: 0, states: 0, longestPath: 0, failures: [] };
  const run: Run = async (faults, states = known) => {
    if (result.failures.length >= FAILURES_MAX) return [];
    const { calls, trace, failure } = await tell(rest, faults, states);
    result.runs += 1;
    result.states = known.size;
    result.longestPath = Math.max(result.longestPath, trace.length);
    if (failure !== undefined) result.failures.push({ failure, faults, trace });
    onRun(result);
    return calls;
  };
  const calls = await run([]);
  result.calls = calls.length;
  for (const [position, call] of calls.entries()) {
    for (const kind of kindsOf(call)) await run([{ position, kind }]);
    for (const kind of call.isWrite ? LATES : []) await runLate({ position, kind }, run);
  }
  // A state that only an error has led to so far was not gone on from.
  const crashed = new Set<string>();
  for (const [position, call] of pairs ? calls.entries() : [])
    for (const kind of crashesOf(call)) await runPairs({ position, kind }, run, crashed);
  return result;
}

/** Tells of the calls that there were; none once the scenario is given up. */
type Run = (faults: readonly Fault[], states?: Set<string>) => Promise<readonly TakenCall[]>;

async function runLate(first: Fault, run: Run): Promise<void> {
  const calls = await run([first]);
  for (const [position, { hasLate }] of calls.entries())
    if (position > first.position && hasLate) await run([first, { position, kind: "lands" }]);
}

async function runPairs(first: Fault, run: Run, crashed: Set<string>): Promise<void> {
  const calls = await run([first], crashed);
  for (const [position, call] of calls.entries())
    for (const kind of position > first.position ? crashesOf(call) : []) await run([first, { position, kind }]);
}

function crashesOf({ isWrite, hasSiblings }: TakenCall): readonly FaultKind[] {
  // To die before and after a read is the same.
  return CRASHES.filter((kind) => (kind === "diesAfterAll" ? hasSiblings : kind === "diesBefore" || isWrite));
}

function kindsOf(call: TakenCall): readonly FaultKind[] {
  const losses: readonly FaultKind[] = call.isWrite ? LOSSES : ["neverArrives", "answerGarbled"];
  return [...crashesOf(call), ...losses, ...REFUSALS, ...(call.isWrite ? DONE_REFUSALS : [])];
}
