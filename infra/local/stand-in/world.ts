/** What every part of the stand-in works with: the collections, the clock, and whom each change concerns. */
import type { Connection } from "../../../shared/clusters/connection.ts";
import { type AddressBook, createAddressBook } from "./addresses.ts";
import { type Collection, createCollection } from "./collection.ts";
import { launcherName } from "./launcher.ts";
import type { Rollout } from "./live-update.ts";
import { cpuPercentOf, type Metrics, openMetrics } from "./metrics.ts";
import {
  CLAIMS,
  type Claim,
  controllerOf,
  DATA_VOLUMES,
  type DataVolume,
  diskKeysOf,
  INSTANCES,
  type Instance,
  type Kind,
  KUBEVIRTS,
  type KubeVirt,
  keyOf,
  MACHINES,
  type Machine,
  machineDiskKeys,
  PODS,
  POOLS,
  type Pod,
  type Pool,
  type Stored,
} from "./objects.ts";
import { createPacer, type Pacer } from "./pace.ts";
import { createSend } from "./requests.ts";

const PARTS = ["machine", "instance", "dataVolume", "claim", "metrics"] as const;

/** The parts of the stand-in; each works on keys of one kind of object. */
export type Part = (typeof PARTS)[number];

export function isPart(word: string): word is Part {
  return PARTS.some((part) => part === word);
}

export interface World {
  readonly machines: Collection<Machine>;
  readonly instances: Collection<Instance>;
  readonly dataVolumes: Collection<DataVolume>;
  readonly claims: Collection<Claim>;
  readonly pods: Collection<Pod>;
  readonly pools: Collection<Pool>;
  readonly kubeVirts: Collection<KubeVirt>;
  readonly metrics: Metrics;
  readonly pacer: Pacer;
  readonly addresses: AddressBook;
  /** How changes of templates reach running instances at present. */
  readonly rollout: () => Rollout;
  readonly now: () => number;
  /** First pause after a failed start, in milliseconds; it grows with the square of the failures. */
  readonly startBackoffMs: number;
  /** Calls that part for that key later. */
  readonly addAfter: (part: Part, key: string, delayMs: number) => void;
}

export interface WorldOptions extends Pick<World, "now" | "startBackoffMs" | "addAfter"> {
  readonly connection: Connection;
  readonly signal: AbortSignal;
  readonly onError: (operation: string, error: unknown) => void;
  /** Calls that part for that key soon. */
  readonly add: (part: Part, key: string) => void;
}

/** Opens the collections, each wired to the parts that its changes concern. */
export function openWorld(options: WorldOptions): World {
  const { connection, signal, onError, add, now, startBackoffMs, addAfter } = options;
  const pacer = createPacer(now);
  const addresses = createAddressBook();
  const users = createDiskUsers();
  const metrics = openMetrics(createSend(connection, signal), now);
  const open = <T extends Stored>(kind: Kind<T>, onChange: (object: T) => void) =>
    createCollection({ connection, kind, signal, onChange, onError });
  const wakeUsers = (diskKey: string) => {
    for (const machineKey of users.of(diskKey)) add("machine", machineKey);
  };

  const machines = open(MACHINES, (machine) => {
    users.note(keyOf(machine), isThere(machines, machine) ? machineDiskKeys(machine) : []);
    add("machine", keyOf(machine));
  });
  const instances = open(INSTANCES, (instance) => {
    add("instance", keyOf(instance));
    add("machine", keyOf(instance));
    if (isThere(instances, instance)) return;
    pacer.forget(instance.metadata.uid);
    addresses.release(instance.metadata.uid);
    for (const diskKey of diskKeysOf(instance.metadata.namespace, instance.spec)) add("claim", diskKey);
  });
  const dataVolumes = open(DATA_VOLUMES, (dataVolume) => {
    add("dataVolume", keyOf(dataVolume));
    wakeUsers(keyOf(dataVolume));
    if (!isThere(dataVolumes, dataVolume)) pacer.forget(dataVolume.metadata.uid);
  });
  const claims = open(CLAIMS, (claim) => {
    add("claim", keyOf(claim));
    add("dataVolume", keyOf(claim));
    wakeUsers(keyOf(claim));
  });
  const pods = open(PODS, (pod) => {
    const owner = controllerOf(pod);
    if (owner === undefined) return;
    add("instance", `${pod.metadata.namespace}/${owner.name}`);
    if (!isThere(pods, pod)) {
      addresses.release(owner.uid);
      metrics.forget(pod);
      return;
    }
    add("metrics", keyOf(pod));
    if (pod.status.podIP !== "") addresses.note(owner.uid, pod.status.podIP);
  });
  const pools = openPools(options, machines, instances);
  const rollout = () => rolloutOf([...kubeVirts.all()].at(0));
  const kubeVirts = open(KUBEVIRTS, () => {
    for (const machine of machines.all()) add("machine", keyOf(machine));
  });
  return {
    machines,
    instances,
    dataVolumes,
    claims,
    pods,
    pools,
    kubeVirts,
    rollout,
    metrics,
    pacer,
    addresses,
    now,
    startBackoffMs,
    addAfter,
  };
}

