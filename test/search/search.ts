/**
 * Explores every state that a beginning leads to, the nearest first, and keeps each once. A broken invariant is told by the shortest
 * way to it. Of every state in which no pass runs and nothing is under way it then sees to it that undisturbed passes lead from
 * there to what the users asked for, and rest.
 */
import { createPlanner } from "./planner.ts";
import { decode, encode, type State, widthOf } from "./state.ts";
import { createTransitions, type Rules, type Transitions, Violation } from "./transitions.ts";

export interface SearchLimits {
  readonly statesMax: number;
  readonly millisecondsMax: number;
}

export interface Progress {
  readonly states: number;
  readonly transitions: number;
  readonly depth: number;
  /** States that are not yet expanded. */
  readonly open: number;
}

export interface SearchResult extends Progress {
  /** The way to what is wrong, and what that is. */
  readonly failure: readonly string[] | undefined;
  /** Every state was expanded. */
  readonly complete: boolean;
  /** Observations whose plans needed more ordinals than the search has: such passes were not followed. */
  readonly cut: number;
  /** Observations that were planned. */
  readonly planned: number;
  /** States at rest, from each of which undisturbed passes were run. */
  readonly converged: number;
}

const ROUNDS_MAX = 24;
const PROGRESS_EVERY = 20_000;

export function search(
  rules: Rules,
  { statesMax, millisecondsMax }: SearchLimits,
  onProgress: (progress: Progress) => void = () => {},
): SearchResult {
  const planner = createPlanner(rules);
  const transitions = createTransitions(rules, planner);
  const store = createStore(widthOf(rules));
  const scratch = new Int32Array(widthOf(rules));
  const convergence = createConvergence(rules, transitions);
  const startedAt = performance.now();
  let taken = 0;
  let depth = 0;
  let levelEnds = 1;
  let expanded = 0;
  add(transitions.initial, -1);

  for (; expanded < store.count(); expanded += 1) {
    if (expanded === levelEnds) {
      depth += 1;
      levelEnds = store.count();
    }
    if (expanded % PROGRESS_EVERY === 0) {
      onProgress(progress());
      if (performance.now() - startedAt > millisecondsMax) break;
    }
    if (store.count() >= statesMax) break;
    const failure = expand(expanded);
    if (failure !== undefined) return result(failure);
  }
  return result(undefined);

  function expand(from: number): readonly string[] | undefined {
    const state = decode(store.read(from), rules);
    let last = "";
    try {
      transitions.expand(state, (label, next) => {
        taken += 1;
        last = label;
        add(next, from);
      });
      if (state.passes.length === 0 && state.late.length === 0) convergence.check(state);
      return undefined;
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      const seen = error instanceof Violation ? [] : [error instanceof Error ? String(error.stack) : ""];
      return [...wayTo(from), `what comes after "${last}": ${message}`, ...seen, describeState(state)];
    }
  }

  function add(state: State, parent: number): void {
    encode(state, rules, scratch);
    store.add(scratch, parent);
  }

  /** The labels are found again by taking each step of the way once more. */
  function wayTo(position: number): readonly string[] {
    const positions: number[] = [];
    for (let at = position; at >= 0; at = store.parent(at)) positions.unshift(at);
    return positions.slice(1).map((at, index) => {
      const target = store.read(at).join(" ");
      let found = "?";
      try {
        transitions.expand(decode(store.read(positions[index] ?? 0), rules), (label, next) => {
          encode(next, rules, scratch);
          if (found === "?" && scratch.join(" ") === target) found = label;
        });
      } catch {
        // A step of the same state that breaks an invariant is not on this way.
      }
      return found;
    });
  }

  function progress(): Progress {
    return { states: store.count(), transitions: taken, depth, open: store.count() - expanded };
  }

  function result(failure: readonly string[] | undefined): SearchResult {
    const complete = failure === undefined && expanded === store.count();
    return {
      ...progress(),
      failure,
      complete,
      cut: planner.cut(),
      planned: planner.planned(),
      converged: convergence.checked(),
    };
  }
}

// --- convergence

interface Convergence {
  check(state: State): void;
  readonly checked: () => number;
}

/**
 * Runs undisturbed passes, a tick after each, in two ways: KubeVirt is quicker than every pass, and slower. What leads to a state
 * that is known to converge converges, so every state is run from once.
 */
