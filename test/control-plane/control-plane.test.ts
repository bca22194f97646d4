import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Agent, request } from "undici";
import { afterAll, beforeAll, expect, it, onTestFinished } from "vitest";
import { parse } from "yaml";
import { type Binaries, findBinaries } from "../../infra/local/control-plane/binaries.ts";
import {
  type ControlPlane,
  type ControlPlaneOptions,
  startControlPlane,
} from "../../infra/local/control-plane/control-plane.ts";
import {
  applyManifests,
  type Manifest,
  parseManifests,
  waitForCrds,
} from "../../infra/local/control-plane/manifests.ts";
import { runCommand } from "../../infra/local/control-plane/processes.ts";
import { type ApiResponse, type Connection, openConnection } from "../../shared/clusters/connection.ts";
import { aFolder, never, pidOf, processesWith, until } from "./support.ts";

/** The first run of all may build the programs. */
const BINARIES_TIMEOUT_MS = 30 * 60_000;
const START_TIMEOUT_MS = 60_000;

let binaries: Binaries;
let dir: string;
let controlPlane: ControlPlane;
let connection: Connection;

function start(where: string, changes: Partial<ControlPlaneOptions> = {}): Promise<ControlPlane> {
  return startControlPlane({ dir: where, binaries, onProgress: () => undefined, signal: never(), ...changes });
}

/** One more control plane, for the length of the test. */
async function startOneMore(where: string): Promise<{ readonly plane: ControlPlane; readonly connection: Connection }> {
  const plane = await start(where);
  const open = openConnection(plane.access);
  onTestFinished(async () => {
    await open.close();
    await plane.stop();
  });
  return { plane, connection: open };
}

function send(method: "GET" | "DELETE", path: string, to = connection): Promise<ApiResponse> {
  return to.send({ method, path, signal: AbortSignal.timeout(10_000) });
}

async function apply(text: string, to = connection): Promise<readonly Manifest[]> {
  const objects = parseManifests(text);
  await applyManifests(to, objects, { signal: never() });
  return objects;
}

const aConfigMap = (name: string, metadata = "") =>
  `{apiVersion: v1, kind: ConfigMap, metadata: {name: ${name}, namespace: default${metadata}}}`;

beforeAll(async () => {
  binaries = await findBinaries({ env: process.env, onProgress: () => undefined, signal: never() });
}, BINARIES_TIMEOUT_MS);

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "control-plane-test-"));
  controlPlane = await start(dir);
  connection = openConnection(controlPlane.access);
}, START_TIMEOUT_MS);

afterAll(async () => {
  await connection.close();
  await controlPlane.stop();
  expect(processesWith(dir)).toEqual([]);
  expect(existsSync(controlPlane.kubeconfigPath)).toBe(false);
  rmSync(dir, { recursive: true, force: true });
}, START_TIMEOUT_MS);

it("is ready and speaks as the version that is pinned", async () => {
  expect(await send("GET", "/readyz")).toMatchObject({ status: 200, body: "ok" });
  expect((await send("GET", "/version")).body).toMatchObject({ major: "1", minor: "35" });
});

it("lets nobody in who is not known", async () => {
  const { certificateAuthorityData = "", server } = controlPlane.access;
  const auth = { kind: "token", token: "unknown" } as const;
  const stranger = openConnection({ server, certificateAuthorityData, auth, mode: "act" });
  const dispatcher = new Agent({ connect: { ca: Buffer.from(certificateAuthorityData, "base64") } });
  onTestFinished(() => Promise.all([stranger.close(), dispatcher.close()]).then(() => undefined));

  expect((await send("GET", "/api/v1/pods", stranger)).status).toBe(401);
  expect((await request(`${server}/api/v1/pods`, { dispatcher })).statusCode).toBe(403);
  expect(server).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
});

it("shows its data to its own components only", async () => {
  const etcd = /--listen-client-urls=(\S+)/.exec(processesWith(`${dir}/data`).join(" "))?.[1];
  const ca = Buffer.from(controlPlane.access.certificateAuthorityData ?? "", "base64");
  const dispatcher = new Agent({ connect: { ca } });
  onTestFinished(() => dispatcher.close());

  await expect(request(`${etcd}/version`, { dispatcher })).rejects.toThrow(/certificate required|closed|reset/);
});

it("writes a kubeconfig with which kubectl is admin, and which nobody else can read", async () => {
  const { kubeconfigPath } = controlPlane;
  const env = { PATH: "/usr/bin:/bin", KUBECONFIG: kubeconfigPath, HOME: dir };

  const allowed = await runCommand(binaries.kubectl, ["auth", "can-i", "*", "*"], { env, signal: never() });

  expect(allowed).toMatchObject({ code: 0, stdout: "yes\n" });
  expect(statSync(kubeconfigPath).mode & 0o777).toBe(0o600);
  expect(parse(readFileSync(kubeconfigPath, "utf8"))).toMatchObject({
    "current-context": "local",
    clusters: [{ name: "local" }],
    users: [{ name: "admin" }],
  });
});

