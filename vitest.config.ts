/** Two projects: `unit` needs nothing but Node, `real` starts real control planes and takes minutes. */
import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      {
        test: {
          name: "unit",
          include: [
            "test/{planning,functions,events,runtime,local,cli,packaging,sabotage,search,simulation,hostile}/**/*.test.ts",
          ],
          exclude: ["**/*.real.test.ts"],
          testTimeout: 60_000,
        },
      },
      {
        test: {
          name: "real",
          include: [
            "test/{aws,control-plane,stand-in,clusters,end-to-end}/**/*.test.ts",
            "test/simulation/**/*.real.test.ts",
          ],
          globalSetup: ["test/support/real-setup.ts"],
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
