/** `npm run cluster -- check` and `mode`: whether the functions may act in a cluster, and whether they do. */
import type { ClusterAccess } from "../../shared/clusters/access.ts";
import type { Connection } from "../../shared/clusters/connection.ts";
import { type Finding, isGreen, lookForInTreeController } from "../../shared/clusters/in-tree-controller.ts";
import type { ClusterWebhook } from "../../shared/clusters/registry.ts";
import { rightsNeeded } from "../kubernetes/manifests.ts";
import { ELSEWHERE, isSameCluster, readingCluster } from "./cluster-objects.ts";
import type { CheckOptions } from "./cluster-options.ts";
import { lookForDelivery, type NoticeReader } from "./delivery.ts";
import { describeReach } from "./entries.ts";
import { CommandError } from "./errors.ts";
import { type RegistryStore, unknownCluster } from "./registry-store.ts";
import { lookForRights } from "./rights.ts";

/** For the whole command, but for the wait for events. */
const TIMEOUT_MS = 60_000;

export interface CheckDeps {
  readonly store: Pick<RegistryStore, "names" | "access" | "webhook" | "write">;
  /** Of whoever looks; undefined where the registry's own credentials do. */
  readonly viewerAccess: ClusterAccess | undefined;
  readonly connect: (access: ClusterAccess) => Connection;
  /** What the functions have logged of a check; undefined when their log is not known. */
  readonly readNotices: NoticeReader | undefined;
  /** Epoch milliseconds. */
  readonly now: () => number;
}

export interface CheckOutcome {
  readonly stdout: string;
  /** Undefined when nothing was refused. */
  readonly refusal: string | undefined;
  readonly exitCode: number;
}

export async function runCheck(options: CheckOptions, deps: CheckDeps): Promise<CheckOutcome> {
  const { name, mode } = options;
  const access = await deps.store.access(name);
  if (access === undefined) throw await unknownCluster(name, deps.store);
  if (mode === "observe") {
    await writeMode(name, mode, deps);
    return { stdout: `${name}: passes only plan and report (mode observe)\n`, refusal: undefined, exitCode: 0 };
  }
  checkNamespace(options, access);
  const findings = [...(await look(access, options, deps)), ...remarksOn(access)];
  const stdout = format({ name, access, findings }, options);
  const good = isGreen(findings);
  if (mode === undefined) return { stdout, refusal: undefined, exitCode: good ? 0 : 1 };
  if (!good) {
    const refusal = `${name} stays in mode ${access.mode}: the functions must not act there yet. Mend what is marked NO, then run this again`;
    return { stdout, refusal, exitCode: 1 };
  }
  await writeMode(name, mode, deps);
  return { stdout: `${stdout}${name}: passes do what they plan (mode act)\n`, refusal: undefined, exitCode: 0 };
}

/** In a namespace that is not served, nothing tells of changes. */
function checkNamespace({ name, events, namespace }: CheckOptions, { namespaces }: ClusterAccess): void {
  if (!events || namespace === undefined || namespaces === undefined || namespaces.includes(namespace)) return;
  throw new CommandError(`--namespace: ${name} serves ${namespaces.join(", ")}, not ${namespace}`);
}

/** What the answers do not say. */
function remarksOn({ auth }: ClusterAccess): readonly Finding[] {
  if (auth.kind !== "eks" || auth.roleArn !== undefined) return [];
  const text =
    "EKS was asked with the AWS credentials of whoever runs this, not with those of the functions: register a role that both assume, --role-arn";
  return [{ verdict: "note", text }];
}

/** The entry is read anew: a check takes its time, and what was changed meanwhile is kept. */
async function writeMode(name: string, mode: "observe" | "act", { store }: CheckDeps): Promise<void> {
  const access = await store.access(name);
  if (access === undefined) throw await unknownCluster(name, store);
  await store.write(name, { access: { ...access, mode } });
}

