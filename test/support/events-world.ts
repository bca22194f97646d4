/** A cluster whose API server tells the functions of changes, wired as `npm start` wires it; every part can be restarted on its own. */
import { removeWebhooks } from "../../infra/local/cluster.ts";
import { applyManifests } from "../../infra/local/control-plane/manifests.ts";
import { type LocalRuntime, startRuntime, type Usage } from "../../infra/local/runtime/runtime.ts";
import { json } from "../../shared/runtime/http.ts";
import { CLUSTER_NAME, type ClusterUse, registryOf, type SeenPass, seenPass, startTestCluster } from "./world.ts";

export interface FunctionsOptions {
  /** Between ticks of the schedule; 0 switches it off. */
  readonly resyncSeconds: number;
  /** Without, the functions hear of no change, as with `--no-webhooks`. */
  readonly webhooks?: boolean;
}

export interface EventsWorld extends ClusterUse {
  /** Passes of the functions, oldest first. */
  readonly passes: readonly SeenPass[];
  /** What the functions that serve now have used. */
  readonly usage: Usage;
  /** Requests that each function was called with from outside. */
  readonly calls: ReadonlyMap<string, number>;
  /** The functions serve from here on; those that ran before are stopped. */
  startFunctions(options: FunctionsOptions): Promise<void>;
  /** What waits in queues is lost, and so is what comes: it is taken and forgotten, or the API server would send it again for a minute. */
  stopFunctions(): Promise<void>;
  /** Applies the webhook configurations, or deletes them: what is left are audit events. */
  setAdmission(on: boolean): Promise<void>;
}

export interface EventsWorldOptions {
  /** Plays KubeVirt's part. */
  readonly standIn?: boolean;
  /** Hears of what takes its time. */
  readonly onProgress?: (step: string) => void;
}

/** Starts everything but the functions, in a temporary folder. */
export async function startEventsWorld({ standIn = true, onProgress }: EventsWorldOptions = {}): Promise<EventsWorld> {
  const cluster = await startTestCluster({ standIn, webhooks: true, ...(onProgress && { onProgress }) });
  const { cleanups, connection, events, functionsAccess, logger } = cluster;
  const signal = new AbortController().signal;
  const passes: SeenPass[] = [];
  const calls = new Map<string, number>();
  let functions: LocalRuntime | undefined;
  const stopFunctions = async () => {
    const forgetful = (functions?.eventRoutes ?? []).map((route) => ({ ...route, handle: async () => json(202, {}) }));
    events?.serve(forgetful);
    await functions?.stop();
    functions = undefined;
  };
  cleanups.push(stopFunctions);
  return {
    ...cluster,
    passes,
    calls,
    get usage() {
      if (functions === undefined) throw new Error("no functions serve");
      return functions.usage;
    },
    async startFunctions({ resyncSeconds, webhooks = true }) {
      await stopFunctions();
      functions = startRuntime({
        registry: registryOf({ [CLUSTER_NAME]: functionsAccess }, events?.webhook),
        deployment: CLUSTER_NAME,
        resyncSeconds,
        wakeEverything: !webhooks,
        logger,
        onPass: (...pass) => void passes.push(seenPass(...pass)),
      });
      if (!webhooks) return;
      events?.serve(
        functions.eventRoutes.map((route) => ({
          ...route,
          handle: (event, context) => {
            calls.set(route.functionName, (calls.get(route.functionName) ?? 0) + 1);
            return route.handle(event, context);
          },
        })),
      );
    },
    stopFunctions,
    setAdmission: (on) =>
      on ? applyManifests(connection, events?.manifests ?? [], { signal }) : removeWebhooks(connection, signal),
  };
}
