/** Seeded random numbers: the one source of chance in the simulation, so that a seed is a whole story. */

export interface Random {
  /** An integer from 0 to `bound - 1`. */
  int(bound: number): number;
  chance(probability: number): boolean;
  /** Undefined only for an empty list. */
  pick<T>(list: readonly T[]): T | undefined;
  /** A value in the form of a UUID. */
  uuid(): string;
}

/** The same seed gives the same numbers (mulberry32). */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const int = (bound: number) => next() % bound;
  return {
    int,
    chance: (probability) => next() < probability * 2 ** 32,
    pick: (list) => (list.length === 0 ? undefined : list[int(list.length)]),
    uuid() {
      const hex = [next(), next(), next(), next()].map((word) => word.toString(16).padStart(8, "0")).join("");
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`;
    },
  };
}

/** Mixes two numbers into a seed. */
export function seedOf(a: number, b: number): number {
  return (Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x165667b1, 0xc2b2ae35)) >>> 0;
}
