/** The scale subresource (autoscaling/v1) of a custom kind: another view of the same object. */
import { isRecord } from "../../shared/planning/json.ts";
import { decodeMetadata, type KubeObject, recordAt, type SentMetadata } from "./objects.ts";
import { badRequest, Refusal, unreadablePatch } from "./refusal.ts";
import { apiVersionOf, decodePatched, type Target } from "./writes.ts";

/** The answer to a read. Throws `Refusal` when the object does not say how many replicas it wants, which only a read minds. */
export function scaleOf(object: KubeObject) {
  if (recordAt(object, "spec")["replicas"] !== undefined) return showScale(object);
  const why = 'the spec replicas field ".spec.replicas" does not exist';
  throw new Refusal(500, "InternalError", `Internal error occurred: ${why}`, { details: {} });
}

/** What a patch sees where the object does not say, and must not leave so. */
const UNSET = -2_147_483_648;

/** A surprise: zero replicas are left out of the spec, and a JSON patch that tests for 0 fails. */
export function showScale(object: KubeObject) {
  const { name, namespace, uid, resourceVersion, creationTimestamp } = object.metadata;
  const { replicas = UNSET } = recordAt(object, "spec");
  const { replicas: current, labelSelector } = recordAt(object, "status");
  return {
    kind: "Scale",
    apiVersion: "autoscaling/v1",
    metadata: { name, namespace, uid, resourceVersion, creationTimestamp },
    spec: replicas === 0 ? {} : { replicas },
    status: {
      replicas: typeof current === "number" ? current : 0,
      ...(typeof labelSelector === "string" && labelSelector !== "" ? { selector: labelSelector } : {}),
    },
  };
}

/** A Scale that was sent, or made by a patch. */
export interface SentScale {
  readonly metadata: SentMetadata;
  readonly replicas: number;
}

/** Throws `Refusal`. */
export function decodeScale({ name, namespace }: Target, scale: unknown, isPatched: boolean): SentScale {
  const unreadable = () => (isPatched ? unreadablePatch() : badRequest("the Scale cannot be read"));
  const metadata = isRecord(scale) ? decodeMetadata(scale["metadata"]) : undefined;
  if (!isRecord(scale) || metadata === undefined) throw unreadable();
  if (scale["kind"] !== "Scale" || scale["apiVersion"] !== "autoscaling/v1") throw badRequest("no kind is registered");
  const replicas = recordAt(scale, "spec")["replicas"] ?? 0;
  if (typeof replicas !== "number" || !Number.isInteger(replicas)) throw unreadable();
  if (metadata.name !== name) throw badRequest("the name of the object does not match the name on the URL");
  if (metadata.namespace !== "" && metadata.namespace !== namespace) throw badRequest("the namespace does not match");
  return { metadata, replicas };
}

/** The object with these replicas, as if a client had sent it. */
export function scaledObject(target: Target, object: KubeObject, { replicas }: SentScale) {
  if (replicas === UNSET) throw badRequest('the spec replicas field ".spec.replicas" cannot be empty');
  const spec = { ...recordAt(object, "spec"), replicas };
  return decodePatched(target, { ...object, apiVersion: apiVersionOf(target), spec });
}
