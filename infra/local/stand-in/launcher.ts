/** What the launcher pod of an instance looks like: a pod that no kubelet runs and that Services can select. Pure. */

import { addressOf } from "./nodes.ts";
import {
  controllerReference,
  INSTANCES,
  type Instance,
  type Pod,
  refreshed,
  requestsOf,
  timestamp,
} from "./objects.ts";
import { hash } from "./pace.ts";

const NAME_LENGTH_MAX = 63;
const SUFFIX_LENGTH = 5;
const CONTAINER = "compute";
const IMAGE = "stand-in.vmpool-functions/virt-launcher";

/** The pod's name: the same each time for one incarnation of the instance. */
export function launcherName(instance: Instance): string {
  const suffix = hash(instance.metadata.uid).toString(36).padStart(SUFFIX_LENGTH, "0").slice(-SUFFIX_LENGTH);
  const head = `virt-launcher-${instance.metadata.name}`.slice(0, NAME_LENGTH_MAX - SUFFIX_LENGTH - 1);
  return `${head.replace(/[-.]+$/, "")}-${suffix}`;
}

/** The pod to create; without a node it stays unscheduled, since nothing else schedules here. */
export function launcherPod(instance: Instance, node: string | undefined): object {
  const { metadata, spec } = instance;
  const { cpu, memory } = requestsOf(spec);
  return {
    metadata: {
      name: launcherName(instance),
      labels: {
        ...metadata.labels,
        "kubevirt.io": "virt-launcher",
        "kubevirt.io/created-by": metadata.uid,
        "vm.kubevirt.io/name": metadata.name.slice(0, NAME_LENGTH_MAX).replace(/[-.]+$/, ""),
      },
      annotations: { ...metadata.annotations, "kubevirt.io/domain": metadata.name },
      ownerReferences: [controllerReference(INSTANCES, instance)],
    },
    spec: {
      ...(node === undefined ? {} : { nodeName: node }),
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 0,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      containers: [{ name: CONTAINER, image: IMAGE, resources: { requests: { cpu, memory } } }],
    },
  };
}

/** The status of a pod that runs. */
export function launcherStatus(pod: Pod, address: string, isReady: boolean, nowMs: number): object {
  const status = isReady ? "True" : "False";
  const conditions = [
    { type: "PodScheduled", status: "True" },
    { type: "Initialized", status: "True" },
    { type: "ContainersReady", status },
    { type: "Ready", status },
  ];
  const hostAddress = addressOf(pod.spec.nodeName);
  return {
    phase: "Running",
    startTime: timestamp(nowMs),
    hostIP: hostAddress,
    hostIPs: [{ ip: hostAddress }],
    podIP: address,
    podIPs: [{ ip: address }],
    conditions: conditions.map((condition) => refreshed(pod.status.conditions, condition, nowMs)),
    containerStatuses: [
      {
        name: CONTAINER,
        image: IMAGE,
        imageID: "",
        ready: isReady,
        started: true,
        restartCount: 0,
        state: { running: { startedAt: timestamp(nowMs) } },
      },
    ],
  };
}
