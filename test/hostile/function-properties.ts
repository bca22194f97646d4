/** Rules of the functions, as their triggers call them: events of every sort in, answers, wake-ups, log lines and requests to clusters out. */
import assert from "node:assert/strict";
import { gunzipSync, gzipSync } from "node:zlib";
import * as fc from "fast-check";
import { createAdmission } from "../../functions/admission.ts";
import { createAudit } from "../../functions/audit.ts";
import { createFleet } from "../../functions/fleet.ts";
import { createReconcile } from "../../functions/reconcile.ts";
import { createResync } from "../../functions/resync.ts";
import { createScale } from "../../functions/scale.ts";
import { createStatus } from "../../functions/status.ts";
import { createWebhook } from "../../functions/webhook.ts";
import type { ApiRequest, ApiResponse } from "../../shared/clusters/connection.ts";
import { hashSecret } from "../../shared/events/signatures.ts";
import { isRecord, parseJson } from "../../shared/planning/json.ts";
import { OBJECT_NAME } from "../../shared/planning/names.ts";
import { judge } from "../../shared/planning/verdict.ts";
import { EventError } from "../../shared/runtime/stack.ts";
import {
  aBatch,
  aBus,
  aBusEvent,
  aContext,
  aDirectory,
  aLog,
  aMailbox,
  aMessage,
  aWakeUp,
  TICK,
} from "../support/handlers.ts";
import { aListener, anHttpEvent, BEARER_TOKEN, PATH_TOKEN } from "../support/http-events.ts";
import { aLogDelivery, aLogEntry, anAuditEvent, aPush } from "../support/log-entries.ts";
import { lineOf, ok, refusal, type Wire } from "../support/transport.ts";
import {
  aList,
  aPool,
  aSettledPool,
  aVm,
  DATE,
  DISCOVERY,
  NAMESPACE,
  NOW,
  poolPath,
  SELECTOR,
  served,
  VMS,
} from "../support/transport-objects.ts";
import {
  asJson,
  bodyOf,
  CANARY,
  damaged,
  hostileJson,
  hostileText,
  type Json,
  mistyped,
  SECRET_SCRIPT,
  textOf,
} from "./arbitraries.ts";
import { type Property, property } from "./property.ts";

/** Of an invocation: short, because the functions' own deadlines are timers that nobody waits for. */
const TIME_LEFT_MS = 20_000;
/** The token with which `aDirectory` reaches its clusters. */
const ACCESS_TOKEN = "s3cr3t";
const SECRETS: readonly string[] = [BEARER_TOKEN, PATH_TOKEN, ACCESS_TOKEN, CANARY];
/** What a queue and a log line take with ease. */
const MESSAGE_LENGTH_MAX = 2_000;
const LOG_LENGTH_MAX = 30_000;

/** Fails when one of the secrets is in any of it. */
function assertSecretFree(told: unknown): void {
  const text = textOf(told);
  for (const secret of SECRETS) assert(!text.includes(secret), `a secret is told: ${text.slice(0, 1_000)}`);
}

type Answerer = (request: ApiRequest) => ApiResponse;

/** A cluster in one function, which remembers what it was sent. */
function aServer(answer: Answerer): Wire & { readonly writes: () => readonly string[] } {
  const sent: ApiRequest[] = [];
  return {
    sent,
    closed: 0,
    writes: () => sent.filter(({ method }) => method !== "GET").map(lineOf),
    async send(request) {
      // As it goes over the wire: what cannot be sent fails here, too.
      JSON.stringify(request.body);
      sent.push(request);
      return answer(request);
    },
    watch() {
      throw new Error("functions do not watch");
    },
    async close() {},
  };
}

/** A legal pool with a secret where secrets belong, and nothing to do for a pass. */
const SECRET_TEMPLATE = {
  metadata: { labels: { app: "web" } },
  spec: {
    running: true,
    template: {
      metadata: { labels: { app: "web" } },
      spec: { volumes: [{ name: "seed", cloudInitNoCloud: { userData: SECRET_SCRIPT } }] },
    },
  },
};
const SETTLED = asJson(
  aSettledPool({
    spec: { virtualMachineTemplate: SECRET_TEMPLATE, autohealing: {}, updateStrategy: { opportunistic: {} } },
  }),
);
const MACHINE = asJson(aVm(0));
const LISTED = aList([{}]).body;

