/** An issuer of OpenID Connect tokens: a real https server with its discovery document and keys. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { createEntryCache } from "../../shared/clusters/entry-cache.ts";
import { lookupAllowed } from "../../shared/clusters/lookup.ts";
import { createKeyReader, type IssuerKeys, type KeyReaderDeps } from "../../shared/events/oidc.ts";
import { issueCertificates, serve } from "./transport-server.ts";

const CERTIFICATES = issueCertificates();
export const AUDIENCE = "https://functions.example/clusters/west";
export const SUBJECT = "system:serviceaccount:ci:changes-oidc-sources.knative.dev-apiserversource";

/** What the test says of time; the issuer's clock and ours are the same. */
export interface Clock {
  now: number;
}

export interface TokenFields {
  readonly claims?: JWTPayload;
  readonly kid?: string;
  /** Seconds from now; null for a token that never ends. */
  readonly lifetime?: number | null;
}

/** Serves until the test is over. `answers` replaces what a path answers. */
export async function anIssuer(clock: Clock) {
  const certificates = await CERTIFICATES;
  const asked: string[] = [];
  const answers = new Map<string, (request: IncomingMessage, response: ServerResponse) => void>();
  const pairs = new Map([["key-1", await generateKeyPair("ES256", { extractable: true })]]);
  const server = await serve(certificates, (request, response) => {
    const path = request.url ?? "";
    asked.push(path);
    const answer = answers.get(path);
    if (answer !== undefined) return answer(request, response);
    if (path === "/.well-known/openid-configuration")
      return void response.end(JSON.stringify({ issuer: server.url, jwks_uri: `${server.url}/keys` }));
    void publish(pairs).then((keys) => response.end(JSON.stringify({ keys })));
  });
  const rules = { issuer: server.url, audience: AUDIENCE, subject: SUBJECT };
  return {
    rules,
    asked,
    answers,
    pairs,
    /** A token as the registered sender gets it, but for `fields`. */
    async token({ claims = {}, kid = "key-1", lifetime = 600 }: TokenFields = {}): Promise<string> {
      const { privateKey } = pairs.get(kid) ?? (await generateKeyPair("ES256"));
      const at = Math.floor(clock.now / 1_000);
      const expiry = lifetime === null ? {} : { exp: at + lifetime };
      const payload = { iss: rules.issuer, aud: AUDIENCE, sub: SUBJECT, iat: at, ...expiry, ...claims };
      return new SignJWT(payload).setProtectedHeader({ alg: "ES256", kid }).sign(privateKey);
    },
    /** The keys as `webhook` keeps them. */
    keys(deps: Partial<KeyReaderDeps> = {}) {
      const now = () => clock.now;
      const failures: string[] = [];
      const read = createKeyReader({
        isAcceptedUrl: (url) => url.startsWith("https://"),
        lookup: lookupAllowed(),
        now,
        onFailure: (_issuer, error) => failures.push(String(error)),
        ca: certificates.ca,
        ...deps,
      });
      return { ...createEntryCache<IssuerKeys | undefined>(read, now), failures };
    },
  };
}

type Pairs = ReadonlyMap<string, Awaited<ReturnType<typeof generateKeyPair>>>;

function publish(pairs: Pairs) {
  return Promise.all([...pairs].map(async ([kid, { publicKey }]) => ({ ...(await exportJWK(publicKey)), kid })));
}
