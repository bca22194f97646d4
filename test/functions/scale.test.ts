import { describe, expect, it } from "vitest";
import { createScale, type ScaleResult } from "../../functions/scale.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import type { ApiResponse } from "../../shared/clusters/connection.ts";
import { RegistryError } from "../../shared/clusters/registry.ts";
import { parseJson } from "../../shared/planning/json.ts";
import type { HttpAnswer } from "../../shared/runtime/http.ts";
import { aContext, aDirectory, aLog, aMailbox, aWakeUp } from "../support/handlers.ts";
import {
  aWire,
  linesOf,
  networkError,
  ok,
  on,
  queryOf,
  type Reply,
  refusal,
  type Wire,
  writesOf,
} from "../support/transport.ts";
import { DISCOVERY, NOW, poolPath, served } from "../support/transport-objects.ts";

const GET = `GET ${poolPath()}/scale`;
const PUT = `PUT ${poolPath()}/scale`;
const PATCH = `PATCH ${poolPath()}/scale`;
const MERGE = "application/merge-patch+json";
const JSON_PATCH = "application/json-patch+json";
const WOKEN = [{ queue: "passes", wakeUp: aWakeUp({ cause: "scale" }), seenAtMs: NOW }];

/** A Scale as the API server sends it: zeros are left out. */
function aScale(replicas: number, current = replicas): ApiResponse {
  const metadata = { name: "web", namespace: "ci", uid: "uid-web", resourceVersion: "100" };
  const counted = (count: number) => (count === 0 ? {} : { replicas: count });
  const status = { ...counted(current), selector: "app=web" };
  return ok({ kind: "Scale", apiVersion: "autoscaling/v1", metadata, spec: counted(replicas), status });
}

interface RequestFields {
  readonly method?: string;
  readonly type?: string;
  readonly body?: unknown;
  readonly query?: string;
  readonly parameters?: Readonly<Record<string, string>>;
}

/** A request as an HTTP API hands it to a function; bodies of the patch types come as base64. */
function aRequest({ method = "GET", type, body, query = "", parameters }: RequestFields = {}) {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const isText = type === undefined || type.startsWith("application/json");
  const encoded = isText ? text : Buffer.from(text ?? "").toString("base64");
  return {
    version: "2.0",
    routeKey: `${method} …`,
    rawPath: `/clusters/west${poolPath()}/scale`,
    rawQueryString: query,
    headers: { host: "example", ...(type === undefined ? {} : { "content-type": type }) },
    pathParameters: { cluster: "west", version: "v1beta1", namespace: "ci", name: "web", ...parameters },
    requestContext: { http: { method, path: "/", protocol: "HTTP/1.1", sourceIp: "192.0.2.1", userAgent: "curl" } },
    ...(encoded === undefined ? {} : { body: encoded }),
    isBase64Encoded: !isText,
  };
}

function aRequestEvent(fields: object = {}, envelope: object = {}) {
  return {
    version: "0",
    id: "6f1c7a52-0000-4000-8000-000000000003",
    "detail-type": "Virtual Machine Pool Scale Requested",
    source: "my.alarms",
    account: "123456789012",
    time: "2026-05-01T12:00:00Z",
    region: "eu-central-1",
    resources: [],
    detail: {
      version: 1,
      cluster: "west",
      namespace: "ci",
      name: "web",
      replicas: 5,
      requestedAt: new Date(NOW - 1_000).toISOString(),
      ...fields,
    },
    ...envelope,
  };
}

function aScaleFunction(wire: Wire, access: Partial<ServerAccess> = {}) {
  const clock = { now: NOW };
  const now = () => clock.now;
  const registrations = aDirectory({ west: { wire, access } }, now);
  const mailbox = aMailbox();
  const log = aLog();
  const paused: number[] = [];
  const sleep = async (ms: number) => void paused.push(ms);
  const deps = { directory: registrations.directory, wakeUps: mailbox, now, sleep, logger: log };
  const handler = createScale(() => deps);
  return {
    clock,
    mailbox,
    log,
    paused,
    handler,
    ...registrations,
    async request(fields: RequestFields = {}) {
      const answer = await handler(aRequest(fields), aContext(25_000));
      if (!isAnswer(answer)) throw new TypeError("not an HTTP answer");
      return { status: answer.statusCode, headers: answer.headers, body: parseJson(answer.body) };
    },
    async event(fields: object = {}, envelope: object = {}) {
      const result = await handler(aRequestEvent(fields, envelope), aContext(25_000));
      if (isAnswer(result)) throw new TypeError("an HTTP answer");
      return result;
    },
  };
}

