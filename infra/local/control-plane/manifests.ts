/** Puts objects from YAML into a cluster by server-side apply, and waits for CRDs to be served. For the local cluster only. */
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { parseAllDocuments } from "yaml";
import * as z from "zod";
import type { ApiResponse, Connection } from "../../../shared/clusters/connection.ts";

const FIELD_MANAGER = "vmpool-functions-local";
const POLL_MS = 50;
/** How long the kind of an object may be unknown to the server: its CRD may be just on its way. */
const DISCOVERY_TIMEOUT_MS = 30_000;
const ESTABLISHED_TIMEOUT_MS = 30_000;
const MESSAGE_CHARACTERS_MAX = 500;

const manifestSchema = z.looseObject({
  apiVersion: z.string().min(1),
  kind: z.string().min(1),
  metadata: z.looseObject({ name: z.string().min(1), namespace: z.string().min(1).optional() }),
});

/** One Kubernetes object as it stands in a file. */
export type Manifest = z.infer<typeof manifestSchema>;

const resourceListSchema = z.object({
  resources: z.array(z.object({ name: z.string(), kind: z.string(), namespaced: z.boolean() })),
});

const crdSchema = z.object({
  spec: z.object({
    group: z.string(),
    names: z.object({ plural: z.string() }),
    versions: z.array(z.object({ name: z.string(), served: z.boolean() })),
  }),
  status: z
    .object({ conditions: z.array(z.object({ type: z.string(), status: z.string() })).default([]) })
    .default({ conditions: [] }),
});

type Crd = z.infer<typeof crdSchema>;

export interface ManifestFailure {
  readonly kind: string;
  readonly name: string;
  /** HTTP status, where the server answered. */
  readonly status?: number;
  readonly message: string;
}

/** Some objects could not be applied; all the others were. */
export class ApplyError extends Error {
  override readonly name = "ApplyError";
  readonly kind = "apply";
  readonly retryable = true;
  readonly failures: readonly ManifestFailure[];

  constructor(failures: readonly ManifestFailure[]) {
    super(failures.map((failure) => `${failure.kind} ${failure.name}: ${failure.message}`).join("\n"));
    this.failures = failures;
  }
}

/** Reads all objects of a YAML file, in their order; empty documents are skipped. */
export async function readManifests(path: string): Promise<readonly Manifest[]> {
  return parseManifests(await readFile(path, "utf8"));
}

/** Parses all objects of a YAML text, in their order. Throws what `yaml` or zod found wrong. */
export function parseManifests(text: string): readonly Manifest[] {
  const documents = [...parseAllDocuments(text)];
  const values: readonly unknown[] = documents.map((document) => {
    const [error] = document.errors;
    if (error !== undefined) throw error;
    return document.toJS();
  });
  return values.filter((value) => value !== null).map((value) => manifestSchema.parse(value));
}

/**
 * Applies the objects one after the other as `vmpool-functions-local`, taking over fields of others; an object without a
 * namespace goes to `default`. Throws `ApplyError` at the end when some failed.
 */
export async function applyManifests(
  connection: Connection,
  objects: readonly Manifest[],
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const discovery: Discovery = { connection, signal, known: new Map() };
  const failures: ManifestFailure[] = [];
  for (const object of objects) {
    const failure = await applyOne(discovery, object);
    signal.throwIfAborted();
    if (failure !== undefined) failures.push(failure);
  }
  if (failures.length > 0) throw new ApplyError(failures);
}

/** Waits until each CRD among the objects is established and each version of it answers a list. */
export async function waitForCrds(
  connection: Connection,
  objects: readonly Manifest[],
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const crds = objects.filter((object) => object.kind === "CustomResourceDefinition");
  const timed = AbortSignal.any([signal, AbortSignal.timeout(ESTABLISHED_TIMEOUT_MS)]);
  await Promise.all(crds.map((crd) => waitForCrd(connection, crd.metadata.name, timed)));
}

/** What is known of the server's kinds, by apiVersion. */
interface Discovery {
  readonly connection: Connection;
  readonly signal: AbortSignal;
  readonly known: Map<string, z.infer<typeof resourceListSchema>["resources"]>;
}

async function applyOne(discovery: Discovery, object: Manifest): Promise<ManifestFailure | undefined> {
  const { connection, signal } = discovery;
  const { kind, metadata } = object;
  try {
    const path = await objectPath(discovery, object);
    if (path === undefined)
      return { kind, name: metadata.name, message: `the server has no ${object.apiVersion} ${kind}` };
    const answer = await connection.send({
      method: "PATCH",
      path: `${path}?fieldManager=${FIELD_MANAGER}&force=true`,
      body: object,
      contentType: "application/apply-patch+yaml",
      signal,
    });
    if (answer.status < 300) return undefined;
    return { kind, name: metadata.name, status: answer.status, message: messageOf(answer) };
  } catch (error) {
    return { kind, name: metadata.name, message: error instanceof Error ? error.message : String(error) };
  }
}

/** The object's own path; undefined when its kind stays unknown to the server. */
async function objectPath(discovery: Discovery, { apiVersion, kind, metadata }: Manifest): Promise<string | undefined> {
  const base = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const deadline = performance.now() + DISCOVERY_TIMEOUT_MS;
  for (;;) {
    const resource = discovery.known.get(base)?.find((one) => one.kind === kind && !one.name.includes("/"));
    if (resource !== undefined) {
      const scope = resource.namespaced ? `/namespaces/${metadata.namespace ?? "default"}` : "";
      return `${base}${scope}/${resource.name}/${encodeURIComponent(metadata.name)}`;
    }
    if (performance.now() > deadline) return undefined;
    if (discovery.known.has(base)) await sleep(POLL_MS, undefined, { signal: discovery.signal });
    const answer = await discovery.connection.send({ method: "GET", path: base, signal: discovery.signal });
    discovery.known.set(base, resourceListSchema.safeParse(answer.body).data?.resources ?? []);
  }
}

async function waitForCrd(connection: Connection, name: string, signal: AbortSignal): Promise<void> {
  const path = `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`;
  for (;;) {
    signal.throwIfAborted();
    const answer = await connection.send({ method: "GET", path, signal });
    const crd = crdSchema.safeParse(answer.body).data;
    if (crd !== undefined && isEstablished(crd) && (await isServed(connection, crd, signal))) return;
    await sleep(POLL_MS, undefined, { signal });
  }
}

function isEstablished(crd: Crd): boolean {
  return crd.status.conditions.some(({ type, status }) => type === "Established" && status === "True");
}

async function isServed(connection: Connection, crd: Crd, signal: AbortSignal): Promise<boolean> {
  const { group, names, versions } = crd.spec;
  for (const version of versions.filter(({ served }) => served)) {
    const path = `/apis/${group}/${version.name}/${names.plural}?limit=1`;
    const answer = await connection.send({ method: "GET", path, signal });
    if (answer.status !== 200) return false;
  }
  return true;
}

/** What the server says is wrong, in its `Status` or as text. */
function messageOf({ status, body }: ApiResponse): string {
  const parsed = z.object({ message: z.string() }).safeParse(body).data;
  const text = parsed?.message ?? (typeof body === "string" ? body : JSON.stringify(body));
  return `${status} ${text}`.slice(0, MESSAGE_CHARACTERS_MAX);
}
