/** The one reader of process.env: what a deployed function must be told. */
import * as z from "zod";

const common = z.object({
  /** Name of this deployment; stands in every claim. */
  DEPLOYMENT: z.string().min(1).max(100).default("vmpool-functions"),
  REGISTRY_FILE: z.string().min(1),
  PASSES_QUEUE_URL: z.url(),
  LATE_QUEUE_URL: z.url(),
});

export const reconcileConfigSchema = common.extend({
  EVENT_BUS_NAME: z.string().min(1),
  /** `true` holds every pass of every cluster. */
  STOPPED: z.enum(["true", "false"]).default("false"),
});
export const statusConfigSchema = common;
export const admissionConfigSchema = common;
export const webhookConfigSchema = common;
export const scaleConfigSchema = common;
export const fleetConfigSchema = common.pick({ REGISTRY_FILE: true });
export const resyncConfigSchema = common.extend({
  /** How often a settled pool is looked at. */
  RESYNC_SETTLED_MINUTES: z.coerce.number().int().min(1).max(1_440).default(10),
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