/** Serves the settled pool; `twist` may answer otherwise. */
function settledAnswer(request: ApiRequest, pool: unknown = SETTLED): ApiResponse {
  const line = lineOf(request);
  if (line === DISCOVERY) return served("v1beta1");
  if (line === `GET ${poolPath()}`) return ok(pool, DATE);
  if (line === `GET ${VMS}`) return ok({ ...asRecord(LISTED), items: [MACHINE] }, DATE);
  if (request.method === "GET" && /s$/.test(line.split("/").at(-1) ?? ""))
    return ok({ ...asRecord(LISTED), items: [] }, DATE);
  return request.method === "GET" ? refusal(404, "NotFound") : ok(asRecord(pool), DATE);
}

function asRecord(value: unknown): object {
  return isRecord(value) ? value : {};
}

function aPassOver(answer: Answerer) {
  const server = aServer(answer);
  const [mailbox, bus, log] = [aMailbox(), aBus(), aLog()];
  const { directory } = aDirectory({ west: { wire: server } }, () => NOW);
  let nonces = 0;
  const handler = createReconcile(() => ({
    directory,
    wakeUps: mailbox,
    facts: bus,
    deployment: "here",
    stopped: false,
    now: () => NOW,
    sleep: async () => {},
    nonce: () => {
      nonces += 1;
      return `nonce-${nonces}`;
    },
    logger: log,
  }));
  return { handler, server, mailbox, bus, log };
}

/** Writes that no settled pool needs: Kubernetes Events and the claim on the pool are others. */
function machineWrites(lines: readonly string[]): readonly string[] {
  return lines.filter((line) => !line.endsWith("/events") && line !== `PATCH ${poolPath()}`);
}

/** Which answer of the cluster is spoiled, and by what. */
async function passOverSpoiled({ at, spoil }: Spoiled): Promise<void> {
  const { handler, server, mailbox, bus, log } = aPassOver((request) => {
    const answer = settledAnswer(request);
    const isSpoiled = at === ALL_MACHINES ? lineOf(request) === `GET ${VMS}` : server.sent.length - 1 === at;
    return isSpoiled ? spoil(answer) : answer;
  });
  assert.deepEqual(await handler(aBatch(aMessage({ cause: "sweep" })), aContext(TIME_LEFT_MS)), {
    batchItemFailures: [],
  });
  assert.deepEqual(machineWrites(server.writes()), []);
  assert(!log.at("error").includes("pass failed"), JSON.stringify(log.lines).slice(0, 2_000));
  for (const fact of bus.published) assert(JSON.stringify(fact).length < 200_000);
  assertSecretFree([log.lines, mailbox.sent, bus.published, eventsOf(server)]);
}

function eventsOf({ sent }: Wire): readonly unknown[] {
  return sent.filter((request) => lineOf(request).endsWith("/events")).map(({ body }) => body);
}

/** In the place of a request's number: every list of machines. */
const ALL_MACHINES = 4;

interface Spoiled {
  readonly at: number;
  readonly spoil: (answer: ApiResponse) => ApiResponse;
}

const GARBAGE: fc.Arbitrary<unknown> = fc.oneof(
  hostileJson,
  fc.constantFrom("<html>502</html>", '{"items":[', "", null, [], { items: [null] }, { kind: "Status" }, { items: {} }),
);

const spoiled: fc.Arbitrary<Spoiled> = fc.oneof(
  // Another type of value in one place: seeds are numbers, so that the answer decides what can be spoiled.
  fc.record({ at: fc.nat(ALL_MACHINES), seed: fc.nat() }).map(
    ({ at, seed }): Spoiled => ({
      at,
      spoil: (answer) => ({ ...answer, body: fc.sample(mistyped(answer.body), { numRuns: 1, seed })[0] }),
    }),
  ),
  fc
    .record({
      at: fc.nat(ALL_MACHINES),
      body: GARBAGE,
      status: fc.constantFrom(200, 200, 201, 204, 301, 400, 401, 403, 409, 410, 422, 429, 500, 503),
    })
    .map(({ at, body, status }): Spoiled => ({ at, spoil: (answer) => ({ ...answer, status, body }) })),
  fc
    .record({ at: fc.nat(ALL_MACHINES), headers: fc.dictionary(fc.constantFrom("date", "retry-after"), hostileText) })
    .map(
      ({ at, headers }): Spoiled => ({
        at,
        spoil: (answer) => ({ ...answer, headers: { ...answer.headers, ...headers } }),
      }),
    ),
);

