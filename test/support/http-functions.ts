/** The functions behind their HTTP listener, without a schedule: after the first look only what requests wake is looked at. */
import { pickPorts } from "../../infra/local/control-plane/ports.ts";
import { listen } from "../../infra/local/http.ts";
import { startRuntime } from "../../infra/local/runtime/runtime.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { registryOf } from "./world.ts";

const TOKEN = "a token that nobody guesses";

export interface HttpRequest {
  readonly method?: string;
  readonly type?: string;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** The right one unless given. */
  readonly token?: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly type: string | null;
  /** Empty when it is no object. */
  readonly body: Readonly<Record<string, unknown>>;
  readonly text: string;
}

export interface HttpFunctions {
  /** As curl would. */
  send(path: string, request?: HttpRequest): Promise<HttpAnswer>;
  stop(): Promise<void>;
}

/** Serves a deployment that knows these clusters. */
export async function serveFunctions(
  deployment: string,
  clusters: Readonly<Record<string, ServerAccess>>,
): Promise<HttpFunctions> {
  const logger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
  const registry = registryOf(clusters);
  const runtime = startRuntime({ registry, deployment, resyncSeconds: 0, wakeEverything: false, logger });
  const [port = 0] = await pickPorts(1);
  const listener = await listen({ port, token: TOKEN, isReady: () => true, routes: () => runtime.routes });
  return {
    async send(path, { method = "GET", type, body, token = TOKEN } = {}) {
      const answer = await fetch(`${listener.url}${path}`, {
        method,
        headers: { authorization: `Bearer ${token}`, ...(type === undefined ? {} : { "content-type": type }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      const parsed: unknown = JSON.parse(text);
      const { status, headers } = answer;
      return { status, type: headers.get("content-type"), body: isRecord(parsed) ? parsed : {}, text };
    },
    async stop() {
      await listener.close();
      await runtime.stop();
    },
  };
}