async function look(access: ClusterAccess, options: CheckOptions, deps: CheckDeps): Promise<readonly Finding[]> {
  const own = deps.connect(access);
  const connections = [own];
  const deadline = AbortSignal.timeout(TIMEOUT_MS);
  try {
    const cluster = readingCluster(own, deadline);
    const { namespaces } = access;
    const sight = { cluster, viewer: cluster, namespaces, now: deps.now };
    const question = { send: own.send, rights: rightsNeeded(), namespaces, signal: deadline };
    if (deps.viewerAccess === undefined) {
      return await join(await lookForInTreeController(sight), () => lookForRights(question));
    }
    const connection = deps.connect(deps.viewerAccess);
    connections.push(connection);
    const viewer = readingCluster(connection, deadline);
    const same = await isSameCluster(cluster, viewer, access);
    if (same === false) throw new CommandError(ELSEWHERE);
    const doubt: readonly Finding[] = same === true ? [] : [UNSURE];
    const found = await lookForInTreeController({ ...sight, viewer });
    const judged = [...(await join(found, () => lookForRights(question))), ...doubt];
    if (!options.events) return judged;
    const version = await cluster.poolVersion();
    if (!version.ok) return judged;
    const webhook = await deps.store.webhook(options.name);
    return [
      ...judged,
      ...(await tryEvents(options, { connection, version: version.value, webhook, namespaces, ...deps })),
    ];
  } finally {
    await Promise.all(connections.map((connection) => connection.close()));
  }
}

interface Trial {
  readonly connection: Connection;
  readonly version: string;
  readonly webhook: ClusterWebhook | undefined;
  readonly namespaces: readonly string[] | undefined;
  readonly readNotices: NoticeReader | undefined;
}

async function tryEvents(
  { namespace: wanted, waitSeconds }: CheckOptions,
  { connection, version, webhook, namespaces, readNotices }: Trial,
): Promise<readonly Finding[]> {
  if (webhook === undefined || Object.values(webhook).every((one) => one === undefined)) {
    return [{ verdict: "note", text: "nothing is registered that tells of changes: passes go by the schedule" }];
  }
  if (readNotices === undefined) {
    const text = "events were not tried: say where the functions log, by --dir, or by --log-groups on AWS";
    return [{ verdict: "unseen", text }];
  }
  const namespace = wanted ?? namespaces?.[0] ?? "default";
  return lookForDelivery({ connection, version, namespace, webhook, waitMs: waitSeconds * 1_000, readNotices });
}

const UNSURE: Finding = {
  verdict: "bad",
  text: "whether the kubeconfig leads to the same cluster cannot be told",
};

/** A cluster that does not answer is asked nothing more. */
async function join(found: readonly Finding[], more: () => Promise<readonly Finding[]>): Promise<readonly Finding[]> {
  const [reached, ...others] = found;
  if (reached === undefined || reached.verdict === "bad") return found;
  return [reached, ...(await more()), ...others];
}

const MARKS: Readonly<Record<Finding["verdict"], string>> = { good: "ok", bad: "NO", unseen: "??", note: "--" };

interface Checked {
  readonly name: string;
  readonly access: ClusterAccess;
  readonly findings: readonly Finding[];
}

function format({ name, access, findings }: Checked, { command, output }: CheckOptions): string {
  const good = isGreen(findings);
  const { mode } = access;
  const server = describeReach(access);
  if (command === "check" && output === "json") {
    return `${JSON.stringify({ cluster: name, server, mode, good, findings }, null, 2)}\n`;
  }
  const lines = findings.map(({ verdict, text }) => `  ${MARKS[verdict]}  ${text}`);
  const isWhole = findings.every(({ verdict }) => verdict !== "unseen");
  const verdict = good
    ? `Nothing against acting was found${isWhole ? "" : ", as far as could be seen (??)"}.`
    : "The functions must not act here.";
  return `${name} (${server}), mode ${mode}\n${lines.join("\n")}\n${verdict}\n`;
}
