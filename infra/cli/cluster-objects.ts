/** The objects that a cluster is given: printed for kubectl, applied or deleted with a person's rights. Decides nothing about the registry. */
import { X509Certificate } from "node:crypto";
import { stringify } from "yaml";
import type { ClusterAccess } from "../../shared/clusters/access.ts";
import { type Cluster, createCluster, NAMESPACES } from "../../shared/clusters/cluster.ts";
import type { Connection } from "../../shared/clusters/connection.ts";
import { readsOnly } from "../../shared/clusters/foresee.ts";
import { OWN_GROUP, OWN_NAMESPACE } from "../../shared/events/changes.ts";
import { isRecord, parseJson, recordOf } from "../../shared/planning/json.ts";
import type { Identity, KubernetesObject } from "../kubernetes/manifests.ts";
import { type Applied, ApplyError, applyManifests, deleteManifests } from "../local/control-plane/manifests.ts";
import { CommandError } from "./errors.ts";

const FIELD_MANAGER = "vmpool-functions-cli";
const SERVICE_ACCOUNT = /^system:serviceaccount:([^:]+):([^:]+)$/;
/** For all objects together. */
const TIMEOUT_MS = 60_000;

/** For `kubectl apply -f -`, which reads YAML 1.1: there a bare `off` is no text. */
export function formatObjects(objects: readonly KubernetesObject[]): string {
  return objects.map((object) => stringify(object, { version: "1.1", lineWidth: 0 })).join("---\n");
}

/** As kubectl names it: `clusterrole.rbac.authorization.k8s.io/vmpool-functions`. */
export function nameOfObject({
  apiVersion,
  kind,
  metadata,
}: Pick<KubernetesObject, "apiVersion" | "kind" | "metadata">) {
  const [group = ""] = apiVersion.includes("/") ? apiVersion.split("/") : [];
  return `${kind.toLowerCase()}${group === "" ? "" : `.${group}`}/${metadata.name}`;
}

export interface Sent {
  /** One for each object that was sent, in kubectl's words. */
  readonly lines: readonly string[];
  /** One for each that was refused. */
  readonly failures: readonly string[];
}

export function applyObjects(connection: Connection, objects: readonly KubernetesObject[]): Promise<Sent> {
  return send(applyManifests, connection, objects);
}

/** In the reverse order of applying. */
export function deleteObjects(connection: Connection, objects: readonly KubernetesObject[]): Promise<Sent> {
  return send(deleteManifests, connection, objects.toReversed());
}

async function send(
  act: typeof applyManifests,
  connection: Connection,
  objects: readonly KubernetesObject[],
): Promise<Sent> {
  const lines: string[] = [];
  const onApplied = (object: Parameters<typeof nameOfObject>[0], result: Applied) => {
    lines.push(`${nameOfObject(object)} ${result}`);
  };
  const manifests = objects.map((object) => ({ ...object, metadata: { ...object.metadata } }));
  try {
    await act(connection, manifests, {
      signal: AbortSignal.timeout(TIMEOUT_MS),
      fieldManager: FIELD_MANAGER,
      kindsTimeoutMs: 0,
      onApplied,
    });
    return { lines, failures: [] };
  } catch (error) {
    if (!(error instanceof ApplyError)) throw error;
    return { lines, failures: error.failures.map(({ kind, name, message }) => `${kind} ${name}: ${message}`) };
  }
}

/** A cluster that nothing is written to through it. */
export function readingCluster(connection: Connection, deadline: AbortSignal): Cluster {
  return createCluster({
    transport: readsOnly(connection.send),
    meter: { requests: 0, writes: 0, bytes: 0 },
    deadline,
    cache: { poolVersion: undefined },
  });
}

/**
 * Whether both lead to the same cluster; undefined when that cannot be told. An entry that serves some namespaces alone may see
 * no other one: clusters are told apart by the UID of the first of them, else by that of `kube-system`.
 */
export async function isSameCluster(
  one: Cluster,
  other: Cluster,
  { namespaces }: Pick<ClusterAccess, "namespaces">,
): Promise<boolean | undefined> {
  const name = namespaces?.[0] ?? "kube-system";
  const [own, seen] = await Promise.all([one, other].map((cluster) => uidOfNamespace(cluster, name)));
  return own === undefined || seen === undefined ? undefined : own === seen;
}

