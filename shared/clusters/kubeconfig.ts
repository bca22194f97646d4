/** Reads a person's kubeconfig into an access entry. Runs no program that the file names. */
import { readFileSync } from "node:fs";
import { KubeConfig } from "@kubernetes/client-node/dist/config.js";
import { describeProblems } from "../planning/errors.ts";
import { accessSchema, type ClusterAccess } from "./access.ts";

/** The kubeconfig cannot be used; the message is one sentence that says why and what to do. */
export class KubeconfigError extends Error {
  override readonly name = "KubeconfigError";
}

/** The access entry of the current context. Files that it names are read once, now. */
export function readKubeconfig(path: string, mode: ClusterAccess["mode"]): ClusterAccess {
  const config = load(path);
  const cluster = config.getCurrentCluster();
  const user = config.getCurrentUser();
  if (cluster === null || user === null) {
    throw new KubeconfigError(`${path} has no usable current context: choose one with kubectl config use-context`);
  }
  const parsed = accessSchema.safeParse({
    server: cluster.server,
    certificateAuthorityData: cluster.caData ?? (cluster.caFile === undefined ? undefined : readBase64(cluster.caFile)),
    auth: authOf(user, path),
    mode,
  });
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => ({ field: issue.path.join("."), message: issue.message }));
  throw new KubeconfigError(`the current context of ${path} cannot be used: ${describeProblems(problems)}`);
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
    `the user "${user.name}" of ${path} has neither a token nor a client certificate (exec and auth providers are not run): ` +
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
