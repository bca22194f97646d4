/**
 * KubeVirt's side of a machine as explicit steps: finalizer, disks, instance, requests, readiness, deletion. How long each takes is the
 * scheduler's choice. An instance is what its machine's template says at the moment of its start, labels included.
 */
import { isRecord } from "../../shared/planning/json.ts";
import type { Call, MemoryCluster } from "./cluster.ts";
import type { Step } from "./garbage.ts";
import type { Kind } from "./kinds.ts";
import { finalizersOf, isTerminating, type KubeObject, ownersOf, recordAt } from "./objects.ts";

const ACTOR = "kubevirt";
const VM_FINALIZER = "kubevirt.io/virtualMachineControllerFinalize";
const INSTANCE_FINALIZER = "foregroundDeleteVirtualMachine";
const ORPHAN_FINALIZER = "orphan";
const MERGE = "application/merge-patch+json";

interface Machines {
  readonly cluster: MemoryCluster;
  readonly vmKind: Kind;
  readonly instanceKind: Kind;
  readonly diskKind: Kind;
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
  return runningOf(machines).map((instance) => {
    const ready = !isReady(instance);
    return {
      label: `${ready ? "recover" : "crash"} ${instance.metadata.name}`,
      take: () => merge(machines, instance, "", { status: { phase: "Running", conditions: conditions(ready) } }),
    };
  });
}

/** A guest that shuts itself down, or whose instance fails for good: two steps for each that runs. */
export function endSteps(cluster: MemoryCluster): readonly Step[] {
  const machines = machinesOf(cluster);
  return runningOf(machines).flatMap((instance) =>
    (["Succeeded", "Failed"] as const).map((phase) => ({
      label: `${phase === "Failed" ? "fail" : "shut down"} ${instance.metadata.name}`,
      take: () => merge(machines, instance, "", { status: { phase, conditions: conditions(false) } }),
    })),
  );
}

/** A machine whose guest ends and does not come up again, as often as it is tried meanwhile, or finds no node. */
export function startFailureSteps(cluster: MemoryCluster): readonly Step[] {
  const machines = machinesOf(cluster);
  const { store } = cluster;
  return store.list(machines.vmKind).flatMap((vm) => {
    const { name, namespace } = vm.metadata;
    const instance = store.get(machines.instanceKind, namespace, name);
    if (isTerminating(vm) || instance === undefined || isTerminating(instance)) return [];
    const { consecutiveFailCount: count } = recordAt(recordAt(vm, "status"), "startFailure");
    const show = (more: object) => {
      const status = { ready: false, conditions: conditionsAt(cluster, vm, false), ...more };
      merge(machines, vm, "/status", { status });
    };
    const fail = () => {
      merge(machines, instance, "", { status: { phase: "Failed", conditions: conditions(false) } });
      const startFailure = { consecutiveFailCount: (typeof count === "number" ? count : 0) + 1 };
      show({ startFailure, printableStatus: "CrashLoopBackOff" });
    };
    const isStarting = recordAt(instance, "status")["phase"] === "Scheduling";
    const wait = () => show({ printableStatus: "ErrorUnschedulable" });
    return [
      { label: `fail to start ${name}`, take: fail },
      ...(isStarting ? [{ label: `find no node for ${name}`, take: wait }] : []),
    ];
  });
}

/** Whatever runs is ready again. */
export function recoverAll(cluster: MemoryCluster): void {
  for (const step of crashSteps(cluster)) if (step.label.startsWith("recover ")) step.take();
}

