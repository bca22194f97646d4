/** Makes a failing story shorter by leaving parts of it out. */

export interface Shrinking<T> {
  /** How many shorter stories are tried at most. */
  readonly attemptsMax: number;
  readonly fails: (candidate: readonly T[]) => Promise<boolean>;
}

/** The shortest story found that still fails: halves are left out first, single parts last. */
export async function shrink<T>(story: readonly T[], { attemptsMax, fails }: Shrinking<T>): Promise<readonly T[]> {
  let shortest = story;
  let attempts = 0;
  for (let size = Math.ceil(story.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2)) {
    for (let start = 0; start < shortest.length && attempts < attemptsMax; attempts += 1) {
      const candidate = shortest.toSpliced(start, size);
      if (await fails(candidate)) shortest = candidate;
      else start += size;
    }
  }
  return shortest;
}
