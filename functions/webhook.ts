/** The events webhook: verifies the sender, recognises the format, wakes pools. Never calls a cluster. */
import { createEntryCache, type EntryCache } from "../shared/clusters/entry-cache.ts";
import { type ClusterWebhook, openRegistry } from "../shared/clusters/registry.ts";
import { eventListSchema, readAuditEvent } from "../shared/events/audit.ts";
import { type Change, type Hint, hintsFor } from "../shared/events/changes.ts";
import { findCloudEvents, readCloudEvent } from "../shared/events/cloud-events.ts";
import { bearerTokenOf, isKnownSecret } from "../shared/events/signatures.ts";
import { createSqsWakeUps, type Outgoing, type WakeUps } from "../shared/events/wake-ups.ts";
import { parseJson } from "../shared/planning/json.ts";
import { readConfig, webhookConfigSchema } from "../shared/runtime/config.ts";
import { type HttpAnswer, httpEventSchema, json, problem, readBody } from "../shared/runtime/http.ts";
import { createLogger, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { createStack } from "../shared/runtime/stack.ts";

const AUDIT_BYTES_MAX = 3 * 1024 * 1024;
const EVENT_BYTES_MAX = 256 * 1024;
const ACCEPTED =
  "send a CloudEvent (binary, structured or batch) or a Kubernetes audit EventList of audit.k8s.io/v1, as JSON";

export interface WebhookDeps {
  /** Who may send events, by cluster. */
  readonly webhooks: EntryCache<ClusterWebhook | undefined>;
  readonly wakeUps: WakeUps;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly logger: Logger;
}

/** Makes the handler. `deps` is called at the first event, so that importing a function reads no environment. */
export function createWebhook(deps: () => WebhookDeps) {
  return createStack(
    { name: "webhook", event: httpEventSchema, logger: () => deps().logger },
    async (event): Promise<HttpAnswer> => {
      const cluster = event.pathParameters?.["cluster"] ?? "";
      const { webhooks, logger } = deps();
      if (!isKnownSecret(bearerTokenOf(event.headers["authorization"]), (await webhooks.find(cluster))?.bearer)) {
        webhooks.refuse(cluster);
        logger.warn("events were not authorized", { cluster: cluster.slice(0, 63) });
        return problem(401, "a bearer token of this cluster is needed", { "www-authenticate": "Bearer" });
      }
      const body = readBody(event, AUDIT_BYTES_MAX);
      if (body === undefined) return problem(413, `the body exceeds ${AUDIT_BYTES_MAX} bytes`);
      const recognised = recognise(event.headers, body);
      if (recognised === "tooLarge") return problem(413, `the body of a CloudEvent exceeds ${EVENT_BYTES_MAX} bytes`);
      if (recognised === undefined) return problem(400, `the format is not recognised: ${ACCEPTED}`);
      return wake(cluster, recognised, deps());
    },
  );
}

interface Recognised {
  readonly changes: readonly Change[];
  readonly bad: number;
}

/** One recogniser a format; undefined when none takes it. */
function recognise(headers: Readonly<Record<string, string>>, body: Buffer): Recognised | "tooLarge" | undefined {
  const text = body.toString("utf8");
  const cloudEvents = findCloudEvents(headers, text);
  if (cloudEvents !== undefined) {
    return body.length > EVENT_BYTES_MAX ? "tooLarge" : sortRead(cloudEvents.map(readCloudEvent));
  }
  const audit = eventListSchema.safeParse(parseJson(text));
  return audit.success ? sortRead(audit.data.items.map(readAuditEvent)) : undefined;
}

function sortRead(read: readonly (Change | "ignored" | "bad")[]): Recognised | undefined {
  const bad = read.filter((entry) => entry === "bad").length;
  // Nothing in it is what it says it is: the sender must hear of that.
  if (bad > 0 && bad === read.length) return undefined;
  return { changes: read.filter((entry) => typeof entry === "object"), bad };
}

async function wake(
  cluster: string,
  { changes, bad }: Recognised,
  { wakeUps, now, logger }: WebhookDeps,
): Promise<HttpAnswer> {
  const seenAtMs = now();
  const hints = uniqueHints(changes.flatMap(hintsFor));
  const outgoing = hints.map(
    ({ namespace, name, cause }): Outgoing => ({
      wakeUp: { version: 1, cluster, namespace, name, cause, attempt: 0 },
      seenAtMs,
    }),
  );
  const unsent = outgoing.length === 0 ? [] : await wakeUps.send("passes", outgoing);
  if (bad > 0) logger.warn("events could not be read", { cluster, bad });
  if (unsent.length === 0) return json(202, { woken: outgoing.length, unreadable: bad });
  logger.error("wake-ups could not be sent", { cluster, unsent: unsent.length });
  return problem(503, "the wake-ups could not be queued: send the same request again", { "retry-after": "1" });
}

/** A batch tells of one pool many times; one wake-up of each cause is enough. */
function uniqueHints(hints: readonly Hint[]): readonly Hint[] {
  return [...new Map(hints.map((hint) => [`${hint.namespace}/${hint.name}/${hint.cause}`, hint])).values()];
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): WebhookDeps {
  const config = readConfig(webhookConfigSchema);
  const registry = openRegistry(config);
  return {
    webhooks: createEntryCache((name) => registry.webhook(name), Date.now),
    wakeUps: createSqsWakeUps({ passes: config.PASSES_QUEUE_URL, late: config.LATE_QUEUE_URL }),
    now: Date.now,
    logger: createLogger("webhook"),
  };
}

export const handler = createWebhook(once(productionDeps));
