/** Pools as a user would write them, for `kubectl create`. */

export interface PoolChanges {
  /** Absent in the manifest when undefined is given. */
  readonly replicas?: number | undefined;
  readonly matchLabels?: Readonly<Record<string, string>>;
  /** Labels of the machines. */
  readonly labels?: Readonly<Record<string, string>>;
  /** More fields of the pool's spec. */
  readonly spec?: object;
  /** More fields of the machines' spec. */
  readonly machine?: object;
  /** Of the instance. */
  readonly volumes?: readonly object[];
  readonly annotations?: Readonly<Record<string, string>>;
}

/** The label that `aPool` selects by, unless told otherwise. */
export const POOL_LABEL = "kubevirt.io/vmpool";

/** The user guide's pool under another name, with changes; one machine unless told otherwise. */
export function aPool(name: string, changes: PoolChanges = {}): object {
  const { matchLabels = { [POOL_LABEL]: name }, labels = { [POOL_LABEL]: name } } = changes;
  const replicas = "replicas" in changes ? changes.replicas : 1;
  const { volumes = [{ name: "containerdisk", containerDisk: { image: "cirros" } }], annotations } = changes;
  return {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: { name },
    spec: {
      ...(replicas === undefined ? {} : { replicas }),
      selector: { matchLabels },
      virtualMachineTemplate: {
        metadata: { labels, ...(annotations === undefined ? {} : { annotations }) },
        spec: {
          running: true,
          template: {
            metadata: { labels },
            spec: {
              domain: { devices: {}, resources: { requests: { memory: "128Mi" } } },
              terminationGracePeriodSeconds: 0,
              volumes,
            },
          },
          ...changes.machine,
        },
      },
      ...changes.spec,
    },
  };
}

/** The Deployment of KubeVirt's controllers, its own pool controller among them. */
export function aVirtController(): object {
  const name = "virt-controller";
  const labels = { "kubevirt.io": name };
  const containers = [{ name, image: `example/${name}`, command: [name] }];
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name, labels },
    spec: { replicas: 1, selector: { matchLabels: labels }, template: { metadata: { labels }, spec: { containers } } },
  };
}

/** A machine that belongs to no pool and does not run. */
export function aMachine(name: string, labels: Readonly<Record<string, string>> = {}): object {
  return {
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachine",
    metadata: { name, labels },
    spec: { runStrategy: "Halted", template: { spec: { domain: { devices: {} } } } },
  };
}
