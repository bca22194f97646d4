/** The command lines of etcd, kube-apiserver and kube-controller-manager; starts nothing. */
import { join } from "node:path";
import type { Pki } from "./certificates.ts";

export interface Ports {
  readonly etcd: number;
  readonly etcdPeer: number;
  readonly apiServer: number;
  readonly controllerManager: number;
}

export interface Layout {
  readonly dir: string;
  readonly pki: Pki;
  readonly ports: Ports;
}

/** The controllers that a pool's world needs; everything else would only take time and memory. */
const CONTROLLERS = [
  "garbage-collector-controller",
  "namespace-controller",
  "serviceaccount-controller",
  "serviceaccount-token-controller",
  "endpointslice-controller",
  "horizontal-pod-autoscaler-controller",
  // Without it the roles admin, edit and view are empty.
  "clusterrole-aggregation-controller",
];

/** Base URL of a listener on this machine. */
export function localUrl(port: number): string {
  return `https://127.0.0.1:${port}`;
}

export function etcdArgs({ dir, pki, ports }: Layout): readonly string[] {
  const peer = localUrl(ports.etcdPeer);
  const { certificatePath, keyPath } = pki.etcd;
  return [
    "--name=local",
    `--data-dir=${join(dir, "data")}`,
    `--listen-client-urls=${localUrl(ports.etcd)}`,
    `--advertise-client-urls=${localUrl(ports.etcd)}`,
    `--listen-peer-urls=${peer}`,
    `--initial-advertise-peer-urls=${peer}`,
    `--initial-cluster=local=${peer}`,
    // The data is admin access to the cluster: nobody else on this machine may read it.
    "--client-cert-auth",
    `--trusted-ca-file=${pki.ca.certificatePath}`,
    `--cert-file=${certificatePath}`,
    `--key-file=${keyPath}`,
    "--peer-client-cert-auth",
    `--peer-trusted-ca-file=${pki.ca.certificatePath}`,
    `--peer-cert-file=${certificatePath}`,
    `--peer-key-file=${keyPath}`,
    // A crash of the machine may cost the data of a local cluster; a crash of a process does not.
    "--unsafe-no-fsync",
    // There is no other member to wait for.
    "--heartbeat-interval=20",
    "--election-timeout=100",
    "--log-level=warn",
  ];
}

export function apiServerArgs({ dir, pki, ports }: Layout, extraFlags: readonly string[]): readonly string[] {
  return [
    `--etcd-servers=${localUrl(ports.etcd)}`,
    `--etcd-cafile=${pki.ca.certificatePath}`,
    `--etcd-certfile=${pki.etcd.certificatePath}`,
    `--etcd-keyfile=${pki.etcd.keyPath}`,
    "--bind-address=127.0.0.1",
    // Otherwise it looks for a default route, and a laptop without a network has none.
    "--advertise-address=127.0.0.1",
    "--endpoint-reconciler-type=none",
    `--secure-port=${ports.apiServer}`,
    `--cert-dir=${join(dir, "pki")}`,
    `--tls-cert-file=${pki.serving.certificatePath}`,
    `--tls-private-key-file=${pki.serving.keyPath}`,
    `--client-ca-file=${pki.ca.certificatePath}`,
    "--authorization-mode=RBAC",
    // As OpenShift has it: whoever blocks an owner's deletion needs the right to.
    "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
    "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
    `--service-account-key-file=${pki.serviceAccount.publicKeyPath}`,
    `--service-account-signing-key-file=${pki.serviceAccount.keyPath}`,
    "--service-cluster-ip-range=10.96.0.0/16",
    "--allow-privileged=true",
    "--profiling=false",
    ...extraFlags,
  ];
}

export function controllerManagerArgs({ pki, ports }: Layout, kubeconfigPath: string): readonly string[] {
  return [
    `--kubeconfig=${kubeconfigPath}`,
    "--bind-address=127.0.0.1",
    `--secure-port=${ports.controllerManager}`,
    `--tls-cert-file=${pki.serving.certificatePath}`,
    `--tls-private-key-file=${pki.serving.keyPath}`,
    "--authentication-skip-lookup",
    `--controllers=${CONTROLLERS.join(",")}`,
    // Each controller with the rights that it has in any cluster, no more.
    "--use-service-account-credentials",
    `--service-account-private-key-file=${pki.serviceAccount.keyPath}`,
    `--root-ca-file=${pki.ca.certificatePath}`,
    "--leader-elect=false",
    // An autoscaler that can be watched: the defaults are 15 s, 30 s, 5 min and 5 min.
    "--horizontal-pod-autoscaler-sync-period=5s",
    "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
    "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
    "--horizontal-pod-autoscaler-downscale-stabilization=30s",
    "--kube-api-qps=200",
    "--kube-api-burst=400",
    "--profiling=false",
  ];
}