function runningOf({ cluster, instanceKind }: Machines): readonly KubeObject[] {
  return cluster.store
    .list(instanceKind)
    .filter((instance) => recordAt(instance, "status")["phase"] === "Running" && !isTerminating(instance));
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

/** The instance has come to its end. */
export function isFinal(instance: KubeObject): boolean {
  const { phase } = recordAt(instance, "status");
  return phase === "Succeeded" || phase === "Failed";
}

/** The run strategy; `running` is the older way to say Always or Halted. */
export function runStrategyOf(vm: KubeObject): string {
  const { running, runStrategy } = recordAt(vm, "spec");
  if (typeof running === "boolean") return running ? "Always" : "Halted";
  return typeof runStrategy === "string" ? runStrategy : "Halted";
}

interface Request {
  readonly action: unknown;
  readonly uid: unknown;
}

/** What the machine was asked to do, the next first. */
export function requestsOf(vm: KubeObject): readonly Request[] {
  const list: unknown = recordAt(vm, "status")["stateChangeRequests"];
  if (!Array.isArray(list)) return [];
  return list.filter(isRecord).map((entry) => ({ action: entry["action"], uid: entry["uid"] }));
}

function machinesOf(cluster: MemoryCluster): Machines {
  const kindOf = (plural: string) => {
    const kind = cluster.kinds.find((known) => known.plural === plural);
    if (kind === undefined) throw new Error(`no such kind: ${plural}`);
    return kind;
  };
  return {
    cluster,
    vmKind: kindOf("virtualmachines"),
    instanceKind: kindOf("virtualmachineinstances"),
    diskKind: kindOf("datavolumes"),
  };
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
    if (own !== undefined && !finalizers.includes(ORPHAN_FINALIZER)) {
      return isTerminating(own) ? [] : [step("stop", () => remove(machines, own))];
    }
    const kept = finalizers.filter((finalizer) => finalizer !== VM_FINALIZER);
    return [step("let go", () => merge(machines, vm, "", { metadata: { finalizers: kept } }))];
  }
  if (!finalizers.includes(VM_FINALIZER)) {
    return [
      step("take up", () => merge(machines, vm, "", { metadata: { finalizers: [...finalizers, VM_FINALIZER] } })),
    ];
  }
  const disks = diskSteps(machines, vm);
  const runs = disks.length > 0 && instance === undefined ? [] : runSteps(machines, { vm, instance, own });
  const ready = own !== undefined && isReady(own);
  const created = own !== undefined;
  const status = recordAt(vm, "status");
  if (ready === isReady(vm) && created === (status["created"] === true)) return [...disks, ...runs];
  const well = ready ? { startFailure: null, printableStatus: "Running" } : {};
  const report = { ready, created, conditions: conditionsAt(cluster, vm, ready), ...well };
  return [
    ...disks,
    ...runs,
    step(ready ? "report ready" : "report not ready", () => merge(machines, vm, "/status", { status: report })),
  ];
}

interface Running {
  readonly vm: KubeObject;
  /** Of the machine's name, whoever owns it. */
  readonly instance: KubeObject | undefined;
  readonly own: KubeObject | undefined;
}

/** Starts, stops and requests, as the run strategy has it. */
function runSteps(machines: Machines, { vm, instance, own }: Running): Step[] {
  const { name } = vm.metadata;
  const step = (what: string, take: () => void): Step[] => [{ label: `${what} ${name}`, take }];
  const requests = requestsOf(vm);
  const [first] = requests;
  const start = () => step("start", () => createInstance(machines, vm));
  const stop = (live: KubeObject) => step("stop", () => remove(machines, live));
  const isStopDone = first?.action === "Stop" && (own === undefined || own.metadata.uid !== first.uid);
  const isStartDone = first?.action === "Start" && own !== undefined && !isTerminating(own) && !isFinal(own);
  if (isStopDone || isStartDone) {
    const left = requests.slice(1);
    const stateChangeRequests = left.length === 0 ? null : left;
    return step("tick off a request of", () => merge(machines, vm, "/status", { status: { stateChangeRequests } }));
  }
  if (instance !== undefined && own === undefined) {
    const isLoose = ownersOf(instance).length === 0 && !isTerminating(instance);
    const ownerReferences = [controlledBy(vm)];
    return isLoose
      ? step("take over the instance of", () => merge(machines, instance, "", { metadata: { ownerReferences } }))
      : [];
  }
  if (own !== undefined && isTerminating(own)) return [];
  const isStopAsked = first?.action === "Stop";
  const isStartAsked = first?.action === "Start";
  switch (runStrategyOf(vm)) {
    case "Always":
      if (own === undefined) return start();
      return isStopAsked || isFinal(own) ? stop(own) : [];
    case "RerunOnFailure":
      if (own === undefined) {
        return isStartAsked || recordAt(vm, "status")["runStrategy"] !== "RerunOnFailure" ? start() : [];
      }
      if (isFinal(own) && !isStopAsked && recordAt(own, "status")["phase"] === "Failed") {
        return step("rerun", () => {
          remove(machines, own);
          merge(machines, vm, "/status", { status: { stateChangeRequests: [...requests, { action: "Start" }] } });
        });
      }
      return isStopAsked || isFinal(own) ? stop(own) : [];
    case "Manual":
      if (own === undefined) return isStartAsked ? start() : [];
      return isStopAsked || (isStartAsked && isFinal(own)) ? stop(own) : [];
    case "Halted":
      if (own !== undefined) return stop(own);
      return isStartAsked ? step("switch on", () => merge(machines, vm, "", { spec: switchedOn(vm) })) : [];
    default:
      return [];
  }
}

/** The machine runs from now on. */
export function switchedOn(vm: KubeObject): object {
  return typeof recordAt(vm, "spec")["running"] === "boolean" ? { running: true } : { runStrategy: "Always" };
}

