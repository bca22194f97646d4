/** KubeVirt's side of a machine as explicit steps: finalizer, instance, readiness, deletion. How long each takes is the scheduler's choice. */
import { isRecord } from "../../shared/planning/json.ts";
import type { Call, MemoryCluster } from "./cluster.ts";
import type { Step } from "./garbage.ts";
import type { Kind } from "./kinds.ts";
import { finalizersOf, isTerminating, type KubeObject, ownersOf, recordAt } from "./objects.ts";

const ACTOR = "kubevirt";
const VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize";
const INSTANCE_FINALIZER = "foregroundDeleteVirtualMachine";
const MERGE = "application/merge-patch+json";

interface Machines {
  readonly cluster: MemoryCluster;
  readonly vmKind: Kind;
  readonly instanceKind: Kind;
}

/** What KubeVirt could do now; empty when every machine is as it should be. */
export function kubevirtSteps(cluster: MemoryCluster): readonly Step[] {
  const machines = machinesOf(cluster);
  const { store } = cluster;
  return [
    ...store.list(machines.vmKind).flatMap((vm) => vmSteps(machines, vm)),
    ...store.list(machines.instanceKind).flatMap((instance) => instanceSteps(machines, instance)),
  ];
}

/** An instance that was ready and is no longer, or is again: one step for each. */
export function crashSteps(cluster: MemoryCluster): readonly Step[] {
  const machines = machinesOf(cluster);
  const running = cluster.store
    .list(machines.instanceKind)
    .filter((instance) => recordAt(instance, "status")["phase"] === "Running" && !isTerminating(instance));
  return running.map((instance) => {
    const ready = !isReady(instance);
    return {
      label: `${ready ? "recover" : "crash"} ${instance.metadata.name}`,
      take: () => merge(machines, instance, "", { status: { phase: "Running", conditions: conditions(ready) } }),
    };
  });
}

/** What KubeVirt could tell of readiness. */
export function reportSteps(cluster: MemoryCluster): readonly Step[] {
  return kubevirtSteps(cluster).filter(({ label }) => label.startsWith("report "));
}

export function isReady(object: KubeObject): boolean {
  const list: unknown = recordAt(object, "status")["conditions"];
  if (!Array.isArray(list)) return false;
  return list.some((entry) => isRecord(entry) && entry["type"] === "Ready" && entry["status"] === "True");
}

function machinesOf(cluster: MemoryCluster): Machines {
  const kindOf = (plural: string) => {
    const kind = cluster.kinds.find((known) => known.plural === plural);
    if (kind === undefined) throw new Error(`no such kind: ${plural}`);
    return kind;
  };
  return { cluster, vmKind: kindOf("virtualmachines"), instanceKind: kindOf("virtualmachineinstances") };
}

function vmSteps(machines: Machines, vm: KubeObject): Step[] {
  const { cluster, instanceKind } = machines;
  const { name, namespace } = vm.metadata;
  const instance = cluster.store.get(instanceKind, namespace, name);
  const own =
    instance !== undefined && ownersOf(instance).some(({ uid }) => uid === vm.metadata.uid) ? instance : undefined;
  const finalizers = finalizersOf(vm);
  const step = (what: string, take: () => void): Step => ({ label: `${what} ${name}`, take });
  if (isTerminating(vm)) {
    if (!finalizers.includes(VM_FINALIZER)) return [];
    if (own !== undefined) {
      return isTerminating(own)
        ? []
        : [step("stop", () => send(machines, { method: "DELETE", path: pathOf(instanceKind, own) }))];
    }
    const kept = finalizers.filter((finalizer) => finalizer !== VM_FINALIZER);
    return [step("let go", () => merge(machines, vm, "", { metadata: { finalizers: kept } }))];
  }
  if (!finalizers.includes(VM_FINALIZER)) {
    return [
      step("take up", () => merge(machines, vm, "", { metadata: { finalizers: [...finalizers, VM_FINALIZER] } })),
    ];
  }
  const steps = instance === undefined ? [step("start", () => createInstance(machines, vm))] : [];
  const ready = own !== undefined && isReady(own);
  if (ready === isReady(vm)) return steps;
  const status = { ready, conditions: conditions(ready) };
  return [
    ...steps,
    step(ready ? "report ready" : "report not ready", () => merge(machines, vm, "/status", { status })),
  ];
}

function instanceSteps(machines: Machines, instance: KubeObject): Step[] {
  const { name } = instance.metadata;
  if (isTerminating(instance)) {
    if (!finalizersOf(instance).includes(INSTANCE_FINALIZER)) return [];
    return [
      { label: `power off ${name}`, take: () => merge(machines, instance, "", { metadata: { finalizers: [] } }) },
    ];
  }
  if (recordAt(instance, "status")["phase"] === "Running") return [];
  const status = { phase: "Running", conditions: conditions(true) };
  return [{ label: `boot ${name}`, take: () => merge(machines, instance, "", { status }) }];
}

function conditions(ready: boolean) {
  return [{ type: "Ready", status: ready ? "True" : "False" }];
}

function createInstance(machines: Machines, vm: KubeObject): void {
  const { name, namespace, uid } = vm.metadata;
  const owner = { apiVersion: vm.apiVersion, kind: vm.kind, name, uid, controller: true, blockOwnerDeletion: true };
  const body = {
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachineInstance",
    metadata: { name, namespace, finalizers: [INSTANCE_FINALIZER], ownerReferences: [owner] },
    spec: {},
    status: { phase: "Scheduling" },
  };
  const path = `/apis/kubevirt.io/v1/namespaces/${namespace}/virtualmachineinstances`;
  send(machines, { method: "POST", path, body });
}

function pathOf(kind: Kind, { metadata }: KubeObject): string {
  return `/apis/${kind.group}/v1/namespaces/${metadata.namespace}/${kind.plural}/${metadata.name}`;
}

function merge(machines: Machines, object: KubeObject, subresource: string, body: object): void {
  const kind = object.kind === "VirtualMachine" ? machines.vmKind : machines.instanceKind;
  send(machines, { method: "PATCH", path: `${pathOf(kind, object)}${subresource}`, body, contentType: MERGE });
}

function send({ cluster }: Machines, call: Call): void {
  const { status } = cluster.answer(call, ACTOR);
  if (status >= 300) throw new Error(`KubeVirt's side was refused: ${status} ${call.method} ${call.path}`);
}
