/** A TLS proxy before an API server that ends its client at the n-th request of a kind: before it goes on, or before its answer does. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { Agent, createServer } from "node:https";
import { buffer } from "node:stream/consumers";
import type { KeyPair } from "../../infra/local/control-plane/certificates.ts";
import { parseJson } from "../../shared/planning/json.ts";
import { forward, listen } from "./listener.ts";

export interface ProxyRequest {
  readonly method: string;
  /** Without the query. */
  readonly path: string;
  /** The server stores nothing. */
  readonly isDry: boolean;
  /** Parsed JSON; undefined where there is none. */
  readonly body: unknown;
}

export interface CrashPoint {
  readonly matches: (request: ProxyRequest) => boolean;
  /** Counted from the arming on, beginning with 1. */
  readonly nth: number;
  /** `before` the server gets the request, or `after` it has answered; the client hears nothing in either case. */
  readonly when: "before" | "after";
  /** Ends the client. */
  readonly crash: () => Promise<void>;
}

export interface CrashProxy {
  readonly server: string;
  /** Settles when the client has been ended. */
  arm(point: CrashPoint): Promise<void>;
  close(): Promise<void>;
}

export interface ProxyOptions {
  /** The API server. */
  readonly upstream: string;
  readonly ca: KeyPair;
  /** Of the proxy itself, for 127.0.0.1. */
  readonly serving: KeyPair;
  /** Lists of pools and machines of all namespaces are narrowed to this one, so that the client has the cluster for itself. */
  readonly namespace: string;
}

const ALL_NAMESPACES = /^(\/apis\/(?:pool\.)?kubevirt\.io\/[^/]+)\/(virtualmachinepools|virtualmachines)\b/;

interface Armed extends CrashPoint {
  seen: number;
  readonly struck: () => void;
}

export async function startCrashProxy({ upstream, ca, serving, namespace }: ProxyOptions): Promise<CrashProxy> {
  const agent = new Agent({ keepAlive: true, ca: ca.certificate });
  let armed: Armed | undefined;
  const strike = async (point: Armed) => {
    await point.crash();
    point.struck();
  };
  const serve = async (incoming: IncomingMessage, response: ServerResponse) => {
    const body = await buffer(incoming);
    const { method = "GET", url = "/" } = incoming;
    const path = url.replace(ALL_NAMESPACES, `$1/namespaces/${namespace}/$2`);
    const [place = "", query = ""] = path.split("?");
    const isDry = new URLSearchParams(query).has("dryRun");
    const request = { method, path: place, isDry, body: parseJson(body.toString("utf8")) };
    const point = armed?.matches(request) && ++armed.seen === armed.nth ? armed : undefined;
    if (point !== undefined) armed = undefined;
    if (point?.when === "before") return strike(point);
    const headers = { ...incoming.headers, host: new URL(upstream).host };
    const answer = await forward(upstream, { agent, method, path, headers, body });
    if (point !== undefined) return strike(point);
    response.writeHead(answer.status, answer.headers).end(answer.body);
  };
  const server = createServer({ cert: serving.certificate, key: serving.key }, (incoming, response) => {
    // A client that was ended hangs up, and a request of it that was under way has no one to be answered to.
    serve(incoming, response).catch(() => response.destroy());
  });
  const listener = await listen(server);
  return {
    server: `https://127.0.0.1:${listener.port}`,
    arm(point) {
      const { promise, resolve } = Promise.withResolvers<void>();
      armed = { ...point, seen: 0, struck: resolve };
      return promise;
    },
    async close() {
      await listener.close();
      agent.destroy();
    },
  };
}
