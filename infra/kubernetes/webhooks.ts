/** The webhook configurations that a cluster needs to tell the functions of changes. Used for the local cluster and by the cluster command. */
import { OWN_GROUP } from "../../shared/events/changes.ts";

export interface WebhookTarget {
  /** `https://<host>/clusters/<name>/admission/<token>`: https, no query. */
  readonly url: string;
  /** PEM in base64; absent when the host's certificate is of a public authority. */
  readonly caBundle?: string;
}

/** Namespaces with this label are left out of validation, not of notices about machines. */
export const ADMISSION_LABEL = "vmpool-functions/admission";
/** The names of the two configurations: one validates pools, the other gives notice of everything else. */
export const WEBHOOK_CONFIGURATIONS = ["vmpool-functions-validation", "vmpool-functions-notices"] as const;

/** What all our webhooks have in common: they never hold up a write for longer than a second, nor fail one. */
function common({ url, caBundle }: WebhookTarget) {
  return {
    clientConfig: { url, ...(caBundle === undefined ? {} : { caBundle }) },
    failurePolicy: "Ignore",
    timeoutSeconds: 1,
    sideEffects: "NoneOnDryRun",
    admissionReviewVersions: ["v1"],
    matchPolicy: "Equivalent",
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
        namespaceSelector: { matchExpressions: [{ key: ADMISSION_LABEL, operator: "NotIn", values: ["off"] }] },
        rules: [
          rule("pool.kubevirt.io", ["v1beta1"], {
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
          rule("pool.kubevirt.io", ["v1beta1"], { resources: ["virtualmachinepools"], operations: ["DELETE"] }),
          rule("pool.kubevirt.io", ["v1beta1"], {
            resources: ["virtualmachinepools/status", "virtualmachinepools/scale"],
            operations: ["UPDATE"],
          }),
        ],
      },
      {
        ...common(target),
        name: "machines.notices.vmpool-functions.dev",
        matchConditions: [
          { name: "not-ourselves", expression: `!('${OWN_GROUP}' in request.userInfo.?groups.orValue([]))` },
        ],
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

/** Audit policy for a control plane of one's own: the metadata of finished writes to our kinds, nothing else. */
export function auditPolicy() {
  return {
    apiVersion: "audit.k8s.io/v1",
    kind: "Policy",
    omitStages: ["RequestReceived", "ResponseStarted", "Panic"],
    rules: [
      { level: "None", verbs: ["get", "list", "watch"] },
      {
        level: "Metadata",
        resources: [
          { group: "pool.kubevirt.io", resources: ["virtualmachinepools", "virtualmachinepools/scale"] },
          { group: "kubevirt.io", resources: ["virtualmachines", "virtualmachines/status", "virtualmachineinstances"] },
          { group: "cdi.kubevirt.io", resources: ["datavolumes"] },
        ],
      },
      { level: "None" },
    ],
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
