/** Audit events (audit.k8s.io/v1) as the API server's webhook backend sends them and the log services of clouds keep them. A hint each: bodies are not needed. */
import * as z from "zod";
import { changedKind, isOwnWrite, type Reading } from "./changes.ts";

export const eventListSchema = z.object({
  apiVersion: z.literal("audit.k8s.io/v1"),
  kind: z.literal("EventList"),
  /** Items are judged one by one: a bad one does not lose the others. */
  items: z.array(z.unknown()).max(10_000),
});

const auditEventSchema = z.object({
  stage: z.string(),
  verb: z.string(),
  requestURI: z.string(),
  user: z.object({ groups: z.array(z.string()).nullish() }).nullish(),
  objectRef: z
    .object({
      resource: z.string().optional(),
      namespace: z.string().optional(),
      name: z.string().optional(),
      apiGroup: z.string().optional(),
      subresource: z.string().optional(),
    })
    .nullish(),
  responseStatus: z.object({ code: z.int().optional() }).nullish(),
});

const WRITE_VERBS = new Set(["create", "update", "patch", "delete", "deletecollection"]);

/** The change that an audit event tells of. */
export function readAuditEvent(event: unknown): Reading {
  const parsed = auditEventSchema.safeParse(event);
  if (!parsed.success) return "bad";
  const { stage, verb, requestURI, user, objectRef, responseStatus } = parsed.data;
  const isDone = stage === "ResponseComplete" && (responseStatus?.code ?? 500) < 300;
  if (!isDone || !WRITE_VERBS.has(verb) || isDryRun(requestURI)) return "ignored";
  const kind = changedKind(objectRef?.apiGroup ?? "", objectRef?.resource ?? "");
  const { namespace, name, subresource } = objectRef ?? {};
  // A collection has no name: what it was about is left to resync.
  if (kind === undefined || namespace === undefined || name === undefined) return "ignored";
  if (isOwnWrite({ kind, subresource, groups: user?.groups })) return "ignored";
  return { kind, namespace, name, statusOnly: subresource === "status", object: undefined, oldObject: undefined };
}

function isDryRun(requestUri: string): boolean {
  return /[?&]dryRun=/.test(requestUri);
}
