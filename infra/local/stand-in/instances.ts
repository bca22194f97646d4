/** Brings one instance through its phases, with its launcher pod; follows it to its end. Never creates an instance. */

import { isDeepStrictEqual } from "node:util";
import { launcherName, launcherPod, launcherStatus } from "./launcher.ts";
import { sizeStatus } from "./live-update.ts";
import { isOurNode, nodeFor } from "./nodes.ts";
import { type Condition, type Instance, isDeleting, isTrue, keyOf, type Pod, refreshed, timestamp } from "./objects.ts";
import { type Behaviour, behaviourOf, type Step } from "./pace.ts";
import type { World } from "./world.ts";

/** Keeps a deleted instance until its pod is gone. */
export const INSTANCE_FINALIZER = "foregroundDeleteVirtualMachine";

const GUEST_NOT_RUNNING = {
  type: "Ready",
  status: "False",
  reason: "GuestNotRunning",
  message: "Guest VM is not reported as running",
} as const;
const GUEST_NOT_READY = {
  type: "Ready",
  status: "False",
  reason: "GuestNotReady",
  message: "Guest VM is not ready",
} as const;
const POD_TERMINATING = {
  type: "Ready",
  status: "False",
  reason: "PodTerminating",
  message: "Pod is terminating",
} as const;
const READY = { type: "Ready", status: "True" } as const;
const UNSCHEDULABLE = {
  type: "PodScheduled",
  status: "False",
  reason: "Unschedulable",
  message: "0/2 nodes are available: the stand-in was told so.",
} as const;
const LIVE_MIGRATABLE = { type: "LiveMigratable", status: "True" } as const;

/** The status that an instance of that spec is created with. */
export function firstInstanceStatus(spec: object, nowMs: number): object {
  return {
    ...sizeStatus(spec, undefined),
    phase: "Pending",
    conditions: [{ ...GUEST_NOT_RUNNING, lastProbeTime: null, lastTransitionTime: timestamp(nowMs) }],
    phaseTransitionTimestamps: [{ phase: "Pending", phaseTransitionTimestamp: timestamp(nowMs) }],
  };
}

export function isFinal(instance: Instance): boolean {
  return instance.status.phase === "Succeeded" || instance.status.phase === "Failed";
}

/** Does what is due for the instance of that key; called whenever it or its pod changed. */
export async function syncInstance(world: World, key: string): Promise<void> {
  const instance = world.instances.get(key);
  if (instance === undefined) return;
  const pod = podOf(world, instance);
  if (isDeleting(instance)) return finish(world, instance, pod);
  if (isFinal(instance)) return pod === undefined ? undefined : world.pods.remove(pod, { gracePeriodSeconds: 0 });
  switch (instance.status.phase) {
    case "Scheduling":
      return launch(world, instance, pod);
    case "Scheduled":
      return boot(world, instance, pod);
    case "Running":
      return keepRunning(world, instance, pod);
    default:
      return schedule(world, instance);
  }
}

/** Pending → Scheduling, with a pod. */
async function schedule(world: World, instance: Instance): Promise<void> {
  if (isTooEarly(world, instance, "schedule")) return;
  const { unschedulable } = behaviourOf(instance);
  const node = unschedulable ? undefined : nodeFor(instance.metadata.uid);
  await world.pods.create(instance.metadata.namespace, launcherPod(instance, node));
  // One that was there already and has not been seen yet: its event brings the instance back here.
  if (podOf(world, instance) === undefined) return;
  await advance(world, instance, "Scheduling", unschedulable ? [UNSCHEDULABLE] : []);
}

/** Scheduling → Scheduled, when the pod runs. */
async function launch(world: World, instance: Instance, pod: Pod | undefined): Promise<void> {
  if (pod === undefined) return fail(world, instance);
  if (!isOurNode(pod.spec.nodeName) || isTooEarly(world, instance, "launch")) return;
  const isReadyAtOnce = readyDelayMs(world, instance, behaviourOf(instance)) === 0;
  await reportPod(world, instance, pod, isReadyAtOnce);
  const { nodeName } = pod.spec;
  const address = world.addresses.allocate(instance.metadata.uid);
  await world.instances.replaceStatus(instance, {
    labels: { ...instance.metadata.labels, "kubevirt.io/nodeName": nodeName },
    status: {
      ...inPhase(world, instance, "Scheduled", []),
      nodeName,
      activePods: { [pod.metadata.uid]: nodeName },
      interfaces: [{ name: "default", ipAddress: address, ipAddresses: [address] }],
    },
  });
}

/** Scheduled → Running, or Failed. */
async function boot(world: World, instance: Instance, pod: Pod | undefined): Promise<void> {
  if (pod === undefined) return fail(world, instance);
  if (isTooEarly(world, instance, "boot")) return;
  const behaviour = behaviourOf(instance);
  if (behaviour.crashLoop) return fail(world, instance);
  const isReady = readyDelayMs(world, instance, behaviour) === 0;
  await advance(world, instance, "Running", [isReady ? READY : GUEST_NOT_READY, LIVE_MIGRATABLE]);
}

