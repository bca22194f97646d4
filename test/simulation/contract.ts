/** What our code and its tests lean on in a kube-apiserver, as named cases: the in-memory cluster and the real server keep the same ones. */
import { expect } from "vitest";
import { createCluster, poolsOf, VIRTUAL_MACHINES } from "../../shared/clusters/cluster.ts";
import type { ApiResponse, Transport } from "../../shared/clusters/connection.ts";
import { isRecord } from "../../shared/planning/json.ts";
import type { Call } from "./cluster.ts";

/** A server with an empty namespace for one case. */
export interface Host {
  readonly namespace: string;
  readonly send: Transport;
  /** Waits until the assertions hold; gives the garbage collector its turn. */
  eventually(assertions: () => Promise<void>): Promise<void>;
  /** A token like this one that has grown too old. */
  expired(token: string): Promise<string>;
  /** Deletes the namespace, in which something is left that keeps it from going. */
  endNamespace(): Promise<void>;
}

export interface ContractCase {
  readonly name: string;
  run(host: Host): Promise<void>;
}

const MERGE = "application/merge-patch+json";
const JSON_PATCH = "application/json-patch+json";
const METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/** The shorthand of the cases. */
function at({ namespace, send }: Host) {
  const vms = `/apis/kubevirt.io/v1/namespaces/${namespace}/virtualmachines`;
  const pools = `/apis/pool.kubevirt.io/v1beta1/namespaces/${namespace}/virtualmachinepools`;
  const revisions = `/apis/apps/v1/namespaces/${namespace}/controllerrevisions`;
  const call = (request: Call): Promise<ApiResponse> => send({ ...request, signal: AbortSignal.timeout(30_000) });
  const get = (path: string) => call({ method: "GET", path });
  const post = (path: string, body: unknown) => call({ method: "POST", path, body });
  const put = (path: string, body: unknown) => call({ method: "PUT", path, body });
  const merge = (path: string, body: unknown) => call({ method: "PATCH", path, body, contentType: MERGE });
  const json = (path: string, body: unknown) => call({ method: "PATCH", path, body, contentType: JSON_PATCH });
  const remove = (path: string, body?: unknown) =>
    call({ method: "DELETE", path, ...(body === undefined ? {} : { body }) });
  return { vms, pools, revisions, call, get, post, put, merge, json, remove };
}

function aVm(name: string, metadata: object = {}) {
  const spec = { running: true, template: {} };
  return { apiVersion: "kubevirt.io/v1", kind: "VirtualMachine", metadata: { name, ...metadata }, spec };
}

function aPool(name: string, metadata: object = {}, spec: object = {}) {
  return {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: { name, ...metadata },
    spec: { selector: { matchLabels: { x: "1" } }, virtualMachineTemplate: { spec: { template: {} } }, ...spec },
  };
}

function ownedBy({ body }: ApiResponse, more: object = {}) {
  const { uid, name } = metadataOf(body);
  const isPool = isRecord(body) && body["kind"] === "VirtualMachinePool";
  const group = isPool ? "pool.kubevirt.io/v1beta1" : "kubevirt.io/v1";
  const kind = isPool ? "VirtualMachinePool" : "VirtualMachine";
  return { ownerReferences: [{ apiVersion: group, kind, name, uid, controller: true, ...more }] };
}

function metadataOf(body: unknown): Readonly<Record<string, unknown>> {
  return isRecord(body) && isRecord(body["metadata"]) ? body["metadata"] : {};
}

function failure(status: number, reason: string) {
  return { status, body: { kind: "Status", status: "Failure", reason, code: status } };
}