function isAnswer(result: HttpAnswer | ScaleResult): result is HttpAnswer {
  return "statusCode" in result;
}

/** What a Kubernetes client looks at in a refusal. */
function aRefusal(code: number, reason: string, message: unknown = expect.any(String)) {
  const body = { kind: "Status", apiVersion: "v1", status: "Failure", code, reason, message };
  return expect.objectContaining({ status: code, body: expect.objectContaining(body) });
}

describe("GET", () => {
  it("answers with the Scale of the cluster", async () => {
    const { request, mailbox } = aScaleFunction(aWire(on(GET, aScale(3, 2))));

    const { status, headers, body } = await request();
    expect({ status, headers }).toEqual({ status: 200, headers: { "content-type": "application/json" } });
    expect(body).toEqual({
      kind: "Scale",
      apiVersion: "autoscaling/v1",
      metadata: { name: "web", namespace: "ci", uid: "uid-web", resourceVersion: "100" },
      spec: { replicas: 3 },
      status: { replicas: 2, selector: "app=web" },
    });
    expect(mailbox.sent).toEqual([]);
  });

  it("says 0 where the API server leaves it out", async () => {
    const { request } = aScaleFunction(aWire(on(GET, aScale(0))));

    expect((await request()).body).toMatchObject({ spec: { replicas: 0 }, status: { replicas: 0 } });
  });

  it("asks for the version of the path", async () => {
    const wire = aWire(on(GET.replace("v1beta1", "v1alpha1"), aScale(3)));

    expect(await aScaleFunction(wire).request({ parameters: { version: "v1alpha1" } })).toMatchObject({ status: 200 });
  });

  it("is allowed where the cluster is only observed", async () => {
    const { request } = aScaleFunction(aWire(on(GET, aScale(3))), { mode: "observe" });

    expect(await request()).toMatchObject({ status: 200 });
  });
});

describe("PUT", () => {
  const put = (body: unknown): RequestFields => ({ method: "PUT", type: "application/json", body });

  it("replaces the scale and wakes the pool", async () => {
    const wire = aWire(on(PUT, aScale(5, 3)));
    const { request, mailbox, log } = aScaleFunction(wire);
    const metadata = { name: "web", namespace: "ci", uid: "uid-web", resourceVersion: "100" };
    const scale = { kind: "Scale", apiVersion: "autoscaling/v1", metadata, spec: { replicas: 5 } };

    expect(await request(put({ ...scale, status: { replicas: 1 } }))).toMatchObject({
      status: 200,
      body: { spec: { replicas: 5 }, status: { replicas: 3 } },
    });
    expect(wire.sent).toMatchObject([{ method: "PUT", body: scale }]);
    expect(wire.sent.map(queryOf)).toEqual([{ fieldManager: "vmpool-functions", timeout: "10s" }]);
    expect(mailbox.sent).toEqual(WOKEN);
    expect(log.lines).toMatchObject([{ level: "info", message: "pool scaled", fields: { pool: "web", replicas: 5 } }]);
  });

  it("names the object and asks for no version where the client does not", async () => {
    const wire = aWire(on(PUT, aScale(5)));

    await aScaleFunction(wire).request(put({ spec: { replicas: 5 } }));
    expect(wire.sent[0]?.body).toMatchObject({ metadata: { name: "web", namespace: "ci" } });
    expect(wire.sent[0]?.body).not.toHaveProperty("metadata.resourceVersion");
  });

  it("takes a spec without replicas for 0, as Go's clients write it", async () => {
    const wire = aWire(on(PUT, aScale(0)));

    expect(await aScaleFunction(wire).request(put({ spec: {} }))).toMatchObject({ body: { spec: { replicas: 0 } } });
    expect(wire.sent[0]?.body).toMatchObject({ spec: { replicas: 0 } });
  });

  it.each([
    ["no spec", {}],
    ["replicas below 0", { spec: { replicas: -1 } }],
    ["replicas that are no int32", { spec: { replicas: 2 ** 31 } }],
    ["half a machine", { spec: { replicas: 2.5 } }],
    ["replicas as text", { spec: { replicas: "5" } }],
    ["replicas of null", { spec: { replicas: null } }],
    ["a field of spec that does not exist", { spec: { replicas: 5, replica: 5 } }],
    ["another kind", { kind: "VirtualMachinePool", spec: { replicas: 5 } }],
    ["another version", { apiVersion: "autoscaling/v2", spec: { replicas: 5 } }],
    ["a list", []],
  ])("refuses %s", async (_what, body) => {
    const { request, mailbox } = aScaleFunction(aWire());

    expect(await request(put(body))).toEqual(
      aRefusal(422, "Invalid", expect.stringContaining('Scale.autoscaling "web"')),
    );
    expect(mailbox.sent).toEqual([]);
  });
});

