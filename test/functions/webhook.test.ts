import { createHmac } from "node:crypto";
import { CloudEvent, HTTP, type Message } from "cloudevents";
import { describe, expect, it } from "vitest";
import { createWebhook } from "../../functions/webhook.ts";
import { RegistryError } from "../../shared/clusters/registry.ts";
import { hashSecret } from "../../shared/events/signatures.ts";
import { aContext } from "../support/handlers.ts";
import { aListener, anHttpEvent, BEARER_TOKEN, type HttpFields, type ListenerFields } from "../support/http-events.ts";
import { anIssuer } from "../support/issuer.ts";
import { aLogEntry, anAuditEvent, aPush } from "../support/log-entries.ts";
import { NOW } from "../support/transport-objects.ts";

const AUTHORIZED = { authorization: `Bearer ${BEARER_TOKEN}` };

async function post({ headers = {}, parameters = { cluster: "west" }, ...fields }: HttpFields, listener = aListener()) {
  const event = anHttpEvent({ parameters, headers: { ...AUTHORIZED, ...headers }, ...fields });
  const answer = await createWebhook(listener.deps)(event, aContext());
  return {
    ...listener,
    answer,
    woken: listener.mailbox.sent.map(({ wakeUp }) => `${wakeUp.namespace}/${wakeUp.name} ${wakeUp.cause}`),
  };
}

const anEventList = (...items: readonly unknown[]) => ({
  kind: "EventList",
  apiVersion: "audit.k8s.io/v1",
  metadata: {},
  items,
});
const VM_REF = { resource: "virtualmachines", apiGroup: "kubevirt.io", name: "web-0" };

describe("audit events", () => {
  it("wake the pool that a finished write is about", async () => {
    const { answer, mailbox } = await post({ body: anEventList(anAuditEvent()) });
    expect(answer.statusCode).toBe(202);
    expect(mailbox.sent).toEqual([
      {
        queue: "passes",
        seenAtMs: NOW,
        wakeUp: { version: 1, cluster: "west", namespace: "ci", name: "web", cause: "pool", attempt: 0 },
      },
    ]);
  });

  it("of machines wake their pool once a cause, however many there are", async () => {
    const items = [0, 1, 2].map((ordinal) => anAuditEvent({ verb: "delete" }, { ...VM_REF, name: `web-${ordinal}` }));
    const { woken } = await post({ body: anEventList(...items, anAuditEvent()) });
    expect(woken).toEqual(["ci/web vm", "ci/web pool"]);
  });

  it.each([
    ["a read", anAuditEvent({ verb: "get" })],
    ["a refused write", anAuditEvent({ responseStatus: { code: 409 } })],
    ["a write that has only begun", anAuditEvent({ stage: "RequestReceived" })],
    ["a dry run", anAuditEvent({ requestURI: "/apis/x?fieldManager=k&dryRun=All" })],
    ["a collection without a name", anAuditEvent({ verb: "deletecollection" }, { ...VM_REF, name: undefined })],
    ["another kind", anAuditEvent({}, { resource: "pods", apiGroup: undefined })],
    ["our own write to a machine", anAuditEvent({ user: { groups: ["vmpool-functions"] } }, VM_REF)],
    ["our own claim", anAuditEvent({ user: { groups: ["vmpool-functions"] } })],
  ])("of %s wake nobody", async (_name, item) => {
    const { answer, woken } = await post({ body: anEventList(item) });
    expect([answer.statusCode, woken]).toEqual([202, []]);
  });

  it("of a machine's status ask for no wide look", async () => {
    const { woken } = await post({ body: anEventList(anAuditEvent({}, { ...VM_REF, subresource: "status" })) });
    expect(woken).toEqual(["ci/web instance"]);
  });

  it.each(["scale", "status"])("of a pool's %s wake it, whoever wrote it", async (subresource) => {
    const item = anAuditEvent({ user: { groups: ["vmpool-functions"] } }, { subresource });
    const { woken } = await post({ body: anEventList(item) });
    expect(woken).toEqual(["ci/web pool"]);
  });

  it("that are bad do not lose the others", async () => {
    const { answer, woken } = await post({ body: anEventList({ stage: 7 }, anAuditEvent(), "x") });
    expect([answer.statusCode, JSON.parse(answer.body), woken]).toEqual([
      202,
      { woken: 1, unreadable: 2 },
      ["ci/web pool"],
    ]);
  });
});