const writes: readonly ContractCase[] = [
  {
    name: "sends its clock with each answer",
    async run(host) {
      const { headers } = await at(host).get(at(host).vms);
      expect(Date.parse(String(headers["date"]))).toBeGreaterThan(0);
    },
  },
  {
    name: "gives a new object its identity and drops the status that came with it",
    async run(host) {
      const { post, vms } = at(host);
      const sent = { ...aVm("a", { uid: "mine", generation: 7, labels: {} }), status: { ready: true } };
      const { status, body } = await post(vms, sent);
      expect(status).toBe(201);
      expect(body).toMatchObject({ metadata: { name: "a", namespace: host.namespace, generation: 1 } });
      expect(body).not.toHaveProperty("status");
      expect(metadataOf(body)).not.toHaveProperty("labels");
      expect(metadataOf(body)["uid"]).not.toBe("mine");
    },
  },
  {
    name: "refuses a second object of one name, also while the first is on its way out",
    async run(host) {
      const { post, remove, vms } = at(host);
      await post(vms, aVm("a", { finalizers: ["t.test/one"] }));
      expect(await post(vms, aVm("a"))).toMatchObject(failure(409, "AlreadyExists"));
      await remove(`${vms}/a`);
      expect(await post(vms, aVm("a"))).toMatchObject(failure(409, "AlreadyExists"));
    },
  },
  {
    name: "refuses an object in a namespace that is not there",
    async run(host) {
      const { post, vms } = at(host);
      expect(await post(vms.replace(host.namespace, "nowhere"), aVm("a"))).toMatchObject(failure(404, "NotFound"));
    },
  },
  {
    name: "prunes what the schema of a pool does not know and refuses what it forbids",
    async run(host) {
      const { post, pools } = at(host);
      const { body } = await post(
        pools,
        aPool("a", {}, { paused: null, unknown: 1, scaleInStrategy: { unmanaged: { x: 1 } } }),
      );
      expect(isRecord(body) && body["spec"]).toEqual({ ...aPool("a").spec, scaleInStrategy: { unmanaged: {} } });
      expect(await post(pools, aPool("b", {}, { replicas: -1 }))).toMatchObject(failure(422, "Invalid"));
      expect(await post(pools, aPool("b", {}, { replicas: 3_000_000_000 }))).toMatchObject(failure(422, "Invalid"));
      expect(await post(pools, aPool("b", {}, { selector: null }))).toMatchObject(failure(422, "Invalid"));
    },
  },
  {
    name: "leaves resourceVersion alone when a patch changes nothing",
    async run(host) {
      const { post, merge, vms } = at(host);
      const created = await post(vms, aVm("a", { labels: { x: "1" } }));
      const patched = await merge(`${vms}/a`, { metadata: { labels: { x: "1" } }, status: { ignored: true } });
      expect(metadataOf(patched.body)).toEqual(metadataOf(created.body));
    },
  },
  {
    name: "counts a generation for the spec, not for metadata or status",
    async run(host) {
      const { post, merge, vms } = at(host);
      await post(vms, aVm("a"));
      const generations = [
        await merge(`${vms}/a`, { metadata: { labels: { x: "1" } } }),
        await merge(`${vms}/a/status`, { status: { ready: true } }),
        await merge(`${vms}/a`, { spec: { running: false } }),
        await merge(`${vms}/a`, { spec: { running: false } }),
      ].map(({ body }) => metadataOf(body)["generation"]);
      expect(generations).toEqual([1, 1, 2, 2]);
    },
  },
  {
    name: "refuses an update from an old version with a conflict, whatever it changes",
    async run(host) {
      const { post, merge, put, vms } = at(host);
      const { body } = await post(vms, aVm("a"));
      const { resourceVersion } = metadataOf(body);
      await merge(`${vms}/a`, { metadata: { labels: { x: "1" } } });
      expect(await merge(`${vms}/a`, { metadata: { resourceVersion } })).toMatchObject(failure(409, "Conflict"));
      expect(await put(`${vms}/a`, body)).toMatchObject(failure(409, "Conflict"));
      expect(await put(`${vms}/a`, aVm("a"))).toMatchObject(failure(422, "Invalid"));
    },
  },
  {
    name: "refuses a body for another UID: a PUT with a conflict, a patch as invalid, a patch of the status not at all",
    async run(host) {
      const { post, merge, put, vms } = at(host);
      const { body } = await post(vms, aVm("a"));
      const sent = isRecord(body) ? { ...body, metadata: { ...metadataOf(body), uid: "other" } } : {};
      expect(await put(`${vms}/a`, sent)).toMatchObject(failure(409, "Conflict"));
      expect(await merge(`${vms}/a`, { metadata: { uid: "other" } })).toMatchObject(failure(422, "Invalid"));
      const status = await merge(`${vms}/a/status`, { metadata: { uid: "other" }, status: { ready: true } });
      expect(status).toMatchObject({ status: 200, body: { status: { ready: true } } });
    },
  },
  {
    name: "changes nothing but the status through the status subresource, under the version that was given",
    async run(host) {
      const { post, merge, put, pools } = at(host);
      const { body } = await post(pools, aPool("a"));
      const { resourceVersion } = metadataOf(body);
      const sent = isRecord(body) ? { ...body, spec: {}, status: { replicas: 1, unknown: 2 } } : {};
      const written = await put(`${pools}/a/status`, sent);
      expect(written).toMatchObject({ status: 200, body: { status: { replicas: 1 }, spec: aPool("a").spec } });
      const late = { metadata: { resourceVersion }, status: { replicas: 2 } };
      expect(await merge(`${pools}/a/status`, late)).toMatchObject(failure(409, "Conflict"));
      expect(await merge(`${pools}/a/status`, { status: { replicas: "2" } })).toMatchObject(failure(422, "Invalid"));
    },
  },
  {
    name: "takes null in the list of owners for an owner that says nothing, and refuses the object by its name",
    async run(host) {
      const { post, json, vms } = at(host);
      await post(vms, aVm("a"));
      const answer = await json(`${vms}/a`, [{ op: "add", path: "/metadata/ownerReferences", value: [null] }]);
      expect(answer).toMatchObject(failure(422, "Invalid"));
      expect(answer.body).toMatchObject({ details: { name: "a", group: "kubevirt.io", kind: "VirtualMachine" } });
    },
  },
  {
    name: "has a scale subresource on pools, which leaves out zero",
    async run(host) {
      const { post, put, merge, json, get, pools } = at(host);
      await post(pools, aPool("a"));
      expect(await get(`${pools}/a/scale`)).toMatchObject(failure(500, "InternalError"));
      const scaled = await merge(`${pools}/a/scale`, { spec: { replicas: 3 } });
      expect(scaled).toMatchObject({ status: 200, body: { kind: "Scale", spec: { replicas: 3 } } });
      expect(await get(`${pools}/a`)).toMatchObject({ body: { spec: { replicas: 3 }, metadata: { generation: 2 } } });
      await merge(`${pools}/a/status`, { status: { replicas: 2, labelSelector: "x=1" } });
      expect(await put(`${pools}/a/scale`, scaled.body)).toMatchObject(failure(409, "Conflict"));
      const zero = await merge(`${pools}/a/scale`, { spec: { replicas: 0 } });
      expect(zero.body).toMatchObject({ spec: {}, status: { replicas: 2, selector: "x=1" } });
      const tested = [{ op: "test", path: "/spec/replicas", value: 0 }];
      expect(await json(`${pools}/a/scale`, tested)).toMatchObject(failure(422, "Invalid"));
    },
  },
  {
    name: "keeps the data of a ControllerRevision as they are",
    async run(host) {
      const { post, merge, revisions } = at(host);
      const revision = {
        apiVersion: "apps/v1",
        kind: "ControllerRevision",
        metadata: { name: "a" },
        revision: 1,
        data: { a: 1 },
      };
      const { body } = await post(revisions, revision);
      expect(metadataOf(body)).not.toHaveProperty("generation");
      expect(await merge(`${revisions}/a`, { data: { a: 2 } })).toMatchObject(failure(422, "Invalid"));
      expect(await merge(`${revisions}/a`, { revision: 2 })).toMatchObject({ status: 200, body: { revision: 2 } });
      expect(await post(revisions, { ...revision, metadata: { name: "b" }, data: null })).toMatchObject(
        failure(422, "Invalid"),
      );
    },
  },
];

