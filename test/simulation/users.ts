/** What people do to pools and machines, at random: every action is one request that a user could send. */
import { POOL_FINALIZER } from "../../shared/planning/names.ts";
import type { MemoryCluster } from "./cluster.ts";
import type { Step } from "./garbage.ts";
import { isTerminating, type KubeObject, ownersOf } from "./objects.ts";
import type { Random } from "./random.ts";

export const NAMESPACE = "default";
/** The second name begins as machines of the first do. */
export const POOL_NAMES = ["web", "web-1"] as const;
const REPLICAS_MAX = 5;
const ACTOR = "user";
const MERGE = "application/merge-patch+json";
const POOLS = `/apis/pool.kubevirt.io/v1beta1/namespaces/${NAMESPACE}/virtualmachinepools`;
const VMS = `/apis/kubevirt.io/v1/namespaces/${NAMESPACE}/virtualmachines`;

/** The label that makes a machine one of the pool's; both pools have their own. */
export function selectorOf(poolName: string): Readonly<Record<string, string>> {
  return { pool: poolName };
}

export function createPool(cluster: MemoryCluster, name: string, replicas: number): void {
  const labels = selectorOf(name);
  const body = {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: { name },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      virtualMachineTemplate: { metadata: { labels }, spec: { running: true, template: { metadata: { labels } } } },
      updateStrategy: { unmanaged: {} },
    },
  };
  cluster.answer({ method: "POST", path: POOLS, body }, ACTOR);
}

/** One thing that a user could do now. */
export function userStep(cluster: MemoryCluster, random: Random): Step {
  const poolName = random.chance(0.8) ? POOL_NAMES[0] : POOL_NAMES[1];
  const pool = objects(cluster, "virtualmachinepools").find(({ metadata }) => metadata.name === poolName);
  if (pool === undefined) {
    const replicas = random.int(REPLICAS_MAX);
    return { label: `user creates ${poolName} with ${replicas}`, take: () => createPool(cluster, poolName, replicas) };
  }
  const vm = random.pick(objects(cluster, "virtualmachines"));
  return (vm !== undefined && random.chance(0.4) ? vmStep : poolStep)({ cluster, random, pool, vm: vm ?? pool });
}

/** Undoes what keeps a pool from working, so that it can come to rest. */
export function makeUsersReasonable(cluster: MemoryCluster): void {
  for (const { metadata } of objects(cluster, "virtualmachinepools")) {
    change(cluster, `${POOLS}/${metadata.name}`, { spec: { maxUnavailable: null, scaleInStrategy: null } });
  }
}

export function objects(cluster: MemoryCluster, plural: string): readonly KubeObject[] {
  const kind = cluster.kinds.find((known) => known.plural === plural);
  return kind === undefined ? [] : cluster.store.list(kind);
}

function change(cluster: MemoryCluster, path: string, body: object): void {
  cluster.answer({ method: "PATCH", path, body, contentType: MERGE }, ACTOR);
}

interface Choice {
  readonly cluster: MemoryCluster;
  readonly random: Random;
  readonly pool: KubeObject;
  readonly vm: KubeObject;
}

function poolStep({ cluster, random, pool }: Choice): Step {
  const { name } = pool.metadata;
  const path = `${POOLS}/${name}`;
  const step = (what: string, body: object): Step => ({
    label: `user ${what} ${name}`,
    take: () => change(cluster, path, body),
  });
  const draw = random.int(20);
  if (draw < 9) {
    const replicas = random.chance(0.4) ? 0 : random.int(REPLICAS_MAX + 1);
    const body = { spec: { replicas } };
    return { label: `user scales ${name} to ${replicas}`, take: () => change(cluster, `${path}/scale`, body) };
  }
  if (draw < 11) return step("pauses", { spec: { paused: true } });
  if (draw < 13) return step("resumes", { spec: { paused: null } });
  if (draw < 15) {
    const annotations = { edited: random.uuid() };
    return step("edits the template of", { spec: { virtualMachineTemplate: { metadata: { annotations } } } });
  }
  if (draw < 16) return step("breaks", { spec: { maxUnavailable: "0%" } });
  if (draw < 17) return step("repairs", { spec: { maxUnavailable: null, scaleInStrategy: null } });
  if (draw < 18) return step("takes the annotations of", { metadata: { annotations: null } });
  if (draw < 19 && random.chance(0.5))
    return step("leaves scale-in to nobody for", { spec: { scaleInStrategy: { unmanaged: {} } } });
  const propagationPolicy = random.pick(["Background", "Background", "Foreground", "Orphan"]);
  return {
    label: `user deletes ${name} (${propagationPolicy})`,
    take: () => void cluster.answer({ method: "DELETE", path, body: { propagationPolicy } }, ACTOR),
  };
}

function vmStep({ cluster, random, vm, pool }: Choice): Step {
  const { name } = vm.metadata;
  const path = `${VMS}/${name}`;
  const draw = random.int(10);
  const step = (what: string, body: object): Step => ({
    label: `user ${what} ${name}`,
    take: () => change(cluster, path, body),
  });
  if (draw < 2) return step("detaches", { metadata: { ownerReferences: null } });
  if (draw < 3) return step("relabels", { metadata: { labels: { pool: "other" } } });
  if (draw < 4)
    return step("labels back", { metadata: { labels: selectorOf(ownersOf(vm)[0]?.name ?? pool.metadata.name) } });
  if (draw < 5) {
    const free = `${pool.metadata.name}-${random.int(REPLICAS_MAX)}`;
    const body = {
      apiVersion: "kubevirt.io/v1",
      kind: "VirtualMachine",
      metadata: { name: free, labels: random.chance(0.5) ? selectorOf(pool.metadata.name) : {} },
      spec: { running: true, template: {} },
    };
    return {
      label: `user creates ${free}`,
      take: () => void cluster.answer({ method: "POST", path: VMS, body }, ACTOR),
    };
  }
  if (draw < 6 && isTerminating(vm)) {
    const finalizers = (vm.metadata.finalizers ?? []).filter((finalizer) => finalizer !== POOL_FINALIZER);
    return step("frees", { metadata: { finalizers } });
  }
  return { label: `user deletes ${name}`, take: () => void cluster.answer({ method: "DELETE", path }, ACTOR) };
}
