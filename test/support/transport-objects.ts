/** Builders of the API objects that scripted answers carry: pools, machines, lists, and a cluster of them. */
import { type Claim, formatClaim } from "../../shared/planning/claim.ts";
import { CLAIM_ANNOTATION, POOL_FINALIZER, REVISION_LABEL, vmName } from "../../shared/planning/names.ts";
import { aRollout } from "./builders.ts";
import { aWire, ok, on, refusal, type Wire } from "./transport.ts";

export const NOW = Date.parse("2026-05-01T12:00:00Z");
/** The server's clock in every answer that carries one. */
export const DATE = { date: new Date(NOW).toUTCString() };
export const NAMESPACE = "ci";
export const SELECTOR = "app=web";

export const DISCOVERY = "GET /apis/pool.kubevirt.io";
export const VMS = `/apis/kubevirt.io/v1/namespaces/${NAMESPACE}/virtualmachines`;
export const INSTANCES = VMS.replace("virtualmachines", "virtualmachineinstances");
export const REVISIONS = `/apis/apps/v1/namespaces/${NAMESPACE}/controllerrevisions`;
export const EVENT_LIST = `/api/v1/namespaces/${NAMESPACE}/events`;

export function poolPath(name = "web", namespace = NAMESPACE): string {
  return `/apis/pool.kubevirt.io/v1beta1/namespaces/${namespace}/virtualmachinepools/${name}`;
}

/** The discovery document of a cluster that serves these versions. */
export function served(...versions: readonly string[]) {
  const entries = versions.map((version) => ({ groupVersion: `pool.kubevirt.io/${version}`, version }));
  return ok({ kind: "APIGroup", apiVersion: "v1", name: "pool.kubevirt.io", versions: entries });
}

export function aClaimText(fields: Partial<Claim> = {}): string {
  return formatClaim({
    by: "here",
    at: NOW - 600_000,
    nonce: "nonce-before",
    generation: 1,
    since: { at: NOW - 600_000, generation: 1 },
    waitUntil: undefined,
    create: new Map(),
    delete: [],
    restart: [],
    rollout: undefined,
    ...fields,
  });
}

export interface PoolFields {
  readonly name?: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly generation?: number;
  readonly resourceVersion?: string;
  readonly replicas?: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly finalizers?: readonly string[];
  readonly deletionTimestamp?: string;
  readonly spec?: object;
  readonly status?: object;
}

/** A pool that nobody has looked at yet: one machine wanted, no claim, no finalizer, no status. */
export function aPool(fields: PoolFields = {}) {
  const { name = "web", namespace = NAMESPACE, uid = `uid-${name}`, generation = 1, resourceVersion = "100" } = fields;
  const { replicas = 1, annotations, finalizers, deletionTimestamp, spec, status } = fields;
  const metadata = { labels: { app: "web" } };
  return {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: {
      name,
      namespace,
      uid,
      generation,
      resourceVersion,
      ...(annotations === undefined ? {} : { annotations }),
      ...(finalizers === undefined ? {} : { finalizers }),
      ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    },
    spec: {
      replicas,
      selector: { matchLabels: { app: "web" } },
      virtualMachineTemplate: { metadata, spec: { running: true, template: { metadata, spec: {} } } },
      ...spec,
    },
    ...(status === undefined ? {} : { status }),
  };
}

/** A pool that is as it should be with `replicas` ready machines. */
export function aSettledPool(fields: PoolFields = {}) {
  const { name = "web", replicas = 1, generation = 1 } = fields;
  const rollout = aRollout(aPool(fields).spec, `${name}-1`);
  return aPool({
    annotations: { [CLAIM_ANNOTATION]: aClaimText({ generation, rollout }) },
    finalizers: [POOL_FINALIZER],
    status: { replicas, readyReplicas: replicas, labelSelector: SELECTOR },
    ...fields,
  });
}

export interface VmFields {
  readonly pool?: string;
  readonly poolUid?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly ready?: boolean;
  readonly owned?: boolean;
  readonly labels?: Readonly<Record<string, string>>;
  readonly deletionTimestamp?: string;
}

/** The machine of an ordinal, ready and owned by its pool. */
export function aVm(ordinal: number, fields: VmFields = {}) {
  const {
    pool = "web",
    poolUid = `uid-${pool}`,
    uid = `vm-${ordinal}-of-${pool}`,
    ready = true,
    owned = true,
  } = fields;
  const { resourceVersion = `5${ordinal}`, labels = { app: "web" }, deletionTimestamp } = fields;
  const owner = { apiVersion: "pool.kubevirt.io/v1beta1", kind: "VirtualMachinePool", name: pool, uid: poolUid };
  return {
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachine",
    metadata: {
      name: vmName(pool, ordinal),
      namespace: NAMESPACE,
      uid,
      resourceVersion,
      labels: { ...labels, [REVISION_LABEL]: `${pool}-1` },
      finalizers: [POOL_FINALIZER],
      ownerReferences: owned ? [{ ...owner, controller: true, blockOwnerDeletion: true }] : [],
      ...(deletionTimestamp === undefined ? {} : { deletionTimestamp }),
    },
    status: { conditions: [{ type: "Ready", status: ready ? "True" : "False" }] },
  };
}

export function aList(items: readonly object[], next?: string) {
  const metadata = { resourceVersion: "900", ...(next === undefined ? {} : { continue: next }) };
  return ok({ kind: "VirtualMachineList", apiVersion: "kubevirt.io/v1", metadata, items }, DATE);
}

/** A cluster with one pool, or none, these machines, and no revision of the first generations. */
export function aClusterWith(pool: object | undefined, machines: readonly object[] = []): Wire {
  const gone = refusal(404, "NotFound");
  return aWire(
    on(DISCOVERY, served("v1beta1")),
    on(`GET ${poolPath()}`, pool === undefined ? gone : ok(pool, DATE)),
    on(`GET ${VMS}`, aList(machines)),
    on(`GET ${INSTANCES}`, aList([])),
    ...[1, 2, 3].map((generation) => on(`GET ${REVISIONS}/web-${generation}`, gone)),
  );
}
