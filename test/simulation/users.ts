/** What people do to pools and machines, at random: every action is one request that a user could send. */
import { isRecord, parseJson } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION, POOL_FINALIZER, REVISION_LABEL } from "../../shared/planning/names.ts";
import { IN_TREE, type MemoryCluster } from "./cluster.ts";
import type { Step } from "./garbage.ts";
import { isFinal, recoverAll, requestsOf, runStrategyOf, switchedOn } from "./kubevirt.ts";
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
const INSTANCES = `/apis/kubevirt.io/v1/namespaces/${NAMESPACE}/virtualmachineinstances`;

/** The label that makes a machine one of the pool's; both pools have their own. */
export function selectorOf(poolName: string): Readonly<Record<string, string>> {
  return { pool: poolName };
}

/** What the pools of a run are made as. */
export interface PoolForm {
  /** How the machines run, in the words of their spec. */
  readonly run: object;
  readonly hasDisks: boolean;
  /** The strategies and the budget from the start. */
  readonly rules: object;
}

export function drawPoolForm(random: Random): PoolForm {
  const hasRules = random.chance(0.6);
  const hasDisks = random.chance(0.35);
  const keeps = hasDisks && random.chance(0.6);
  return {
    run: random.pick([{ running: true }, { running: true }, { runStrategy: "Always" }, ...OTHER_RUNS]) ?? {},
    hasDisks,
    rules: hasRules
      ? {
          maxUnavailable: random.pick(BUDGETS) ?? null,
          updateStrategy: random.pick(UPDATE_STRATEGIES) ?? null,
          scaleInStrategy: keeps ? KEEPING : null,
          autohealing: random.pick(HEALINGS) ?? null,
        }
      : {},
  };
}

const OTHER_RUNS = [{ runStrategy: "Manual" }, { runStrategy: "RerunOnFailure" }] as const;

export function createPool(cluster: MemoryCluster, name: string, form: PoolForm & { readonly replicas: number }): void {
  const labels = selectorOf(name);
  const { replicas, run, hasDisks, rules } = form;
  const disks = hasDisks ? { dataVolumeTemplates: disksOf("1Gi") } : {};
  const body = {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: { name },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      virtualMachineTemplate: {
        metadata: { labels },
        spec: { ...run, ...disks, template: { metadata: { labels }, spec: { terminationGracePeriodSeconds: 0 } } },
      },
      ...rules,
    },
  };
  cluster.answer({ method: "POST", path: POOLS, body }, ACTOR);
}

function disksOf(storage: string): readonly object[] {
  return [{ metadata: { name: "disk" }, spec: { storage: { resources: { requests: { storage } } } } }];
}

/** In a merge patch each takes the place of the others. */
const ONE_OF = { unmanaged: null, opportunistic: null, proactive: null } as const;
const TIER = { matchLabels: { tier: "a" } } as const;
const SORTS = ["AscendingOrder", "DescendingOrder", "Newest", "Oldest", "Random"] as const;
const BUDGETS = [null, 1, 1, 2, "25%", "50%", "100%"] as const;
const HEALINGS = [
  null,
  { startUpFailureThreshold: 1 },
  { startUpFailureThreshold: 1 },
  {},
  { startUpFailureThreshold: 2, minFailingToStartDuration: "1m" },
] as const;
const UPDATE_STRATEGIES = [
  null,
  { ...ONE_OF, proactive: {} },
  ...SORTS.map((sortPolicy) => ({ ...ONE_OF, proactive: { selectionPolicy: { sortPolicy } } })),
  { ...ONE_OF, proactive: { selectionPolicy: { sortPolicy: null, selectors: { labelSelector: TIER } } } },
  { ...ONE_OF, opportunistic: {} },
  { ...ONE_OF, opportunistic: {} },
  { ...ONE_OF, unmanaged: {} },
] as const;
const KEEPING = { ...ONE_OF, proactive: { statePreservation: "Offline" } } as const;
const SCALE_IN_STRATEGIES = [
  null,
  ...SORTS.map((sortPolicy) => ({ ...ONE_OF, proactive: { selectionPolicy: { sortPolicy } } })),
  { ...ONE_OF, proactive: { selectionPolicy: { selectors: { labelSelector: TIER } } } },
  { ...ONE_OF, opportunistic: { statePreservation: null } },
] as const;
const PRESERVATIONS = [
  { ...ONE_OF, proactive: { statePreservation: "Offline" } },
  { ...ONE_OF, proactive: { statePreservation: "Online" } },
  { ...ONE_OF, opportunistic: { statePreservation: "Offline" } },
  { ...ONE_OF, proactive: { statePreservation: "Disabled" } },
  null,
] as const;

