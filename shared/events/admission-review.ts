/** AdmissionReview (admission.k8s.io/v1): the form that the API server sends and expects. Judges nothing. */
import * as z from "zod";
import { type Change, changedKind, isOwnWrite } from "./changes.ts";

export const admissionReviewSchema = z.object({
  apiVersion: z.literal("admission.k8s.io/v1"),
  kind: z.literal("AdmissionReview"),
  request: z.object({
    uid: z.string().min(1).max(100),
    resource: z.object({ group: z.string(), version: z.string(), resource: z.string() }),
    subResource: z.string().optional(),
    name: z.string().optional(),
    namespace: z.string().optional(),
    operation: z.enum(["CREATE", "UPDATE", "DELETE", "CONNECT"]),
    userInfo: z.object({ groups: z.array(z.string()).nullish() }).nullish(),
    object: z.unknown().optional(),
    oldObject: z.unknown().optional(),
    dryRun: z.boolean().nullish(),
  }),
});
export type AdmissionRequest = z.output<typeof admissionReviewSchema>["request"];

/** The change that a request announces; undefined when it is a dry run, not of our kinds, or a write of our own. */
export function changeOf(request: AdmissionRequest): Change | undefined {
  const kind = changedKind(request.resource.group, request.resource.resource);
  if (kind === undefined || request.namespace === undefined || request.dryRun === true) return undefined;
  const { namespace, object, oldObject, subResource, userInfo } = request;
  if (isOwnWrite({ kind, subresource: subResource, groups: userInfo?.groups })) return undefined;
  const name = request.name === "" ? undefined : request.name;
  return { kind, namespace, name, statusOnly: subResource === "status", object, oldObject };
}

export interface AdmissionAnswer {
  readonly uid: string;
  /** Shown to the user when the request is refused; absent when it is allowed. */
  readonly refusal?: {
    readonly message: string;
    readonly causes: readonly { readonly field: string; readonly message: string }[];
  };
  readonly warnings?: readonly string[];
}

/** The AdmissionReview that goes back. */
export function answerReview({ uid, refusal, warnings }: AdmissionAnswer) {
  return {
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    response: {
      uid,
      allowed: refusal === undefined,
      ...(warnings === undefined || warnings.length === 0 ? {} : { warnings: [...warnings] }),
      ...(refusal === undefined
        ? {}
        : {
            status: {
              status: "Failure",
              code: 422,
              reason: "Invalid",
              message: refusal.message,
              details: {
                causes: refusal.causes.map(({ field, message }) => ({ reason: "FieldValueInvalid", field, message })),
              },
            },
          }),
    },
  };
}
