/**
 * A state of the searched system and its form as a few numbers: one pool, its machines by ordinal, passes that overlap, and calls
 * that land late. Equal states have equal numbers; nothing in a state is unbounded.
 *
 * What is abstracted, and why:
 * - UIDs, nonces and resourceVersions are not kept. What is kept is whether the object that a pass has read is still there and
 *   unchanged: all that a precondition asks. A call that must miss is dropped at once.
 * - Generations are kept as "the one in force" or "an earlier one". There are two templates, and one revision name for each, so what
 *   several revisions of the same template lead to is not searched.
 * - The clock is coarse: two ticks are the time after which no call of a pass lands, one tick is longer than every other wait.
 *   A pass and its calls live for at most one tick boundary. Only ages are kept, and no age beyond the one that matters.
 * - A pass reads its machines, their instances and the revisions at one moment, after the pool.
 */

/** Ordinals that have a place in a state; a search may use fewer. */
export const ORDINALS_MAX = 5;

/** What a machine is, as bits of one number; 0 is none. */
export const VM = {
  here: 1,
  /** Controlled by the pool. */
  ours: 1 << 1,
  /** Its labels match the selector. */
  matched: 1 << 2,
  /** Carries the pool's finalizer, and KubeVirt's. */
  held: 1 << 3,
  heldByKubeVirt: 1 << 4,
  terminating: 1 << 5,
  /** Made from, or moved to, the second template. */
  second: 1 << 6,
  /** Made since the last tick, and given another template since then. */
  young: 1 << 7,
  updated: 1 << 8,
  /** Its instance: there, ready, on its way out, of the second template, made since the last tick. */
  runs: 1 << 9,
  ready: 1 << 10,
  going: 1 << 11,
  runsSecond: 1 << 12,
  runsYoung: 1 << 13,
  /** It failed to start so often that it is to be healed. */
  failing: 1 << 14,
} as const;

/** What a pool is, as bits of one number; 0 is a pool that is gone. */
export const POOL = {
  here: 1,
  paused: 1 << 1,
  /** The second template is in force. */
  second: 1 << 2,
  deleting: 1 << 3,
  /** Its machines are to be orphaned. */
  orphan: 1 << 4,
  held: 1 << 5,
  replicas: 6,
  /** ControllerRevisions that are there, one bit for each template; no part of what a read of the pool sees. */
  revisions: 8,
  /** Acts of users and failures that are left; no part of it, either. */
  acts: 10,
} as const;
const SEEN_OF_POOL = (1 << POOL.revisions) - 1;

/** A claim as bits of one number; 0 is none. Two bits an ordinal say how old its create is, see `ageOfCreate`. */
export const CLAIM = {
  create: 0,
  remove: 2 * ORDINALS_MAX,
  /** It names machines that are gone, and instances. */
  removeDead: 1 << (3 * ORDINALS_MAX),
  restart: 3 * ORDINALS_MAX + 1,
  restartDead: 1 << (4 * ORDINALS_MAX + 1),
  /** 0 for none, 1 and 2 for the templates. */
  rollout: 4 * ORDINALS_MAX + 2,
  /** 0 for none, 1 when it is over, 2 and 3 for one and two ticks. */
  wait: 4 * ORDINALS_MAX + 4,
  known: 1 << (4 * ORDINALS_MAX + 6),
  /** It names the generation in force. */
  current: 1 << (4 * ORDINALS_MAX + 7),
} as const;
const MASK = (1 << ORDINALS_MAX) - 1;

/** What healing remembers, four bits an ordinal: there, how often up to 2, since the last tick, its machine is newer. */
export const MEMORY = { bits: 6, here: 1, count: 1, young: 1 << 3, newer: 1 << 4 } as const;

/** What was in force since the first read of a pass, as far as the invariants ask. */
export interface Window {
  /** Most and least replicas of a pool that may be acted on; `most` is `NEVER` when it never was. */
  readonly most: number;
  readonly least: number;
  /** Templates, one bit each. */
  readonly templates: number;
  /** How many live machines others took away. */
  readonly lost: number;
  /** Machines that went down, but not by us; and those that left the pool. One bit an ordinal. */
  readonly fell: number;
  readonly left: number;
}
export const NEVER = 7;
export const NO_WINDOW: Window = { most: NEVER, least: NEVER, templates: 0, lost: 0, fell: 0, left: 0 };

/** `due`: is about to read the pool; `read`: has read the pool, not yet its machines; `acts`: sends the calls of a plan. */
export const PHASE = { due: 0, read: 1, acts: 2, ended: 3 } as const;