/** Ready or not, as told; the pod likewise, because Services look at that. */
async function keepRunning(world: World, instance: Instance, pod: Pod | undefined): Promise<void> {
  if (pod === undefined || isDeleting(pod)) return fail(world, instance);
  const delayMs = readyDelayMs(world, instance, behaviourOf(instance));
  const isReady = delayMs === 0;
  if (!isReady && Number.isFinite(delayMs)) world.addAfter("instance", keyOf(instance), delayMs);
  if (isTrue(pod.status.conditions, "Ready") !== isReady) await reportPod(world, instance, pod, isReady);
  if (isTrue(instance.status.conditions, "Ready") === isReady) return resize(world, instance);
  await setConditions(world, instance, [isReady ? READY : GUEST_NOT_READY]);
}

/** The status follows a spec that has changed in size, when the guest has it. */
async function resize(world: World, instance: Instance): Promise<void> {
  const { metadata, spec, status } = instance;
  const size = sizeStatus(spec, status["memory"]);
  if (Object.entries(size).every(([field, value]) => isDeepStrictEqual(status[field], value))) return;
  const remainingMs = world.pacer.remainingMs(metadata.uid, JSON.stringify(size), "resize");
  if (remainingMs > 0) return world.addAfter("instance", keyOf(instance), remainingMs);
  await world.instances.replaceStatus(instance, { status: { ...status, ...size } });
}

async function fail(world: World, instance: Instance): Promise<void> {
  await advance(world, instance, "Failed", [GUEST_NOT_RUNNING]);
}

/** The end: not ready, then the pod goes, then the finalizer. */
async function finish(world: World, instance: Instance, pod: Pod | undefined): Promise<void> {
  if (!instance.metadata.finalizers.includes(INSTANCE_FINALIZER)) return;
  if (pod === undefined) {
    const finalizers = instance.metadata.finalizers.filter((finalizer) => finalizer !== INSTANCE_FINALIZER);
    await world.instances.patch(instance, { metadata: { finalizers } });
    return;
  }
  if (isTrue(instance.status.conditions, "Ready")) {
    return setConditions(world, instance, [POD_TERMINATING]);
  }
  if (!isFinal(instance) && isTooEarly(world, instance, "shutDown")) return;
  await world.pods.remove(pod, { gracePeriodSeconds: 0 });
}

/** Whether the step has not taken its time yet; then the instance comes again. */
function isTooEarly(world: World, instance: Instance, step: Step): boolean {
  const remainingMs = world.pacer.remainingMs(instance.metadata.uid, step, step);
  if (remainingMs > 0) world.addAfter("instance", keyOf(instance), remainingMs);
  return remainingMs > 0;
}

/** How long until the instance is to be ready: 0 when it is time, infinite when never. */
function readyDelayMs(world: World, instance: Instance, behaviour: Behaviour): number {
  if (behaviour.neverReady) return Number.POSITIVE_INFINITY;
  const createdAtMs = Date.parse(instance.metadata.creationTimestamp ?? "") || 0;
  return Math.max(0, createdAtMs + behaviour.readyAfterSeconds * 1_000 - world.now());
}

async function advance(
  world: World,
  instance: Instance,
  phase: string,
  conditions: readonly Condition[],
): Promise<void> {
  await world.instances.replaceStatus(instance, { status: inPhase(world, instance, phase, conditions) });
}

async function setConditions(world: World, instance: Instance, wanted: readonly Condition[]): Promise<void> {
  const conditions = withConditions(world, instance, wanted);
  await world.instances.replaceStatus(instance, { status: { ...instance.status, conditions } });
}

function inPhase(world: World, instance: Instance, phase: string, conditions: readonly Condition[]): object {
  return {
    ...instance.status,
    phase,
    conditions: withConditions(world, instance, conditions),
    phaseTransitionTimestamps: [
      ...instance.status.phaseTransitionTimestamps,
      { phase, phaseTransitionTimestamp: timestamp(world.now()) },
    ],
  };
}

/** The instance's conditions with these in place of those of the same type. */
function withConditions(world: World, instance: Instance, wanted: readonly Condition[]): Condition[] {
  const present = instance.status.conditions;
  const kept = present.filter((condition) => !wanted.some(({ type }) => type === condition.type));
  const changed = wanted.map((condition) => refreshed(present, { lastProbeTime: null, ...condition }, world.now()));
  return [...kept, ...changed];
}

function podOf(world: World, instance: Instance): Pod | undefined {
  return world.pods.get(`${instance.metadata.namespace}/${launcherName(instance)}`);
}

async function reportPod(world: World, instance: Instance, pod: Pod, isReady: boolean): Promise<void> {
  const address = world.addresses.allocate(instance.metadata.uid);
  await world.pods.patch(pod, { status: launcherStatus(pod, address, isReady, world.now()) }, "status");
}