describe("CloudEvents", () => {
  const attributes = {
    specversion: "1.0",
    id: "6f1c",
    type: "dev.knative.apiserver.resource.update",
    source: "https://10.96.0.1:443",
    kind: "VirtualMachinePool",
    name: "web",
    namespace: "ci",
  };
  const pool = {
    apiVersion: "pool.kubevirt.io/v1beta1",
    kind: "VirtualMachinePool",
    metadata: { name: "web", namespace: "ci" },
  };
  const reference = { apiVersion: "kubevirt.io/v1", kind: "VirtualMachine", name: "web-3", namespace: "ci" };
  const binary = Object.fromEntries(Object.entries(attributes).map(([name, value]) => [`ce-${name}`, value]));
  const structured = { "content-type": "application/cloudevents+json; charset=utf-8" };
  const batch = { "content-type": "application/cloudevents-batch+json" };

  it.each<[string, HttpFields, readonly string[]]>([
    ["binary, Resource mode", { headers: binary, body: pool }, ["ci/web pool"]],
    [
      "binary, Reference mode",
      {
        headers: { ...binary, "ce-type": "dev.knative.apiserver.ref.delete", "ce-kind": "VirtualMachine" },
        body: reference,
      },
      ["ci/web vm"],
    ],
    [
      "structured, which API Gateway hands over in base64",
      { headers: structured, body: { ...attributes, data: pool }, base64: true },
      ["ci/web pool"],
    ],
    [
      "structured with data in base64",
      {
        headers: structured,
        body: { ...attributes, data_base64: Buffer.from(JSON.stringify(reference)).toString("base64") },
      },
      ["ci/web vm"],
    ],
    [
      "batch",
      {
        headers: batch,
        body: [
          { ...attributes, data: pool },
          { ...attributes, id: "2", data: reference },
        ],
        base64: true,
      },
      ["ci/web pool", "ci/web vm"],
    ],
    [
      "of a kind that does not matter",
      {
        headers: { ...binary, "ce-kind": "Pod" },
        body: { apiVersion: "v1", kind: "Pod", metadata: { name: "p", namespace: "ci" } },
      },
      [],
    ],
  ])("are taken: %s", async (_name, request, expected) => {
    const { answer, woken } = await post(request);
    expect([answer.statusCode, woken]).toEqual([202, expected]);
  });

  describe("of the SDK", () => {
    const sent = (subject: string, data: object) =>
      new CloudEvent({ source: "https://10.96.0.1:443", type: "dev.knative.apiserver.resource.update", subject, data });
    const events = [sent("pool", pool), sent("machine", reference)];
    const requestOf = ({ headers, body }: Message): HttpFields => ({
      headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), String(value)])),
      body,
      base64: !String(headers["content-type"]).startsWith("application/json"),
    });

    it.each<[string, readonly HttpFields[]]>([
      ["binary", events.map((event) => requestOf(HTTP.binary(event)))],
      ["structured", events.map((event) => requestOf(HTTP.structured(event)))],
      ["batch", [requestOf({ headers: batch, body: JSON.stringify(events) })]],
    ])("wake the same pools in mode %s", async (_mode, requests) => {
      const listener = aListener();
      for (const request of requests) expect((await post(request, listener)).answer.statusCode).toBe(202);
      expect(listener.mailbox.sent.map(({ wakeUp }) => `${wakeUp.name} ${wakeUp.cause}`)).toEqual([
        "web pool",
        "web vm",
      ]);
    });
  });

  it.each([
    ["https://eventgrid.azure.net", 400, undefined],
    ["eventemitter.example.com", 200, "eventemitter.example.com"],
    ["", 400, undefined],
    ["a b", 400, undefined],
  ])("are expected, says the handshake, which asks nobody and proves nothing: %j", async (origin, status, allowed) => {
    const headers = { authorization: "", "webhook-request-origin": origin };
    const { answer, entries, woken } = await post({ method: "OPTIONS", headers });
    expect([answer.statusCode, answer.headers["webhook-allowed-origin"]]).toEqual([status, allowed]);
    expect([entries, woken]).toEqual([[], []]);
  });

  it("one bad of a batch does not lose the others", async () => {
    const { answer, woken } = await post({
      headers: batch,
      body: [{ id: "no version" }, { ...attributes, data: pool }],
    });
    expect([answer.statusCode, woken]).toEqual([202, ["ci/web pool"]]);
  });

  it("cannot name another cluster than the one whose secret let them in", async () => {
    const { mailbox } = await post({
      headers: { ...binary, "ce-cluster": "east" },
      body: { ...pool, cluster: "east" },
    });
    expect(mailbox.sent.map(({ wakeUp }) => wakeUp.cluster)).toEqual(["west"]);
  });

  it("above 256 KiB are refused", async () => {
    const { answer } = await post({ headers: binary, body: { ...pool, filler: "x".repeat(256 * 1024) } });
    expect(answer.statusCode).toBe(413);
  });
});