/** The DataVolumes of the machine's templates; one that nobody controls becomes the machine's, and loses all other owners. */
function diskSteps(machines: Machines, vm: KubeObject): Step[] {
  const { cluster, diskKind } = machines;
  const { namespace } = vm.metadata;
  return diskTemplatesOf(vm).flatMap(({ name, spec }) => {
    const present = cluster.store.get(diskKind, namespace, name);
    const ownerReferences = [controlledBy(vm)];
    if (present === undefined) {
      const path = `/apis/cdi.kubevirt.io/v1beta1/namespaces/${namespace}/datavolumes`;
      const metadata = { name, ownerReferences };
      const body = { apiVersion: "cdi.kubevirt.io/v1beta1", kind: "DataVolume", metadata, spec };
      return [{ label: `create disk ${name}`, take: () => send(machines, { method: "POST", path, body }) }];
    }
    if (isTerminating(present) || ownersOf(present).some(({ controller }) => controller === true)) return [];
    return [
      { label: `take over disk ${name}`, take: () => merge(machines, present, "", { metadata: { ownerReferences } }) },
    ];
  });
}

export interface DiskTemplate {
  readonly name: string;
  readonly spec: unknown;
}

export function diskTemplatesOf(vm: KubeObject): readonly DiskTemplate[] {
  const list: unknown = recordAt(vm, "spec")["dataVolumeTemplates"];
  if (!Array.isArray(list)) return [];
  return list
    .filter(isRecord)
    .map((entry) => ({ name: String(recordAt(entry, "metadata")["name"]), spec: entry["spec"] ?? {} }));
}

function instanceSteps(machines: Machines, instance: KubeObject): Step[] {
  const { name } = instance.metadata;
  if (isTerminating(instance)) {
    if (!finalizersOf(instance).includes(INSTANCE_FINALIZER)) return [];
    const kept = finalizersOf(instance).filter((finalizer) => finalizer !== INSTANCE_FINALIZER);
    return [
      { label: `power off ${name}`, take: () => merge(machines, instance, "", { metadata: { finalizers: kept } }) },
    ];
  }
  if (recordAt(instance, "status")["phase"] !== "Scheduling") return [];
  const status = { phase: "Running", conditions: conditions(true) };
  return [{ label: `boot ${name}`, take: () => merge(machines, instance, "", { status }) }];
}

function conditions(ready: boolean) {
  return [{ type: "Ready", status: ready ? "True" : "False" }];
}

/** With the time of the last change, as the machine's own conditions have it. */
function conditionsAt(cluster: MemoryCluster, vm: KubeObject, ready: boolean) {
  const list: unknown = recordAt(vm, "status")["conditions"];
  const [known] = Array.isArray(list) ? list.filter(isRecord) : [];
  const status = ready ? "True" : "False";
  const isSince = known?.["status"] === status && typeof known["lastTransitionTime"] === "string";
  const lastTransitionTime = isSince ? known["lastTransitionTime"] : new Date(cluster.now()).toISOString();
  return [{ type: "Ready", status, lastTransitionTime }];
}

function controlledBy({ apiVersion, kind, metadata: { name, uid } }: KubeObject) {
  return { apiVersion, kind, name, uid, controller: true, blockOwnerDeletion: true };
}

function createInstance(machines: Machines, vm: KubeObject): void {
  const { name, namespace } = vm.metadata;
  const template = recordAt(recordAt(vm, "spec"), "template");
  const { labels, annotations } = recordAt(template, "metadata");
  const body = {
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachineInstance",
    metadata: {
      ...{ name, namespace, labels, annotations, finalizers: [INSTANCE_FINALIZER] },
      ownerReferences: [controlledBy(vm)],
    },
    spec: recordAt(template, "spec"),
    status: { phase: "Scheduling" },
  };
  const path = `/apis/kubevirt.io/v1/namespaces/${namespace}/virtualmachineinstances`;
  send(machines, { method: "POST", path, body });
  const runStrategy = runStrategyOf(vm);
  if (recordAt(vm, "status")["runStrategy"] !== runStrategy)
    merge(machines, vm, "/status", { status: { runStrategy } });
}

function pathOf(kind: Kind, { metadata }: KubeObject): string {
  return `/apis/${kind.group}/${kind.versions[0]}/namespaces/${metadata.namespace}/${kind.plural}/${metadata.name}`;
}

function kindOf({ vmKind, instanceKind, diskKind }: Machines, object: KubeObject): Kind {
  if (object.kind === "DataVolume") return diskKind;
  return object.kind === "VirtualMachine" ? vmKind : instanceKind;
}

function remove(machines: Machines, object: KubeObject): void {
  send(machines, { method: "DELETE", path: pathOf(kindOf(machines, object), object) });
}

function merge(machines: Machines, object: KubeObject, subresource: string, body: object): void {
  const path = `${pathOf(kindOf(machines, object), object)}${subresource}`;
  send(machines, { method: "PATCH", path, body, contentType: MERGE });
}

function send({ cluster }: Machines, call: Call): void {
  const { status } = cluster.answer(call, ACTOR);
  // In a namespace that is on its way out nothing can be made.
  if (status >= 300 && status !== 403)
    throw new Error(`KubeVirt's side was refused: ${status} ${call.method} ${call.path}`);
}
