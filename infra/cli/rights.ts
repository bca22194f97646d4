/** What the functions may do in a cluster, asked of its API server right by right. The list is the role that a cluster is given. */
import type { ApiFailure } from "../../shared/clusters/cluster.ts";
import type { Transport } from "../../shared/clusters/connection.ts";
import type { Finding } from "../../shared/clusters/in-tree-controller.ts";
import { inParallel } from "../../shared/clusters/parallel.ts";
import { isRecord, recordOf } from "../../shared/planning/json.ts";
import type { Right } from "../kubernetes/manifests.ts";

const REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
/** Of the namespaces of an entry, for which each right is asked. */
const NAMESPACES_MAX = 50;

/** Such as `patch virtualmachinepools.pool.kubevirt.io/status`, as kubectl auth can-i takes it. */
export function describeRight({ verb, group, resource, subresource }: Right): string {
  return `${verb} ${resource}${group === "" ? "" : `.${group}`}${subresource === undefined ? "" : `/${subresource}`}`;
}

export interface RightsQuestion {
  readonly send: Transport;
  readonly rights: readonly Right[];
  /** Those that the functions serve; all when undefined. */
  readonly namespaces: readonly string[] | undefined;
  readonly signal: AbortSignal;
}

/** One line for each verb that is missing, with the namespaces where it is; one good line when none is. */
export async function lookForRights(question: RightsQuestion): Promise<readonly Finding[]> {
  const { rights, namespaces } = question;
  const asked = namespaces?.slice(0, NAMESPACES_MAX);
  const places = (right: Right) => (right.scope === "cluster" || asked === undefined ? [undefined] : asked);
  const reviews = rights.flatMap((right) => places(right).map((namespace) => ({ right, namespace })));
  const answers = await inParallel(reviews, (review) => mayI(question, review));
  const missing = new Map<string, (string | undefined)[]>();
  for (const [index, { right, namespace }] of reviews.entries()) {
    const answer = answers[index];
    if (typeof answer === "string") return [{ verdict: "bad", text: `the rights cannot be asked for: ${answer}` }];
    const text = describeRight(right);
    if (answer === false) missing.set(text, [...(missing.get(text) ?? []), namespace]);
  }
  const more = (namespaces?.length ?? 0) - (asked?.length ?? 0);
  const unasked: readonly Finding[] =
    more > 0 ? [{ verdict: "unseen", text: `the rights in ${more} more namespaces were not asked for` }] : [];
  if (missing.size === 0)
    return [{ verdict: "good", text: `the functions have all ${rights.length} rights` }, ...unasked];
  const told = [...missing].map(([right, where]): Finding => {
    const text = `the functions may not ${right}${nameNamespaces(where)}: apply the roles (docs/permissions.md)`;
    return { verdict: "bad", text };
  });
  return [...told, ...unasked];
}

function nameNamespaces(where: readonly (string | undefined)[]): string {
  const names = where.filter((name) => name !== undefined);
  if (names.length === 0) return "";
  const shown = names.slice(0, 3).join(", ");
  return ` in ${shown}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
}

interface Review {
  readonly right: Right;
  readonly namespace: string | undefined;
}

/** Asks about the identity that asks. Stores nothing. The text of a failure when it cannot be told. */
async function mayI({ send, signal }: RightsQuestion, { right, namespace }: Review): Promise<boolean | string> {
  const { verb, group, resource, subresource } = right;
  const place = namespace === undefined ? {} : { namespace };
  // A namespace is read by its own name, and a right in it is enough.
  const name = namespace !== undefined && group === "" && resource === "namespaces" ? { name: namespace } : {};
  const attributes = {
    verb,
    group,
    resource,
    ...(subresource === undefined ? {} : { subresource }),
    ...place,
    ...name,
  };
  const body = {
    apiVersion: "authorization.k8s.io/v1",
    kind: "SelfSubjectAccessReview",
    spec: { resourceAttributes: attributes },
  };
  try {
    const answer = await send({ method: "POST", path: REVIEWS, body, signal });
    if (answer.status >= 300) return messageOf(answer.status, answer.body);
    return isRecord(answer.body) && recordOf(answer.body["status"])["allowed"] === true;
  } catch {
    return "the API server did not answer";
  }
}

function messageOf(status: number, body: unknown): ApiFailure["message"] {
  const message = isRecord(body) ? body["message"] : undefined;
  return typeof message === "string" ? message.slice(0, 200) : `HTTP ${status}`;
}
