/** What log services deliver: a LogEntry of GKE by Pub/Sub, EKS' audit log by a CloudWatch Logs subscription. Made from the documented fields. */
import { gzipSync } from "node:zlib";

/** A finished write to the pool `ci/web`, as GKE's activity log has it; `payload` replaces fields of its audit part. */
export function aLogEntry(payload: object = {}) {
  return {
    insertId: "5d9f0c0e-8f5f-4d7c-9b5f-0a3f6f0f1a11",
    logName: "projects/example/logs/cloudaudit.googleapis.com%2Factivity",
    protoPayload: {
      "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
      serviceName: "k8s.io",
      methodName: "io.kubevirt.pool.v1beta1.virtualmachinepools.patch",
      resourceName: "pool.kubevirt.io/v1beta1/namespaces/ci/virtualmachinepools/web",
      authenticationInfo: { principalEmail: "somebody@example.com" },
      authorizationInfo: [
        {
          granted: true,
          permission: "io.kubevirt.pool.v1beta1.virtualmachinepools.patch",
          resource: "pool.kubevirt.io/v1beta1/namespaces/ci/virtualmachinepools/web",
        },
      ],
      requestMetadata: { callerIp: "192.0.2.7", callerSuppliedUserAgent: "kubectl/v1.35.4" },
      status: { code: 0 },
      ...payload,
    },
    resource: {
      type: "k8s_cluster",
      labels: { project_id: "example", cluster_name: "west", location: "europe-west3" },
    },
    labels: { "authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "" },
    operation: { id: "5d9f0c0e-8f5f-4d7c-9b5f-0a3f6f0f1a11", producer: "k8s.io", first: true, last: true },
    timestamp: "2026-05-01T12:00:00.304506Z",
    receiveTimestamp: "2026-05-01T12:00:01.1Z",
  };
}

/** The request that Pub/Sub pushes for a message. */
export function aPush(entry: unknown) {
  return {
    message: {
      data: Buffer.from(JSON.stringify(entry)).toString("base64"),
      attributes: { "logging.googleapis.com/timestamp": "2026-05-01T12:00:00.304506Z" },
      messageId: "2070443601311540",
      publishTime: "2026-05-01T12:00:02.345Z",
    },
    subscription: "projects/example/subscriptions/vmpool-functions-west",
  };
}

/** One event of the API server's audit log, of a finished write to the pool `ci/web`. */
export function anAuditEvent(fields: object = {}, objectRef: object = {}) {
  return {
    kind: "Event",
    apiVersion: "audit.k8s.io/v1",
    level: "Metadata",
    auditID: "a",
    stage: "ResponseComplete",
    verb: "patch",
    requestURI: "/apis/pool.kubevirt.io/v1beta1/namespaces/ci/virtualmachinepools/web",
    user: { username: "kubernetes-admin", groups: ["system:masters"] },
    objectRef: {
      resource: "virtualmachinepools",
      namespace: "ci",
      name: "web",
      apiGroup: "pool.kubevirt.io",
      apiVersion: "v1beta1",
      ...objectRef,
    },
    responseStatus: { metadata: {}, code: 200 },
    ...fields,
  };
}

/** The event that CloudWatch Logs invokes a function with. */
export function aLogDelivery(messages: readonly unknown[], fields: object = {}) {
  const delivery = {
    messageType: "DATA_MESSAGE",
    owner: "123456789012",
    logGroup: "/aws/eks/west/cluster",
    logStream: "kube-apiserver-audit-0123456789abcdef0123456789abcdef",
    subscriptionFilters: ["vmpool-functions"],
    logEvents: messages.map((message, index) => ({
      id: String(index),
      timestamp: 1_777_636_800_000,
      message: typeof message === "string" ? message : JSON.stringify(message),
    })),
    ...fields,
  };
  return { awslogs: { data: gzipSync(JSON.stringify(delivery)).toString("base64") } };
}
