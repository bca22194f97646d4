/** The admission webhook: judges pools with the planner's own rules and wakes the pools that a reviewed change is about. Never calls a cluster. */
import { POOL_VERSIONS } from "../shared/clusters/cluster.ts";
import type { EntryCache } from "../shared/clusters/entry-cache.ts";
import { type ClusterWebhook, createSenderCache, openRegistry } from "../shared/clusters/registry.ts";
import {
  type AdmissionRequest,
  admissionReviewSchema,
  answerReview,
  changeOf,
} from "../shared/events/admission-review.ts";
import { CHECK_NOTICE, changedKind, checkPoolsIn, wakeUpsFor } from "../shared/events/changes.ts";
import { isKnownSecret } from "../shared/events/signatures.ts";
import { createSqsWakeUps, type WakeUps } from "../shared/events/wake-ups.ts";
import { parseJson } from "../shared/planning/json.ts";
import { CLUSTER_NAME } from "../shared/planning/names.ts";
import { judgeReview, type ReviewVerdict } from "../shared/planning/review.ts";
import { pathStep } from "../shared/planning/wording.ts";
import { admissionConfigSchema, readConfig } from "../shared/runtime/config.ts";
import { type HttpAnswer, httpEventSchema, json, problem, readBody } from "../shared/runtime/http.ts";
import { createLogger, describeError, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { createStack } from "../shared/runtime/stack.ts";

/** The API server's own limit of an object, with room for two of them. */
const BODY_BYTES_MAX = 3 * 1024 * 1024;
/** A notice precedes its write by an unknown time, so a later look follows the quick one. */
const QUEUES = ["passes", "late"] as const;

export interface AdmissionDeps {
  /** Who may send reviews, by cluster. */
  readonly webhooks: EntryCache<ClusterWebhook | undefined>;
  readonly wakeUps: WakeUps;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly logger: Logger;
}

/** Makes the handler. `deps` is called at the first event, so that importing a function reads no environment. */
export function createAdmission(deps: () => AdmissionDeps) {
  return createStack(
    { name: "admission", event: httpEventSchema, logger: () => deps().logger },
    async (event): Promise<HttpAnswer> => {
      const { cluster = "", token = "" } = event.pathParameters ?? {};
      if (!(await isSender(cluster, token, deps()))) {
        deps().logger.warn("admission review was not authorized", { cluster: cluster.slice(0, 63) });
        return problem(401, "the token in the path is not one of this cluster");
      }
      const body = readBody(event, BODY_BYTES_MAX);
      if (body === undefined) return problem(413, `the body exceeds ${BODY_BYTES_MAX} bytes`);
      const review = admissionReviewSchema.safeParse(parseJson(body.toString("utf8")));
      if (!review.success)
        return problem(400, "the body is not an AdmissionReview of admission.k8s.io/v1 with a request");
      const { request } = review.data;
      const verdict = judgeRequest(request);
      if (verdict.refusal === undefined) await wake(cluster, request, deps());
      return json(200, answerReview({ uid: request.uid, ...verdict }));
    },
  );
}

/** Before it refuses it reads the registration anew, once a minute at most: the token may be younger than what is kept. */
async function isSender(cluster: string, token: string, { webhooks }: AdmissionDeps): Promise<boolean> {
  // What is no name is registered nowhere, and is not looked up.
  if (!CLUSTER_NAME.test(cluster)) return false;
  if (isKnownSecret(token, (await webhooks.find(cluster))?.path)) return true;
  webhooks.refuse(cluster);
  return isKnownSecret(token, (await webhooks.find(cluster))?.path);
}

/** Only creates and updates of pools themselves are judged; everything else is a notice. */
function judgeRequest(request: AdmissionRequest): ReviewVerdict {
  const { resource, operation, object, oldObject, subResource } = request;
  const isPool = changedKind(resource.group, resource.resource) === "pool";
  if (!isPool || (subResource ?? "") !== "" || (operation !== "CREATE" && operation !== "UPDATE")) return {};
  if (!POOL_VERSIONS.some((version) => version === resource.version)) return refuseVersion(resource.version);
  return judgeReview(object, operation === "UPDATE" ? (oldObject ?? null) : undefined);
}

/** Pools of a version that is not known may mean anything: they are not let through unread. */
function refuseVersion(version: string): ReviewVerdict {
  const message = `expected resource version ${POOL_VERSIONS.join(" or ")}, but got ${pathStep(version)}: name only those in the webhook's rules`;
  return { refusal: { message, causes: [{ field: "apiVersion", message }] } };
}

/** Best effort: the write must not wait or fail for a hint; resync is its bound. */
async function wake(
  cluster: string,
  request: AdmissionRequest,
  { wakeUps, now, logger }: AdmissionDeps,
): Promise<void> {
  const change = changeOf(request);
  const outgoing = change === undefined ? [] : wakeUpsFor(cluster, [change], now());
  if (outgoing.length === 0) return;
  for (const pool of checkPoolsIn(outgoing)) logger.info(CHECK_NOTICE, { cluster, source: "admission", pool });
  try {
    const unsent = (await Promise.all(QUEUES.map((queue) => wakeUps.send(queue, outgoing)))).flat();
    if (unsent.length > 0) logger.error("wake-ups could not be sent", { cluster, unsent: unsent.length });
  } catch (error) {
    logger.error("wake-ups could not be sent", { cluster, ...describeError(error) });
  }
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): AdmissionDeps {
  const config = readConfig(admissionConfigSchema);
  const registry = openRegistry(config);
  return {
    webhooks: createSenderCache(registry, Date.now),
    wakeUps: createSqsWakeUps({ passes: config.PASSES_QUEUE_URL, late: config.LATE_QUEUE_URL }),
    now: Date.now,
    logger: createLogger("admission"),
  };
}

export const handler = createAdmission(once(productionDeps));