describe("PATCH", () => {
  const merge = (body: unknown): RequestFields => ({ method: "PATCH", type: MERGE, body });
  const patch = (...body: readonly object[]): RequestFields => ({ method: "PATCH", type: JSON_PATCH, body });

  it("applies a merge patch and wakes the pool", async () => {
    const wire = aWire(on(PATCH, aScale(5)));
    const { request, mailbox } = aScaleFunction(wire);

    expect(await request(merge({ spec: { replicas: 5 } }))).toMatchObject({ status: 200 });
    expect(wire.sent).toMatchObject([{ contentType: MERGE, body: { spec: { replicas: 5 } } }]);
    expect(wire.sent[0]?.body).not.toHaveProperty("metadata.resourceVersion");
    expect(mailbox.sent).toEqual(WOKEN);
  });

  it("carries the client's resourceVersion, and nothing else of its metadata", async () => {
    const wire = aWire(on(PATCH, aScale(5)));

    await aScaleFunction(wire).request(
      merge({ metadata: { resourceVersion: "99", managedFields: [], labels: { a: "b" } }, spec: { replicas: 5 } }),
    );
    expect(wire.sent[0]?.body).toEqual({ metadata: { resourceVersion: "99" }, spec: { replicas: 5 } });
  });

  it("accepts a content type with parameters and in capitals", async () => {
    const { request } = aScaleFunction(aWire(on(PATCH, aScale(5))));

    const type = "Application/Merge-Patch+JSON; charset=utf-8";
    expect(await request({ method: "PATCH", type, body: { spec: { replicas: 5 } } })).toMatchObject({ status: 200 });
  });

  it("refuses null, which the API server would take for 0", async () => {
    const { request } = aScaleFunction(aWire());

    expect(await request(merge({ spec: { replicas: null } }))).toEqual(
      aRefusal(422, "Invalid", expect.stringContaining("spec.replicas")),
    );
  });

  it("applies a JSON patch with tests, which hold for zeros too", async () => {
    const wire = aWire(on(PATCH, aScale(5)));
    const operations = [
      { op: "test", path: "/spec/replicas", value: 0 },
      { op: "test", path: "/metadata/uid", value: "uid-web" },
      { op: "add", path: "/metadata/resourceVersion", value: "100" },
      { op: "replace", path: "/spec/replicas", value: 5 },
    ];

    expect(await aScaleFunction(wire).request(patch(...operations))).toMatchObject({ status: 200 });
    expect(wire.sent).toMatchObject([{ contentType: JSON_PATCH }]);
    expect(wire.sent[0]?.body).toEqual([
      { op: "test", path: "/spec/replicas", value: null },
      operations[1],
      operations[2],
      { op: "add", path: "/spec/replicas", value: 5 },
    ]);
  });

  it.each([
    ["removes the replicas", { op: "remove", path: "/spec/replicas" }],
    ["copies", { op: "copy", from: "/status/replicas", path: "/spec/replicas" }],
    ["writes elsewhere", { op: "add", path: "/metadata/managedFields", value: [] }],
    ["writes the whole spec", { op: "replace", path: "/spec", value: { replicas: 1 } }],
    ["asks for less than nothing", { op: "replace", path: "/spec/replicas", value: -1 }],
    ["asks for text", { op: "replace", path: "/spec/replicas", value: "3" }],
    ["has no path", { op: "replace" }],
  ])("refuses a JSON patch that %s", async (_what, operation) => {
    const { request } = aScaleFunction(aWire());

    expect(await request(patch(operation))).toEqual(aRefusal(422, "Invalid"));
  });

  it("refuses an empty JSON patch, and one that is none", async () => {
    const { request } = aScaleFunction(aWire());

    expect(await request(patch())).toEqual(aRefusal(422, "Invalid"));
    expect(await request({ method: "PATCH", type: JSON_PATCH, body: { spec: { replicas: 3 } } })).toEqual(
      aRefusal(422, "Invalid"),
    );
  });
});

