/** A Kubernetes control plane in one folder of this machine: starts it, says when it is ready, stops it. No nodes, no KubeVirt. */
import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { ServerAccess } from "../../../shared/clusters/access.ts";
import { openConnection } from "../../../shared/clusters/connection.ts";
import type { Binaries } from "./binaries.ts";
import { ensurePki } from "./certificates.ts";
import { apiServerArgs, controllerManagerArgs, etcdArgs, type Layout, localUrl, type Ports } from "./components.ts";
import { accessFor, writeKubeconfig } from "./kubeconfig.ts";
import { tryLock } from "./lock.ts";
import { isTaken, pickPorts } from "./ports.ts";
import { beginStep, type OnProgress } from "./progress.ts";
import { SetupError } from "./setup-error.ts";
import { type Supervisor, supervise } from "./supervisor.ts";

/** How often other ports are tried when somebody took one between our choice and its use. */
const PORT_ATTEMPTS_MAX = 3;
const READY_TIMEOUT_MS = 60_000;
const POLL_MS = 50;
/** Together within the 10 s that a stop may take. An API server waits for open watches to the last moment, which nobody needs. */
const GRACE_MS = { controllerManager: 2_000, apiServer: 2_000, etcd: 2_000 } as const;

export interface ControlPlaneOptions {
  /** Holds everything: `data`, `pki`, `logs`, `kubeconfig`. Started again, it continues with its data. */
  readonly dir: string;
  readonly binaries: Pick<Binaries, "etcd" | "kubeApiserver" | "kubeControllerManager">;
  readonly onProgress: OnProgress;
  /** Ends a start that is under way; a running control plane ends by `stop`. */
  readonly signal: AbortSignal;
  readonly extraApiserverFlags?: readonly string[];
  /**
   * Runs when the API server is ready and the controllers are not yet. The place for CRDs: the garbage collector looks for new
   * kinds only every 30 s, and at its start.
   */
  readonly beforeControllers?: (access: ServerAccess, signal: AbortSignal) => Promise<void>;
}

export interface ControlPlane {
  readonly server: string;
  /** As `admin`, of the group `system:masters`. */
  readonly access: ServerAccess;
  /** As the functions, who may do nothing before somebody says so. */
  readonly functionsAccess: ServerAccess;
  /** There as long as the control plane serves. */
  readonly kubeconfigPath: string;
  /** Settles when all processes are gone, within 10 s. May be called again. */
  stop(): Promise<void>;
  /** Settles with the reason when a component is gone that nobody stopped. The others go on until `stop`. */
  readonly died: Promise<string>;
}

