/** Says for an API server who a token of EKS is, as the control planes of EKS do: the token is a signed question to STS, which is put to it. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { json } from "node:stream/consumers";
import * as z from "zod";
import { listen } from "../support/listener.ts";

const PREFIX = "k8s-aws-v1.";
const TOKEN_TTL_MS = 15 * 60_000;
/** What the authenticator of EKS lets stand in the question. */
const PARAMETERS = new Set([
  "action",
  "version",
  "x-amz-algorithm",
  "x-amz-credential",
  "x-amz-date",
  "x-amz-expires",
  "x-amz-security-token",
  "x-amz-signature",
  "x-amz-signedheaders",
]);

export interface EksAuthenticator {
  /** Make the API server ask here. */
  readonly apiserverFlags: readonly string[];
  /** What was said of each token, oldest first: an ARN, or why it was refused. */
  readonly verdicts: readonly string[];
  /** Where STS is from now on. */
  askAt(endpoint: string): void;
  close(): Promise<void>;
}

/** Whoever STS knows is in the group. */
export async function startEksAuthenticator(group: string): Promise<EksAuthenticator> {
  const folder = await mkdtemp(join(tmpdir(), "eks-"));
  const verdicts: string[] = [];
  let sts = "";
  const serve = async (incoming: IncomingMessage, response: ServerResponse) => {
    const review = reviewSchema.parse(await json(incoming));
    const verdict = await judge(review.spec.token, sts).catch((error: unknown) => ({ refusal: String(error) }));
    verdicts.push("arn" in verdict ? verdict.arn : verdict.refusal);
    const user = "arn" in verdict ? { username: verdict.arn, groups: [group] } : undefined;
    const status = user === undefined ? { authenticated: false } : { authenticated: true, user };
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ apiVersion: "authentication.k8s.io/v1", kind: "TokenReview", status }));
  };
  const server = createServer((incoming, response) => {
    serve(incoming, response).catch(() => response.destroy());
  });
  const listener = await listen(server);
  const file = join(folder, "kubeconfig");
  await writeFile(file, JSON.stringify(kubeconfig(`http://127.0.0.1:${listener.port}/authenticate`)));
  return {
    apiserverFlags: [`--authentication-token-webhook-config-file=${file}`, "--authentication-token-webhook-version=v1"],
    verdicts,
    askAt(endpoint) {
      sts = endpoint;
    },
    async close() {
      await listener.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function kubeconfig(server: string): object {
  return {
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "authenticator", cluster: { server } }],
    users: [{ name: "apiserver", user: {} }],
    contexts: [{ name: "authenticator", context: { cluster: "authenticator", user: "apiserver" } }],
    "current-context": "authenticator",
  };
}

const reviewSchema = z.object({ spec: z.object({ token: z.string() }) });

async function judge(token: string, sts: string): Promise<{ readonly arn: string } | { readonly refusal: string }> {
  if (!token.startsWith(PREFIX)) return { refusal: "no token of EKS" };
  const url = new URL(Buffer.from(token.slice(PREFIX.length), "base64url").toString("utf8"));
  const parameters = new Map([...url.searchParams].map(([name, value]) => [name.toLowerCase(), value]));
  if (url.protocol !== "https:" || !/^sts\.[\w-]+\.amazonaws\.com$/.test(url.host) || url.pathname !== "/") {
    return { refusal: "the question is not for STS" };
  }
  if ([...parameters.keys()].some((name) => !PARAMETERS.has(name)))
    return { refusal: "the question has parameters of its own" };
  if (parameters.get("action") !== "GetCallerIdentity") return { refusal: "another question" };
  if (parameters.get("x-amz-signedheaders") !== "host;x-k8s-aws-id") return { refusal: "the cluster is not signed" };
  const signedAt = Date.parse((parameters.get("x-amz-date") ?? "").replace(/^(....)(..)(.....)(..)/, "$1-$2-$3:$4:"));
  if (!(Date.now() - signedAt < TOKEN_TTL_MS)) return { refusal: "the token has expired" };
  // moto looks for the caller in this header only.
  const authorization = `${parameters.get("x-amz-algorithm")} Credential=${parameters.get("x-amz-credential")}, Signature=none`;
  const answer = await fetch(`${sts}/${url.search}`, { headers: { authorization, "x-k8s-aws-id": "cluster" } });
  const arn = /<Arn>(.+)<\/Arn>/.exec(await answer.text())?.[1];
  return arn === undefined ? { refusal: `STS answered ${answer.status}` } : { arn };
}
