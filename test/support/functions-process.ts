/** The functions as a process of their own on a cluster that runs already, which can be ended at any moment. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { pickPorts } from "../../infra/local/control-plane/ports.ts";
import { ROOT } from "./world.ts";

export interface FunctionsProcess {
  readonly pid: number | undefined;
  /** Settles when the process is gone, for whatever reason. */
  readonly exited: Promise<unknown>;
  /** SIGKILL; settles when the process is gone. */
  kill(): Promise<void>;
}

export interface FunctionsOptions {
  readonly kubeconfig: string;
  readonly dir: string;
  /** Between ticks of the schedule; 1 when absent. */
  readonly resyncSeconds?: number;
  /** What it says against its cluster is expected. */
  readonly quiet?: boolean;
}

/** Starts the program that `npm start` starts, with `--kubeconfig` and `--act`. */
export async function startFunctionsProcess(options: FunctionsOptions): Promise<FunctionsProcess> {
  const { kubeconfig, dir, resyncSeconds = 1, quiet = false } = options;
  const [port] = await pickPorts(1);
  const numbers = ["--resync-seconds", String(resyncSeconds), "--port", String(port)];
  const args = ["--kubeconfig", kubeconfig, "--act", "--dir", dir, ...numbers];
  const program = [join(ROOT, "infra/local/start.ts"), ...args];
  // A third of a start is the compiling of what the start before has compiled.
  const env = { ...process.env, NODE_COMPILE_CACHE: join(dirname(dir), "compile-cache") };
  const child = spawn(process.execPath, program, {
    cwd: ROOT,
    env,
    stdio: ["ignore", "ignore", quiet ? "ignore" : "inherit"],
  });
  const exited = once(child, "exit");
  return {
    pid: child.pid,
    exited,
    async kill() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}