describe("what is refused before the cluster is asked", () => {
  const body = { spec: { replicas: 5 } };

  it.each([
    ["no content type", "PATCH", undefined, MERGE],
    ["a strategic merge patch", "PATCH", "application/strategic-merge-patch+json", MERGE],
    ["an apply patch", "PATCH", "application/apply-patch+yaml", JSON_PATCH],
    ["JSON as a patch", "PATCH", "application/json", MERGE],
    ["a form", "PUT", "application/x-www-form-urlencoded", "application/json"],
    ["a type that is a property of every object", "PUT", "constructor", "application/json"],
  ])("is %s", async (_what, method, type, accepted) => {
    const { request } = aScaleFunction(aWire());

    expect(await request({ method, ...(type === undefined ? {} : { type }), body })).toEqual(
      aRefusal(415, "UnsupportedMediaType", expect.stringContaining(accepted)),
    );
  });

  it.each(["DELETE", "POST", "constructor"])("is the method %s", async (method) => {
    const { request } = aScaleFunction(aWire());

    expect(await request({ method, type: "application/json", body })).toEqual(aRefusal(405, "MethodNotAllowed"));
  });

  it("is a body that is no JSON, or none at all", async () => {
    const { request } = aScaleFunction(aWire());

    expect(await request({ method: "PATCH", type: MERGE, body: '{"spec":' })).toEqual(aRefusal(400, "BadRequest"));
    expect(await request({ method: "PUT", type: "application/json" })).toEqual(aRefusal(400, "BadRequest"));
  });

  it("is a body of more than 16 KiB, in whichever encoding", async () => {
    const { request } = aScaleFunction(aWire());
    const large = { ...body, metadata: { name: "x".repeat(16 * 1024) } };

    for (const type of ["application/json", MERGE]) {
      const method = type === MERGE ? "PATCH" : "PUT";
      expect(await request({ method, type, body: large })).toEqual(aRefusal(413, "RequestEntityTooLarge"));
    }
  });

  it("is a dry run, which would not be dry", async () => {
    const { request } = aScaleFunction(aWire());

    expect(await request({ method: "PATCH", type: MERGE, body, query: "dryRun=All" })).toEqual(
      aRefusal(400, "BadRequest", expect.stringContaining("dryRun")),
    );
  });

  it("is a cluster that is not registered", async () => {
    const { request } = aScaleFunction(aWire());

    expect(await request({ parameters: { cluster: "east" } })).toEqual(
      aRefusal(404, "NotFound", 'no cluster "east" is registered'),
    );
  });

  it("is a cluster whose registration is of no use: only the log says why", async () => {
    const { directory } = aDirectory({}, () => NOW);
    const bad = new RegistryError("the cluster registry /clusters/west/access is not valid: auth.token: expected text");
    const find = async () => Promise.reject(bad);
    const log = aLog();
    const deps = { directory: { ...directory, find }, wakeUps: aMailbox(), now: () => NOW, sleep: async () => {} };
    const answer = await createScale(() => ({ ...deps, logger: log }))(aRequest({}), aContext(25_000));

    expect(answer).toMatchObject({ statusCode: 503, body: expect.stringContaining('"reason":"ServiceUnavailable"') });
    expect(JSON.stringify(answer)).not.toContain("auth.token");
    expect(log.lines).toMatchObject([
      { level: "error", message: "cluster cannot be read", fields: { cluster: "west", message: bad.message } },
    ]);
  });

  it.each([
    [{ namespace: ".." }],
    [{ name: ".." }],
    [{ name: "Web" }],
    [{ name: "web/../../secrets" }],
    [{ version: ".." }],
    [{ version: "" }],
  ])("is a path with %j", async (parameters) => {
    const { request } = aScaleFunction(aWire());

    expect(await request({ parameters })).toEqual(aRefusal(404, "NotFound"));
  });

  it("is a change where the cluster is only observed", async () => {
    const { request, mailbox } = aScaleFunction(aWire(), { mode: "observe" });

    expect(await request({ method: "PATCH", type: MERGE, body })).toEqual(
      aRefusal(403, "Forbidden", expect.stringContaining("observed")),
    );
    expect(mailbox.sent).toEqual([]);
  });

  it("is a namespace that is not served, for reading too", async () => {
    const { request } = aScaleFunction(aWire(), { namespaces: ["prod"] });

    expect(await request()).toEqual(aRefusal(403, "Forbidden", expect.stringContaining('"ci"')));
    expect(await request({ method: "PATCH", type: MERGE, body })).toEqual(aRefusal(403, "Forbidden"));
  });
});

