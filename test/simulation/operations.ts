/** Random requests as data: what the differential run sends to both servers. UIDs and versions are named, not given, for each server has its own. */
import * as fc from "fast-check";
import { isRecord } from "../../shared/planning/json.ts";
import type { Call } from "./cluster.ts";

export type KindName = "pool" | "vm" | "vmi" | "revision" | "event";

interface KindForm {
  readonly root: string;
  readonly apiVersion: string;
  readonly kind: string;
  readonly plural: string;
  readonly body: Readonly<Record<string, unknown>>;
}

const POOL_SPEC = {
  selector: { matchLabels: { x: "1" } },
  virtualMachineTemplate: { metadata: { labels: { x: "1" } }, spec: { template: {} } },
};

const FORMS: Readonly<Record<KindName, KindForm>> = {
  pool: {
    root: "/apis/pool.kubevirt.io/v1beta1",
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    plural: "virtualmachinepools",
    body: { spec: POOL_SPEC },
  },
  vm: {
    root: "/apis/kubevirt.io/v1",
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachine",
    plural: "virtualmachines",
    body: { spec: { running: true, template: { spec: {} } } },
  },
  vmi: {
    root: "/apis/kubevirt.io/v1",
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachineInstance",
    plural: "virtualmachineinstances",
    body: { spec: {} },
  },
  revision: {
    root: "/apis/apps/v1",
    apiVersion: "apps/v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    body: { revision: 1, data: { a: 1 } },
  },
  event: {
    root: "/api/v1",
    apiVersion: "v1",
    kind: "Event",
    plural: "events",
    body: { reason: "Tried", message: "it", type: "Normal", count: 1, reportingComponent: "", reportingInstance: "" },
  },
};

export const KIND_NAMES: readonly KindName[] = ["pool", "vm", "vmi", "revision", "event"];
const NAMES = ["a", "b"] as const;

/** `@uid:vm/a`: the UID that this server last gave to that object; `@uid1:` the first; `@rv:` and `@rv1:` its versions. */
const subjects = fc.constantFrom("pool/a", "pool/b", "vm/a", "vm/b");

const labels = fc.oneof(
  { weight: 8, arbitrary: fc.dictionary(fc.constantFrom("x", "y"), fc.constantFrom("1", "2"), { maxKeys: 2 }) },
  fc.constantFrom({ x: null }, { x: "not a value" }, { "not a key": "1" }, { x: 5 }, null, {}, []),
);
const finalizers = fc.oneof(
  { weight: 6, arbitrary: fc.subarray(["t.test/one", "t.test/two"]) },
  fc.constantFrom(
    null,
    ["plain"],
    ["t.test/one", "t.test/one"],
    ["foregroundDeletion", "t.test/two"],
    ["orphan", "t.test/one"],
    "x",
  ),
);
const owner = fc
  .record({
    subject: subjects,
    mark: fc.constantFrom("@uid:", "@uid:", "@uid1:"),
    controller: fc.constantFrom(true, false, undefined),
    block: fc.constantFrom(true, false, undefined),
  })
  .map(({ subject, mark, controller, block }) => {
    const form = subject.startsWith("pool") ? FORMS.pool : FORMS.vm;
    return {
      apiVersion: form.apiVersion,
      kind: form.kind,
      name: subject.slice(-1),
      uid: mark + subject,
      ...(controller === undefined ? {} : { controller }),
      ...(block === undefined ? {} : { blockOwnerDeletion: block }),
    };
  });
const owners = fc.oneof(
  { weight: 6, arbitrary: fc.array(owner, { maxLength: 2 }) },
  fc.constantFrom(null, [{ apiVersion: "v1", kind: "Pod", name: "x" }]),
);

const metadata = fc.record(
  { labels, annotations: labels, finalizers, ownerReferences: owners },
  { requiredKeys: [], noNullPrototype: true },
);