/** Operation, its answer, and the labels that the object has after it; before each the labels are `{ x: "1" }` and there are no annotations. */
const JSON_PATCHES: readonly (readonly [string, unknown, number])[] = [
  ["passes a test of null on an absent map", { op: "test", path: "/metadata/annotations", value: null }, 200],
  ["passes a test of null on an absent key", { op: "test", path: "/metadata/labels/y", value: null }, 200],
  ["passes a test without a value on an absent key", { op: "test", path: "/metadata/labels/y" }, 200],
  ["refuses a test of null below an absent map", { op: "test", path: "/metadata/annotations/y", value: null }, 422],
  ["refuses a test of null on a present key", { op: "test", path: "/metadata/labels/x", value: null }, 422],
  ["refuses a test of another value", { op: "test", path: "/metadata/labels/x", value: "2" }, 422],
  ["passes a test of a whole map", { op: "test", path: "/metadata/labels", value: { x: "1" } }, 200],
  ["passes a test of a generation", { op: "test", path: "/metadata/generation", value: 1 }, 200],
  ["refuses to add below an absent map", { op: "add", path: "/metadata/annotations/y", value: "1" }, 422],
  ["replaces a key that is absent", { op: "replace", path: "/metadata/labels/y", value: "1" }, 200],
  ["refuses to remove a key that is absent", { op: "remove", path: "/metadata/labels/y" }, 422],
  ["refuses an operation that it does not know", { op: "change", path: "/metadata/labels/x" }, 422],
  ["refuses a path beyond the end of a list", { op: "add", path: "/metadata/finalizers/7", value: "t.test/two" }, 422],
  ["adds at the end of a list", { op: "add", path: "/metadata/finalizers/-", value: "t.test/two" }, 200],
];