/** A pool that somebody broke is held, and its owner told; a legal one is served, whatever it looks like. */
async function passOverPool(object: Json): Promise<void> {
  const { handler, server, mailbox, bus, log } = aPassOver((request) => settledAnswer(request, object));
  await handler(aBatch(aMessage()), aContext(TIME_LEFT_MS));
  const spec = isRecord(object) ? object["spec"] : undefined;
  if (!judge({ name: "web", spec }).legal) assert.deepEqual(machineWrites(server.writes()), []);
  assert(!log.at("error").includes("pass failed"), JSON.stringify(log.lines).slice(0, 2_000));
  for (const fact of bus.published) assert(JSON.stringify(fact).length < 200_000);
  for (const line of log.lines) assert(textOf(line).length < LOG_LENGTH_MAX, line.message);
  assertSecretFree([log.lines, mailbox.sent, bus.published, eventsOf(server)]);
}

const BEARER = { authorization: `Bearer ${BEARER_TOKEN}` };
const AUDIT = {
  kind: "EventList",
  apiVersion: "audit.k8s.io/v1",
  items: [
    {
      stage: "ResponseComplete",
      verb: "patch",
      requestURI: "/apis/x",
      user: { groups: ["g"] },
      objectRef: { resource: "virtualmachines", apiGroup: "kubevirt.io", namespace: NAMESPACE, name: "web-0" },
      responseStatus: { code: 200 },
      requestObject: { spec: SECRET_SCRIPT },
    },
  ],
};
const CLOUD_EVENT = {
  specversion: "1.0",
  id: "1",
  source: "s",
  type: "t",
  kind: "VirtualMachine",
  apiversion: "kubevirt.io/v1",
  name: "web-0",
  namespace: NAMESPACE,
  data: aVm(0),
};
const CONTENT_TYPES = [
  "application/json",
  "application/cloudevents+json",
  "application/cloudevents-batch+json; charset=utf-8",
];

const SIGNED = ["webhook-id", "webhook-timestamp", "webhook-signature"];

const headerSets = fc
  .tuple(
    fc.constantFrom(...CONTENT_TYPES),
    fc.dictionary(
      fc.constantFrom("ce-specversion", "ce-id", "ce-type", "ce-kind", "ce-__proto__", "ce-name", "x", ...SIGNED),
      fc.oneof(hostileText, fc.constantFrom(String(NOW / 1_000), "v1,AAAA v1,", "msg_1")),
      { maxKeys: 4 },
    ),
    fc.oneof(
      { weight: 8, arbitrary: fc.constant(BEARER) },
      { weight: 1, arbitrary: hostileText.map((authorization) => ({ authorization })) },
    ),
  )
  .map(([type, more, bearer]) => ({ ...more, "content-type": type, ...bearer }));

interface Post {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  readonly base64: boolean;
  readonly cluster: string;
}

const clusterNames = fc.oneof({ weight: 9, arbitrary: fc.constant("west") }, { weight: 1, arbitrary: hostileText });
const post = (value: fc.Arbitrary<unknown>): fc.Arbitrary<Post> =>
  fc.record({ headers: headerSets, body: bodyOf(value), base64: fc.boolean(), cluster: clusterNames });

function assertWakeUps(
  { mailbox, log }: Pick<ReturnType<typeof aListener>, "mailbox" | "log">,
  isAuthorized: boolean,
): void {
  for (const { wakeUp } of mailbox.sent) {
    assert.equal(wakeUp.cluster, "west");
    assert(OBJECT_NAME.test(wakeUp.namespace) && OBJECT_NAME.test(wakeUp.name), JSON.stringify(wakeUp).slice(0, 500));
    assert(JSON.stringify(wakeUp).length < MESSAGE_LENGTH_MAX);
  }
  if (!isAuthorized) assert.deepEqual(mailbox.sent, []);
  for (const line of log.lines) assert(JSON.stringify(line).length < MESSAGE_LENGTH_MAX);
  assertSecretFree([mailbox.sent, log.lines]);
}

/** In a push, however deep it is nested. */
const pushed = (entry: Json) => ({
  message: { data: Buffer.from(textOf(entry)).toString("base64") },
  subscription: "projects/example/subscriptions/west",
});