const poolSpec = fc.record(
  {
    // Not what `scale` writes: to write the same through the other door changes the managed fields, and nothing else.
    replicas: fc.oneof(
      { weight: 4, arbitrary: fc.integer({ min: 1, max: 3 }) },
      fc.constantFrom(-1, null, "3", 1.5, 3_000_000_000),
    ),
    paused: fc.constantFrom(true, false, null, "yes"),
    maxUnavailable: fc.constantFrom(1, "50%", null, true),
    unknown: fc.constantFrom(1, { a: null }),
    nameGeneration: fc.constantFrom({ appendIndexToSecretRefs: true }, {}, null, { other: 1 }),
    scaleInStrategy: fc.constantFrom(
      { proactive: { selectionPolicy: { sortPolicy: "Newest" } } },
      { proactive: { statePreservation: "Never" } },
      { unmanaged: { x: 1 } },
      null,
    ),
    selector: fc.constantFrom({ matchLabels: { x: "2" } }, { matchLabels: { x: 2 } }, null, {
      matchExpressions: [{ key: "x", operator: "In", values: ["1"] }],
    }),
    virtualMachineTemplate: fc.constantFrom(
      { spec: { running: true, more: { a: null } } },
      { metadata: null },
      { spec: null },
    ),
  },
  { requiredKeys: [], noNullPrototype: true },
);
const vmSpec = fc.record(
  {
    running: fc.constantFrom(true, false, null, "yes"),
    runStrategy: fc.constantFrom("Always", null, 1),
    template: fc.constantFrom({ metadata: null }, { metadata: { labels: { x: "1" } } }, null, {
      spec: { a: [{ b: null }] },
    }),
    more: fc.constantFrom({ deep: { er: null } }, [1, null], null, "text"),
    dataVolumeTemplates: fc.constantFrom([{ metadata: { name: "d" } }], [{ metadata: null }], {}),
  },
  { requiredKeys: [], noNullPrototype: true },
);
const poolConditions = [
  [{ type: "A", status: "True", lastTransitionTime: "2026-01-01T00:00:00Z", more: 1 }],
  [{ type: "A" }],
  [],
  null,
  [{ type: "A", status: "True", lastTransitionTime: null, lastProbeTime: "never" }],
];
function poolStatusWith(replicas: readonly unknown[]) {
  return fc.oneof(
    fc.record(
      {
        replicas: fc.constantFrom(...replicas),
        readyReplicas: fc.constantFrom(0, 1),
        labelSelector: fc.constantFrom("x=1", ""),
        conditions: fc.constantFrom(...poolConditions),
        more: fc.constant(1),
      },
      { requiredKeys: [], noNullPrototype: true },
    ),
    fc.constant(null),
  );
}
const poolStatus = poolStatusWith([0, 1, 2, null, "2"]);
/**
 * Sent with the pool itself, where a status counts for nothing. Not one of the wrong type: the real server then forgets the managed
 * fields, which makes a version in which nothing else has changed.
 */
const idlePoolStatus = poolStatusWith([0, 1, 2, null]);
const freeStatus = fc.constantFrom(
  { phase: "Running" },
  { phase: null },
  { conditions: [{ type: "Ready", status: "True" }] },
  null,
);

/** What differs from kind to kind. */
function fieldsOf(kind: KindName): fc.Arbitrary<Readonly<Record<string, unknown>>> {
  const optional = (fields: Readonly<Record<string, fc.Arbitrary<unknown>>>) =>
    fc.record(fields, { requiredKeys: [], noNullPrototype: true });
  switch (kind) {
    case "pool":
      return optional({ spec: poolSpec, status: idlePoolStatus });
    case "vm":
      return optional({ spec: vmSpec, status: freeStatus });
    case "vmi":
      return optional({ spec: fc.constantFrom({ a: 1 }, { a: null }, null), status: freeStatus });
    case "revision":
      return optional({
        revision: fc.constantFrom(1, 2, -1, null),
        data: fc.constantFrom({ a: 1 }, { a: 2 }, null, "x", []),
      });
    case "event":
      return optional({ count: fc.constantFrom(2, 3), message: fc.constantFrom("it", "more") });
  }
}

/** A kind with a name; VMs and pools are most of them. */
const place = fc.record({
  kind: fc.constantFrom<KindName>("pool", "pool", "pool", "vm", "vm", "vm", "vmi", "revision", "event"),
  name: fc.constantFrom(...NAMES),
});

