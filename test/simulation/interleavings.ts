/**
 * Every order in which the calls of two passes over one pool can take effect, as far as anybody could tell them apart. Handlers cannot
 * be copied, so that each order is told from its beginning, up to where it leads to a state that was gone on from before.
 *
 * Why a state need not be gone on from twice: what a pass does next follows from the answers that it had, in their order, and from the
 * clock, which stands still here; what a call does follows from the cluster; and what the judge says follows from the changes and from
 * where in them each pass began. All of that makes the state.
 *
 * Why reads are not tried everywhere: two reads, or a read and a write of other kinds, give the same answers in either order, so that
 * all orders between which only such neighbours change places are one. Of these the one is told in which each read comes as late as it
 * can: somebody is chosen to write next and goes on to that write; before it the other pass may read, but only what ends with something
 * that the write changes; then the write is done. Whatever could come later is found later. A later first read gives a pass less to
 * excuse what it writes, so that the judge is no milder.
 *
 * Why an Event or a look at the API's versions is never a choice: nothing that the other pass does depends on it, nor it on that, so
 * that every order has one of equal effect in which it comes at once. For the same reason an answer that takes its time is no choice:
 * all it puts off is the next call of its pass.
 */
import type { Rest } from "./exhaustive.ts";
import {
  beginStory,
  type Course,
  catchUp,
  changesSince,
  digest,
  judgeCourse,
  listenToQueues,
  makePeace,
  type Sent,
  shiftOf,
  stateOf,
} from "./exhaustive.ts";
import { describe } from "./simulator.ts";
import { NAMESPACE, POOL_NAMES } from "./users.ts";
import { actorOf, type Invocation, type LateCall, type PendingCall } from "./world.ts";

/** Failures after which a scenario is given up. */
const FAILURES_MAX = 5;

/** What happens beside the passes. */
export interface Surroundings {
  /** KubeVirt and the garbage collector do all they can after each write; else nothing until the passes are over. */
  readonly isPrompt: boolean;
  /** One of the passes may end before any of its writes, which may still take effect before any later call, or never. */
  readonly mayDie: boolean;
}

export interface Interleavings {
  runs: number;
  /** Different states of cluster and passes. */
  states: number;
  /** Different states in which the passes ended; from each the peace was told. */
  ends: number;
  longestPath: number;
  /** Orders with none of equal effect before. */
  readonly failures: OrderFailure[];
}

export interface OrderFailure {
  readonly failure: string;
  readonly choices: readonly number[];
  readonly trace: readonly string[];
}

export interface InterleaveOptions extends Surroundings {
  readonly onRun: (soFar: Interleavings) => void;
}

/** Depth first over which call is next. */
export async function interleave(rest: Rest, { onRun, ...surroundings }: InterleaveOptions): Promise<Interleavings> {
  const result: Interleavings = { runs: 0, states: 0, ends: 0, longestPath: 0, failures: [] };
  const known = new Set<string>();
  const ends = new Set<string>();
  const open: (readonly number[])[] = [[]];
  for (let choices = open.pop(); choices !== undefined; choices = open.pop()) {
    const played = await play(rest, { choices, known, ends, surroundings });
    for (const other of played.others) open.push(other);
    result.runs += 1;
    result.states = known.size;
    result.ends = ends.size;
    result.longestPath = Math.max(result.longestPath, played.trace.length);
    const { failure, trace, taken } = played;
    if (failure !== undefined) result.failures.push({ failure, choices: taken, trace });
    onRun(result);
    if (result.failures.length >= FAILURES_MAX) break;
  }
  return result;
}

/** Tells one order again. */
export async function replayOrder(rest: Rest, choices: readonly number[], surroundings: Surroundings) {
  return play(rest, { choices, known: new Set(), ends: new Set(), surroundings });
}

interface Play {
  /** Of what could be done, by their place; after these always the first. */
  readonly choices: readonly number[];
  readonly known: Set<string>;
  readonly ends: Set<string>;
  readonly surroundings: Surroundings;
}

interface Played {
  readonly failure: string | undefined;
  readonly trace: readonly string[];
  readonly taken: readonly number[];
  /** What could have been chosen instead, where this order was the first to come. */
  readonly others: readonly (readonly number[])[];
}

