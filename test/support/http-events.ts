/** The events that API Gateway's HTTP API sends a function (payload 2.0), and who may send them for the cluster `west`. */
import { createEntryCache } from "../../shared/clusters/entry-cache.ts";
import type { ClusterWebhook } from "../../shared/clusters/registry.ts";
import type { KeyCache } from "../../shared/events/oidc.ts";
import { hashSecret } from "../../shared/events/signatures.ts";
import { aLog, aMailbox } from "./handlers.ts";
import { NOW } from "./transport-objects.ts";

export const PATH_TOKEN = "path-token-of-west";
export const BEARER_TOKEN = "bearer-token-of-west";
const WEST: ClusterWebhook = { path: [hashSecret(PATH_TOKEN)], bearer: [hashSecret(BEARER_TOKEN)] };

export interface HttpFields {
  readonly method?: string;
  readonly path?: string;
  readonly parameters?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  /** As API Gateway does with every content type that is not text. */
  readonly base64?: boolean;
}

export function anHttpEvent(fields: HttpFields = {}) {
  const { method = "POST", path = "/", parameters = {}, headers = {}, body, base64 = false } = fields;
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return {
    version: "2.0",
    routeKey: `${method} ${path}`,
    rawPath: path,
    rawQueryString: "",
    headers: { "content-type": "application/json", ...headers },
    pathParameters: parameters,
    requestContext: { http: { method, path, sourceIp: "192.0.2.1" }, stage: "$default" },
    ...(text === undefined ? {} : { body: base64 ? Buffer.from(text).toString("base64") : text }),
    isBase64Encoded: base64,
  };
}

export interface ListenerFields {
  /** What may be sent for the cluster `west`, in the place of a bearer and a path token. */
  readonly west?: ClusterWebhook;
  readonly keys?: KeyCache;
}

/** What `webhook` and `admission` are given, with everything that they do recorded. */
export function aListener({ west = WEST, keys }: ListenerFields = {}) {
  const clock = { now: NOW };
  /** What the registry has now. */
  const registered = { west };
  const entries: string[] = [];
  const mailbox = aMailbox();
  const log = aLog();
  const now = () => clock.now;
  const webhooks = createEntryCache<ClusterWebhook | undefined>(async (name) => {
    entries.push(name);
    return name === "west" || name === "east" ? (name === "west" ? registered.west : {}) : undefined;
  }, now);
  const noKeys = createEntryCache<undefined>(async () => undefined, now);
  const deps = () => ({ webhooks, keys: keys ?? noKeys, wakeUps: mailbox, now, logger: log });
  return { clock, registered, entries, mailbox, log, deps };
}
