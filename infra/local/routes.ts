/** Hands HTTP requests to function handlers in the form of API Gateway's HTTP API (payload 2.0), by the same routes. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Context } from "aws-lambda";
import { type HttpAnswer, problem } from "../../shared/runtime/http.ts";
import { lambdaContext } from "./runtime/lambda-context.ts";
import { type FunctionName, TIMEOUT_MS } from "./runtime/wiring.ts";

/** API Gateway's own limit. */
const BODY_BYTES_MAX = 10 * 1024 * 1024;
/** Bodies of these types are handed over as text, all others in base64, as API Gateway does it. */
const TEXT_TYPES = /^(text\/|application\/(json|xml|javascript)\b)/i;

export interface Route {
  readonly method: string;
  /** Such as `/clusters/{cluster}/events`. */
  readonly path: string;
  readonly functionName: FunctionName;
  readonly handle: (event: unknown, context: Context) => Promise<HttpAnswer>;
}

/** What the gateway's authorizer says of a client that it lets in; undefined where nobody is asked who he is. */
export type Authorizer = Readonly<Record<string, unknown>> | undefined;

export interface Gateway {
  readonly routes: readonly Route[];
  readonly authorizer?: Authorizer;
}

/** Answers one request by the route that takes it; 404 when none does. */
export async function serveRoutes(
  { routes, authorizer }: Gateway,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const { pathname, search } = new URL(request.url ?? "/", "http://localhost");
  const matches = routes.map((route) => ({ route, parameters: matchPath(route.path, pathname) }));
  const match = matches.find(({ route, parameters }) => parameters !== undefined && route.method === request.method);
  const body = await readAll(request);
  if (match === undefined) return send(response, problem(404, "there is nothing at this path and method"));
  if (body === undefined) return send(response, problem(413, `the body exceeds ${BODY_BYTES_MAX} bytes`));
  const { route, parameters } = match;
  const event = toEvent(request, { pathname, search, parameters: parameters ?? {}, body, authorizer });
  const answer = await route
    .handle(event, lambdaContext(route.functionName, TIMEOUT_MS[route.functionName]))
    .catch(() => problem(500, "the function failed: its log says why"));
  send(response, answer);
}

/** The values of the `{names}`; undefined when the path does not match. */
function matchPath(pattern: string, pathname: string): Readonly<Record<string, string>> | undefined {
  const [expected, given] = [pattern.split("/"), pathname.split("/")];
  if (expected.length !== given.length) return undefined;
  const parameters: [string, string][] = [];
  for (const [index, part] of expected.entries()) {
    const value = given[index] ?? "";
    const name = /^\{(\w+)\}$/.exec(part)?.[1];
    if (name === undefined ? part !== value : value === "") return undefined;
    if (name !== undefined) parameters.push([name, decode(value)]);
  }
  return Object.fromEntries(parameters);
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

interface Parts {
  readonly pathname: string;
  readonly search: string;
  readonly parameters: Readonly<Record<string, string>>;
  readonly body: Buffer;
  readonly authorizer: Authorizer;
}

function toEvent(request: IncomingMessage, { pathname, search, parameters, body, authorizer }: Parts) {
  const headers = Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [
      name,
      Array.isArray(value) ? value.join(",") : (value ?? ""),
    ]),
  );
  const isText = TEXT_TYPES.test(request.headers["content-type"] ?? "");
  return {
    version: "2.0",
    rawPath: pathname,
    rawQueryString: search.replace(/^\?/, ""),
    headers,
    pathParameters: parameters,
    requestContext: {
      http: { method: request.method ?? "", path: pathname },
      ...(authorizer === undefined ? {} : { authorizer }),
    },
    ...(body.length === 0 ? {} : { body: body.toString(isText ? "utf8" : "base64") }),
    isBase64Encoded: !isText && body.length > 0,
  };
}

/** The body; undefined when it is larger than API Gateway would take. Always read to the end, so that the sender gets its answer. */
async function readAll(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request) {
    if (!Buffer.isBuffer(chunk)) continue;
    bytes += chunk.length;
    if (bytes <= BODY_BYTES_MAX) chunks.push(chunk);
  }
  return bytes > BODY_BYTES_MAX ? undefined : Buffer.concat(chunks);
}

function send(response: ServerResponse, { statusCode, headers, body }: HttpAnswer): void {
  response.writeHead(statusCode, { ...headers });
  response.end(body);
}
