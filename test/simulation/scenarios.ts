/** Small stories, told one at a time: a pool that has come to rest, and the one change that its passes then have to follow. */
import type { MemoryCluster } from "./cluster.ts";
import { startFailureSteps } from "./kubevirt.ts";
import { isTerminating } from "./objects.ts";
import { createPool, NAMESPACE, objects, POOL_NAMES, type PoolForm } from "./users.ts";

const ACTOR = "user";
const MERGE = "application/merge-patch+json";
const [POOL] = POOL_NAMES;
const POOL_PATH = `/apis/pool.kubevirt.io/v1beta1/namespaces/${NAMESPACE}/virtualmachinepools/${POOL}`;
const VMS = `/apis/kubevirt.io/v1/namespaces/${NAMESPACE}/virtualmachines`;

export interface Scenario {
  readonly name: string;
  /** Makes what has to come to rest first. */
  prepare(cluster: MemoryCluster): void;
  /** What the passes are to follow. */
  change(cluster: MemoryCluster): void;
  /** What somebody does when the first pass is over, however it ended. */
  andThen?(cluster: MemoryCluster): void;
  /** A machine with which KubeVirt gets nowhere. */
  readonly stuck?: string;
}

/** How many machines: few where every crash is tried, and fewest where every order of calls is. */
export type Size = "usual" | "small";

const FORM: PoolForm = { run: { running: true }, hasDisks: false, rules: {} };
const ONE_AT_A_TIME = { maxUnavailable: 1 };
const KEEPS_DISKS = { scaleInStrategy: { proactive: { statePreservation: "Offline" } } };

function patch(cluster: MemoryCluster, path: string, body: object): void {
  const { status } = cluster.answer({ method: "PATCH", path, body, contentType: MERGE }, ACTOR);
  if (status >= 300) throw new Error(`the user was refused: ${status} ${path}`);
}

function remove(cluster: MemoryCluster, path: string): void {
  cluster.answer({ method: "DELETE", path, body: { propagationPolicy: "Background" } }, ACTOR);
}

const scaleTo = (replicas: number) => (cluster: MemoryCluster) => patch(cluster, POOL_PATH, { spec: { replicas } });

const editGuest = (cluster: MemoryCluster) =>
  patch(cluster, POOL_PATH, {
    spec: { virtualMachineTemplate: { spec: { template: { spec: { terminationGracePeriodSeconds: 1 } } } } },
  });

const editDisks = (cluster: MemoryCluster) =>
  patch(cluster, POOL_PATH, {
    spec: {
      virtualMachineTemplate: {
        spec: {
          dataVolumeTemplates: [
            { metadata: { name: "disk" }, spec: { storage: { resources: { requests: { storage: "2Gi" } } } } },
          ],
        },
      },
    },
  });

function failToStart(cluster: MemoryCluster): void {
  const step = startFailureSteps(cluster).find(({ label }) => label === `fail to start ${POOL}-0`);
  if (step === undefined) throw new Error("no machine could fail");
  step.take();
}

/** The stories by name. */
export function scenariosOf(size: Size): readonly Scenario[] {
  const many = size === "usual" ? 3 : 1;
  const few = size === "usual" ? 2 : 1;
  const pool = (replicas: number, rules: object = {}, hasDisks = false) => {
    return (cluster: MemoryCluster) => createPool(cluster, POOL, { ...FORM, rules, hasDisks, replicas });
  };
  const machine = `${VMS}/${POOL}-0`;
  return [
    { name: "first", prepare: () => undefined, change: pool(many) },
    { name: "scale-out", prepare: pool(few - 1), change: scaleTo(many) },
    { name: "scale-in", prepare: pool(many), change: scaleTo(few - 1) },
    { name: "scale-out-and-back", prepare: pool(few - 1), change: scaleTo(many), andThen: scaleTo(few - 1) },
    { name: "scale-in-and-back", prepare: pool(many), change: scaleTo(few - 1), andThen: scaleTo(many) },
    { name: "scale-in-one", prepare: pool(2), change: scaleTo(1) },
    { name: "update", prepare: pool(few, ONE_AT_A_TIME), change: editGuest },
    {
      name: "update-later",
      prepare: pool(few, { updateStrategy: { opportunistic: {} } }),
      change: editGuest,
    },
    { name: "replace", prepare: pool(few, ONE_AT_A_TIME, true), change: editDisks },
    {
      name: "heal",
      prepare: pool(few, { autohealing: { startUpFailureThreshold: 1 } }),
      change: failToStart,
      stuck: `${POOL}-0`,
    },
    {
      name: "release",
      prepare: pool(few),
      change: (cluster) => patch(cluster, machine, { metadata: { labels: { pool: "other" } } }),
    },
    {
      name: "detach",
      prepare: pool(few),
      change: (cluster) => patch(cluster, machine, { metadata: { ownerReferences: null } }),
    },
    { name: "delete", prepare: pool(few), change: (cluster) => remove(cluster, POOL_PATH) },
    {
      name: "delete-keeping",
      prepare: pool(few, KEEPS_DISKS, true),
      change: (cluster) => remove(cluster, POOL_PATH),
    },
    { name: "lose-machine", prepare: pool(few), change: (cluster) => remove(cluster, machine) },
    { name: "scale-in-keeping", prepare: pool(2, KEEPS_DISKS, true), change: scaleTo(1) },
    {
      name: "lose-claim",
      prepare: pool(2),
      change: (cluster) => patch(cluster, POOL_PATH, { metadata: { annotations: null }, spec: { replicas: 1 } }),
    },
  ];
}

export function scenarioOf(name: string, size: Size): Scenario {
  const scenario = scenariosOf(size).find((known) => known.name === name);
  if (scenario === undefined) throw new Error(`no such scenario: ${name}`);
  return scenario;
}

interface KubevirtStep {
  readonly cluster: MemoryCluster;
  /** Of the machine that is stuck. */
  readonly stuckUid: string | undefined;
  readonly label: string;
}

/** Whether KubeVirt could take the step: with a machine that is stuck it gets nowhere as long as nobody deletes that. */
export function canTake({ stuck }: Scenario, { cluster, stuckUid, label }: KubevirtStep): boolean {
  if (stuck === undefined || !label.endsWith(` ${stuck}`)) return true;
  const vm = objects(cluster, "virtualmachines").find(({ metadata }) => metadata.name === stuck);
  return vm === undefined || vm.metadata.uid !== stuckUid || isTerminating(vm);
}
