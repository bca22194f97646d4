/** Makes sure, once and with progress, that the programs of the control plane are there before tests start it. */
import { findBinaries } from "../../infra/local/control-plane/binaries.ts";
import { environment } from "../../shared/runtime/config.ts";

const PRINT_INTERVAL_MS = 15_000;

export async function setup(): Promise<void> {
  let printedAt = 0;
  await findBinaries({
    env: environment,
    signal: new AbortController().signal,
    onProgress: ({ step, phase, detail, elapsedMs }) => {
      if (phase === "going" && elapsedMs - printedAt < PRINT_INTERVAL_MS) return;
      printedAt = phase === "going" ? elapsedMs : 0;
      if (phase === "begun") return;
      process.stdout.write(`  ${step}: ${detail ?? phase} (${(elapsedMs / 1_000).toFixed(0)} s)\n`);
    },
  });
}
