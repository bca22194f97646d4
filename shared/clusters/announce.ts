/** Writes Kubernetes Events about a pool, as the reference's recorder does: same component, same reasons. */
import { fnv1a } from "../planning/hash.ts";
import { isRecord } from "../planning/json.ts";
import type { Pool } from "../planning/model.ts";
import { POOL_KIND } from "../planning/names.ts";
import type { Announcement } from "../planning/status.ts";
import { shorten } from "../planning/wording.ts";
import { type Cluster, EVENTS } from "./cluster.ts";

const COMPONENT = "virtualmachinepool-controller";
/** Of one reason and pass, this many are told one by one; the rest in one event. */
const SINGLE_MAX = 10;
/** The API's own limit is 1,024 bytes. */
const MESSAGE_LENGTH_MAX = 1_000;

export interface AnnounceInput {
  readonly pool: Pool;
  readonly poolVersion: string;
  readonly announcements: readonly Announcement[];
  /** Epoch milliseconds. */
  readonly now: number;
}

/** Writes the events; returns how many could not be written. An event is never worth failing a pass for. */
export async function announce(cluster: Cluster, input: AnnounceInput): Promise<number> {
  const told = combine(input.announcements);
  const results = await Promise.all(told.map((announcement) => tell(cluster, input, announcement)));
  return results.filter((ok) => !ok).length;
}

/** The first ten of a reason stay; the others become one. */
function combine(announcements: readonly Announcement[]): Announcement[] {
  const byReason = new Map<string, Announcement[]>();
  for (const entry of announcements) byReason.set(entry.reason, [...(byReason.get(entry.reason) ?? []), entry]);
  return [...byReason.values()].flatMap((group) => {
    const [last] = group.slice(-1);
    const more = group.length - SINGLE_MAX;
    if (last === undefined || more <= 0) return group;
    return [...group.slice(0, SINGLE_MAX), { ...last, message: `${more} more, the last of them: ${last.message}` }];
  });
}

async function tell(
  cluster: Cluster,
  { pool, poolVersion, now }: AnnounceInput,
  { type, reason, message, key, once }: Announcement,
): Promise<boolean> {
  const name = `${pool.name}.${fnv1a([pool.uid, type, reason, message, key].join("\n"))}`;
  const time = new Date(now).toISOString().replace(/\.\d+Z$/, "Z");
  const answer = await cluster.create(EVENTS, pool, {
    apiVersion: "v1",
    kind: "Event",
    metadata: { name, namespace: pool.namespace },
    involvedObject: {
      apiVersion: `pool.kubevirt.io/${poolVersion}`,
      kind: POOL_KIND,
      namespace: pool.namespace,
      name: pool.name,
      uid: pool.uid,
      resourceVersion: pool.resourceVersion,
    },
    type,
    reason,
    message: shorten(message, MESSAGE_LENGTH_MAX),
    source: { component: COMPONENT },
    reportingComponent: COMPONENT,
    reportingInstance: "",
    firstTimestamp: time,
    lastTimestamp: time,
    count: 1,
  });
  if (answer.ok || answer.failure.kind !== "alreadyExists") return answer.ok;
  return type === "Normal" || once === true || countUp(cluster, { namespace: pool.namespace, name }, time);
}

/** A warning that is told again is counted, as `kubectl describe` shows it: `(x3 over 5m)`. */
async function countUp(cluster: Cluster, at: { namespace: string; name: string }, time: string): Promise<boolean> {
  const read = await cluster.get(EVENTS, at);
  if (!read.ok) return false;
  const count = isRecord(read.value) && typeof read.value["count"] === "number" ? read.value["count"] : 1;
  const answer = await cluster.patch(EVENTS, at, { type: "merge", body: { count: count + 1, lastTimestamp: time } });
  return answer.ok;
}
