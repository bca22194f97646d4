/**
 * KubeVirt's own pool controller, as far as a hand-over needs it: objects written as it leaves them, field by field, and
 * what it would do about a pool that it gets back. Source: pool.go of the reference.
 */
import type { Connection } from "../../shared/clusters/connection.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { eventually } from "./eventually.ts";
import { conditionOf, controllerUidOf, isTerminating, type KubeObject, parseObject } from "./objects.ts";
import { instancesOf, REVISION_LABEL, revisionOf } from "./rollouts.ts";
import type { Namespace } from "./world.ts";

export const POOL_FINALIZER = "pool.kubevirt.io/finalizer";
const MANAGER = "virt-controller";
const POOLS = "apis/pool.kubevirt.io/v1beta1";
const MACHINES = "apis/kubevirt.io/v1";
const REVISIONS = "apis/apps/v1";

type Json = Readonly<Record<string, unknown>>;

/** The reference at work in one namespace. Every write is in the name of its field manager. */
export interface Reference {
  /** A user's pool, which has had these specs one after the other; with the reference's finalizer. */
  aPool(name: string, specs: readonly Json[]): Promise<KubeObject>;
  /** The revision of a generation, with the complete spec as the reference's own types print it. */
  revision(pool: KubeObject, generation: number, spec: Json): Promise<void>;
  /** The machine of an ordinal, made from a generation's spec; replaced when it is there, as in a roll-out. */
  machine(
    pool: KubeObject,
    at: { readonly ordinal: number; readonly generation: number; readonly spec: Json },
  ): Promise<void>;
  /** What it would write as the pool's status now. */
  status(pool: KubeObject, more?: Json): Promise<void>;
  untilRunning(names: readonly string[]): Promise<void>;
}

export function referenceIn(connection: Connection, namespace: Namespace): Reference {
  const send = async (method: "POST" | "PUT" | "PATCH", path: string, body: unknown, manager = MANAGER) => {
    const [contentType, signal] = ["application/merge-patch+json", AbortSignal.timeout(30_000)];
    const answer = await connection.send({
      method,
      path: `/${path}?fieldManager=${manager}`,
      body,
      ...(method === "PATCH" ? { contentType } : {}),
      signal,
    });
    if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return parseObject(answer.body);
  };
  const pathOf = (api: string, plural: string) => `${api}/namespaces/${namespace.name}/${plural}`;
  return {
    async aPool(name, [first, ...later]) {
      const pools = pathOf(POOLS, "virtualmachinepools");
      const [apiVersion, kind] = ["pool.kubevirt.io/v1beta1", "VirtualMachinePool"];
      const body = { apiVersion, kind, metadata: { name }, spec: first };
      let pool = await send("POST", pools, body, "kubectl-create");
      pool = await send("PATCH", `${pools}/${name}`, { metadata: { finalizers: [POOL_FINALIZER] } });
      for (const spec of later) {
        const { resourceVersion } = pool.metadata;
        const metadata = { name, resourceVersion, finalizers: pool.metadata.finalizers };
        pool = await send("PUT", `${pools}/${name}`, { apiVersion, kind, metadata, spec }, "kubectl-replace");
      }
      return pool;
    },
    async revision(pool, generation, spec) {
      await send("POST", pathOf(REVISIONS, "controllerrevisions"), {
        apiVersion: "apps/v1",
        kind: "ControllerRevision",
        metadata: { name: `${pool.metadata.name}-${generation}`, ownerReferences: [ownerReference(pool)] },
        revision: generation,
        data: asPrinted(spec),
      });
    },
    async machine(pool, { ordinal, generation, spec }) {
      const name = `${pool.metadata.name}-${ordinal}`;
      const body = machineOf(pool, { name, ordinal, revision: `${pool.metadata.name}-${generation}`, spec });
      const path = pathOf(MACHINES, "virtualmachines");
      const existing = await namespace.machine(name);
      if (existing === undefined) return void (await send("POST", path, body));
      const { resourceVersion, finalizers, annotations } = existing.metadata;
      const metadata = { ...body.metadata, resourceVersion, finalizers, annotations };
      await send("PUT", `${path}/${name}`, { ...body, metadata });
    },
    async status(pool, more = {}) {
      const own = (await namespace.machines()).filter((vm) => controllerUidOf(vm) === pool.metadata.uid);
      const replicas = own.length;
      const readyReplicas = own.filter((vm) => conditionOf(vm, "Ready")?.status === "True").length;
      const labelSelector = `kubevirt.io/vmpool=${pool.metadata.name}`;
      const status = { ...(replicas > 0 ? { replicas } : {}), ...(readyReplicas > 0 ? { readyReplicas } : {}) };
      const path = `${pathOf(POOLS, "virtualmachinepools")}/${pool.metadata.name}/status`;
      await send("PATCH", path, { status: { ...status, labelSelector, ...more } });
    },
    async untilRunning(names) {
      await eventually(async () => {
        for (const name of names) {
          const machine = await namespace.machine(name);
          if (machine === undefined || conditionOf(machine, "Ready")?.status !== "True")
            throw new Error(`${name} is not ready`);
        }
      });
    },
  };
}

