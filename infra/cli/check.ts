/** `npm run cluster -- check` and `mode`: whether the functions may act in a cluster, and whether they do. Sends no write to it. */
import type { ClusterAccess } from "../../shared/clusters/access.ts";
import { type Cluster, createCluster, NAMESPACES } from "../../shared/clusters/cluster.ts";
import type { Connection } from "../../shared/clusters/connection.ts";
import { readsOnly } from "../../shared/clusters/foresee.ts";
import { type Finding, isGreen, lookForInTreeController } from "../../shared/clusters/in-tree-controller.ts";
import type { Registry } from "../../shared/clusters/registry.ts";
import { isRecord } from "../../shared/planning/json.ts";
import type { ClusterOptions } from "./cluster-options.ts";
import { CommandError } from "./errors.ts";

/** For the whole command. */
const TIMEOUT_MS = 60_000;

export interface CheckDeps {
  readonly registry: Pick<Registry, "names" | "access">;
  /** Of whoever looks; undefined where the registry's own credentials do. */
  readonly viewerAccess: ClusterAccess | undefined;
  readonly connect: (access: ClusterAccess) => Connection;
  readonly writeMode: (name: string, mode: "observe" | "act") => Promise<void>;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

export interface CheckOutcome {
  readonly stdout: string;
  /** Undefined when nothing was refused. */
  readonly refusal: string | undefined;
  readonly exitCode: number;
}

export async function runCheck(options: ClusterOptions, deps: CheckDeps): Promise<CheckOutcome> {
  const { name, mode } = options;
  const access = await deps.registry.access(name);
  if (access === undefined) {
    const names = await deps.registry.names();
    throw new CommandError(`there is no cluster "${name}" in the registry: it holds ${names.join(", ") || "none"}`);
  }
  if (mode === "observe") {
    await deps.writeMode(name, mode);
    return { stdout: `${name}: passes only plan and report (mode observe)\n`, refusal: undefined, exitCode: 0 };
  }
  const findings = await look(access, deps);
  const stdout = format({ name, access, findings }, options);
  const good = isGreen(findings);
  if (mode === undefined) return { stdout, refusal: undefined, exitCode: good ? 0 : 1 };
  if (!good) {
    const refusal = `${name} stays in mode ${access.mode}: the functions must not act beside another pool controller. Mend what is marked NO, then run this again`;
    return { stdout, refusal, exitCode: 1 };
  }
  await deps.writeMode(name, mode);
  return { stdout: `${stdout}${name}: passes do what they plan (mode act)\n`, refusal: undefined, exitCode: 0 };
}

async function look(access: ClusterAccess, deps: CheckDeps): Promise<readonly Finding[]> {
  const connections = [deps.connect(access)];
  const deadline = AbortSignal.timeout(TIMEOUT_MS);
  const open = (connection: Connection) =>
    createCluster({
      transport: readsOnly(connection.send),
      meter: { requests: 0, writes: 0, bytes: 0 },
      deadline,
      cache: { poolVersion: undefined },
    });
  try {
    const [cluster] = connections.map(open);
    if (cluster === undefined) return [];
    const sight = { cluster, viewer: cluster, namespaces: access.namespaces, now: deps.now };
    if (deps.viewerAccess === undefined) return await lookForInTreeController(sight);
    const connection = deps.connect(deps.viewerAccess);
    connections.push(connection);
    const viewer = open(connection);
    const doubt = await compareClusters(cluster, viewer);
    return [...(await lookForInTreeController({ ...sight, viewer })), ...doubt];
  } finally {
    await Promise.all(connections.map((connection) => connection.close()));
  }
}

/** A kubeconfig that leads elsewhere would say nothing of this cluster. */
async function compareClusters(cluster: Cluster, viewer: Cluster): Promise<readonly Finding[]> {
  const [own, seen] = await Promise.all([cluster, viewer].map(uidOfCluster));
  if (own !== undefined && seen !== undefined && own !== seen) {
    throw new CommandError(
      "the kubeconfig leads to another cluster than the registry: give --context, or another file",
    );
  }
  if (own !== undefined && seen !== undefined) return [];
  return [{ verdict: "bad", text: "whether the kubeconfig leads to the same cluster cannot be told" }];
}

/** The UID of `kube-system`, by which clusters are told apart. */
async function uidOfCluster(cluster: Cluster): Promise<string | undefined> {
  const answer = await cluster.get(NAMESPACES, { name: "kube-system" });
  const metadata = answer.ok && isRecord(answer.value) ? answer.value["metadata"] : undefined;
  const uid = isRecord(metadata) ? metadata["uid"] : undefined;
  return typeof uid === "string" ? uid : undefined;
}

const MARKS: Readonly<Record<Finding["verdict"], string>> = { good: "ok", bad: "NO", unseen: "??", note: "--" };

interface Checked {
  readonly name: string;
  readonly access: ClusterAccess;
  readonly findings: readonly Finding[];
}

function format({ name, access: { server, mode }, findings }: Checked, { command, output }: ClusterOptions): string {
  const good = isGreen(findings);
  if (command === "check" && output === "json") {
    return `${JSON.stringify({ cluster: name, server, mode, good, findings }, null, 2)}\n`;
  }
  const lines = findings.map(({ verdict, text }) => `  ${MARKS[verdict]}  ${text}`);
  const isWhole = findings.every(({ verdict }) => verdict !== "unseen");
  const verdict = good
    ? `KubeVirt's own pool controller is not seen to run${isWhole ? "" : ", as far as could be seen (??)"}.`
    : "The functions must not act here.";
  return `${name} (${server}), mode ${mode}\n${lines.join("\n")}\n${verdict}\n`;
}
