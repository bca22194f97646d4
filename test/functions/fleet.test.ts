import { describe, expect, it } from "vitest";
import { createFleet } from "../../functions/fleet.ts";
import type { ServerAccess } from "../../shared/clusters/access.ts";
import { isRecord, parseJson } from "../../shared/planning/json.ts";
import { CLAIM_ANNOTATION } from "../../shared/planning/names.ts";
import { aRollout } from "../support/builders.ts";
import { aContext, aDirectory, aLog, type Registered } from "../support/handlers.ts";
import { aWire, linesOf, networkError, on, refusal, silence, type Wire, writesOf } from "../support/transport.ts";
import {
  aClaimText,
  aClusterWith,
  aList,
  aPool,
  aSettledPool,
  aVm,
  DISCOVERY,
  NOW,
  type PoolFields,
  poolPath,
  served,
} from "../support/transport-objects.ts";

const ALL_POOLS = "GET /apis/pool.kubevirt.io/v1beta1/virtualmachinepools";
const GET_POOL = `GET ${poolPath()}`;
const JWT = { jwt: { claims: { sub: "somebody" }, scopes: null } };

interface RequestFields {
  readonly method?: string;
  readonly query?: string;
  readonly parameters?: Readonly<Record<string, string>>;
  readonly authorizer?: object | undefined;
  readonly remainingMs?: number;
}

function aFleet(clusters: Readonly<Record<string, Registered>>) {
  const now = () => NOW;
  const log = aLog();
  const { directory } = aDirectory(clusters, now);
  const handler = createFleet(() => ({ directory, now, logger: log }));
  return {
    log,
    async get(fields: RequestFields = {}) {
      const { method = "GET", query = "", parameters, remainingMs = 25_000 } = fields;
      const authorizer = "authorizer" in fields ? fields.authorizer : JWT;
      const event = {
        version: "2.0",
        routeKey: "GET /pools",
        rawPath: "/pools",
        rawQueryString: query,
        headers: { authorization: "Bearer whatever the client sent" },
        ...(parameters === undefined ? {} : { pathParameters: parameters }),
        requestContext: { http: { method, path: "/pools" }, ...(authorizer === undefined ? {} : { authorizer }) },
        isBase64Encoded: false,
      };
      const { statusCode, headers, body } = await handler(event, aContext(remainingMs));
      const parsed = parseJson(body);
      return { status: statusCode, headers, body: isRecord(parsed) ? parsed : {}, text: body };
    },
  };
}

/** A cluster with these pools. */
function aClusterOf(...pools: readonly PoolFields[]): Wire {
  return aWire(on(DISCOVERY, served("v1beta1")), on(ALL_POOLS, aList(pools.map(aPool))));
}

const ONE = { cluster: "west", namespace: "ci", name: "web" };

function showOne(wire: Wire, access: Partial<ServerAccess> = {}, fields: RequestFields = {}) {
  return aFleet({ west: { wire, access } }).get({ parameters: ONE, ...fields });
}

function aProblem(status: number, title: unknown = expect.any(String)) {
  return expect.objectContaining({
    status,
    headers: expect.objectContaining({ "content-type": "application/problem+json" }),
    body: { type: "about:blank", status, title },
  });
}

