import { expect, it } from "vitest";
import {
  type Answer,
  type Cluster,
  CONTROLLER_REVISIONS,
  EVENTS,
  poolsOf,
  VIRTUAL_MACHINES,
} from "../../shared/clusters/cluster.ts";
import type { ApiRequest, ApiResponse } from "../../shared/clusters/connection.ts";
import {
  aCluster,
  aWire,
  lineOf,
  linesOf,
  networkError,
  ok,
  on,
  queryOf,
  type Reply,
  refusal,
  silence,
} from "../support/transport.ts";
import { aList, aPool, aVm, DATE, DISCOVERY, NOW, poolPath, served, VMS } from "../support/transport-objects.ts";

const POOLS = poolsOf("v1beta1");
const AT = { namespace: "ci", name: "web" };
const POOL = `GET ${poolPath()}`;
const LIST = `GET ${VMS}`;

/** What one request looks like to the network, without its signal. */
function shown({ signal: _signal, ...request }: ApiRequest): Omit<ApiRequest, "signal"> {
  return request;
}

/** The one request that a verb sends. */
async function requestOf(line: string, verb: (cluster: Cluster) => Promise<unknown>) {
  const wire = aWire(on(line, ok({})));
  await verb(aCluster(wire).cluster);
  return wire.sent.map(shown);
}

it("reads an object", async () => {
  expect(await requestOf(POOL, (cluster) => cluster.get(POOLS, AT))).toEqual([{ method: "GET", path: poolPath() }]);
});

it("creates an object in its namespace, under our name and with a short server time", async () => {
  const event = { kind: "Event" };

  expect(await requestOf("POST /api/v1/namespaces/ci/events", (cluster) => cluster.create(EVENTS, AT, event))).toEqual([
    {
      method: "POST",
      path: "/api/v1/namespaces/ci/events?fieldManager=vmpool-functions&timeout=10s",
      body: event,
    },
  ]);
});

it("creates nothing where it only asks", async () => {
  const line = `POST ${VMS}`;
  const [sent] = await requestOf(line, (cluster) => cluster.create(VIRTUAL_MACHINES, AT, {}, { dryRun: true }));
  expect(sent?.path).toBe(`${VMS}?dryRun=All&fieldManager=vmpool-functions&timeout=10s`);
});

it("names group and version in the path, except those of the core", async () => {
  const wire = aWire(on("GET /apis/apps/v1/namespaces/ci/controllerrevisions/web", ok({})));
  await aCluster(wire).cluster.get(CONTROLLER_REVISIONS, AT);

  expect(linesOf(wire)).toEqual(["GET /apis/apps/v1/namespaces/ci/controllerrevisions/web"]);
});

it("sends a JSON patch as such", async () => {
  const operations = [{ op: "test", path: "/metadata/uid", value: "u" }] as const;

  expect(
    await requestOf(`PATCH ${poolPath()}`, (cluster) => cluster.patch(POOLS, AT, { type: "json", operations })),
  ).toEqual([
    {
      method: "PATCH",
      path: `${poolPath()}?fieldManager=vmpool-functions&timeout=10s`,
      body: operations,
      contentType: "application/json-patch+json",
    },
  ]);
});

it("sends a merge patch of a subresource as such", async () => {
  const body = { status: {} };

  expect(
    await requestOf(`PATCH ${poolPath()}/status`, (cluster) =>
      cluster.patch(POOLS, AT, { type: "merge", body }, "status"),
    ),
  ).toEqual([
    {
      method: "PATCH",
      path: `${poolPath()}/status?fieldManager=vmpool-functions&timeout=10s`,
      body,
      contentType: "application/merge-patch+json",
    },
  ]);
});

it("deletes exactly the object that was read, in the version that was read", async () => {
  const preconditions = { uid: "u", resourceVersion: "7" };

  expect(
    await requestOf(`DELETE ${VMS}/web`, (cluster) => cluster.delete(VIRTUAL_MACHINES, AT, preconditions)),
  ).toEqual([
    {
      method: "DELETE",
      path: `${VMS}/web?timeout=10s`,
      body: { apiVersion: "v1", kind: "DeleteOptions", preconditions },
    },
  ]);
});