describe("a push of Pub/Sub", () => {
  it("wakes the pool that its LogEntry is about", async () => {
    const { answer, woken } = await post({ body: aPush(aLogEntry()) });
    expect([answer.statusCode, woken]).toEqual([202, ["ci/web pool"]]);
  });

  it("is taken when it tells of nothing, so that it is not sent again for ever", async () => {
    const { answer, woken } = await post({ body: aPush(aLogEntry({ serviceName: "container.googleapis.com" })) });
    expect([answer.statusCode, woken]).toEqual([202, []]);
  });

  it("cannot name another cluster than the one whose secret let it in", async () => {
    const entry = { ...aLogEntry(), resource: { type: "k8s_cluster", labels: { cluster_name: "east" } } };
    const { mailbox } = await post({ body: aPush(entry) });
    expect(mailbox.sent.map(({ wakeUp }) => wakeUp.cluster)).toEqual(["west"]);
  });
});

describe("what is no event", () => {
  it.each([
    ["text", { body: "hello" }],
    ["another object", { body: { kind: "Pod", apiVersion: "v1" } }],
    ["nothing", {}],
    ["a batch that is none", { headers: { "content-type": "application/cloudevents-batch+json" }, body: "{" }],
    ["only bad events", { body: anEventList({ stage: 7 }) }],
    ["a push of something else", { body: aPush({ hello: "world" }) }],
  ])("is answered with what is accepted: %s", async (_name, request) => {
    const { answer, woken } = await post(request);
    expect([answer.statusCode, woken]).toEqual([400, []]);
    expect(JSON.parse(answer.body).title).toContain("CloudEvent");
  });

  it.each([
    ["no token", { headers: { authorization: "" } }],
    ["another token", { headers: { authorization: "Bearer wrong" } }],
    ["an unknown cluster", { parameters: { cluster: "north" } }],
    ["another cluster's token", { parameters: { cluster: "east" } }],
  ])("is refused before its body is read: %s", async (_name, request) => {
    const { answer, woken } = await post({ body: anEventList(anAuditEvent()), ...request });
    expect([answer.statusCode, answer.headers["www-authenticate"], woken]).toEqual([401, "Bearer", []]);
  });

  it("reads an unknown name's entry once, and again a minute later at the earliest", async () => {
    const listener = aListener();
    const knock = () => post({ parameters: { cluster: "north" }, body: {} }, listener);
    await knock();
    await knock();
    expect(listener.entries).toEqual(["north"]);
    listener.clock.now += 60_000;
    await knock();
    await knock();
    expect(listener.entries).toEqual(["north", "north"]);
  });
});

it("is let in with a secret that is younger than what was read of the registration", async () => {
  const listener = aListener({ west: { bearer: [hashSecret("old")] } });
  const knock = (token: string) =>
    post({ headers: { authorization: `Bearer ${token}` }, body: anEventList(anAuditEvent()) }, listener);
  expect((await knock("old")).answer.statusCode).toBe(202);
  listener.registered.west = { bearer: [hashSecret("new"), hashSecret("old")] };
  expect((await knock("new")).answer.statusCode).toBe(401);
  listener.clock.now += 60_000;
  expect((await knock("new")).answer.statusCode).toBe(202);
  expect((await knock("old")).answer.statusCode).toBe(202);
  expect(listener.entries).toEqual(["west", "west"]);
});