/** UID and version tests in a body. */
const guards = fc.record(
  {
    uid: fc.oneof({ weight: 3, arbitrary: fc.constantFrom("@uid:this") }, fc.constantFrom("wrong", "@uid1:this", null)),
    resourceVersion: fc.oneof(
      { weight: 3, arbitrary: fc.constant("@rv:this") },
      fc.constantFrom("@rv1:this", "1", "", null, "abc"),
    ),
  },
  { requiredKeys: [], noNullPrototype: true },
);
const rarely = <T>(arbitrary: fc.Arbitrary<T>, otherwise: T) =>
  fc.oneof({ weight: 5, arbitrary: fc.constant(otherwise) }, { weight: 1, arbitrary });

const jsonPaths = fc.constantFrom(
  ...[
    "/metadata/labels",
    "/metadata/labels/x",
    "/metadata/labels/z",
    "/metadata/annotations",
    "/metadata/annotations/t~1k",
  ],
  ...[
    "/metadata/finalizers",
    "/metadata/finalizers/-",
    "/metadata/finalizers/0",
    "/metadata/finalizers/5",
    "/metadata/finalizers/-1",
  ],
  ...[
    "/metadata/ownerReferences",
    "/metadata/ownerReferences/0",
    "/spec",
    "/spec/replicas",
    "/spec/paused",
    "/spec/more",
  ],
  // Not into a pool's status, see `idlePoolStatus`; the status subresource has operations of its own.
  ...["/spec/running", "/status/phase", "/metadata/nothing/here", "/data/a", "labels", ""],
);
const jsonValues = fc.constantFrom(null, "1", "2", 1, 2, true, { x: "1" }, {}, [], ["t.test/one"], "t.test/two");
const jsonOperation = fc.oneof(
  {
    weight: 5,
    arbitrary: fc
      .record({
        op: fc.constantFrom("test", "add", "replace", "remove", "test", "add"),
        path: jsonPaths,
        value: jsonValues,
      })
      .map(({ op, path, value }) => (op === "remove" ? { op, path } : { op, path, value })),
  },
  fc.constantFrom(
    { op: "test", path: "/metadata/uid", value: "@uid:this" },
    { op: "test", path: "/metadata/uid", value: "@uid1:this" },
    { op: "test", path: "/metadata/resourceVersion", value: "@rv:this" },
    { op: "test", path: "/metadata/generation", value: 1 },
    { op: "test", path: "/metadata/generation", value: 2 },
    { op: "test", path: "/metadata/labels" },
    { op: "remove", path: "/metadata/resourceVersion" },
    { op: "replace", path: "/metadata/resourceVersion", value: "1" },
    { op: "unknown", path: "/spec" },
  ),
);
const jsonPatch = fc.oneof(
  { weight: 12, arbitrary: fc.array(jsonOperation, { minLength: 1, maxLength: 3 }) },
  fc.constantFrom([], {}, [1]),
);

const scaleBody = fc.record(
  {
    metadata: fc.oneof({ weight: 2, arbitrary: fc.constant({}) }, guards),
    spec: fc.constantFrom(
      { replicas: 5 },
      { replicas: 0 },
      { replicas: 4 },
      { replicas: -1 },
      { replicas: null },
      { replicas: "x" },
    ),
  },
  { requiredKeys: ["spec"], noNullPrototype: true },
);

const selectors = fc.constantFrom(
  "",
  "x=1",
  "x!=1",
  "x in (1,2)",
  "x notin (1)",
  "!x",
  "x,y",
  "x=1,y=2",
  "x=",
  "x>0",
  "=1",
  "x in 1",
  "x=1,",
);

/** A request whose body may name UIDs and versions. */
export type Operation =
  | {
      readonly do: "create" | "put";
      readonly kind: KindName;
      readonly name: string;
      readonly body: unknown;
      readonly sub: string;
    }
  | {
      readonly do: "merge" | "json";
      readonly kind: KindName;
      readonly name: string;
      readonly body: unknown;
      readonly sub: string;
    }
  | { readonly do: "delete"; readonly kind: KindName; readonly name: string; readonly body: unknown }
  | { readonly do: "get"; readonly kind: KindName; readonly name: string; readonly sub: string }
  | {
      readonly do: "list";
      readonly kind: KindName;
      readonly query: Readonly<Record<string, string>>;
      readonly metadataOnly: boolean;
    };

