/** Reads a person's kubeconfig into an access entry. Runs no program that the file names. */
import { existsSync, readFileSync } from "node:fs";
import { basename, delimiter } from "node:path";
import { KubeConfig } from "@kubernetes/client-node/dist/config.js";
import * as z from "zod";
import { describeProblems } from "../planning/errors.ts";
import { quoted } from "../planning/wording.ts";
import { accessSchema, type EksAuth, type ServerAccess } from "./access.ts";

/** The kubeconfig cannot be used; the message is one sentence that says why and what to do. */
export class KubeconfigError extends Error {
  override readonly name = "KubeconfigError";
}

/** What a context of a kubeconfig says. */
export interface KubeconfigContext {
  readonly access: ServerAccess;
  /** The namespace that the context works in; undefined when it names none. */
  readonly namespace: string | undefined;
}

export interface ContextOptions {
  readonly mode: ServerAccess["mode"];
  /** The current one when undefined. */
  readonly context?: string | undefined;
}

/** The access entry of the current context. Files that it names are read once, now. */
export function readKubeconfig(path: string, mode: ServerAccess["mode"]): ServerAccess {
  return readContext([path], { mode }).access;
}

/** A context of one or more files, of which the first that names something wins, as with kubectl. */
export function readContext(paths: readonly string[], { mode, context }: ContextOptions): KubeconfigContext {
  const { path, config, which, cluster, user } = choose(paths, context);
  const parsed = accessSchema.safeParse({
    server: cluster.server,
    certificateAuthorityData: cluster.caData ?? (cluster.caFile === undefined ? undefined : readBase64(cluster.caFile)),
    auth: authOf(user, path),
    mode,
  });
  // What is asked of a kubeconfig has a server.
  if (parsed.data?.server !== undefined) {
    const namespace = config.getContextObject(config.getCurrentContext())?.namespace;
    return { access: parsed.data, namespace: namespace === "" ? undefined : namespace };
  }
  const problems = (parsed.error?.issues ?? []).map((issue) => ({
    field: issue.path.join("."),
    message: issue.message,
  }));
  throw new KubeconfigError(`the ${which} of ${path} cannot be used: ${describeProblems(problems)}`);
}

/**
 * The cluster of EKS that a context logs in to as `aws eks update-kubeconfig` has it, by the program `aws`; undefined for any
 * other context. The program is not run: the token is made with the AWS credentials that are found here, so those of another
 * `profile` than the context's are refused.
 */
export function readEksContext(
  paths: readonly string[],
  { context, profile }: { readonly context: string | undefined; readonly profile: string | undefined },
): EksAuth | undefined {
  const { which, user } = choose(paths, context);
  const exec = execSchema.safeParse(user.exec).data;
  const words = exec?.args ?? [];
  const isAws = exec !== undefined && basename(exec.command) === "aws";
  if (!isAws || words[words.indexOf("eks") + 1] !== "get-token") return undefined;
  const wordAfter = (option: string) => words.find((_, index) => words[index - 1] === option);
  const roleArn = wordAfter("--role-arn") ?? wordAfter("--role");
  const [clusterName, region] = [wordAfter("--cluster-name"), wordAfter("--region")];
  if (clusterName === undefined || region === undefined) return undefined;
  // Of the same name and region there may be a cluster in each account.
  const wanted = wordAfter("--profile") ?? exec?.env?.find(({ name }) => name === "AWS_PROFILE")?.value;
  if (wanted !== undefined && wanted !== profile) {
    throw new KubeconfigError(`the ${which} logs in with the AWS profile ${quoted(wanted)}: set AWS_PROFILE to it`);
  }
  return { kind: "eks", clusterName, region, ...(roleArn === undefined ? {} : { roleArn }) };
}

const execSchema = z.object({
  command: z.string(),
  args: z.array(z.string()),
  env: z.array(z.object({ name: z.string(), value: z.string() })).nullish(),
});

/** A context and what it names. */
function choose(paths: readonly string[], context: string | undefined) {
  const path = paths.join(delimiter);
  const config = loadAll(paths);
  if (context !== undefined) {
    if (config.getContextObject(context) === null) {
      throw new KubeconfigError(`${path} has no context "${context}": kubectl config get-contexts lists those it has`);
    }
    config.setCurrentContext(context);
  }
  const which = context === undefined ? "current context" : `context "${context}"`;
  const cluster = config.getCurrentCluster();
  const user = config.getCurrentUser();
  if (cluster === null || user === null) {
    throw new KubeconfigError(`${path} has no usable ${which}: choose one with kubectl config use-context`);
  }
  return { path, config, which, cluster, user };
}

/** Of several files those that do not exist are left out, as kubectl does. */
function loadAll(paths: readonly string[]): KubeConfig {
  const existing = paths.length > 1 ? paths.filter((path) => existsSync(path)) : paths;
  const [first, ...rest] = (existing.length > 0 ? existing : paths).map(load);
  if (first === undefined) throw new KubeconfigError("there is no kubeconfig: give one with --kubeconfig PATH");
  for (const { clusters, users, contexts, currentContext } of rest) {
    first.clusters = unionByName(first.clusters, clusters);
    first.users = unionByName(first.users, users);
    first.contexts = unionByName(first.contexts, contexts);
    if (!first.currentContext) first.currentContext = currentContext;
  }
  return first;
}

function unionByName<T extends { readonly name: string }>(known: readonly T[], more: readonly T[]): T[] {
  return [...known, ...more.filter(({ name }) => !known.some((one) => one.name === name))];
}

function load(path: string): KubeConfig {
  const config = new KubeConfig();
  try {
    config.loadFromFile(path);
  } catch (error) {
    const why =
      error instanceof Error && "code" in error && error.code === "ENOENT" ? "does not exist" : "is not a kubeconfig";
    throw new KubeconfigError(`${path} ${why}: give --kubeconfig a file that kubectl can use`);
  }
  return config;
}

type User = NonNullable<ReturnType<KubeConfig["getCurrentUser"]>>;

function authOf(user: User, path: string): unknown {
  if (user.token) return { kind: "token", token: user.token };
  const certificateData = user.certData ?? (user.certFile ? readBase64(user.certFile) : undefined);
  const keyData = user.keyData ?? (user.keyFile ? readBase64(user.keyFile) : undefined);
  if (certificateData && keyData) return { kind: "clientCertificate", certificateData, keyData };
  throw new KubeconfigError(
    `the user ${quoted(user.name)} of ${path} has neither a token nor a client certificate (exec and auth providers are not run): ` +
      "make a kubeconfig with the output of kubectl create token",
  );
}

function readBase64(path: string): string {
  try {
    return readFileSync(path).toString("base64");
  } catch {
    throw new KubeconfigError(`the kubeconfig names the file ${path}, which cannot be read`);
  }
}
