/** What makes a cluster tell the functions of changes: webhook configurations, and the kubeconfig of the audit log. */
import { fileURLToPath } from "node:url";
import { POOL_VERSIONS } from "../../shared/clusters/cluster.ts";
import { OWN_GROUP, OWN_NAMESPACE } from "../../shared/events/changes.ts";

export interface WebhookTarget {
  /** `https://<host>/clusters/<name>/admission/<token>`: https, no query. */
  readonly url: string;
  /** PEM in base64; absent when the host's certificate is of a public authority. */
  readonly caBundle?: string;
  /** Only changes in these are told; in all of them when absent. */
  readonly namespaces?: readonly string[];
  /** Whose ServiceAccounts are the functions, where they come in as one. */
  readonly ownNamespace?: string;
}

/** Audit policy for a control plane of one's own. */
export const AUDIT_POLICY = fileURLToPath(new URL("audit-policy.yaml", import.meta.url));
/** Namespaces with this label are left out of validation, not of notices about machines. */
export const ADMISSION_LABEL = "vmpool-functions/admission";
/** The names of the two configurations: one validates pools, the other gives notice of everything else. */
export const WEBHOOK_CONFIGURATIONS = ["vmpool-functions-validation", "vmpool-functions-notices"] as const;

/** What all our webhooks have in common: they never hold up a write for longer than a second, nor fail one. */
function common({ url, caBundle, namespaces }: WebhookTarget) {
  return {
    clientConfig: { url, ...(caBundle === undefined ? {} : { caBundle }) },
    failurePolicy: "Ignore",
    timeoutSeconds: 1,
    sideEffects: "NoneOnDryRun",
    admissionReviewVersions: ["v1"],
    // A version that a rule does not name is told once, as one that it does.
    matchPolicy: "Equivalent",
    ...(namespaces === undefined ? {} : { namespaceSelector: { matchExpressions: [isOneOf(namespaces)] } }),
  };
}

/** The API server itself puts this label on every namespace. */
function isOneOf(namespaces: readonly string[]) {
  return { key: "kubernetes.io/metadata.name", operator: "In", values: [...namespaces] };
}

/** Users are told from the functions by their groups, which a request may lack. */
function notOurselves({ ownNamespace = OWN_NAMESPACE }: WebhookTarget) {
  const groups = `['${OWN_GROUP}', 'system:serviceaccounts:${ownNamespace}']`;
  return {
    name: "not-ourselves",
    expression: `!request.userInfo.?groups.orValue([]).exists(group, group in ${groups})`,
  };
}

/** Two configurations: one validates pools, the other gives notice of everything else that a pass may have to see. */
export function webhookConfigurations(target: WebhookTarget) {
  const configuration = (name: string, webhooks: readonly object[]) => ({
    apiVersion: "admissionregistration.k8s.io/v1",
    kind: "ValidatingWebhookConfiguration",
    metadata: { name },
    webhooks,
  });
  const [validation, notices] = WEBHOOK_CONFIGURATIONS;
  return [
    configuration(validation, [
      {
        ...common(target),
        name: "validation.vmpool-functions.dev",
        namespaceSelector: {
          matchExpressions: [
            { key: ADMISSION_LABEL, operator: "NotIn", values: ["off"] },
            ...(target.namespaces === undefined ? [] : [isOneOf(target.namespaces)]),
          ],
        },
        rules: [
          rule("pool.kubevirt.io", POOL_VERSIONS, {
            resources: ["virtualmachinepools"],
            operations: ["CREATE", "UPDATE"],
          }),
        ],
      },
    ]),
    configuration(notices, [
      {
        ...common(target),
        name: "pools.notices.vmpool-functions.dev",
        rules: [
          rule("pool.kubevirt.io", POOL_VERSIONS, { resources: ["virtualmachinepools"], operations: ["DELETE"] }),
          rule("pool.kubevirt.io", POOL_VERSIONS, {
            resources: ["virtualmachinepools/status", "virtualmachinepools/scale"],
            operations: ["UPDATE"],
          }),
        ],
      },
      {
        ...common(target),
        name: "machines.notices.vmpool-functions.dev",
        matchConditions: [notOurselves(target)],
        rules: [
          rule("kubevirt.io", ["v1"], {
            resources: ["virtualmachines", "virtualmachines/status", "virtualmachineinstances"],
            operations: ["CREATE", "UPDATE", "DELETE"],
          }),
          rule("cdi.kubevirt.io", ["v1beta1"], {
            resources: ["datavolumes"],
            operations: ["CREATE", "UPDATE", "DELETE"],
          }),
        ],
      },
    ]),
  ];
}

function rule(
  apiGroup: string,
  apiVersions: readonly string[],
  { resources, operations }: { readonly resources: readonly string[]; readonly operations: readonly string[] },
) {
  return {
    apiGroups: [apiGroup],
    apiVersions: [...apiVersions],
    operations: [...operations],
    resources: [...resources],
    scope: "Namespaced",
  };
}

/** The kubeconfig by which the API server sends its audit events: https, or the token would not be sent. */
export function auditKubeconfig({
  url,
  certificateAuthorityData,
  token,
}: {
  readonly url: string;
  readonly certificateAuthorityData?: string;
  readonly token: string;
}) {
  const authority =
    certificateAuthorityData === undefined ? {} : { "certificate-authority-data": certificateAuthorityData };
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "vmpool-functions", cluster: { server: url, ...authority } }],
    users: [{ name: "api-server", user: { token } }],
    contexts: [{ name: "audit", context: { cluster: "vmpool-functions", user: "api-server" } }],
    "current-context": "audit",
  };
}