async function uidOfNamespace(cluster: Cluster, name: string): Promise<string | undefined> {
  const answer = await cluster.get(NAMESPACES, { name });
  const metadata = answer.ok && isRecord(answer.value) ? answer.value["metadata"] : undefined;
  const uid = isRecord(metadata) ? metadata["uid"] : undefined;
  return typeof uid === "string" ? uid : undefined;
}

/** A kubeconfig that leads elsewhere would change another cluster than the one that is meant. */
export const ELSEWHERE =
  "the kubeconfig leads to another cluster than the registry: give --context, or another file with --kubeconfig";

/** Throws when the rights are surely of another cluster than the entry; false when that cannot be told. */
export async function checkRights(
  { access, rights }: { readonly access: ClusterAccess; readonly rights: ClusterAccess },
  connect: (access: ClusterAccess) => Connection,
): Promise<boolean> {
  if (access.server !== undefined && access.server === rights.server) return true;
  const connections = [connect(access), connect(rights)];
  try {
    const deadline = AbortSignal.timeout(TIMEOUT_MS);
    const [own, seen] = connections.map((connection) => readingCluster(connection, deadline));
    const same = own === undefined || seen === undefined ? undefined : await isSameCluster(own, seen, access);
    if (same === false) throw new CommandError(ELSEWHERE);
    return same === true;
  } finally {
    await Promise.all(connections.map((connection) => connection.close()));
  }
}

/** Throws unless the rights are surely of the entry's cluster: for what changes or deletes there by the word of the registry. */
export async function requireRights(
  name: string,
  parts: { readonly access: ClusterAccess; readonly rights: ClusterAccess },
  connect: (access: ClusterAccess) => Connection,
): Promise<void> {
  if (await checkRights(parts, connect)) return;
  throw new CommandError(
    `whether the kubeconfig leads to ${name} cannot be told, so nothing was changed: run it without --apply and use what it prints`,
  );
}

/** Whom the cluster's roles are to be bound to; a note when the credentials seem to be of somebody else. */
export function identityOf({ auth }: ClusterAccess): {
  readonly identity: Identity;
  readonly note: string | undefined;
} {
  const group: Identity = { kind: "group" };
  switch (auth.kind) {
    case "token": {
      const [, namespace, name] = SERVICE_ACCOUNT.exec(subjectOf(auth.token) ?? "") ?? [];
      if (namespace !== undefined && name === OWN_GROUP) {
        const note = namespace === OWN_NAMESPACE ? undefined : sharedNamespace(namespace);
        return { identity: { kind: "serviceAccount", namespace }, note };
      }
      const whose = name === undefined ? "the token" : `the token of the ServiceAccount ${namespace}/${name}`;
      return { identity: group, note: `${whose} ${MUST_BE_MEMBER}` };
    }
    case "clientCertificate": {
      const isMember = organizationsOf(auth.certificateData)?.includes(OWN_GROUP) !== false;
      return { identity: group, note: isMember ? undefined : `the client certificate ${MUST_BE_MEMBER}` };
    }
    default:
      return { identity: group, note: undefined };
  }
}

function sharedNamespace(namespace: string): string {
  return `the ServiceAccount ${OWN_GROUP} is in the namespace ${namespace}: what others of that namespace change counts as the functions' own, and they are not told of it. Better is one in ${OWN_NAMESPACE}`;
}

const MUST_BE_MEMBER = `must be of a member of the group ${OWN_GROUP}: that is whom the roles are bound to`;

/** What a JWT says it is; undefined for any other token. */
function subjectOf(token: string): string | undefined {
  const subject = claimsOf(token)["sub"];
  return typeof subject === "string" ? subject : undefined;
}

/** The claims of a JWT, which nobody has verified; none of any other token. */
export function claimsOf(token: string): Readonly<Record<string, unknown>> {
  const [, payload = ""] = token.split(".");
  return recordOf(parseJson(Buffer.from(payload, "base64url").toString("utf8")));
}

/** Undefined when the certificate cannot be read. */
function organizationsOf(certificateData: string): readonly string[] | undefined {
  const certificate = readCertificate(certificateData);
  return certificate?.subject
    .split("\n")
    .filter((line) => line.startsWith("O="))
    .map((line) => line.slice(2));
}

export function readCertificate(certificateData: string): X509Certificate | undefined {
  try {
    return new X509Certificate(Buffer.from(certificateData, "base64"));
  } catch {
    return undefined;
  }
}
