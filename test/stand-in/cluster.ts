/** A control plane with the custom resources for one test file, and short ways to look at it. */
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, vi } from "vitest";
import { startLocalCluster } from "../../infra/local/cluster.ts";
import { type Binaries, findBinaries } from "../../infra/local/control-plane/binaries.ts";
import { applyManifests, parseManifests } from "../../infra/local/control-plane/manifests.ts";
import { startStandIn } from "../../infra/local/stand-in/stand-in.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";

/** The first run of all may build the programs. */
export const CLUSTER_TIMEOUT_MS = 30 * 60_000;
/** A bound for a test that hangs, nothing that is measured. */
export const TEST_TIMEOUT_MS = 120_000;
const EVENTUALLY_MS = 100_000;
const POLL_MS = 50;

const never = new AbortController().signal;

export interface Output {
  readonly ok: boolean;
  readonly text: string;
}

export interface TestCluster {
  readonly dir: string;
  readonly access: ServerAccess;
  readonly connection: Connection;
  /** Standard output and standard error together. */
  kubectl(args: readonly string[], stdin?: string): Promise<Output>;
  /** Applies YAML; throws unless all of it is accepted. */
  apply(yaml: string): Promise<void>;
  /** Parsed body of a GET, or undefined when there is no such object. */
  read(path: string): Promise<unknown>;
  mergePatch(path: string, body: object): Promise<void>;
  remove(path: string): Promise<void>;
  stop(): Promise<void>;
}

export async function programs(): Promise<Binaries> {
  return findBinaries({ env: process.env, onProgress: () => undefined, signal: never });
}

/** Starts a control plane in the folder, or a new one, and applies the custom resources. */
export async function startCluster(where?: string): Promise<TestCluster> {
  const dir = where ?? (await mkdtemp(join(tmpdir(), "stand-in-")));
  const binaries = await programs();
  const options = { dir, binaries, events: undefined, onProgress: () => undefined, signal: never };
  const plane = await startLocalCluster(options);
  const connection = openConnection(plane.access);
  const send = async (method: "GET" | "PATCH" | "DELETE", path: string, body?: object) =>
    connection.send({
      method,
      path,
      signal: AbortSignal.timeout(30_000),
      ...(body === undefined ? {} : { body, contentType: "application/merge-patch+json" }),
    });
  return {
    dir,
    access: plane.access,
    connection,
    kubectl: (args, stdin) => run(binaries.kubectl, ["--kubeconfig", plane.kubeconfigPath, ...args], stdin),
    apply: (yaml) => applyManifests(connection, parseManifests(yaml), { signal: never }),
    async read(path) {
      const { status, body } = await send("GET", path);
      if (status === 404) return undefined;
      expect(status).toBe(200);
      return body;
    },
    async mergePatch(path, body) {
      expect(await send("PATCH", path, body)).toMatchObject({ status: 200 });
    },
    async remove(path) {
      expect((await send("DELETE", path)).status).toBeLessThan(300);
    },
    async stop() {
      await connection.close();
      await plane.stop();
      if (where === undefined) await rm(dir, { recursive: true, force: true });
    },
  };
}

export interface RunningStandIn {
  readonly warnings: readonly string[];
  stop(): Promise<void>;
}

/** Starts the stand-in with short pauses after failed starts. */
export async function standInFor(connection: Connection): Promise<RunningStandIn> {
  const warnings: string[] = [];
  const log = {
    info: () => undefined,
    warn: (message: string, fields?: object) => void warnings.push(`${message} ${JSON.stringify(fields)}`),
  };
  const standIn = await startStandIn({ connection, log, signal: never, startBackoffMs: 100 });
  return { warnings, stop: standIn.stop };
}

/** Waits until the assertions hold. */
export function eventually<T>(assertions: () => Promise<T>): Promise<T> {
  return vi.waitFor(assertions, { timeout: EVENTUALLY_MS, interval: POLL_MS });
}

/** The value at a dotted path, such as `status.conditions.0.type`; undefined where there is none. */
export function at(value: unknown, path: string): unknown {
  let current = value;
  for (const step of path.split(".")) {
    if (typeof current !== "object" || current === null) return undefined;
    current = Object.entries(current).find(([key]) => key === step)?.[1];
  }
  return current;
}

/** The status of the condition of that type. */
export function conditionOf(object: unknown, type: string): unknown {
  const conditions = at(object, "status.conditions");
  if (!Array.isArray(conditions)) return undefined;
  return at(
    conditions.find((condition) => at(condition, "type") === type),
    "status",
  );
}

function run(command: string, args: readonly string[], stdin = ""): Promise<Output> {
  return new Promise((resolve) => {
    const child = execFile(command, args, (error, stdout, stderr) => {
      resolve({ ok: error === null, text: `${stdout}${stderr}` });
    });
    child.stdin?.end(stdin);
  });
}