describe("a sender", () => {
  const SECRETS = [1, 2].map((fill) => `whsec_${Buffer.alloc(32, fill).toString("base64")}`);
  const BODY = JSON.stringify(anEventList(anAuditEvent()));

  function signed(secret = SECRETS[0], { body = BODY, at = NOW } = {}): Readonly<Record<string, string>> {
    const key = Buffer.from(secret?.slice("whsec_".length) ?? "", "base64");
    const timestamp = String(Math.floor(at / 1_000));
    const digest = createHmac("sha256", key).update(`msg_1.${timestamp}.${body}`).digest("base64");
    return {
      authorization: "",
      "webhook-id": "msg_1",
      "webhook-timestamp": timestamp,
      "webhook-signature": `v1,${digest}`,
    };
  }

  /** What one request costs: the answer's status, registry entries read, wake-ups sent. */
  async function ask(headers: Readonly<Record<string, string>>, fields: ListenerFields, request: HttpFields = {}) {
    const { answer, entries, mailbox } = await post({ body: BODY, headers, ...request }, aListener(fields));
    return [answer.statusCode, entries.length, mailbox.sent.length];
  }

  it.each([0, 1])("may sign with either of two secrets: %i", async (index) => {
    expect(await ask(signed(SECRETS[index]), { west: { standardWebhooks: SECRETS } })).toEqual([202, 1, 1]);
  });

  it.each([0, 1])("may bring either of two tokens: %i", async (index) => {
    const tokens = ["one", "two"];
    const headers = { authorization: `Bearer ${tokens[index]}` };
    expect(await ask(headers, { west: { bearer: tokens.map(hashSecret) } })).toEqual([202, 1, 1]);
  });

  it("signs the body as it was sent, in whatever form the gateway hands it over", async () => {
    const base64 = { base64: true, headers: { ...signed(), "content-type": "application/octet-stream" } };
    expect(await ask({}, { west: { standardWebhooks: SECRETS } }, base64)).toEqual([202, 1, 1]);
  });

  it("is let in by any one proof that is registered, whatever else it brings", async () => {
    const west = { standardWebhooks: SECRETS, bearer: [hashSecret("token")] };
    expect(await ask({ ...signed(SECRETS[0], { at: 0 }), authorization: "Bearer token" }, { west })).toEqual([
      202, 1, 1,
    ]);
    expect(await ask({ ...signed(), authorization: "Bearer wrong" }, { west })).toEqual([202, 1, 1]);
  });

  it.each<[string, Readonly<Record<string, string>>, ListenerFields["west"], HttpFields]>([
    [
      "a forged signature",
      signed(`whsec_${Buffer.alloc(32, 9).toString("base64")}`),
      { standardWebhooks: SECRETS },
      {},
    ],
    ["the signature of another body", signed(), { standardWebhooks: SECRETS }, { body: `${BODY} ` }],
    ["the signature of a body cut short", signed(), { standardWebhooks: SECRETS }, { body: BODY.slice(0, -1) }],
    ["a message of six minutes ago", signed(SECRETS[0], { at: NOW - 360_000 }), { standardWebhooks: SECRETS }, {}],
    ["a signature where tokens are asked for", signed(), { bearer: [hashSecret("token")] }, {}],
    ["a token where signatures are asked for", AUTHORIZED, { standardWebhooks: SECRETS }, {}],
    ["a token for the path", AUTHORIZED, { path: [hashSecret(BEARER_TOKEN)] }, {}],
    ["no token where that of nothing is registered", { authorization: "Bearer " }, { bearer: [hashSecret("")] }, {}],
    ["a token where nothing is registered", AUTHORIZED, {}, {}],
    ["west's signature for east", signed(), { standardWebhooks: SECRETS }, { parameters: { cluster: "east" } }],
  ])("with %s is turned away, at the cost of one entry of the registry", async (_what, headers, west = {}, request) => {
    expect(await ask(headers, { west }, request)).toEqual([401, 1, 0]);
  });

  it.each(["North/1", "__proto__", "x".repeat(64), ""])(
    "for what is no cluster's name costs nothing: %j",
    async (cluster) => {
      expect(await ask(AUTHORIZED, {}, { parameters: { cluster } })).toEqual([401, 0, 0]);
    },
  );

  it.each<[string, number, Readonly<Record<string, string>>]>([
    ["audit events", 3 * 1024 * 1024, {}],
    ["a CloudEvent", 256 * 1024, { "content-type": "application/cloudevents+json" }],
    ["a binary CloudEvent", 256 * 1024, { "ce-specversion": "1.0" }],
  ])(
    "of %s of more than %i bytes is turned away before anything is hashed or looked up",
    async (_what, bytes, more) => {
      const body = "x".repeat(bytes + 1);
      const headers = { ...signed(SECRETS[0], { body }), ...more };
      expect(await ask(headers, { west: { standardWebhooks: SECRETS } }, { body })).toEqual([413, 0, 0]);
      const fits = "x".repeat(bytes);
      const signedToo = { ...signed(SECRETS[0], { body: fits }), ...more };
      expect(await ask(signedToo, { west: { standardWebhooks: SECRETS } }, { body: fits })).toEqual([400, 1, 0]);
    },
  );

  describe("with a token of an issuer", () => {
    async function aSender() {
      const listenerClock = { now: NOW };
      const issuer = await anIssuer(listenerClock);
      const listener = aListener({ west: { oidc: issuer.rules }, keys: issuer.keys() });
      const send = async (token: string) =>
        (await post({ body: BODY, headers: { authorization: `Bearer ${token}` } }, listener)).answer;
      return { ...issuer, ...listener, send };
    }

    it("is let in when the token is what the registration says", async () => {
      const { send, token, mailbox } = await aSender();
      expect([(await send(await token())).statusCode, mailbox.sent.length]).toEqual([202, 1]);
    });

    it("is turned away when it is not, and the issuer is asked once a minute", async () => {
      const { send, token, asked, mailbox } = await aSender();
      for (let count = 0; count < 3; count += 1) {
        expect((await send(await token({ claims: { aud: "other" } }))).statusCode).toBe(401);
        expect((await send(await token({ kid: "unknown" }))).statusCode).toBe(401);
        expect((await send("nonsense")).statusCode).toBe(401);
      }
      expect([asked.length, mailbox.sent]).toEqual([2, []]);
    });

    it("is asked to come again when the issuer's keys cannot be had", async () => {
      const { send, token, answers, log } = await aSender();
      answers.set("/keys", (_request, response) => void response.writeHead(503).end());
      const answer = await send(await token());
      expect([answer.statusCode, answer.headers["retry-after"]]).toEqual([503, "1"]);
      expect(log.at("error")).toEqual(["keys of the issuer are missing"]);
    });
  });

  it("leaves no secret in the log, whatever it brings", async () => {
    const listener = aListener({ west: { standardWebhooks: SECRETS, bearer: [hashSecret("s3cr3t")] } });
    await post({ body: "s3cr3t", headers: { ...signed(), authorization: "Bearer s3cr3t-not" } }, listener);
    await post({ body: "s3cr3t", headers: { authorization: "Bearer s3cr3t" } }, listener);
    expect(listener.log.at("warn")).toEqual(["events were not authorized"]);
    expect(JSON.stringify(listener.log.lines)).not.toMatch(/s3cr3t|v1,|whsec/);
  });
});

it("asks the sender to come again when the queue is down", async () => {
  const listener = aListener();
  listener.mailbox.down.add("passes");
  const { answer } = await post({ body: anEventList(anAuditEvent()) }, listener);
  expect([answer.statusCode, answer.headers["retry-after"]]).toEqual([503, "1"]);
});

it.each(["unavailable", "invalid"] as const)(
  "asks the sender to come again when the registration is %s: he may be a good one",
  async (kind) => {
    const listener = aListener();
    const bad = new RegistryError("the cluster registry /clusters/west/webhook cannot be used", { kind });
    const webhooks = { ...listener.deps().webhooks, find: async () => Promise.reject(bad) };
    const deps = () => ({ ...listener.deps(), webhooks });
    const event = anHttpEvent({ parameters: { cluster: "west" }, headers: AUTHORIZED, body: anEventList() });
    const answer = await createWebhook(deps)(event, aContext());

    expect([answer.statusCode, answer.headers["retry-after"]]).toEqual([503, "1"]);
    expect(answer.body).not.toContain("/clusters/");
    expect(listener.log.at("error")).toEqual(["registration of senders cannot be read"]);
    expect(listener.mailbox.sent).toEqual([]);
  },
);
