/** Pub/Sub push requests with a LogEntry of GKE's audit log: an envelope round the audit reader. */
import * as z from "zod";
import { parseJson } from "../planning/json.ts";
import { readAuditEvent } from "./audit.ts";
import type { Reading } from "./changes.ts";

const pushSchema = z.object({ message: z.object({ data: z.string() }), subscription: z.string() });

/** Every LogEntry has a name; those of other logs that a sink may hold have another payload, or none. */
const logEntrySchema = z.object({
  logName: z.string(),
  protoPayload: z
    .object({
      serviceName: z.string().optional(),
      methodName: z.string().optional(),
      resourceName: z.string().optional(),
      /** A google.rpc.Status: absent, empty or 0 when the call succeeded. */
      status: z.object({ code: z.int().optional() }).nullish(),
    })
    .nullish(),
});

/** `pool.kubevirt.io/v1beta1/namespaces/ci/virtualmachinepools/web`, and perhaps a subresource. */
const RESOURCE_NAME =
  /^\/?(?:apis\/)?(?<apiGroup>[^/]+)\/[^/]+\/namespaces\/(?<namespace>[^/]+)\/(?<resource>[^/]+)\/(?<name>[^/]+)(?:\/(?<subresource>[^/]+))?$/;

/** The message of a push request, unread; undefined when the body is none. */
export function findPushed(body: unknown): { readonly entry: unknown } | undefined {
  const push = pushSchema.safeParse(body);
  if (!push.success) return undefined;
  return { entry: parseJson(Buffer.from(push.data.message.data, "base64").toString("utf8")) };
}

/**
 * The change that a LogEntry tells of. The object is named by `resourceName` alone: how `methodName` writes the group of a
 * custom resource is not relied on, only that it ends in the verb. The entry says neither who is in which group nor whether
 * the call was a dry run, so all of them count.
 */
export function readLogEntry(entry: unknown): Reading {
  const parsed = logEntrySchema.safeParse(entry);
  if (!parsed.success) return "bad";
  const { serviceName, methodName, resourceName = "", status } = parsed.data.protoPayload ?? {};
  if (serviceName !== undefined && serviceName !== "k8s.io") return "ignored";
  const object = RESOURCE_NAME.exec(resourceName)?.groups;
  if (object === undefined) return "ignored";
  return readAuditEvent({
    stage: "ResponseComplete",
    verb: methodName?.split(".").at(-1)?.toLowerCase() ?? "",
    requestURI: "",
    objectRef: object,
    responseStatus: { code: (status?.code ?? 0) === 0 ? 200 : 500 },
  });
}