const DELIVERY = parseJson(gunzipSync(Buffer.from(aLogDelivery([anAuditEvent()]).awslogs.data, "base64")).toString());
const SIGNING_SECRET = `whsec_${Buffer.from(CANARY.padEnd(32)).toString("base64")}`;
const ISSUER = { issuer: "https://issuer.example", audience: "a", subject: "s" };
const WEST = { bearer: [hashSecret(BEARER_TOKEN)], standardWebhooks: [SIGNING_SECRET], oidc: ISSUER };

/** A token that says what is registered, but for one of its parts, and a signature of nobody. */
const forgedTokens = fc
  .tuple(
    fc.oneof(damaged({ alg: "ES256", kid: "key-1" }), hostileJson),
    fc.oneof(damaged({ iss: ISSUER.issuer, aud: "a", sub: "s", exp: NOW }), hostileJson),
    fc.base64String(),
  )
  .map(([header, payload, signature]) => {
    const part = (value: unknown) => Buffer.from(textOf(value)).toString("base64url");
    return `${part(header)}.${part(payload)}.${signature}`;
  });

/** Whatever a token says, nobody is let in by it while its issuer has published nothing. */
async function postToken(token: string): Promise<void> {
  const asked: string[] = [];
  const keys = { find: async (issuer: string) => void asked.push(issuer), refuse: () => {} };
  const listener = aListener({ west: WEST, keys });
  const headers = { authorization: `Bearer ${token}` };
  const event = anHttpEvent({ parameters: { cluster: "west" }, headers, body: AUDIT });
  const answer = await createWebhook(listener.deps)(event, aContext(TIME_LEFT_MS));
  assert((asked.length === 0 ? [401] : [503]).includes(answer.statusCode), String(answer.statusCode));
  assert(asked.every((issuer) => issuer === ISSUER.issuer));
  assertWakeUps(listener, false);
}

/** What a subscription delivers, packed as CloudWatch Logs does it. */
async function readLog(data: string): Promise<void> {
  const [mailbox, log] = [aMailbox(), aLog()];
  const handler = createAudit(() => ({ clusters: {}, wakeUps: mailbox, now: () => NOW, logger: log }));
  const { woken } = await handler({ awslogs: { data } }, aContext(TIME_LEFT_MS));
  assert.equal(mailbox.sent.length, woken);
  assertWakeUps({ mailbox, log }, true);
}

async function postEvents({ headers, body, base64, cluster }: Post): Promise<void> {
  const listener = aListener({ west: WEST });
  const event = anHttpEvent({ parameters: { cluster }, headers, body, base64 });
  const answer = await createWebhook(listener.deps)(event, aContext(TIME_LEFT_MS));
  const isAuthorized = cluster === "west" && headers["authorization"] === BEARER.authorization;
  assert((isAuthorized ? [202, 400, 413] : [401, 413]).includes(answer.statusCode), String(answer.statusCode));
  assert(answer.body.length < MESSAGE_LENGTH_MAX);
  assertSecretFree(answer);
  assertWakeUps(listener, isAuthorized);
}

const REVIEWED = {
  ...aPool({ spec: { virtualMachineTemplate: SECRET_TEMPLATE } }),
};
const REVIEW = {
  apiVersion: "admission.k8s.io/v1",
  kind: "AdmissionReview",
  request: {
    uid: "r",
    resource: { group: "pool.kubevirt.io", version: "v1beta1", resource: "virtualmachinepools" },
    name: "web",
    namespace: NAMESPACE,
    operation: "UPDATE",
    userInfo: { groups: ["g"] },
    object: REVIEWED,
    oldObject: aPool(),
  },
};

async function review({ body, base64, cluster, token }: Post & { readonly token: string }): Promise<void> {
  const listener = aListener();
  const event = anHttpEvent({ parameters: { cluster, token }, body, base64 });
  const answer = await createAdmission(listener.deps)(event, aContext(TIME_LEFT_MS));
  const isAuthorized = cluster === "west" && token === PATH_TOKEN;
  assert((isAuthorized ? [200, 400, 413] : [401]).includes(answer.statusCode), String(answer.statusCode));
  const response = asRecord(asRecord(parseJson(answer.body) ?? {}));
  const isAllowed = JSON.stringify(response).includes('"allowed":true');
  if (answer.statusCode === 200 && !isAllowed) assert.deepEqual(listener.mailbox.sent, []);
  assert(answer.body.length < LOG_LENGTH_MAX);
  assertSecretFree(answer);
  assertWakeUps(listener, isAuthorized);
}