function whole(kind: KindName, name: string, more: Readonly<Record<string, unknown>>, meta: object) {
  const { apiVersion, kind: kindName, body } = FORMS[kind];
  const spec = isRecord(more["spec"]) && isRecord(body["spec"]) ? { spec: { ...body["spec"], ...more["spec"] } } : {};
  const about = kind === "event" ? { involvedObject: { namespace: "@namespace", name } } : {};
  return { apiVersion, kind: kindName, ...body, ...about, ...more, ...spec, metadata: { name, ...meta } };
}

const noGuards: object = {};
const create = place.chain(({ kind, name }) =>
  fc
    .tuple(
      rarely(fieldsOf(kind), {}),
      metadata,
      rarely(
        fc.constantFrom<object>(
          { name: "Bad_Name" },
          { namespace: "other" },
          { uid: "u" },
          { resourceVersion: "1" },
          { deletionTimestamp: "2026-01-01T00:00:00Z" },
        ),
        noGuards,
      ),
    )
    .map(
      ([fields, meta, odd]): Operation => ({
        do: "create",
        kind,
        name,
        sub: "",
        body: whole(kind, name, fields, { ...meta, ...odd }),
      }),
    ),
);
/** Not events: to put one makes it, which nobody needs. */
const put = place
  .filter(({ kind }) => kind !== "event")
  .chain(({ kind, name }) =>
    fc.tuple(fieldsOf(kind), metadata, guards).map(([fields, meta, guard]): Operation => {
      return { do: "put", kind, name, sub: "", body: whole(kind, name, fields, { ...meta, ...guard }) };
    }),
  );
const merge = place.chain(({ kind, name }) =>
  fc.tuple(fieldsOf(kind), metadata, rarely(guards, {})).map(([fields, meta, guard]): Operation => {
    return { do: "merge", kind, name, sub: "", body: { ...fields, metadata: { ...meta, ...guard } } };
  }),
);
const json = place.chain(({ kind, name }) =>
  jsonPatch.map((body): Operation => ({ do: "json", kind, name, sub: "", body })),
);
/** Not with labels and the like: those change the managed fields, and with them the version, and nothing else. */
const status = fc
  .record({ kind: fc.constantFrom<"pool" | "vm">("pool", "vm"), name: fc.constantFrom(...NAMES) })
  .chain(({ kind, name }) =>
    fc.oneof(
      fc.tuple(kind === "pool" ? poolStatus : freeStatus, rarely(guards, {})).map(
        ([value, guard]): Operation => ({
          do: "merge",
          kind,
          name,
          sub: "/status",
          body: { status: value, metadata: guard },
        }),
      ),
      fc
        .tuple(
          fc.constantFrom("test", "add", "replace", "remove"),
          fc.constantFrom("/status", "/status/replicas"),
          jsonValues,
        )
        .map(
          ([op, path, value]): Operation => ({ do: "json", kind, name, sub: "/status", body: [{ op, path, value }] }),
        ),
    ),
  );
const scale = fc.oneof(
  fc.constantFrom(...NAMES).map((name): Operation => ({ do: "get", kind: "pool", name, sub: "/scale" })),
  fc.tuple(fc.constantFrom(...NAMES), scaleBody).map(([name, body]): Operation => {
    const sent = { apiVersion: "autoscaling/v1", kind: "Scale", ...body, metadata: { name, ...body.metadata } };
    return { do: "put", kind: "pool", name, sub: "/scale", body: sent };
  }),
  fc
    .tuple(fc.constantFrom(...NAMES), scaleBody)
    .map(([name, body]): Operation => ({ do: "merge", kind: "pool", name, sub: "/scale", body })),
);
const remove = fc
  .tuple(
    place,
    fc.record(
      {
        propagationPolicy: fc.constantFrom("Foreground", "Background", "Orphan", "Other"),
        preconditions: guards.map(({ uid, resourceVersion }) => ({
          ...(uid === undefined || uid === null ? {} : { uid }),
          ...(resourceVersion === undefined || resourceVersion === null ? {} : { resourceVersion }),
        })),
      },
      { requiredKeys: [], noNullPrototype: true },
    ),
    fc.boolean(),
  )
  .map(([{ kind, name }, options, bare]): Operation => {
    const body = { apiVersion: "v1", kind: "DeleteOptions", ...options };
    return { do: "delete", kind, name, body: bare ? undefined : body };
  });
