/** What a connection's requests need of RBAC, as `group/resource/subresource verb`: recorded while functions use it. */
import type { Right } from "../../infra/kubernetes/manifests.ts";
import { type ApiRequest, openConnection } from "../../shared/clusters/connection.ts";

export interface RightsRecorder {
  readonly connect: typeof openConnection;
  /** Used and granted. */
  readonly used: ReadonlySet<string>;
  /** Asked for in vain. */
  readonly refused: ReadonlySet<string>;
}

export function recordRights(): RightsRecorder {
  const used = new Set<string>();
  const refused = new Set<string>();
  return {
    used,
    refused,
    connect(...target) {
      const real = openConnection(...target);
      return {
        ...real,
        async send(request) {
          const answer = await real.send(request);
          const right = rightOf(request);
          if (right !== undefined) (answer.status === 403 ? refused : used).add(right);
          return answer;
        },
      };
    },
  };
}

export function formatRight({ group, resource, subresource, verb }: Omit<Right, "scope">): string {
  return `${group}/${resource}${subresource === undefined ? "" : `/${subresource}`} ${verb}`;
}

/** Undefined for discovery, which everybody may read. */
function rightOf({ method, path }: ApiRequest): string | undefined {
  const steps = (path.split("?")[0] ?? "").split("/").slice(1);
  const [root, ...rest] = steps;
  const group = root === "apis" ? rest.shift() : "";
  rest.shift();
  // A namespace is an object of its own where nothing follows its name.
  if (rest[0] === "namespaces" && rest.length > 2) rest.splice(0, 2);
  const [resource, name, subresource] = rest;
  if (group === undefined || resource === undefined) return undefined;
  const verb = {
    GET: name === undefined ? "list" : "get",
    POST: "create",
    PUT: "update",
    PATCH: "patch",
    DELETE: "delete",
  };
  return formatRight({ group, resource, ...(subresource === undefined ? {} : { subresource }), verb: verb[method] });
}
