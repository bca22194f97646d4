/** What people do to pools and machines, at random: every action is one request that a user could send. */
import { isRecord } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION, POOL_FINALIZER, REVISION_LABEL } from "../../shared/planning/names.ts";
import type { MemoryCluster } from "./cluster.ts";
import type { Step } from "./garbage.ts";
import { isTerminating, type KubeObject, ownersOf, recordAt } from "./objects.ts";
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

/** What the users of a run do besides scaling: some of the acts, and those more often. */
export interface UserMood {
  readonly poolActs: readonly PoolAct[];
  readonly vmActs: readonly VmAct[];
  /** The share of acts on pools that scale. */
  readonly scaling: number;
  readonly otherPool: number;
  readonly vmShare: number;
}

const POOL_ACTS = [
  "pause",
  "resume",
  "edit",
  "break",
  "repair",
  "takeClaim",
  "scribble",
  "unmanage",
  "delete",
] as const;
type PoolAct = (typeof POOL_ACTS)[number];
const VM_ACTS = ["detach", "relabel", "labelBack", "occupy", "free", "delete"] as const;
type VmAct = (typeof VM_ACTS)[number];

/** With `mostlyScale` they hardly do anything else. */
export function drawUserMood(random: Random, mostlyScale: boolean): UserMood {
  return {
    poolActs: POOL_ACTS.filter(() => random.chance(0.3)),
    vmActs: VM_ACTS.filter(() => random.chance(0.5)),
    scaling: mostlyScale ? 0.85 : 0.5,
    otherPool: mostlyScale ? 0.02 : 0.2,
    vmShare: random.pick(mostlyScale ? [0, 0.1, 0.4] : [0, 0.15, 0.4]) ?? 0,
  };
}

/** One thing that a user could do now. */
export function userStep(cluster: MemoryCluster, random: Random, mood: UserMood): Step {
  const poolName = random.chance(mood.otherPool) ? POOL_NAMES[1] : POOL_NAMES[0];
  const pool = objects(cluster, "virtualmachinepools").find(({ metadata }) => metadata.name === poolName);
  if (pool === undefined) {
    const replicas = random.int(REPLICAS_MAX);
    return { label: `user creates ${poolName} with ${replicas}`, take: () => createPool(cluster, poolName, replicas) };
  }
  const vm = random.pick(objects(cluster, "virtualmachines"));
  const vmAct = vm !== undefined && random.chance(mood.vmShare) ? random.pick(mood.vmActs) : undefined;
  if (vm !== undefined && vmAct !== undefined) return vmStep(vmAct, { cluster, random, pool, vm });
  const poolAct = random.chance(mood.scaling) ? undefined : random.pick(mood.poolActs);
  return poolStep(poolAct, { cluster, random, pool });
}

