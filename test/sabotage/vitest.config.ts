/** Runs one file of tests that needs nothing but Node, whichever project it is of. */
import { defineConfig } from "vitest/config";

export default defineConfig({ test: { include: ["test/**/*.test.ts"], maxWorkers: 1, testTimeout: 60_000 } });
