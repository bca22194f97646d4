/** A real https server on 127.0.0.1 with a certificate of its own, in the place of an API server. */
import type { RequestListener } from "node:http";
import { createServer } from "node:https";
import { generate } from "selfsigned";
import { onTestFinished } from "vitest";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { listen } from "./listener.ts";

export interface Certificates {
  /** PEM of the authority. */
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** An authority, and what it issued for this address; `usage` says for which side. */
export async function issueCertificates(
  usage: "server" | "client" = "server",
  ip = "127.0.0.1",
): Promise<Certificates> {
  const authority = await generate([{ name: "commonName", value: "test authority" }], {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [
      { name: "basicConstraints", cA: true, critical: true },
      { name: "keyUsage", keyCertSign: true, digitalSignature: true, critical: true },
    ],
  });
  const issued = await generate([{ name: "commonName", value: "tester" }], {
    keyType: "ec",
    algorithm: "sha256",
    ca: { key: authority.private, cert: authority.cert },
    extensions: [
      { name: "basicConstraints", cA: false, critical: true },
      { name: "extKeyUsage", serverAuth: usage === "server", clientAuth: usage === "client" },
      { name: "subjectAltName", altNames: [{ type: 7, ip }] },
    ],
  });
  return { ca: authority.cert, cert: issued.cert, key: issued.private };
}

export interface LocalServer {
  readonly url: string;
  /** TLS connections that were opened so far. */
  readonly sockets: () => number;
  /** Those that are open now. */
  readonly open: () => number;
}

export interface ServerOptions {
  /** PEM of the authority whose client certificates are asked for. */
  readonly clientCa?: string;
}

/** Listens until the test is over. */
export async function serve(
  { cert, key }: Certificates,
  answer: RequestListener,
  { clientCa }: ServerOptions = {},
): Promise<LocalServer> {
  const clients = clientCa === undefined ? {} : { ca: clientCa, requestCert: true, rejectUnauthorized: true };
  const server = createServer({ cert, key, ...clients }, answer);
  let sockets = 0;
  let open = 0;
  server.on("secureConnection", (socket) => {
    sockets += 1;
    open += 1;
    socket.on("close", () => {
      open -= 1;
    });
  });
  const listener = await listen(server);
  onTestFinished(listener.close);
  return { url: `https://127.0.0.1:${listener.port}`, sockets: () => sockets, open: () => open };
}

/** Access to a server by its authority and a token, unless something else is given. */
export function accessTo({ url }: LocalServer, ca: string, fields: Partial<ServerAccess> = {}): ServerAccess {
  return {
    server: url,
    certificateAuthorityData: base64(ca),
    auth: { kind: "token", token: "s3cr3t" },
    mode: "act",
    ...fields,
  };
}

export function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}
