/** What RBAC has to allow: every right of the role is used by the functions, and they use no other. */
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import * as z from "zod";
import { createFleet } from "../../functions/fleet.ts";
import { createResync } from "../../functions/resync.ts";
import { createScale } from "../../functions/scale.ts";
import { manifestsFor, type Right, rightsIn, rightsNeeded } from "../../infra/kubernetes/manifests.ts";
import { applyManifests, readManifests } from "../../infra/local/control-plane/manifests.ts";
import { lambdaContext } from "../../infra/local/runtime/lambda-context.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { type Connection, openConnection } from "../../shared/clusters/connection.ts";
import { createDirectory } from "../../shared/clusters/directory.ts";
import { type Driven, driveFunctions } from "../support/driven.ts";
import { eventually } from "../support/eventually.ts";
import { aPool } from "../support/pool-manifests.ts";
import { formatRight, type RightsRecorder, recordRights } from "../support/rights.ts";
import { changeGuest, mergePatch } from "../support/rollouts.ts";
import {
  CLUSTER_NAME,
  type Namespace,
  ROOT,
  registryOf,
  startTestCluster,
  type TestCluster,
  WORLD_TIMEOUT_MS,
} from "../support/world.ts";

const POOL = "web";
const NO_CONDITIONS = JSON.stringify([{ op: "remove", path: "/status/conditions" }]);
/** Longer than a pass waits for KubeVirt to see a new template. */
const SEEN_MS = 60_000;

/**
 * Asked for by the admission plugin OwnerReferencesPermissionEnforcement, not by a request of their own: whoever makes an
 * object block its owner's deletion, and whoever changes an object's owners.
 */
const OF_THE_PLUGIN = [
  { right: "/persistentvolumeclaims delete", refused: ["/persistentvolumeclaims patch"] },
  { right: "cdi.kubevirt.io/datavolumes delete", refused: ["cdi.kubevirt.io/datavolumes patch"] },
  {
    right: "pool.kubevirt.io/virtualmachinepools/finalizers update",
    refused: ["apps/controllerrevisions create", "kubevirt.io/virtualmachines create"],
  },
];

const OPTIONS = { cluster: CLUSTER_NAME, endpoint: "https://example.com", sources: [], users: false } as const;

let world: TestCluster;

beforeAll(async () => {
  world = await startTestCluster({ standIn: false, webhooks: false });
}, WORLD_TIMEOUT_MS);

afterAll(() => world.stop());

/** The functions at work as one identity, with what they use recorded. */
interface Scene {
  readonly functions: Driven;
  readonly recorder: RightsRecorder;
  readonly access: ServerAccess;
}

function aScene(access: ServerAccess = world.functionsAccess): Scene {
  const recorder = recordRights();
  const { logger } = world;
  return { recorder, access, functions: driveFunctions({ access, logger, connect: recorder.connect }) };
}

const at = (namespace: Namespace) => ({ namespace: namespace.name, name: POOL });

/** The machine as an owner, as KubeVirt and CDI write it. */
async function ownerOf(namespace: Namespace, machine: string) {
  const found = await namespace.machine(machine);
  if (found === undefined) throw new Error(`there is no machine ${machine}`);
  const { uid } = found.metadata;
  return { apiVersion: "kubevirt.io/v1", kind: "VirtualMachine", name: machine, uid, controller: true };
}

/** As KubeVirt does: the machine's guest runs and is ready. */
async function run(namespace: Namespace, machine: string): Promise<void> {
  const { metadata } = (await namespace.machine(machine)) ?? { metadata: { labels: {} } };
  await namespace.create({
    apiVersion: "kubevirt.io/v1",
    kind: "VirtualMachineInstance",
    metadata: { name: machine, labels: metadata.labels, ownerReferences: [await ownerOf(namespace, machine)] },
    spec: { domain: { devices: {} } },
    status: { phase: "Running", conditions: [{ type: "Ready", status: "True" }] },
  });
}