it("keeps a name with reserved characters within its part of the path", async () => {
  const wire = aWire(on(`GET ${VMS}/..%2F..%2Fsecrets%3Fx`, ok({})));
  const answer = await aCluster(wire).cluster.get(VIRTUAL_MACHINES, { namespace: "ci", name: "../../secrets?x" });

  expect(answer.ok).toBe(true);
});

it("lists consistently, by selector and in pages of 1,000 (D17)", async () => {
  const wire = aWire(on(LIST, aList([])));
  await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT, { labelSelector: "app in (a,b),tier!=c d" });

  expect(wire.sent.map(queryOf)).toEqual([{ limit: "1000", labelSelector: "app in (a,b),tier!=c d" }]);
  expect(wire.sent[0]?.accept).toBeUndefined();
});

it("lists every namespace, and everything, when none and no selector is given", async () => {
  const wire = aWire(on("GET /apis/kubevirt.io/v1/virtualmachines", aList([])));
  await aCluster(wire).cluster.list(VIRTUAL_MACHINES, {}, { labelSelector: "" });

  expect(wire.sent.map(queryOf)).toEqual([{ limit: "1000" }]);
});

it("asks for the metadata only when nothing more is needed", async () => {
  const wire = aWire(on(LIST, aList([])));
  await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT, { metadataOnly: true });

  expect(wire.sent[0]?.accept).toBe("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
});

it("joins the pages of a list, each asked for with the token of the one before", async () => {
  const wire = aWire(on(LIST, aList([aVm(0)], "a&b"), aList([aVm(1)], "c"), aList([aVm(2)])));
  const answer = await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT, {
    labelSelector: "app=web",
    metadataOnly: true,
  });

  expect(answer).toMatchObject({ ok: true, value: [aVm(0), aVm(1), aVm(2)] });
  expect(wire.sent.map(queryOf)).toEqual([
    { limit: "1000", labelSelector: "app=web" },
    { limit: "1000", labelSelector: "app=web", continue: "a&b" },
    { limit: "1000", labelSelector: "app=web", continue: "c" },
  ]);
  expect(new Set(wire.sent.map(({ accept }) => accept)).size).toBe(1);
});

it("takes an empty token for the end", async () => {
  const wire = aWire(on(LIST, aList([aVm(0)], "")));

  expect(await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT)).toMatchObject({ value: [aVm(0)] });
});

const EXPIRED = refusal(410, "Expired", "the token is too old");

it("starts a list over when its token has expired, and keeps nothing of the first try", async () => {
  const wire = aWire(on(LIST, aList([aVm(0)], "old"), EXPIRED, aList([aVm(1)], "new"), aList([aVm(2)])));

  expect(await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT)).toMatchObject({ value: [aVm(1), aVm(2)] });
});

it("starts a list over once only", async () => {
  const wire = aWire(on(LIST, aList([aVm(0)], "old"), EXPIRED, aList([aVm(1)], "new"), EXPIRED, aList([])));

  expect(await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT)).toMatchObject({
    ok: false,
    failure: { kind: "expired" },
  });
  expect(wire.sent).toHaveLength(4);
});

it("gives no half of a list when a page cannot be read", async () => {
  const wire = aWire(on(LIST, aList([aVm(0)], "next"), refusal(500, "InternalError")));

  expect(await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT)).toMatchObject({
    ok: false,
    failure: { kind: "unavailable" },
  });
});

it("stops reading a list that never ends", async () => {
  const wire = aWire(on(LIST, aList([aVm(0)], "more")));

  expect(await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT)).toMatchObject({
    ok: false,
    failure: { kind: "garbled" },
  });
  expect(wire.sent).toHaveLength(100);
});