const patches: readonly ContractCase[] = [
  ...JSON_PATCHES.map(([name, operation, status]) => ({
    name: `JSON patch: ${name}`,
    async run(host: Host) {
      const { post, json, vms } = at(host);
      await post(vms, aVm("a", { labels: { x: "1" }, finalizers: ["t.test/one"] }));
      expect((await json(`${vms}/a`, [operation])).status).toBe(status);
    },
  })),
  {
    name: "JSON patch: does all or nothing",
    async run(host) {
      const { post, json, get, vms } = at(host);
      const { body } = await post(vms, aVm("a"));
      const operations = [
        { op: "add", path: "/spec/running", value: false },
        { op: "test", path: "/metadata/uid", value: "other" },
      ];
      expect(await json(`${vms}/a`, operations)).toMatchObject(failure(422, "Invalid"));
      expect((await get(`${vms}/a`)).body).toEqual(body);
      expect(await json(`${vms}/a`, { op: "add" })).toMatchObject(failure(400, "BadRequest"));
    },
  },
  {
    name: "merge patch: null removes, and is left out of what is new",
    async run(host) {
      const { post, merge, vms } = at(host);
      await post(vms, aVm("a", { labels: { x: "1" } }));
      const { body } = await merge(`${vms}/a`, { metadata: { labels: null }, spec: { more: { a: null, b: 1 } } });
      expect(metadataOf(body)).not.toHaveProperty("labels");
      expect(body).toMatchObject({ spec: { more: { b: 1 } } });
      expect(await merge(`${vms}/a`, [])).toMatchObject(failure(400, "BadRequest"));
      expect(await merge(`${vms}/b`, {})).toMatchObject(failure(404, "NotFound"));
    },
  },
];