/** A pool that changes its guests, its labels and what cannot be, and goes. */
async function followTemplates({ functions }: Scene): Promise<void> {
  const namespace = await world.aNamespace();
  await namespace.create(aPool(POOL, { replicas: 2 }));
  await functions.settle(at(namespace));
  await run(namespace, `${POOL}-0`);
  // A guest that is said to run and is not found with the others is looked for by name.
  await mergeStatus(namespace, `${POOL}-1`, { created: true });
  const domain = { cpu: { cores: 1, sockets: 1 }, memory: { guest: "2Gi" } };
  await changeGuest(namespace, POOL, { domain });
  await functions.settle(at(namespace));
  functions.waitMs(SEEN_MS);
  await functions.settle(at(namespace));
  await run(namespace, `${POOL}-0`);
  await mergePatch(namespace, "vmpool", POOL, {
    spec: { virtualMachineTemplate: { metadata: { annotations: { "example.com/note": "new" } } } },
  });
  await functions.settle(at(namespace));
  // Running guests may be able to take this as they are.
  await changeGuest(namespace, POOL, { domain: { cpu: { sockets: 2 } } });
  await functions.settle(at(namespace));
  functions.waitMs(SEEN_MS);
  await functions.settle(at(namespace));
  await mergePatch(namespace, "vmpool", POOL, { spec: { maxUnavailable: "none" } });
  await functions.pass(at(namespace));
  // What is told of a mistake is told again where somebody has wiped it away.
  await namespace.kubectl("patch", "vmpool", POOL, "--subresource=status", "--type=json", "--patch", NO_CONDITIONS);
  await functions.pass(at(namespace));
  await remove({ functions }, namespace);
}

async function remove({ functions }: Pick<Scene, "functions">, namespace: Namespace): Promise<void> {
  await namespace.kubectl("delete", "vmpool", POOL, "--wait=false");
  await eventually(async () => {
    await functions.pass(at(namespace));
    expect(await namespace.pool(POOL)).toBeUndefined();
    expect(await namespace.machines()).toEqual([]);
  });
}

function changeImage(namespace: Namespace, image: string): Promise<void> {
  return changeGuest(namespace, POOL, { volumes: [{ name: "containerdisk", containerDisk: { image } }] });
}

async function mergeStatus(namespace: Namespace, machine: string, status: object): Promise<void> {
  const patch = JSON.stringify({ status });
  await namespace.kubectl("patch", "vm", machine, "--subresource=status", "--type=merge", "--patch", patch);
}

/** A guest that does not start again by itself is asked to. */
async function askForRestart({ functions }: Scene): Promise<void> {
  const namespace = await world.aNamespace();
  await namespace.create(aPool(POOL, { machine: { running: undefined, runStrategy: "Manual" } }));
  await functions.settle(at(namespace));
  await run(namespace, `${POOL}-0`);
  await changeImage(namespace, "cirros:2");
  await functions.settle(at(namespace));
  functions.waitMs(SEEN_MS);
  await functions.settle(at(namespace));
}

/** Machines with a disk each, one of which CDI has left as a mere claim; they outlive the machines. */
async function keepDisks({ functions }: Scene): Promise<Namespace> {
  const namespace = await world.aNamespace();
  const storage = { resources: { requests: { storage: "1Gi" } } };
  const template = { metadata: { name: "disk" }, spec: { source: { blank: {} }, storage } };
  await namespace.create(
    aPool(POOL, {
      replicas: 2,
      spec: { scaleInStrategy: { proactive: { statePreservation: "Offline" } } },
      machine: { dataVolumeTemplates: [template] },
      volumes: [{ name: "root", dataVolume: { name: "disk" } }],
    }),
  );
  await functions.settle(at(namespace));
  await namespace.create(
    {
      ...template,
      apiVersion: "cdi.kubevirt.io/v1beta1",
      kind: "DataVolume",
      metadata: { name: "disk-0", ownerReferences: [await ownerOf(namespace, `${POOL}-0`)] },
    },
    {
      apiVersion: "v1",
      kind: "PersistentVolumeClaim",
      metadata: { name: "disk-1", ownerReferences: [await ownerOf(namespace, `${POOL}-1`)] },
      spec: { accessModes: ["ReadWriteOnce"], ...storage },
    },
  );
  await functions.settle(at(namespace));
  return namespace;
}