it.each([
  ["no items at all", { kind: "PartialObjectMetadataList", apiVersion: "meta.k8s.io/v1", metadata: {} }],
  ["null as items", { kind: "VirtualMachineList", items: null }],
  ["an empty array", { kind: "VirtualMachineList", items: [] }],
])("reads a list with %s as empty", async (_what, body) => {
  const wire = aWire(on(LIST, ok(body)));

  expect(await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT)).toMatchObject({ ok: true, value: [] });
});

it.each([
  ["text", "<html>"],
  ["nothing", ""],
  ["null", null],
  ["an array", []],
  ["an object that is no list", { kind: "VirtualMachine" }],
  ["items that are no array", { kind: "VirtualMachineList", items: {} }],
  ["no kind and no items", {}],
])("does not take %s for a list", async (_what, body) => {
  const wire = aWire(on(LIST, ok(body)));

  expect(await aCluster(wire).cluster.list(VIRTUAL_MACHINES, AT)).toMatchObject({
    ok: false,
    failure: { kind: "garbled", status: undefined },
  });
});

it.each([
  ["text", "ok"],
  ["an array", []],
  ["null", null],
])("does not know what a write did when the answer is %s", async (_what, body) => {
  const wire = aWire(on(`POST ${VMS}`, ok(body)));

  expect(await aCluster(wire).cluster.create(VIRTUAL_MACHINES, AT, {})).toMatchObject({
    ok: false,
    failure: { kind: "garbled", definite: false },
  });
});

it("tells the server's time with every answer", async () => {
  const dates = [DATE, {}, { date: "yesterday" }, { date: ["a", "b"] }];
  const wire = aWire(on(POOL, ...dates.map((headers) => ok(aPool(), headers))));
  const { cluster } = aCluster(wire);
  const times: unknown[] = [];
  for (const _date of dates) {
    const answer = await cluster.get(POOLS, AT);
    times.push(answer.ok ? answer.serverTimeMs : "failed");
  }

  expect(times).toEqual([NOW, undefined, undefined, undefined]);
});

it.each([
  [200, ok({})],
  [201, { ...ok({}), status: 201 }],
  [202, { ...ok({}), status: 202 }],
] as const)("takes %i for success", async (_status, reply) => {
  expect(await aCluster(aWire(on(POOL, reply))).cluster.get(POOLS, AT)).toMatchObject({ ok: true });
});

it.each([
  [301, "MovedPermanently", "invalid", true],
  [400, "BadRequest", "invalid", true],
  [401, "Unauthorized", "unauthorized", true],
  [403, "Forbidden", "forbidden", true],
  [404, "NotFound", "notFound", true],
  [405, "MethodNotAllowed", "invalid", true],
  [408, "Timeout", "timeout", false],
  [409, "AlreadyExists", "alreadyExists", true],
  [409, "Conflict", "conflict", true],
  [410, "Expired", "expired", true],
  [413, "RequestEntityTooLarge", "invalid", true],
  [415, "UnsupportedMediaType", "invalid", true],
  [422, "Invalid", "invalid", true],
  [429, "TooManyRequests", "throttled", true],
  [500, "InternalError", "unavailable", false],
  [502, "BadGateway", "unavailable", false],
  [503, "ServiceUnavailable", "unavailable", false],
  [504, "Timeout", "unavailable", false],
])("reads %i %s as %s, definite: %s", async (status, reason, kind, definite) => {
  const wire = aWire(on(POOL, refusal(status, reason, "the server's words")));

  expect(await aCluster(wire).cluster.get(POOLS, AT)).toEqual({
    ok: false,
    failure: { kind, status, definite, retryAfterMs: undefined, message: "the server's words" },
  });
});

it.each([
  ["0", 0],
  ["1", 1_000],
  ["120", 120_000],
  ["1.5", undefined],
  ["-1", undefined],
  ["99999", undefined],
  ["Fri, 01 May 2026 12:00:00 GMT", undefined],
  [["1", "2"], undefined],
])("reads Retry-After %j as %s ms", async (value, retryAfterMs) => {
  const wire = aWire(on(POOL, refusal(429, "TooManyRequests", "slow", { "retry-after": value })));

  expect(await aCluster(wire).cluster.get(POOLS, AT)).toMatchObject({ failure: { retryAfterMs } });
});

