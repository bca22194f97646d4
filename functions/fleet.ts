/** What every pool is, wants, and would do next, as JSON over HTTP. Reads clusters, writes to none. */
import { type ApiFailure, type Cluster, createCluster } from "../shared/clusters/cluster.ts";
import { createDirectory, type Directory, type ReachableCluster } from "../shared/clusters/directory.ts";
import { foresee, formatMembers, formatPlan, readsOnly } from "../shared/clusters/foresee.ts";
import { statusOfFailure } from "../shared/clusters/kubernetes-status.ts";
import type { Look, PoolPlace } from "../shared/clusters/observe.ts";
import { conditionsOf, listPools, type PoolSummary, summarize } from "../shared/clusters/pool-summary.ts";
import { redact } from "../shared/clusters/redact.ts";
import { openRegistry } from "../shared/clusters/registry.ts";
import { parsePool } from "../shared/planning/model.ts";
import { OBJECT_NAME } from "../shared/planning/names.ts";
import { fleetConfigSchema, readConfig } from "../shared/runtime/config.ts";
import { type HttpAnswer, type HttpEvent, httpEventSchema, json, problem } from "../shared/runtime/http.ts";
import { createLogger, describeError, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { byPosition, type Page, readPage, writeToken } from "../shared/runtime/pages.ts";
import { createStack } from "../shared/runtime/stack.ts";

const TIME_RESERVE_MS = 3_000;
/** A cluster that takes the connection and does not answer is given up after this long, so that the others can be shown. */
const CLUSTER_TIME_MAX_MS = 8_000;

export interface FleetDeps {
  readonly directory: Directory;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly logger: Logger;
}

/** Makes the handler. `deps` is called at the first event, so that importing a function reads no environment. */
export function createFleet(deps: () => FleetDeps) {
  return createStack(
    { name: "fleet", event: httpEventSchema, logger: () => deps().logger },
    async (event, context): Promise<HttpAnswer> => {
      const deadline = AbortSignal.timeout(Math.max(1, context.getRemainingTimeInMillis() - TIME_RESERVE_MS));
      try {
        return await answer(event, { deps: deps(), deadline });
      } catch (error) {
        deps().logger.error("function failed", { function: "fleet", ...describeError(error) });
        return problem(500, "the pools could not be read: the function's log says why");
      }
    },
  );
}

/** One invocation. */
interface Call {
  readonly deps: FleetDeps;
  readonly deadline: AbortSignal;
}

async function answer(event: HttpEvent, call: Call): Promise<HttpAnswer> {
  const { http, authorizer } = event.requestContext;
  // Nothing that the client itself sent counts; a route without an authorizer shows nothing.
  if (authorizer === undefined)
    return problem(401, "no authorizer of the gateway has let this request in", { "www-authenticate": "Bearer" });
  if (http.method !== "GET") return problem(405, "pools are only read here", { allow: "GET" });
  const { cluster, namespace, name } = event.pathParameters ?? {};
  if (cluster === undefined || namespace === undefined || name === undefined) return showAll(event, call);
  return showOne(cluster, { namespace, name }, call);
}

/** What could be read of one cluster. */
type ClusterView =
  | { readonly name: string; readonly pools: readonly PoolSummary[]; readonly failure?: undefined }
  | { readonly name: string; readonly failure: Pick<ApiFailure, "kind" | "message"> };

/** One page of all pools. Clusters are asked at the same time: none waits for another. */
async function showAll({ rawQueryString }: HttpEvent, call: Call): Promise<HttpAnswer> {
  const page = readPage(rawQueryString);
  if (typeof page === "string") return problem(400, page);
  const names = (await call.deps.directory.names()).filter((name) => name >= (page.after?.cluster ?? ""));
  const views = await Promise.all(names.map((name) => viewCluster(name, call)));
  return json(200, formatPage(views, page), { "cache-control": "no-store" });
}

function formatPage(views: readonly ClusterView[], { after, limit }: Page) {
  const found = views
    .flatMap((view) => (view.failure === undefined ? view.pools.map((pool) => ({ cluster: view.name, ...pool })) : []))
    .filter((pool) => after === undefined || byPosition(pool, after) > 0)
    .toSorted(byPosition);
  const pools = found.slice(0, limit);
  const last = pools.at(-1);
  const unreachable = views.flatMap(({ name, failure }) =>
    failure === undefined ? [] : [{ cluster: name, reason: failure.kind, message: failure.message }],
  );
  return { pools, unreachable, ...(last === undefined || found.length <= limit ? {} : { continue: writeToken(last) }) };
}

async function viewCluster(name: string, call: Call): Promise<ClusterView> {
  const { directory, logger } = call.deps;
  try {
    const found = await directory.find(name);
    if (found === undefined) return { name, pools: [] };
    const deadline = AbortSignal.any([call.deadline, AbortSignal.timeout(CLUSTER_TIME_MAX_MS)]);
    const listed = await listPools(open(found, deadline), found.access.namespaces);
    if (listed.ok) return { name, pools: listed.value.flatMap(toSummary) };
    noteFailure(name, listed.failure, call);
    return { name, failure: listed.failure };
  } catch (error) {
    logger.error("cluster cannot be read", { cluster: name, ...describeError(error) });
    return { name, failure: { kind: "unreachable", message: "its registration cannot be used: the log says why" } };
  }
}

/** What is no pool is left out: the pass says so, loudly. */
function toSummary(object: unknown): readonly PoolSummary[] {
  const pool = parsePool(object);
  return pool === undefined ? [] : [summarize(pool)];
}

async function showOne(clusterName: string, place: PoolPlace, call: Call): Promise<HttpAnswer> {
  const found = await call.deps.directory.find(clusterName);
  if (found === undefined) return problem(404, `no cluster "${clusterName.slice(0, 63)}" is registered`);
  if (!OBJECT_NAME.test(place.namespace) || !OBJECT_NAME.test(place.name)) {
    return problem(404, "namespace and pool have to be names that Kubernetes allows");
  }
  const { namespaces } = found.access;
  if (namespaces !== undefined && !namespaces.includes(place.namespace)) {
    return problem(403, `namespace "${place.namespace}" of cluster "${clusterName}" is not served`);
  }
  const look = await foresee(open(found, call.deadline), place, call.deps.now);
  switch (look.kind) {
    case "gone":
      return problem(404, `cluster "${clusterName}" has no pool ${place.namespace}/${place.name}`);
    case "unreadable":
      return refuse(clusterName, look, call);
    case "planned":
      return json(200, formatPool(found, look), { "cache-control": "no-store" });
  }
}

/** The status of the cluster's own refusal, as `scale` passes it on. */
function refuse(cluster: string, { what, failure }: Extract<Look, { kind: "unreadable" }>, call: Call): HttpAnswer {
  noteFailure(cluster, failure, call);
  const { code, message } = statusOfFailure(failure);
  const seconds = Math.ceil((failure.retryAfterMs ?? 1_000) / 1_000);
  const isBusy = code === 429 || code === 503;
  return problem(code, `${what} cannot be read: ${message}`, isBusy ? { "retry-after": String(seconds) } : {});
}

function formatPool({ name, access }: ReachableCluster, { seen, plan }: Extract<Look, { kind: "planned" }>) {
  const { pool } = seen;
  const { replicas, readyReplicas, labelSelector } = pool.status ?? {};
  return {
    cluster: name,
    /** Whether passes do what they plan there. */
    mode: access.mode,
    ...summarize(pool),
    spec: redact(pool.spec),
    status: { replicas, readyReplicas, labelSelector, conditions: conditionsOf(pool) },
    members: formatMembers(plan),
    plan: formatPlan(seen, plan),
  };
}

function noteFailure(cluster: string, { kind, message }: ApiFailure, { deps }: Call): void {
  if (kind === "unauthorized") deps.directory.refuse(cluster);
  deps.logger.warn("cluster cannot be read", { cluster, kind, message });
}

function open({ connection, cache }: ReachableCluster, deadline: AbortSignal): Cluster {
  return createCluster({
    transport: readsOnly(connection.send),
    meter: { requests: 0, writes: 0, bytes: 0 },
    deadline,
    cache,
  });
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): FleetDeps {
  const config = readConfig(fleetConfigSchema);
  return {
    directory: createDirectory({ registry: openRegistry(config), now: Date.now }),
    now: Date.now,
    logger: createLogger("fleet"),
  };
}

export const handler = createFleet(once(productionDeps));
