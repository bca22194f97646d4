/** The events webhook: verifies the sender, recognises the format, wakes pools. Never calls a cluster. */
import { isAcceptedServer } from "../shared/clusters/access.ts";
import { createEntryCache, type EntryCache } from "../shared/clusters/entry-cache.ts";
import { lookupAllowed } from "../shared/clusters/lookup.ts";
import { type ClusterWebhook, createSenderCache, openRegistry, RegistryError } from "../shared/clusters/registry.ts";
import { eventListSchema, readAuditEvent } from "../shared/events/audit.ts";
import {
  CHECK_NOTICE,
  type Change,
  checkPoolsIn,
  type NoticeSource,
  type Reading,
  wakeUpsFor,
} from "../shared/events/changes.ts";
import { cloudEventMode, findCloudEvents, readCloudEvent } from "../shared/events/cloud-events.ts";
import {
  createKeyReader,
  type IssuerKeys,
  judgeToken,
  type KeyCache,
  type TokenVerdict,
} from "../shared/events/oidc.ts";
import { findPushed, readLogEntry } from "../shared/events/pub-sub.ts";
import { bearerTokenOf, isKnownSecret } from "../shared/events/signatures.ts";
import { isSigned, type SignedMessage } from "../shared/events/standard-webhooks.ts";
import { createSqsWakeUps, type WakeUps } from "../shared/events/wake-ups.ts";
import { parseJson } from "../shared/planning/json.ts";
import { CLUSTER_NAME } from "../shared/planning/names.ts";
import { readConfig, webhookConfigSchema } from "../shared/runtime/config.ts";
import { type HttpAnswer, httpEventSchema, json, problem, readBody } from "../shared/runtime/http.ts";
import { createLogger, describeError, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { createStack } from "../shared/runtime/stack.ts";

/** Knative and the audit backend send again what is answered so; neither does after a bare 500. */
const RETRY = { "retry-after": "1" };
/** Of the API server's batches, and of Pub/Sub's messages, which hold one event of the same kind. */
const AUDIT_BYTES_MAX = 3 * 1024 * 1024;
const EVENT_BYTES_MAX = 256 * 1024;
const ACCEPTED =
  "send a CloudEvent (binary, structured or batch), a Kubernetes audit EventList of audit.k8s.io/v1, or a Pub/Sub push of a LogEntry, as JSON";
/** The form of an origin in the CloudEvents webhook handshake: a host name. */
const ORIGIN = /^[\w.:-]{1,253}$/;

export interface WebhookDeps {
  /** Who may send events, by cluster. */
  readonly webhooks: EntryCache<ClusterWebhook | undefined>;
  /** What the issuers of senders' tokens have published. */
  readonly keys: KeyCache;
  readonly wakeUps: WakeUps<"passes">;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly logger: Logger;
}

/** Makes the handler. `deps` is called at the first event, so that importing a function reads no environment. */
export function createWebhook(deps: () => WebhookDeps) {
  return createStack(
    { name: "webhook", event: httpEventSchema, logger: () => deps().logger },
    async (event): Promise<HttpAnswer> => {
      if (event.requestContext.http.method === "OPTIONS") return shakeHands(event.headers);
      const cluster = event.pathParameters?.["cluster"] ?? "";
      const bytesMax = cloudEventMode(event.headers) === undefined ? AUDIT_BYTES_MAX : EVENT_BYTES_MAX;
      const body = readBody(event, bytesMax);
      if (body === undefined) return problem(413, `the body exceeds ${bytesMax} bytes`);
      const proof = await prove(cluster, { headers: event.headers, body }, deps());
      if (proof !== "valid") return turnAway(cluster, proof, deps());
      const recognised = recognise(event.headers, body.toString("utf8"));
      if (recognised === undefined) return problem(400, `the format is not recognised: ${ACCEPTED}`);
      return wake(cluster, recognised, deps());
    },
  );
}

/** CloudEvents' protection against abuse: tells a sender that events are expected here, and proves nothing of who he is. */
function shakeHands(headers: Readonly<Record<string, string>>): HttpAnswer {
  const origin = headers["webhook-request-origin"] ?? "";
  if (!ORIGIN.test(origin))
    return problem(400, "WebHook-Request-Origin has to be the name of a host", { allow: "POST" });
  const granted = { "webhook-allowed-origin": origin, "webhook-allowed-rate": "*" };
  return { statusCode: 200, headers: { allow: "POST", ...granted }, body: "" };
}

type Proof = TokenVerdict | "unjudged";

/** Before it refuses it reads the registration anew, once a minute at most: the secret may be younger than what is kept. */
async function prove(cluster: string, message: SignedMessage, deps: WebhookDeps): Promise<Proof> {
  const rules = await findRules(cluster, deps);
  const proof = await judge(rules, message, deps);
  if (proof !== "invalid") return proof;
  deps.webhooks.refuse(cluster);
  const renewed = await findRules(cluster, deps);
  return renewed === rules ? proof : judge(renewed, message, deps);
}

/** Any one proof that the cluster's registration asks for is enough. The body is bytes until then. */
async function judge(
  rules: Awaited<ReturnType<typeof findRules>>,
  message: SignedMessage,
  { keys, now }: WebhookDeps,
): Promise<Proof> {
  if (rules === undefined) return "invalid";
  if (rules === "unreadable") return "unjudged";
  const token = bearerTokenOf(message.headers["authorization"]);
  if (isKnownSecret(token, rules.bearer) || isSigned(message, rules.standardWebhooks, now())) return "valid";
  if (rules.oidc === undefined) return "invalid";
  return judgeToken(token, rules.oidc, { keys, nowMs: now() });
}

/** A registration that is of no use now makes no sender a bad one. */
async function findRules(cluster: string, { webhooks, logger }: WebhookDeps) {
  // What is no name is registered nowhere, and is not looked up.
  if (!CLUSTER_NAME.test(cluster)) return undefined;
  try {
    return await webhooks.find(cluster);
  } catch (error) {
    if (!(error instanceof RegistryError)) throw error;
    logger.error("registration of senders cannot be read", { cluster, kind: error.kind, message: error.message });
    return "unreadable";
  }
}

function turnAway(cluster: string, proof: Proof, { logger }: WebhookDeps): HttpAnswer {
  const fields = { cluster: cluster.slice(0, 63) };
  if (proof === "unjudged")
    return problem(503, "the cluster's registration cannot be read: send the same request again", RETRY);
  if (proof === "unavailable") {
    logger.error("keys of the issuer are missing", fields);
    return problem(503, "the keys of the token's issuer cannot be had: send the same request again", RETRY);
  }
  logger.warn("events were not authorized", fields);
  return problem(401, "a proof of being this cluster's sender is needed", { "www-authenticate": "Bearer" });
}

interface Recognised {
  readonly source: NoticeSource;
  readonly changes: readonly Change[];
  readonly bad: number;
}

/** One recogniser a format, in an order in which none takes what is another's; undefined when none takes it. */
function recognise(headers: Readonly<Record<string, string>>, text: string): Recognised | undefined {
  const cloudEvents = findCloudEvents(headers, text);
  if (cloudEvents !== undefined) return sort("cloudEvent", cloudEvents.map(readCloudEvent));
  const body = parseJson(text);
  const audit = eventListSchema.safeParse(body);
  if (audit.success) return sort("audit", audit.data.items.map(readAuditEvent));
  const pushed = findPushed(body);
  return pushed === undefined ? undefined : sort("pubSub", [readLogEntry(pushed.entry)]);
}

function sort(source: NoticeSource, read: readonly Reading[]): Recognised | undefined {
  const bad = read.filter((entry) => entry === "bad").length;
  // Nothing in it is what it says it is: the sender must hear of that.
  if (bad > 0 && bad === read.length) return undefined;
  return { source, changes: read.filter((entry) => typeof entry === "object"), bad };
}

async function wake(
  cluster: string,
  { source, changes, bad }: Recognised,
  { wakeUps, now, logger }: WebhookDeps,
): Promise<HttpAnswer> {
  const outgoing = wakeUpsFor(cluster, changes, now());
  for (const pool of checkPoolsIn(outgoing)) logger.info(CHECK_NOTICE, { cluster, source, pool });
  const unsent = outgoing.length === 0 ? [] : await wakeUps.send("passes", outgoing);
  if (bad > 0) logger.warn("events could not be read", { cluster, bad });
  if (unsent.length === 0) return json(202, { woken: outgoing.length, unreadable: bad });
  logger.error("wake-ups could not be sent", { cluster, unsent: unsent.length });
  return problem(503, "the wake-ups could not be queued: send the same request again", RETRY);
}

/** The keys of issuers, each looked up once a minute at most, whoever asks. */
export function createIssuerKeys(now: () => number, logger: Logger): KeyCache {
  const read = createKeyReader({
    isAcceptedUrl: isAcceptedServer,
    lookup: lookupAllowed(),
    now,
    onFailure: (issuer, error) =>
      logger.warn("keys of an issuer could not be fetched", { issuer, ...describeError(error) }),
  });
  return createEntryCache<IssuerKeys | undefined>(read, now);
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): WebhookDeps {
  const config = readConfig(webhookConfigSchema);
  const registry = openRegistry(config);
  const logger = createLogger("webhook");
  return {
    webhooks: createSenderCache(registry, Date.now),
    keys: createIssuerKeys(Date.now, logger),
    wakeUps: createSqsWakeUps({ passes: config.PASSES_QUEUE_URL }),
    now: Date.now,
    logger,
  };
}

export const handler = createWebhook(once(productionDeps));
