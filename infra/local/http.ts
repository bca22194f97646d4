/** The HTTP listener of `npm start` on 127.0.0.1: the token is checked here; what lies behind it are the functions' routes. */
import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { errorCode, SetupError } from "./control-plane/setup-error.ts";
import { type Route, serveRoutes } from "./routes.ts";

/** What functions are told of who brings the token, in the form of a Lambda authorizer's answer. */
const AUTHORIZER = { lambda: { client: "local" } };

export interface HttpListener {
  readonly url: string;
  close(): Promise<void>;
}

export interface HttpOptions {
  readonly port: number;
  /** Bearer token that every request but the health check must carry. */
  readonly token: string;
  readonly isReady: () => boolean;
  /** Asked at each request, since the listener is there before the functions are. */
  readonly routes: () => readonly Route[];
}

/** Listens, or throws `SetupError` when the port is in use. */
export async function listen({ port, ...rest }: HttpOptions): Promise<HttpListener> {
  const server = createServer((request, response) => answer(request, response, rest));
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(describeListenError(error, port)));
    server.listen(port, "127.0.0.1", resolve);
  });
  return {
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { token, isReady, routes }: Omit<HttpOptions, "port">,
): void {
  if (request.url === "/healthz") {
    request.resume();
    response.writeHead(isReady() ? 200 : 503, { "content-type": "text/plain" }).end(isReady() ? "ok" : "starting");
    return;
  }
  if (isSame(request.headers.authorization ?? "", `Bearer ${token}`)) {
    void serveRoutes({ routes: routes(), authorizer: AUTHORIZER }, request, response).catch(() => response.destroy());
    return;
  }
  request.resume();
  const title = "a bearer token is needed: the file token of the session's folder (--dir) holds it";
  response.writeHead(401, { "content-type": "application/problem+json", "www-authenticate": "Bearer" });
  response.end(JSON.stringify({ type: "about:blank", status: 401, title }));
}

/** Compares digests, which are of equal length, in constant time. */
function isSame(a: string, b: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

function describeListenError(error: Error, port: number): Error {
  switch (errorCode(error)) {
    case "EADDRINUSE":
      return new SetupError(
        `port ${port} of 127.0.0.1 is in use`,
        "end the program that uses it, or choose another with --port N",
      );
    case "EACCES":
      return new SetupError(`port ${port} may not be used by this user`, "choose one above 1023 with --port N");
    default:
      return error;
  }
}