/** What the users of a run do besides scaling: some of the acts, and those more often. */
export interface UserMood {
  readonly poolActs: readonly PoolAct[];
  readonly vmActs: readonly VmAct[];
  /** The share of acts on pools that scale. */
  readonly scaling: number;
  readonly otherPool: number;
  readonly vmShare: number;
  readonly form: PoolForm;
}

const POOL_ACTS = [
  "pause",
  "resume",
  "edit",
  "editGuest",
  "editTier",
  "editDisks",
  "updateStrategy",
  "budget",
  "scaleInStrategy",
  "preserve",
  "heal",
  "break",
  "repair",
  "switchOn",
  "takeClaim",
  "scribble",
  "unmanage",
  "delete",
  "strip",
  "recreate",
] as const;
type PoolAct = (typeof POOL_ACTS)[number];
const ROLL_OUT_ACTS = ["edit", "editGuest", "editTier", "editDisks", "updateStrategy", "budget"] as const;
const VM_ACTS = [
  ...(["detach", "relabel", "labelBack", "occupy", "free", "delete"] as const),
  ...(["restart", "stop", "start", "askForRestart"] as const),
] as const;
type VmAct = (typeof VM_ACTS)[number];

/** What users busy themselves with: in a roll-out somebody edits the template again and again. */
export type Business = "scaling" | "rollingOut" | "healing" | "anything";

export function drawUserMood(random: Random, business: Business): UserMood {
  const mostlyScale = business === "scaling";
  if (business === "rollingOut") {
    const others = [...POOL_ACTS, ...ROLL_OUT_ACTS].filter(() => random.chance(0.25));
    return {
      poolActs: [...ROLL_OUT_ACTS.filter(() => random.chance(0.7)), "editGuest", ...others],
      vmActs: VM_ACTS.filter(() => random.chance(0.4)),
      scaling: random.pick([0.05, 0.3]) ?? 0,
      otherPool: 0.02,
      vmShare: random.pick([0, 0.2, 0.5]) ?? 0,
      form: drawPoolForm(random),
    };
  }
  const form = drawPoolForm(random);
  if (business === "healing") {
    const autohealing = random.pick(HEALINGS.slice(1)) ?? null;
    return {
      poolActs: ["heal", ...POOL_ACTS.filter(() => random.chance(0.15))],
      vmActs: VM_ACTS.filter(() => random.chance(0.3)),
      scaling: 0.6,
      otherPool: 0.02,
      vmShare: random.pick([0, 0.1, 0.4]) ?? 0,
      form: { ...form, rules: { ...form.rules, autohealing } },
    };
  }
  return {
    poolActs: POOL_ACTS.filter(() => random.chance(0.3)),
    vmActs: VM_ACTS.filter(() => random.chance(0.5)),
    scaling: mostlyScale ? 0.85 : 0.5,
    otherPool: mostlyScale ? 0.02 : 0.2,
    vmShare: random.pick(mostlyScale ? [0, 0.1, 0.4] : [0, 0.15, 0.4]) ?? 0,
    form,
  };
}

/** One thing that a user could do now. */
export function userStep(cluster: MemoryCluster, random: Random, mood: UserMood): Step {
  const poolName = random.chance(mood.otherPool) ? POOL_NAMES[1] : POOL_NAMES[0];
  const pool = objects(cluster, "virtualmachinepools").find(({ metadata }) => metadata.name === poolName);
  if (pool === undefined) {
    const replicas = random.int(REPLICAS_MAX);
    return {
      label: `user creates ${poolName} with ${replicas}`,
      take: () => createPool(cluster, poolName, { ...mood.form, replicas }),
    };
  }
  const vm = random.pick(objects(cluster, "virtualmachines"));
  const vmAct = vm !== undefined && random.chance(mood.vmShare) ? random.pick(mood.vmActs) : undefined;
  if (vm !== undefined && vmAct !== undefined) return vmStep(vmAct, { cluster, random, pool, vm });
  const drawn = random.chance(mood.scaling) ? undefined : random.pick(mood.poolActs);
  return poolStep(drawn, { cluster, random, pool });
}

/**
 * Undoes what keeps pools from working, so that they can come to rest: pools become legal and take in hand what was left to nobody,
 * whoever stopped a machine starts it, and what runs gets well.
 */
