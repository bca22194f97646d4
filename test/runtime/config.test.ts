import { expect, it } from "vitest";
import {
  auditConfigSchema,
  fleetConfigSchema,
  readConfig,
  reconcileConfigSchema,
  resyncConfigSchema,
  statusConfigSchema,
} from "../../shared/runtime/config.ts";

const COMMON = {
  REGISTRY_FILE: "/var/task/registry.json",
  PASSES_QUEUE_URL: "https://sqs.eu-central-1.amazonaws.com/123456789012/passes.fifo",
  LATE_QUEUE_URL: "https://sqs.eu-central-1.amazonaws.com/123456789012/late.fifo",
};
const RECONCILE = { ...COMMON, EVENT_BUS_NAME: "pools" };

/** What is said about an environment. */
function complaintAbout(env: Readonly<Record<string, string | undefined>>): string {
  try {
    readConfig(reconcileConfigSchema.safeExtend(resyncConfigSchema.shape), env);
    return "";
  } catch (error) {
    return error instanceof Error && error.name === "ConfigError" ? error.message : `thrown: ${String(error)}`;
  }
}

it("reads what each function needs, with defaults for the rest", () => {
  const common = { ...COMMON, DEPLOYMENT: "vmpool-functions" };

  expect(readConfig(statusConfigSchema, COMMON)).toEqual(common);
  expect(readConfig(resyncConfigSchema, COMMON)).toEqual({ ...common, RESYNC_SETTLED_MINUTES: 10 });
  expect(readConfig(reconcileConfigSchema, RECONCILE)).toEqual({
    ...common,
    EVENT_BUS_NAME: "pools",
    STOPPED: "false",
  });
});

it("leaves everything else of the environment alone", () => {
  expect(readConfig(statusConfigSchema, { ...COMMON, AWS_SECRET_ACCESS_KEY: "s3cr3t" })).not.toHaveProperty(
    "AWS_SECRET_ACCESS_KEY",
  );
});

it.each([
  ["1", 1],
  ["1440", 1_440],
])("reads RESYNC_SETTLED_MINUTES=%s as a number", (text, minutes) => {
  expect(readConfig(resyncConfigSchema, { ...COMMON, RESYNC_SETTLED_MINUTES: text }).RESYNC_SETTLED_MINUTES).toBe(
    minutes,
  );
});

it.each([
  ["DEPLOYMENT", ""],
  ["DEPLOYMENT", "x".repeat(101)],
  ["REGISTRY_FILE", ""],
  ["REGISTRY_FILE", undefined],
  ["PASSES_QUEUE_URL", "passes.fifo"],
  ["LATE_QUEUE_URL", ""],
  ["EVENT_BUS_NAME", ""],
  ["STOPPED", "yes"],
  ["STOPPED", ""],
  ["RESYNC_SETTLED_MINUTES", "0"],
  ["RESYNC_SETTLED_MINUTES", "1441"],
  ["RESYNC_SETTLED_MINUTES", "2.5"],
  ["RESYNC_SETTLED_MINUTES", "often"],
  ["RESYNC_SETTLED_MINUTES", ""],
])("refuses %s=%j, and names it and nothing else", (setting, value) => {
  const complaint = complaintAbout({ ...RECONCILE, [setting]: value });

  expect(complaint).toMatch(new RegExp(`^${setting}: [^;]+$`));
});

it("takes a registry of parameters in the place of a file", () => {
  const { REGISTRY_FILE: _file, ...rest } = COMMON;
  const settings = { ...rest, REGISTRY_PREFIX: "/vmpool-functions/clusters" };

  expect(readConfig(statusConfigSchema, settings)).toEqual({ ...settings, DEPLOYMENT: "vmpool-functions" });
  expect(readConfig(fleetConfigSchema, settings)).toEqual({ REGISTRY_PREFIX: "/vmpool-functions/clusters" });
});

it("refuses two registries at once", () => {
  expect(complaintAbout({ ...RECONCILE, REGISTRY_PREFIX: "/vmpool-functions/clusters" })).toBe(
    "REGISTRY_FILE: set either REGISTRY_FILE or REGISTRY_PREFIX, and only one of them",
  );
});

it.each(["", "/", "clusters", "/clusters/", "/clusters//west", "/clusters/*"])(
  "refuses REGISTRY_PREFIX=%j",
  (prefix) => {
    const { REGISTRY_FILE: _file, ...rest } = RECONCILE;

    expect(complaintAbout({ ...rest, REGISTRY_PREFIX: prefix })).toMatch(/^REGISTRY_PREFIX: [^;]+$/);
  },
);

it.each([
  [undefined, {}],
  ['{"/aws/eks/prod/cluster":"west"}', { "/aws/eks/prod/cluster": "west" }],
])("reads AUDIT_CLUSTERS=%s", (text, clusters) => {
  const env = { ...COMMON, ...(text === undefined ? {} : { AUDIT_CLUSTERS: text }) };

  expect(readConfig(auditConfigSchema, env).AUDIT_CLUSTERS).toEqual(clusters);
});

it.each(["", "west", "[]", '{"/aws/eks/prod/cluster":1}', '{"/aws/eks/prod/cluster":"West_1"}'])(
  "refuses AUDIT_CLUSTERS=%j",
  (text) => {
    expect(() => readConfig(auditConfigSchema, { ...COMMON, AUDIT_CLUSTERS: text })).toThrow(/^AUDIT_CLUSTERS: [^;]+$/);
  },
);

it("gathers all that is wrong before it complains", () => {
  const complaint = complaintAbout({ PASSES_QUEUE_URL: "s3cr3t", STOPPED: "s3cr3t", DEPLOYMENT: "" });

  const settings = complaint.split("; ").map((part) => part.split(":")[0]);
  expect(settings.toSorted()).toEqual([
    "DEPLOYMENT",
    "EVENT_BUS_NAME",
    "LATE_QUEUE_URL",
    "PASSES_QUEUE_URL",
    "REGISTRY_FILE",
    "STOPPED",
  ]);
  expect(complaint).not.toContain("s3cr3t");
});
