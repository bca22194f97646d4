/** A stand-in for AWS (moto) for the tests of one file: SQS, EventBridge, SSM, STS and EKS, on a free port of 127.0.0.1. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describeExit, startProcess } from "../../infra/local/control-plane/processes.ts";
import { pythonTool } from "../../infra/package/python-tools.ts";
import { environment } from "../../shared/runtime/config.ts";

const REGION = "eu-central-1";
const START_TIMEOUT_MS = 120_000;
const POLL_MS = 50;
const STOP_GRACE_MS = 2_000;

export interface Moto {
  readonly endpoint: string;
  stop(): Promise<void>;
}

/** Starts it, empty. It ends with `stop`, and with us whatever becomes of us. */
export async function startMoto(): Promise<Moto> {
  const command = await pythonTool("moto_server");
  const logDir = await mkdtemp(join(tmpdir(), "vmpool-functions-moto-"));
  const process = await startProcess({
    name: "moto",
    command,
    // The system chooses the port, so that no two of them can want the same one.
    args: ["-H", "127.0.0.1", "-p", "0"],
    env: { PATH: environment["PATH"] ?? "", PYTHONUNBUFFERED: "1", AWS_DEFAULT_REGION: REGION },
    logDir,
  });
  const stop = async () => {
    await process.stop(STOP_GRACE_MS);
    await rm(logDir, { recursive: true, force: true });
  };
  const exited = process.exited.then((exit) => {
    throw new Error(`${describeExit(process, exit)}: ${exit.lastLines}`);
  });
  try {
    return { endpoint: await Promise.race([awaitEndpoint(process.logPath), exited]), stop };
  } catch (error) {
    await stop();
    throw error;
  } finally {
    // Later it exits because it is told to.
    exited.catch(() => {});
  }
}

async function awaitEndpoint(logPath: string): Promise<string> {
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (performance.now() < deadline) {
    const [endpoint] = /http:\/\/127\.0\.0\.1:\d+/.exec(await readFile(logPath, "utf8")) ?? [];
    if (endpoint !== undefined) return endpoint;
    await sleep(POLL_MS);
  }
  throw new Error(`moto has not begun to listen within ${START_TIMEOUT_MS / 1_000} s: see ${logPath}`);
}

/** What a client of AWS is made with to talk to it. It takes any credentials, and checks no signature. */
export function motoClient({ endpoint }: Pick<Moto, "endpoint">) {
  const credentials = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "secret" };
  return { endpoint, region: REGION, credentials, maxAttempts: 1 };
}
