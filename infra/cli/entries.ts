/** What people are shown of registrations: kinds and counts, and of secrets the first eight digits of a hash. */
import type { ClusterAccess } from "../../shared/clusters/access.ts";
import type { ClusterWebhook } from "../../shared/clusters/registry.ts";
import { hashSecret } from "../../shared/events/signatures.ts";
import { claimsOf, readCertificate } from "./cluster-objects.ts";
import { SECRET_KINDS, type SecretKind } from "./secrets.ts";

const DIGITS = 8;
/** What each kind of secret is for. */
const SENDERS: Readonly<Record<SecretKind, string>> = {
  path: "admission",
  bearer: "bearer",
  standardWebhooks: "standard-webhooks",
};

/** Where the cluster is: its address, or which one of EKS. */
export function describeReach({
  server,
  auth,
}: Pick<ClusterAccess, "auth"> & { readonly server?: string | undefined }) {
  return auth.kind === "eks" ? `EKS ${auth.clusterName} in ${auth.region}` : (server ?? "");
}

/** A registration, or what is wrong with it. */
export interface ShownEntry {
  readonly name: string;
  readonly access: ClusterAccess | undefined;
  readonly webhook: ClusterWebhook | undefined;
  readonly problem: string | undefined;
}

/** For programs; without anything secret. */
export function formatJson({ name, access, webhook, problem }: ShownEntry): object {
  return {
    name,
    ...(problem === undefined ? {} : { problem }),
    ...(access === undefined ? {} : { access: shownAccess(access) }),
    senders: sendersOf(webhook),
    ...(webhook?.oidc === undefined ? {} : { oidc: webhook.oidc }),
  };
}

function shownAccess({ server, auth, mode, namespaces }: ClusterAccess): object {
  const { kind } = auth;
  const shown = kind === "eks" ? auth : { kind, ...validity(auth) };
  return { ...(server === undefined ? {} : { server }), auth: shown, mode, namespaces: namespaces ?? null };
}

/** Until when credentials are good, as far as they say so themselves. */
function validity(auth: Exclude<ClusterAccess["auth"], { readonly kind: "eks" }>): { readonly expires?: string } {
  if (auth.kind === "clientCertificate") {
    const until = readCertificate(auth.certificateData)?.validToDate;
    return until === undefined ? {} : { expires: until.toISOString() };
  }
  const { exp } = claimsOf(auth.token);
  return typeof exp === "number" ? { expires: new Date(exp * 1_000).toISOString() } : {};
}

interface Sender {
  readonly kind: string;
  /** Of each secret that is valid, the newest first. */
  readonly hashes: readonly string[];
}

function sendersOf(webhook: ClusterWebhook | undefined): readonly Sender[] {
  return SECRET_KINDS.flatMap((kind) => {
    const list = webhook?.[kind] ?? [];
    // The key of Standard Webhooks stands in the entry itself.
    const hashes = list.map((one) => (kind === "standardWebhooks" ? hashSecret(one) : one).slice(0, DIGITS));
    return hashes.length === 0 ? [] : [{ kind: SENDERS[kind], hashes }];
  });
}

/** One registration in words. */
export function formatEntry({ name, access, webhook, problem }: ShownEntry): string {
  const rows: (readonly [string, string])[] = [["name", name]];
  if (problem !== undefined) rows.push(["problem", problem]);
  if (access !== undefined) {
    const { auth, mode, namespaces } = access;
    rows.push(["cluster", describeReach(access)], ["mode", mode], ["credentials", describeAuth(auth)]);
    rows.push(["namespaces", namespaces?.join(", ") ?? "all"]);
  }
  for (const { kind, hashes } of sendersOf(webhook)) {
    rows.push([kind, `${hashes.length === 1 ? "one secret" : "two secrets"}, SHA-256 ${hashes.join(", ")} …`]);
  }
  if (webhook?.oidc !== undefined) {
    const { issuer, audience, subject } = webhook.oidc;
    rows.push(["oidc", `${subject} of ${issuer} for ${audience}`]);
  }
  if (webhook === undefined || Object.keys(webhook).length === 0) rows.push(["senders", "none: the schedule alone"]);
  return `${formatTable(rows)}`;
}

function describeAuth(auth: ClusterAccess["auth"]): string {
  if (auth.kind === "eks") return `eks${auth.roleArn === undefined ? "" : `, as ${auth.roleArn}`}`;
  const { expires } = validity(auth);
  const kind = auth.kind === "token" ? "token" : "client certificate";
  return expires === undefined ? kind : `${kind}, expires ${expires}`;
}

/** All registrations as a table. */
export function formatList(entries: readonly ShownEntry[]): string {
  const rows = entries.map(({ name, access, webhook, problem }) => {
    if (access === undefined) return [name, problem ?? "", "", "", ""];
    const oidc = webhook?.oidc === undefined ? [] : ["oidc"];
    const senders = [
      ...sendersOf(webhook).map(({ kind, hashes }) => kind + (hashes.length > 1 ? " (2)" : "")),
      ...oidc,
    ];
    return [name, describeReach(access), access.mode, access.auth.kind, senders.join(", ") || "none"];
  });
  return formatTable([["NAME", "CLUSTER", "MODE", "AUTH", "SENDERS"], ...rows]);
}

function formatTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  const line = (row: readonly string[]) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ");
  return rows.map((row) => `${line(row).trimEnd()}\n`).join("");
}