/** Starts etcd, kube-apiserver and kube-controller-manager; all three serve when it returns. Throws `SetupError`. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  options.signal.throwIfAborted();
  const dir = resolve(options.dir);
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const lock = await tryLock(join(dir, "control-plane.lock"), "runs the control plane");
  if (lock.kind === "held") throw inUse(dir, lock.holder.pid, lock.holder.since);
  const step = beginStep(options.onProgress, "starting the control plane");
  try {
    const running = await startOnFreePorts({ ...options, dir });
    step.finish(running.server);
    const stop = async () => {
      await running.stop();
      await lock.release();
    };
    let stopping: Promise<void> | undefined;
    return { ...running, stop: () => (stopping ??= stop()) };
  } catch (error) {
    await lock.release();
    step.fail(error instanceof Error ? error.message : String(error));
    throw error;
  }
}

function inUse(dir: string, pid: number, since: string): SetupError {
  return new SetupError(
    `${dir} is in use: process ${pid} has been running a control plane there since ${since}.`,
    `Stop that process (Ctrl-C in its terminal, or kill ${pid}), or start with another --dir.`,
  );
}

async function startOnFreePorts(options: ControlPlaneOptions): Promise<ControlPlane> {
  const kubeconfigPath = join(options.dir, "kubeconfig");
  await rm(kubeconfigPath, { force: true });
  const pki = await ensurePki(options.dir);
  for (let attempt = 1; ; attempt++) {
    const [etcd = 0, etcdPeer = 0, apiServer = 0, controllerManager = 0] = await pickPorts(4);
    const ports: Ports = { etcd, etcdPeer, apiServer, controllerManager };
    try {
      return await startOnce(options, { dir: options.dir, pki, ports }, kubeconfigPath);
    } catch (error) {
      const taken = await Promise.all(Object.values(ports).map(isTaken));
      if (options.signal.aborted || attempt >= PORT_ATTEMPTS_MAX || !taken.includes(true)) throw error;
    }
  }
}

async function startOnce(options: ControlPlaneOptions, layout: Layout, kubeconfigPath: string): Promise<ControlPlane> {
  const processes = supervise();
  const stop = async () => {
    await rm(kubeconfigPath, { force: true });
    await processes.stop();
  };
  try {
    const server = localUrl(layout.ports.apiServer);
    const access = accessFor(server, layout.pki.ca, layout.pki.admin);
    await startServer({ ...options, layout, processes }, access);
    const signal = AbortSignal.any([options.signal, processes.failed]);
    await options.beforeControllers?.(access, signal);
    await startControllers({ ...options, layout, processes }, server);
    await writeKubeconfig(kubeconfigPath, access, "admin");
    const functionsAccess = accessFor(server, layout.pki.ca, layout.pki.functions);
    return { server, access, functionsAccess, kubeconfigPath, stop, died: processes.died };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Start extends ControlPlaneOptions {
  readonly layout: Layout;
  readonly processes: Supervisor;
}

async function startServer({ layout, processes, ...options }: Start, access: ServerAccess): Promise<void> {
  const { binaries, extraApiserverFlags = [] } = options;
  const common = { env: environment(), logDir: join(layout.dir, "logs") };
  const etcd = { ...common, name: "etcd", command: binaries.etcd, args: etcdArgs(layout) };
  await processes.start(etcd, GRACE_MS.etcd);
  const args = apiServerArgs(layout, extraApiserverFlags);
  const apiServer = { ...common, name: "kube-apiserver", command: binaries.kubeApiserver, args };
  await processes.start(apiServer, GRACE_MS.apiServer);
  await waitUntilServing("kube-apiserver", access, "/readyz", AbortSignal.any([options.signal, processes.failed]));
}

async function startControllers({ layout, processes, ...options }: Start, server: string): Promise<void> {
  const { ca, controllerManager } = layout.pki;
  const kubeconfigPath = join(layout.dir, "pki", "kube-controller-manager.kubeconfig");
  await writeKubeconfig(kubeconfigPath, accessFor(server, ca, controllerManager), "system:kube-controller-manager");
  const process = {
    name: "kube-controller-manager",
    command: options.binaries.kubeControllerManager,
    args: controllerManagerArgs(layout, kubeconfigPath),
    env: environment(),
    logDir: join(layout.dir, "logs"),
  };
  await processes.start(process, GRACE_MS.controllerManager);
  const access = accessFor(localUrl(layout.ports.controllerManager), ca, layout.pki.admin);
  const signal = AbortSignal.any([options.signal, processes.failed]);
  await waitUntilServing("kube-controller-manager", access, "/healthz", signal);
}

/** No proxy and no credentials of the user's reach the children. */
function environment(): NodeJS.ProcessEnv {
  return { PATH: "/usr/bin:/bin" };
}

/** Asks until the answer is 200. Throws `SetupError` when that takes too long, and the reason of the signal. */
async function waitUntilServing(name: string, access: ServerAccess, path: string, signal: AbortSignal): Promise<void> {
  const connection = openConnection(access);
  const deadline = AbortSignal.timeout(READY_TIMEOUT_MS);
  const either = AbortSignal.any([signal, deadline]);
  let last = "no answer";
  try {
    while (!either.aborted) {
      const answer = await connection.send({ method: "GET", path, signal: either }).catch(() => undefined);
      if (answer?.status === 200) return;
      if (answer !== undefined) last = String(answer.body).slice(0, 1_000);
      await sleep(POLL_MS, undefined, { signal: either }).catch(() => undefined);
    }
  } finally {
    await connection.close();
  }
  signal.throwIfAborted();
  throw new SetupError(
    `${name} was not ready within ${READY_TIMEOUT_MS / 1_000} s.`,
    `Read its log in the folder logs. It said last: ${last}`,
  );
}
