/** Keeps what one virtual machine asks for: its finalizer, disks, instance and status. Never touches its spec, but to switch it on. */

import { CLAIM_ADOPTION_ANNOTATION } from "./data-volumes.ts";
import { firstInstanceStatus, INSTANCE_FINALIZER, isFinal } from "./instances.ts";
import { planLiveUpdate, specAtStart } from "./live-update.ts";
import { type Disks, generationAnnotation, planStatus, templateDigest } from "./machine-status.ts";
import {
  controllerOf,
  controllerReference,
  type DataVolume,
  disksUsed,
  type Instance,
  isDeleting,
  keyOf,
  MACHINES,
  type Machine,
} from "./objects.ts";
import { planRun, type RunStep } from "./run-strategy.ts";
import type { World } from "./world.ts";

const MACHINE_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize";
/** The control plane's own, while it detaches what the machine owns. */
const ORPHAN_FINALIZER = "orphan";

/** Does what is due for the machine of that key; called whenever it, its instance or one of its disks changed. */
export async function syncMachine(world: World, key: string): Promise<void> {
  let machine = world.machines.get(key);
  if (machine === undefined) return;
  if (isDeleting(machine)) return finish(world, machine);
  machine = await ensureFinalizer(world, machine);
  await ensureDisks(world, machine);
  await adoptInstance(world, machine);
  const instance = instanceOf(world, machine);
  // A failed start has to be counted before its instance goes.
  if (instance !== undefined && isFinal(instance)) machine = await reportStatus(world, machine);
  machine = await applyStep(world, machine, planRun(machine, instance, world.now()));
  await updateInstance(world, machine);
  await reportStatus(world, machine);
}

/** The machine goes after its instance. */
async function finish(world: World, machine: Machine): Promise<void> {
  if (!machine.metadata.finalizers.includes(MACHINE_FINALIZER)) return;
  const instance = instanceOf(world, machine);
  const isOrphaning = machine.metadata.finalizers.includes(ORPHAN_FINALIZER);
  if (instance !== undefined && !isOrphaning) {
    const reported = await reportStatus(world, machine);
    if (!isDeleting(instance)) await world.instances.remove(instance);
    await reportStatus(world, reported);
    return;
  }
  const finalizers = machine.metadata.finalizers.filter((finalizer) => finalizer !== MACHINE_FINALIZER);
  await world.machines.patch(machine, { metadata: { finalizers } });
}

async function ensureFinalizer(world: World, machine: Machine): Promise<Machine> {
  const { finalizers } = machine.metadata;
  if (finalizers.includes(MACHINE_FINALIZER)) return machine;
  const patched = await world.machines.patch(machine, { metadata: { finalizers: [...finalizers, MACHINE_FINALIZER] } });
  return patched ?? machine;
}

/**
 * The DataVolumes of the machine's templates; one of the name that nobody controls becomes the machine's. One that another
 * controls, be it a machine that is gone, is left alone; as in KubeVirt the machine starts with it nevertheless.
 */
async function ensureDisks(world: World, machine: Machine): Promise<void> {
  const { namespace, uid } = machine.metadata;
  const owner = controllerReference(MACHINES, machine);
  for (const template of machine.spec.dataVolumeTemplates) {
    const { name, labels, annotations } = template.metadata;
    const present = world.dataVolumes.get(`${namespace}/${name}`);
    if (present === undefined) {
      const metadata = {
        name,
        labels: { ...labels, "kubevirt.io/created-by": uid },
        annotations: { [CLAIM_ADOPTION_ANNOTATION]: "true", ...annotations },
        ownerReferences: [owner],
      };
      await world.dataVolumes.create(namespace, { metadata, spec: template.spec });
    } else if (controllerOf(present) === undefined && !isDeleting(present)) {
      // KubeVirt adopts by a merge patch, which replaces the list: owners that control nothing are lost.
      await world.dataVolumes.patch(present, { metadata: { ownerReferences: [owner] } });
    }
  }
}

/** An instance of the machine's name that nobody controls becomes the machine's. */
async function adoptInstance(world: World, machine: Machine): Promise<void> {
  const instance = world.instances.get(keyOf(machine));
  if (instance === undefined || isDeleting(instance) || controllerOf(instance) !== undefined) return;
  const ownerReferences = [controllerReference(MACHINES, machine)];
  await world.instances.patch(instance, { metadata: { ownerReferences } });
}

/** The machine's own instance; another's of the same name is none. */
function instanceOf(world: World, machine: Machine): Instance | undefined {
  const instance = world.instances.get(keyOf(machine));
  const owner = instance === undefined ? undefined : controllerOf(instance);
  return owner?.uid === machine.metadata.uid ? instance : undefined;
}

