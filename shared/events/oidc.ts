/**
 * Bearer tokens of OpenID Connect: whether one is of the issuer, for the audience and about the subject that a cluster's
 * registration names. Calls nobody but that issuer, for its public keys.
 */
import { get } from "node:https";
import type { LookupFunction } from "node:net";
import { createLocalJWKSet, decodeJwt, errors, jwtVerify } from "jose";
import * as z from "zod";
import { parseJson } from "../planning/json.ts";

/** Signatures with a key that the issuer alone has; never `none`, never a shared secret. */
const ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"];
/** How far the issuer's clock may be ahead of ours, or behind. */
const CLOCK_TOLERANCE_SECONDS = 30;
/** For both documents together. */
const FETCH_TIMEOUT_MS = 3_000;
const DOCUMENT_BYTES_MAX = 64 * 1024;
const KEYS_MAX = 50;
/** While the issuer does not answer, the keys that it last published count for so long. */
const KEYS_AGE_MAX_MS = 60 * 60_000;

/** What a cluster's registration says of the tokens of its sender; each is compared as it stands. */
export interface TokenRules {
  readonly issuer: string;
  readonly audience: string;
  readonly subject: string;
}

/** What an issuer has published. */
export interface IssuerKeys {
  readonly keys: ReturnType<typeof createLocalJWKSet>;
  /** Epoch milliseconds. */
  readonly fetchedAtMs: number;
}

/** The keys by issuer, undefined when they cannot be had; `refuse` makes the next `find` look anew, once a minute at most. */
export interface KeyCache {
  find(issuer: string): Promise<IssuerKeys | undefined>;
  refuse(issuer: string): void;
}

/** `unavailable`: the issuer's keys cannot be had, so nothing can be said. */
export type TokenVerdict = "valid" | "invalid" | "unavailable";

/** Judges one token. What is not even of the issuer by its own word costs no look at keys. */
export async function judgeToken(
  token: string,
  rules: TokenRules,
  { keys, nowMs }: { readonly keys: KeyCache; readonly nowMs: number },
): Promise<TokenVerdict> {
  if (!isOfIssuer(token, rules.issuer)) return "invalid";
  let verdict: TokenVerdict = "unavailable";
  // The second look is for a key that the issuer has published since the first.
  for (let look = 0; look < 2; look += 1) {
    const found = await keys.find(rules.issuer);
    const seen = found === undefined ? "unavailable" : await verify(token, found, { rules, nowMs });
    if (seen === "valid" || seen === "invalid") return seen;
    verdict = seen === "unknownKey" ? "invalid" : seen;
    keys.refuse(rules.issuer);
  }
  return verdict;
}

function isOfIssuer(token: string, issuer: string): boolean {
  try {
    return decodeJwt(token).iss === issuer;
  } catch {
    return false;
  }
}

async function verify(
  token: string,
  { keys }: IssuerKeys,
  { rules, nowMs }: { readonly rules: TokenRules; readonly nowMs: number },
): Promise<"valid" | "invalid" | "unknownKey"> {
  try {
    await jwtVerify(token, keys, {
      ...rules,
      algorithms: ALGORITHMS,
      requiredClaims: ["exp"],
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      currentDate: new Date(nowMs),
    });
    return "valid";
  } catch (error) {
    return error instanceof errors.JWKSNoMatchingKey ? "unknownKey" : "invalid";
  }
}

export interface KeyReaderDeps {
  /** Whether a URL that the issuer names may be called. */
  readonly isAcceptedUrl: (url: string) => boolean;
  /** Resolves names; fails for one that resolves to an address that must not be called. */
  readonly lookup: LookupFunction;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly onFailure: (issuer: string, error: unknown) => void;
  /** PEM of the authority to trust in the place of the public ones. */
  readonly ca?: string;
}

const discoverySchema = z.object({ issuer: z.string(), jwks_uri: z.string() });
/** Public keys only: what belongs to a shared secret or a private key is not read. */
const keySetSchema = z.object({
  keys: z
    .array(
      z.object({
        kty: z.string(),
        kid: z.string().exactOptional(),
        use: z.string().exactOptional(),
        alg: z.string().exactOptional(),
        n: z.string().exactOptional(),
        e: z.string().exactOptional(),
        crv: z.string().exactOptional(),
        x: z.string().exactOptional(),
        y: z.string().exactOptional(),
      }),
    )
    .max(KEYS_MAX),
});

/** Reads the keys of an issuer by its discovery document. Never throws; to be put behind a cache, which bounds how often it is asked. */
export function createKeyReader(deps: KeyReaderDeps) {
  return async (issuer: string, previous?: IssuerKeys): Promise<IssuerKeys | undefined> => {
    try {
      const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS);
      const url = `${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`;
      const discovery = discoverySchema.parse(await fetchJson(url, signal, deps));
      if (discovery.issuer !== issuer) throw new Error("the discovery document is of another issuer");
      const published = keySetSchema.parse(await fetchJson(discovery.jwks_uri, signal, deps));
      return { keys: createLocalJWKSet(published), fetchedAtMs: deps.now() };
    } catch (error) {
      deps.onFailure(issuer, error);
      const isFresh = previous !== undefined && deps.now() < previous.fetchedAtMs + KEYS_AGE_MAX_MS;
      return isFresh ? previous : undefined;
    }
  };
}

/** GET of a small JSON document: https, verified, no redirect, no forbidden address, bounded in time and size. */
function fetchJson(url: string, signal: AbortSignal, { isAcceptedUrl, lookup, ca }: KeyReaderDeps): Promise<unknown> {
  if (!isAcceptedUrl(url)) return Promise.reject(new Error("the URL is not one that may be called"));
  return new Promise((resolve, reject) => {
    const options = {
      agent: false,
      headers: { accept: "application/json", "user-agent": "vmpool-functions" },
      lookup,
      signal,
      ...(ca === undefined ? {} : { ca }),
    };
    const request = get(url, options, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      const refuse = (why: string) => {
        reject(new Error(why));
        request.destroy();
      };
      if (response.statusCode !== 200) refuse(`the answer is ${response.statusCode}`);
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > DOCUMENT_BYTES_MAX) refuse(`the answer exceeds ${DOCUMENT_BYTES_MAX} bytes`);
        else chunks.push(chunk);
      });
      response.on("end", () => resolve(parseJson(Buffer.concat(chunks).toString("utf8"))));
      response.on("error", reject);
    });
    request.on("error", reject);
  });
}
