/** What is measured: how soon a change leads to a machine, and what passes cost. Each measurement makes pools of its own. */
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import type { EventsWorld } from "../support/events-world.ts";
import { parseList } from "../support/objects.ts";
import { aPool } from "../support/pool-manifests.ts";
import { untilQuiet } from "../support/until.ts";
import type { Namespace, SeenPass } from "../support/world.ts";

const POOL = "bench";
const POLL_MS = 100;
const LIMIT_MS = 300_000;

const GROWN_TO = [3, 100];
const SETTLED_MACHINES = 3;
const SETTLED_RUNS = 5;
/** What the logger adds to a line on AWS: time, service, identifiers of the request. */
const LOG_ENVELOPE_BYTES = 200;

export interface Row {
  readonly what: string;
  readonly value: string;
  readonly unit: string;
}

export interface Given {
  readonly world: EventsWorld;
  readonly onProgress: (step: string) => void;
}

/** The pools of all measurements, made in advance so that there is one wait for all of them. */
export interface Pools {
  readonly latency: readonly Namespace[];
  readonly settled: Namespace;
  readonly growing: readonly { readonly to: number; readonly namespace: Namespace }[];
}

/** Makes the pools and waits until nothing is under way. */
export async function preparePools({ world, onProgress }: Given, { runs }: { readonly runs: number }): Promise<Pools> {
  onProgress(`making ${runs + 1 + GROWN_TO.length} pools`);
  const latency: Namespace[] = [];
  for (let run = 0; run < runs; run += 1) latency.push(await aReadyPool(world, 0));
  const settled = await aReadyPool(world, SETTLED_MACHINES);
  const growing: { readonly to: number; readonly namespace: Namespace }[] = [];
  for (const to of GROWN_TO) growing.push({ to, namespace: await aReadyPool(world, 0) });
  onProgress("waiting until nothing is under way");
  await untilQuiet(world);
  return { latency, settled, growing };
}

/** From `kubectl scale` to the first machine, of pools about which nothing else goes on. */
export async function measureLatency({ world, onProgress }: Given, { latency }: Pools): Promise<readonly Row[]> {
  const sinceBegun: number[] = [];
  const sinceAnswered: number[] = [];
  for (const namespace of latency) {
    const { firstAt } = await followMachines(world, namespace);
    const begunAt = performance.now();
    await namespace.kubectl("scale", "vmpool", POOL, "--replicas=1");
    const answeredAt = performance.now();
    const createdAt = await firstAt;
    sinceBegun.push(createdAt - begunAt);
    sinceAnswered.push(createdAt - answeredAt);
    onProgress(`latency: ${sinceBegun.length} of ${latency.length}: ${shown(createdAt - begunAt)} ms`);
  }
  return [
    ...spread(`kubectl scale → first machine, ${latency.length} runs`, sinceBegun),
    ...spread("the same, from kubectl's end on", sinceAnswered),
  ];
}

/** What the passes of pools that grow from nothing cost, until ready and until nothing more comes by itself. */
export async function measureGrowth({ world, onProgress }: Given, { growing }: Pools): Promise<readonly Row[]> {
  const grown: {
    readonly title: string;
    readonly namespace: Namespace;
    readonly rows: readonly Row[];
    readonly from: number;
  }[] = [];
  for (const { to, namespace } of growing) {
    const title = `0 → ${to} machines`;
    const from = world.passes.length;
    const begunAt = performance.now();
    await namespace.kubectl("scale", "vmpool", POOL, `--replicas=${to}`);
    onProgress(`${title}: waiting for the machines`);
    await until(async () => (await namespace.machines()).length === to);
    const createdMs = performance.now() - begunAt;
    await until(async () => (await namespace.pool(POOL))?.status?.readyReplicas === to);
    const readyMs = performance.now() - begunAt;
    const passes = passesOf(world, namespace, from);
    const rows = [
      { what: `${title}: all created after`, value: shown(createdMs), unit: "ms" },
      { what: `${title}: status says all ready after`, value: shown(readyMs), unit: "ms" },
      ...cost(
        `${title}, the passes that acted`,
        passes.filter(({ result }) => Object.keys(result.actions).length > 0),
      ),
      ...cost(`${title}, until ready`, passes),
    ];
    grown.push({ title, namespace, rows, from });
  }
  onProgress("waiting until nothing is under way");
  await untilQuiet(world);
  return grown.flatMap(({ title, namespace, rows, from }) => [
    ...rows,
    ...cost(`${title}, until nothing comes any more`, passesOf(world, namespace, from)),
  ]);
}

/** What one change to a settled pool costs in all, on average: what AWS would bill, and what the cluster does. */
export async function measureChanges(
  { world, onProgress }: Given,
  { settled }: Pools,
  changes: number,
): Promise<readonly Row[]> {
  const before = billed(world);
  for (let change = 0; change < changes; change += 1) {
    const replicas = SETTLED_MACHINES + ((change + 1) % 2);
    await settled.kubectl("scale", "vmpool", POOL, `--replicas=${replicas}`);
    await until(async () => (await settled.pool(POOL))?.status?.readyReplicas === replicas);
    onProgress(`changes: ${change + 1} of ${changes}, waiting until nothing is under way`);
    await untilQuiet(world);
  }
  const after = billed(world);
  return [...after].map(([what, count]) => ({
    what: `one change of ${changes} (3 → 4, 4 → 3): ${what}`,
    value: ((count - (before.get(what) ?? 0)) / changes).toFixed(1),
    unit: "",
  }));
}

