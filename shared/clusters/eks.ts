/** Clusters of EKS: where they are, and tokens for them. Loaded only when an entry asks for it. */
import { createHash, createHmac } from "node:crypto";
import { DescribeClusterCommand, EKSClient } from "@aws-sdk/client-eks";
import { fromTemporaryCredentials } from "@aws-sdk/credential-providers";
import { SignatureV4 } from "@smithy/signature-v4";
import { type EksAuth, isAcceptedServer } from "./access.ts";
import { awsErrorCode, isDenied } from "./aws-errors.ts";
import { createEntryCache } from "./entry-cache.ts";
import { UnreachableError } from "./unreachable.ts";

/** EKS takes a token for 15 minutes, whatever expiry its signature names. */
const TOKEN_TTL_MS = 14 * 60_000;
const SIGNATURE_TTL_SECONDS = 60;
/** A token ends this long before the credentials that signed it: a request may be under way. */
const CREDENTIALS_RESERVE_MS = 30_000;
const ATTEMPTS_MAX = 2;
const CONNECT_TIMEOUT_MS = 2_000;
const REQUEST_TIMEOUT_MS = 3_000;
const SESSION_NAME = "vmpool-functions";

/** Where a cluster is, and who vouches for it. */
export interface EksEndpoint {
  readonly server: string;
  readonly certificateAuthorityData: string;
}

/** What is asked throws an UnreachableError that says what to do. */
export interface EksCluster {
  endpoint(): Promise<EksEndpoint>;
  token(): Promise<string>;
  /** To be called after a 401: the next questions are answered anew, at most once a minute. */
  refuse(): void;
}

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
  readonly expiration?: Date | undefined;
}

/** What tests put in the place of AWS. */
export interface EksOptions {
  readonly client?: Pick<EKSClient, "send"> & { readonly config: { credentials(): Promise<Credentials> } };
  /** Epoch milliseconds. */
  readonly now?: () => number;
}

export function openEksCluster(
  auth: EksAuth,
  { client = createClient(auth), now = Date.now }: EksOptions = {},
): EksCluster {
  const credentials = () =>
    client.config.credentials().catch((cause: unknown) => {
      throw credentialsFailure(auth, cause);
    });
  const endpoints = createEntryCache<EksEndpoint>(async () => {
    await credentials();
    return describe(client, auth);
  }, now);
  const sign = async () => {
    const found = await credentials();
    const endsAt = found.expiration?.getTime() ?? Number.POSITIVE_INFINITY;
    const ttlMs = Math.min(TOKEN_TTL_MS, endsAt - now() - CREDENTIALS_RESERVE_MS);
    return { token: await presignToken(auth, found, now()), ttlMs };
  };
  const tokens = createEntryCache<Awaited<ReturnType<typeof sign>>>(sign, now, ({ ttlMs }) => ttlMs);
  const { clusterName } = auth;
  return {
    endpoint: () => endpoints.find(clusterName),
    token: async () => (await tokens.find(clusterName)).token,
    refuse() {
      tokens.refuse(clusterName);
      endpoints.refuse(clusterName);
    },
  };
}

/** A token for the cluster: a signed request for "who am I", which EKS puts to STS. `now` is in epoch milliseconds. */
export async function presignToken(
  { clusterName, region }: EksAuth,
  { accessKeyId, secretAccessKey, sessionToken }: Credentials,
  now: number,
): Promise<string> {
  const credentials = { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) };
  const signer = new SignatureV4({ service: "sts", region, credentials, sha256: Sha256 });
  const host = `sts.${region}.${region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com"}`;
  // EKS takes exactly these two headers, and no parameters but these and the signature's.
  const headers = { host, "x-k8s-aws-id": clusterName };
  const query = { Action: "GetCallerIdentity", Version: "2011-06-15" };
  const request = { method: "GET", protocol: "https:", hostname: host, path: "/", headers, query };
  const signed = await signer.presign(request, { expiresIn: SIGNATURE_TTL_SECONDS, signingDate: new Date(now) });
  const parameters = Object.entries(signed.query ?? {}).map(([name, value]): [string, string] => [name, String(value)]);
  const url = `https://${host}/?${new URLSearchParams(parameters)}`;
  return `k8s-aws-v1.${Buffer.from(url).toString("base64url")}`;
}

