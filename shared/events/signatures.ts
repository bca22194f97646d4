/** Proves who sent a request. Compares in constant time and says nothing of why it refused. */
import { createHash, timingSafeEqual } from "node:crypto";

/** Lower-case hex SHA-256, the form in which secrets stand in the registry. */
export function hashSecret(secret: string): string {
  return createHash("sha256").update(secret).digest("hex");
}

/** Whether the secret is one of those whose hashes are registered; all are compared, whichever matches. */
export function isKnownSecret(secret: string, hashes: readonly string[] | undefined): boolean {
  // Nothing is no secret, even where its hash is registered.
  if (secret === "") return false;
  const given = Buffer.from(hashSecret(secret));
  let known = false;
  for (const hash of hashes ?? []) {
    const expected = Buffer.from(hash);
    if (expected.length === given.length && timingSafeEqual(given, expected)) known = true;
  }
  return known;
}

/** The token of an `Authorization: Bearer …` header; empty when there is none. */
export function bearerTokenOf(authorization: string | undefined): string {
  return /^Bearer ([\w.~+/=-]{1,4096})$/i.exec(authorization ?? "")?.[1] ?? "";
}
