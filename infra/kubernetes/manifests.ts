/** Everything that a cluster is given for the functions, from what its registration says; pure. Used by the cluster command and by tests. */
import { readFileSync } from "node:fs";
import * as z from "zod";
import { OWN_NAMESPACE } from "../../shared/events/changes.ts";
import { type Manifest, parseManifests } from "../local/control-plane/manifests.ts";
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
  readonly identity: Identity;
  /** Only these are served; all namespaces when absent. */
  readonly namespaces?: readonly string[];
  readonly sources: readonly EventSource[];
  /** Lets admins and editors of a namespace scale its pools, and viewers see the scale. */
  readonly users: boolean;
  /** In which the cluster serves pools: KubeVirt before 1.8 has only v1alpha1. */
  readonly poolVersion?: "v1beta1" | "v1alpha1";
}

/** How the functions come in: as members of the group `vmpool-functions`, or as the ServiceAccount of that name. */
export type Identity =
  | { readonly kind: "group" }
  /** The namespace holds nobody else's ServiceAccounts: what they write to machines is taken for our own. */
  | { readonly kind: "serviceAccount"; readonly namespace: string };

/** What tells the functions of changes and is set up by Kubernetes objects. */
export type EventSource = "admission" | "knative";

export type KubernetesObject = Manifest;

/** One right that the functions need, as an access review asks for it. */
export interface Right {
  readonly group: string;
  readonly resource: string;
  /** Absent for the object itself. */
  readonly subresource?: string;
  readonly verb: string;
  /** In every namespace that is served, or in the cluster as a whole. */
  readonly scope: "namespace" | "cluster";
}

/** Of the ServiceAccount, of the Secret that holds its token, and of the bindings. */
const NAME = "vmpool-functions";
const CLUSTER_ROLE = `${NAME}-cluster`;
/** What Knative's source runs as. */
const EVENTS_NAME = "vmpool-functions-events";
/** Whose token the source sends: Knative makes it from the source's name, and another one from names of more than 22 characters. */
const SENDER_NAME = `${NAME}-oidc-sources.knative.dev-apiserversource`;
const RBAC_GROUP = "rbac.authorization.k8s.io";

const read = (file: string) => parseManifests(readFileSync(new URL(file, import.meta.url), "utf8"));
const RBAC = read("rbac.yaml");
const ROLES = RBAC.filter(({ kind }) => kind === "ClusterRole");
const BINDINGS = RBAC.filter(({ kind }) => kind === "ClusterRoleBinding");
const USERS = read("users.yaml");
const FLOW_SCHEMAS = read("flow-schema.yaml");

/** The objects in the order in which they are to be applied. Throws where the source `admission` has no token. */
export function manifestsFor(options: ManifestOptions): readonly KubernetesObject[] {
  const { identity, sources, users } = options;
  const home = homeOf(identity);
  return [
    ...(identity.kind === "serviceAccount" || sources.includes("knative") ? [aNamespace(home)] : []),
    ...(identity.kind === "serviceAccount" ? serviceAccount(home) : []),
    ...ROLES,
    ...bindings(options),
    ...(users ? USERS : []),
    ...FLOW_SCHEMAS.map((schema) => flowSchema(schema, identity)),
    ...(sources.includes("knative") ? knative(options) : []),
    ...(sources.includes("admission") ? webhooks(options) : []),
  ];
}

const rulesSchema = z.object({
  rules: z.array(
    z.object({ apiGroups: z.array(z.string()), resources: z.array(z.string()), verbs: z.array(z.string()) }),
  ),
});

/** What the functions have to be allowed. */
export function rightsNeeded(): readonly Right[] {
  return rightsIn(ROLES);
}

/** Everything that roles allow, one by one. */
export function rightsIn(roles: readonly KubernetesObject[]): readonly Right[] {
  return roles.flatMap((role) => {
    const scope = role.metadata.name === CLUSTER_ROLE ? "cluster" : "namespace";
    return rulesSchema.parse(role).rules.flatMap(({ apiGroups, resources, verbs }) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((full): Right[] => {
          const [resource = "", subresource] = full.split("/");
          return verbs.map((verb) => ({ group, resource, ...(subresource && { subresource }), verb, scope }));
        }),
      ),
    );
  });
}

/** What Knative's source proves to be when it sends an event: the entry `oidc` of the registry, but for the cluster's issuer. */
export function knativeSender({
  cluster,
  endpoint,
  identity,
}: Pick<ManifestOptions, "cluster" | "endpoint" | "identity">) {
  return {
    audience: eventsUrl({ cluster, endpoint }),
    subject: `system:serviceaccount:${homeOf(identity)}:${SENDER_NAME}`,
  };
}

function eventsUrl({ cluster, endpoint }: Pick<ManifestOptions, "cluster" | "endpoint">): string {
  return `${endpoint}/clusters/${cluster}/events`;
}

function homeOf(identity: Identity): string {
  return identity.kind === "serviceAccount" ? identity.namespace : OWN_NAMESPACE;
}