const SCALE = {
  kind: "Scale",
  apiVersion: "autoscaling/v1",
  metadata: { name: "web", namespace: NAMESPACE, resourceVersion: "100" },
  spec: { replicas: 3 },
  status: { replicas: 1, selector: SELECTOR },
};
const JSON_PATCH = [
  { op: "test", path: "/spec/replicas", value: 1 },
  { op: "replace", path: "/spec/replicas", value: 3 },
];
/** Of any pool: which one is for the client to say. */
const SCALE_WRITE = /^(PUT|PATCH) .*\/namespaces\/[a-z0-9.-]+\/virtualmachinepools\/[a-z0-9.-]+\/scale$/;

function scaling(answer: Json) {
  const server = aServer((request) => {
    const line = lineOf(request);
    if (line === DISCOVERY) return served("v1beta1");
    return line.endsWith("/scale") ? ok(answer) : refusal(404, "NotFound");
  });
  const [mailbox, log] = [aMailbox(), aLog()];
  const { directory } = aDirectory({ west: { wire: server } }, () => NOW);
  const handler = createScale(() => ({
    directory,
    wakeUps: mailbox,
    now: () => NOW,
    sleep: async () => {},
    logger: log,
  }));
  return { handler, server, mailbox, log };
}

/** Nothing but the scale of a pool is written, and nothing but a number of machines into it. */
function assertScaled({ server, mailbox, log }: ReturnType<typeof scaling>, told: unknown): void {
  for (const request of server.sent.filter(({ method }) => method !== "GET")) {
    assert.match(lineOf(request), SCALE_WRITE);
    const { body } = request;
    const written: readonly unknown[] = Array.isArray(body)
      ? body
          .filter((entry) => isRecord(entry) && entry["op"] !== "test" && entry["path"] === "/spec/replicas")
          .map(({ value }) => value)
      : [isRecord(body) && isRecord(body["spec"]) ? body["spec"]["replicas"] : undefined];
    for (const value of written) {
      assert(
        value === undefined ||
          (typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= 2 ** 31 - 1),
      );
    }
  }
  for (const line of log.lines) assert(textOf(line).length < MESSAGE_LENGTH_MAX);
  assertSecretFree([told, mailbox.sent, log.lines]);
}

const SCALE_TYPES = ["application/json", "application/merge-patch+json", "application/json-patch+json", "text/html"];
const scaleCall = fc.record({
  method: fc.constantFrom("GET", "PUT", "PATCH", "PATCH", "DELETE"),
  type: fc.constantFrom(...SCALE_TYPES),
  body: bodyOf(fc.oneof(damaged(SCALE), damaged(JSON_PATCH), damaged({ spec: { replicas: 2 } }), hostileJson)),
  base64: fc.boolean(),
  answer: fc.oneof({ weight: 4, arbitrary: fc.constant(asJson(SCALE)) }, { weight: 1, arbitrary: damaged(SCALE) }),
  name: fc.oneof({ weight: 6, arbitrary: fc.constant("web") }, { weight: 1, arbitrary: hostileText }),
});

const REQUEST = {
  version: 1,
  cluster: "west",
  namespace: NAMESPACE,
  name: "web",
  replicas: 3,
  requestedAt: "2026-05-01T12:00:00Z",
  expectedReplicas: 1,
  minReplicas: 0,
  maxReplicas: 5,
};
const FACT = {
  version: 1,
  cluster: "west",
  namespace: NAMESPACE,
  name: "web",
  uid: "uid-web",
  resourceVersion: "100",
  generation: 1,
  startedAt: new Date(NOW).toISOString(),
  durationMs: 5,
  requests: 3,
  actions: {},
  status: { replicas: 1, readyReplicas: 1, labelSelector: SELECTOR, conditions: [] },
  failures: [],
  complete: true,
};

/** Anything but the refusal of the event as a whole is an error that nobody handles. */
async function orRefused<T>(result: Promise<T>): Promise<T | undefined> {
  try {
    return await result;
  } catch (error) {
    // The stack throws a bare error in its place.
    assert(error instanceof Error && error.name === EventError.name, String(error));
    assert(error.message.length < MESSAGE_LENGTH_MAX);
    assertSecretFree(error.message);
    return undefined;
  }
}