export function makeUsersReasonable(cluster: MemoryCluster, { resume }: { resume: boolean }): void {
  // A pool on its way out goes whatever its spec says.
  for (const pool of objects(cluster, "virtualmachinepools").filter((one) => !isTerminating(one))) {
    const path = `${POOLS}/${pool.metadata.name}`;
    change(cluster, path, { spec: { ...reasonable(recordAt(pool, "spec")), ...(resume ? { paused: null } : {}) } });
    // Whoever has switched the other controller off takes the pool over anew.
    if (hasSecondWriter(pool)) change(cluster, path, { metadata: { annotations: { [CLAIM_ANNOTATION]: null } } });
  }
  recoverAll(cluster);
  startStopped(cluster);
}

/** A merge patch of the spec. */
function reasonable(spec: Readonly<Record<string, unknown>>): object {
  if (isBroken(spec)) return LEGAL_SPEC;
  const scaleIn = recordAt(spec, "scaleInStrategy");
  const keeps = PRESERVING.some((name) => recordAt(scaleIn, name)["statePreservation"] === "Offline");
  const proactive = recordAt(recordAt(spec, "updateStrategy"), "proactive");
  const updateStrategy = { proactive: { selectionPolicy: { selectors: null } } };
  return {
    scaleInStrategy: keeps ? { ...ONE_OF, proactive: { statePreservation: "Offline", selectionPolicy: null } } : null,
    ...(Object.keys(proactive).length > 0 ? { updateStrategy } : {}),
  };
}

const PRESERVING = ["proactive", "opportunistic"] as const;

/** Starts what its run strategy does not start by itself; true when there was something. */
export function startStopped(cluster: MemoryCluster): boolean {
  const instances = objects(cluster, "virtualmachineinstances");
  let started = false;
  for (const vm of objects(cluster, "virtualmachines")) {
    const path = `${VMS}/${vm.metadata.name}`;
    const instance = instances.find(({ metadata }) => metadata.name === vm.metadata.name);
    const strategy = runStrategyOf(vm);
    if (isTerminating(vm) || strategy === "Always") continue;
    if (strategy === "Halted") change(cluster, path, { spec: switchedOn(vm) });
    else if ((instance === undefined || isFinal(instance)) && requestsOf(vm).length === 0) {
      change(cluster, `${path}/status`, { status: { stateChangeRequests: [{ action: "Start" }] } });
    } else continue;
    started = true;
  }
  return started;
}

