/** Puts objects from YAML into a cluster by server-side apply, takes them away again, and waits for CRDs to be served. */
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { parseAllDocuments } from "yaml";
import * as z from "zod";
import type { ApiResponse, Connection } from "../../../shared/clusters/connection.ts";

const FIELD_MANAGER = "vmpool-functions-local";
const POLL_MS = 50;
const KINDS_TIMEOUT_MS = 30_000;
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

/** What became of an object, in kubectl's words. */
export type Applied = "created" | "configured" | "unchanged" | "deleted" | "not found";

export interface ApplyOptions {
  readonly signal: AbortSignal;
  /** `vmpool-functions-local` when undefined. */
  readonly fieldManager?: string;
  /** How long the kind of an object may be unknown to the server: its CRD may be just on its way. */
  readonly kindsTimeoutMs?: number;
  /** Hears what became of each object, at the price of one more request for each. */
  readonly onApplied?: (object: Manifest, result: Applied) => void;
}

/**
 * Applies the objects one after the other, taking over fields of others; an object without a namespace goes to `default`.
 * Throws `ApplyError` at the end when some failed.
 */
export function applyManifests(
  connection: Connection,
  objects: readonly Manifest[],
  options: ApplyOptions,
): Promise<void> {
  return forEach(objects, applyOne, { connection, options, known: new Map() });
}

/** Deletes the objects one after the other; what is not there is not missed. Throws `ApplyError` at the end when some stay. */
export function deleteManifests(
  connection: Connection,
  objects: readonly Manifest[],
  options: ApplyOptions,
): Promise<void> {
  return forEach(objects, deleteOne, { connection, options, known: new Map() });
}

async function forEach(
  objects: readonly Manifest[],
  act: (discovery: Discovery, object: Manifest) => Promise<ManifestFailure | undefined>,
  discovery: Discovery,
): Promise<void> {
  const failures: ManifestFailure[] = [];
  for (const object of objects) {
    const failure = await act(discovery, object);
    discovery.options.signal.throwIfAborted();
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
  readonly options: ApplyOptions;
  readonly known: Map<string, z.infer<typeof resourceListSchema>["resources"]>;
}

async function applyOne(discovery: Discovery, object: Manifest): Promise<ManifestFailure | undefined> {
  const { connection, options } = discovery;
  const { signal, fieldManager = FIELD_MANAGER, onApplied } = options;
  const { kind, metadata } = object;
  try {
    const path = await objectPath(discovery, object);
    if (path === undefined)
      return { kind, name: metadata.name, message: `the server has no ${object.apiVersion} ${kind}` };
    const before = onApplied && versionOf(await connection.send({ method: "GET", path, signal }));
    const answer = await connection.send({
      method: "PATCH",
      path: `${path}?fieldManager=${fieldManager}&force=true`,
      body: object,
      contentType: "application/apply-patch+yaml",
      signal,
    });
    if (answer.status >= 300) return { kind, name: metadata.name, status: answer.status, message: messageOf(answer) };
    const changed = before === versionOf(answer) ? "unchanged" : "configured";
    onApplied?.(object, answer.status === 201 ? "created" : changed);
    return undefined;
  } catch (error) {
    return { kind, name: metadata.name, message: error instanceof Error ? error.message : String(error) };
  }
}

async function deleteOne(discovery: Discovery, object: Manifest): Promise<ManifestFailure | undefined> {
  const { connection, options } = discovery;
  const { kind, metadata } = object;
  try {
    const path = await objectPath(discovery, object);
    const answer = path && (await connection.send({ method: "DELETE", path, signal: options.signal }));
    const isGone = !answer || answer.status === 404;
    if (!isGone && answer.status >= 300) {
      return { kind, name: metadata.name, status: answer.status, message: messageOf(answer) };
    }
    options.onApplied?.(object, isGone ? "not found" : "deleted");
    return undefined;
  } catch (error) {
    return { kind, name: metadata.name, message: error instanceof Error ? error.message : String(error) };
  }
}

/** Of an object that was found; undefined of none. */
function versionOf({ status, body }: ApiResponse): string | undefined {
  if (status >= 300) return undefined;
  return z.object({ metadata: z.object({ resourceVersion: z.string() }) }).safeParse(body).data?.metadata
    .resourceVersion;
}

/** The object's own path; undefined when its kind stays unknown to the server. */
async function objectPath(discovery: Discovery, { apiVersion, kind, metadata }: Manifest): Promise<string | undefined> {
  const { signal, kindsTimeoutMs = KINDS_TIMEOUT_MS } = discovery.options;
  const base = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
  const deadline = performance.now() + kindsTimeoutMs;
  for (;;) {
    const resource = discovery.known.get(base)?.find((one) => one.kind === kind && !one.name.includes("/"));
    if (resource !== undefined) {
      const scope = resource.namespaced ? `/namespaces/${metadata.namespace ?? "default"}` : "";
      return `${base}${scope}/${resource.name}/${encodeURIComponent(metadata.name)}`;
    }
    if (discovery.known.has(base)) {
      if (performance.now() > deadline) return undefined;
      await sleep(POLL_MS, undefined, { signal });
    }
    const answer = await discovery.connection.send({ method: "GET", path: base, signal });
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