async function tell(detail: Json): Promise<void> {
  const server = aServer((request) => settledAnswer(request));
  const [mailbox, log] = [aMailbox(), aLog()];
  const { directory } = aDirectory({ west: { wire: server } }, () => NOW);
  const handler = createStatus(() => ({ directory, wakeUps: mailbox, now: () => NOW, logger: log }));
  await orRefused(handler(aBusEvent(detail), aContext(TIME_LEFT_MS)));
  for (const line of server.writes()) assert.match(line, /^PATCH .*\/virtualmachinepools\/[^/]+\/status$/);
  assertSecretFree([mailbox.sent, log.lines]);
}

async function wake(body: string): Promise<void> {
  const { handler, server, mailbox, log } = aPassOver((request) => settledAnswer(request));
  const response = await handler(aBatch(aMessage({ id: "1", body })), aContext(TIME_LEFT_MS));
  assert.deepEqual(response, { batchItemFailures: [] });
  assert.deepEqual(machineWrites(server.writes()), []);
  assert(!log.at("error").includes("pass failed"));
  assertSecretFree([mailbox.sent, log.lines]);
}

/** Whatever a trigger hands over, each function answers or refuses the event. */
async function anyEvent([which, event]: readonly [number, Json]): Promise<void> {
  const server = aServer((request) => settledAnswer(request));
  const [mailbox, log, listener] = [aMailbox(), aLog(), aListener()];
  const { directory } = aDirectory({ west: { wire: server } }, () => NOW);
  const given = {
    directory,
    wakeUps: mailbox,
    now: () => NOW,
    logger: log,
    sleep: async () => {},
    rules: { settledMinutes: 10, everything: false },
  };
  const handlers = [
    createWebhook(listener.deps),
    createAudit(() => ({ ...given, clusters: {} })),
    createAdmission(listener.deps),
    createScale(() => given),
    createStatus(() => given),
    createFleet(() => given),
    createResync(() => given),
    aPassOver((request) => settledAnswer(request)).handler,
  ];
  const handler = handlers[which];
  assert(handler !== undefined);
  const result = await orRefused<unknown>(handler(event, aContext(TIME_LEFT_MS)));
  // Among the events is a fact as it should be.
  const written = machineWrites(server.writes()).filter((line) => line !== `PATCH ${poolPath()}/status`);
  assert.deepEqual(written, []);
  assertSecretFree([result, mailbox.sent, log.lines]);
}

const someEvent = fc.oneof(
  hostileJson,
  damaged(anHttpEvent({ parameters: { cluster: "west", token: PATH_TOKEN }, headers: BEARER, body: AUDIT })),
  damaged({
    ...anHttpEvent({ method: "GET", parameters: { cluster: "west", namespace: NAMESPACE, name: "web" } }),
    requestContext: { http: { method: "GET" }, authorizer: {} },
  }),
  damaged(aBatch(aMessage())),
  damaged(aBusEvent(FACT)),
  damaged(TICK),
  damaged(aLogDelivery([anAuditEvent()])),
);

/** The page's data of pools that are damaged, or answers that are no lists. */
async function show({ pool, one }: { readonly pool: Json; readonly one: boolean }): Promise<void> {
  const server = aServer((request) => {
    const isList = lineOf(request) === `GET ${poolPath().replace("/namespaces/ci", "").replace("/web", "")}`;
    return isList
      ? ok({ ...asRecord(LISTED), kind: "VirtualMachinePoolList", items: [pool, null, SETTLED] })
      : settledAnswer(request, pool);
  });
  const log = aLog();
  const { directory } = aDirectory({ west: { wire: server } }, () => NOW);
  const parameters = one ? { cluster: "west", namespace: NAMESPACE, name: "web" } : {};
  const event = {
    ...anHttpEvent({ method: "GET", parameters }),
    requestContext: { http: { method: "GET" }, authorizer: {} },
  };
  const answer = await createFleet(() => ({ directory, now: () => NOW, logger: log }))(event, aContext(TIME_LEFT_MS));
  assert(!log.at("error").includes("function failed"), JSON.stringify(log.lines).slice(0, 2_000));
  assert.deepEqual(server.writes(), []);
  assertSecretFree([answer, log.lines]);
}

