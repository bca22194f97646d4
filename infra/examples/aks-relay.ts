/**
 * A relay for AKS, which sends its audit log to an Event Hub and to no URL: takes the messages of the hub, and posts what is
 * about pools and their machines, signed. Needs nothing but Node.js; docs/event-sources.md has the Azure Function round it.
 */
import { createHmac, randomUUID } from "node:crypto";

/** A message of a hub: diagnostic records, of which those of the audit log hold one audit event each, as text. */
export interface HubMessage {
  readonly records?: readonly {
    readonly category?: string;
    readonly properties?: { readonly log?: string };
  }[];
}

export interface RelayTarget {
  /** `https://<host>/clusters/<name>/events`. */
  readonly url: string;
  /** `whsec_…`, as the registry has it under `standardWebhooks`. */
  readonly secret: string;
}

const LINES_MAX = 400;
const OURS = /"apiGroup":"(pool\.kubevirt\.io|kubevirt\.io|cdi\.kubevirt\.io)"/;

/** The requests to send for some messages, none when nothing in them is about us. */
export function relay(messages: readonly HubMessage[], { url, secret }: RelayTarget, nowMs = Date.now()): Request[] {
  const lines = messages
    .flatMap(({ records = [] }) => records)
    .filter(({ category = "" }) => category.startsWith("kube-audit"))
    .map(({ properties }) => properties?.log ?? "")
    .filter((line) => OURS.test(line))
    .flatMap(withoutBodies);
  return Array.from({ length: Math.ceil(lines.length / LINES_MAX) }, (_, index) => {
    const items = lines.slice(index * LINES_MAX, (index + 1) * LINES_MAX).join(",");
    const body = `{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[${items}]}`;
    const [id, timestamp] = [`msg_${randomUUID()}`, String(Math.floor(nowMs / 1_000))];
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    const digest = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64");
    const headers = {
      "content-type": "application/json",
      "webhook-id": id,
      "webhook-timestamp": timestamp,
      "webhook-signature": `v1,${digest}`,
    };
    return new Request(url, { method: "POST", headers, body });
  });
}

/** What the functions read of an audit event, and no bodies, which hold cloud-init; none of a line that was cut off. */
function withoutBodies(line: string): readonly string[] {
  try {
    const { level, auditID, stage, verb, requestURI, user, objectRef, responseStatus } = JSON.parse(line);
    const [groups, code] = [user?.groups, responseStatus?.code];
    const kept = { level, auditID, stage, verb, requestURI, user: { groups }, objectRef, responseStatus: { code } };
    return [JSON.stringify(kept)];
  } catch {
    return [];
  }
}