export interface Pass {
  readonly phase: number;
  /** Looks at all VMs of the namespace from the start. */
  readonly wide: number;
  /** Ticks since it began, and since it last read the pool. */
  readonly age: number;
  readonly readAge: number;
  /** Claim and generation of the pool are still those that it read. */
  readonly claimFresh: number;
  readonly specFresh: number;
  /** The ledger: the pool's claim is this pass's own; ordinals that it alone claimed, and those with an unclear answer. */
  readonly alone: number;
  readonly own: number;
  readonly tainted: number;
  /** Only closes its claim from now on. */
  readonly closing: number;
  /** A call of this look has failed; the creates of this look have stopped, its updates. */
  readonly failed: number;
  readonly window: Window;
  /** As read; while it acts `claim` and `memory` are what it is to write. */
  readonly pool: number;
  readonly claim: number;
  readonly memory: number;
  /** While it acts: the calls that are still to be sent, as the planner's script of this position. */
  readonly script: number;
}

/** Calls that land after their sender has given up. */
export const LATE = { create: 0, remove: 1, heal: 2, update: 3, restart: 4 } as const;

export interface Late {
  readonly kind: number;
  readonly ordinal: number;
  /** 0 or 1, of a create and of an update. */
  readonly template: number;
  readonly age: number;
  /** Its plan is older than the last tick: what it writes down as the present is past. */
  readonly readAge: number;
  readonly window: Window;
}

/** A state. Passes and late calls are never changed in place, all else is, on a copy. */
export interface State {
  pool: number;
  claim: number;
  memory: number;
  machines: number[];
  passes: readonly Pass[];
  late: readonly Late[];
}

export function copyOf(state: State): State {
  return { ...state, machines: [...state.machines] };
}

export function machineAt({ machines }: State, ordinal: number): number {
  return machines[ordinal] ?? 0;
}

export function replicasOf(pool: number): number {
  return (pool >> POOL.replicas) & 3;
}

/** What a read of the pool tells of it. */
export function seenOf(pool: number): number {
  return pool & SEEN_OF_POOL;
}

export function isMember(machine: number): boolean {
  const member = VM.here | VM.ours | VM.matched;
  return (machine & member) === member;
}

export function isLive(machine: number): boolean {
  return isMember(machine) && (machine & VM.terminating) === 0;
}

/** Its guest runs and is ready. */
export function isAvailable(machine: number): boolean {
  const up = VM.runs | VM.ready;
  return isLive(machine) && (machine & up) === up && (machine & VM.going) === 0;
}

/** 0 for none, 1 for the present, 2 for one tick, 3 for an age at which it can land no more. */
export function ageOfCreate(claim: number, ordinal: number): number {
  return (claim >> (CLAIM.create + 2 * ordinal)) & 3;
}

export function namesIn(claim: number, of: "remove" | "restart"): number {
  return (claim >> CLAIM[of]) & MASK;
}

/** What the claim says of a machine, or of an instance, that is gone is said of nothing. */
export function withoutObject(claim: number, of: "remove" | "restart", ordinal: number): number {
  const bit = 1 << (CLAIM[of] + ordinal);
  if ((claim & bit) === 0) return claim;
  return (claim & ~bit) | (of === "remove" ? CLAIM.removeDead : CLAIM.restartDead);
}

/** The claim a tick later. */
export function olderClaim(claim: number): number {
  let older = claim;
  for (let ordinal = 0; ordinal < ORDINALS_MAX; ordinal += 1) {
    const age = ageOfCreate(claim, ordinal);
    if (age === 1 || age === 2) older += 1 << (CLAIM.create + 2 * ordinal);
  }
  const wait = (claim >> CLAIM.wait) & 3;
  return wait > 1 ? older - (1 << CLAIM.wait) : older;
}

/** What healing remembers a tick later. */
export function olderMemory(memory: number): number {
  let older = memory;
  for (let ordinal = 0; ordinal < ORDINALS_MAX; ordinal += 1) older &= ~(MEMORY.young << (MEMORY.bits * ordinal));
  return older;
}

export function hasBit(mask: number, index: number): boolean {
  return ((mask >> index) & 1) === 1;
}

export function bitCount(mask: number): number {
  let count = 0;
  for (let rest = mask; rest !== 0; rest &= rest - 1) count += 1;
  return count;
}

// --- as numbers

const PASS_NUMBERS = 5;
const LATE_NUMBERS = 2;

export interface Shape {
  readonly ordinals: number;
  readonly passes: number;
  readonly late: number;
}

/** How many numbers a state is. */
export function widthOf({ ordinals, passes, late }: Shape): number {
  return 3 + ordinals + passes * PASS_NUMBERS + late * LATE_NUMBERS;
}

