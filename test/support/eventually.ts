/** Waits for what comes about by itself. The limit is a bound for a test that hangs, nothing that is measured. */
import { vi } from "vitest";

const LIMIT_MS = 120_000;
const POLL_MS = 300;

/** Repeats the assertions until they hold; what they return then. */
export function eventually<T>(assertions: () => Promise<T> | T): Promise<T> {
  return vi.waitFor(assertions, { timeout: LIMIT_MS, interval: POLL_MS });
}
