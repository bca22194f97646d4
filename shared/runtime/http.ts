/** HTTP as API Gateway's HTTP API hands it to a function (payload version 2.0): bodies as bytes, answers as values. */
import * as z from "zod";

export const httpEventSchema = z.object({
  version: z.literal("2.0"),
  rawPath: z.string(),
  rawQueryString: z.string().default(""),
  /** Names in lower case. */
  headers: z.record(z.string(), z.string()).default({}),
  pathParameters: z.record(z.string(), z.string()).optional(),
  requestContext: z.object({
    http: z.object({ method: z.string() }),
    /** What an authorizer of the gateway said of the client; absent when none was asked. */
    authorizer: z.record(z.string(), z.unknown()).optional(),
  }),
  body: z.string().optional(),
  isBase64Encoded: z.boolean(),
});
export type HttpEvent = z.output<typeof httpEventSchema>;

export interface HttpAnswer {
  readonly statusCode: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** The raw bytes of the body, which signatures are of; undefined when there are more than `bytesMax`. */
export function readBody({ body = "", isBase64Encoded }: HttpEvent, bytesMax: number): Buffer | undefined {
  // Base64 takes four characters for three bytes, so this bounds the work before it is done.
  if (body.length > (isBase64Encoded ? Math.ceil(bytesMax / 3) * 4 : bytesMax)) return undefined;
  const bytes = Buffer.from(body, isBase64Encoded ? "base64" : "utf8");
  return bytes.length > bytesMax ? undefined : bytes;
}

export function json(statusCode: number, value: unknown, headers: Readonly<Record<string, string>> = {}): HttpAnswer {
  return { statusCode, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(value) };
}

/** A problem document (RFC 9457). */
export function problem(status: number, title: string, headers: Readonly<Record<string, string>> = {}): HttpAnswer {
  const body = JSON.stringify({ type: "about:blank", status, title });
  return { statusCode: status, headers: { "content-type": "application/problem+json", ...headers }, body };
}