/** Which of two passes is the first does not matter, nor the order of late calls: they are written in the order of their numbers. */
export function encode(state: State, { ordinals, passes }: Shape, to: Int32Array): void {
  to.fill(0);
  to[0] = state.pool;
  to[1] = state.claim;
  to[2] = state.memory;
  for (let ordinal = 0; ordinal < ordinals; ordinal += 1) to[3 + ordinal] = machineAt(state, ordinal);
  const ofPasses = inOrder(state.passes.map(passNumbers));
  for (const [index, numbers] of ofPasses.entries()) to.set(numbers, 3 + ordinals + index * PASS_NUMBERS);
  const start = 3 + ordinals + passes * PASS_NUMBERS;
  const ofLate = inOrder(state.late.map(lateNumbers));
  for (const [index, numbers] of ofLate.entries()) to.set(numbers, start + index * LATE_NUMBERS);
}

function inOrder(lists: number[][]): number[][] {
  return lists.length < 2 ? lists : lists.sort(compareNumbers);
}

function compareNumbers(a: readonly number[], b: readonly number[]): number {
  for (let index = 0; index < a.length; index += 1) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function passNumbers(pass: Pass): number[] {
  const { phase, wide, age, readAge, claimFresh, specFresh, alone, closing, failed, own, tainted } = pass;
  const flags =
    phase |
    (wide << 2) |
    (age << 3) |
    (readAge << 4) |
    (claimFresh << 5) |
    (specFresh << 6) |
    (alone << 7) |
    (closing << 8) |
    (failed << 9) |
    (own << 10) |
    (tainted << (10 + ORDINALS_MAX));
  // The last bit tells a pass from none.
  return [
    flags | (1 << 30),
    windowNumber(pass.window),
    pass.phase === PHASE.acts ? pass.script : pass.pool,
    pass.claim,
    pass.memory,
  ];
}

function windowNumber({ most, least, templates, lost, fell, left }: Window): number {
  return most | (least << 3) | (templates << 6) | (lost << 8) | (fell << 11) | (left << (11 + ORDINALS_MAX));
}

function windowFrom(number: number): Window {
  return {
    most: number & 7,
    least: (number >> 3) & 7,
    templates: (number >> 6) & 3,
    lost: (number >> 8) & 7,
    fell: (number >> 11) & MASK,
    left: (number >> (11 + ORDINALS_MAX)) & MASK,
  };
}

function lateNumbers({ kind, ordinal, template, age, readAge, window }: Late): number[] {
  return [kind | (ordinal << 3) | (template << 6) | (age << 7) | (readAge << 8) | (1 << 30), windowNumber(window)];
}

export function decode(from: Int32Array, { ordinals, passes, late }: Shape): State {
  const at = (index: number) => from[index] ?? 0;
  const state: State = { pool: at(0), claim: at(1), memory: at(2), machines: [], passes: [], late: [] };
  for (let ordinal = 0; ordinal < ordinals; ordinal += 1) state.machines.push(at(3 + ordinal));
  const readPasses: Pass[] = [];
  for (let index = 0; index < passes; index += 1) {
    const start = 3 + ordinals + index * PASS_NUMBERS;
    const flags = at(start);
    if (flags !== 0) readPasses.push(passFrom(flags, [at(start + 1), at(start + 2), at(start + 3), at(start + 4)]));
  }
  const readLate: Late[] = [];
  for (let index = 0; index < late; index += 1) {
    const start = 3 + ordinals + passes * PASS_NUMBERS + index * LATE_NUMBERS;
    const flags = at(start);
    if (flags !== 0) readLate.push(lateFrom(flags, at(start + 1)));
  }
  return { ...state, passes: readPasses, late: readLate };
}

function passFrom(flags: number, [window, read, claim, memory]: readonly [number, number, number, number]): Pass {
  const phase = flags & 3;
  return {
    phase,
    wide: (flags >> 2) & 1,
    age: (flags >> 3) & 1,
    readAge: (flags >> 4) & 1,
    claimFresh: (flags >> 5) & 1,
    specFresh: (flags >> 6) & 1,
    alone: (flags >> 7) & 1,
    closing: (flags >> 8) & 1,
    failed: (flags >> 9) & 1,
    own: (flags >> 10) & MASK,
    tainted: (flags >> (10 + ORDINALS_MAX)) & MASK,
    window: windowFrom(window),
    pool: phase === PHASE.acts ? 0 : read,
    script: phase === PHASE.acts ? read : 0,
    claim,
    memory,
  };
}

function lateFrom(flags: number, window: number): Late {
  return {
    kind: flags & 7,
    ordinal: (flags >> 3) & 7,
    template: (flags >> 6) & 1,
    age: (flags >> 7) & 1,
    readAge: (flags >> 8) & 1,
    window: windowFrom(window),
  };
}
