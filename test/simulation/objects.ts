/** Kubernetes objects as the in-memory cluster stores them, and the rules for metadata that hold for every kind. */
import * as z from "zod";
import { isRecord } from "../../shared/planning/json.ts";
import { isLabelKey, isLabelValue } from "./label-selectors.ts";
import { isSame } from "./patches.ts";
import type { Cause } from "./schema.ts";

const textSchema = z
  .string()
  .nullish()
  .transform((text) => text ?? "");
/** A surprise: null as the value of a label or annotation is the empty text. */
const mapSchema = z
  .record(z.string(), textSchema)
  .nullish()
  .transform((map) => map ?? {});
/** A surprise: null in the list is an owner that says nothing. */
const ownerSchema = z.preprocess(
  (owner) => owner ?? {},
  z.object({
    apiVersion: textSchema,
    kind: textSchema,
    name: textSchema,
    uid: textSchema,
    controller: z.boolean().nullish(),
    blockOwnerDeletion: z.boolean().nullish(),
  }),
);
const metadataSchema = z.object({
  name: textSchema,
  namespace: textSchema,
  uid: textSchema,
  resourceVersion: textSchema,
  deletionTimestamp: textSchema,
  deletionGracePeriodSeconds: z.int().nullish(),
  generation: z.int().nullish(),
  creationTimestamp: textSchema,
  labels: mapSchema,
  annotations: mapSchema,
  finalizers: z
    .array(textSchema)
    .nullish()
    .transform((list) => list ?? []),
  ownerReferences: z
    .array(ownerSchema)
    .nullish()
    .transform((list) => list ?? []),
});

/** Metadata as a client sent them; empty where it said nothing. */
export type SentMetadata = z.output<typeof metadataSchema>;

export interface Owner {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
  readonly blockOwnerDeletion?: boolean;
}

/** Empty maps and lists are left out. */
export interface Metadata {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly creationTimestamp: string;
  readonly generation?: number;
  readonly deletionTimestamp?: string;
  readonly deletionGracePeriodSeconds?: number;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly finalizers?: readonly string[];
  readonly ownerReferences?: readonly Owner[];
  /** Of one field manager only, see `save` in `cluster.ts`. */
  readonly managedFields?: readonly { readonly manager: string; readonly operation: "Update"; readonly time: string }[];
}

/** Never changed in place: a write puts another in its stead. */
export interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Metadata;
  readonly [field: string]: unknown;
}

/** Undefined when a field is not of its type; unknown fields are dropped. */
export function decodeMetadata(value: unknown): SentMetadata | undefined {
  return metadataSchema.safeParse(value ?? {}).data;
}

/** What a client may set of an object's metadata, in stored form. */
export function settable({ labels, annotations, finalizers, ownerReferences }: SentMetadata) {
  const owners = ownersFrom(ownerReferences);
  return {
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
    ...(Object.keys(annotations).length === 0 ? {} : { annotations }),
    ...(finalizers.length === 0 ? {} : { finalizers }),
    ...(owners.length === 0 ? {} : { ownerReferences: owners }),
  };
}

/** An owner that is named twice in the same words counts once. */
function ownersFrom(sent: SentMetadata["ownerReferences"]): Owner[] {
  const owners: Owner[] = [];
  for (const owner of sent.map(ownerOf)) if (!owners.some((known) => isSame(known, owner))) owners.push(owner);
  return owners;
}

function ownerOf({ controller, blockOwnerDeletion, ...rest }: z.output<typeof ownerSchema>): Owner {
  return {
    ...rest,
    ...(controller === null || controller === undefined ? {} : { controller }),
    ...(blockOwnerDeletion === null || blockOwnerDeletion === undefined ? {} : { blockOwnerDeletion }),
  };
}

/** What is wrong with labels, annotations, finalizers and owners. */
export function checkMetadata({ labels, annotations, finalizers, ownerReferences }: SentMetadata): Cause[] {
  const causes: Cause[] = [];
  const refuse = (field: string, message: string) =>
    void causes.push({ reason: "FieldValueInvalid", field: `metadata.${field}`, message });
  for (const [key, value] of Object.entries(labels)) {
    if (!isLabelKey(key) || !isLabelValue(value)) refuse("labels", "a valid label is required");
  }
  for (const key of Object.keys(annotations)) {
    if (!isLabelKey(key.toLowerCase())) refuse("annotations", "a qualified name is required");
  }
  for (const finalizer of finalizers) if (!isLabelKey(finalizer)) refuse("finalizers", "a qualified name is required");
  for (const owner of ownerReferences) {
    for (const field of ["apiVersion", "kind", "name", "uid"] as const) {
      if (owner[field] === "") refuse(`ownerReferences.${field}`, "must not be empty");
    }
  }
  const controllers = ownersFrom(ownerReferences).filter(({ controller }) => controller === true);
  if (controllers.length > 1) refuse("ownerReferences", "Only one reference can have Controller set to true");
  return causes;
}

const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

export function checkName(name: string, isFree: boolean): Cause[] {
  const field = "metadata.name";
  if (name === "") return [{ reason: "FieldValueRequired", field, message: "name or generateName is required" }];
  if (isFree ? !/[/%]/.test(name) : name.length <= 253 && SUBDOMAIN.test(name)) return [];
  return [{ reason: "FieldValueInvalid", field, message: "a lowercase RFC 1123 subdomain is required" }];
}

/** The API writes times in whole seconds. */
export function formatTime(epochMs: number): string {
  return new Date(epochMs).toISOString().replace(/\.\d+Z$/, "Z");
}

export function finalizersOf({ metadata }: KubeObject): readonly string[] {
  return metadata.finalizers ?? [];
}

export function ownersOf({ metadata }: KubeObject): readonly Owner[] {
  return metadata.ownerReferences ?? [];
}

export function isTerminating({ metadata }: KubeObject): boolean {
  return metadata.deletionTimestamp !== undefined;
}

/** The record at a field; empty where there is none. */
export function recordAt(value: Readonly<Record<string, unknown>>, field: string): Readonly<Record<string, unknown>> {
  const entry = value[field];
  return isRecord(entry) ? entry : {};
}
