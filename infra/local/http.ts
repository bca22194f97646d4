/** The HTTP listener of `npm start` on 127.0.0.1: the token is checked here, the routes of the functions join as they come to exist. */
import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { errorCode, SetupError } from "./control-plane/setup-error.ts";

export interface HttpListener {
  readonly url: string;
  close(): Promise<void>;
}

export interface HttpOptions {
  readonly port: number;
  /** Bearer token that every request but the health check must carry. */
  readonly token: string;
  readonly isReady: () => boolean;
}

/** Listens, or throws `SetupError` when the port is in use. */
export async function listen({ port, token, isReady }: HttpOptions): Promise<HttpListener> {
  const server = createServer((request, response) => answer(request, response, { token, isReady }));
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
  { token, isReady }: Pick<HttpOptions, "token" | "isReady">,
): void {
  request.resume();
  if (request.url === "/healthz") {
    response.writeHead(isReady() ? 200 : 503, { "content-type": "text/plain" }).end(isReady() ? "ok" : "starting");
    return;
  }
  const authorized = isSame(request.headers.authorization ?? "", `Bearer ${token}`);
  const [status, title] = authorized
    ? [404, "there is nothing at this path"]
    : [401, "a bearer token is needed: it is in the file token"];
  response.writeHead(status, { "content-type": "application/problem+json" });
  response.end(JSON.stringify({ type: "about:blank", status, title }));
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