function aNamespace(name: string): KubernetesObject {
  return { apiVersion: "v1", kind: "Namespace", metadata: { name } };
}

/** The token in the Secret does not expire: it is good until the Secret is deleted. */
function serviceAccount(namespace: string): readonly KubernetesObject[] {
  return [
    {
      apiVersion: "v1",
      kind: "ServiceAccount",
      metadata: { name: NAME, namespace },
      automountServiceAccountToken: false,
    },
    {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: NAME, namespace, annotations: { "kubernetes.io/service-account.name": NAME } },
      type: "kubernetes.io/service-account-token",
    },
  ];
}

/** The group's bindings stand in the file; a ServiceAccount takes its place. */
function bindings({ identity, namespaces }: ManifestOptions): readonly KubernetesObject[] {
  const bound = BINDINGS.map((binding) =>
    identity.kind === "group" ? binding : { ...binding, subjects: [accountSubject(identity.namespace)] },
  );
  if (namespaces === undefined) return bound;
  return bound.flatMap((binding) =>
    binding.metadata.name === CLUSTER_ROLE ? [binding] : namespaces.map((namespace) => inNamespace(binding, namespace)),
  );
}

function inNamespace(binding: KubernetesObject, namespace: string): KubernetesObject {
  return { ...binding, kind: "RoleBinding", metadata: { ...binding.metadata, namespace } };
}

function accountSubject(namespace: string, name = NAME) {
  return { kind: "ServiceAccount", name, namespace };
}

const flowSchemaSchema = z.looseObject({
  spec: z.looseObject({ rules: z.array(z.looseObject({ subjects: z.array(z.unknown()) })) }),
});

function flowSchema(schema: KubernetesObject, identity: Identity): KubernetesObject {
  if (identity.kind === "group") return schema;
  const { spec } = flowSchemaSchema.parse(schema);
  const account = { kind: "ServiceAccount", serviceAccount: { name: NAME, namespace: identity.namespace } };
  return {
    ...schema,
    spec: { ...spec, rules: spec.rules.map((rule) => ({ ...rule, subjects: [account, ...rule.subjects] })) },
  };
}

function webhooks({ cluster, endpoint, caBundle, pathToken, namespaces, identity }: ManifestOptions) {
  if (pathToken === undefined) throw new TypeError("the source admission needs a token for its path");
  return webhookConfigurations({
    url: `${endpoint}/clusters/${cluster}/admission/${pathToken}`,
    ownNamespace: homeOf(identity),
    ...(caBundle === undefined ? {} : { caBundle }),
    ...(namespaces === undefined ? {} : { namespaces }),
  });
}

/**
 * Knative's source watches as an account of its own. It sends references: a machine's name leads to its pool, while the whole
 * object would carry cloud-init out of the cluster. Clusters without CDI would stop the source if it watched disks.
 */
function knative(options: ManifestOptions): readonly KubernetesObject[] {
  const { identity, namespaces, caBundle, poolVersion = "v1beta1" } = options;
  const namespace = homeOf(identity);
  const subjects = [accountSubject(namespace, EVENTS_NAME)];
  const roleRef = { apiGroup: RBAC_GROUP, kind: "ClusterRole", name: EVENTS_NAME };
  const binding = {
    apiVersion: `${RBAC_GROUP}/v1`,
    kind: "ClusterRoleBinding",
    metadata: { name: EVENTS_NAME },
    roleRef,
    subjects,
  };
  const verbs = ["get", "list", "watch"];
  const { audience } = knativeSender(options);
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: EVENTS_NAME, namespace } },
    {
      apiVersion: `${RBAC_GROUP}/v1`,
      kind: "ClusterRole",
      metadata: { name: EVENTS_NAME },
      rules: [
        { apiGroups: ["pool.kubevirt.io"], resources: ["virtualmachinepools"], verbs },
        { apiGroups: ["kubevirt.io"], resources: ["virtualmachines", "virtualmachineinstances"], verbs },
      ],
    },
    ...(namespaces === undefined ? [binding] : namespaces.map((one) => inNamespace(binding, one))),
    {
      apiVersion: "sources.knative.dev/v1",
      kind: "ApiServerSource",
      metadata: { name: NAME, namespace },
      spec: {
        serviceAccountName: EVENTS_NAME,
        mode: "Reference",
        resources: [
          { apiVersion: `pool.kubevirt.io/${poolVersion}`, kind: "VirtualMachinePool" },
          { apiVersion: "kubevirt.io/v1", kind: "VirtualMachine" },
          { apiVersion: "kubevirt.io/v1", kind: "VirtualMachineInstance" },
        ],
        // Without a selector only the source's own namespace is watched.
        namespaceSelector:
          namespaces === undefined
            ? {}
            : {
                matchExpressions: [{ key: "kubernetes.io/metadata.name", operator: "In", values: [...namespaces] }],
              },
        sink: {
          uri: eventsUrl(options),
          audience,
          ...(caBundle === undefined ? {} : { CACerts: Buffer.from(caBundle, "base64").toString("utf8") }),
        },
      },
    },
  ];
}
