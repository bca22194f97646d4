/** The one reader of process.env: what a deployed function must be told. */
import * as z from "zod";
import { parseJson } from "../planning/json.ts";
import { CLUSTER_NAME } from "../planning/names.ts";

/** Where the registry of clusters is: a local file, or SSM parameters below a prefix. */
const registry = {
  REGISTRY_FILE: z.string().min(1).optional(),
  REGISTRY_PREFIX: z
    .string()
    .regex(/^(\/[\w.-]+)+$/, "expected the path of SSM parameters, such as /vmpool-functions/clusters")
    .optional(),
};
const queues = { PASSES_QUEUE_URL: z.url(), LATE_QUEUE_URL: z.url() };
const common = {
  /** Name of this deployment; stands in every claim. */
  DEPLOYMENT: z.string().min(1).max(100).default("vmpool-functions"),
  ...registry,
  ...queues,
};

type RegistrySettings = Readonly<Partial<Record<keyof typeof registry, string | undefined>>>;

function hasOneRegistry({ REGISTRY_FILE, REGISTRY_PREFIX }: RegistrySettings): boolean {
  return (REGISTRY_FILE === undefined) !== (REGISTRY_PREFIX === undefined);
}
const ONE_REGISTRY = {
  path: ["REGISTRY_FILE"],
  message: "set either REGISTRY_FILE or REGISTRY_PREFIX, and only one of them",
  // Told beside whatever else is wrong.
  when: () => true,
};

export const reconcileConfigSchema = z
  .object({
    ...common,
    EVENT_BUS_NAME: z.string().min(1),
    /** `true` holds every pass of every cluster. */
    STOPPED: z.enum(["true", "false"]).default("false"),
  })
  .refine(hasOneRegistry, ONE_REGISTRY);
export const statusConfigSchema = z.object(common).refine(hasOneRegistry, ONE_REGISTRY);
export const admissionConfigSchema = statusConfigSchema;
/** It never looks later: what it tells of has happened. */
export const webhookConfigSchema = z
  .object({ ...registry, PASSES_QUEUE_URL: queues.PASSES_QUEUE_URL })
  .refine(hasOneRegistry, ONE_REGISTRY);
export const scaleConfigSchema = statusConfigSchema;
export const fleetConfigSchema = z.object(registry).refine(hasOneRegistry, ONE_REGISTRY);
export const resyncConfigSchema = z
  .object({
    ...common,
    /** How often a settled pool is looked at. */
    RESYNC_SETTLED_MINUTES: z.coerce.number().int().min(1).max(1_440).default(10),
  })
  .refine(hasOneRegistry, ONE_REGISTRY);

/** Log group of CloudWatch Logs → name of the cluster in the registry, where that is not the cluster's name in EKS. */
const auditClustersSchema = z.record(z.string().min(1), z.string().regex(CLUSTER_NAME));
export const auditConfigSchema = z.object({
  PASSES_QUEUE_URL: queues.PASSES_QUEUE_URL,
  AUDIT_CLUSTERS: z
    .string()
    .default("{}")
    .transform((text, context): z.infer<typeof auditClustersSchema> => {
      const parsed = auditClustersSchema.safeParse(parseJson(text));
      if (parsed.success) return parsed.data;
      context.addIssue({ code: "custom", message: "expected a JSON object: log group → name of the cluster" });
      return z.NEVER;
    }),
});

/** The environment of this process, for the programs under `infra/` that pass it on. */
export const environment: NodeJS.ProcessEnv = process.env;

/** The environment is not what it must be; the message names every setting that is wrong, never a value. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** Reads the configuration of one function; gathers all faults before it throws. */
export function readConfig<S extends z.ZodType>(
  schema: S,
  env: Readonly<Record<string, string | undefined>> = environment,
): z.output<S> {
  const parsed = schema.safeParse(env);
  if (parsed.success) return parsed.data;
  throw new ConfigError(parsed.error.issues.map(({ path, message }) => `${path.join(".")}: ${message}`).join("; "));
}