describe("all pools", () => {
  it("are summed up over all clusters, in order", async () => {
    const conditions = [
      { type: "ReplicaPaused", status: "True", reason: "SuccessfulPaused", message: "why", extra: 1 },
    ];
    const rollout = aRollout(aPool().spec, "web-1");
    const annotations = { [CLAIM_ANNOTATION]: aClaimText({ rollout }), secret: "s3cr3t" };
    const west = aClusterOf(
      { name: "web", replicas: 3, annotations, status: { replicas: 2, readyReplicas: 1, conditions } },
      { name: "api", spec: { replicas: undefined, paused: true }, deletionTimestamp: "2026-05-01T12:00:00Z" },
    );

    const { status, body, text } = await aFleet({ west: { wire: west }, east: { wire: aClusterOf({}) } }).get();

    expect(status).toBe(200);
    expect(body).toEqual({
      pools: [
        expect.objectContaining({ cluster: "east", namespace: "ci", name: "web", desired: 1, current: null }),
        expect.objectContaining({ cluster: "west", name: "api", desired: 1, paused: true, deleting: true }),
        {
          cluster: "west",
          namespace: "ci",
          name: "web",
          generation: 1,
          observedGeneration: 1,
          desired: 3,
          current: 2,
          ready: 1,
          paused: false,
          deleting: false,
          conditions: [{ type: "ReplicaPaused", status: "True", reason: "SuccessfulPaused", message: "why" }],
          rollout: "complete",
        },
      ],
      unreachable: [],
    });
    expect(text).not.toContain("s3cr3t");
  });

  it.each([
    ["unknown", {}],
    ["underway", { annotations: { [CLAIM_ANNOTATION]: aClaimText() } }],
    ["complete", { annotations: { [CLAIM_ANNOTATION]: aClaimText() }, status: { replicas: 0 } }],
    ["unknown", { generation: 2, annotations: { [CLAIM_ANNOTATION]: aClaimText() } }],
    ["unmanaged", { annotations: { [CLAIM_ANNOTATION]: aClaimText() }, spec: { updateStrategy: { unmanaged: {} } } }],
  ])("have a roll-out that is %s", async (rollout, pool) => {
    const { body } = await aFleet({ west: { wire: aClusterOf(pool) } }).get();

    expect(body["pools"]).toEqual([expect.objectContaining({ rollout })]);
  });

  it("come page by page, each once", async () => {
    const { get } = aFleet({
      east: { wire: aClusterOf({ name: "a" }, { name: "b" }) },
      west: { wire: aClusterOf({ name: "a" }, { name: "c", namespace: "aa" }) },
    });
    const seen: unknown[] = [];
    let query = "limit=1";
    for (let page = 0; page < 4; page += 1) {
      const { body } = await get({ query });
      seen.push(body["pools"]);
      expect(body["continue"]).toEqual(page === 3 ? undefined : expect.any(String));
      query = `limit=1&continue=${body["continue"]}`;
    }

    expect(seen).toEqual([
      [expect.objectContaining({ cluster: "east", name: "a" })],
      [expect.objectContaining({ cluster: "east", name: "b" })],
      [expect.objectContaining({ cluster: "west", namespace: "aa", name: "c" })],
      [expect.objectContaining({ cluster: "west", namespace: "ci", name: "a" })],
    ]);
  });

  it.each(["limit=0", "limit=501", "limit=x", "continue=x", "continue=", "continue=WzEsMiwzXQ"])(
    "are refused with the query %s",
    async (query) => {
      expect(await aFleet({}).get({ query })).toEqual(aProblem(400));
    },
  );

  it("of served namespaces only are listed where an entry names some", async () => {
    const path = (namespace: string) => poolPath("x", namespace).replace(/\/x$/, "");
    const wire = aWire(
      on(DISCOVERY, served("v1beta1")),
      on(`GET ${path("ci")}`, aList([aPool()])),
      on(`GET ${path("qa")}`, aList([])),
    );

    const { body } = await aFleet({ west: { wire, access: { namespaces: ["ci", "qa"] } } }).get();

    expect(body["pools"]).toHaveLength(1);
  });

  it.each([
    ["is away", on(DISCOVERY, networkError("ECONNREFUSED")), "unreachable", "ECONNREFUSED"],
    ["is forbidden", on(DISCOVERY, refusal(403, "Forbidden", "you may not")), "forbidden", "you may not"],
    ["has no KubeVirt", on(DISCOVERY, refusal(404, "NotFound")), "notFound", "is KubeVirt installed there"],
  ])("are shown beside a cluster that %s", async (_how, route, reason, message) => {
    const { get, log } = aFleet({ away: { wire: aWire(route) }, west: { wire: aClusterOf({}) } });

    const { status, body } = await get();

    expect(status).toBe(200);
    expect(body["pools"]).toHaveLength(1);
    expect(body["unreachable"]).toEqual([{ cluster: "away", reason, message: expect.stringContaining(message) }]);
    expect(log.at("warn")).toEqual(["cluster cannot be read"]);
  });

  it("do not wait for a cluster that never answers longer than there is time", async () => {
    const { get } = aFleet({ mute: { wire: aWire(on(DISCOVERY, silence)) }, west: { wire: aClusterOf({}) } });

    const { body } = await get({ remainingMs: 3_010 });

    expect(body["pools"]).toHaveLength(1);
    expect(body["unreachable"]).toEqual([expect.objectContaining({ cluster: "mute", reason: "timeout" })]);
  });
});