/** What follows when somebody deletes the namespace: everything in it goes, then it does, and is made again. */
export function namespaceSteps(cluster: MemoryCluster): readonly Step[] {
  const phase = cluster.namespaces.get(NAMESPACE);
  if (phase === "active") return [];
  if (phase === undefined)
    return [{ label: "user creates the namespace", take: () => cluster.addNamespace(NAMESPACE) }];
  const left = cluster.kinds
    .filter(({ isClusterScoped }) => !isClusterScoped)
    .flatMap((kind) => cluster.store.list(kind, NAMESPACE).map((object) => ({ kind, object })));
  if (left.length === 0) return [{ label: "the namespace is gone", take: () => cluster.takeNamespace(NAMESPACE) }];
  return left
    .filter(({ object }) => !isTerminating(object))
    .map(({ kind, object: { metadata } }) => {
      const root = kind.group === "" ? "/api" : `/apis/${kind.group}`;
      const path = `${root}/${kind.versions[0]}/namespaces/${NAMESPACE}/${kind.plural}/${metadata.name}`;
      const take = () => void cluster.answer({ method: "DELETE", path }, "namespace-controller");
      return { label: `${metadata.name} goes with the namespace`, take };
    });
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

/** How far the clocks of two writers are apart, and times are told in whole seconds. */
const WRITER_SLACK_MS = 2_000;

/** KubeVirt's own controller has written to the pool since we look after it. */
export function hasSecondWriter({ metadata }: KubeObject): boolean {
  const claim: unknown = parseJson(metadata.annotations?.[CLAIM_ANNOTATION] ?? "{}");
  const since = Date.parse(String(isRecord(claim) ? recordAt(recordAt({ claim }, "claim"), "since")["at"] : ""));
  const isLater = ({ time }: { time: string }) => Date.parse(time) > since + WRITER_SLACK_MS;
  return (metadata.managedFields ?? []).some(isLater);
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
    case "editGuest": {
      const spec = { terminationGracePeriodSeconds: random.int(3) };
      return step("edits the guests of", { spec: { virtualMachineTemplate: { spec: { template: { spec } } } } });
    }
    case "editTier": {
      const metadata = { labels: { tier: random.pick(["a", "b"]) } };
      return step("labels the guests of", { spec: { virtualMachineTemplate: { spec: { template: { metadata } } } } });
    }
    case "editDisks": {
      const dataVolumeTemplates = random.pick([disksOf("1Gi"), disksOf("2Gi"), null]);
      return step("edits the disks of", { spec: { virtualMachineTemplate: { spec: { dataVolumeTemplates } } } });
    }
    case "updateStrategy":
      return step("chooses how to update", { spec: { updateStrategy: random.pick(UPDATE_STRATEGIES) ?? null } });
    case "budget":
      return step("sets maxUnavailable of", { spec: { maxUnavailable: random.pick(BUDGETS) ?? null } });
    case "scaleInStrategy":
      return step("chooses how to scale in", { spec: { scaleInStrategy: random.pick(SCALE_IN_STRATEGIES) ?? null } });
    case "preserve":
      return step("says what is kept of", { spec: { scaleInStrategy: random.pick(PRESERVATIONS) ?? null } });
    case "heal":
      return step("chooses how to heal", { spec: { autohealing: random.pick(HEALINGS) ?? null } });
    case "break":
      return step("breaks", { spec: random.pick(ILLEGAL_SPECS) });
    case "repair":
      return step("repairs", { spec: LEGAL_SPEC });
    case "switchOn": {
      const body = { status: { replicas: random.int(REPLICAS_MAX) } };
      const call = { method: "PATCH", path: `${path}/status`, body, contentType: MERGE } as const;
      return { label: `KubeVirt's controller writes to ${name}`, take: () => void cluster.answer(call, IN_TREE) };
    }
    case "takeClaim":
      return step("takes the annotations of", { metadata: { annotations: null } });
    case "scribble":
      return step("scribbles on the claim of", { metadata: { annotations: { [CLAIM_ANNOTATION]: "mine" } } });
    case "unmanage":
      return step("leaves scale-in to nobody for", { spec: { scaleInStrategy: { ...ONE_OF, unmanaged: {} } } });
    case "delete": {
      const propagationPolicy = random.pick(["Background", "Background", "Foreground", "Orphan"]);
      return {
        label: `user deletes ${name} (${propagationPolicy})`,
        take: () => void cluster.answer({ method: "DELETE", path, body: { propagationPolicy } }, ACTOR),
      };
    }
    case "recreate": {
      // As `kubectl replace --force`: another pool of that name, with the spec of the first.
      const { spec, metadata } = pool;
      const body = { ...pool, metadata: { name, labels: metadata.labels }, spec, status: undefined };
      return {
        label: `user replaces ${name} by another of that name`,
        take() {
          cluster.answer({ method: "DELETE", path, body: { propagationPolicy: "Background" } }, ACTOR);
          change(cluster, path, { metadata: { finalizers: null } });
          cluster.answer({ method: "POST", path: POOLS, body }, ACTOR);
        },
      };
    }
    case "strip":
      // Whoever does not want to wait: the pool is gone at once, and its machines know nothing of it.
      return {
        label: `user deletes ${name} and strips its finalizers`,
        take() {
          cluster.answer({ method: "DELETE", path, body: { propagationPolicy: "Background" } }, ACTOR);
          change(cluster, path, { metadata: { finalizers: null } });
        },
      };
  }
}

function vmStep(act: VmAct, { cluster, random, vm, pool }: Choice & { readonly vm: KubeObject }): Step {
  const { name } = vm.metadata;
  const instance = objects(cluster, "virtualmachineinstances").find((entry) => entry.metadata.name === name);
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
    case "restart":
      return {
        label: `user deletes instance ${name}`,
        take: () => void cluster.answer({ method: "DELETE", path: `${INSTANCES}/${name}` }, ACTOR),
      };
    case "stop":
      return step("stops", { spec: isSwitched(vm) ? { running: false } : { runStrategy: "Halted" } });
    case "start":
      return step("starts", { spec: switchedOn(vm) });
    case "askForRestart": {
      const stop = instance === undefined ? [] : [{ action: "Stop", uid: instance.metadata.uid }];
      const status = { stateChangeRequests: [...stop, { action: "Start" }] };
      return { label: `user restarts ${name}`, take: () => change(cluster, `${path}/status`, { status }) };
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

/** Its spec says `running`, not `runStrategy`. */
function isSwitched(vm: KubeObject): boolean {
  return typeof recordAt(vm, "spec")["running"] === "boolean";
}
