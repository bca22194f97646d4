import { expect, it } from "vitest";
import { applyManifests, parseManifests, waitForCrds } from "../../infra/local/control-plane/manifests.ts";
import type { ApiRequest, ApiResponse, Connection } from "../../shared/clusters/connection.ts";
import { never } from "./support.ts";

const CORE = {
  resources: [
    { name: "namespaces", kind: "Namespace", namespaced: false },
    { name: "configmaps", kind: "ConfigMap", namespaced: true },
    { name: "configmaps/status", kind: "ConfigMap", namespaced: true },
  ],
};

/** A server that answers with what `answer` returns, 200 and nothing unless told otherwise. */
function aServer(answer: (request: ApiRequest) => { readonly status?: number; readonly body?: unknown }) {
  const requests: ApiRequest[] = [];
  const send = async (request: ApiRequest): Promise<ApiResponse> => {
    requests.push(request);
    return { status: 200, headers: {}, body: {}, bytes: 0, ...answer(request) };
  };
  const connection: Connection = { send, watch: () => neverAny(), close: async () => undefined };
  return { connection, requests };
}

async function* neverAny(): AsyncIterable<unknown> {}

const [namespace, map, otherMap] = parseManifests(`
apiVersion: v1
kind: Namespace
metadata: {name: ci}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: ci}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: b}
`);

it("reads all documents of a file in order, and skips empty ones", () => {
  const objects = parseManifests(`---\n${JSON.stringify(namespace)}\n---\n# nothing\n---\n${JSON.stringify(map)}\n`);

  expect(objects).toEqual([namespace, map]);
});

it.each([["metadata: {name: a}"], ["kind: [unclosed"], ["just text"]])("refuses %j", (text) => {
  expect(() => parseManifests(text)).toThrow();
});

it("applies each object at its own path as one field manager that takes over", async () => {
  const server = aServer(({ method }) => (method === "GET" ? { body: CORE } : {}));

  await applyManifests(
    server.connection,
    [namespace, map, otherMap].flatMap((one) => one ?? []),
    { signal: never() },
  );

  const applied = server.requests.filter(({ method }) => method === "PATCH");
  const query = "?fieldManager=vmpool-functions-local&force=true";
  expect(applied.map(({ path }) => path)).toEqual([
    `/api/v1/namespaces/ci${query}`,
    `/api/v1/namespaces/ci/configmaps/a${query}`,
    `/api/v1/namespaces/default/configmaps/b${query}`,
  ]);
  expect(new Set(applied.map(({ contentType }) => contentType))).toEqual(new Set(["application/apply-patch+yaml"]));
  expect(applied[1]?.body).toEqual(map);
  expect(server.requests).toHaveLength(4);
});

it("applies the rest when some fail, and tells all failures", async () => {
  const server = aServer(({ method, path }) => {
    if (method === "GET") return { body: CORE };
    if (path.includes("/configmaps/b")) return { status: 422, body: { kind: "Status", message: "b is invalid" } };
    if (path.includes("/namespaces/ci?")) throw new Error("reset");
    return {};
  });

  const applying = applyManifests(
    server.connection,
    [namespace, map, otherMap].flatMap((one) => one ?? []),
    {
      signal: never(),
    },
  );

  await expect(applying).rejects.toMatchObject({
    kind: "apply",
    failures: [
      { kind: "Namespace", name: "ci", message: "reset" },
      { kind: "ConfigMap", name: "b", status: 422, message: "422 b is invalid" },
    ],
  });
  expect(server.requests.some(({ path }) => path.includes("/configmaps/a"))).toBe(true);
});

it("asks again for a kind that the server does not know yet", async () => {
  let asked = 0;
  const server = aServer(({ method }) => {
    if (method !== "GET") return {};
    asked++;
    return asked < 3 ? { status: 404 } : { body: CORE };
  });

  await applyManifests(server.connection, map === undefined ? [] : [map], { signal: never() });

  expect(asked).toBe(3);
});

it("waits until a CRD is established and each served version answers a list", async () => {
  const crd = {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: "things.example.com" },
    spec: {
      group: "example.com",
      names: { plural: "things" },
      versions: [
        { name: "v1", served: true },
        { name: "v2", served: true },
        { name: "v0", served: false },
      ],
    },
  };
  let step = 0;
  const server = aServer(({ path }) => {
    step++;
    if (path.includes("customresourcedefinitions")) {
      return { body: step < 2 ? crd : { ...crd, status: { conditions: [{ type: "Established", status: "True" }] } } };
    }
    return { status: path.includes("/v2/") && step < 6 ? 404 : 200 };
  });

  await waitForCrds(server.connection, [crd], { signal: never() });

  const lists = server.requests.map(({ path }) => path).filter((path) => path.includes("/apis/example.com/"));
  expect(lists.at(-1)).toBe("/apis/example.com/v2/things?limit=1");
  expect(lists.some((path) => path.includes("/v0/"))).toBe(false);
});
