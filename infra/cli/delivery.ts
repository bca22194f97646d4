/** Whether a change in a cluster is told to the functions: makes a harmless one and looks into their log for the notice of it. */
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "../../shared/clusters/connection.ts";
import type { Finding } from "../../shared/clusters/in-tree-controller.ts";
import type { ClusterWebhook } from "../../shared/clusters/registry.ts";
import { CHECK_POOL_PREFIX, type NoticeSource } from "../../shared/events/changes.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { SECRET_KINDS } from "./secrets.ts";

const POLL_MS = 500;
const REQUEST_TIMEOUT_MS = 15_000;

/** A notice that one of the functions has logged. */
export interface Notice {
  readonly source: NoticeSource;
  /** Epoch milliseconds. */
  readonly at: number;
}

/** The notices about this pool that stand in the log by now; throws a CommandError where there is no log. */
export type NoticeReader = (pool: string, sinceMs: number) => Promise<readonly Notice[]>;

export interface Delivery {
  /** With the rights of a person, who may make pools. */
  readonly connection: Connection;
  readonly version: string;
  readonly namespace: string;
  readonly webhook: ClusterWebhook | undefined;
  readonly waitMs: number;
  readonly readNotices: NoticeReader;
}

const WORDS: Readonly<Record<NoticeSource, string>> = {
  admission: "the admission webhook",
  audit: "the audit webhook of the API server",
  cloudEvent: "a sender of CloudEvents",
  pubSub: "the audit log of GKE, by Pub/Sub",
  eksAudit: "the audit log of EKS, by CloudWatch",
};

/** Makes a paused pool of no machines, waits for the notice of it from each source that can be told to be silent, and deletes it. */
export async function lookForDelivery(delivery: Delivery): Promise<readonly Finding[]> {
  const { connection, version, namespace } = delivery;
  const name = `${CHECK_POOL_PREFIX}${randomBytes(4).toString("hex")}`;
  const path = `/apis/pool.kubevirt.io/${version}/namespaces/${namespace}/virtualmachinepools`;
  const send = (method: "POST" | "DELETE", to: string, body?: object) =>
    connection.send({ method, path: to, body, signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
  const sinceMs = Date.now();
  const made = await send("POST", path, aCheckPool(name, version));
  if (made.status >= 300) {
    return [{ verdict: "unseen", text: `events were not tried: a pool cannot be made there: ${messageOf(made)}` }];
  }
  try {
    return await waitForNotices(delivery, { name, sinceMs });
  } finally {
    await send("DELETE", `${path}/${name}`);
  }
}

/** The smallest legal pool; nothing is ever made for it. */
function aCheckPool(name: string, version: string): object {
  const labels = { "vmpool-functions/check": name };
  return {
    apiVersion: `pool.kubevirt.io/${version}`,
    kind: "VirtualMachinePool",
    metadata: { name },
    spec: {
      paused: true,
      replicas: 0,
      selector: { matchLabels: labels },
      virtualMachineTemplate: {
        metadata: { labels },
        spec: {
          runStrategy: "Manual",
          template: { metadata: { labels }, spec: { domain: { devices: {}, memory: { guest: "64Mi" } } } },
        },
      },
    },
  };
}

/** What each registered sender may turn out to be; those with an address of their own can be missed by name. */
async function waitForNotices(
  { webhook, waitMs, readNotices }: Delivery,
  { name, sinceMs }: { readonly name: string; readonly sinceMs: number },
): Promise<readonly Finding[]> {
  const expectsAdmission = (webhook?.path?.length ?? 0) > 0;
  const others = SECRET_KINDS.filter((kind) => kind !== "path" && (webhook?.[kind]?.length ?? 0) > 0).length;
  const expected = (expectsAdmission ? 1 : 0) + (others > 0 || webhook?.oidc !== undefined ? 1 : 0);
  const until = sinceMs + waitMs;
  let first = new Map<NoticeSource, number>();
  do {
    await sleep(POLL_MS);
    const notices = (await readNotices(name, sinceMs)).toSorted((a, b) => b.at - a.at);
    first = new Map(notices.map(({ source, at }) => [source, at]));
  } while (first.size < Math.max(1, expected) && Date.now() < until);
  const seconds = Math.round(waitMs / 1_000);
  const seen = [...first].toReversed().map(([source, at]): Finding => {
    const after = Math.max(0, (at - sinceMs) / 1_000).toFixed(1);
    return { verdict: "good", text: `${WORDS[source]} tells of changes: after ${after} s` };
  });
  if (expectsAdmission && !first.has("admission")) {
    const text = `${WORDS.admission} told nothing within ${seconds} s: is it applied, and can the API server reach its address?`;
    return [...seen, { verdict: "bad", text }];
  }
  if (first.size === 0) return [{ verdict: "unseen", text: `nothing told of the change within ${seconds} s` }];
  return seen;
}

function messageOf({ status, body }: { readonly status: number; readonly body: unknown }): string {
  const message = isRecord(body) ? body["message"] : undefined;
  return typeof message === "string" ? message.slice(0, 300) : `HTTP ${status}`;
}