describe("what the cluster refuses", () => {
  const change: RequestFields = { method: "PATCH", type: MERGE, body: { spec: { replicas: 5 } } };

  it.each<[string, Reply, number, string]>([
    ["a pool that does not exist", refusal(404, "NotFound", 'virtualmachinepools "web" not found'), 404, "NotFound"],
    ["a stale resourceVersion", refusal(409, "Conflict"), 409, "Conflict"],
    ["a failed test", refusal(422, "Invalid"), 422, "Invalid"],
    ["a malformed object", refusal(400, "BadRequest"), 400, "BadRequest"],
    ["what our role does not allow", refusal(403, "Forbidden"), 403, "Forbidden"],
    ["too many requests", refusal(429, "TooManyRequests"), 429, "TooManyRequests"],
    ["a pool without replicas", refusal(500, "InternalError"), 500, "InternalError"],
    ["what it cannot do now", refusal(503, "ServiceUnavailable"), 503, "ServiceUnavailable"],
    ["an answer that is no Scale", ok({ kind: "Pod" }), 500, "InternalError"],
    ["a connection", networkError("ECONNREFUSED"), 503, "ServiceUnavailable"],
  ])("is passed on: %s", async (_what, reply, code, reason) => {
    const { request, log } = aScaleFunction(aWire(on(PATCH, reply)));

    expect(await request(change)).toEqual(aRefusal(code, reason));
    expect(log.at("warn")).toEqual(["scale was refused by the cluster"]);
  });

  it("keeps the server's words and its Retry-After", async () => {
    const busy = refusal(429, "TooManyRequests", "try later", { "retry-after": "7" });
    const { request } = aScaleFunction(aWire(on(PATCH, busy)));

    const answer = await request(change);
    expect(answer.body).toMatchObject({ message: "try later" });
    expect(answer.headers).toMatchObject({ "retry-after": "7" });
  });

  it("never shows the client what the network said", async () => {
    const { request } = aScaleFunction(aWire(on(PATCH, networkError("ECONNRESET"))));

    expect(JSON.stringify(await request(change))).not.toContain("secret");
  });

  it("does not blame the client when our own credentials are refused, and has them read again", async () => {
    const { request, clock, reads } = aScaleFunction(aWire(on(GET, refusal(401, "Unauthorized"))));

    expect(await request()).toEqual(aRefusal(503, "ServiceUnavailable", expect.stringContaining("registered")));
    clock.now += 61_000;
    await request();
    await request();
    expect(reads).toEqual(["west", "west"]);
  });

  it.each<[string, Reply, number]>([
    ["wakes nobody after a definite refusal", refusal(409, "Conflict"), 0],
    ["wakes the pool when the change may have been made", networkError("ECONNRESET"), 1],
    ["wakes the pool after an answer that says nothing", ok({ kind: "Pod" }), 1],
  ])("%s", async (_what, reply, count) => {
    const { request, mailbox } = aScaleFunction(aWire(on(PATCH, reply)));

    await request(change);
    expect(mailbox.sent).toHaveLength(count);
  });

  it("answers as if nothing were wrong when only the wake-up cannot be sent", async () => {
    const { request, mailbox, log } = aScaleFunction(aWire(on(PATCH, aScale(5))));
    mailbox.down.add("passes");

    expect(await request(change)).toMatchObject({ status: 200 });
    expect(log.at("error")).toEqual(["wake-up could not be sent"]);
  });
});