async function resync(pools: readonly Json[]): Promise<void> {
  const server = aServer((request) =>
    lineOf(request).endsWith("virtualmachinepools")
      ? ok({ ...asRecord(LISTED), items: pools }, DATE)
      : settledAnswer(request),
  );
  const [mailbox, log] = [aMailbox(), aLog()];
  const { directory } = aDirectory({ west: { wire: server } }, () => NOW);
  const rules = { settledMinutes: 10, everything: true };
  await createResync(() => ({ directory, wakeUps: mailbox, rules, now: () => NOW, logger: log }))(
    TICK,
    aContext(TIME_LEFT_MS),
  );
  assert.deepEqual(server.writes(), []);
  assert(
    log.at("error").every((message) => message === "a pool's metadata are not what the API promises"),
    JSON.stringify(log.lines).slice(0, 2_000),
  );
  assertSecretFree([mailbox.sent, log.lines]);
}

export const FUNCTIONS: readonly Property[] = [
  property("an answer of the API server that is spoiled moves no machine", {
    weight: 2,
    input: spoiled,
    holds: passOverSpoiled,
  }),
  property("a pool that is damaged is held or served, and its owner told", {
    weight: 2,
    input: fc.oneof(damaged(SETTLED), mistyped(SETTLED)),
    holds: passOverPool,
  }),
  property("events are recognised or refused", {
    weight: 3,
    input: post(
      fc.oneof(
        damaged(AUDIT),
        damaged(CLOUD_EVENT),
        damaged([CLOUD_EVENT, CLOUD_EVENT]),
        damaged(aPush(aLogEntry())),
        fc.oneof(damaged(aLogEntry()), mistyped(aLogEntry())).map(pushed),
        hostileJson,
      ),
    ),
    holds: postEvents,
  }),
  property("a token that its issuer has not signed lets nobody in", {
    weight: 2,
    input: forgedTokens,
    holds: postToken,
  }),
  property("a log is read or dropped", {
    weight: 2,
    input: fc.oneof(
      bodyOf(damaged(DELIVERY)).map((text) => gzipSync(text).toString("base64")),
      fc
        .array(fc.oneof(damaged(anAuditEvent()), hostileJson), { maxLength: 5 })
        .map((events) => aLogDelivery(events.map(textOf)).awslogs.data),
      hostileText,
    ),
    holds: readLog,
  }),
  property("admission reviews are answered or refused", {
    weight: 3,
    input: fc
      .tuple(
        post(fc.oneof(damaged(REVIEW), mistyped(REVIEW), hostileJson)),
        fc.oneof({ weight: 8, arbitrary: fc.constant(PATH_TOKEN) }, { weight: 1, arbitrary: hostileText }),
      )
      .map(([sent, token]) => ({ ...sent, token })),
    holds: review,
  }),
  property("a scale is read or changed, or refused", {
    weight: 3,
    input: scaleCall,
    holds: async ({ method, type, body, base64, answer, name }) => {
      const world = scaling(answer);
      const parameters = { cluster: "west", version: "v1beta1", namespace: NAMESPACE, name };
      const event = anHttpEvent({ method, parameters, headers: { "content-type": type }, body, base64 });
      assertScaled(world, await world.handler(event, aContext(TIME_LEFT_MS)));
    },
  }),
  property("a scale request that came as an event is served or refused", {
    weight: 2,
    input: fc.oneof(damaged(REQUEST), mistyped(REQUEST), hostileJson),
    holds: async (detail) => {
      const world = scaling(asJson(SCALE));
      const event = { ...aBusEvent(detail), "detail-type": "Virtual Machine Pool Scale Requested" };
      assertScaled(world, await world.handler(event, aContext(TIME_LEFT_MS)));
    },
  }),
  property("a fact changes nothing but a status", {
    weight: 2,
    input: fc.oneof(damaged(FACT), mistyped(FACT), hostileJson),
    holds: tell,
  }),
  property("a message that is no wake-up moves nothing", {
    weight: 2,
    input: bodyOf(fc.oneof(damaged(aWakeUp()), mistyped(aWakeUp()), hostileJson)),
    holds: wake,
  }),
  property("every function answers any event, or refuses it", {
    weight: 2,
    input: fc.tuple(fc.nat(7), someEvent),
    holds: anyEvent,
  }),
  property("pools that are damaged are shown without their secrets", {
    weight: 2,
    input: fc.record({ pool: fc.oneof(damaged(SETTLED), hostileJson), one: fc.boolean() }),
    holds: show,
  }),
  property("the schedule passes over pools that are damaged", {
    weight: 2,
    input: fc.array(fc.oneof(damaged(SETTLED), hostileJson), { maxLength: 4 }),
    holds: resync,
  }),
];
