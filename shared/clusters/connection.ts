/** One kept-alive HTTPS connection pool to one API server. Owns sockets, credentials and deadlines; knows nothing of pools. */
import type { LookupFunction } from "node:net";
import { Agent, type Dispatcher } from "undici";
import type { ClusterAccess, EksAuth, ServerAccess } from "./access.ts";
import type { EksCluster, EksEndpoint } from "./eks.ts";
import { lookupAllowed } from "./lookup.ts";

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

/** What tests put in the place of the network's own. */
export interface ConnectionOptions {
  /** Resolves names; what it answers is checked. */
  readonly lookup?: LookupFunction;
  readonly openEks?: (auth: EksAuth) => EksCluster | Promise<EksCluster>;
}

/**
 * Opens a connection pool to the API server of `access`. Verified TLS, no redirects, no address that the rules of `server`
 * forbid, whatever its name resolves to; nothing is sent before the first request.
 */
export function openConnection(access: ClusterAccess, options: ConnectionOptions = {}): Connection {
  const target = access.server === undefined ? eksTarget(access.auth, options) : fixedTarget(access, options);
  const dispatch = async (request: ApiRequest): Promise<Dispatcher.ResponseData> => {
    const route = await unlessAborted(target.open(), request.signal);
    const answer = await exchange(request, route);
    if (answer.statusCode !== 401 || target.refuse === undefined) return answer;
    target.refuse();
    const renewed = await unlessAborted(target.open(), request.signal).catch(() => route);
    if (renewed.authorization === route.authorization && renewed.agent === route.agent) return answer;
    // Who is not known has done nothing, so the same request may be sent again.
    await answer.body.dump();
    return exchange(request, renewed);
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
    close: (how = "now") => target.close(how),
  };
}

/** Where requests go, and what proves who sends them. */
interface Route {
  readonly agent: Agent;
  readonly origin: string;
  /** Path of the API behind the origin; empty or without a slash at its end. */
  readonly prefix: string;
  readonly authorization: string | undefined;
}

interface Target {
  open(): Promise<Route>;
  /** After a 401: the next `open` may give another route. Absent when it cannot. */
  readonly refuse?: () => void;
  close(how: "now" | "drained"): Promise<void>;
}

/** A server and credentials that never change. */
function fixedTarget(access: ServerAccess, { lookup }: ConnectionOptions): Target {
  const { auth } = access;
  const client = auth.kind === "clientCertificate" ? auth : undefined;
  const authorization = auth.kind === "token" ? `Bearer ${auth.token}` : undefined;
  let agent: Agent | undefined;
  return {
    async open() {
      agent ??= createAgent({ ca: access.certificateAuthorityData, client, lookup });
      return { agent, ...placeOf(access.server), authorization };
    },
    async close(how) {
      await end(agent, how);
    },
  };
}

/** A cluster that EKS tells of: its address may change, and its tokens do. */
function eksTarget(auth: EksAuth, { lookup, openEks = openEksLazily }: ConnectionOptions): Target {
  let cluster: Promise<EksCluster> | undefined;
  let opened: { readonly agent: Agent; readonly endpoint: EksEndpoint } | undefined;
  let refuse = () => {};
  return {
    async open() {
      cluster ??= Promise.resolve(openEks(auth));
      const eks = await cluster;
      refuse = () => eks.refuse();
      const [endpoint, token] = await Promise.all([eks.endpoint(), eks.token()]);
      if (opened === undefined || !isSameEndpoint(opened.endpoint, endpoint)) {
        // Requests under way end as they would have.
        end(opened?.agent, "drained").catch(() => {});
        opened = { endpoint, agent: createAgent({ ca: endpoint.certificateAuthorityData, lookup }) };
      }
      return { agent: opened.agent, ...placeOf(endpoint.server), authorization: `Bearer ${token}` };
    },
    refuse: () => refuse(),
    async close(how) {
      await end(opened?.agent, how);
    },
  };
}

/** Most installations have no cluster of EKS, and a function that needs none starts without its clients. */
async function openEksLazily(auth: EksAuth): Promise<EksCluster> {
  const { openEksCluster } = await import("./eks.ts");
  return openEksCluster(auth);
}

function isSameEndpoint(one: EksEndpoint, other: EksEndpoint): boolean {
  return one.server === other.server && one.certificateAuthorityData === other.certificateAuthorityData;
}

function placeOf(server: string): Pick<Route, "origin" | "prefix"> {
  const { origin, pathname } = new URL(server);
  return { origin, prefix: pathname.replace(/\/$/, "") };
}

async function end(agent: Agent | undefined, how: "now" | "drained"): Promise<void> {
  await (how === "now" ? agent?.destroy() : agent?.close());
}

interface AgentOptions {
  /** Base64 of PEM; the authorities of the system when undefined. */
  readonly ca: string | undefined;
  readonly client?: { readonly certificateData: string; readonly keyData: string } | undefined;
  readonly lookup?: LookupFunction | undefined;
}

function createAgent({ ca, client, lookup }: AgentOptions): Agent {
  return new Agent({
    connections: 32,
    pipelining: 1,
    keepAliveTimeout: 60_000,
    // Deadlines come with each request; a watch may be silent for minutes.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: {
      timeout: CONNECT_TIMEOUT_MS,
      rejectUnauthorized: true,
      lookup: lookupAllowed(lookup),
      ...(ca === undefined ? {} : { ca: decode(ca) }),
      ...(client === undefined ? {} : { cert: decode(client.certificateData), key: decode(client.keyData) }),
    },
  });
}

function decode(base64: string): Buffer {
  return Buffer.from(base64, "base64");
}

async function exchange(
  request: ApiRequest,
  { agent, origin, prefix, authorization }: Route,
): Promise<Dispatcher.ResponseData> {
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
}

/** What it takes to know where to send is not worth waiting for beyond the request's own time. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  // Nobody waits for it where the signal has come already.
  promise.catch(() => {});
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
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