const lists: readonly ContractCase[] = [
  {
    name: "lists what a selector matches, in the order of names",
    async run(host) {
      const { post, get, vms } = at(host);
      for (const name of ["c", "a", "b"]) await post(vms, aVm(name, { labels: { x: name === "b" ? "2" : "1" } }));
      const names = async (selector: string) => {
        const { body } = await get(`${vms}?labelSelector=${encodeURIComponent(selector)}`);
        return namesIn(body);
      };
      expect(await names("x=1")).toEqual(["a", "c"]);
      expect(await names("x notin (1),!y")).toEqual(["b"]);
      expect(await get(`${vms}?labelSelector=x%3D1%2C`)).toMatchObject(failure(400, "BadRequest"));
    },
  },
  {
    name: "shows one state over all pages",
    async run(host) {
      const { post, get, remove, vms } = at(host);
      for (const name of ["a", "b", "c"]) await post(vms, aVm(name));
      const first = await get(`${vms}?limit=2`);
      expect(namesIn(first.body)).toEqual(["a", "b"]);
      expect(metadataOf(first.body)).toMatchObject({ remainingItemCount: 1 });
      await remove(`${vms}/c`);
      await post(vms, aVm("d"));
      const { body } = await get(`${vms}?limit=2&continue=${metadataOf(first.body)["continue"]}`);
      expect(namesIn(body)).toEqual(["c"]);
      expect(metadataOf(body)).toMatchObject({ continue: "" });
    },
  },
  {
    name: "answers 410 to a page token that is too old, and 400 to none at all",
    async run(host) {
      const { post, get, vms } = at(host);
      for (const name of ["a", "b"]) await post(vms, aVm(name));
      const token = metadataOf((await get(`${vms}?limit=1`)).body)["continue"];
      const old = await host.expired(String(token));
      await host.eventually(async () => {
        expect(await get(`${vms}?limit=1&continue=${old}`)).toMatchObject(failure(410, "Expired"));
      });
      expect(await get(`${vms}?limit=1&continue=none`)).toMatchObject(failure(400, "BadRequest"));
    },
  },
  {
    name: "lists metadata alone, and null for none",
    async run(host) {
      const { post, call, vms } = at(host);
      const list = async () => (await call({ method: "GET", path: vms, accept: METADATA_LIST })).body;
      expect(await list()).toMatchObject({ kind: "PartialObjectMetadataList", items: null });
      await post(vms, aVm("a"));
      const body = await list();
      expect(namesIn(body)).toEqual(["a"]);
      expect(body).not.toHaveProperty("items.0.spec");
    },
  },
  {
    name: "tells which versions of pools it serves, the newest first",
    async run(host) {
      const { get, call } = at(host);
      expect(await get("/apis/pool.kubevirt.io")).toMatchObject({
        body: { versions: [{ version: "v1beta1" }, { version: "v1alpha1" }] },
      });
      expect(await call({ method: "GET", path: "/apis/unknown.test" })).toMatchObject({ status: 404 });
    },
  },
  {
    name: "creates nothing in a dry run, and refuses what it would refuse",
    async run(host) {
      const meter = { requests: 0, writes: 0, bytes: 0 };
      const deadline = AbortSignal.timeout(30_000);
      const cluster = createCluster({ transport: host.send, meter, deadline, cache: { poolVersion: undefined } });
      const place = { namespace: host.namespace, name: "a" };
      const pools = poolsOf("v1beta1");
      const dry = { dryRun: true } as const;
      expect(await cluster.create(pools, place, aPool("a"), dry)).toMatchObject({ ok: true });
      expect(await cluster.get(pools, place)).toMatchObject({ ok: false, failure: { kind: "notFound" } });
      expect(await cluster.create(pools, place, {}, dry)).toMatchObject({ ok: false, failure: { kind: "invalid" } });
      expect(await cluster.create(pools, place, aPool("a"))).toMatchObject({ ok: true });
      const again = await cluster.create(pools, place, aPool("a"), dry);
      expect(again).toMatchObject({ ok: false, failure: { kind: "alreadyExists" } });
    },
  },
  {
    name: "serves the real client",
    async run(host) {
      const meter = { requests: 0, writes: 0, bytes: 0 };
      const deadline = AbortSignal.timeout(30_000);
      const cluster = createCluster({ transport: host.send, meter, deadline, cache: { poolVersion: undefined } });
      const place = { namespace: host.namespace, name: "a" };
      expect(await cluster.poolVersion()).toMatchObject({ ok: true, value: "v1beta1" });
      expect(await cluster.create(poolsOf("v1beta1"), place, aPool("a"))).toMatchObject({ ok: true });
      expect(await cluster.list(VIRTUAL_MACHINES, place, { metadataOnly: true })).toMatchObject({
        ok: true,
        value: [],
      });
      const preconditions = { uid: "other", resourceVersion: "1" };
      expect(await cluster.delete(poolsOf("v1beta1"), place, preconditions)).toMatchObject({
        ok: false,
        failure: { kind: "conflict", definite: true },
      });
    },
  },
];

function namesIn(body: unknown): unknown[] {
  const items = isRecord(body) && Array.isArray(body["items"]) ? body["items"] : [];
  return items.map((item) => metadataOf(item)["name"]);
}

