/** `npm run bench`: measures the functions on a real control plane over webhooks alone, and prints a table. Asserts nothing. */
import { availableParallelism, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { startEventsWorld } from "../support/events-world.ts";
import {
  measureChanges,
  measureGrowth,
  measureLatency,
  measureSettled,
  preparePools,
  type Row,
} from "./measurements.ts";
import { formatTable } from "./table.ts";

const RUNS_DEFAULT = 20;
const RUNS_MAX = 500;
const CHANGES = 10;
const HELP = `Usage: npm run bench -- [options]

Starts a local control plane, the stand-in for KubeVirt and the functions, woken by the API server
alone, and measures them. Takes about six minutes. Run it on a machine that does nothing else.

Options:
  --runs N    how often the latency is measured (default ${RUNS_DEFAULT})
  --help      show this
`;

process.exitCode = await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<number> {
  const options = readOptions(args);
  if (options === "help") {
    process.stdout.write(HELP);
    return 0;
  }
  if (options === undefined) {
    process.stderr.write(`--runs needs a whole number from 1 to ${RUNS_MAX}, and there is no other option\n`);
    return 2;
  }
  const startedAt = performance.now();
  const onProgress = (step: string) => {
    const seconds = ((performance.now() - startedAt) / 1_000).toFixed(0).padStart(4);
    process.stderr.write(`${seconds} s  ${step}\n`);
  };
  const world = await startEventsWorld({ onProgress });
  const end = () => void world.stop().finally(() => process.exit(130));
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, end);
  try {
    await world.startFunctions({ resyncSeconds: 0 });
    const given = { world, onProgress };
    const pools = await preparePools(given, options);
    const loadBefore = loadavg()[0];
    const rows: Row[] = [
      ...(await measureSettled(given, pools)),
      ...(await measureChanges(given, pools, CHANGES)),
      ...(await measureLatency(given, pools)),
      ...(await measureGrowth(given, pools)),
    ];
    const load = [loadBefore, loadavg()[0]].map((value) => value?.toFixed(1)).join(" → ");
    const machine = { what: `load of a minute on ${availableParallelism()} cores, begin → end`, value: load, unit: "" };
    process.stdout.write(formatTable([machine, ...rows]));
  } finally {
    await world.stop();
  }
  return 0;
}

function readOptions(args: readonly string[]): { readonly runs: number } | "help" | undefined {
  try {
    const options = {
      runs: { type: "string", default: String(RUNS_DEFAULT) },
      help: { type: "boolean", short: "h", default: false },
    } as const;
    const { values } = parseArgs({ args: [...args], strict: true, allowPositionals: false, options });
    if (values.help) return "help";
    const runs = /^\d{1,3}$/.test(values.runs) ? Number(values.runs) : 0;
    return runs >= 1 && runs <= RUNS_MAX ? { runs } : undefined;
  } catch {
    return undefined;
  }
}