it("grants by RBAC: a service account may do nothing until it is bound", async () => {
  const path = "/api/v1/namespaces/default/serviceaccounts/default";
  await until(async () => (await send("GET", path)).status === 200);
  const answer = await connection.send({
    method: "POST",
    path: `${path}/token`,
    body: { apiVersion: "authentication.k8s.io/v1", kind: "TokenRequest", spec: {} },
    signal: never(),
  });
  const { token } = Object(Object(answer.body).status);
  const account = openConnection({ ...controlPlane.access, auth: { kind: "token", token: String(token) } });
  onTestFinished(() => account.close());

  expect((await send("GET", "/api/v1/namespaces/default/pods", account)).status).toBe(403);
});

it("establishes a CRD and serves its objects", async () => {
  const schema = "{openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}";
  const objects = await apply(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: things, kind: Thing}
  versions: [{name: v1, served: true, storage: true, schema: ${schema}}]
---
{apiVersion: example.com/v1, kind: Thing, metadata: {name: first}}`);

  await waitForCrds(connection, objects, { signal: never() });

  expect((await send("GET", "/apis/example.com/v1/namespaces/default/things/first")).status).toBe(200);
});

it("collects what an owner leaves", async () => {
  await apply(aConfigMap("owner"));
  const { uid } = Object(Object((await send("GET", "/api/v1/namespaces/default/configmaps/owner")).body).metadata);
  await apply(aConfigMap("owned", `, ownerReferences: [{apiVersion: v1, kind: ConfigMap, name: owner, uid: ${uid}}]`));

  await send("DELETE", "/api/v1/namespaces/default/configmaps/owner");

  await until(async () => (await send("GET", "/api/v1/namespaces/default/configmaps/owned")).status === 404);
}, 60_000);

it("admits a pod, and puts it into the slices of its service", async () => {
  await apply(`
{apiVersion: v1, kind: Namespace, metadata: {name: served}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: served}, spec: {selector: {app: web}, ports: [{port: 80}]}}`);
  await until(async () => (await send("GET", "/api/v1/namespaces/served/serviceaccounts/default")).status === 200);

  await apply(`
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: served, labels: {app: web}}
spec: {containers: [{name: web, image: none}]}`);

  const slices = "/apis/discovery.k8s.io/v1/namespaces/served/endpointslices";
  await until(async () => Object((await send("GET", slices)).body).items.length === 1);
}, 60_000);

it("deletes a namespace with all that is in it", async () => {
  await apply(`
{apiVersion: v1, kind: Namespace, metadata: {name: gone}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: inside, namespace: gone}}`);

  await send("DELETE", "/api/v1/namespaces/gone");

  await until(async () => (await send("GET", "/api/v1/namespaces/gone")).status === 404);
}, 60_000);

it("refuses a second start in the same folder, and says who holds it", async () => {
  await expect(start(dir)).rejects.toMatchObject({
    kind: "setup",
    message: expect.stringContaining(`process ${process.pid}`),
    advice: expect.stringContaining("--dir"),
  });
  expect(existsSync(controlPlane.kubeconfigPath)).toBe(true);
});

it(
  "runs beside another one, which keeps its data when it starts again",
  async () => {
    const other = aFolder();
    const first = await start(other);
    const firstConnection = openConnection(first.access);
    await apply(aConfigMap("kept"), firstConnection);
    await firstConnection.close();
    await first.stop();

    const again = await startOneMore(other);

    const path = "/api/v1/namespaces/default/configmaps/kept";
    expect((await send("GET", path, again.connection)).status).toBe(200);
    expect((await send("GET", path)).status).toBe(404);
  },
  2 * START_TIMEOUT_MS,
);

it(
  "leaves no process behind when its owner is killed, and starts again in that folder",
  async () => {
    const folder = aFolder();
    const owner = spawn(process.execPath, [join(import.meta.dirname, "owner.ts"), folder], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(owner.stdout, "data");
    expect(processesWith(folder).length).toBeGreaterThan(3);

    owner.kill("SIGKILL");

    await until(() => processesWith(folder).length === 0);

    const { connection: again } = await startOneMore(folder);
    expect((await send("GET", "/readyz", again)).status).toBe(200);
  },
  2 * START_TIMEOUT_MS,
);

it(
  "tells when a component is gone that nobody stopped, and still stops the others",
  async () => {
    const folder = aFolder();
    const { plane } = await startOneMore(folder);

    process.kill(pidOf(`--data-dir=${folder}/data`), "SIGKILL");

    expect(await plane.died).toMatch(/^etcd was ended by SIGKILL/);
    await plane.stop();
    await until(() => processesWith(folder).length === 0);
  },
  START_TIMEOUT_MS,
);

it(
  "says why the start failed when a component ends at once",
  async () => {
    const starting = start(aFolder(), { extraApiserverFlags: ["--no-such-flag"] });

    await expect(starting).rejects.toMatchObject({
      kind: "setup",
      message: "kube-apiserver exited with code 1.",
      advice: expect.stringContaining("unknown flag: --no-such-flag"),
    });
  },
  START_TIMEOUT_MS,
);

it(
  "stops everything when the start is given up",
  async () => {
    const folder = aFolder();
    const stop = new AbortController();
    const beforeControllers = async () => stop.abort(new Error("interrupted"));

    await expect(start(folder, { signal: stop.signal, beforeControllers })).rejects.toThrow("interrupted");

    expect(processesWith(folder)).toEqual([]);
    expect(existsSync(join(folder, "kubeconfig"))).toBe(false);
  },
  START_TIMEOUT_MS,
);