/** The owner reference that it writes on machines and revisions. */
export function ownerReference({ metadata }: KubeObject): Json {
  return {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    name: metadata.name,
    uid: metadata.uid,
    controller: true,
    blockOwnerDeletion: true,
  };
}

/** Of a pool without DataVolume templates or indexed references, with what KubeVirt's webhook fills in. */
function machineOf(pool: KubeObject, from: { name: string; ordinal: number; revision: string; spec: Json }) {
  const template = at(from.spec, "virtualMachineTemplate");
  const vm = at(template, "spec");
  const guest = at(vm, "template");
  const labels = at(at(guest, "metadata"), "labels");
  const domain = { machine: { type: "q35" }, ...at(at(guest, "spec"), "domain") };
  return {
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachine",
    metadata: {
      name: from.name,
      labels: { ...at(at(template, "metadata"), "labels"), [REVISION_LABEL]: from.revision },
      annotations: {
        "kubevirt.io/latest-observed-api-version": "v1",
        "kubevirt.io/storage-observed-api-version": "v1",
      },
      finalizers: [POOL_FINALIZER],
      ownerReferences: [ownerReference(pool)],
    },
    spec: {
      ...vm,
      template: {
        metadata: { creationTimestamp: null, labels: { ...labels, [REVISION_LABEL]: from.revision } },
        spec: { architecture: "amd64", ...at(guest, "spec"), domain },
      },
    },
  };
}

/** Go prints fields of its types that the user never wrote. */
function asPrinted(spec: Json): Json {
  const template = at(spec, "virtualMachineTemplate");
  const vm = at(template, "spec");
  const guest = at(vm, "template");
  const metadata = { creationTimestamp: null, ...at(guest, "metadata") };
  const domain = { devices: {}, resources: {}, ...at(at(guest, "spec"), "domain") };
  return {
    ...spec,
    virtualMachineTemplate: {
      metadata: { creationTimestamp: null, ...at(template, "metadata") },
      spec: { ...vm, template: { metadata, spec: { ...at(guest, "spec"), domain } } },
    },
  };
}

/**
 * What the reference would do to a pool that it gets back, in words; empty when it would leave all as it is. It looks at
 * ownership, labels, revisions by name, and finalizers, and at nothing else.
 */
export async function actsOfReference(namespace: Namespace, name: string): Promise<readonly string[]> {
  const pool = await namespace.pool(name);
  if (pool === undefined) return ["there is no pool"];
  const { uid, finalizers } = pool.metadata;
  const spec = recordOf(pool.spec);
  const machines = (await namespace.machines()).filter((vm) => controllerUidOf(vm) === uid);
  const instances = new Map((await instancesOf(namespace)).map((vmi) => [vmi.metadata.name, vmi]));
  const all = await namespace.list(REVISIONS, "controllerrevisions");
  const revisions = new Map(all.map((revision) => [revision.metadata.name, revision]));
  const wanted = canonical(spec["virtualMachineTemplate"]);
  const acts: string[] = [];
  if (!finalizers.includes(POOL_FINALIZER)) acts.push("puts its finalizer on the pool");
  if (machines.length !== (spec["replicas"] ?? 1)) acts.push(`scales from ${machines.length}`);
  const named = new Set<string | undefined>();
  for (const vm of machines) {
    const revision = revisions.get(revisionOf(vm) ?? "");
    const template = recordOf(recordOf(revision?.["data"])["virtualMachineTemplate"]);
    if (canonical(template) !== wanted) acts.push(`rewrites ${vm.metadata.name}`);
    const instance = instances.get(vm.metadata.name);
    if (instance !== undefined && revisionOf(instance) !== revisionOf(vm)) acts.push(`restarts ${vm.metadata.name}`);
    if (!vm.metadata.finalizers.includes(POOL_FINALIZER)) acts.push(`cannot keep ${vm.metadata.name}`);
    if (isTerminating(vm)) acts.push(`lets ${vm.metadata.name} go`);
    named.add(revisionOf(vm)).add(instance && revisionOf(instance));
  }
  for (const revision of all)
    if (controllerUidOf(revision) === uid && !named.has(revision.metadata.name))
      acts.push(`prunes ${revision.metadata.name}`);
  return acts;
}

/** As its semantic comparison: what is absent, null or empty is the same. */
function canonical(value: unknown): string {
  return JSON.stringify(withoutNothing(value));
}

function withoutNothing(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNothing);
  if (!isRecord(value)) return value;
  const entries = Object.entries(value).map(([key, entry]) => [key, withoutNothing(entry)] as const);
  const isNothing = (entry: unknown) =>
    entry === null || entry === undefined || (typeof entry === "object" && Object.keys(entry).length === 0);
  return Object.fromEntries(entries.filter(([, entry]) => !isNothing(entry)).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function at(value: unknown, field: string): Json {
  return recordOf(recordOf(value)[field]);
}

function recordOf(value: unknown): Json {
  return isRecord(value) ? value : {};
}
