/** EKS audit logs out of CloudWatch Logs: reads what a subscription delivers and wakes pools. Never calls a cluster. */
import { gunzipSync } from "node:zlib";
import * as z from "zod";
import { readAuditEvent } from "../shared/events/audit.ts";
import { CHECK_NOTICE, checkPoolsIn, wakeUpsFor } from "../shared/events/changes.ts";
import { createSqsWakeUps, type WakeUps } from "../shared/events/wake-ups.ts";
import { parseJson } from "../shared/planning/json.ts";
import { CLUSTER_NAME } from "../shared/planning/names.ts";
import { auditConfigSchema, readConfig } from "../shared/runtime/config.ts";
import { createLogger, type Logger } from "../shared/runtime/logger.ts";
import { once } from "../shared/runtime/once.ts";
import { createStack } from "../shared/runtime/stack.ts";

/** CloudWatch Logs sends 1 MiB of compressed text at most; what inflates to more than this is no log. */
const INFLATED_BYTES_MAX = 16 * 1024 * 1024;
/** Of names that stand in a log of ours. */
const LOG_GROUP_LENGTH_MAX = 512;

const eventSchema = z.object({ awslogs: z.object({ data: z.string() }) });

/** What `data` holds, as compressed JSON in base64. */
const deliverySchema = z.object({
  /** `CONTROL_MESSAGE` when CloudWatch Logs only tries whether somebody is there. */
  messageType: z.string(),
  logGroup: z.string().max(LOG_GROUP_LENGTH_MAX),
  logEvents: z.array(z.object({ message: z.string() })),
});

export interface AuditDeps {
  /** The registered name of a cluster by its log group, where it is not the name that EKS has for it. */
  readonly clusters: Readonly<Record<string, string>>;
  readonly wakeUps: WakeUps<"passes">;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly logger: Logger;
}

export interface AuditResult {
  readonly woken: number;
  readonly unreadable: number;
}

/** Some wake-ups could not be sent: Lambda invokes again with the same event. */
export class UnsentError extends Error {
  override readonly name = "UnsentError";
}

/** Makes the handler. `deps` is called at the first event, so that importing a function reads no environment. */
export function createAudit(deps: () => AuditDeps) {
  return createStack(
    { name: "audit", event: eventSchema, logger: () => deps().logger },
    async ({ awslogs }): Promise<AuditResult> => {
      const { clusters, wakeUps, now, logger } = deps();
      const delivery = deliverySchema.safeParse(inflate(awslogs.data));
      if (!delivery.success) {
        // It would be no better a second time.
        logger.error("log data could not be read", {});
        return { woken: 0, unreadable: 0 };
      }
      const { messageType, logGroup, logEvents } = delivery.data;
      if (messageType !== "DATA_MESSAGE") return { woken: 0, unreadable: 0 };
      const cluster = clusterOf(logGroup, clusters);
      if (cluster === undefined) {
        logger.warn("log group is of no cluster", { logGroup });
        return { woken: 0, unreadable: 0 };
      }
      const read = logEvents.map(({ message }) => readAuditEvent(parseJson(message)));
      const outgoing = wakeUpsFor(
        cluster,
        read.filter((entry) => typeof entry === "object"),
        now(),
      );
      for (const pool of checkPoolsIn(outgoing)) logger.info(CHECK_NOTICE, { cluster, source: "eksAudit", pool });
      const unreadable = read.filter((entry) => entry === "bad").length;
      if (unreadable > 0) logger.warn("events could not be read", { cluster, bad: unreadable });
      const unsent = outgoing.length === 0 ? [] : await wakeUps.send("passes", outgoing);
      if (unsent.length === 0) return { woken: outgoing.length, unreadable };
      logger.error("wake-ups could not be sent", { cluster, unsent: unsent.length });
      throw new UnsentError(`${unsent.length} wake-ups could not be sent`);
    },
  );
}

/** The JSON in compressed base64; undefined when it is none, or too much. */
function inflate(data: string): unknown {
  try {
    const bytes = gunzipSync(Buffer.from(data, "base64"), { maxOutputLength: INFLATED_BYTES_MAX });
    return parseJson(bytes.toString("utf8"));
  } catch {
    return undefined;
  }
}

/** Who writes to a log group is said by AWS alone, so the group names the cluster: `/aws/eks/<name>/cluster`. */
function clusterOf(logGroup: string, clusters: Readonly<Record<string, string>>): string | undefined {
  if (Object.hasOwn(clusters, logGroup)) return clusters[logGroup];
  const name = /^\/aws\/eks\/([^/]+)\/cluster$/.exec(logGroup)?.[1];
  return name !== undefined && CLUSTER_NAME.test(name) ? name : undefined;
}

/** The parts that this function has on AWS, made once an instance. */
function productionDeps(): AuditDeps {
  const config = readConfig(auditConfigSchema);
  return {
    clusters: config.AUDIT_CLUSTERS,
    wakeUps: createSqsWakeUps({ passes: config.PASSES_QUEUE_URL }),
    now: Date.now,
    logger: createLogger("audit"),
  };
}

export const handler = createAudit(once(productionDeps));