describe("Virtual Machine Pool Scale Requested", () => {
  const discovery = on(DISCOVERY, served("v1beta1"));

  it("scales by one patch without reading, and wakes the pool", async () => {
    const wire = aWire(discovery, on(PATCH, aScale(5)));
    const { event, mailbox, log } = aScaleFunction(wire);

    expect(await event()).toEqual({ outcome: "scaled", replicas: 5 });
    expect(linesOf(wire)).toEqual([DISCOVERY, PATCH]);
    expect(writesOf(wire)).toMatchObject([{ contentType: MERGE }]);
    expect(writesOf(wire)[0]?.body).toEqual({ spec: { replicas: 5 } });
    expect(mailbox.sent).toEqual(WOKEN);
    expect(log.lines).toMatchObject([{ level: "info", message: "pool scaled", fields: { replicas: 5, by: "event" } }]);
  });

  it.each([
    ["older than a minute", { requestedAt: new Date(NOW - 60_001).toISOString() }, {}, "stale"],
    ["from the future", { requestedAt: new Date(NOW + 60_001).toISOString() }, {}, "premature"],
    ["replayed from an archive", {}, { "replay-name": "last-week" }, "replayed"],
    ["with bounds that exclude each other", { minReplicas: 6, maxReplicas: 5 }, {}, "contradictory"],
    ["without requestedAt", { requestedAt: undefined }, {}, "invalid"],
    ["with a condition that is misspelt", { expectReplicas: 3 }, {}, "invalid"],
    ["with fewer machines than none", { replicas: -1 }, {}, "invalid"],
    ["of another version", { version: 2 }, {}, "invalid"],
    ["with a name that leads elsewhere", { name: "../secrets" }, {}, "invalid"],
    ["for a cluster that is not registered", { cluster: "east" }, {}, "unknownCluster"],
  ])("refuses one %s, and says so in the log", async (_what, fields, envelope, reason) => {
    const { event, mailbox, log } = aScaleFunction(aWire());

    expect(await event(fields, envelope)).toMatchObject({ outcome: "refused", reason });
    expect(mailbox.sent).toEqual([]);
    expect(log.lines).toMatchObject([{ level: "warn", message: "scale request refused", fields: { reason } }]);
  });

  it.each<[string, Partial<ServerAccess>, string]>([
    ["is only observed", { mode: "observe" }, "observing"],
    ["does not have the namespace served", { namespaces: ["prod"] }, "notServed"],
  ])("refuses one for a cluster that %s", async (_what, access, reason) => {
    const { event } = aScaleFunction(aWire(), access);

    expect(await event()).toMatchObject({ outcome: "refused", reason });
  });

  it("accepts one that is a minute old, and one of a clock that is a minute ahead", async () => {
    const { event } = aScaleFunction(aWire(discovery, on(PATCH, aScale(5))));

    for (const offsetMs of [-60_000, 60_000]) {
      const requestedAt = new Date(NOW + offsetMs).toISOString();
      expect(await event({ requestedAt })).toEqual({ outcome: "scaled", replicas: 5 });
    }
  });

  it.each([
    [{ replicas: 50, maxReplicas: 10 }, 10],
    [{ replicas: 0, minReplicas: 2 }, 2],
    [{ replicas: 5, minReplicas: 2, maxReplicas: 10 }, 5],
  ])("moves %j into the bounds: %i", async (fields, replicas) => {
    const wire = aWire(discovery, on(PATCH, aScale(replicas)));

    expect(await aScaleFunction(wire).event(fields)).toEqual({ outcome: "scaled", replicas });
    expect(writesOf(wire)[0]?.body).toEqual({ spec: { replicas } });
  });

  it("compares and swaps when it says what it expects", async () => {
    const wire = aWire(discovery, on(GET, aScale(3)), on(PATCH, aScale(5)));

    expect(await aScaleFunction(wire).event({ expectedReplicas: 3 })).toEqual({ outcome: "scaled", replicas: 5 });
    expect(writesOf(wire)[0]?.body).toEqual({ metadata: { resourceVersion: "100" }, spec: { replicas: 5 } });
  });

  it("expects 0 of a pool that asks for none", async () => {
    const { event } = aScaleFunction(aWire(discovery, on(GET, aScale(0)), on(PATCH, aScale(5))));

    expect(await event({ expectedReplicas: 0 })).toMatchObject({ outcome: "scaled" });
  });

  it("refuses when the pool asks for another number", async () => {
    const wire = aWire(discovery, on(GET, aScale(4)));

    expect(await aScaleFunction(wire).event({ expectedReplicas: 3 })).toEqual({
      outcome: "refused",
      reason: "unexpected",
      message: "spec.replicas is 4, not 3",
    });
    expect(writesOf(wire)).toEqual([]);
  });

  it("may be delivered twice", async () => {
    const wire = aWire(discovery, on(GET, aScale(3), aScale(5)), on(PATCH, aScale(5)));
    const { event } = aScaleFunction(wire);

    await event({ expectedReplicas: 3 });
    expect(await event({ expectedReplicas: 3 })).toEqual({ outcome: "scaled", replicas: 5 });
  });

  it("tests anew what it expects when another write came in between", async () => {
    const raced = aWire(discovery, on(GET, aScale(3)), on(PATCH, refusal(409, "Conflict"), aScale(5)));
    const lost = aWire(discovery, on(GET, aScale(3), aScale(4)), on(PATCH, refusal(409, "Conflict")));

    expect(await aScaleFunction(raced).event({ expectedReplicas: 3 })).toMatchObject({ outcome: "scaled" });
    expect(await aScaleFunction(lost).event({ expectedReplicas: 3 })).toMatchObject({ reason: "unexpected" });
  });

  it("tries three times, with pauses that a server cannot stretch", async () => {
    const busy = refusal(429, "TooManyRequests", "try later", { "retry-after": "600" });
    const { event, paused, log } = aScaleFunction(aWire(discovery, on(PATCH, busy)));

    expect(await event()).toMatchObject({ outcome: "failed", reason: "throttled" });
    expect(paused).toEqual([5_000, 5_000]);
    expect(log.at("error")).toEqual(["scale request failed"]);
  });

  it("does not repeat what will not go better", async () => {
    const wire = aWire(discovery, on(PATCH, refusal(404, "NotFound")));
    const { event, paused } = aScaleFunction(wire);

    expect(await event()).toMatchObject({ outcome: "failed", reason: "notFound" });
    expect(paused).toEqual([]);
  });

  it("tries again when the cluster is away at first", async () => {
    const { event } = aScaleFunction(
      aWire(on(DISCOVERY, networkError("ECONNREFUSED"), served("v1beta1")), on(PATCH, aScale(5))),
    );

    expect(await event()).toEqual({ outcome: "scaled", replicas: 5 });
  });

  it("fails as a value when the cluster's API cannot be discovered", async () => {
    const { event } = aScaleFunction(aWire(on(DISCOVERY, refusal(401, "Unauthorized"))));

    expect(await event()).toMatchObject({ outcome: "failed", reason: "unauthorized" });
  });
});

it("refuses an event that is neither a request nor a fact of its own", async () => {
  const { handler } = aScaleFunction(aWire());

  await expect(handler({ Records: [] }, aContext())).rejects.toThrow("not of the expected form");
});
