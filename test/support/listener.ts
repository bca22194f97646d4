/** Servers of tests: on 127.0.0.1, at any free port, and what a proxy among them does. */
import { once } from "node:events";
import { type Agent, type IncomingHttpHeaders, type IncomingMessage, request, type Server } from "node:http";
import { request as httpsRequest } from "node:https";
import { buffer } from "node:stream/consumers";

export interface Listener {
  readonly port: number;
  /** Ends its connections too. */
  close(): Promise<void>;
}

export async function listen(server: Server): Promise<Listener> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP listener without a port");
  return {
    port: address.port,
    async close() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

export interface Forwarded {
  readonly agent: Agent;
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Puts a request to `upstream`, an http or https URL; its answer comes whole, with headers that fit that. */
export async function forward(upstream: string, { body, ...options }: Forwarded): Promise<Answer> {
  const { protocol, hostname, port } = new URL(upstream);
  const outgoing = (protocol === "https:" ? httpsRequest : request)({ ...options, hostname, port });
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  outgoing.on("response", resolve).on("error", reject).end(body);
  const answer = await promise;
  const { "transfer-encoding": _encoding, connection: _connection, ...headers } = answer.headers;
  return { status: answer.statusCode ?? 502, headers, body: await buffer(answer) };
}
