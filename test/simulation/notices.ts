/** What a cluster tells the functions of a change, in the forms that its senders use: the events that API Gateway hands to `webhook` and `admission`. */
import { hashSecret } from "../../shared/events/signatures.ts";
import type { Change } from "./store.ts";

/** How a cluster tells of its changes. */
export type Sender = "audit" | "cloudEvent" | "admission";

const BEARER_TOKEN = "bearer-token";
const PATH_TOKEN = "path-token";
/** What the registry says of who may send. */
export const WEBHOOK_ENTRY = { bearer: [hashSecret(BEARER_TOKEN)], path: [hashSecret(PATH_TOKEN)] };

export interface NoticeContext {
  readonly cluster: string;
  /** Groups of whoever made the change. */
  readonly groups: readonly string[];
}

/** The HTTP event of the sender's request. */
export function noticeOf(change: Change, sender: Sender, context: NoticeContext): object {
  switch (sender) {
    case "audit":
      return requestOf(context, { headers: BEARER, body: auditList(change, context) });
    case "cloudEvent":
      return requestOf(context, { headers: { ...BEARER, ...CLOUD_EVENT }, body: cloudEvent(change) });
    case "admission":
      return requestOf(context, { headers: {}, body: admissionReview(change, context) });
  }
}

const BEARER = { authorization: `Bearer ${BEARER_TOKEN}` };
const CLOUD_EVENT = { "content-type": "application/cloudevents+json" };

function requestOf(
  { cluster }: NoticeContext,
  { headers, body }: { readonly headers: Readonly<Record<string, string>>; readonly body: object },
): object {
  return httpEvent({ method: "POST", parameters: { cluster, token: PATH_TOKEN }, headers, body });
}

export interface HttpRequest {
  readonly method: string;
  readonly parameters: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: object;
}

/** The event (payload 2.0) that API Gateway makes of a request. */
export function httpEvent({ method, parameters, headers, body }: HttpRequest): object {
  return {
    version: "2.0",
    routeKey: "$default",
    rawPath: "/",
    rawQueryString: "",
    headers: { "content-type": "application/json", ...headers },
    pathParameters: parameters,
    requestContext: { http: { method, path: "/", sourceIp: "192.0.2.1" }, stage: "$default" },
    body: JSON.stringify(body),
    isBase64Encoded: false,
  };
}

/** Nothing but the status has changed. */
function isOfStatus({ before, after }: Change): boolean {
  const [was, is] = [before, after].map((object) => JSON.stringify({ ...object, status: 0, metadata: 0 }));
  const generation = before?.metadata.generation === after?.metadata.generation;
  return (
    before !== undefined && after !== undefined && was === is && generation && before["status"] !== after["status"]
  );
}

function verbOf({ before, after }: Change): "create" | "patch" | "delete" {
  if (before === undefined) return "create";
  return after === undefined ? "delete" : "patch";
}

function auditList(change: Change, { groups }: NoticeContext): object {
  const { kind, before, after } = change;
  const { namespace, name } = (after ?? before)?.metadata ?? {};
  const objectRef = {
    apiGroup: kind.group,
    resource: kind.plural,
    namespace,
    name,
    ...(isOfStatus(change) ? { subresource: "status" } : {}),
  };
  const item = {
    stage: "ResponseComplete",
    verb: verbOf(change),
    requestURI: "/",
    user: { groups },
    objectRef,
    responseStatus: { code: 200 },
  };
  return { apiVersion: "audit.k8s.io/v1", kind: "EventList", items: [item] };
}

function cloudEvent({ before, after, sequence }: Change): object {
  const verb = before === undefined ? "add" : after === undefined ? "delete" : "update";
  return {
    specversion: "1.0",
    id: String(sequence),
    source: "https://simulated",
    type: `dev.knative.apiserver.resource.${verb}`,
    data: after ?? before,
  };
}

function admissionReview(change: Change, { groups }: NoticeContext): object {
  const { kind, before, after, sequence } = change;
  const { namespace, name } = (after ?? before)?.metadata ?? {};
  const operation = before === undefined ? "CREATE" : after === undefined ? "DELETE" : "UPDATE";
  return {
    apiVersion: "admission.k8s.io/v1",
    kind: "AdmissionReview",
    request: {
      uid: String(sequence),
      resource: { group: kind.group, version: kind.versions[0], resource: kind.plural },
      ...(isOfStatus(change) ? { subResource: "status" } : {}),
      name,
      namespace,
      operation,
      userInfo: { groups },
      object: after ?? null,
      oldObject: before ?? null,
    },
  };
}
