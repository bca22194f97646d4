/** Which clusters are served: for each an `access` entry (how to reach it) and, apart from it, a `webhook` entry (who may send its events). */
import { readFile } from "node:fs/promises";
import * as z from "zod";
import { describeProblems } from "../planning/errors.ts";
import { parseJson } from "../planning/json.ts";
import { CLUSTER_NAME } from "../planning/names.ts";
import { accessSchema, type ClusterAccess, isAcceptedServer } from "./access.ts";
import { createEntryCache, type EntryCache } from "./entry-cache.ts";
import { RegistryError, type RegistryErrorKind, type RegistryPart, type RegistrySource } from "./registry-source.ts";
import { createSsmSource } from "./registry-ssm.ts";

export { RegistryError } from "./registry-source.ts";

const sha256Hex = z.string().regex(/^[0-9a-f]{64}$/, "expected a lower-case hex SHA-256");

/** As Standard Webhooks writes a secret: `whsec_` and 24 to 64 bytes in base64. */
const signingSecret = z
  .string()
  .regex(/^whsec_[A-Za-z0-9+/]{32,88}={0,2}$/, "expected whsec_ and base64")
  .refine((text) => {
    const encoded = text.slice("whsec_".length);
    const bytes = Buffer.from(encoded, "base64");
    return bytes.length >= 24 && bytes.length <= 64 && bytes.toString("base64") === encoded;
  }, "expected whsec_ and 24 to 64 bytes in base64");

const oidcSchema = z.strictObject({
  /** As it stands in the tokens; its keys are found by its discovery document. */
  issuer: z
    .string()
    .max(500)
    .refine(isAcceptedServer, "expected an https URL without credentials, query, link-local or metadata address"),
  audience: z.string().min(1).max(500),
  subject: z.string().min(1).max(500),
});

/** What may send events for a cluster. Every list may hold two values, so that a secret can be changed without a gap. */
export const webhookSchema = z.strictObject({
  standardWebhooks: z.array(signingSecret).max(2).optional(),
  bearer: z.array(sha256Hex).max(2).optional(),
  oidc: oidcSchema.optional(),
  path: z.array(sha256Hex).max(2).optional(),
});
export type ClusterWebhook = z.infer<typeof webhookSchema>;

export const clusterNameSchema = z.string().regex(CLUSTER_NAME, "expected a DNS label");
/** A registry in a file: `{"clusters": {"<name>": {"access": {…}, "webhook": {…}}}}`. */
export interface RegistryFile {
  readonly clusters: Readonly<
    Record<
      string,
      {
        readonly access: z.input<typeof accessSchema>;
        readonly webhook?: z.input<typeof webhookSchema> | undefined;
      }
    >
  >;
}

/** What is wrong with one entry is told when that entry is asked for: it stops no other. */
export interface Registry {
  /** Of every registration, good or bad. */
  names(): Promise<readonly string[]>;
  /** Undefined for a name that is not registered. */
  access(name: string): Promise<ClusterAccess | undefined>;
  webhook(name: string): Promise<ClusterWebhook | undefined>;
}

/** Where a function is told that the registry is: exactly one of the two. */
export interface RegistryPlace {
  readonly REGISTRY_FILE?: string | undefined;
  readonly REGISTRY_PREFIX?: string | undefined;
}

/** The registry that a function's configuration names. */
export function openRegistry({ REGISTRY_FILE, REGISTRY_PREFIX }: RegistryPlace): Registry {
  if (REGISTRY_PREFIX !== undefined) return createSsmRegistry(REGISTRY_PREFIX);
  if (REGISTRY_FILE !== undefined) return createFileRegistry(REGISTRY_FILE);
  throw new RegistryError("no cluster registry is configured: set REGISTRY_FILE or REGISTRY_PREFIX");
}

/** Reads of names that are not kept, by one instance in one minute. */
const NEW_NAMES_MAX = 60;
const MINUTE_MS = 60_000;

/**
 * Who may send events, by cluster, for functions that anybody can call: each name costs a read before anything is proven,
 * so whoever guesses names must not use up what the registry answers to all. `now` is in epoch milliseconds.
 */
export function createSenderCache(
  registry: Pick<Registry, "webhook">,
  now: () => number,
): EntryCache<ClusterWebhook | undefined> {
  let minute = 0;
  let reads = 0;
  return createEntryCache<ClusterWebhook | undefined>(async (name, previous) => {
    const thisMinute = Math.floor(now() / MINUTE_MS);
    if (thisMinute !== minute) [minute, reads] = [thisMinute, 0];
    if (previous === undefined) reads += 1;
    if (reads > NEW_NAMES_MAX && previous === undefined)
      throw new RegistryError(`more than ${NEW_NAMES_MAX} new names in a minute`, { kind: "unavailable" });
    return registry.webhook(name);
  }, now);
}

/** A registry in a JSON file, read at each question. */
export function createFileRegistry(path: string): Registry {
  return createRegistry(createFileSource(path));
}

/** A registry in SSM parameters `<prefix>/<name>/access` and `<prefix>/<name>/webhook`, each the JSON of its entry. */
export function createSsmRegistry(prefix: string, options: Parameters<typeof createSsmSource>[1] = {}): Registry {
  return createRegistry(createSsmSource(prefix, options));
}

function createRegistry(source: RegistrySource): Registry {
  const entry = async <S extends z.ZodType>(schema: S, name: string, part: RegistryPart) => {
    const found = await source.read(name, part);
    if (found === undefined) return undefined;
    const { place, field } = source.locate(name, part);
    checkEntry(clusterNameSchema, name, { place, field: field.slice(0, -1) });
    return checkEntry(schema, found.value, { place, field });
  };
  return {
    names: () => source.names(),
    access: (name) => entry(accessSchema, name, "access"),
    webhook: (name) => entry(webhookSchema, name, "webhook"),
  };
}

function checkEntry<S extends z.ZodType>(
  schema: S,
  value: unknown,
  { place, field }: ReturnType<RegistrySource["locate"]>,
  kind: RegistryErrorKind = "invalid",
): z.output<S> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => ({
    field: [...field, ...path].map(String).join("."),
    message,
  }));
  throw new RegistryError(`the cluster registry ${place} is not valid: ${describeProblems(problems)}`, { kind });
}

const fileSchema = z.strictObject({ clusters: z.record(z.string(), z.unknown()) });
const fileEntrySchema = z.strictObject({ access: z.unknown(), webhook: z.unknown().optional() });

function createFileSource(path: string): RegistrySource {
  const read = async () => {
    const text = await readFile(path, "utf8").catch((cause: unknown) => {
      throw new RegistryError(`the cluster registry ${path} cannot be read`, { kind: "unavailable", cause });
    });
    const json = parseJson(text);
    // What is wrong with the whole file, half of which may be written by now, takes no cluster away that was read before.
    if (json === undefined)
      throw new RegistryError(`the cluster registry ${path} is not JSON`, { kind: "unavailable" });
    return checkEntry(fileSchema, json, { place: path, field: [] }, "unavailable").clusters;
  };
  return {
    names: async () => Object.keys(await read()).sort(),
    async read(name, part) {
      const clusters = await read();
      // Names come from outside: one that every object inherits is not registered.
      if (!Object.hasOwn(clusters, name)) return undefined;
      const entry = checkEntry(fileEntrySchema, clusters[name], { place: path, field: ["clusters", name] });
      return part === "webhook" && entry.webhook === undefined ? undefined : { value: entry[part] };
    },
    locate: (name, part) => ({ place: path, field: ["clusters", name, part] }),
  };
}
