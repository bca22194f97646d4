/** The kinds that the in-memory cluster serves: the CRDs of the local control plane, and the built-in kinds that a pass reads or writes. */
import { readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { readManifests } from "../../infra/local/control-plane/manifests.ts";
import { isRecord } from "../../shared/planning/json.ts";
import { isLabelKey } from "./label-selectors.ts";
import { finalizersOf, type KubeObject } from "./objects.ts";
import { isSame } from "./patches.ts";
import { type Cause, check, parseSchema, prune, type SchemaNode } from "./schema.ts";

export interface Kind {
  /** Empty for the core group. */
  readonly group: string;
  /** The preferred one first. */
  readonly versions: readonly string[];
  readonly plural: string;
  readonly kind: string;
  readonly listKind: string;
  readonly isCustom: boolean;
  readonly hasStatus: boolean;
  readonly hasScale: boolean;
  /** Whether a write without resourceVersion is taken for the newest. */
  readonly unconditionalUpdate: boolean;
  /** Whether the garbage collector looks after it: foreground and orphan mean something. */
  readonly isCollected: boolean;
  /** Names need not be those of DNS. */
  readonly freeNames: boolean;
  /** Its objects are in no namespace; they can only be read here. */
  readonly isClusterScoped: boolean;
  /** The fields that the kind has, as it stores them; apiVersion, kind and metadata left alone. */
  prune(object: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>>;
  /** What is wrong with the object, its metadata left aside; `previous` is what an update replaces. */
  check(object: KubeObject, previous: KubeObject | undefined): Cause[];
}

const CRDS = fileURLToPath(new URL("../../infra/local/crds/", import.meta.url));

const crdSchema = z.object({
  spec: z.object({
    group: z.string(),
    names: z.object({ kind: z.string(), listKind: z.string(), plural: z.string() }),
    versions: z
      .array(
        z.object({
          name: z.string(),
          subresources: z.object({ status: z.unknown().optional(), scale: z.unknown().optional() }).optional(),
          schema: z.object({ openAPIV3Schema: z.unknown() }),
        }),
      )
      .min(1),
  }),
});

/** All kinds; the schemas are those of the CRDs that the real server gets. */
export async function loadKinds(): Promise<readonly Kind[]> {
  const files = (await readdir(CRDS)).sort();
  const manifests = await Promise.all(files.map((file) => readManifests(`${CRDS}${file}`)));
  return [
    ...manifests.flat().map((manifest) => customKind(crdSchema.parse(manifest))),
    REVISIONS,
    EVENTS,
    CLAIMS,
    NAMESPACES,
  ];
}

function customKind({ spec }: z.output<typeof crdSchema>): Kind {
  const { group, names, versions } = spec;
  const [first] = versions;
  const schema = parseSchema(first?.schema.openAPIV3Schema);
  const hasScale = first?.subresources?.scale !== undefined;
  return {
    group,
    versions: versions.map(({ name }) => name).sort((a, b) => rankVersion(b) - rankVersion(a)),
    ...names,
    isCustom: true,
    hasStatus: first?.subresources?.status !== undefined,
    hasScale,
    unconditionalUpdate: false,
    freeNames: false,
    isClusterScoped: false,
    isCollected: true,
    prune: (object) => pruneCustom(object, schema),
    check: (object) => [...check({ ...object, metadata: {} }, schema, ""), ...(hasScale ? checkScale(object) : [])],
  };
}

/** v1 before v1beta1 before v1alpha1. */
function rankVersion(version: string): number {
  const match = /^v(\d+)(?:(alpha|beta)(\d+))?$/.exec(version);
  const stage = match?.[2] === undefined ? 2 : Number(match[2] === "beta");
  return stage * 10_000 + Number(match?.[1]) * 100 + Number(match?.[3] ?? 0);
}

function pruneCustom(object: Readonly<Record<string, unknown>>, schema: SchemaNode): Readonly<Record<string, unknown>> {
  const { apiVersion, kind, metadata, ...fields } = object;
  const pruned = prune(fields, schema);
  return { apiVersion, kind, metadata, ...(isRecord(pruned) ? pruned : {}) };
}

const INT32_MAX = 2_147_483_647;

/** The scale subresource has an opinion of its own on the fields that it shows. */
function checkScale({ spec }: KubeObject): Cause[] {
  const replicas = isRecord(spec) ? spec["replicas"] : undefined;
  if (typeof replicas !== "number" || replicas <= INT32_MAX) return [];
  return [{ reason: "FieldValueInvalid", field: ".spec.replicas", message: `should be at most ${INT32_MAX}` }];
}

const BUILTIN = {
  isCustom: false,
  hasStatus: false,
  hasScale: false,
  unconditionalUpdate: true,
  isClusterScoped: false,
} as const;

const REVISIONS: Kind = {
  ...BUILTIN,
  freeNames: false,
  isCollected: true,
  group: "apps",
  versions: ["v1"],
  plural: "controllerrevisions",
  kind: "ControllerRevision",
  listKind: "ControllerRevisionList",
  prune: (object) => ({ ...only(object, ["data"]), revision: object["revision"] ?? 0 }),
  check(object, previous) {
    const causes = checkFinalizers(object);
    const { data, revision } = object;
    if (!isRecord(data)) causes.push({ reason: "FieldValueRequired", field: "data", message: "data is mandatory" });
    else if (previous !== undefined && !isSame(previous["data"], data)) {
      causes.push({ reason: "FieldValueInvalid", field: "data", message: "field is immutable" });
    }
    if (typeof revision !== "number" || revision < 0) {
      causes.push({ reason: "FieldValueInvalid", field: "revision", message: "must be greater than or equal to 0" });
    }
    return causes;
  },
};

const EVENT_FIELDS = ["involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp"];
const MORE_EVENT_FIELDS = ["count", "type", "reportingComponent", "reportingInstance"];

/** What an event says when it was told nothing. */
const EMPTY_EVENT = {
  source: {},
  firstTimestamp: null,
  lastTimestamp: null,
  reportingComponent: "",
  reportingInstance: "",
};

const EVENTS: Kind = {
  ...BUILTIN,
  freeNames: true,
  isCollected: false,
  group: "",
  versions: ["v1"],
  plural: "events",
  kind: "Event",
  listKind: "EventList",
  prune: (object) => ({ ...EMPTY_EVENT, ...only(object, [...EVENT_FIELDS, ...MORE_EVENT_FIELDS]), eventTime: null }),
  check(object) {
    const { involvedObject, metadata } = object;
    const namespace = isRecord(involvedObject) ? involvedObject["namespace"] : undefined;
    const field = "involvedObject.namespace";
    if (namespace === metadata.namespace) return [];
    return [{ reason: "FieldValueInvalid", field, message: "does not match event.namespace" }];
  },
};

const CLAIMS: Kind = {
  ...BUILTIN,
  freeNames: false,
  isCollected: true,
  group: "",
  versions: ["v1"],
  plural: "persistentvolumeclaims",
  kind: "PersistentVolumeClaim",
  listKind: "PersistentVolumeClaimList",
  prune: (object) => only(object, ["spec", "status"]),
  check: checkFinalizers,
};

const NAMESPACES: Kind = {
  ...BUILTIN,
  isClusterScoped: true,
  freeNames: false,
  isCollected: true,
  group: "",
  versions: ["v1"],
  plural: "namespaces",
  kind: "Namespace",
  listKind: "NamespaceList",
  prune: (object) => only(object, []),
  check: checkFinalizers,
};

function only(object: Readonly<Record<string, unknown>>, fields: readonly string[]): Record<string, unknown> {
  const kept = ["apiVersion", "kind", "metadata", ...fields];
  return Object.fromEntries(Object.entries(object).filter(([key, value]) => kept.includes(key) && value !== null));
}

const STANDARD_FINALIZERS = ["foregroundDeletion", "orphan", "kubernetes"];

/** Only built-in kinds ask for qualified names. */
function checkFinalizers(object: KubeObject): Cause[] {
  return finalizersOf(object).flatMap((name, index) => {
    if (STANDARD_FINALIZERS.includes(name) || (name.includes("/") && isLabelKey(name))) return [];
    const message = "name is neither a standard finalizer name nor is it fully qualified";
    return [{ reason: "FieldValueInvalid", field: `metadata.finalizers[${index}]`, message }];
  });
}
