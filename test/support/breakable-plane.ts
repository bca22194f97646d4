/** The programs of a control plane that runs already, taken over by their flags: each can be killed, stopped for a while and started otherwise. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type LocalProcess, startProcess } from "../../infra/local/control-plane/processes.ts";
import { processesWith } from "./processes.ts";

const POLL_MS = 50;
/** Between two starts of a program that ends by itself: it may wait for another one, or for its port. */
const RESTART_PAUSE_MS = 1_000;
const GRACE_MS = 2_000;

export interface Program {
  /** SIGKILL; settles when it is gone. It stays away until `start`. */
  kill(): Promise<void>;
  /** Starts it with its own flags and these; from then on it is started again whenever it ends by itself. */
  start(extraFlags?: readonly string[]): Promise<void>;
  /** SIGSTOP, and SIGCONT after so long. */
  hang(ms: number): Promise<void>;
  stop(): Promise<void>;
}

export interface TakenPlane {
  readonly etcd: Program;
  readonly apiServer: Program;
  readonly controllerManager: Program;
  /** Where etcd listens for clients. */
  readonly etcdUrl: string;
  stop(): Promise<void>;
}

/** Ends the programs of the control plane in `dir` and starts them again as ours. */
export async function takeOverPlane(dir: string): Promise<TakenPlane> {
  const etcd = takeProgram(dir, "etcd", `--data-dir=${join(dir, "data")}`);
  const apiServer = takeProgram(dir, "kube-apiserver", `--cert-dir=${join(dir, "pki")}`);
  const controllerManager = takeProgram(
    dir,
    "kube-controller-manager",
    `--kubeconfig=${join(dir, "pki", "kube-controller-manager.kubeconfig")}`,
  );
  const etcdUrl = /--listen-client-urls=(\S+)/.exec(etcd.commandLine)?.[1];
  if (etcdUrl === undefined) throw new Error("etcd does not say where it listens");
  for (const program of [controllerManager, apiServer, etcd]) await program.kill();
  for (const program of [etcd, apiServer, controllerManager]) await program.start();
  return {
    etcd,
    apiServer,
    controllerManager,
    etcdUrl,
    async stop() {
      for (const program of [controllerManager, apiServer, etcd]) await program.stop();
    },
  };
}

/** The guard beside a program has the same flags. */
function pidsOf(flag: string): readonly number[] {
  return processesWith(flag)
    .filter(({ command }) => !command.startsWith("/bin/sh"))
    .map(({ pid }) => pid);
}

function takeProgram(dir: string, name: string, flag: string): Program & { readonly commandLine: string } {
  const found = processesWith(flag).find(({ command }) => !command.startsWith("/bin/sh"));
  if (found === undefined) throw new Error(`no ${name} runs in ${dir}`);
  const [command = "", ...args] = found.command.split(" ");
  let extra: readonly string[] = [];
  let running: LocalProcess | undefined;
  let isWanted = false;
  let starting: Promise<void> = Promise.resolve();
  const startOnce = async () => {
    const options = { name, command, args: [...args, ...extra], env: { PATH: "/usr/bin:/bin" } };
    const started = await startProcess({ ...options, logDir: join(dir, "logs") });
    running = started;
    void started.exited.then(async () => {
      if (!isWanted || running !== started) return;
      await sleep(RESTART_PAUSE_MS);
      if (isWanted && running === started) starting = startOnce();
    });
  };
  const signalAll = (signal: NodeJS.Signals) => {
    for (const pid of pidsOf(flag)) process.kill(pid, signal);
  };
  return {
    commandLine: found.command,
    async kill() {
      isWanted = false;
      await starting;
      signalAll("SIGKILL");
      while (processesWith(flag).length > 0) await sleep(POLL_MS);
    },
    async start(extraFlags = []) {
      extra = extraFlags;
      isWanted = true;
      starting = startOnce();
      await starting;
    },
    async hang(ms) {
      signalAll("SIGSTOP");
      try {
        await sleep(ms);
      } finally {
        signalAll("SIGCONT");
      }
    },
    async stop() {
      isWanted = false;
      await starting;
      await running?.stop(GRACE_MS);
    },
  };
}
