/** The secrets by which senders prove themselves: makes them, and what the registry keeps of them. Says none of them to anybody. */
import { randomBytes } from "node:crypto";
import type { ClusterWebhook } from "../../shared/clusters/registry.ts";
import { hashSecret } from "../../shared/events/signatures.ts";
import type { Source } from "./cluster-options.ts";

/** In clear text; each is shown once and kept nowhere. */
export interface Secrets {
  /** In the address that the API server sends its reviews to. */
  readonly path?: string;
  /** Of the header `Authorization`. */
  readonly bearer?: string;
  /** The key of Standard Webhooks. */
  readonly standardWebhooks?: string;
}
export type SecretKind = keyof Secrets;

export const SECRET_KINDS = ["path", "bearer", "standardWebhooks"] as const satisfies readonly SecretKind[];

/** What each kind of sender proves itself by; those that sign in with OIDC have no secret of ours. */
const KIND_OF: Readonly<Record<Source, SecretKind | undefined>> = {
  admission: "path",
  audit: "bearer",
  knative: undefined,
  bearer: "bearer",
  "standard-webhooks": "standardWebhooks",
  gke: undefined,
  oidc: undefined,
};

const SECRET_BYTES = 32;

export function secretKindsOf(sources: readonly Source[]): readonly SecretKind[] {
  const wanted = new Set(sources.map((source) => KIND_OF[source]));
  return SECRET_KINDS.filter((kind) => wanted.has(kind));
}

export function makeSecrets(kinds: readonly SecretKind[]): Secrets {
  const make = (kind: SecretKind) => {
    const bytes = randomBytes(SECRET_BYTES);
    return kind === "standardWebhooks" ? `whsec_${bytes.toString("base64")}` : bytes.toString("base64url");
  };
  return Object.fromEntries(kinds.map((kind) => [kind, make(kind)]));
}

/** What the registry keeps: hashes, but for Standard Webhooks, whose key both sides need. */
function kept(kind: SecretKind, secret: string): string {
  return kind === "standardWebhooks" ? secret : hashSecret(secret);
}

/** A webhook entry that lets in the holders of these secrets, and nobody who was let in before. */
export function newWebhook(secrets: Secrets, oidc: ClusterWebhook["oidc"]): ClusterWebhook {
  return { ...addSecrets({}, secrets), ...(oidc === undefined ? {} : { oidc }) };
}

/** The newest first; of the others the newest stays valid beside it. */
export function addSecrets(webhook: ClusterWebhook, secrets: Secrets): ClusterWebhook {
  return changeSecrets(webhook, SECRET_KINDS, (kind, list) => {
    const secret = secrets[kind];
    return secret === undefined ? list : [kept(kind, secret), ...list.slice(0, 1)];
  });
}

/** Of each kind that has two, one alone stays valid. */
export function dropSecrets(
  webhook: ClusterWebhook,
  drop: "old" | "new",
  kinds: readonly SecretKind[],
): ClusterWebhook {
  return changeSecrets(webhook, kinds, (_kind, list) => (drop === "old" ? list.slice(0, 1) : list.slice(-1)));
}

function changeSecrets(
  webhook: ClusterWebhook,
  kinds: readonly SecretKind[],
  change: (kind: SecretKind, list: readonly string[]) => readonly string[],
): ClusterWebhook {
  const changed = kinds
    .map((kind) => [kind, [...change(kind, webhook[kind] ?? [])]] as const)
    .filter(([, list]) => list.length > 0);
  return { ...webhook, ...Object.fromEntries(changed) };
}
