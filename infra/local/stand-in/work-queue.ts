/** A queue of keys for level-triggered work: one worker a key at a time, bounded concurrency, back-off for what fails. */

const BACKOFF_FIRST_MS = 100;
const BACKOFF_MAX_MS = 10_000;
const BACKOFF_DOUBLINGS_MAX = 16;

export interface WorkQueueOptions {
  readonly work: (key: string) => Promise<void>;
  /** Told of each failure; the key comes again after a pause that doubles. */
  readonly onError: (key: string, error: unknown) => void;
  readonly concurrencyMax: number;
}

export interface WorkQueue {
  /** Has the key worked on soon; several adds before that are one. */
  add(key: string): void;
  /** Adds the key later; of several times the earliest counts. */
  addAfter(key: string, delayMs: number): void;
  /** Takes no more work and waits for what is under way. */
  stop(): Promise<void>;
}

export function createWorkQueue(options: WorkQueueOptions): WorkQueue {
  const ready = new Set<string>();
  const running = new Map<string, Promise<void>>();
  const changedWhileRunning = new Set<string>();
  const timers = new Map<string, { readonly timer: NodeJS.Timeout; readonly dueAt: number }>();
  const failures = new Map<string, number>();
  let stopped = false;

  const add = (key: string) => {
    if (stopped) return;
    if (running.has(key)) changedWhileRunning.add(key);
    else ready.add(key);
    startWorkers();
  };
  const addAfter = (key: string, delayMs: number) => {
    const dueAt = performance.now() + delayMs;
    const present = timers.get(key);
    if (stopped || (present !== undefined && present.dueAt <= dueAt)) return;
    clearTimeout(present?.timer);
    const timer = setTimeout(() => {
      timers.delete(key);
      add(key);
    }, delayMs);
    timers.set(key, { timer, dueAt });
  };
  const startWorkers = () => {
    for (const key of ready) {
      if (stopped || running.size >= options.concurrencyMax) return;
      ready.delete(key);
      running.set(key, runOnce(key));
    }
  };
  const runOnce = async (key: string) => {
    try {
      await options.work(key);
      failures.delete(key);
    } catch (error) {
      if (!stopped) retryLater(key, error);
    }
    running.delete(key);
    if (changedWhileRunning.delete(key)) ready.add(key);
    startWorkers();
  };
  const retryLater = (key: string, error: unknown) => {
    options.onError(key, error);
    const count = failures.get(key) ?? 0;
    failures.set(key, count + 1);
    addAfter(key, Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** Math.min(count, BACKOFF_DOUBLINGS_MAX)));
  };
  return {
    add,
    addAfter,
    async stop() {
      stopped = true;
      for (const { timer } of timers.values()) clearTimeout(timer);
      timers.clear();
      ready.clear();
      await Promise.all(running.values());
    },
  };
}