/** Undoes what keeps a pool from working, so that it can come to rest. */
export function makeUsersReasonable(cluster: MemoryCluster, { resume }: { resume: boolean }): void {
  // A pool on its way out goes whatever its spec says.
  for (const { metadata } of objects(cluster, "virtualmachinepools").filter((pool) => !isTerminating(pool))) {
    change(cluster, `${POOLS}/${metadata.name}`, {
      spec: { ...LEGAL_SPEC, ...(resume ? { paused: null } : {}) },
    });
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
}

/** Ways to make a pool illegal that the API server's schema lets through. */
const ILLEGAL_SPECS = [
  { maxUnavailable: "0%" },
  { scaleInStrategy: { unmanaged: {}, opportunistic: {} } },
  { updateStrategy: { unmanaged: {}, opportunistic: {} } },
] as const;
/** In a merge patch: what makes every pool legal again, and its scale-in ours. */
const LEGAL_SPEC = { maxUnavailable: null, scaleInStrategy: null, updateStrategy: null } as const;

/** Whether the spec is one of those that `break` makes. */
export function isBroken(spec: Readonly<Record<string, unknown>>): boolean {
  const strategies = [spec["scaleInStrategy"], spec["updateStrategy"]];
  return (
    spec["maxUnavailable"] === "0%" ||
    strategies.some((strategy) => isRecord(strategy) && Object.keys(strategy).length > 1)
  );
}

/** Without an act the pool is scaled. */
function poolStep(act: PoolAct | undefined, { cluster, random, pool }: Choice): Step {
  const { name } = pool.metadata;
  const path = `${POOLS}/${name}`;
  const step = (what: string, body: object): Step => ({
    label: `user ${what} ${name}`,
    take: () => change(cluster, path, body),
  });
  switch (act) {
    case undefined: {
      const { replicas: current } = recordAt(pool, "spec");
      // Mostly a step up or down, so that what was wanted before is soon wanted again.
      const next = (typeof current === "number" ? current : 1) + (random.pick([-2, -1, -1, 1, 1]) ?? 0);
      const isFar = next < 0 || next > REPLICAS_MAX || random.chance(0.2);
      const replicas = isFar ? random.int(REPLICAS_MAX + 1) : next;
      const body = { spec: { replicas } };
      return { label: `user scales ${name} to ${replicas}`, take: () => change(cluster, `${path}/scale`, body) };
    }
    case "pause":
      return step("pauses", { spec: { paused: true } });
    case "resume":
      return step("resumes", { spec: { paused: null } });
    case "edit": {
      const annotations = { edited: random.uuid() };
      return step("edits the template of", { spec: { virtualMachineTemplate: { metadata: { annotations } } } });
    }
    case "break":
      return step("breaks", { spec: random.pick(ILLEGAL_SPECS) });
    case "repair":
      return step("repairs", { spec: LEGAL_SPEC });
    case "takeClaim":
      return step("takes the annotations of", { metadata: { annotations: null } });
    case "scribble":
      return step("scribbles on the claim of", { metadata: { annotations: { [CLAIM_ANNOTATION]: "mine" } } });
    case "unmanage":
      return step("leaves scale-in to nobody for", { spec: { scaleInStrategy: { unmanaged: {} } } });
    case "delete": {
      const propagationPolicy = random.pick(["Background", "Background", "Foreground", "Orphan"]);
      return {
        label: `user deletes ${name} (${propagationPolicy})`,
        take: () => void cluster.answer({ method: "DELETE", path, body: { propagationPolicy } }, ACTOR),
      };
    }
  }
}

function vmStep(act: VmAct, { cluster, random, vm, pool }: Choice & { readonly vm: KubeObject }): Step {
  const { name } = vm.metadata;
  const path = `${VMS}/${name}`;
  const step = (what: string, body: object): Step => ({
    label: `user ${what} ${name}`,
    take: () => change(cluster, path, body),
  });
  switch (act) {
    case "detach":
      // Some take everything that points to the pool but the name.
      return step("detaches", {
        metadata: { ownerReferences: null, ...(random.chance(0.3) ? { labels: { [REVISION_LABEL]: null } } : {}) },
      });
    case "relabel":
      return step("relabels", { metadata: { labels: { pool: "other" } } });
    case "labelBack":
      return step("labels back", { metadata: { labels: selectorOf(ownersOf(vm)[0]?.name ?? pool.metadata.name) } });
    case "occupy": {
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
    case "free": {
      const finalizers = (vm.metadata.finalizers ?? []).filter((finalizer) => finalizer !== POOL_FINALIZER);
      if (isTerminating(vm)) return step("frees", { metadata: { finalizers } });
      return vmStep("delete", { cluster, random, vm, pool });
    }
    case "delete": {
      const propagationPolicy = random.pick(["Background", "Background", "Foreground", "Orphan"]);
      return {
        label: `user deletes ${name} (${propagationPolicy})`,
        take: () => void cluster.answer({ method: "DELETE", path, body: { propagationPolicy } }, ACTOR),
      };
    }
  }
}
