/** What launcher pods use, in the place of a metrics server: as much CPU as the pool's annotation says. Writes no pod. */
import {
  controllerOf,
  type Instance,
  isDeleting,
  keyOf,
  type Metadata,
  PODS,
  type Pod,
  type Pool,
  requestsOf,
  timestamp,
} from "./objects.ts";
import { RefusedError, type Send } from "./requests.ts";
import type { World } from "./world.ts";

/** On a pool: how much of its CPU request each of its machines uses, such as `90%`. */
export const CPU_ANNOTATION = "stand-in.vmpool-functions/cpu";
/** Far below what anybody sets as a target. */
const CPU_PERCENT_DEFAULT = 5;
const CPU_PERCENT_MAX = 10_000;
const CPU_MILLI_DEFAULT = 100;
/** The time that a measurement is said to be of. */
const WINDOW = "10s";
const CONTAINER = "compute";

/** What the annotation says; anything but a percentage counts as absent. */
export function cpuPercentOf(annotations: Metadata["annotations"]): number {
  const digits = /^\s*(\d{1,5})\s*%\s*$/.exec(annotations[CPU_ANNOTATION] ?? "")?.[1];
  return digits === undefined ? CPU_PERCENT_DEFAULT : Math.min(Number(digits), CPU_PERCENT_MAX);
}

/** The usage of a machine that uses that much of the CPU, and all of the memory, that its launcher pod requests. */
export function usageOf(spec: unknown, cpuPercent: number): Usage {
  const { cpu, memory } = requestsOf(spec);
  return { cpu: `${Math.round((milliOf(cpu) * cpuPercent) / 100)}m`, memory };
}

interface Usage {
  readonly cpu: string;
  readonly memory: string;
}

function milliOf(cpu: string): number {
  const [, whole, milli] = /^(?:(\d+(?:\.\d+)?)|(\d+)m)$/.exec(cpu) ?? [];
  if (milli !== undefined) return Number(milli);
  return whole === undefined ? CPU_MILLI_DEFAULT : Number(whole) * 1_000;
}

export interface Metrics {
  /** Writes what the pod uses, unless that stands there already. A cluster that does not serve metrics is left alone. */
  write(pod: Pod, usage: Usage): Promise<void>;
  forget(pod: Pod): void;
}

/**
 * Keeps what was written. A measurement is not renewed while nothing changes: the autoscaler looks at its time only in
 * the first seconds of a pod, and 1,000 pods would otherwise cost a hundred writes a second.
 */
export function openMetrics(send: Send, now: () => number): Metrics {
  const written = new Map<string, string>();
  return {
    async write(pod, usage) {
      const { name, namespace, uid, labels } = pod.metadata;
      const text = JSON.stringify([labels, usage]);
      if (written.get(uid) === text) return;
      const path = `/apis/metrics.k8s.io/v1beta1/namespaces/${namespace}/pods/${name}?force=true`;
      const body = podMetrics(pod, usage, now());
      try {
        await send("apply pod metrics", { method: "PATCH", path, contentType: "application/apply-patch+yaml", body });
        written.set(uid, text);
      } catch (error) {
        if (!(error instanceof RefusedError && error.isStale)) throw error;
      }
    },
    forget: (pod) => void written.delete(pod.metadata.uid),
  };
}

/** Goes with its pod: the garbage collector sees to that. */
function podMetrics({ metadata }: Pod, usage: Usage, nowMs: number): object {
  const { name, namespace, uid, labels } = metadata;
  return {
    apiVersion: "metrics.k8s.io/v1beta1",
    kind: "PodMetrics",
    metadata: {
      name,
      namespace,
      labels,
      ownerReferences: [{ apiVersion: PODS.apiVersion, kind: PODS.kind, name, uid }],
    },
    timestamp: timestamp(nowMs),
    window: WINDOW,
    containers: [{ name: CONTAINER, usage }],
  };
}

/** Does what is due for the launcher pod of that key. */
export async function syncMetrics(world: World, key: string): Promise<void> {
  const pod = world.pods.get(key);
  if (pod === undefined || isDeleting(pod) || pod.status.phase !== "Running") return;
  const owner = controllerOf(pod);
  const instance = owner === undefined ? undefined : world.instances.get(`${pod.metadata.namespace}/${owner.name}`);
  if (instance === undefined || instance.metadata.uid !== owner?.uid) return;
  const pool = poolOf(world, instance);
  await world.metrics.write(pod, usageOf(instance.spec, cpuPercentOf(pool?.metadata.annotations ?? {})));
}

/** The pool of the machine whose instance it is; none when the machine left its pool. */
function poolOf(world: World, instance: Instance): Pool | undefined {
  const machine = world.machines.get(keyOf(instance));
  const owner = machine === undefined ? undefined : controllerOf(machine);
  const pool = owner === undefined ? undefined : world.pools.get(`${instance.metadata.namespace}/${owner.name}`);
  return pool?.metadata.uid === owner?.uid ? pool : undefined;
}