/** By HTTP, as clients of autoscaling/v1 do it. */
async function scaleOverHttp(scene: Scene, { name: namespace }: Namespace): Promise<void> {
  const scale = createScale(() => ({ ...depsOf(scene), sleep: async () => undefined }));
  const request = (method: string, type: string, body?: object) =>
    scale(
      {
        version: "2.0",
        rawPath: "/",
        headers: { "content-type": type },
        pathParameters: { cluster: CLUSTER_NAME, version: "v1beta1", namespace, name: POOL },
        requestContext: { http: { method }, authorizer: {} },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        isBase64Encoded: false,
      },
      lambdaContext("scale", 25_000),
    );
  expect(await request("GET", "application/json")).toMatchObject({ statusCode: 200 });
  expect(await request("PUT", "application/json", { spec: { replicas: 1 } })).toMatchObject({ statusCode: 200 });
  expect(await request("PATCH", "application/merge-patch+json", { spec: { replicas: 2 } })).toMatchObject({
    statusCode: 200,
  });
}

function depsOf({ access, recorder }: Scene) {
  const now = Date.now;
  const directory = createDirectory({
    registry: registryOf({ [CLUSTER_NAME]: access }),
    now,
    connect: recorder.connect,
  });
  return { directory, wakeUps: { send: async () => [] }, now, logger: world.logger };
}

async function resync(scene: Scene): Promise<void> {
  const handler = createResync(() => ({ ...depsOf(scene), rules: { settledMinutes: 10, everything: true } }));
  expect(await handler({}, lambdaContext("resync", 50_000))).toMatchObject({ unreachable: 0 });
}

describe("the functions", () => {
  it("use every right that they have, and no other", async () => {
    const scene = aScene();
    await followTemplates(scene);
    await askForRestart(scene);
    const namespace = await keepDisks(scene);
    await scaleOverHttp(scene, namespace);
    await resync(scene);
    await remove(scene, namespace);
    expect([...scene.recorder.refused]).toEqual([]);
    const rights = rightsNeeded().map(formatRight);
    expect([...scene.recorder.used, ...OF_THE_PLUGIN.map(({ right }) => right)].sort()).toEqual(rights.sort());
  });

  it.each(OF_THE_PLUGIN)("say what the plugin refuses without $right", async ({ right, refused }) => {
    await withoutRight(right, async () => {
      const scene = aScene();
      const namespace = right.includes("finalizers") ? await aNewPool() : await keepDisks(scene);
      const { result } = await scene.functions.pass(at(namespace));
      expect(result.failures.join()).toMatch(/is forbidden: cannot set/);
      expect([...scene.recorder.refused].sort()).toEqual(refused);
    });
  });
});

async function aNewPool(): Promise<Namespace> {
  const namespace = await world.aNamespace();
  await namespace.create(aPool(POOL));
  return namespace;
}

/** Takes one right of the role away for a while. */
async function withoutRight(right: string, act: () => Promise<void>): Promise<void> {
  const all = rightsNeeded().filter(({ scope }) => scope === "namespace");
  const [taken] = all.filter((one) => formatRight(one) === right);
  if (taken === undefined) throw new Error(`the role has no ${right}`);
  const connection = openConnection(world.functionsAccess);
  const untilAllowed = (allowed: boolean) => eventually(async () => expect(await may(connection, taken)).toBe(allowed));
  try {
    await applyRole(all.filter((one) => one !== taken));
    await untilAllowed(false);
    await act();
  } finally {
    await applyRole(all);
    await untilAllowed(true);
    await connection.close();
  }
}

async function applyRole(rights: readonly Right[]): Promise<void> {
  const rules = rights.map(({ group, resource, subresource, verb }) => ({
    apiGroups: [group],
    resources: [subresource === undefined ? resource : `${resource}/${subresource}`],
    verbs: [verb],
  }));
  const [apiVersion, kind] = ["rbac.authorization.k8s.io/v1", "ClusterRole"];
  const role = { apiVersion, kind, metadata: { name: "vmpool-functions" }, rules };
  await applyManifests(world.connection, [role], { signal: AbortSignal.timeout(30_000) });
}

/** In all namespaces, or in one. */
async function may(connection: Connection, right: Right, namespace?: string): Promise<boolean> {
  const { scope: _, ...attributes } = right;
  const { body } = await connection.send({
    method: "POST",
    path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    body: { spec: { resourceAttributes: { ...attributes, ...(namespace && { namespace }) } } },
    signal: AbortSignal.timeout(30_000),
  });
  return z.object({ status: z.object({ allowed: z.boolean() }) }).parse(body).status.allowed;
}

/** As `kubectl apply` does it, which refuses unknown fields. */
async function apply(objects: readonly object[]): Promise<void> {
  const stdin = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
  const { ok, stderr } = await world.tryKubectl(["apply", "-f", "-"], { stdin });
  expect(ok, stderr).toBe(true);
}

