/** The scale subresource over HTTP: what a client sends reaches the real API server, and alone drives the passes. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isRecord } from "../../shared/planning/json.ts";
import { type HttpAnswer, type HttpFunctions, type HttpRequest, serveFunctions } from "../support/http-functions.ts";
import { machineNames } from "../support/objects.ts";
import { aPool } from "../support/pool-manifests.ts";
import { untilMachines, untilSettled } from "../support/until.ts";
import { type Finishing, type Namespace, startWorld, WORLD_TIMEOUT_MS, type World } from "../support/world.ts";

const POOL = "web";
const JSON_TYPE = "application/json";
const MERGE = "application/merge-patch+json";
const JSON_PATCH = "application/json-patch+json";

let world: World;
let functions: HttpFunctions;

beforeAll(async () => {
  // Without a schedule: only what the requests wake is looked at.
  world = await startWorld({ functions: false });
  functions = await serveFunctions("local", {
    local: world.access,
    watched: { ...world.access, mode: "observe" },
    narrow: { ...world.access, namespaces: ["elsewhere"] },
  });
}, WORLD_TIMEOUT_MS);

afterAll(async () => {
  await functions.stop();
  await world.stop();
});

interface Sent extends HttpRequest {
  readonly cluster?: string;
  readonly version?: string;
  readonly name?: string;
}

function send(namespace: string, fields: Sent = {}): Promise<HttpAnswer> {
  const { cluster = "local", version = "v1beta1", name = POOL, ...request } = fields;
  const path = `/clusters/${cluster}/apis/pool.kubevirt.io/${version}/namespaces/${namespace}/virtualmachinepools/${name}/scale`;
  return functions.send(path, request);
}

async function sendEvent(event: object) {
  const { status, body } = await functions.send("/events", { method: "POST", type: JSON_TYPE, body: event });
  return { status, body };
}

async function aNamespaceWithPool(test: Finishing, replicas: number | undefined): Promise<Namespace> {
  const namespace = await world.aNamespace(test);
  await namespace.create(aPool(POOL, { replicas }));
  return namespace;
}

async function replicasOf(namespace: Namespace): Promise<unknown> {
  const spec = (await namespace.pool(POOL))?.spec;
  return isRecord(spec) ? spec["replicas"] : undefined;
}

function versionOf({ metadata }: Readonly<Record<string, unknown>>): unknown {
  return isRecord(metadata) ? metadata["resourceVersion"] : undefined;
}

describe.concurrent("the scale of a pool over HTTP", () => {
  it("is read as the API server's own", async (test) => {
    const { name: namespace } = await aNamespaceWithPool(test, 3);
    for (const version of ["v1alpha1", "v1beta1"]) {
      const { status, body } = await send(namespace, { version });
      const own = JSON.parse(
        await world.kubectl(
          "get",
          "--raw",
          `/apis/pool.kubevirt.io/${version}/namespaces/${namespace}/virtualmachinepools/${POOL}/scale`,
        ),
      );
      expect(status).toBe(200);
      expect(body).toEqual({ ...own, status: { replicas: 0, ...own.status } });
    }
  });

  it("is changed by a merge patch, which alone makes the machines", async (test) => {
    const namespace = await aNamespaceWithPool(test, 0);
    const sent = { method: "PATCH", type: MERGE, body: { spec: { replicas: 3 } } };
    expect(await send(namespace.name, sent)).toMatchObject({ status: 200, body: { spec: { replicas: 3 } } });
    await untilMachines(namespace, machineNames(POOL, 3));
  });

  it("is changed by a PUT of what was read, once", async (test) => {
    const namespace = await aNamespaceWithPool(test, 3);
    const { body: scale } = await send(namespace.name);
    const sent = { method: "PUT", type: JSON_TYPE, body: { ...scale, spec: { replicas: 4 } } };
    expect(await send(namespace.name, sent)).toMatchObject({ status: 200, body: { spec: { replicas: 4 } } });
    expect(await send(namespace.name, sent)).toMatchObject({
      status: 409,
      body: { kind: "Status", reason: "Conflict", code: 409 },
    });
    expect(await replicasOf(namespace)).toBe(4);
  });

  it("refuses a PUT for another incarnation of the pool", async (test) => {
    const { name } = await aNamespaceWithPool(test, 3);
    const metadata = { uid: "00000000-0000-4000-8000-000000000000" };
    const sent = { method: "PUT", type: JSON_TYPE, body: { metadata, spec: { replicas: 4 } } };
    expect(await send(name, sent)).toMatchObject({ status: 409, body: { reason: "Conflict" } });
  });

  it("refuses a PUT that names another pool", async (test) => {
    const { name } = await aNamespaceWithPool(test, 3);
    const sent = { method: "PUT", type: JSON_TYPE, body: { metadata: { name: "other" }, spec: { replicas: 4 } } };
    expect(await send(name, sent)).toMatchObject({ status: 400, body: { reason: "BadRequest" } });
  });

  it("lets the last write win where no version is given", async (test) => {
    const namespace = await aNamespaceWithPool(test, 0);
    const counts = [1, 2, 3, 4, 5, 6, 7, 8];
    const answers = await Promise.all(
      counts.map((replicas) => send(namespace.name, { method: "PATCH", type: MERGE, body: { spec: { replicas } } })),
    );
    expect(answers.map(({ status }) => status)).toEqual(counts.map(() => 200));
    expect(counts).toContain(await replicasOf(namespace));
  });

  it("honours the version that a merge patch carries", async (test) => {
    const namespace = await aNamespaceWithPool(test, 3);
    const { body: scale } = await send(namespace.name);
    const patch = (replicas: number) => ({
      method: "PATCH",
      type: MERGE,
      body: { metadata: { resourceVersion: versionOf(scale) }, spec: { replicas } },
    });
    expect(await send(namespace.name, patch(4))).toMatchObject({ status: 200 });
    expect(await send(namespace.name, patch(5))).toMatchObject({ status: 409, body: { reason: "Conflict" } });
    expect(await replicasOf(namespace)).toBe(4);
  });

  it("is compared and swapped by a JSON patch, from 0 too", async (test) => {
    const namespace = await aNamespaceWithPool(test, 0);
    const swap = (from: number, to: number) => ({
      method: "PATCH",
      type: JSON_PATCH,
      body: [
        { op: "test", path: "/spec/replicas", value: from },
        { op: "replace", path: "/spec/replicas", value: to },
      ],
    });
    expect(await send(namespace.name, swap(0, 2))).toMatchObject({ status: 200, body: { spec: { replicas: 2 } } });
    expect(await send(namespace.name, swap(0, 9))).toMatchObject({ status: 422, body: { reason: "Invalid" } });
    expect(await send(namespace.name, swap(2, 0))).toMatchObject({ status: 200, body: { spec: { replicas: 0 } } });
    expect(await replicasOf(namespace)).toBe(0);
  });

  it("can be set where the pool does not say how many", async (test) => {
    const namespace = await aNamespaceWithPool(test, undefined);
    const sent = { method: "PATCH", type: MERGE, body: { spec: { replicas: 2 } } };
    expect(await send(namespace.name, sent)).toMatchObject({ status: 200, body: { spec: { replicas: 2 } } });
  });

  it("leaves the rest of the pool alone, and no pass undone", async (test) => {
    const namespace = await aNamespaceWithPool(test, 1);
    const before = await namespace.pool(POOL);
    await send(namespace.name, { method: "PATCH", type: MERGE, body: { spec: { replicas: 2 } } });
    await untilMachines(namespace, machineNames(POOL, 2));
    await untilSettled(world, { namespace, name: POOL }, { replicas: 2 });
    const after = await namespace.pool(POOL);
    expect(after?.spec).toEqual({ ...(isRecord(before?.spec) ? before.spec : {}), replicas: 2 });
    expect(after?.metadata.labels).toEqual(before?.metadata.labels);
  });

  it.each<[string, Sent, number, string]>([
    ["a pool that does not exist", { name: "missing" }, 404, "NotFound"],
    ["a version that is not served", { version: "v1" }, 404, "NotFound"],
    ["a cluster that is not registered", { cluster: "other" }, 404, "NotFound"],
    ["a namespace that is not served", { cluster: "narrow" }, 403, "Forbidden"],
    ["a change where it only looks", { cluster: "watched", method: "PATCH", type: MERGE, body: {} }, 403, "Forbidden"],
    ["less than nothing", { method: "PATCH", type: MERGE, body: { spec: { replicas: -1 } } }, 422, "Invalid"],
    ["YAML", { method: "PATCH", type: "application/yaml", body: {} }, 415, "UnsupportedMediaType"],
  ])("refuses %s as Kubernetes would", async (_what, sent, code, reason) => {
    expect(await send("default", sent)).toMatchObject({ status: code, body: { kind: "Status", code, reason } });
  });

  it("asks for the token", async () => {
    const { status, body } = await send("default", { token: "another" });
    expect({ status, body }).toMatchObject({ status: 401, body: { status: 401 } });
  });
});

describe.concurrent("an event that asks for scale", () => {
  const anEvent = (namespace: string, fields: object, envelope: object = {}) => ({
    "detail-type": "Virtual Machine Pool Scale Requested",
    source: "my.clock",
    detail: { version: 1, cluster: "local", namespace, name: POOL, requestedAt: new Date().toISOString(), ...fields },
    ...envelope,
  });

  it("scales the pool within its bounds", async (test) => {
    const namespace = await aNamespaceWithPool(test, 0);
    const event = anEvent(namespace.name, { replicas: 40, maxReplicas: 2 });
    expect(await sendEvent(event)).toEqual({ status: 200, body: { outcome: "scaled", replicas: 2 } });
    await untilMachines(namespace, machineNames(POOL, 2));
  });

  it("scales it only from what it expects", async (test) => {
    const namespace = await aNamespaceWithPool(test, 0);
    const event = anEvent(namespace.name, { replicas: 2, expectedReplicas: 0 });
    expect(await sendEvent(event)).toMatchObject({ body: { outcome: "scaled" } });
    const other = anEvent(namespace.name, { replicas: 3, expectedReplicas: 0 });
    expect(await sendEvent(other)).toMatchObject({ status: 422, body: { outcome: "refused", reason: "unexpected" } });
    expect(await replicasOf(namespace)).toBe(2);
  });

  it("does nothing when it is old, or from an archive", async (test) => {
    const namespace = await aNamespaceWithPool(test, 0);
    const old = anEvent(namespace.name, { replicas: 2, requestedAt: "2026-01-01T00:00:00Z" });
    expect(await sendEvent(old)).toMatchObject({ body: { outcome: "refused", reason: "stale" } });
    const replayed = anEvent(namespace.name, { replicas: 2 }, { "replay-name": "last-week" });
    expect(await sendEvent(replayed)).toMatchObject({ body: { outcome: "refused", reason: "replayed" } });
    expect(await replicasOf(namespace)).toBe(0);
  });

  it("is not taken for another kind of event", async () => {
    expect(await sendEvent({ "detail-type": "Scheduled Event", detail: {} })).toMatchObject({ status: 400 });
  });
});