describe("one pool", () => {
  it("is shown with its machines and what a pass would do", async () => {
    const wire = aClusterWith(aPool({ replicas: 3 }));

    const { status, headers, body } = await showOne(wire);

    expect(status).toBe(200);
    expect(headers["cache-control"]).toBe("no-store");
    expect(body).toMatchObject({ ...ONE, mode: "act", desired: 3, members: [], plan: { problems: [], reasons: [] } });
    expect(body["plan"]).toMatchObject({
      actions: [
        { kind: "writeClaim" },
        { kind: "createRevision", revision: "web-1" },
        { kind: "createVm", machine: "web-0", revision: "web-1", why: "3 machines are missing" },
        { kind: "createVm", machine: "web-1" },
        { kind: "createVm", machine: "web-2" },
      ],
    });
    expect(writesOf(wire)).toEqual([]);
  });

  it("has machines in the order of their numbers", async () => {
    const machines = [aVm(10), aVm(9, { ready: false, deletionTimestamp: "2026-05-01T12:00:00Z" })];

    const { body } = await showOne(aClusterWith(aSettledPool({ replicas: 1 }), machines));

    expect(body["members"]).toEqual([
      { name: "web-9", uid: "vm-9-of-web", ordinal: 9, revision: "web-1", ready: false, terminating: true },
      { name: "web-10", uid: "vm-10-of-web", ordinal: 10, revision: "web-1", ready: true, terminating: false },
    ]);
  });

  it("is shown with the status that is stored, in the fields that are known", async () => {
    const status = { replicas: 1, readyReplicas: 0, labelSelector: "app=web", other: "s3cr3t" };

    const { body } = await showOne(aClusterWith(aSettledPool({ status }), [aVm(0)]));

    expect(body["status"]).toEqual({ replicas: 1, readyReplicas: 0, labelSelector: "app=web", conditions: [] });
  });

  it("says what holds it", async () => {
    const { body } = await showOne(aClusterWith(aPool({ spec: { maxUnavailable: 0 } })));

    expect(body["members"]).toBeNull();
    expect(body["plan"]).toMatchObject({ problems: [{ field: "spec.maxUnavailable" }], actions: [], reasons: [] });
  });

  it("shows nothing of its secrets", async () => {
    const SECRET = "s3cr3t";
    const metadata = { labels: { app: "web" }, annotations: { note: SECRET } };
    const volumes = [
      { name: "seed", cloudInitNoCloud: { userData: SECRET, networkDataBase64: SECRET } },
      { name: "drive", cloudInitConfigDrive: { userDataBase64: SECRET, networkData: SECRET } },
      { name: "answers", sysprep: { secret: { name: SECRET } } },
    ];
    const accessCredentials = [{ userPassword: { source: { secret: { secretName: SECRET } } } }];
    const template = { metadata, spec: { volumes, accessCredentials, domain: { cpu: { cores: 2 } } } };
    const spec = { virtualMachineTemplate: { metadata, spec: { running: true, template } } };
    const annotations = { "kubectl.kubernetes.io/last-applied-configuration": SECRET };

    const { text, body } = await showOne(aClusterWith(aPool({ spec, annotations })));

    expect(text).not.toContain(SECRET);
    expect(body["spec"]).toMatchObject({
      virtualMachineTemplate: {
        spec: {
          running: true,
          template: {
            spec: {
              domain: { cpu: { cores: 2 } },
              volumes: [{ name: "seed" }, { name: "drive" }, { name: "answers" }],
            },
          },
        },
      },
    });
  });

  it.each([
    ["cluster", { ...ONE, cluster: "moon" }, 'no cluster "moon" is registered'],
    ["name that Kubernetes allows", { ...ONE, name: "../x" }, expect.any(String)],
  ])("is not found without a %s", async (_what, parameters, title) => {
    const wire = aWire();

    expect(await showOne(wire, {}, { parameters })).toEqual(aProblem(404, title));
    expect(linesOf(wire)).toEqual([]);
  });

  it.each([
    [refusal(404, "NotFound"), 404, 'cluster "west" has no pool ci/web'],
    [refusal(403, "Forbidden", "you may not"), 403, "the pool cannot be read: you may not"],
    [refusal(503, "ServiceUnavailable", "busy"), 503, "the pool cannot be read: busy"],
    [networkError("ECONNREFUSED"), 503, "the pool cannot be read: the API server cannot be reached (ECONNREFUSED)"],
  ])("answers a refusal of the cluster with a problem", async (reply, status, title) => {
    const wire = aWire(on(DISCOVERY, served("v1beta1")), on(GET_POOL, reply));

    const answer = await showOne(wire);

    expect(answer).toEqual(aProblem(status, title));
    expect(answer.headers["retry-after"]).toBe(status === 503 ? "1" : undefined);
  });

  it("is not shown from a namespace that is not served", async () => {
    const wire = aWire();

    expect(await showOne(wire, { namespaces: ["qa"] })).toEqual(aProblem(403));
    expect(linesOf(wire)).toEqual([]);
  });
});

it.each([undefined, ONE])("shows nothing that no authorizer of the gateway has let in", async (parameters) => {
  const wire = aWire();
  const { get } = aFleet({ west: { wire } });

  const answer = await get({ authorizer: undefined, ...(parameters === undefined ? {} : { parameters }) });

  expect(answer).toEqual(aProblem(401));
  expect(linesOf(wire)).toEqual([]);
});

it("is only read", async () => {
  const answer = await aFleet({}).get({ method: "POST" });

  expect(answer).toEqual(aProblem(405));
  expect(answer.headers["allow"]).toBe("GET");
});

it("says without particulars that the registry cannot be used", async () => {
  const log = aLog();
  const directory = {
    names: () => Promise.reject(new Error("s3cr3t")),
    find: async () => undefined,
    refuse: () => {},
  };
  const handler = createFleet(() => ({ directory, now: () => NOW, logger: log }));
  const requestContext = { http: { method: "GET" }, authorizer: JWT };

  const answer = await handler(
    { version: "2.0", rawPath: "/pools", requestContext, isBase64Encoded: false },
    aContext(),
  );

  expect(answer.statusCode).toBe(500);
  expect(answer.body).not.toContain("s3cr3t");
  expect(log.at("error")).toEqual(["function failed"]);
});
