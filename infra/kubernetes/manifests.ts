/** Everything that a cluster is given for the functions, from what its registration says; pure. Used by the cluster command and by tests. */
import { webhookConfigurations } from "./webhooks.ts";

export interface ManifestOptions {
  /** The name in the registry. */
  readonly cluster: string;
  /** Where the functions are called: `https://…` without a slash at its end. */
  readonly endpoint: string;
  /** PEM in base64; absent when the endpoint's certificate is of a public authority. */
  readonly caBundle?: string;
  /** Stands in the address of the admission webhook; needed for the source `admission`. */
  readonly pathToken?: string;
  readonly bearerToken?: string;
  readonly identity: Identity;
  /** Only these are served; all namespaces when absent. */
  readonly namespaces?: readonly string[];
  readonly sources: readonly EventSource[];
  /** Lets admins and editors of a namespace scale its pools, and viewers see the scale. */
  readonly users: boolean;
}

/** How the functions come in: as members of the group `vmpool-functions`, or as a ServiceAccount of that name in a namespace of its own. */
export type Identity = { readonly kind: "group" } | { readonly kind: "serviceAccount"; readonly namespace: string };

/** What tells the functions of changes and is set up by Kubernetes objects. */
export type EventSource = "admission" | "knative";

export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly [field: string]: unknown;
}

/** The objects in the order in which they are to be applied. */
export function manifestsFor(options: ManifestOptions): readonly KubernetesObject[] {
  const { cluster, endpoint, caBundle, pathToken, sources } = options;
  if (!sources.includes("admission") || pathToken === undefined) return [];
  const url = `${endpoint}/clusters/${cluster}/admission/${pathToken}`;
  return webhookConfigurations({ url, ...(caBundle === undefined ? {} : { caBundle }) });
}
