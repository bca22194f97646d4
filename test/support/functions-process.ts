/** The functions as a process of their own on a cluster that runs already, which can be ended at any moment. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import { pickPorts } from "../../infra/local/control-plane/ports.ts";
import { ROOT } from "./world.ts";

export interface FunctionsProcess {
  /** SIGKILL; settles when the process is gone. */
  kill(): Promise<void>;
}

export interface FunctionsOptions {
  readonly kubeconfig: string;
  readonly dir: string;
}

/** Starts the program that `npm start` starts, with `--kubeconfig` and `--act`. */
export async function startFunctionsProcess({ kubeconfig, dir }: FunctionsOptions): Promise<FunctionsProcess> {
  const [port] = await pickPorts(1);
  const args = ["--kubeconfig", kubeconfig, "--act", "--resync-seconds", "1", "--dir", dir, "--port", String(port)];
  const program = [join(ROOT, "infra/local/start.ts"), ...args];
  // A third of a start is the compiling of what the start before has compiled.
  const env = { ...process.env, NODE_COMPILE_CACHE: join(dirname(dir), "compile-cache") };
  const child = spawn(process.execPath, program, { cwd: ROOT, env, stdio: ["ignore", "ignore", "inherit"] });
  const exited = once(child, "exit");
  return {
    async kill() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}