function createConvergence(rules: Rules, { passAlone, settle, tick, mismatch }: Transitions): Convergence {
  const scratch = new Int32Array(widthOf(rules));
  const known = [new Set<string>(), new Set<string>()] as const;
  let checked = 0;
  return {
    checked: () => checked,
    check(state) {
      checked += 1;
      for (const isQuick of [true, false]) run(state, isQuick);
    },
  };

  function run(state: State, isQuick: boolean): void {
    const converging = isQuick ? known[0] : known[1];
    const way: string[] = [];
    const told: string[] = [];
    let now = state;
    for (let rounds = 0; rounds <= ROUNDS_MAX; rounds += 1) {
      const key = keyOf(now);
      if (converging.has(key)) break;
      way.push(key);
      if (mismatch(now) === undefined) {
        rest(now);
        break;
      }
      if (rounds === ROUNDS_MAX) {
        throw new Violation(
          `after ${ROUNDS_MAX} undisturbed rounds ${mismatch(now)} (invariant 9): ${told.slice(-30).join("; ")} | ${describeState(now)}`,
        );
      }
      const next = round(now, isQuick, told);
      if (next === undefined) return;
      now = next;
    }
    for (const key of way) converging.add(key);
  }

  function round(state: State, isQuick: boolean, told: string[]): State | undefined {
    const before = isQuick ? settle(state) : state;
    const passed = before.pool === 0 ? before : passAlone(before, (label) => void told.push(label));
    if (passed === undefined) return undefined;
    told.push("a tick passes");
    return isQuick ? tick(passed) : settle(tick(passed));
  }

  /** Invariant 8: a pass reads and plans, and writes nothing. */
  function rest(state: State): void {
    if (state.pool === 0) return;
    const labels: string[] = [];
    passAlone(state, (label) => void labels.push(label));
    if (labels.length > 1)
      throw new Violation(`a pass writes though the pool is settled (invariant 8): ${labels.join("; ")}`);
  }

  function keyOf(state: State): string {
    encode(state, rules, scratch);
    return String.fromCharCode(...new Uint16Array(scratch.buffer));
  }
}

function describeState({ pool, claim, memory, machines, passes, late }: State): string {
  const hex = (numbers: readonly number[]) => numbers.map((number) => number.toString(16)).join(" ");
  return `pool ${hex([pool])}, claim ${hex([claim])}, memory ${hex([memory])}, machines ${hex(machines)}, ${JSON.stringify({ passes, late })}`;
}

// --- the store

interface Store {
  /** False when it is there already. */
  add(numbers: Int32Array, parent: number): boolean;
  read(position: number): Int32Array;
  parent(position: number): number;
  readonly count: () => number;
}

const CHUNK = 1 << 16;

/** States as rows of numbers in the order in which they were found, and a table that finds a row again. */
function createStore(width: number): Store {
  const rows: Int32Array[] = [];
  const parents: Int32Array[] = [];
  let table = new Int32Array(1 << 16).fill(-1);
  let count = 0;
  return {
    add,
    read,
    parent: (position) => parents[position >> 16]?.[position & (CHUNK - 1)] ?? -1,
    count: () => count,
  };

  function read(position: number): Int32Array {
    const start = (position & (CHUNK - 1)) * width;
    return (rows[position >> 16] ?? new Int32Array(0)).subarray(start, start + width);
  }

  function add(numbers: Int32Array, parent: number): boolean {
    if (count * 2 >= table.length) grow();
    const slot = find(numbers);
    if ((table[slot] ?? -1) >= 0) return false;
    if ((count & (CHUNK - 1)) === 0) {
      rows.push(new Int32Array(CHUNK * width));
      parents.push(new Int32Array(CHUNK));
    }
    rows[count >> 16]?.set(numbers, (count & (CHUNK - 1)) * width);
    parents[count >> 16]?.fill(parent, count & (CHUNK - 1), (count & (CHUNK - 1)) + 1);
    table[slot] = count;
    count += 1;
    return true;
  }

  /** The place of a row in the table, or where it belongs. */
  function find(numbers: Int32Array): number {
    const mask = table.length - 1;
    for (let slot = hash(numbers) & mask; ; slot = (slot + 1) & mask) {
      const position = table[slot] ?? -1;
      if (position < 0 || isRow(position, numbers)) return slot;
    }
  }

  function isRow(position: number, numbers: Int32Array): boolean {
    const chunk = rows[position >> 16];
    const start = (position & (CHUNK - 1)) * width;
    for (let index = 0; index < width; index += 1) if (chunk?.[start + index] !== numbers[index]) return false;
    return true;
  }

  function grow(): void {
    table = new Int32Array(table.length * 2).fill(-1);
    const mask = table.length - 1;
    for (let position = 0; position < count; position += 1) {
      let slot = hash(read(position)) & mask;
      while ((table[slot] ?? -1) >= 0) slot = (slot + 1) & mask;
      table[slot] = position;
    }
  }
}

function hash(numbers: Int32Array): number {
  let value = 0x811c9dc5;
  for (const number of numbers) {
    value = Math.imul(value ^ number, 0x9e3779b1);
    value ^= value >>> 15;
  }
  value = Math.imul(value, 0x85ebca6b);
  return (value ^ (value >>> 13)) >>> 0;
}
