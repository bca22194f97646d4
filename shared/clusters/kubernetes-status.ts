/** Refusals as Kubernetes words them: `Status` objects with a code and a reason that its clients know. */
import type { ApiFailure } from "./cluster.ts";

export type StatusReason =
  | "AlreadyExists"
  | "BadRequest"
  | "Conflict"
  | "Expired"
  | "Forbidden"
  | "InternalError"
  | "Invalid"
  | "MethodNotAllowed"
  | "NotFound"
  | "RequestEntityTooLarge"
  | "ServiceUnavailable"
  | "Timeout"
  | "TooManyRequests"
  | "UnsupportedMediaType";

const CODES: Readonly<Record<StatusReason, number>> = {
  AlreadyExists: 409,
  BadRequest: 400,
  Conflict: 409,
  Expired: 410,
  Forbidden: 403,
  InternalError: 500,
  Invalid: 422,
  MethodNotAllowed: 405,
  NotFound: 404,
  RequestEntityTooLarge: 413,
  ServiceUnavailable: 503,
  Timeout: 504,
  TooManyRequests: 429,
  UnsupportedMediaType: 415,
};

/** A failure as an API server answers it (meta/v1 Status). */
export interface KubernetesStatus {
  readonly kind: "Status";
  readonly apiVersion: "v1";
  readonly metadata: object;
  readonly status: "Failure";
  readonly message: string;
  readonly reason: StatusReason;
  readonly code: number;
}

export function statusObject(reason: StatusReason, message: string): KubernetesStatus {
  return {
    kind: "Status",
    apiVersion: "v1",
    metadata: {},
    status: "Failure",
    message,
    reason,
    code: CODES[reason],
  };
}

/** What the client of a function is told when its cluster refused, or did not answer. */
export function statusOfFailure(failure: ApiFailure): KubernetesStatus {
  // 401 would say that the client's own credentials are wrong.
  if (failure.kind !== "unauthorized") return statusObject(reasonOf(failure), failure.message);
  return statusObject("ServiceUnavailable", "the cluster does not accept the credentials that are registered for it");
}

function reasonOf({ kind, status }: ApiFailure): StatusReason {
  switch (kind) {
    case "notFound":
    case "notServed":
      return "NotFound";
    case "alreadyExists":
      return "AlreadyExists";
    case "conflict":
      return "Conflict";
    case "forbidden":
      return "Forbidden";
    case "expired":
      return "Expired";
    case "throttled":
      return "TooManyRequests";
    case "timeout":
      return "Timeout";
    case "unauthorized":
    case "unreachable":
      return "ServiceUnavailable";
    case "unavailable":
      return status === 503 ? "ServiceUnavailable" : "InternalError";
    case "altered":
    case "garbled":
      return "InternalError";
    case "invalid":
      return reasonOfInvalid(status);
  }
}

function reasonOfInvalid(status: number | undefined): StatusReason {
  switch (status) {
    case 405:
      return "MethodNotAllowed";
    case 413:
      return "RequestEntityTooLarge";
    case 415:
      return "UnsupportedMediaType";
    case 422:
      return "Invalid";
    default:
      return "BadRequest";
  }
}