it.each<[string, unknown]>([
  ["the API server where a kind is not served", "404 page not found\n"],
  ["a proxy that does not know the server", "<html>not found</html>"],
])("takes the page of %s for no word about the object", async (_who, body) => {
  const page = { status: 404, headers: {}, body, bytes: 20 };

  expect(await aCluster(aWire(on(POOL, page))).cluster.get(POOLS, AT)).toMatchObject({
    failure: { kind: "notServed", definite: true, message: "HTTP 404" },
  });
});

it.each([
  ["901", false],
  ["1000", false],
  ["900", true],
  ["899", true],
  ["1", true],
  [undefined, true],
  ["no-number", true],
])("takes a list of version 900 after an object of version %s was read: %s", async (notOlderThan, ok) => {
  const { cluster } = aCluster(aWire(on(LIST, aList([aVm(0)]))));

  expect(await cluster.list(VIRTUAL_MACHINES, AT, { notOlderThan })).toMatchObject(
    ok ? { ok } : { ok, failure: { kind: "unavailable", message: "the list is older than what was read before it" } },
  );
});

it.each<[string, ApiResponse, string]>([
  ["a page", { ...ok("<html>secret</html>"), status: 502 }, "HTTP 502"],
  ["a message that is no text", { ...ok({ message: { a: 1 } }), status: 500 }, "HTTP 500"],
  ["nothing", { ...ok(""), status: 401 }, "HTTP 401"],
])("names the status when the server explains by %s", async (_what, reply, message) => {
  expect(await aCluster(aWire(on(POOL, reply))).cluster.get(POOLS, AT)).toMatchObject({ failure: { message } });
});

it("cuts a long explanation", async () => {
  const answer = await aCluster(aWire(on(POOL, refusal(422, "Invalid", "x".repeat(9_000))))).cluster.get(POOLS, AT);

  expect(messageOf(answer)).toHaveLength(500);
});

it.each([
  ["ECONNREFUSED", true],
  ["ENOTFOUND", true],
  ["EAI_AGAIN", true],
  ["EHOSTUNREACH", true],
  ["ENETUNREACH", true],
  ["UND_ERR_CONNECT_TIMEOUT", true],
  ["SELF_SIGNED_CERT_IN_CHAIN", true],
  ["DEPTH_ZERO_SELF_SIGNED_CERT", true],
  ["CERT_HAS_EXPIRED", true],
  ["ERR_TLS_CERT_ALTNAME_INVALID", true],
  ["UNABLE_TO_VERIFY_LEAF_SIGNATURE", true],
  ["UNABLE_TO_GET_ISSUER_CERT_LOCALLY", true],
  ["ECONNRESET", false],
  ["EPIPE", false],
  ["ETIMEDOUT", false],
  ["UND_ERR_SOCKET", false],
  ["UND_ERR_DESTROYED", false],
])("knows whether a request can have arrived after %s: never %s", async (code, definite) => {
  const wire = aWire(on(POOL, networkError(code)));

  expect(await aCluster(wire).cluster.get(POOLS, AT)).toEqual({
    ok: false,
    failure: {
      kind: "unreachable",
      status: undefined,
      definite,
      retryAfterMs: undefined,
      message: `the API server cannot be reached (${code})`,
    },
  });
});

it.each<[string, Reply, string]>([
  ["the code of a cause", new Error("fetch failed", { cause: networkError("ECONNREFUSED") }), "(ECONNREFUSED)"],
  ["the name of an error without a code", new RangeError("secret"), "(RangeError)"],
  ["a thrown text", () => Promise.reject("secret"), "(unknown error)"],
])("shows %s and nothing else of an error", async (_what, reply, shownAs) => {
  const answer = await aCluster(aWire(on(POOL, reply))).cluster.get(POOLS, AT);

  expect(messageOf(answer)).toBe(`the API server cannot be reached ${shownAs}`);
});

