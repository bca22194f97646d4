/** Builders of virtual machines for the stand-in's tests, and where to find what comes of them. */
import { at, eventually, type TestCluster } from "./cluster.ts";

export interface MachineOptions {
  readonly namespace: string;
  readonly name: string;
  readonly runStrategy?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly behaviour?: string;
  /** Names of DataVolumes from templates. */
  readonly disks?: readonly string[];
  /** Name of a claim that somebody else makes. */
  readonly claim?: string;
  readonly finalizers?: readonly string[];
  /** Fields of the template's spec beside those that the other options make. */
  readonly spec?: object;
  /** Fields of its domain, likewise. */
  readonly domain?: object;
}

/** A virtual machine as YAML (that is, JSON). */
export function aMachine(options: MachineOptions): string {
  const { namespace, name, runStrategy = "Always", labels = {}, behaviour, disks = [], claim } = options;
  const annotations = behaviour === undefined ? {} : { "stand-in.vmpool-functions/behaviour": behaviour };
  const volumes = [
    ...disks.map((disk) => ({ name: disk, dataVolume: { name: disk } })),
    ...(claim === undefined ? [] : [{ name: claim, persistentVolumeClaim: { claimName: claim } }]),
  ];
  return JSON.stringify({
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachine",
    metadata: { name, namespace, finalizers: options.finalizers ?? [] },
    spec: {
      runStrategy,
      template: {
        metadata: { labels, annotations },
        spec: { ...options.spec, domain: { devices: {}, ...options.domain }, volumes },
      },
      dataVolumeTemplates: disks.map((disk) => aDataVolume({ name: disk })),
    },
  });
}

/** A DataVolume, or the template of one. */
export function aDataVolume(metadata: {
  readonly name: string;
  readonly namespace?: string;
  readonly ownerReferences?: readonly object[];
}): object {
  return {
    apiVersion: "cdi.kubevirt.io/v1beta1",
    kind: "DataVolume",
    metadata,
    spec: { source: { blank: {} }, storage: { resources: { requests: { storage: "1Gi" } } } },
  };
}

/** Where the objects of one machine are served. */
export function pathsOf(namespace: string, name: string) {
  const kubevirt = `/apis/kubevirt.io/v1/namespaces/${namespace}`;
  return {
    machine: `${kubevirt}/virtualmachines/${name}`,
    instance: `${kubevirt}/virtualmachineinstances/${name}`,
    instances: `${kubevirt}/virtualmachineinstances`,
    dataVolume: (disk: string) => `/apis/cdi.kubevirt.io/v1beta1/namespaces/${namespace}/datavolumes/${disk}`,
    claim: (disk: string) => `/api/v1/namespaces/${namespace}/persistentvolumeclaims/${disk}`,
    pods: `/api/v1/namespaces/${namespace}/pods`,
  };
}

/** Waits until the machine says so. */
export async function untilPrintable(cluster: TestCluster, path: string, status: string): Promise<unknown> {
  return untilField(cluster, path, "status.printableStatus", status);
}

/** Waits until the field of the object has the value; the object. */
export async function untilField(cluster: TestCluster, path: string, field: string, value: unknown): Promise<unknown> {
  return eventually(async () => {
    const object = await cluster.read(path);
    if (at(object, field) !== value)
      throw new Error(`${path}: ${field} is ${JSON.stringify(at(object, field))}, not ${JSON.stringify(value)}`);
    return object;
  });
}

/** Waits until the machine is ready with an instance other than that one; the instance's UID. */
export async function untilReadyWithout(
  cluster: TestCluster,
  paths: ReturnType<typeof pathsOf>,
  uid: unknown,
): Promise<string> {
  return eventually(async () => {
    const [machine, instance] = await Promise.all([cluster.read(paths.machine), cluster.read(paths.instance)]);
    const present = at(instance, "metadata.uid");
    if (at(machine, "status.ready") !== true || at(instance, "status.phase") !== "Running")
      throw new Error("not ready");
    if (present === uid) throw new Error("still the same instance");
    return String(present);
  });
}

export async function untilGone(cluster: TestCluster, path: string): Promise<void> {
  return eventually(async () => {
    if ((await cluster.read(path)) !== undefined) throw new Error(`${path} is still there`);
  });
}
