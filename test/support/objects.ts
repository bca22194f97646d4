/** Reads Kubernetes objects as the tests look at them; what a test does not ask for stays unread. */
import * as z from "zod";

const ownerSchema = z.looseObject({
  apiVersion: z.string(),
  kind: z.string(),
  name: z.string(),
  uid: z.string(),
  controller: z.boolean().optional(),
  blockOwnerDeletion: z.boolean().optional(),
});

const metadataSchema = z.looseObject({
  name: z.string(),
  namespace: z.string().optional(),
  uid: z.string(),
  resourceVersion: z.string(),
  generation: z.int().optional(),
  deletionTimestamp: z.string().optional(),
  labels: z.record(z.string(), z.string()).default({}),
  annotations: z.record(z.string(), z.string()).default({}),
  finalizers: z.array(z.string()).default([]),
  ownerReferences: z.array(ownerSchema).default([]),
  managedFields: z.array(z.looseObject({ manager: z.string().optional() })).default([]),
});

const conditionSchema = z.looseObject({
  type: z.string(),
  status: z.string(),
  reason: z.string().optional(),
  message: z.string().optional(),
});

const objectSchema = z.looseObject({
  kind: z.string().optional(),
  metadata: metadataSchema,
  spec: z.unknown().optional(),
  status: z
    .looseObject({
      replicas: z.int().optional(),
      readyReplicas: z.int().optional(),
      labelSelector: z.string().optional(),
      conditions: z.array(conditionSchema).nullish(),
      phase: z.string().optional(),
    })
    .optional(),
});

/** Any Kubernetes object. */
export type KubeObject = z.infer<typeof objectSchema>;

const listSchema = z.object({ metadata: z.object({ resourceVersion: z.string() }), items: z.array(objectSchema) });

export function parseObject(body: unknown): KubeObject {
  return objectSchema.parse(body);
}

export function parseList(body: unknown): { readonly items: readonly KubeObject[]; readonly resourceVersion: string } {
  const { items, metadata } = listSchema.parse(body);
  return { items, resourceVersion: metadata.resourceVersion };
}

export function controllerUidOf({ metadata }: KubeObject): string | undefined {
  return metadata.ownerReferences.find(({ controller }) => controller === true)?.uid;
}

export function isTerminating({ metadata }: KubeObject): boolean {
  return metadata.deletionTimestamp !== undefined;
}

export function conditionOf({ status }: KubeObject, type: string): z.infer<typeof conditionSchema> | undefined {
  return status?.conditions?.find((condition) => condition.type === type);
}

/** Names in the order of their numbers: `a-2` before `a-10`. */
export function namesOf(objects: readonly KubeObject[]): readonly string[] {
  return objects.map(({ metadata }) => metadata.name).sort(new Intl.Collator("en", { numeric: true }).compare);
}

/** `<name>-0` … `<name>-<count - 1>`. */
export function machineNames(pool: string, count: number): readonly string[] {
  return Array.from({ length: count }, (_, ordinal) => `${pool}-${ordinal}`);
}

/** Whoever wrote to the object last or holds any of its fields. */
export function managersOf({ metadata }: KubeObject): readonly string[] {
  return metadata.managedFields.map(({ manager }) => manager ?? "");
}
