/** The two nodes that launcher pods stand on, and their heartbeat, without which the control plane would declare them dead. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "../../../shared/clusters/connection.ts";
import { timestamp } from "./objects.ts";
import { hash } from "./pace.ts";

const NODES = [
  { name: "node01", address: "192.168.66.101" },
  { name: "node02", address: "192.168.66.102" },
] as const;

/** The control plane gives a node 40 to 50 seconds. */
const HEARTBEAT_MS = 15_000;
const RETRY_MS = 1_000;
const REQUEST_TIMEOUT_MS = 10_000;
const CAPACITY = { cpu: "256", memory: "1Ti", pods: "10000", "devices.kubevirt.io/kvm": "10000" } as const;

export interface NodesOptions {
  readonly connection: Connection;
  readonly signal: AbortSignal;
  readonly now: () => number;
  readonly onError: (operation: string, error: unknown) => void;
}

export interface Nodes {
  /** Resolves when both nodes are ready. */
  readonly synced: Promise<void>;
  /** Resolves when the signal has ended the heartbeat. */
  readonly ended: Promise<void>;
}

/** The node for an instance: always the same one. */
export function nodeFor(uid: string): string {
  const first = NODES[0];
  return (NODES[hash(uid) % NODES.length] ?? first).name;
}

export function isOurNode(name: string): boolean {
  return NODES.some((node) => node.name === name);
}

export function addressOf(nodeName: string): string {
  return NODES.find((node) => node.name === nodeName)?.address ?? NODES[0].address;
}

/** Creates the nodes where they are missing and reports them ready until the signal fires. */
export function keepNodes(options: NodesOptions): Nodes {
  const synced = Promise.withResolvers<void>();
  const run = async () => {
    const startedAt = timestamp(options.now());
    while (!options.signal.aborted) {
      let pauseMs = RETRY_MS;
      try {
        for (const node of NODES) await reportReady(options, node, startedAt);
        synced.resolve();
        pauseMs = HEARTBEAT_MS;
      } catch (error) {
        if (!options.signal.aborted) options.onError("report nodes", error);
      }
      await sleep(pauseMs, undefined, { signal: options.signal }).catch(() => undefined);
    }
  };
  return { synced: synced.promise, ended: run() };
}

async function reportReady(options: NodesOptions, node: (typeof NODES)[number], startedAt: string): Promise<void> {
  const patchStatus = () =>
    request(options, {
      method: "PATCH",
      path: `/api/v1/nodes/${node.name}/status`,
      contentType: "application/strategic-merge-patch+json",
      body: { status: nodeStatus(node, startedAt, timestamp(options.now())) },
    });
  if ((await patchStatus()) !== 404) return;
  await request(options, {
    method: "POST",
    path: "/api/v1/nodes",
    body: {
      apiVersion: "v1",
      kind: "Node",
      metadata: {
        name: node.name,
        labels: { "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "kubevirt.io/schedulable": "true" },
      },
    },
  });
  await patchStatus();
}

/** The status of the answer; throws unless it is a success, or says that there is no such node yet, or already. */
async function request(
  options: NodesOptions,
  call: Omit<Parameters<Connection["send"]>[0], "signal">,
): Promise<number> {
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]);
  const { status } = await options.connection.send({ ...call, signal });
  if (status < 300 || status === 404 || status === 409) return status;
  throw new Error(`${call.method} ${call.path}: ${status}`);
}

function nodeStatus(node: (typeof NODES)[number], startedAt: string, heartbeatAt: string): object {
  const condition = (type: string, status: string, reason: string) => ({
    type,
    status,
    reason,
    message: "reported by the stand-in",
    lastHeartbeatTime: heartbeatAt,
    lastTransitionTime: startedAt,
  });
  return {
    addresses: [
      { type: "InternalIP", address: node.address },
      { type: "Hostname", address: node.name },
    ],
    capacity: CAPACITY,
    allocatable: CAPACITY,
    conditions: [
      condition("Ready", "True", "KubeletReady"),
      condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
      condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
      condition("PIDPressure", "False", "KubeletHasSufficientPID"),
    ],
    nodeInfo: { kubeletVersion: "stand-in", operatingSystem: "linux", architecture: "amd64" },
  };
}