/** By kind, since the functions began to serve. */
function billed({ calls, usage, passes, logged }: EventsWorld): ReadonlyMap<string, number> {
  const lines = logged.filter(({ level }) => level !== "debug");
  return new Map([
    ["requests to webhook (audit)", calls.get("webhook") ?? 0],
    ["requests to admission", calls.get("admission") ?? 0],
    ["requests that send wake-ups", usage.sends],
    ["invocations of reconcile", usage.invocations.get("reconcile") ?? 0],
    ["facts and invocations of status", usage.invocations.get("status") ?? 0],
    ["passes", passes.length],
    ["API requests", passes.reduce((sum, { meter }) => sum + meter.requests, 0)],
    ["time of passes (ms)", passes.reduce((sum, { durationMs }) => sum + durationMs, 0)],
    ["lines of log", lines.length],
    ["bytes of log", lines.reduce((sum, line) => sum + JSON.stringify(line).length + LOG_ENVELOPE_BYTES, 0)],
  ]);
}

/** A pass that finds nothing to do: the median of some. */
export async function measureSettled({ world, onProgress }: Given, { settled }: Pools): Promise<readonly Row[]> {
  const looks = [
    { look: "narrow", kind: "vmpool", name: POOL, cause: "pool" },
    { look: "wide", kind: "vm", name: `${POOL}-0`, cause: "vm" },
  ];
  const rows: Row[] = [];
  for (const { look, kind, name, cause } of looks) {
    const passes: SeenPass[] = [];
    for (let run = 1; run <= SETTLED_RUNS; run += 1) {
      onProgress(`settled pass, ${look}: ${run} of ${SETTLED_RUNS}`);
      const from = world.passes.length;
      await settled.kubectl("annotate", kind, name, `example.com/run=${look}-${run}`, "--overwrite");
      passes.push(await until(async () => passesOf(world, settled, from).find((pass) => pass.cause === cause)));
    }
    const row = (what: string, unit: string, of: (pass: SeenPass) => number): Row => ({
      what: `settled pass of ${SETTLED_MACHINES}, ${look}: ${what}`,
      value: shown(medianOf(passes.map(of))),
      unit,
    });
    rows.push(
      row("API requests", "", ({ meter }) => meter.requests),
      row("writes", "", ({ meter }) => meter.writes),
      row("bytes", "B", ({ meter }) => meter.bytes),
      row("time", "ms", ({ durationMs }) => durationMs),
    );
  }
  return rows;
}

/** A pool of its own namespace whose status says that all is ready. */
async function aReadyPool(world: EventsWorld, replicas: number): Promise<Namespace> {
  const namespace = await world.aNamespace();
  await namespace.create(aPool(POOL, { replicas }));
  await until(async () => {
    const pool = await namespace.pool(POOL);
    return pool?.status?.readyReplicas === replicas && (await namespace.machines()).length === replicas;
  });
  return namespace;
}

const watchSchema = z.object({ type: z.string() });

interface Following {
  /** When the first machine was there, on the clock of `performance.now`. */
  readonly firstAt: Promise<number>;
}

/** Follows the machines from now on. */
async function followMachines({ connection }: EventsWorld, { name }: Namespace): Promise<Following> {
  const path = `/apis/kubevirt.io/v1/namespaces/${name}/virtualmachines`;
  const signal = AbortSignal.timeout(LIMIT_MS);
  const { resourceVersion } = parseList((await connection.send({ method: "GET", path, signal })).body);
  const follow = async () => {
    for await (const line of connection.watch(`${path}?watch=1&resourceVersion=${resourceVersion}`, signal)) {
      if (watchSchema.parse(line).type === "ADDED") return performance.now();
    }
    throw new Error(`the watch of ${name} ended before there was a machine`);
  };
  return { firstAt: follow() };
}

/** Asks until there is an answer. */
async function until<T>(ask: () => Promise<T | false | undefined>): Promise<T> {
  const giveUpAt = performance.now() + LIMIT_MS;
  while (performance.now() < giveUpAt) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    await sleep(POLL_MS);
  }
  throw new Error(`nothing came of it within ${LIMIT_MS / 1_000} s`);
}

function passesOf({ passes }: EventsWorld, { name }: Namespace, from: number): readonly SeenPass[] {
  return passes.slice(from).filter(({ pool }) => pool.namespace === name);
}

function cost(what: string, passes: readonly SeenPass[]): readonly Row[] {
  const sum = (of: (pass: SeenPass) => number) => shown(passes.reduce((total, pass) => total + of(pass), 0));
  return [
    { what: `${what}: passes`, value: String(passes.length), unit: "" },
    { what: `${what}: API requests`, value: sum(({ meter }) => meter.requests), unit: "" },
    { what: `${what}: writes`, value: sum(({ meter }) => meter.writes), unit: "" },
    { what: `${what}: bytes`, value: sum(({ meter }) => meter.bytes), unit: "B" },
    { what: `${what}: time`, value: sum(({ durationMs }) => durationMs), unit: "ms" },
  ];
}

function spread(what: string, values: readonly number[]): readonly Row[] {
  return [
    { what: `${what}: median`, value: shown(medianOf(values)), unit: "ms" },
    { what: `${what}: worst`, value: shown(Math.max(...values)), unit: "ms" },
  ];
}

function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? Number.NaN)) / 2;
}

function shown(value: number): string {
  return value.toFixed(0);
}
