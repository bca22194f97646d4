/** One kept-alive HTTPS connection pool to one API server. Owns sockets, credentials and deadlines; knows nothing of pools. */
import { KubeConfig } from "@kubernetes/client-node/dist/config.js";
import { Agent, type Dispatcher } from "undici";
import type { ClusterAccess, ServerAccess } from "./access.ts";

/** The longest answer that is read, in bytes; a page of 1,000 VMs is about 4 MB. */
const RESPONSE_BYTES_MAX = 64 * 1024 * 1024;
const CONNECT_TIMEOUT_MS = 3_000;

export interface ApiRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Absolute path with query, such as `/api/v1/namespaces?limit=1`. */
  readonly path: string;
  readonly body?: unknown;
  /** Of the body; `application/json` when absent. */
  readonly contentType?: string;
  readonly accept?: string;
  /** Ends the exchange, and its socket, when it fires. */
  readonly signal: AbortSignal;
}

export interface ApiResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  /** Parsed JSON, or the text where the server sent something else. */
  readonly body: unknown;
  readonly bytes: number;
}

/** Sends one request; throws whatever the network threw. Tests put faults here. */
export type Transport = (request: ApiRequest) => Promise<ApiResponse>;

export interface Connection {
  readonly send: Transport;
  /** Opens a watch: yields each JSON line of the answer until the server or the signal ends it. */
  watch(path: string, signal: AbortSignal): AsyncIterable<unknown>;
  /** Ends everything under way; `drained` lets it finish first. */
  close(how?: "now" | "drained"): Promise<void>;
}

/** Opens a connection pool to the API server of `access`. Verified TLS, no redirects; nothing is sent before the first request. */
export function openConnection(access: ClusterAccess): Connection {
  if (access.server === undefined) throw new Error("clusters of EKS cannot be reached yet");
  const config = kubeConfigFor(access);
  let ready: Promise<{ agent: Agent; authorization: string | undefined }> | undefined;
  const open = () => {
    ready ??= prepare(config);
    return ready;
  };
  const { origin, pathname } = new URL(access.server);
  const prefix = pathname.replace(/\/$/, "");
  const dispatch = async (request: ApiRequest): Promise<Dispatcher.ResponseData> => {
    const { agent, authorization } = await open();
    return agent.request({
      origin,
      path: `${prefix}${request.path}`,
      method: request.method,
      headers: {
        accept: request.accept ?? "application/json",
        "user-agent": "vmpool-functions",
        ...(authorization === undefined ? {} : { authorization }),
        ...(request.body === undefined ? {} : { "content-type": request.contentType ?? "application/json" }),
      },
      body: request.body === undefined ? null : JSON.stringify(request.body),
      signal: request.signal,
    });
  };
  return {
    async send(request) {
      const answer = await dispatch(request);
      const { text, bytes } = await readText(answer.body);
      return { status: answer.statusCode, headers: answer.headers, body: parseJson(text), bytes };
    },
    async *watch(path, signal) {
      const answer = await dispatch({ method: "GET", path, signal });
      if (answer.statusCode !== 200) {
        const { text } = await readText(answer.body);
        throw new Error(`watch ${path}: ${answer.statusCode} ${text.slice(0, 200)}`);
      }
      answer.body.setEncoding("utf8");
      let rest = "";
      for await (const chunk of answer.body) {
        const lines = `${rest}${String(chunk)}`.split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) if (line !== "") yield JSON.parse(line);
      }
    },
    async close(how = "now") {
      if (ready === undefined) return;
      const { agent } = await ready;
      await (how === "now" ? agent.destroy() : agent.close());
    },
  };
}

/** The entry as a KubeConfig of client-node, which turns it into TLS options and an Authorization header. */
function kubeConfigFor(access: ServerAccess): KubeConfig {
  const config = new KubeConfig();
  const { auth } = access;
  config.loadFromClusterAndUser(
    {
      name: "cluster",
      server: access.server,
      skipTLSVerify: false,
      ...(access.certificateAuthorityData === undefined ? {} : { caData: access.certificateAuthorityData }),
    },
    auth.kind === "token"
      ? { name: "user", token: auth.token }
      : { name: "user", certData: auth.certificateData, keyData: auth.keyData },
  );
  return config;
}

async function prepare(config: KubeConfig) {
  const options: Parameters<KubeConfig["applyToHTTPSOptions"]>[0] = {};
  await config.applyToHTTPSOptions(options);
  const headers: unknown = options.headers;
  const authorization =
    typeof headers === "object" && headers !== null && "Authorization" in headers ? headers.Authorization : undefined;
  const { ca, cert, key } = options;
  const agent = new Agent({
    connections: 32,
    pipelining: 1,
    keepAliveTimeout: 60_000,
    // Deadlines come with each request; a watch may be silent for minutes.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: {
      timeout: CONNECT_TIMEOUT_MS,
      rejectUnauthorized: true,
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    },
  });
  return { agent, authorization: typeof authorization === "string" ? authorization : undefined };
}

async function readText(body: Dispatcher.ResponseData["body"]): Promise<{ text: string; bytes: number }> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    if (!Buffer.isBuffer(chunk)) continue;
    bytes += chunk.length;
    if (bytes > RESPONSE_BYTES_MAX) {
      body.destroy();
      throw new Error(`the API server's answer exceeds ${RESPONSE_BYTES_MAX} bytes`);
    }
    chunks.push(chunk);
  }
  return { text: Buffer.concat(chunks).toString("utf8"), bytes };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