/** Both passes, and what tells how far they are. */
interface Duel {
  readonly course: Course;
  readonly passes: readonly Invocation[];
  /** Of each pass the digest of all answers that it had. */
  readonly heard: Map<Invocation, string>;
  readonly sent: readonly Sent[];
  /** Of the changes so far. */
  written: string;
  seen: number;
  /** The pass that is chosen to write next. */
  turn: Invocation | undefined;
  /** The write that is chosen to be the next, and what lets it happen. */
  write: Write | undefined;
  /** The pass whose turn it was ended without a write: unless the other does, too, another order says the same. */
  isLast: boolean;
}

interface Write {
  readonly call: PendingCall | LateCall;
  readonly label: string;
  take(): void;
  /** What was read before it came as late as it could. */
  isDue: boolean;
}

function startDuel(rest: Rest): Duel {
  const course = beginStory(rest);
  const { world } = course;
  const sent = listenToQueues(world);
  for (let count = 0; count < 2; count += 1) {
    world.intrude({ namespace: NAMESPACE, name: POOL_NAMES[0] }, "again");
  }
  const passes = [...world.invocations];
  const nobody = { turn: undefined, write: undefined, isLast: false };
  return { course, passes, heard: new Map(), sent, written: "", seen: course.begin, ...nobody };
}

async function play(rest: Rest, { choices, known, ends, surroundings }: Play): Promise<Played> {
  const duel = startDuel(rest);
  const { course } = duel;
  const { world, trace } = course;
  const taken: number[] = [];
  const others: number[][] = [];
  await world.settle();
  for (;;) {
    const options = optionsOf(duel, surroundings);
    const isReplayed = taken.length < choices.length;
    if (options.length === 0 && world.calls.length > 0) return { failure: course.failure, trace, taken, others };
    if (options.length === 0 || course.failure !== undefined) break;
    if (!isReplayed && options.length > 1) {
      const state = positionOf(duel);
      if (known.has(state)) return { failure: undefined, trace, taken, others };
      known.add(state);
    }
    const choice = options.length === 1 ? 0 : isReplayed ? (choices[taken.length] ?? 0) : 0;
    if (options.length > 1) {
      if (!isReplayed) for (let other = 1; other < options.length; other += 1) others.push([...taken, other]);
      taken.push(choice);
    }
    const option = options[choice];
    if (option === undefined)
      throw new Error(`there is no choice ${choice} here: ${options.map(({ label }) => label)}`);
    option.take();
    trace.push(option.label);
    if (surroundings.isPrompt && catchUp(course)) trace.push("KubeVirt catches up");
    await world.settle();
    judgeCourse(course);
  }
  if (course.failure === undefined) await end(duel, ends);
  return { failure: course.failure, trace, taken, others };
}

/** The passes are over: from each state that they can leave behind the cluster has to come to match. */
async function end({ course, sent }: Duel, ends: Set<string>): Promise<void> {
  const { world } = course;
  world.late.splice(0);
  world.restart();
  const state = stateOf(course, sent);
  if (ends.has(state)) return;
  ends.add(state);
  await makePeace(course);
}

interface Option {
  readonly label: string;
  take(): void;
}

/** What could come next; nothing when the passes are over, or when another order says the same. */
function optionsOf(duel: Duel, surroundings: Surroundings): readonly Option[] {
  const { calls } = duel.course.world;
  const lonely = calls.find(isLonely);
  if (lonely !== undefined) return [answerOf(duel, lonely)];
  if (duel.write !== undefined) return beforeWrite(duel, duel.write, surroundings);
  const { turn } = duel;
  if (turn === undefined) return turnsOf(duel);
  const own = calls.filter(({ invocation }) => invocation === turn);
  const read = own.find((call) => !isWrite(call));
  if (read !== undefined) return [answerOf(duel, read)];
  if (own.length > 0) return duel.isLast ? [] : writesOf(duel, own, surroundings);
  duel.isLast = true;
  duel.turn = calls[0]?.invocation;
  return duel.turn === undefined && duel.course.world.late.length === 0 ? [] : optionsOf(duel, surroundings);
}