const deletes: readonly ContractCase[] = [
  {
    name: "deletes only what the preconditions name",
    async run(host) {
      const { post, remove, get, vms } = at(host);
      const { body } = await post(vms, aVm("a"));
      const { uid, resourceVersion } = metadataOf(body);
      const conflict = failure(409, "Conflict");
      expect(await remove(`${vms}/a`, { preconditions: { uid: "other" } })).toMatchObject(conflict);
      expect(await remove(`${vms}/a`, { preconditions: { uid, resourceVersion: "1" } })).toMatchObject(conflict);
      expect(await remove(`${vms}/a`, { preconditions: { uid, resourceVersion } })).toMatchObject({
        status: 200,
        body: { kind: "Status", status: "Success" },
      });
      expect(await get(`${vms}/a`)).toMatchObject(failure(404, "NotFound"));
      expect(await remove(`${vms}/a`, { preconditions: { uid } })).toMatchObject(failure(404, "NotFound"));
    },
  },
  {
    name: "marks what has finalizers, once, and ends it with the last of them",
    async run(host) {
      const { post, remove, merge, get, vms } = at(host);
      await post(vms, aVm("a", { finalizers: ["t.test/one"] }));
      const marked = await remove(`${vms}/a`);
      expect(metadataOf(marked.body)).toMatchObject({ generation: 2, deletionGracePeriodSeconds: 0 });
      expect((await remove(`${vms}/a`)).body).toEqual(marked.body);
      const more = { metadata: { finalizers: ["t.test/one", "t.test/two"] } };
      expect(await merge(`${vms}/a`, more)).toMatchObject(failure(422, "Invalid"));
      expect(await merge(`${vms}/a`, { metadata: { finalizers: [] } })).toMatchObject({ status: 200 });
      expect(await get(`${vms}/a`)).toMatchObject(failure(404, "NotFound"));
    },
  },
  {
    name: "collects what a deleted owner leaves, after it",
    async run(host) {
      const { post, remove, get, vms, pools } = at(host);
      const owner = await post(pools, aPool("a"));
      await post(vms, aVm("a", { ...ownedBy(owner), finalizers: ["t.test/one"] }));
      await post(vms, aVm("b"));
      await remove(`${pools}/a`, { propagationPolicy: "Background" });
      expect(await get(`${pools}/a`)).toMatchObject({ status: 404 });
      await host.eventually(async () => {
        expect(metadataOf((await get(`${vms}/a`)).body)).toHaveProperty("deletionTimestamp");
      });
      expect(await get(`${vms}/b`)).toMatchObject({ status: 200 });
    },
  },
  {
    name: "deletes in the foreground: dependents that block first, then the owner",
    async run(host) {
      const { post, remove, merge, get, vms, pools } = at(host);
      const owner = await post(pools, aPool("a"));
      await post(vms, aVm("a", { ...ownedBy(owner, { blockOwnerDeletion: true }), finalizers: ["t.test/one"] }));
      const { body } = await remove(`${pools}/a`, { propagationPolicy: "Foreground" });
      expect(metadataOf(body)).toMatchObject({ finalizers: ["foregroundDeletion"] });
      await host.eventually(async () => {
        expect(metadataOf((await get(`${vms}/a`)).body)).toHaveProperty("deletionTimestamp");
      });
      expect(await get(`${pools}/a`)).toMatchObject({ status: 200 });
      await merge(`${vms}/a`, { metadata: { finalizers: null } });
      await host.eventually(async () => {
        expect(await get(`${pools}/a`)).toMatchObject({ status: 404 });
      });
    },
  },
  {
    name: "orphans: dependents lose the owner and stay",
    async run(host) {
      const { post, remove, get, vms, pools } = at(host);
      const owner = await post(pools, aPool("a"));
      await post(vms, aVm("a", ownedBy(owner, { blockOwnerDeletion: true })));
      await remove(`${pools}/a`, { propagationPolicy: "Orphan" });
      await host.eventually(async () => {
        expect(await get(`${pools}/a`)).toMatchObject({ status: 404 });
      });
      const { body } = await get(`${vms}/a`);
      expect(metadataOf(body)).not.toHaveProperty("ownerReferences");
      expect(metadataOf(body)).not.toHaveProperty("deletionTimestamp");
    },
  },
  {
    name: "makes nothing in a namespace that is on its way out",
    async run(host) {
      const { post, get, remove, vms } = at(host);
      await post(vms, aVm("a", { finalizers: ["t.test/one"] }));
      await host.endNamespace();
      await host.eventually(async () => {
        const { status, body } = await post(vms, aVm("b"));
        expect({ status, body }).toMatchObject({ status: 403, body: { reason: "Forbidden" } });
        const why = `unable to create new content in namespace ${host.namespace} because it is being terminated`;
        expect(body).toHaveProperty("message", `virtualmachines.kubevirt.io "b" is forbidden: ${why}`);
        expect(await post(vms, aVm("a"))).toMatchObject({ status: 403 });
      });
      expect(await get(`${vms}/a`)).toMatchObject({ status: 200 });
      expect(await remove(`${vms}/a`)).toMatchObject({ status: 200 });
    },
  },
  {
    name: "keeps what one of two owners still holds, without the other",
    async run(host) {
      const { post, remove, get, vms, pools } = at(host);
      const [first] = ownedBy(await post(pools, aPool("a")), { controller: false }).ownerReferences;
      const [second] = ownedBy(await post(pools, aPool("b")), { controller: false }).ownerReferences;
      await post(vms, aVm("a", { ownerReferences: [first, second] }));
      await remove(`${pools}/a`);
      await host.eventually(async () => {
        const owners = metadataOf((await get(`${vms}/a`)).body)["ownerReferences"];
        expect(owners).toEqual([second]);
      });
    },
  },
];

export const CONTRACT: readonly ContractCase[] = [...writes, ...patches, ...lists, ...deletes];