it("ends calls under way when the pass's time is up, and does not know what they did", async () => {
  const stop = new AbortController();
  const wire = aWire(on(`POST ${VMS}`, silence));
  const { cluster } = aCluster(wire, { deadline: stop.signal });
  const answers = Promise.all([cluster.create(VIRTUAL_MACHINES, AT, {}), cluster.create(VIRTUAL_MACHINES, AT, {})]);
  stop.abort();

  const failure = { kind: "timeout", definite: false, message: "the API server did not answer in time" };
  expect(await answers).toMatchObject([
    { ok: false, failure },
    { ok: false, failure },
  ]);
});

it("sends nothing once the time is up, and knows that nothing was done", async () => {
  const wire = aWire();
  const { cluster, meter } = aCluster(wire, { deadline: AbortSignal.abort() });
  const verbs = [
    cluster.get(POOLS, AT),
    cluster.list(VIRTUAL_MACHINES, AT),
    cluster.create(VIRTUAL_MACHINES, AT, {}),
    cluster.delete(VIRTUAL_MACHINES, AT, { uid: "u", resourceVersion: "1" }),
  ];

  for (const answer of await Promise.all(verbs)) {
    expect(answer).toMatchObject({ ok: false, failure: { kind: "timeout", definite: true } });
  }
  expect(meter).toEqual({ requests: 0, writes: 0, bytes: 0 });
});

it("counts requests, writes and bytes", async () => {
  const wire = aWire(on(POOL, ok({}), networkError("ECONNRESET")), on(`POST ${VMS}`, refusal(403, "Forbidden")));
  const { cluster, meter } = aCluster(wire);
  await cluster.get(POOLS, AT);
  await cluster.get(POOLS, AT);
  await cluster.create(VIRTUAL_MACHINES, AT, {});

  expect(meter).toEqual({ requests: 3, writes: 1, bytes: 200 });
});

it.each([
  [["v1beta1", "v1alpha1"], "v1beta1"],
  [["v1alpha1", "v1beta1"], "v1beta1"],
  [["v1alpha1"], "v1alpha1"],
  [["v1", "v1alpha1"], "v1alpha1"],
])("chooses of %j the version %s, and asks once", async (versions, chosen) => {
  const wire = aWire(on(DISCOVERY, served(...versions)));
  const { cluster, cache } = aCluster(wire);

  expect(await cluster.poolVersion()).toMatchObject({ ok: true, value: chosen });
  expect(await aCluster(aWire(), { cache }).cluster.poolVersion()).toMatchObject({ ok: true, value: chosen });
  expect(wire.sent.map(lineOf)).toEqual([DISCOVERY]);
});

it.each<[string, Reply]>([
  ["serves neither", served("v1", "v2")],
  ["does not know the group", refusal(404, "NotFound")],
  ["lists no versions", ok({ kind: "APIGroup" })],
  ["lists nonsense", ok({ versions: ["v1beta1", null, { version: 1 }] })],
])("says that KubeVirt is missing from a cluster that %s, and asks again next time", async (_what, reply) => {
  const wire = aWire(on(DISCOVERY, reply, served("v1beta1")));
  const { cluster } = aCluster(wire);
  const answer = await cluster.poolVersion();

  expect(answer).toMatchObject({ ok: false, failure: { kind: "notFound" } });
  expect(messageOf(answer)).toContain("is KubeVirt installed there?");
  expect(await cluster.poolVersion()).toMatchObject({ ok: true, value: "v1beta1" });
});

it("does not take an outage for a missing KubeVirt", async () => {
  const { cluster, cache } = aCluster(aWire(on(DISCOVERY, refusal(503, "ServiceUnavailable"))));

  expect(await cluster.poolVersion()).toMatchObject({ ok: false, failure: { kind: "unavailable" } });
  expect(cache.poolVersion).toBeUndefined();
});

function messageOf(answer: Answer<unknown>): string {
  return answer.ok ? "" : answer.failure.message;
}