/** Who is to write next. */
function turnsOf(duel: Duel): readonly Option[] {
  const { passes, course } = duel;
  const { calls, late } = course.world;
  const going = passes.filter((pass) => calls.some(({ invocation }) => invocation === pass));
  const never = { label: "what is late never comes", take: () => void late.splice(0) };
  return [
    ...going.map((pass) => ({
      label: `${actorOf(pass)} is the next to write`,
      take() {
        duel.turn = pass;
      },
    })),
    ...late.map((call) =>
      choose(duel, call, { label: `late: ${describe(call)}`, take: () => course.world.land(call) }),
    ),
    ...(going.length === 0 && late.length > 0 ? [never] : []),
  ];
}

/** Which of the writes that the pass has under way is the next, or with which it dies. */
function writesOf(duel: Duel, own: readonly PendingCall[], { mayDie }: Surroundings): readonly Option[] {
  const { course, passes, heard } = duel;
  const hasDied = passes.some((pass) => heard.get(pass) === DEAD);
  return [
    ...own.map((call) => choose(duel, call, answerOf(duel, call))),
    ...own.slice(0, mayDie && !hasDied ? 1 : 0).map((call) => ({
      label: `${actorOf(call.invocation)} dies while it sends ${own.map(describe).join(", ")}`,
      take() {
        course.world.kill(call.invocation);
        heard.set(call.invocation, DEAD);
        duel.turn = undefined;
      },
    })),
  ];
}

function choose(duel: Duel, call: PendingCall | LateCall, { label, take }: Option): Option {
  return {
    label: `next is ${label}`,
    take() {
      duel.write = { call, label, take, isDue: true };
    },
  };
}

/** The write, or what the other pass reads before it. */
function beforeWrite(duel: Duel, write: Write, { isPrompt }: Surroundings): readonly Option[] {
  const { calls } = duel.course.world;
  const reads = calls.filter((call) => call.invocation !== write.call.invocation && !isWrite(call));
  const done = {
    label: write.label,
    take() {
      duel.write = undefined;
      duel.turn = undefined;
      write.take();
    },
  };
  return [
    ...(write.isDue ? [done] : []),
    ...reads.map((call) => {
      const { label, take } = answerOf(duel, call);
      return {
        label,
        take() {
          write.isDue = changes(write.call, call, isPrompt);
          take();
        },
      };
    }),
  ];
}

/** Whether the answer to the read can be another once the write is done. */
function changes(write: LateCall | PendingCall, read: PendingCall, isPrompt: boolean): boolean {
  const [one, other] = [write, read].map(({ request: { path } }) => /\/namespaces\/[^/]+\/([a-z]+)/.exec(path)?.[1]);
  // What KubeVirt and the collector make of it may be anything; of a claim they make nothing.
  return one === other || (isPrompt && !Array.isArray(write.request.body));
}

function answerOf(duel: Duel, call: PendingCall): Option {
  const { world } = duel.course;
  return {
    label: describe(call),
    take() {
      world.perform(call);
      hear(duel, call);
      world.answer(call);
    },
  };
}

const DEAD = "dead";

function isWrite({ request: { method, path } }: PendingCall): boolean {
  return method !== "GET" && !path.includes("dryRun=All");
}

/** Neither tells nor changes anything that the other pass could come upon. */
function isLonely({ request: { method, path } }: Pick<PendingCall, "request">): boolean {
  return /\/events[/?]/.test(path) || (method === "GET" && path === "/apis/pool.kubevirt.io");
}

function hear({ heard, course }: Duel, { invocation, request, answer }: PendingCall): void {
  if (isLonely({ request })) return;
  const { method, path, body } = request;
  const said = [heard.get(invocation), method, path, body, answer?.status, answer?.body];
  heard.set(invocation, digest(said, shiftOf(course.world)));
}

/** The state: what was changed, what each pass was told and where in the changes it began, and what may still take effect. */
function positionOf(duel: Duel): string {
  const { course, passes, heard } = duel;
  const { world, begin } = course;
  const { journal } = world.cluster.store;
  if (duel.seen < journal.length) {
    duel.written = digest([duel.written, ...changesSince(journal, duel.seen)], shiftOf(world));
    duel.seen = journal.length;
  }
  const told = passes.map((pass) => [
    pass.isOver,
    heard.get(pass),
    [...pass.firstReads.values()].map((count) => changesSince(journal.slice(0, count), begin).length),
  ]);
  const late = world.late.map(({ request: { method, path, body } }) => [method, path, body]);
  const chosen = [duel.turn?.id, duel.isLast, duel.write?.label, duel.write?.isDue];
  return digest([duel.written, told, late, chosen], shiftOf(world));
}