async function applyStep(world: World, machine: Machine, step: RunStep): Promise<Machine> {
  switch (step.kind) {
    case "stay":
      return machine;
    case "wait":
      world.addAfter("machine", keyOf(machine), step.delayMs);
      return machine;
    case "start":
      await startInstance(world, machine);
      return machine;
    case "switchOn": {
      const spec = typeof machine.spec.running === "boolean" ? { running: true } : { runStrategy: "Always" };
      return (await world.machines.patch(machine, { spec })) ?? machine;
    }
    case "stop": {
      await world.instances.remove(step.instance);
      if (!step.startAgain) return machine;
      const stateChangeRequests = [...(machine.status.stateChangeRequests ?? []), { action: "Start" }];
      return writeStatus(world, machine, { stateChangeRequests });
    }
    default:
      return assertNever(step);
  }
}

async function startInstance(world: World, machine: Machine): Promise<void> {
  // An instance of the name that belongs to another machine has to go first.
  if (disksOf(world, machine) !== "ready" || world.instances.get(keyOf(machine)) !== undefined) return;
  const { name, namespace } = machine.metadata;
  const { metadata } = machine.spec.template;
  const spec = specAtStart(machine, world.rollout());
  await world.instances.create(namespace, {
    metadata: {
      name,
      labels: metadata.labels,
      annotations: { ...metadata.annotations, ...generationAnnotation(machine) },
      finalizers: [INSTANCE_FINALIZER],
      ownerReferences: [controllerReference(MACHINES, machine)],
    },
    spec,
    status: { ...firstInstanceStatus(spec, world.now()), templateDigest: templateDigest(machine) },
  });
}

/** Brings what a running instance can take of a changed template into its spec, a moment later. */
async function updateInstance(world: World, machine: Machine): Promise<void> {
  const instance = instanceOf(world, machine);
  if (instance === undefined || isDeleting(instance) || isFinal(instance)) return;
  const { spec } = planLiveUpdate(machine, instance, world.rollout());
  if (spec === undefined) return;
  const generation = String(machine.metadata.generation);
  const remainingMs = world.pacer.remainingMs(instance.metadata.uid, generation, "liveUpdate");
  if (remainingMs > 0) return world.addAfter("machine", keyOf(machine), remainingMs);
  await world.instances.replaceSpec(instance, spec);
}

async function reportStatus(world: World, machine: Machine): Promise<Machine> {
  const status = planStatus({
    machine,
    instance: instanceOf(world, machine),
    disks: disksOf(world, machine),
    rollout: world.rollout(),
    startBackoffMs: world.startBackoffMs,
    nowMs: world.now(),
  });
  return status === undefined ? machine : writeStatus(world, machine, status);
}

async function writeStatus(
  world: World,
  machine: Machine,
  changes: Readonly<Record<string, unknown>>,
): Promise<Machine> {
  const fields = Object.entries({ ...machine.status, ...changes }).filter(([, value]) => value !== null);
  const status = Object.fromEntries(fields);
  return (await world.machines.replaceStatus(machine, { status, subresource: "status" })) ?? machine;
}

/** How far the machine's disks are: the least advanced one counts. */
function disksOf(world: World, machine: Machine): Disks {
  const { namespace } = machine.metadata;
  const used = disksUsed(machine.spec.template.spec);
  const templated = machine.spec.dataVolumeTemplates.map((template) => template.metadata.name ?? "");
  const names = new Set([...templated, ...used.dataVolumes]);
  const phases = [...names].map((name) => {
    const dataVolume = world.dataVolumes.get(`${namespace}/${name}`);
    return dataVolume === undefined && templated.includes(name) ? "provisioning" : progressOf(dataVolume);
  });
  const claims = used.claims.filter((name) => !names.has(name));
  if (claims.some((name) => world.claims.get(`${namespace}/${name}`) === undefined)) return "missing";
  for (const worst of ["missing", "failed", "binding", "provisioning"] as const) {
    if (phases.includes(worst)) return worst;
  }
  return "ready";
}

function progressOf(dataVolume: DataVolume | undefined): Disks {
  switch (dataVolume?.status.phase) {
    case undefined:
      return "missing";
    case "Succeeded":
      return "ready";
    case "Failed":
      return "failed";
    case "":
    case "Pending":
      return "binding";
    default:
      return "provisioning";
  }
}

function assertNever(value: never): never {
  throw new Error(`unexpected step ${JSON.stringify(value)}`);
}
