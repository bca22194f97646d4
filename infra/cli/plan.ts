/** `npm run pool -- plan`: what the next pass would do to a pool, as it is or as a manifest says. Sends no write. */

import type { ServerAccess } from "../../shared/clusters/access.ts";
import { type ApiFailure, type Cluster, createCluster, poolsOf } from "../../shared/clusters/cluster.ts";
import type { Connection } from "../../shared/clusters/connection.ts";
import { foresee, formatPlan, readsOnly } from "../../shared/clusters/foresee.ts";
import type { Look, PoolPlace } from "../../shared/clusters/observe.ts";
import { POOL_GROUP } from "../../shared/planning/names.ts";
import { judgeReview } from "../../shared/planning/review.ts";
import { CommandError } from "./errors.ts";
import { type Forecast, formatForecast } from "./forecast.ts";
import { editPool, notesOf, type PoolManifest, readPools } from "./manifest.ts";
import type { PlanOptions } from "./plan-options.ts";

/** For the whole command. */
const TIMEOUT_MS = 60_000;

export interface PlanDeps {
  readonly access: ServerAccess;
  /** The namespace that the context works in. */
  readonly contextNamespace: string | undefined;
  readonly connect: (access: ServerAccess) => Connection;
  /** The text of a file, or of standard input for `-`. */
  readonly readText: (file: string) => Promise<string>;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

export interface PlanOutcome {
  readonly stdout: string;
  /** One line for each pool that could not be planned. */
  readonly errors: readonly string[];
  readonly exitCode: number;
}

/** One pool to be planned: as it is, or as a manifest has it. */
interface Wanted {
  readonly place: PoolPlace;
  readonly manifest: PoolManifest | undefined;
}

/** Plans every pool that is asked for; one that cannot be planned does not keep the others from it. */
export async function runPlan(options: PlanOptions, deps: PlanDeps): Promise<PlanOutcome> {
  const wanted = await choosePools(options, deps);
  const connection = deps.connect(deps.access);
  const cluster = createCluster({
    transport: readsOnly(connection.send),
    meter: { requests: 0, writes: 0, bytes: 0 },
    deadline: AbortSignal.timeout(TIMEOUT_MS),
    cache: { poolVersion: undefined },
  });
  const forecasts: Forecast[] = [];
  const errors: string[] = [];
  try {
    for (const one of wanted) {
      const result = await forecast(one, { cluster, server: deps.access.server, now: deps.now });
      if (typeof result === "string") errors.push(result);
      else forecasts.push(result);
    }
  } finally {
    await connection.close();
  }
  return { stdout: format(forecasts, options), errors, exitCode: exitCodeOf(forecasts, errors) };
}

/** From the command line, else from the manifest, else from the context. */
async function choosePools(options: PlanOptions, deps: PlanDeps): Promise<readonly Wanted[]> {
  const { name, namespace, file } = options;
  const fallback = namespace ?? deps.contextNamespace ?? "default";
  if (file === undefined) return [{ place: { namespace: fallback, name: name ?? "" }, manifest: undefined }];
  const source = file === "-" ? "standard input" : file;
  const all = readPools(await deps.readText(file), source).map((manifest) => ({
    place: { namespace: manifest.namespace ?? fallback, name: manifest.name },
    manifest,
  }));
  const chosen = all.filter(
    ({ place }) =>
      (name === undefined || place.name === name) && (namespace === undefined || place.namespace === namespace),
  );
  if (chosen.length === all.length || (name !== undefined && chosen.length > 0)) return chosen;
  const held = all.map(({ place }) => `${place.namespace}/${place.name}`).join(", ");
  const asked = name === undefined ? `namespace ${namespace}` : `${namespace ?? fallback}/${name}`;
  throw new CommandError(`${source} holds ${held}, while ${asked} was asked for`);
}

interface Reach {
  readonly cluster: Cluster;
  readonly server: string;
  readonly now: () => number;
}

/** What is foreseen, or why nothing can be. */
async function forecast({ place, manifest }: Wanted, reach: Reach): Promise<Forecast | string> {
  const { cluster, server, now } = reach;
  if (manifest !== undefined) return forecastEdited(place, manifest, reach);
  const look = await foresee(cluster, place, now);
  if (look.kind === "gone") return `there is no pool ${place.namespace}/${place.name} in ${server}`;
  return forecastOf(look, { place, edit: undefined, notes: [] });
}

async function forecastEdited(place: PoolPlace, manifest: PoolManifest, reach: Reach): Promise<Forecast | string> {
  const { cluster, now } = reach;
  const version = await cluster.poolVersion();
  if (!version.ok) return describeUnreadable(place, { what: "API discovery", failure: version.failure });
  const live = await cluster.get(poolsOf(version.value), place);
  if (!live.ok && live.failure.kind !== "notFound") {
    return describeUnreadable(place, { what: "the pool", failure: live.failure });
  }
  const before = live.ok ? live.value : undefined;
  const edited = editPool(manifest, { namespace: place.namespace, live: before });
  if (edited === undefined) return `${place.namespace}/${place.name}: its metadata are not what the API promises`;
  const edit = live.ok ? "edited" : "created";
  const { refusal } = judgeReview(edited, before);
  if (refusal !== undefined) return { kind: "illegal", place, edit, problems: refusal.causes };
  const pool = { ok: true, value: edited, serverTimeMs: live.ok ? live.serverTimeMs : undefined } as const;
  const look = await foresee(
    { ...cluster, get: async (type, at) => (type.group === POOL_GROUP ? pool : cluster.get(type, at)) },
    place,
    now,
  );
  return forecastOf(look, { place, edit, notes: notesOf(manifest, before) });
}

type Said = Pick<Forecast, "place" | "edit"> & { readonly notes: readonly string[] };

function forecastOf(look: Look, { place, edit, notes }: Said): Forecast | string {
  if (look.kind === "unreadable") return describeUnreadable(place, look);
  if (look.kind === "gone") return `${place.namespace}/${place.name} was deleted meanwhile`;
  const { seen, plan } = look;
  const { problems, actions, reasons } = formatPlan(seen, plan);
  if (problems.length > 0) return { kind: "illegal", place, edit, problems };
  return { kind: "planned", place, edit, seen, members: plan.members, actions, reasons, notes };
}

function describeUnreadable(
  { namespace, name }: PoolPlace,
  { what, failure }: { readonly what: string; readonly failure: ApiFailure },
): string {
  return `${namespace}/${name} cannot be planned: ${what} cannot be read: ${failure.message}`;
}

/** One pool of the command line is one object; the pools of a manifest with several are a list, as with kubectl. */
function format(forecasts: readonly Forecast[], { output }: PlanOptions): string {
  const [first, ...rest] = forecasts;
  if (first === undefined) return "";
  const formatted = forecasts.map(formatForecast);
  if (output === "text") return formatted.map(({ text }) => text).join("\n");
  const items = formatted.map(({ json }) => json);
  return `${JSON.stringify(rest.length === 0 ? items[0] : { items }, null, 2)}\n`;
}

function exitCodeOf(forecasts: readonly Forecast[], errors: readonly string[]): number {
  if (errors.length > 0 || forecasts.some(({ kind }) => kind === "illegal")) return 2;
  return forecasts.some((one) => one.kind === "planned" && one.actions.length > 0) ? 1 : 0;
}