const get = place.map(({ kind, name }): Operation => ({ do: "get", kind, name, sub: "" }));
const list = fc
  .tuple(fc.constantFrom(...KIND_NAMES), selectors, fc.constantFrom("", "1", "2", "x"), fc.boolean())
  .map(([kind, labelSelector, limit, metadataOnly]): Operation => {
    const query = { ...(labelSelector === "" ? {} : { labelSelector }), ...(limit === "" ? {} : { limit }) };
    return { do: "list", kind, query, metadataOnly };
  });

const operation = fc.oneof(
  { weight: 8, arbitrary: create },
  { weight: 6, arbitrary: merge },
  { weight: 5, arbitrary: json },
  { weight: 3, arbitrary: put },
  { weight: 3, arbitrary: status },
  { weight: 4, arbitrary: remove },
  { weight: 2, arbitrary: scale },
  { weight: 1, arbitrary: get },
  { weight: 2, arbitrary: list },
);

export function sequences(length: number): fc.Arbitrary<readonly Operation[]> {
  return fc.array(operation, { minLength: length, maxLength: length, size: "max" });
}

/** What one server has answered so far: UIDs and versions by object. */
export interface Memory {
  readonly namespace: string;
  readonly uids: Map<string, string[]>;
  readonly versions: Map<string, string[]>;
}

export function emptyMemory(namespace: string): Memory {
  return { namespace, uids: new Map(), versions: new Map() };
}

const CONTENT_TYPES = { merge: "application/merge-patch+json", json: "application/json-patch+json" } as const;
const METHODS = {
  create: "POST",
  put: "PUT",
  merge: "PATCH",
  json: "PATCH",
  delete: "DELETE",
  get: "GET",
  list: "GET",
} as const;
const METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/** The request to the server with that memory. */
export function callOf(operation: Operation, memory: Memory): Call {
  const { root, plural } = FORMS[operation.kind];
  const collection = `${root}/namespaces/${memory.namespace}/${plural}`;
  const method = METHODS[operation.do];
  if (operation.do === "list") {
    const path = `${collection}?${new URLSearchParams(operation.query)}`;
    return { method, path, ...(operation.metadataOnly ? { accept: METADATA_LIST } : {}) };
  }
  const at = operation.do === "create" ? collection : `${collection}/${operation.name}`;
  const path = "sub" in operation ? `${at}${operation.sub}` : at;
  if (!("body" in operation) || operation.body === undefined) return { method, path };
  const body = resolve(operation.body, `${operation.kind}/${operation.name}`, memory);
  const patch = operation.do === "merge" || operation.do === "json" ? { contentType: CONTENT_TYPES[operation.do] } : {};
  return { method, path, body, ...patch };
}

/** Puts this server's values where the body names them. */
function resolve(value: unknown, self: string, memory: Memory): unknown {
  if (Array.isArray(value)) return value.map((entry) => resolve(entry, self, memory));
  if (isRecord(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, resolve(entry, self, memory)]));
  }
  if (typeof value !== "string" || !value.startsWith("@")) return value;
  if (value === "@namespace") return memory.namespace;
  const [mark = "", subject = ""] = value.split(":");
  const known =
    (mark.startsWith("@uid") ? memory.uids : memory.versions).get(subject === "this" ? self : subject) ?? [];
  return (mark.endsWith("1") ? known[0] : known.at(-1)) ?? (mark.startsWith("@uid") ? "no-such-uid" : "1");
}

/** Notes what an answer to the operation says of UID and version. */
export function remember({ kind }: Operation, body: unknown, { uids, versions }: Memory): void {
  if (!isRecord(body) || !isRecord(body["metadata"]) || body["kind"] === "Status") return;
  const { name, uid, resourceVersion } = body["metadata"];
  const add = (known: Map<string, string[]>, value: unknown) => {
    if (typeof value !== "string" || typeof name !== "string") return;
    const subject = `${kind}/${name}`;
    const values = known.get(subject) ?? [];
    if (values.at(-1) !== value) known.set(subject, [...values, value]);
  };
  add(uids, uid);
  add(versions, resourceVersion);
}