function createClient({ region, roleArn }: EksAuth): EKSClient {
  const requestHandler = {
    connectionTimeout: CONNECT_TIMEOUT_MS,
    requestTimeout: REQUEST_TIMEOUT_MS,
    // Without it the SDK only warns.
    throwOnRequestTimeout: true,
  };
  const config = { region, maxAttempts: ATTEMPTS_MAX, requestHandler };
  if (roleArn === undefined) return new EKSClient(config);
  const params = { RoleArn: roleArn, RoleSessionName: SESSION_NAME };
  return new EKSClient({ ...config, credentials: fromTemporaryCredentials({ params, clientConfig: config }) });
}

async function describe(client: Pick<EKSClient, "send">, auth: EksAuth): Promise<EksEndpoint> {
  const { clusterName, region } = auth;
  const answer = await client.send(new DescribeClusterCommand({ name: clusterName })).catch((cause: unknown) => {
    throw describeFailure(auth, cause);
  });
  const { endpoint, certificateAuthority, status } = answer.cluster ?? {};
  const which = `the EKS cluster ${clusterName} in ${region}`;
  if (endpoint === undefined || certificateAuthority?.data === undefined) {
    throw new UnreachableError(
      `${which} has no address (its status is ${status ?? "unknown"}): wait until it is ACTIVE`,
      {
        retryable: true,
      },
    );
  }
  if (!isAcceptedServer(endpoint))
    throw new UnreachableError(`${which} has an address that is not called: ${endpoint}`);
  return { server: endpoint, certificateAuthorityData: certificateAuthority.data };
}

const THROTTLED = new Set(["ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded"]);

/** What AWS says names accounts and roles: it stays in the cause. */
function describeFailure({ clusterName, region, roleArn }: EksAuth, cause: unknown): UnreachableError {
  const code = awsErrorCode(cause);
  const which = `the EKS cluster ${clusterName} in ${region}`;
  const who = roleArn === undefined ? "the function's role" : `the role ${roleArn}`;
  if (isDenied(code)) {
    return new UnreachableError(`${which} cannot be looked up (${code}): allow ${who} eks:DescribeCluster on it`, {
      cause,
    });
  }
  if (code === "ResourceNotFoundException") {
    const message = `${which} does not exist: check clusterName and region of the entry, and whose account it is in`;
    return new UnreachableError(message, { cause });
  }
  const why = THROTTLED.has(code) ? "EKS throttles eks:DescribeCluster" : "EKS does not answer";
  return new UnreachableError(`${which} cannot be looked up (${code}): ${why}; it is asked again`, {
    retryable: true,
    cause,
  });
}

function credentialsFailure({ roleArn }: EksAuth, cause: unknown): UnreachableError {
  const code = awsErrorCode(cause);
  if (roleArn === undefined)
    return new UnreachableError(`the function has no AWS credentials (${code})`, { retryable: true, cause });
  const retryable = !isDenied(code);
  const hint = retryable
    ? "STS does not answer; it is asked again"
    : "allow the function's role sts:AssumeRole on it, and name that role in its trust policy";
  return new UnreachableError(`the role ${roleArn} cannot be assumed (${code}): ${hint}`, { retryable, cause });
}

/** SHA-256 as the signer wants it. */
class Sha256 {
  readonly #hash: ReturnType<typeof createHash | typeof createHmac>;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash("sha256") : createHmac("sha256", bytesOf(secret));
  }

  update(chunk: string | ArrayBuffer | ArrayBufferView): void {
    this.#hash.update(bytesOf(chunk));
  }

  async digest(): Promise<Uint8Array> {
    return this.#hash.digest();
  }

  reset(): void {
    throw new Error("a hash is made for each text");
  }
}

function bytesOf(value: string | ArrayBuffer | ArrayBufferView): Buffer {
  if (typeof value === "string") return Buffer.from(value);
  return ArrayBuffer.isView(value) ? Buffer.from(value.buffer, value.byteOffset, value.byteLength) : Buffer.from(value);
}
