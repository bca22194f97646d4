/** Which clusters are served: for each an `access` entry (how to reach it) and, apart from it, a `webhook` entry (who may send its events). */
import { readFile } from "node:fs/promises";
import * as z from "zod";
import { describeProblems } from "../planning/errors.ts";
import { parseJson } from "../planning/json.ts";
import { CLUSTER_NAME } from "../planning/names.ts";
import { accessSchema, type ClusterAccess } from "./access.ts";

const sha256Hex = z.string().regex(/^[0-9a-f]{64}$/, "expected a lower-case hex SHA-256");

/** What may send events for a cluster. Every list may hold two values, so that a secret can be changed without a gap. */
export const webhookSchema = z.strictObject({
  standardWebhooks: z.array(z.string().startsWith("whsec_")).max(2).optional(),
  bearer: z.array(sha256Hex).max(2).optional(),
  oidc: z.strictObject({ issuer: z.url(), audience: z.string().min(1), subject: z.string().min(1) }).optional(),
  path: z.array(sha256Hex).max(2).optional(),
});
export type ClusterWebhook = z.infer<typeof webhookSchema>;

export const clusterNameSchema = z.string().regex(CLUSTER_NAME, "expected a DNS label");
const registrySchema = z.strictObject({
  clusters: z.record(clusterNameSchema, z.strictObject({ access: accessSchema, webhook: webhookSchema.optional() })),
});
export type RegistryFile = z.input<typeof registrySchema>;

export interface Registry {
  names(): Promise<readonly string[]>;
  /** Undefined for a name that is not registered. */
  access(name: string): Promise<ClusterAccess | undefined>;
  webhook(name: string): Promise<ClusterWebhook | undefined>;
}

/** The registry is not what it must be; the message names the field, never its value. */
export class RegistryError extends Error {
  override readonly name = "RegistryError";
}

/** A registry in a JSON file, read at each question: `{"clusters": {"<name>": {"access": {…}, "webhook": {…}}}}`. */
export function createFileRegistry(path: string): Registry {
  const read = async () => {
    const text = await readFile(path, "utf8").catch(() => {
      throw new RegistryError(`the cluster registry ${path} cannot be read`);
    });
    const json = parseJson(text);
    if (json === undefined) throw new RegistryError(`the cluster registry ${path} is not JSON`);
    const parsed = registrySchema.safeParse(json);
    if (parsed.success) return parsed.data.clusters;
    const problems = parsed.error.issues.map((issue) => ({ field: issue.path.join("."), message: issue.message }));
    throw new RegistryError(`the cluster registry ${path} is not valid: ${describeProblems(problems)}`);
  };
  return {
    names: async () => Object.keys(await read()).sort(),
    access: async (name) => entryOf(await read(), name)?.access,
    webhook: async (name) => entryOf(await read(), name)?.webhook,
  };
}

/** Names come from outside: one that every object inherits is not registered. */
function entryOf<T>(clusters: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(clusters, name) ? clusters[name] : undefined;
}
