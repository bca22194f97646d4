/** A scripted network in the place of a cluster: canned answers for each request, and a record of what was sent. Knows nothing of Kubernetes' behaviour. */
import { expect, onTestFinished } from "vitest";
import { type Cluster, type ClusterCache, createCluster, type Meter } from "../../shared/clusters/cluster.ts";
import type { ApiRequest, ApiResponse, Connection } from "../../shared/clusters/connection.ts";

/** An answer, an error of the network, or what makes one of a request. */
export type Reply = ApiResponse | Error | ((request: ApiRequest) => Promise<ApiResponse> | ApiResponse);

export interface Route {
  /** Method and path without query, such as `GET /apis/pool.kubevirt.io`. */
  readonly line: string;
  /** One a request, in order; the last one answers all later requests. */
  readonly replies: readonly Reply[];
}

export interface Wire extends Connection {
  /** Every request, in the order of sending. */
  readonly sent: readonly ApiRequest[];
  /** How often the connection was closed. */
  readonly closed: number;
}

export function on(line: string, ...replies: readonly Reply[]): Route {
  return { line, replies };
}

/** A connection that answers by its routes. A request without a route fails the test. */
export function aWire(...routes: readonly Route[]): Wire {
  const sent: ApiRequest[] = [];
  const unscripted: string[] = [];
  const served = new Map<string, number>();
  let closed = 0;
  onTestFinished(() => expect(unscripted).toEqual([]));
  return {
    sent,
    get closed() {
      return closed;
    },
    async send(request) {
      sent.push(request);
      const line = lineOf(request);
      const route = routes.find((one) => one.line === line);
      const count = served.get(line) ?? 0;
      served.set(line, count + 1);
      const reply = route?.replies[Math.min(count, route.replies.length - 1)];
      if (reply === undefined) {
        unscripted.push(line);
        throw new Error(`the test has no answer for ${line}`);
      }
      if (reply instanceof Error) throw reply;
      return typeof reply === "function" ? reply(request) : reply;
    },
    watch() {
      throw new Error("functions do not watch");
    },
    async close() {
      closed += 1;
    },
  };
}

/** Method and path of a request, without its query. */
export function lineOf({ method, path }: ApiRequest): string {
  return `${method} ${path.split("?")[0]}`;
}

export function linesOf({ sent }: Wire): readonly string[] {
  return sent.map(lineOf);
}

export function queryOf({ path }: ApiRequest): Readonly<Record<string, string>> {
  return Object.fromEntries(new URLSearchParams(path.split("?")[1] ?? ""));
}

/** What writes: everything but GET. */
export function writesOf({ sent }: Wire): readonly ApiRequest[] {
  return sent.filter(({ method }) => method !== "GET");
}

export function ok(body: unknown, headers: ApiResponse["headers"] = {}): ApiResponse {
  return { status: 200, headers, body, bytes: 100 };
}

/** A failure as the API server words it. */
export function refusal(status: number, reason: string, message = reason, headers: ApiResponse["headers"] = {}) {
  const body = { kind: "Status", apiVersion: "v1", status: "Failure", reason, message, code: status };
  return { status, headers, body, bytes: 100 } satisfies ApiResponse;
}

/** An error with a code, as undici and Node throw them. */
export function networkError(code: string, message = `${code} at https://user:secret@10.0.0.1`): Error {
  return Object.assign(new Error(message), { code });
}

/** An answer that never comes: settles when the request's signal ends it. */
export function silence(request: ApiRequest): Promise<ApiResponse> {
  return new Promise((_, reject) => {
    if (request.signal.aborted) reject(request.signal.reason);
    request.signal.addEventListener("abort", () => reject(request.signal.reason), { once: true });
  });
}

/** The client over a wire, with a fresh meter and no deadline unless given. */
export function aCluster(
  wire: Wire,
  { deadline = new AbortController().signal, cache = { poolVersion: undefined } }: Partial<ClusterParts> = {},
): { readonly cluster: Cluster; readonly meter: Meter; readonly cache: ClusterCache } {
  const meter: Meter = { requests: 0, writes: 0, bytes: 0 };
  return { cluster: createCluster({ transport: wire.send, meter, deadline, cache }), meter, cache };
}

interface ClusterParts {
  readonly deadline: AbortSignal;
  readonly cache: ClusterCache;
}