const secretSchema = z.object({ data: z.object({ token: z.string() }) });

/** By the token of the ServiceAccount that the manifests make in the namespace. */
async function tokenAccess(namespace: string): Promise<ServerAccess> {
  return eventually(async () => {
    const secret = await world.kubectl("get", "secret", "vmpool-functions", "-n", namespace, "-o", "json");
    const { data } = secretSchema.parse(JSON.parse(secret));
    const auth = { kind: "token", token: Buffer.from(data.token, "base64").toString("utf8") } as const;
    const { server, certificateAuthorityData } = world.access;
    return { server, ...(certificateAuthorityData && { certificateAuthorityData }), auth, mode: "act" };
  });
}

describe("a deployment that only shows pools", () => {
  it("reads what a pass reads, and writes nothing", async () => {
    const objects = await readManifests(join(ROOT, "infra/kubernetes/fleet.yaml"));
    const identity = { kind: "serviceAccount", namespace: "page" } as const;
    const account = manifestsFor({ ...OPTIONS, identity, namespaces: [] });
    const subject = "--serviceaccount=page:vmpool-functions";
    await apply([...objects, ...account]);
    await world.kubectl("create", "clusterrolebinding", "page", "--clusterrole=vmpool-functions-fleet", subject);
    const access = await tokenAccess(identity.namespace);
    const functions = aScene();
    const namespace = await keepDisks(functions);
    const scene = aScene({ ...access, mode: "observe" });
    const fleet = createFleet(() => depsOf(scene));
    const show = (pathParameters: Readonly<Record<string, string>>) =>
      fleet(
        {
          version: "2.0",
          rawPath: "/",
          pathParameters,
          requestContext: { http: { method: "GET" }, authorizer: {} },
          isBase64Encoded: false,
        },
        lambdaContext("fleet", 25_000),
      );
    await resync(scene);
    const all = await show({});
    expect(all).toMatchObject({ statusCode: 200, body: expect.stringContaining(namespace.name) });
    const { name } = namespace;
    await namespace.kubectl("delete", "vm", `${POOL}-0`, `${POOL}-1`, "--wait=false");
    const one = await show({ cluster: CLUSTER_NAME, namespace: name, name: POOL });
    expect(one).toMatchObject({ statusCode: 200, body: expect.stringContaining("it outlives the machine") });
    expect([...scene.recorder.refused]).toEqual([]);

    // A look is the beginning of a pass: it may need whatever a pass reads.
    const reads = rightsNeeded().filter(
      ({ verb, resource, subresource }) =>
        (verb === "get" || verb === "list") && subresource === undefined && resource !== "events",
    );
    const allowed = rightsIn(objects.filter(({ kind }) => kind === "ClusterRole"));
    expect(allowed.map(formatRight).sort()).toEqual(reads.map(formatRight).sort());
  });
});

describe("a cluster of which some namespaces are served", () => {
  it("lets the functions do their work there and read nothing elsewhere", async () => {
    const [served, other] = [await world.aNamespace(), await world.aNamespace()];
    const identity = { kind: "serviceAccount", namespace: "vmpool-functions" } as const;
    const namespaces = [served.name];
    await apply(manifestsFor({ ...OPTIONS, identity, namespaces }));
    const access: ServerAccess = { ...(await tokenAccess(identity.namespace)), namespaces };
    const scene = aScene(access);
    await resync(scene);
    await served.create(aPool(POOL, { replicas: 2 }));
    await scene.functions.settle(at(served));
    expect(await served.pool(POOL)).toMatchObject({ status: { replicas: 2 } });
    await remove(scene, served);
    expect([...scene.recorder.refused]).toEqual([]);

    const connection = openConnection(access);
    const elsewhere = await Promise.all(
      rightsNeeded().map(async (right) => ({
        right: formatRight(right),
        here: await may(connection, right, served.name),
        there: await may(connection, right, right.scope === "cluster" ? undefined : other.name),
        isOfCluster: right.scope === "cluster",
      })),
    );
    await connection.close();
    expect(elsewhere.filter(({ here }) => !here)).toEqual([]);
    expect(elsewhere.filter(({ there, isOfCluster }) => there !== isOfCluster)).toEqual([]);
  });
});