/** Pools matter for the load of their machines only. */
function openPools(
  { connection, signal, onError, add }: WorldOptions,
  machines: Collection<Machine>,
  instances: Collection<Instance>,
): Collection<Pool> {
  return createCollection({
    connection,
    kind: POOLS,
    signal,
    onError,
    onChange(pool, before) {
      if (cpuPercentOf(pool.metadata.annotations) === cpuPercentOf(before?.metadata.annotations ?? {})) return;
      for (const machine of machines.all()) {
        const instance = controllerOf(machine)?.uid === pool.metadata.uid ? instances.get(keyOf(machine)) : undefined;
        if (instance !== undefined) add("metrics", `${instance.metadata.namespace}/${launcherName(instance)}`);
      }
    },
  });
}

/** Everything there is to look at. */
export function* keysOfAll(world: World): Generator<readonly [Part, string]> {
  for (const machine of world.machines.all()) yield ["machine", keyOf(machine)];
  for (const instance of world.instances.all()) yield ["instance", keyOf(instance)];
  for (const dataVolume of world.dataVolumes.all()) yield ["dataVolume", keyOf(dataVolume)];
  for (const claim of world.claims.all()) yield ["claim", keyOf(claim)];
  for (const pod of world.pods.all()) yield ["metrics", keyOf(pod)];
}

/** LiveUpdate unless said otherwise, as since KubeVirt 1.5; without an installation nothing is live. */
function rolloutOf(kubeVirt: KubeVirt | undefined): Rollout {
  return kubeVirt === undefined ? "Stage" : (kubeVirt.spec.configuration.vmRolloutStrategy ?? "LiveUpdate");
}

/** Whether this incarnation of the object is in the collection. */
function isThere<T extends Stored>(collection: Collection<T>, object: T): boolean {
  return collection.get(keyOf(object))?.metadata.uid === object.metadata.uid;
}

/** Which machines use a disk of that key, so that its changes wake them. */
function createDiskUsers() {
  const byDisk = new Map<string, Set<string>>();
  const byMachine = new Map<string, readonly string[]>();
  return {
    of: (diskKey: string): Iterable<string> => byDisk.get(diskKey) ?? [],
    note(machineKey: string, diskKeys: readonly string[]): void {
      for (const diskKey of byMachine.get(machineKey) ?? []) {
        const users = byDisk.get(diskKey);
        users?.delete(machineKey);
        if (users?.size === 0) byDisk.delete(diskKey);
      }
      byMachine.delete(machineKey);
      if (diskKeys.length > 0) byMachine.set(machineKey, diskKeys);
      for (const diskKey of diskKeys) byDisk.set(diskKey, (byDisk.get(diskKey) ?? new Set()).add(machineKey));
    },
  };
}
